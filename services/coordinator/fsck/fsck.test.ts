import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setImmediate } from "node:timers/promises";
import type { BlockId, Generation, SessionId, StorageId } from "#lib/core/ids.ts";
import type { KvTransaction } from "#lib/ports/kv.ts";
import { encodeBlockRecord, type BlockRecord, type Copy } from "#lib/repository/block-record.ts";
import { key, objectName, range } from "#lib/repository/keyspace.ts";
import { queueTrash, readBlock, writeCounter } from "#lib/repository/ledger.ts";
import { encodeRecord, type VersionRecord } from "#lib/repository/records.ts";
import { drainRechecks, recheckStep } from "#lib/repository/transactions/recheck.ts";
import { markBad } from "#lib/repository/transactions/verify.ts";
import { removeVersion } from "#lib/repository/transactions/version.ts";
import { collectGarbage } from "#services/coordinator/gc-job.ts";
import { putOwedHeads } from "#services/writer/heads.ts";
import { decodeNode } from "#proto/node.ts";
import { openTiny, type TinyRepository } from "#test/fixtures/tiny-repository.ts";
import { checkReferences } from "./references.ts";
import { FsckRun, type FsckFinding, type FsckInvariant } from "./run.ts";
import { runFsck } from "./fsck.ts";

const EMPTY = Buffer.alloc(0);
const STRANGER = "00000000000000aa";
const BLOCKS = ["a", "b", undefined, "c"];

/** A repository with two versions over two storages, and what tests want of it. */
interface Plot {
  readonly tiny: TinyRepository;
  readonly version: VersionRecord;
  readonly root: BlockId;
  readonly block: BlockId;
}

async function openPlot(): Promise<Plot> {
  const tiny = await openTiny();
  await tiny.backup(["x", "b"]);
  const version = await tiny.backup(BLOCKS);
  return { tiny, version, root: version.root as BlockId, block: tiny.blockId("a") };
}

async function save(
  tx: KvTransaction,
  id: BlockId,
  change: (record: BlockRecord) => BlockRecord,
): Promise<void> {
  // The record alone, without the queues that should follow: that is the mistake.
  tx.set(key.block(id), encodeBlockRecord(change((await readBlock(tx, id)) as BlockRecord)));
}

const at = (record: BlockRecord, storage: StorageId): Copy =>
  record.copies.find((copy) => copy.storage === storage) as Copy;

const without =
  (storage: StorageId) =>
  (record: BlockRecord): BlockRecord => ({
    ...record,
    copies: record.copies.filter((copy) => copy.storage !== storage),
  });

/** One mistake, and what fsck is to say of it. */
interface Plant {
  readonly name: string;
  readonly invariant: FsckInvariant;
  readonly what: RegExp;
  /** False where only a rebuild, or a person, can tell what was right. */
  readonly repairable: boolean;
  /** Other findings that follow from it. */
  readonly also?: readonly FsckInvariant[];
  readonly plant: (plot: Plot, tx: KvTransaction) => Promise<void> | void;
}

