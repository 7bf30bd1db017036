// Getting the sealed bytes of a block from one storage, or from another one that was faster.
import type { BlockId } from "#lib/core/ids.ts";
import type { GetOptions } from "#lib/ports/blob-store.ts";
import type { Slot } from "#lib/ports/compute.ts";
import type { Copy } from "#lib/repository/block-record.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { PATIENCE_MAX_MS, type ReadSteering } from "./read-steering.ts";

/** Where second requests are used up, one is made nevertheless after so many more of what is usual. */
const PRESSING_PATIENCES = 4;

/** What is fetched, and into what. */
export interface FetchRequest {
  readonly kind: "block" | "node";
  readonly id: BlockId;
  /** The copy to read, and one at another storage that is as good, if there is one. */
  readonly first: Copy;
  readonly second: Copy | undefined;
  readonly cached: GetOptions["cached"] | undefined;
  /** A part of {@link slot}. */
  readonly into: Uint8Array;
  /** Kept until nobody writes into it any more. */
  readonly slot: Slot;
}

/** What fetching needs. */
export type FetchPorts = Pick<Repository, "clock" | "storages" | "telemetry">;

/** Sealed bytes, and whose they are. */
export interface Fetched {
  readonly copy: Copy;
  readonly sealed: Uint8Array;
  /** Another read may still write into the request's `into`: nothing else may go there. */
  readonly isBusy?: boolean;
  /** What the first storage had to say meanwhile. */
  readonly firstError?: unknown;
}

/**
 * Fetches the first copy; when its storage takes longer than it usually does, the second one as well, and the one that comes
 * first. @throws what the first storage has to say, when neither gives anything
 */
export async function fetchCopy(
  repo: FetchPorts,
  steering: ReadSteering,
  request: FetchRequest,
): Promise<Fetched> {
  const { first, second, into, slot } = request;
  const slow = new AbortController();
  const begun = Promise.withResolvers<void>();
  const primary = get(repo, steering, request, {
    copy: first,
    into,
    signal: slow.signal,
    onBegin: begun.resolve,
  });
  if (second === undefined) return primary;
  // Whoever loses is listened to no more.
  primary.catch(() => undefined);
  // Behind reads that hang its turn may never come.
  if (!steering.isOverdue(first.storage)) {
    await endsWithin(repo, Promise.race([begun.promise, primary]), PATIENCE_MAX_MS);
  }
  const patienceMs = steering.patienceMs(first.storage);
  if (await endsWithin(repo, primary, patienceMs)) return primary;
  const stop = new AbortController();
  const spare = new Uint8Array(new SharedArrayBuffer(into.length));
  const ask = (): Promise<Fetched> =>
    get(repo, steering, request, { copy: second, into: spare, signal: stop.signal });
  let hedge = steering.hedge(ask);
  if (hedge === undefined) {
    if (await endsWithin(repo, primary, PRESSING_PATIENCES * patienceMs)) return primary;
    hedge = steering.hedge(ask, true) as Promise<Fetched>;
  }
  let firstError: unknown;
  const told = primary.catch((error: unknown) => {
    firstError = error;
    throw error;
  });
  const winner = await Promise.any([told, hedge]).catch(() => primary);
  const isOvertaken = winner.copy === second;
  repo.telemetry.count("ashlar.reads.hedged", 1, {
    storage: repo.storages.nameOf(first.storage),
    outcome: isOvertaken ? "overtaken" : "in vain",
  });
  if (!isOvertaken) {
    stop.abort(new Error("the first storage was faster after all"));
    return winner;
  }
  if (firstError !== undefined) return { ...winner, firstError };
  steering.wasOverdue(first.storage);
  // It may still write into the slot.
  slot.retain();
  void primary.catch(() => undefined).finally(() => slot.release());
  slow.abort(new Error("another storage was faster"));
  return { ...winner, isBusy: true };
}

async function get(
  repo: FetchPorts,
  steering: ReadSteering,
  { kind, id, cached }: FetchRequest,
  from: {
    readonly copy: Copy;
    readonly into: Uint8Array;
    readonly signal: AbortSignal;
    readonly onBegin?: () => void;
  },
): Promise<Fetched> {
  const { copy, into, signal, onBegin } = from;
  const name = objectName(kind, id, copy.generation);
  const options = { into, signal, ...(cached === undefined ? {} : { cached }) };
  const sealed = await steering.watch(copy.storage, (begins) =>
    repo.storages.get(copy.storage, name, options, () => {
      begins();
      onBegin?.();
    }),
  );
  return { copy, sealed };
}

/** Whether something ends, well or not, within so many ms. */
async function endsWithin(
  { clock }: FetchPorts,
  work: Promise<unknown>,
  ms: number,
): Promise<boolean> {
  const ended = new AbortController();
  const timer = clock.sleep(ms, ended.signal).then(
    () => false,
    () => true,
  );
  void work.catch(() => undefined).finally(() => ended.abort());
  return timer;
}
