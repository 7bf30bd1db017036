// What must hold after every commit: I1 (closure, and a version that turns valid), I2 (references), I3 (names), I5 (sent once).
// Only what a commit has changed is looked at, so that it can be done after each.
import type { BlockId, StorageId, VersionUid } from "#lib/core/ids.ts";
import { isLeaving, type BlockRecord, type Copy } from "#lib/repository/block-record.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import type { VersionRecord } from "#lib/repository/records.ts";
import type { SimStorage } from "../engine/sim-storage.ts";
import type { Branches } from "./branches.ts";
import type { Change, Commit, Mirror } from "./mirror.ts";
import { demand } from "./violation.ts";

/** What the checkers look at besides the metadata. */
export interface CommitSurroundings {
  readonly mirror: Mirror;
  readonly storages: ReadonlyMap<StorageId, SimStorage>;
  readonly branches: Branches;
  /** Nobody is too slow for anybody's patience in this run. */
  readonly isPatient: boolean;
}

/** Checks commits, one after the other. */
export class CommitCheckers {
  readonly #around: CommitSurroundings;
  /** "child parent" of what nodes, versions and holds make. */
  readonly #expected = new Set<string>();
  /** Every name that a record ever named, by "storage/name": whether one names it now. */
  readonly #named = new Map<string, boolean>();
  /** A rebuild is at work: it may name what is found, and find copies lost. */
  isRebuilding = false;

  constructor(around: CommitSurroundings) {
    this.#around = around;
  }

  /** Checks a commit that the mirror has taken in. */
  check(commit: Commit): void {
    for (const [id, change] of commit.blocks) this.#checkBlock(id, change);
    this.#checkReferences(commit);
    if (this.isRebuilding) return;
    for (const { storage, name } of commit.trashed) {
      demand(
        this.#named.get(`${storage}/${name}`) !== true,
        "I3",
        () => `${name} at ${storage} went to trash while its record names it`,
      );
    }
    for (const [id, change] of commit.blocks) this.#checkClosure(id, change.after);
    for (const [id, { before, after }] of commit.nodes) {
      if (before === undefined && after !== undefined)
        this.#checkClosure(id, this.#around.mirror.blocks.get(id));
    }
    for (const [uid, change] of commit.versions) this.#checkVersion(uid, change);
  }

  /** After a rebuild, or when metadata were put back: everything is looked at anew. */
  reset(): void {
    const { mirror } = this.#around;
    this.#expected.clear();
    for (const [id, children] of mirror.nodes)
      for (const child of children) this.#expected.add(`${child} n${id}`);
    for (const version of mirror.versions.values()) {
      const pair = versionPair(version);
      if (pair !== undefined) this.#expected.add(pair);
    }
    for (const { id, parent } of mirror.holds.values()) this.#expected.add(`${id} ${parent}`);
    this.#named.clear();
    for (const [id, record] of mirror.blocks)
      for (const name of namesOf(id, record)) this.#named.set(name, true);
  }