const PLANTS: readonly Plant[] = [
  {
    name: "a placed node over a block that is not at its storage",
    invariant: "closure",
    what: /is placed at storage .*, but block .* is not/,
    repairable: true,
    also: ["queues"],
    plant: ({ tiny, block }, tx) => save(tx, block, without(tiny.id(0))),
  },
  {
    name: "a node whose child has no record",
    invariant: "closure",
    what: /block .*, which it names, has no record/,
    repairable: false,
    also: ["queues", "marks"],
    plant: ({ block }, tx) => tx.clear(key.block(block)),
  },
  {
    name: "a valid version below its quorum",
    invariant: "closure",
    what: /placed at 0 of 1 storages/,
    repairable: false,
    also: ["marks", "queues"],
    plant: ({ root }, tx) =>
      save(tx, root, (record) => ({
        ...record,
        copies: record.copies.map(({ storage, generation }) => ({
          state: "owed",
          storage,
          generation,
        })),
      })),
  },
  {
    name: "a version whose root has no record",
    invariant: "closure",
    what: /its root .* has no record/,
    repairable: false,
    also: ["records", "queues"],
    plant: ({ root }, tx) => tx.clear(key.block(root)),
  },
  {
    name: "a missing reference of a node",
    invariant: "references",
    what: /it is missing/,
    repairable: true,
    also: ["queues"],
    plant: ({ root, block }, tx) => tx.clear(key.reference(block, { kind: "node", id: root })),
  },
  {
    name: "a missing reference of a version",
    invariant: "references",
    what: /it is missing/,
    repairable: true,
    also: ["queues"],
    plant: ({ root, version }, tx) =>
      tx.clear(key.reference(root, { kind: "version", uid: version.uid })),
  },
  {
    name: "a missing reference of a hold",
    invariant: "references",
    what: /it is missing/,
    repairable: true,
    plant: ({ root }, tx) => {
      const session = STRANGER as SessionId;
      tx.set(key.session(session), encodeRecord({ kind: "restore", state: "live" }));
      tx.set(key.hold(session, { level: 255, index: 0 }), Buffer.from(root, "hex"));
    },
  },
  {
    name: "a reference that its parent does not make",
    invariant: "references",
    what: /nothing makes it: it keeps/,
    repairable: true,
    plant: ({ tiny, root }, tx) =>
      tx.set(key.reference(tiny.blockId("x"), { kind: "node", id: root }), EMPTY),
  },
  {
    name: "a reference of a parent that is gone",
    invariant: "references",
    what: /nothing makes it: it keeps/,
    repairable: true,
    plant: ({ block }, tx) =>
      tx.set(key.reference(block, { kind: "node", id: "7".repeat(64) as BlockId }), EMPTY),
  },
  {
    name: "a reference of a hold that is gone",
    invariant: "references",
    what: /nothing makes it: it keeps/,
    repairable: true,
    plant: ({ root }, tx) => {
      const position = { level: 1, index: 0 };
      const session = STRANGER as SessionId;
      tx.set(key.reference(root, { kind: "hold", session, position }), EMPTY);
    },
  },
  {
    name: "the references of a node whose content was lost",
    invariant: "references",
    what: /parent was not removed either/,
    repairable: false,
    also: ["nodes"],
    plant: ({ root }, tx) => tx.clear(key.node(root)),
  },
  {
    name: "a node whose content was changed",
    invariant: "nodes",
    what: /its content does not fit its id/,
    repairable: false,
    plant: async ({ root }, tx) => {
      const plain = (await tx.get(key.node(root))) as Buffer;
      plain[plain.length - 1] = (plain.at(-1) as number) ^ 1;
      tx.set(key.node(root), plain);
    },
  },
  {
    name: "a mark in vain",
    invariant: "marks",
    what: /it is marked but has a good copy/,
    repairable: true,
    also: ["marks"],
    plant: ({ block }, tx) => save(tx, block, (record) => ({ ...record, damaged: true })),
  },
  {
    name: "a missing mark on a node over a marked block",
    invariant: "marks",
    what: /it is not marked, but .* below it is marked/,
    repairable: true,
    also: ["marks"],
    plant: plantUnclimbed,
  },
  {
    name: "a mark on a node over good blocks",
    invariant: "marks",
    what: /it is marked, but it and all below it is good/,
    repairable: true,
    also: ["marks"],
    plant: ({ root }, tx) => save(tx, root, (record) => ({ ...record, damaged: true })),
  },
  {
    name: "an invalid version over a good root",
    invariant: "marks",
    what: /it is invalid, but its root is good/,
    repairable: true,
    plant: ({ version }, tx) =>
      tx.set(key.version(version.uid), encodeRecord({ ...version, state: "invalid" })),
  },
  {
    name: "a placed copy that nobody will verify",
    invariant: "queues",
    what: /not queued to be verified/,
    repairable: true,
    plant: async ({ tiny, block }, tx) => {
      const copy = at((await readBlock(tx, block)) as BlockRecord, tiny.id(0));
      if (copy.state === "placed") tx.clear(key.verify(copy.storage, copy.verifiedMs, block));
    },
  },
  {
    name: "an owed copy that nobody will fill",
    invariant: "queues",
    what: /owed to storage .* but not queued/,
    repairable: true,
    plant: async ({ tiny, root }, tx) => {
      const storage = tiny.id(1);
      await save(tx, root, (record) => {
        const { generation } = at(record, storage);
        return {
          ...record,
          copies: [at(record, tiny.id(0)), { state: "owed", storage, generation }],
        };
      });
      const copy = at((await tiny.record(root)) as BlockRecord, storage);
      if (copy.state === "placed") tx.clear(key.verify(storage, copy.verifiedMs, root));
    },
  },
  {
    name: "a condemned record that nobody will remove",
    invariant: "queues",
    what: /condemned but not queued to be removed/,
    repairable: true,
    plant: ({ block }, tx) => save(tx, block, (record) => ({ ...record, condemnedEpoch: 1 })),
  },
  {
    name: "an unreferenced record that nobody looks at",
    invariant: "queues",
    what: /nothing refers to it, and it is queued nowhere/,
    repairable: true,
    plant: (_, tx) => {
      const record = { kind: "block", plainBytes: 1, storedBytes: 0, copies: [] } as const;
      const bytes = encodeBlockRecord({ ...record, condemnedEpoch: undefined, damaged: false });
      tx.set(key.block("7".repeat(64) as BlockId), bytes);
    },
  },
  {
    name: "a root that a storage of its policy is not owed",
    invariant: "queues",
    what: /its root is not owed there/,
    repairable: true,
    also: ["queues"],
    plant: ({ tiny, root }, tx) => save(tx, root, without(tiny.id(1))),
  },
  ...(["owed", "verify", "condemned"] as const).map((queue): Plant => ({
    name: `an entry of the ${queue} queue in vain`,
    invariant: "queues",
    what: /the queue says .*, but its record does not/,
    repairable: true,
    plant: ({ tiny, block }, tx) => {
      const keys = {
        owed: key.owed(tiny.id(0), block),
        verify: key.verify(tiny.id(0), 77, block),
        condemned: key.condemned(1, block),
      };
      tx.set(keys[queue], EMPTY);
    },
  })),
  {
    name: "a record that cannot be decoded",
    invariant: "records",
    what: /cannot be decoded/,
    repairable: false,
    also: ["marks", "queues"],
    plant: ({ block }, tx) => tx.set(key.block(block), Buffer.of(9, 9)),
  },
  {
    name: "two copies at one storage",
    invariant: "records",
    what: /two copies of it at storage/,
    repairable: false,
    also: ["queues"],
    plant: ({ tiny, block }, tx) =>
      save(tx, block, (record) => {
        const copy: Copy = { ...at(record, tiny.id(0)), generation: STRANGER as Generation };
        return { ...record, copies: [...record.copies, copy] };
      }),
  },
  {
    name: "a copy at a storage that nobody knows",
    invariant: "records",
    what: /which these metadata do not know/,
    repairable: false,
    plant: ({ block }, tx) =>
      save(tx, block, (record) => ({
        ...record,
        copies: [
          ...record.copies,
          { state: "bad", storage: STRANGER as StorageId, generation: STRANGER as Generation },
        ],
      })),
  },
  {
    name: "a version that is missing in the index",
    invariant: "versions",
    what: /missing in the index of volume/,
    repairable: true,
    plant: ({ version }, tx) =>
      tx.clear(key.volume(version.volume, version.createdMs, version.uid)),
  },
  {
    name: "an entry of the index without a version",
    invariant: "versions",
    what: /fits no version/,
    repairable: true,
    plant: ({ version }, tx) => tx.set(key.volume(version.volume, 5, version.uid), EMPTY),
  },
  {
    name: "an unfinished version that nobody makes",
    invariant: "versions",
    what: /unfinished, and no session makes it/,
    repairable: true,
    plant: ({ version }, tx) => {
      const uid = "lost-000000" as VersionRecord["uid"];
      const record: VersionRecord = {
        ...version,
        uid,
        state: "incomplete",
        session: STRANGER as SessionId,
      };
      tx.set(key.version(uid), encodeRecord(record));
    },
  },
  {
    name: "a version's record that cannot be read",
    invariant: "records",
    what: /its record cannot be read/,
    repairable: false,
    plant: ({ version }, tx) => tx.set(key.version(version.uid), Buffer.of(0x81)),
    also: ["references"],
  },
  {
    name: "a version that was lost",
    invariant: "heads",
    what: /there is no version .*rebuild/,
    repairable: false,
    also: ["versions", "references"],
    plant: ({ version }, tx) => tx.clear(key.version(version.uid)),
  },
  {
    name: "a head that a storage neither has nor is owed",
    invariant: "heads",
    what: /neither has revision 1 of its head nor is owed it/,
    repairable: true,
    plant: async ({ tiny, version }, tx) => {
      const prefix = `heads/${tiny.hasher.headName(version.uid)}.`;
      const start = key.headAt(tiny.id(0), prefix);
      const end = key.headAt(tiny.id(0), `${prefix}\u007f`);
      for (const entry of await tx.range({ start, end, limit: 10 })) tx.clear(entry.key);
    },
  },
  {
    name: "a head that is owed in vain",
    invariant: "heads",
    what: /owed a head that is not meant for it/,
    repairable: true,
    plant: ({ version }, tx) =>
      writeCounter(tx, key.owedHead(STRANGER as StorageId, version.uid), 1),
  },
  {
    name: "a hold without its session",
    invariant: "sessions",
    what: /its session is gone/,
    repairable: true,
    also: ["references"],
    plant: ({ root }, tx) => {
      const [session, position] = [STRANGER as SessionId, { level: 0, index: 0 }];
      tx.set(key.hold(session, position), Buffer.from(root, "hex"));
    },
  },
  {
    name: "a claim without its session",
    invariant: "sessions",
    what: /its session is gone/,
    repairable: true,
    plant: ({ block }, tx) => tx.set(key.claim(STRANGER as SessionId, block), EMPTY),
  },
  {
    name: "a copy that nobody brings",
    invariant: "sessions",
    what: /is coming .* which has no claim on it/,
    repairable: true,
    also: ["queues", "closure"],
    plant: ({ tiny, block }, tx) =>
      save(tx, block, (record) => ({
        ...record,
        copies: [
          at(record, tiny.id(0)),
          {
            state: "coming",
            storage: tiny.id(1),
            generation: STRANGER as Generation,
            session: STRANGER as SessionId,
          },
        ],
      })),
  },
  {
    name: "a horizon that is left over",
    invariant: "sessions",
    what: /heartbeat or horizon is left over/,
    repairable: true,
    plant: (_, tx) => writeCounter(tx, key.horizon(STRANGER as SessionId), 1),
  },
  {
    name: "trash that a record names",
    invariant: "trash",
    what: /it is to be deleted, but its record names it as placed/,
    repairable: true,
    plant: async ({ tiny, block }, tx) => {
      const { generation } = at((await readBlock(tx, block)) as BlockRecord, tiny.id(0));
      await queueTrash(tx, tiny.id(0), objectName("block", block, generation));
    },
  },
  {
    name: "trash that is the head of a version",
    invariant: "trash",
    what: /known as the head of a version \(confirmed\)/,
    repairable: true,
    plant: async ({ tiny }, tx) => {
      const [head] = await tx.range({ ...range.headsAt(tiny.id(0)), limit: 1 });
      await queueTrash(tx, tiny.id(0), (head as { key: Buffer }).key.subarray(10).toString());
    },
  },
  {
    name: "locked trash that a record names",
    invariant: "trash",
    what: /it is to be deleted, but its record names it as placed/,
    repairable: true,
    plant: async ({ tiny, block }, tx) => {
      const { generation } = at((await readBlock(tx, block)) as BlockRecord, tiny.id(0));
      const name = objectName("block", block, generation);
      tx.set(key.waiting(tiny.id(0), name), Buffer.alloc(24));
      tx.set(key.waitingUntil(tiny.id(0), 0, name), Buffer.alloc(8));
    },
  },
  {
    name: "locked trash that would wait for ever",
    invariant: "trash",
    what: /in no queue of those that do/,
    repairable: true,
    plant: ({ tiny }, tx) => tx.set(key.waiting(tiny.id(0), "blocks/gone"), Buffer.alloc(24)),
  },
  {
    name: "a rebuild that was interrupted",
    invariant: "rebuild",
    what: /has not come to its end/,
    repairable: false,
    plant: (_, tx) => tx.set(Buffer.from("rb/t"), Buffer.of(1)),
  },
];

