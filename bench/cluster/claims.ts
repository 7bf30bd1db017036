/**
 * What the metadata store gives to claims, the transactions by which every block goes. Claims of ids that
 * nobody has, and of ids that are placed, in batches as readers send them, on an LMDB and, with FDB_CLUSTER_FILE, on FoundationDB.
 * Figures are ids per second of this process' CPU time, and of wall-clock time beside it.
 */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { BlockId, SessionId, StorageId, Token, VersionUid } from "#lib/core/ids.ts";
import { openLmdbKv } from "#lib/drivers/lmdb/lmdb-kv.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { newSessionId, newToken } from "#lib/repository/repository.ts";
import { claim } from "#lib/repository/transactions/claim.ts";
import { startSession } from "#lib/repository/transactions/session.ts";
import { addStorage } from "#lib/repository/transactions/storage.ts";
import { storeBlocks } from "#lib/repository/transactions/store.ts";
import { fdbMissing, openFreshFdb } from "#test/servers/fdb.ts";

const BATCH = 256;
const BATCHES = 200;
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

async function run(store: string, kv: Kv): Promise<ClaimFigure[]> {
  const { session, token, storage } = await prepare(kv);
  const batches = Array.from({ length: BATCHES }, () =>
    Array.from({ length: BATCH }, () => randomBytes(32).toString("hex") as BlockId),
  );
  const policy = { storages: [storage], quorum: 1 };
  const plainBytes = Array.from({ length: BATCH }, () => BLOCK_BYTES);
  const named = new Map<BlockId, Parameters<typeof storeBlocks>[2][number]["done"]>();
  const ask = async (ids: readonly BlockId[], expected: "send" | "known"): Promise<void> => {
    const request = { session, token, kind: "block", ids, plainBytes, policy } as const;
    const { answers } = await claim(kv, random, { ...request, impatient: false });
    for (const [index, answer] of answers.entries()) {
      if (answer.kind !== expected) throw new Error(`${answer.kind} in the place of ${expected}`);
      if (answer.kind === "send") named.set(ids[index] as BlockId, answer.copies);
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
  return [fresh, placed, known];
}

/** Of every store that is here; why FoundationDB is not among them. */
export async function measureClaims(): Promise<{
  readonly figures: readonly ClaimFigure[];
  readonly missing: string | undefined;
}> {
  const figures: ClaimFigure[] = [];
  const folder = await mkdtemp(path.join(tmpdir(), "ashlar-claims-"));
  try {
    const lmdb = await openLmdbKv({ path: folder, clock, random });
    figures.push(...(await run("LMDB", lmdb)));
    await lmdb.close();
  } finally {
    await rm(folder, { recursive: true });
  }
  const missing = fdbMissing();
  if (missing === undefined) {
    const fdb = await openFreshFdb();
    figures.push(...(await run("FoundationDB", fdb)));
    await fdb.close();
  }
  return { figures, missing };
}
