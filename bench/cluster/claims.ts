/**
 * What a dedup actor gives, by which every block goes: claims of ids that nobody has, and of ids that are placed, as readers
 * send them, over the bus of one process, on an LMDB and, with FDB_CLUSTER_FILE, on FoundationDB. Figures are ids per second of
 * this process' CPU time, the asking side's included, and of wall-clock time beside it. Dedups live for weeks: a first round,
 * on a store of its own, is not measured.
 */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { Requester } from "#lib/actor/requester.ts";
import {
  packBlockIds,
  type BlockId,
  type Generation,
  type SessionId,
  type StorageId,
  type Token,
  type VersionUid,
} from "#lib/core/ids.ts";
import { openInprocBus } from "#lib/drivers/inproc/inproc-bus.ts";
import { openLmdbKv } from "#lib/drivers/lmdb/lmdb-kv.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { newSessionId, newToken } from "#lib/repository/repository.ts";
import { startSession } from "#lib/repository/transactions/session.ts";
import { addStorage } from "#lib/repository/transactions/storage.ts";
import { storeBlocks } from "#lib/repository/transactions/store.ts";
import { queues } from "#proto/messages.ts";
import { startDedup } from "#services/dedup/dedup-actor.ts";
import { memoryLog } from "#test/fakes/memory-log.ts";
import { fdbMissing, openFreshFdb } from "#test/servers/fdb.ts";

const BATCH = 256;
const BATCHES = 400;
const FIRST_BATCHES = 200;
/** Batches that one reader has under way. */
const TOGETHER = 2;
const BLOCK_BYTES = 4 * 1024 * 1024;

interface Bench {
  readonly kv: Kv;
  readonly session: SessionId;
  readonly token: Token;
  readonly storage: StorageId;
}

/** What one kind of claims took. */
export interface ClaimFigure {
  readonly store: string;
  readonly what: string;
  readonly ids: number;
  readonly wallMs: number;
  /** Of this process. */
  readonly cpuMs: number;
}

const clock = systemClock();
const random = systemRandom();

async function prepare(kv: Kv): Promise<Bench> {
  const storage = randomBytes(8).toString("hex") as StorageId;
  await addStorage(kv, storage, { name: "s", site: "s", state: "in-use", addedMs: 0 });
  const session = newSessionId(random);
  const token = newToken(random);
  const policy = { storages: [storage], quorum: 1 };
  await startSession(kv, {
    session,
    record: {
      kind: "backup",
      state: "live",
      token,
      startedMs: 0,
      endedMs: undefined,
      uid: "bench" as VersionUid,
      volume: "v",
      source: "s",
      policy,
      host: "h",
      lock: "l",
    },
    nowMs: clock.now(),
  });
  return { kv, session, token, storage };
}

/** Runs the batches, some at a time, and measures. */
async function measure(
  store: string,
  what: string,
  batches: readonly (readonly BlockId[])[],
  one: (ids: readonly BlockId[]) => Promise<void>,
): Promise<ClaimFigure> {
  const left = [...batches];
  const cpu = process.cpuUsage();
  const startMs = performance.now();
  await Promise.all(
    Array.from({ length: TOGETHER }, async () => {
      for (let ids = left.pop(); ids !== undefined; ids = left.pop()) await one(ids);
    }),
  );
  const { user, system } = process.cpuUsage(cpu);
  return {
    store,
    what,
    ids: batches.length * BATCH,
    wallMs: performance.now() - startMs,
    cpuMs: (user + system) / 1000,
  };
}

/** A dedup over a store, and somebody who asks it. */
function startAsking(kv: Kv): {
  readonly requester: Requester;
  readonly stop: () => Promise<void>;
} {
  const bus = openInprocBus({ clock, telemetry: noTelemetry() });
  const dedup = startDedup({ kv, clock, random, log: memoryLog([]) }, bus);
  const requester = new Requester(bus, clock, random);
  const stop = async (): Promise<void> => {
    await dedup.stop();
    await requester.close();
    await bus.close();
  };
  return { requester, stop };
}

async function run(store: string, kv: Kv, batchCount: number): Promise<ClaimFigure[]> {
  const { session, token, storage } = await prepare(kv);
  const { requester, stop } = startAsking(kv);
  const batches = Array.from({ length: batchCount }, () =>
    Array.from({ length: BATCH }, () => randomBytes(32).toString("hex") as BlockId),
  );
  const policy = { storages: [storage], quorum: 1 };
  const plainBytes = Array.from({ length: BATCH }, () => BLOCK_BYTES);
  const named = new Map<BlockId, Parameters<typeof storeBlocks>[2][number]["done"]>();
  const ask = async (ids: readonly BlockId[], expected: "send" | "known"): Promise<void> => {
    const request = {
      session,
      token,
      kind: "block",
      plainBytes,
      policy,
      impatient: false,
    } as const;
    const { body } = await requester.request(queues.dedup, "claim", {
      ...request,
      ids: packBlockIds(ids),
    });
    for (const [index, answer] of body.answers.entries()) {
      if (answer.kind !== expected) throw new Error(`${answer.kind} in the place of ${expected}`);
      if (answer.kind !== "send") continue;
      const copies = answer.copies.map((copy) => ({
        storage: copy.storage as StorageId,
        generation: copy.generation as Generation,
      }));
      named.set(ids[index] as BlockId, copies);
    }
  };
  const fresh = await measure(store, "claims of new ids", batches, (ids) => ask(ids, "send"));
  const placed = await measure(store, "ids recorded as stored", batches, async (ids) => {
    const stored = ids.map((id) => ({
      id,
      storedBytes: BLOCK_BYTES,
      done: named.get(id) ?? [],
      pending: [],
    }));
    await storeBlocks(kv, clock.now(), stored);
  });
  const known = await measure(store, "claims of known ids", batches, (ids) => ask(ids, "known"));
  await stop();
  return [fresh, placed, known];
}

async function onLmdb(batchCount: number): Promise<ClaimFigure[]> {
  const folder = await mkdtemp(path.join(tmpdir(), "ashlar-claims-"));
  try {
    const kv = await openLmdbKv({ path: folder, clock, random });
    const figures = await run("LMDB", kv, batchCount);
    await kv.close();
    return figures;
  } finally {
    await rm(folder, { recursive: true });
  }
}

async function onFdb(batchCount: number): Promise<ClaimFigure[]> {
  const kv = await openFreshFdb();
  const figures = await run("FoundationDB", kv, batchCount);
  await kv.close();
  return figures;
}

/** Of every store that is here; why FoundationDB is not among them. */
export async function measureClaims(): Promise<{
  readonly figures: readonly ClaimFigure[];
  readonly missing: string | undefined;
}> {
  await onLmdb(FIRST_BATCHES);
  const figures = await onLmdb(BATCHES);
  const missing = fdbMissing();
  if (missing === undefined) {
    await onFdb(FIRST_BATCHES);
    figures.push(...(await onFdb(BATCHES)));
  }
  return { figures, missing };
}
