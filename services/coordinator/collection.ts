// Collection of what nothing refers to (DESIGN §4.5), in passes over bounded transactions, and who holds it up.
import type { SessionId, VersionUid } from "#lib/core/ids.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { parse, range } from "#lib/repository/keyspace.ts";
import {
  condemnStep,
  lowestHorizon,
  raiseEpoch,
  removeStep,
  type CollectStep,
} from "#lib/repository/transactions/collect.ts";
import { listSessions, type SessionEntry } from "#lib/repository/transactions/session.ts";

/** What collecting did. */
export interface Collected {
  readonly passes: number;
  readonly condemned: number;
  readonly blocksRemoved: number;
  readonly nodesRemoved: number;
  /** Sealed bytes, over all storages, whose objects went to trash. */
  readonly bytesFreed: number;
}

/** A session that keeps something from being collected. */
export interface CollectionHolder {
  readonly session: SessionId;
  readonly uid: VersionUid;
  readonly volume: string;
  readonly host: string;
  readonly state: "live" | "dead";
  /** For people. */
  readonly reason: string;
}

type Counts = { -readonly [K in keyof Collected]: Collected[K] };

/**
 * Collects until nothing more can go. A removed node's children become collectable only then, so there is a pass for each
 * level of a tree. In a pass, all that is unreferenced is condemned in one epoch; then the epoch rises, once; what was
 * condemned in an epoch before every live horizon is removed.
 */
export async function collect(
  kv: Kv,
  options: {
    readonly signal?: AbortSignal | undefined;
    readonly onRemoved?: ((bytesFreed: number) => void) | undefined;
  } = {},
): Promise<Collected> {
  const counts: Counts = {
    passes: 0,
    condemned: 0,
    blocksRemoved: 0,
    nodesRemoved: 0,
    bytesFreed: 0,
  };
  for (;;) {
    const { condemned } = counts;
    const removed = counts.blocksRemoved + counts.nodesRemoved;
    await steps(counts, options.signal, (from) => condemnStep(kv, from));
    // Nothing new and nothing old: the epoch need not rise.
    if (counts.condemned === condemned && (await oldestCondemned(kv)) === undefined) break;
    counts.passes += 1;
    await raiseEpoch(kv);
    // It never falls, so one reading is good for the whole pass.
    const horizon = await lowestHorizon(kv);
    await steps(counts, options.signal, async (from) => {
      const step = await removeStep(kv, horizon, from);
      options.onRemoved?.(counts.bytesFreed + step.bytesFreed);
      return step;
    });
    if (counts.blocksRemoved + counts.nodesRemoved === removed) break;
  }
  return counts;
}

async function steps(
  counts: Counts,
  signal: AbortSignal | undefined,
  take: (from: Buffer | undefined) => Promise<CollectStep>,
): Promise<void> {
  let from: Buffer | undefined;
  do {
    signal?.throwIfAborted();
    const step = await take(from);
    counts.condemned += step.condemned;
    counts.blocksRemoved += step.blocksRemoved;
    counts.nodesRemoved += step.nodesRemoved;
    counts.bytesFreed += step.bytesFreed;
    from = step.next;
  } while (from !== undefined);
}

/** The epoch in which the oldest condemned record was condemned; undefined where there is none. */
export function oldestCondemned(kv: Kv): Promise<number | undefined> {
  return kv.read(async (reader) => {
    const [entry] = await reader.range({ ...range.condemned(), limit: 1 });
    return entry === undefined ? undefined : parse.condemned(entry.key).epoch;
  });
}

/** The sessions that keep something from being collected now. */
export async function findHolders(kv: Kv, resumeWindowMs: number): Promise<CollectionHolder[]> {
  const oldest = await oldestCondemned(kv);
  const holders: CollectionHolder[] = [];
  for (const entry of await listSessions(kv)) {
    const reason = await holdingReason(kv, entry, oldest, resumeWindowMs);
    if (reason === undefined) continue;
    const { session, record } = entry;
    const { uid, volume, host } = record;
    holders.push({ session, uid, volume, host, state: reason.state, reason: reason.text });
  }
  return holders;
}

async function holdingReason(
  kv: Kv,
  { session, record, horizon }: SessionEntry,
  oldest: number | undefined,
  resumeWindowMs: number,
): Promise<{ readonly state: "live" | "dead"; readonly text: string } | undefined> {
  if (record.state === "live") {
    if (oldest === undefined || horizon === undefined || horizon > oldest) return undefined;
    return { state: "live", text: "a running backup may still rely on what was condemned" };
  }
  if (record.state !== "dead") return undefined;
  const holds = await kv.read((reader) => reader.range({ ...range.holds(session), limit: 1 }));
  const claims = await kv.read((reader) => reader.range({ ...range.claims(session), limit: 1 }));
  if (holds.length + claims.length === 0) return undefined;
  const until = new Date((record.endedMs ?? 0) + resumeWindowMs).toISOString();
  return { state: "dead", text: `an interrupted backup can be gone on with until ${until}` };
}