  #checkBlock(id: BlockId, { before, after }: Change<BlockRecord>): void {
    const old = new Set(before === undefined ? [] : namesOf(id, before));
    const now = new Set(after === undefined ? [] : namesOf(id, after));
    for (const name of old) if (!now.has(name)) this.#named.set(name, false);
    for (const name of now) {
      if (old.has(name)) continue;
      demand(
        this.isRebuilding || !this.#named.has(name),
        "I3",
        () => `the name ${name} is used a second time`,
      );
      this.#named.set(name, true);
    }
    for (const copy of after?.copies ?? []) this.#checkCopy(id, after as BlockRecord, copy, before);
    this.#noteBranches(before, after);
  }

  /** A copy is *placed* only when its object is there; what is coming from a live session is not taken over in patience. */
  #checkCopy(id: BlockId, record: BlockRecord, copy: Copy, before: BlockRecord | undefined): void {
    const { mirror, storages, branches, isPatient } = this.#around;
    const old = before?.copies.filter((other) => other.storage === copy.storage) ?? [];
    if (
      copy.state === "placed" &&
      !old.some((other) => isSame(other, copy) && other.state === "placed")
    ) {
      const name = objectName(record.kind, id, copy.generation);
      const store = storages.get(copy.storage);
      demand(
        this.isRebuilding || store?.objects.has(name) === true || store?.harmed.has(name) === true,
        "I3",
        () => `${name} at ${copy.storage} is placed, but it is not there`,
      );
    }
    if (copy.state !== "coming") return;
    const from = old.find((other) => other.state === "coming");
    if (from?.state !== "coming" || from.session === copy.session) return;
    const isLive = mirror.sessions.get(from.session)?.state === "live";
    branches.hit(isLive ? "takeover-from-slow" : "takeover-from-dead");
    demand(
      !isLive || !isPatient,
      "I5",
      () => `${id} at ${copy.storage} is sent by two live sessions`,
    );
  }

  #noteBranches(before: BlockRecord | undefined, after: BlockRecord | undefined): void {
    const { branches } = this.#around;
    if (before?.condemnedEpoch !== undefined && after !== undefined) {
      if (after.condemnedEpoch === undefined) branches.hit("condemned-revived");
    }
    if (before?.damaged === true && after?.damaged === false) branches.hit("damage-repaired");
    if (before?.damaged === false && after?.damaged === true)
      branches.hit(after.kind === "node" ? "damage-climbed" : "damage-marked");
    for (const leaving of before?.copies.filter(isLeaving) ?? []) {
      const same = after?.copies.find((copy) => isSame(copy, leaving));
      if (after !== undefined && same === undefined) branches.hit("copy-left");
      if (same?.state === "placed" && !isLeaving(same)) branches.hit("leaving-relied-upon");
    }
    for (const { storage, state, generation } of before?.copies ?? []) {
      const now = after?.copies.find((copy) => copy.storage === storage && copy.state === state);
      if (state === "placed" && now !== undefined && now.generation !== generation)
        branches.hit("copy-renewed");
    }
    const bad = before?.copies.find((copy) => copy.state === "bad");
    if (bad === undefined || after === undefined) return;
    const same = after.copies.find((copy) => isSame(copy, bad));
    if (same?.state === "placed") branches.hit("false-alarm-undone");
    if (same === undefined && after.copies.some((copy) => copy.storage === bad.storage))
      branches.hit("bad-copy-replaced");
  }

  /** I1: what a placed node names has a copy at the same storage, placed, or bad with a new one owed or coming. */
  #checkClosure(id: BlockId, record: BlockRecord | undefined): void {
    const { mirror } = this.#around;
    const children = record?.kind === "node" ? (mirror.nodes.get(id) ?? []) : [];
    for (const copy of record?.copies ?? []) {
      if (copy.state !== "placed") continue;
      for (const child of children) this.#checkEdge(id, child, copy.storage);
    }
    for (const parent of mirror.references.get(id)?.values() ?? []) {
      if (parent.kind !== "node") continue;
      for (const copy of mirror.blocks.get(parent.id)?.copies ?? []) {
        if (copy.state === "placed") this.#checkEdge(parent.id, id, copy.storage);
      }
    }
  }

  #checkEdge(parent: BlockId, child: BlockId, storage: StorageId): void {
    // What is there no more is forgotten in any order.
    if (this.#around.mirror.storages.get(storage)?.state === "retired") return;
    const copies =
      this.#around.mirror.blocks.get(child)?.copies.filter((copy) => copy.storage === storage) ??
      [];
    const isThere =
      copies.some((copy) => copy.state === "placed") ||
      (copies.some((copy) => copy.state === "bad") && copies.length === 2);
    demand(
      isThere,
      "I1",
      () =>
        `${parent} is placed at ${storage}, its child ${child} is not: ${copies.map((copy) => copy.state).join() || "nothing"}`,
    );
  }

  /** I2, for what this commit has touched: what makes a reference, and its record. */
  #checkReferences(commit: Commit): void {
    const touched = new Set(commit.references);
    const make = (pair: string, isMade: boolean): void => {
      if (isMade) this.#expected.add(pair);
      else this.#expected.delete(pair);
      touched.add(pair);
    };
    for (const [id, { before, after }] of commit.nodes) {
      for (const child of before ?? []) make(`${child} n${id}`, false);
      for (const child of after ?? []) make(`${child} n${id}`, true);
    }
    for (const { before, after } of commit.versions.values()) {
      const [old, now] = [versionPair(before), versionPair(after)];
      if (old !== undefined) make(old, false);
      if (now !== undefined) make(now, true);
    }
    for (const { before, after } of commit.holds.values()) {
      if (before !== undefined) make(`${before.id} ${before.parent}`, false);
      if (after !== undefined) make(`${after.id} ${after.parent}`, true);
    }
    if (this.isRebuilding) return;
    for (const pair of touched) {
      const [child = "", parent = ""] = pair.split(" ");
      const isThere = this.#around.mirror.references.get(child as BlockId)?.has(parent) === true;
      const isMade = this.#expected.has(pair);
      demand(
        isThere === isMade,
        "I2",
        () =>
          `the reference ${pair} is ${isThere ? "there" : "missing"}, and ${isMade ? "something" : "nothing"} makes it`,
      );
    }
  }

  /** I1: a version turns valid only with its root placed at a quorum, and unmarked. */
  #checkVersion(uid: VersionUid, { before, after }: Change<VersionRecord>): void {
    const { mirror, branches } = this.#around;
    const had = before?.policy.storages.length ?? Infinity;
    const has = after?.policy.storages.length ?? had;
    if (has > had) branches.hit("policy-widened");
    if (has < had && before !== undefined) branches.hit("policy-narrowed");
    if (before?.state !== "incomplete" || after?.state !== "valid") return;
    const root = after.root === undefined ? undefined : mirror.blocks.get(after.root);
    const counting = after.policy.storages.filter((storage) => {
      const state = mirror.storages.get(storage)?.state;
      return state === "in-use" || state === "readonly";
    });
    const placed = counting.filter((storage) =>
      root?.copies.some((copy) => copy.storage === storage && copy.state === "placed"),
    );
    demand(
      placed.length >= after.policy.quorum && root?.damaged === false,
      "I1",
      () =>
        `${uid} turned valid with its root placed at ${placed.length} of ${after.policy.quorum}`,
    );
  }
}

const isSame = (one: Copy, other: Copy): boolean =>
  one.storage === other.storage && one.generation === other.generation;

function namesOf(id: BlockId, { kind, copies }: BlockRecord): string[] {
  return copies.map(({ storage, generation }) => `${storage}/${objectName(kind, id, generation)}`);
}

function versionPair(version: VersionRecord | undefined): string | undefined {
  if (version?.root === undefined) return undefined;
  if (version.state !== "valid" && version.state !== "invalid") return undefined;
  return `${version.root} v${version.uid}`;
}
