// Getting the sealed bytes of a block from one storage, or from another one that was faster.
import type { BlockId } from "#lib/core/ids.ts";
import type { GetOptions } from "#lib/ports/blob-store.ts";
import type { Slot } from "#lib/ports/compute.ts";
import type { Copy } from "#lib/repository/block-record.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import type { Repository } from "#lib/repository/repository.ts";
import type { ReadSteering } from "./read-steering.ts";

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
  await Promise.race([begun.promise, primary.catch(() => undefined)]);
  if (await endsWithin(repo, primary, steering.patienceMs(first.storage))) return primary;
  const stop = new AbortController();
  const spare = new Uint8Array(new SharedArrayBuffer(into.length));
  const hedge = steering.hedge(() =>
    get(repo, steering, request, { copy: second, into: spare, signal: stop.signal }),
  );
  if (hedge === undefined) return primary;
  const winner = await Promise.any([primary, hedge]).catch(() => primary);
  const isOvertaken = winner.copy === second;
  repo.telemetry.count("ashlar.reads.hedged", 1, {
    storage: repo.storages.nameOf(first.storage),
    outcome: isOvertaken ? "overtaken" : "in vain",
  });
  if (isOvertaken) {
    // It may still write into the slot.
    slot.retain();
    void primary.catch(() => undefined).finally(() => slot.release());
    slow.abort(new Error("another storage was faster"));
  } else {
    stop.abort(new Error("the first storage was faster after all"));
  }
  return winner;
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
