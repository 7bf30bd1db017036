// What holds in the metadata alone, whatever the storages and the actors do: closure (I1), references (I2), names (I3).
import { key, objectName } from "#lib/repository/keyspace.ts";
import type { BlockId, SessionId, StorageId, VersionUid } from "#lib/core/ids.ts";
import type { BlockRecord } from "#lib/repository/block-record.ts";
import type { MetadataView } from "./metadata-view.ts";
import { violated, type Violation } from "./violation.ts";

/** The first violation in the metadata. */
export function checkMetadata(view: MetadataView): Violation | undefined {
  return (
    checkReferences(view) ??
    checkClosure(view) ??
    checkVersions(view) ??
    checkNames(view) ??
    checkQueues(view) ??
    checkForgotten(view)
  );
}

const short = (id: string): string => id.slice(0, 4);

/** I2: the recorded references are those that nodes, versions and holds make. */
function checkReferences(view: MetadataView): Violation | undefined {
  const expected = new Set<string>();
  const add = (child: BlockId, parent: Parameters<typeof key.reference>[1]): void =>
    void expected.add(key.reference(child, parent).toString("latin1"));
  for (const [id, children] of view.nodes) {
    for (const child of children) add(child, { kind: "node", id });
  }
  for (const [uid, { state, root }] of view.versions) {
    if (root === undefined || state === "removed") continue;
    add(root, { kind: "version", uid: uid as VersionUid });
  }
  for (const { session, id, level, index } of view.holds) {
    add(id, { kind: "hold", session: session as SessionId, position: { level, index } });
  }
  for (const { text, child, parent } of view.references) {
    if (expected.delete(text)) continue;
    return violated("I2", `a ${parent.kind} is recorded to refer to ${short(child)}, but does not`);
  }
  return expected.size === 0
    ? undefined
    : violated("I2", `${expected.size} references are not recorded`);
}

/** I1: what a placed node names has a copy at the same storage, placed, or bad with a new one on its way. */
function checkClosure(view: MetadataView): Violation | undefined {
  for (const [id, record] of view.records) {
    if (record.kind !== "node") continue;
    for (const { state, storage } of record.copies) {
      if (state !== "placed") continue;
      const children = view.nodes.get(id);
      if (children === undefined) return violated("I1", `node ${short(id)} has no text`);
      const open = children.find((child) => !isClosed(view.records.get(child), storage));
      if (open !== undefined) {
        const where = `${short(id)} is placed at ${short(storage)}`;
        return violated("I1", `node ${where}, but its child ${short(open)} is not there`);
      }
    }
  }
  return undefined;
}

function isClosed(record: BlockRecord | undefined, storage: StorageId): boolean {
  const states = (record?.copies ?? [])
    .filter((copy) => copy.storage === storage)
    .map(({ state }) => state);
  if (states.includes("placed")) return true;
  return states.includes("bad") && (states.includes("owed") || states.includes("coming"));
}

function checkVersions(view: MetadataView): Violation | undefined {
  for (const [uid, { state, root }] of view.versions) {
    if (state !== "valid" && state !== "invalid") continue;
    if (root === undefined || !view.nodes.has(root) || !view.records.has(root)) {
      return violated("I1", `version ${uid} is ${state}, but its root is gone`);
    }
  }
  return undefined;
}

/** I3: trash names nothing that a record names, and no name stands twice. */
function checkNames(view: MetadataView): Violation | undefined {
  const trash = new Set(view.trash.map(({ storage, name }) => `${storage}/${name}`));
  const seen = new Set<string>();
  for (const [id, { kind, copies }] of view.records) {
    for (const { storage, generation, state } of copies) {
      const at = `${storage}/${objectName(kind, id, generation)}`;
      const what = `${short(id)}.${generation} at ${short(storage)}, which is ${state}`;
      if (trash.has(at)) return violated("I3", `trash names ${what}`);
      if (seen.has(at)) return violated("I3", `two copies are named ${what}`);
      seen.add(at);
    }
  }
  return undefined;
}

/** I4, where it shows at once: the queues say what the records say. */
function checkQueues(view: MetadataView): Violation | undefined {
  const owed = new Set(view.owed.map(({ storage, id }) => `${storage}/${id}`));
  const condemned = new Set(view.condemned.map(({ epoch, id }) => `${epoch}/${id}`));
  for (const [id, { copies, condemnedEpoch }] of view.records) {
    for (const { state, storage } of copies) {
      if (state === "owed" && !owed.delete(`${storage}/${id}`)) {
        return violated("I4", `a copy of ${short(id)} is owed, but in no queue`);
      }
    }
    if (condemnedEpoch !== undefined && !condemned.delete(`${condemnedEpoch}/${id}`)) {
      return violated("I4", `${short(id)} is condemned, but in no queue`);
    }
  }
  return owed.size + condemned.size === 0
    ? undefined
    : violated("I4", "a queue names what no record is");
}

/** I4, where it shows at once: what is coming is claimed, and what nothing refers to is where somebody will look for it. */
function checkForgotten(view: MetadataView): Violation | undefined {
  const claims = new Set(view.claims.map(({ session, id }) => `${session}/${id}`));
  const claimed = new Set<BlockId>(view.claims.map(({ id }) => id));
  const queued = new Set<BlockId>(view.unreferenced);
  const referenced = new Set<BlockId>(view.references.map(({ child }) => child));
  for (const [id, { copies, condemnedEpoch }] of view.records) {
    for (const copy of copies) {
      if (copy.state !== "coming") continue;
      if (view.sessions.has(copy.session) && claims.has(`${copy.session}/${id}`)) continue;
      return violated("I4", `a copy of ${short(id)} is coming from a session without a claim`);
    }
    if (referenced.has(id) || condemnedEpoch !== undefined) continue;
    if (queued.has(id) || claimed.has(id)) continue;
    return violated("I4", `nothing refers to ${short(id)}, and it is queued nowhere`);
  }
  return undefined;
}
