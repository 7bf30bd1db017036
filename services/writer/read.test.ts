// Reading blocks back when copies are bad, cannot be read, or are replaced meanwhile.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId, Generation, VersionUid } from "#lib/core/ids.ts";
import type { BlobFault } from "#lib/drivers/memory/memory-blob-store.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import type { BlockRecord } from "#lib/repository/block-record.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import { readBlock } from "#lib/repository/ledger.ts";
import { newSessionId, newToken } from "#lib/repository/repository.ts";
import { placeFilled } from "#lib/repository/transactions/fill.ts";
import { endSession, startSession } from "#lib/repository/transactions/session.ts";
import { markBad } from "#lib/repository/transactions/verify.ts";
import { readVersion } from "#lib/repository/transactions/version.ts";
import { runBackup } from "#services/coordinator/backup-job.ts";
import { runRestore } from "#services/coordinator/restore-job.ts";
import { queues } from "#proto/messages.ts";
import { BLOCK_BYTES, openOneProcess, type OneProcess } from "#test/fixtures/one-process.ts";

const B = BLOCK_BYTES;

/** A version of a few blocks, and one of its objects at the first storage. */
interface Fixture {
  readonly process: OneProcess;
  readonly data: Buffer;
  readonly uid: VersionUid;
  readonly id: BlockId;
  readonly generation: Generation;
  readonly name: string;
}

async function open(storages: number): Promise<Fixture> {
  const process = await openOneProcess({ storages });
  const data = seededRandom(3).bytes(8 * B);
  process.device("disk", data);
  const { uid } = await runBackup(process.context, { source: "disk", volume: "v" });
  const names = [...process.stores[0]!.objects.keys()];
  const name = names.find((each) => each.startsWith("blocks/"))!;
  const [id, generation] = name.slice("blocks/".length).split(".") as [BlockId, Generation];
  return { process, data, uid, id, generation, name };
}

/** Restores; the target's content, or the error. */
async function restored({ process, uid }: Fixture): Promise<Buffer | AshlarError> {
  process.devices.delete("target");
  try {
    await runRestore(process.context, { uid, target: "target" });
    return process.devices.get("target")!.data;
  } catch (error) {
    assert.ok(error instanceof AshlarError, String(error));
    return error;
  }
}

function recordOf({ process, id }: Fixture): Promise<BlockRecord | undefined> {
  return process.repo.kv.read((reader) => readBlock(reader, id));
}

function statesOf(record: BlockRecord | undefined): string[] {
  return (record?.copies ?? []).map(({ state }) => state).toSorted();
}

/** The object of the fixture cannot be read so many times; `also` is told of every other operation. */
function unreadable(
  { process, name }: Fixture,
  times: number,
  also?: (kind: string) => void,
): void {
  let left = times;
  process.stores[0]!.faults = {
    before: (operation) => {
      if (operation.kind === "get" && operation.name === name && left > 0) {
        left -= 1;
        const details = { errno: "EIO" };
        throw new AshlarError(ErrorCode.Io, "input/output error (EIO)", { details });
      }
      also?.(operation.kind);
      return "none";
    },
  };
}

/** Gives the block's storage a new, good copy in place of the bad one, as scrub and fill do. */
async function replaceCopy(
  { process, id, generation, name }: Fixture,
  good: Buffer,
): Promise<void> {
  const { kv, random } = process.repo;
  const [store] = process.stores;
  const storage = process.storageIds[0]!;
  await markBad(kv, random, { id, storage, generation });
  const record = await kv.read((reader) => readBlock(reader, id));
  const owed = record!.copies.find(({ state }) => state === "owed")!;
  store!.objects.set(objectName("block", id, owed.generation), good);
  const copy = { id, kind: "block", storage, storedBytes: good.length } as const;
  assert.equal(await placeFilled(kv, 0, { ...copy, generation: owed.generation }), "placed");
  store!.objects.delete(name);
}