/** A block is bad everywhere and marked, and nobody was told. */
async function plantUnclimbed({ tiny, block }: Plot, tx: KvTransaction): Promise<void> {
  for (const copy of ((await tiny.record(block)) as BlockRecord).copies) {
    if (copy.state === "placed") tx.clear(key.verify(copy.storage, copy.verifiedMs, block));
    tx.set(key.owed(copy.storage, block), EMPTY);
  }
  await save(tx, block, (record) => ({
    ...record,
    damaged: true,
    copies: record.copies.flatMap(({ storage, generation }): Copy[] => [
      { state: "bad", storage, generation },
      { state: "owed", storage, generation: STRANGER as Generation },
    ]),
  }));
}

describe("fsck", () => {
  it("finds nothing in what the transactions make, at any step", async () => {
    const tiny = await openTiny();
    const clean = async (step: string): Promise<void> => {
      const { findings } = await runFsck(tiny.repo, { storages: true });
      assert.deepEqual(findings, [], step);
    };
    await clean("empty");
    const first = await tiny.backup(["a", "b", undefined, "a"]);
    await clean("one version");
    const session = await tiny.start();
    await session.bringBlock("c");
    await clean("a block without a node");
    const tree = await session.bringTree(["a", "c"]);
    await clean("a tree without a version");
    tiny.store(1).away = true;
    await session.bringBlock("only here");
    tiny.store(1).away = false;
    await clean("a block that is owed");
    await session.finish(tree, 2);
    await clean("a version without heads");
    await putOwedHeads(tiny.repo);
    await session.settle();
    await clean("a settled session");
    await removeVersion(tiny.kv, first.uid);
    await clean("a removed version");
    const dead = await tiny.start({ quorum: 2 });
    await dead.bringTree(["d", "e"]);
    await dead.die();
    await clean("a dead session");
    await collectGarbage(tiny.context, { abandon: true, sweep: true });
    await clean("collected");
    await collectGarbage(tiny.context, { sweep: true });
    await clean("collected again");
  });

  for (const { name, invariant, what, repairable, also = [], plant } of PLANTS) {
    it(`finds ${name}${repairable ? ", and mends it" : ""}`, async () => {
      const plot = await openPlot();
      const { tiny } = plot;
      await tiny.kv.transact(async (tx) => plant(plot, tx));
      const { findings, unrepairedCount, findingCount } = await runFsck(tiny.repo);
      const isIt = (each: FsckFinding): boolean =>
        each.invariant === invariant && what.test(each.what);
      assert.ok(findings.some(isIt), JSON.stringify(findings, undefined, 1));
      assert.equal(unrepairedCount, findingCount);
      const others = findings.filter((each) => each.invariant !== invariant);
      assert.deepEqual(
        others.filter((each) => !also.includes(each.invariant)),
        [],
      );
      const repaired = await runFsck(tiny.repo, { repair: true });
      const again = repaired.findings.find(isIt);
      assert.equal(again?.repaired, repairable, JSON.stringify(repaired.findings, undefined, 1));
      const left = await runFsck(tiny.repo, { repair: true });
      if (repairable) assert.deepEqual(left.findings, []);
      else assert.equal(left.unrepairedCount, left.findingCount);
    });
  }

  it("takes pending re-checks into account", async () => {
    const { tiny, version } = await openPlot();
    const id = tiny.blockId("a");
    for (const storage of tiny.shared.ids) {
      const { generation } = at((await tiny.record(id)) as BlockRecord, storage);
      await markBad(tiny.kv, tiny.repo.random, { id, storage, generation });
    }
    assert.deepEqual((await runFsck(tiny.repo)).findings, []);
    await recheckStep(tiny.kv);
    assert.deepEqual((await runFsck(tiny.repo)).findings, []);
    await drainRechecks(tiny.kv);
    const { findings, counts } = await runFsck(tiny.repo);
    assert.deepEqual(findings, []);
    assert.deepEqual([counts.damaged, counts.invalidVersions], [2, 1]);
    assert.equal((await tiny.version(version.uid))?.state, "invalid");
  });

  it("finds nodes below others that are lost, or of a wrong level", async () => {
    const tiny = await openTiny({ storages: 1 });
    const blocks = Array.from({ length: 600 }, (_, index) => `w${index}`);
    const { root } = await tiny.backup(blocks);
    const plain = await tiny.kv.read((reader) => reader.get(key.node(root as BlockId)));
    const { children } = decodeNode<BlockId>(plain as Buffer);
    await tiny.kv.transact(async (tx) => {
      tx.clear(key.node(children[0] as BlockId));
      tx.set(key.node(children[1] as BlockId), plain as Buffer);
      await Promise.resolve();
    });
    const { findings } = await runFsck(tiny.repo);
    const nodes = findings.filter(({ invariant }) => invariant === "nodes").map(({ what }) => what);
    for (const [child, what] of [
      [0, "has no content"],
      [1, "is of a wrong level"],
    ] as const) {
      assert.ok(nodes.includes(`node ${children[child]}, which it names, ${what}`), nodes.join());
    }
  });

  it("merges references in passes of any size", async () => {
    const { tiny, root, block } = await openPlot();
    await tiny.kv.transact(async (tx) => {
      tx.clear(key.reference(block, { kind: "node", id: root }));
      tx.set(key.reference(tiny.blockId("x"), { kind: "node", id: root }), EMPTY);
      await Promise.resolve();
    });
    const seen: string[][] = [];
    for (const capacity of [1, 2, 3, 100]) {
      const run = new FsckRun(tiny.repo, {});
      await checkReferences(run, capacity);
      seen.push(run.findings.map(({ where, what }) => `${where}: ${what}`).toSorted());
      assert.equal(run.counts.references, 7);
    }
    assert.equal(seen[0]?.length, 2);
    for (const each of seen) assert.deepEqual(each, seen[0]);
  });

  it("counts more problems than it lists", async () => {
    const { tiny } = await openPlot();
    await tiny.kv.transact(async (tx) => {
      for (let ms = 1; ms <= 1050; ms += 1) {
        tx.set(key.verify(tiny.id(0), ms, tiny.blockId("a")), EMPTY);
      }
      await Promise.resolve();
    });
    const result = await runFsck(tiny.repo);
    assert.deepEqual([result.findings.length, result.findingCount], [1000, 1050]);
    assert.equal((await runFsck(tiny.repo, { repair: true })).unrepairedCount, 0);
    assert.equal((await runFsck(tiny.repo)).findingCount, 0);
  });

  it("reports nothing while others back up, remove and collect", async () => {
    const tiny = await openTiny();
    const state = { isWorking: true };
    const work = async (): Promise<void> => {
      try {
        for (let round = 0; round < 12; round += 1) {
          const version = await tiny.backup([`r${round}`, "same", undefined, `s${round % 3}`]);
          await collectGarbage(tiny.context, { abandon: true });
          if (round % 2 === 0) await removeVersion(tiny.kv, version.uid);
        }
      } finally {
        state.isWorking = false;
      }
    };
    const check = async (): Promise<number> => {
      let runs = 0;
      for (; state.isWorking; runs += 1) {
        assert.deepEqual((await runFsck(tiny.repo, { storages: true })).findings, []);
        await setImmediate();
      }
      return runs;
    };
    const [runs] = await Promise.all([check(), work()]);
    assert.ok(runs > 3, String(runs));
  });
});