describe("reading a block back", () => {
  it("takes the new copy when the one that it was reading is replaced", async () => {
    const fixture = await open(1);
    const { process, data, name } = fixture;
    const [store] = process.stores;
    const good = store!.objects.get(name)!;
    store!.objects.set(name, Buffer.from("damaged"));
    let isReplaced = false;
    store!.faults = {
      after: async (operation) => {
        if (isReplaced || operation.kind !== "get" || operation.name !== name) return;
        isReplaced = true;
        await replaceCopy(fixture, good);
      },
    };
    assert.deepEqual(await restored(fixture), data);
    assert.ok(isReplaced);
    assert.deepEqual(statesOf(await recordOf(fixture)), ["placed"]);
    await process.close();
  });

  it("tries once more what cannot be read", async () => {
    const fixture = await open(1);
    unreadable(fixture, 1);
    assert.deepEqual(await restored(fixture), fixture.data);
    assert.deepEqual(statesOf(await recordOf(fixture)), ["placed"]);
    await fixture.process.close();
  });

  it("calls damaged what cannot be read twice at a storage that is there", async () => {
    const fixture = await open(1);
    const { process, uid, id } = fixture;
    unreadable(fixture, Infinity);
    const error = await restored(fixture);
    assert.ok(error instanceof AshlarError);
    assert.equal(error.code, ErrorCode.Damaged);
    for (const named of [uid, id, "EIO"]) assert.ok(error.message.includes(named), error.message);
    assert.deepEqual(statesOf(await recordOf(fixture)), ["bad", "owed"]);
    const version = await process.repo.kv.read((reader) => readVersion(reader, uid));
    assert.equal(version?.state, "invalid");
    await process.close();
  });

  it("takes another storage's copy then, and judges the unreadable one", async () => {
    const fixture = await open(2);
    unreadable(fixture, Infinity);
    assert.deepEqual(await restored(fixture), fixture.data);
    assert.deepEqual(statesOf(await recordOf(fixture)), ["bad", "owed", "placed"]);
    await fixture.process.close();
  });

  it("judges nothing by a storage that gives errors for its marker as well", async () => {
    const fixture = await open(1);
    let checks = 0;
    unreadable(fixture, Infinity, (kind) => {
      if (kind !== "check") return;
      checks += 1;
      // The first is the restore's own, before it begins.
      if (checks > 1) throw new AshlarError(ErrorCode.Io, "input/output error (EIO)");
    });
    const error = await restored(fixture);
    assert.ok(error instanceof AshlarError);
    assert.equal(error.code, ErrorCode.Unavailable);
    assert.deepEqual(statesOf(await recordOf(fixture)), ["placed"]);
    await fixture.process.close();
  });
});

describe("reading back", () => {
  it("is for whoever has the token of a restore that is under way, and for nobody else", async () => {
    const fixture = await open(1);
    const { process, id, uid } = fixture;
    const { repo, context } = process;
    const blocks = [{ kind: "block" as const, id, length: B }];
    const ask = (session: string, token: string) =>
      context.requester
        .request(queues.writer, "read", { session, token, blocks, storage: null })
        .then(({ body, payload }) => {
          payload?.release();
          return body.outcomes[0]?.ok;
        });
    const start = async (kind: "restore" | "replicate") => {
      const session = newSessionId(repo.random);
      const token = newToken(repo.random);
      const owner = { host: "h", lock: "l", source: "", volume: "v", policy: undefined, uid };
      const record = { kind, state: "live", token, startedMs: 0, endedMs: undefined } as const;
      await startSession(repo.kv, { session, record: { ...record, ...owner }, nowMs: 0 });
      return { session, token };
    };
    const { session, token } = await start("restore");
    assert.equal(await ask(session, token), true);
    await assert.rejects(ask(session, newToken(repo.random)), { code: ErrorCode.Fenced });
    await assert.rejects(ask(newSessionId(repo.random), token), { code: ErrorCode.Fenced });
    const other = await start("replicate");
    await assert.rejects(ask(other.session, other.token), { code: ErrorCode.Refused });
    await endSession(repo.kv, session, token, 1);
    await assert.rejects(ask(session, token), { code: ErrorCode.Fenced });
    await process.close();
  });

  it("judges no copy by what a cache has kept", async () => {
    const fixture = await open(1);
    const { process, name, data } = fixture;
    const [store] = process.stores;
    const asked: (string | undefined)[] = [];
    const get = store!.get.bind(store);
    store!.get = async (each, options) => {
      if (each !== name) return get(each, options);
      asked.push(options?.cached);
      const sealed = await get(each, options);
      // The cache has kept what came damaged over the line once.
      if (options?.cached === "use") sealed[100] = (sealed[100] ?? 0) ^ 1;
      return sealed;
    };
    assert.deepEqual(await restored(fixture), data);
    assert.deepEqual(asked, ["use", "renew"]);
    assert.deepEqual(statesOf(await recordOf(fixture)), ["placed"]);
    await process.close();
  });
});

describe("which storage is read", () => {
  it("is each of equal ones, the one that comes first by its order, or the one that the version prefers", async () => {
    for (const [order, prefer, expected] of [
      [undefined, undefined, [true, true]],
      [2, undefined, [false, true]],
      [2, ["s0"], [true, false]],
    ] as const) {
      const process = await openOneProcess({
        storages: 2,
        ...(order === undefined ? {} : { readOrders: [order, 1] }),
      });
      process.device("disk", seededRandom(3).bytes(64 * B));
      const job = { source: "disk", volume: "v", ...(prefer === undefined ? {} : { prefer }) };
      const { uid } = await runBackup(process.context, job);
      const isRead = [false, false];
      for (const [index, store] of process.stores.entries()) {
        store.faults = {
          before: async ({ kind, name }): Promise<BlobFault> => {
            if (kind !== "get" || !name.startsWith("blocks/")) return "none";
            isRead[index] = true;
            // So that reads overlap.
            await setTimeout(20);
            return "none";
          },
        };
      }
      await runRestore(process.context, { uid, target: "target" });
      assert.deepEqual(isRead, expected);
      await process.close();
    }
  });
});

describe("an overtaken read", () => {
  it("may write late: nothing else goes where it writes", async () => {
    const fixture = await open(3);
    const { process, data, name } = fixture;
    const [first, second, third] = process.stores;
    const good = first!.objects.get(name)!;
    const getFirst = first!.get.bind(first);
    const getThird = third!.get.bind(third);
    const late: (() => Promise<void>)[] = [];
    let reads = 0;
    // As a file on a slow, damaged disk: a read that has begun does not heed the signal.
    first!.get = async (each, options) => {
      if (each !== name) return getFirst(each, options);
      reads += 1;
      if (reads > 2) throw new AshlarError(ErrorCode.Unavailable, "it is away now");
      const gate = Promise.withResolvers<void>();
      const written = Promise.withResolvers<void>();
      late.push(() => {
        gate.resolve();
        return written.promise;
      });
      await gate.promise;
      options!.into!.set(Buffer.alloc(good.length, 0xee));
      written.resolve();
      return options!.into!.subarray(0, good.length);
    };
    second!.objects.set(name, Buffer.from("damaged"));
    third!.get = async (each, options) => {
      const bytes = await getThird(each, options);
      if (each === name) await late.shift()?.();
      return bytes;
    };
    assert.deepEqual(await restored(fixture), data);
    const states = (await recordOf(fixture))!.copies.map(({ storage, state }) => [
      process.repo.storages.nameOf(storage),
      state,
    ]);
    assert.ok(
      states.every(([storage, state]) => storage !== "s2" || state === "placed"),
      `the good copy is not judged: ${JSON.stringify(states)}`,
    );
    await process.close();
  });
});