describe("fsck of storages", () => {
  it("finds an object that is gone, and has it filled again", async () => {
    const { tiny, block } = await openPlot();
    const name = await tiny.nameAt(block, 1);
    tiny.store(1).objects.delete(name);
    assert.deepEqual((await runFsck(tiny.repo)).findings, []);
    const { findings } = await runFsck(tiny.repo, { storages: true });
    assert.deepEqual(
      findings.map(({ invariant, where }) => [invariant, where]),
      [["objects", name]],
    );
    const repaired = await runFsck(tiny.repo, { storages: true, repair: true });
    assert.deepEqual([repaired.findingCount, repaired.unrepairedCount], [1, 0]);
    assert.equal(await tiny.states(block), "placed bad+owed");
    assert.deepEqual((await runFsck(tiny.repo, { storages: true })).findings, []);
    await collectGarbage(tiny.context);
    assert.equal(await tiny.states(block), "placed placed");
  });

  it("takes an object that is too short for none", async () => {
    const { tiny, block } = await openPlot();
    const name = await tiny.nameAt(block, 0);
    tiny.store(0).objects.set(name, Buffer.alloc(20));
    const { findings } = await runFsck(tiny.repo, { storages: true });
    assert.deepEqual(
      findings.map(({ where }) => where),
      [name],
    );
  });

  it("looks up by name what a listing lacks", async () => {
    const { tiny, block } = await openPlot();
    const name = await tiny.nameAt(block, 1);
    const list = tiny.store(1).list.bind(tiny.store(1));
    tiny.store(1).list = async function* lagging(prefix, options) {
      for await (const entry of list(prefix, options)) {
        if (entry.name !== name) yield entry;
      }
    };
    assert.deepEqual((await runFsck(tiny.repo, { storages: true })).findings, []);
  });

  it("only counts what no record names", async () => {
    const { tiny } = await openPlot();
    const orphan = objectName("block", tiny.blockId("a"), STRANGER as Generation);
    tiny.store(0).objects.set(orphan, EMPTY);
    tiny.store(0).objects.set("blocks/of-somebody-else", EMPTY);
    const { findings, counts } = await runFsck(tiny.repo, { storages: true });
    assert.deepEqual(findings, []);
    assert.deepEqual([counts.orphans, counts.objects], [1, 13]);
  });

  it("finds heads and stamps that are strange or gone", async () => {
    const { tiny } = await openPlot();
    await removeVersion(tiny.kv, (await tiny.backup(["gone"])).uid);
    await collectGarbage(tiny.context);
    const store = tiny.store(0);
    const names = [...store.objects.keys()];
    const head = names.find((name) => name.startsWith("heads/"));
    const stamp = names.find((name) => name.startsWith("stamps/"));
    const strangers = ["stamps/0123456789abcdef", `heads/${"7".repeat(64)}.1.0123456789abcdef`];
    for (const name of [head, stamp]) store.objects.delete(name as string);
    for (const name of strangers) store.objects.set(name, EMPTY);
    const { findings } = await runFsck(tiny.repo, { storages: true });
    assert.deepEqual(
      findings.map(({ invariant, where }) => `${invariant} ${where}`).toSorted(),
      [head, stamp, ...strangers].map((name) => `heads ${name}`).toSorted(),
    );
    assert.equal((await runFsck(tiny.repo, { storages: true, repair: true })).unrepairedCount, 4);
  });

  it("skips a storage that is away, and says so", async () => {
    const { tiny } = await openPlot();
    tiny.store(1).away = true;
    const { findings, skipped } = await runFsck(tiny.repo, { storages: true });
    assert.deepEqual(findings, []);
    assert.deepEqual(
      skipped.map(({ storage }) => storage),
      [tiny.id(1)],
    );
  });
});
