// Pieces of a scrub as messages: whoever has a scrub asks on a queue, and every process that reaches the storages serves it.
import { serve } from "#lib/actor/serve.ts";
import type { Requester } from "#lib/actor/requester.ts";
import { AshlarError, asErrorCode, ErrorCode } from "#lib/core/errors.ts";
import {
  asShortId,
  packBlockIds,
  packShortIds,
  unpackBlockIds,
  unpackShortIds,
  type Generation,
  type StorageId,
} from "#lib/core/ids.ts";
import type { Bus } from "#lib/ports/bus.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { queues, type Requests } from "#proto/messages.ts";
import { SCRUB_OVER_SUBJECT } from "#proto/subjects.ts";
import type { OthersWhoVerify } from "./scrub.ts";
import { PIECES_AT_ONCE, Verifier, type VerifyOutcome, type VerifyRequest } from "./verify.ts";

/** So many scrubs that are over are remembered: what is still in the queue for them is not begun. */
const OVER_MAX = 64;

/**
 * A piece at a slow storage takes long, and another process that is given it meanwhile reads the same. Of one that has died the bus
 * gives it to others sooner; only a message that is lost is waited for as long as this.
 */
const RESEND_MS = 120_000;

/** Serves requests to verify, until it is stopped. */
export function serveVerify(repo: Repository, bus: Bus): { stop(): Promise<void> } {
  const verifier = new Verifier(repo);
  const scrubs = new RunningScrubs();
  const heard = bus.subscribe(SCRUB_OVER_SUBJECT, ({ body }) =>
    scrubs.end(Buffer.from(body).toString("utf8")),
  );
  const subscription = serve(
    bus,
    queues.verify,
    PIECES_AT_ONCE,
    {
      verify: ({ ids, generations, storage, ...rest }) => {
        const named = unpackShortIds<Generation>(generations);
        const copies = unpackBlockIds(ids).map((id, at) => ({
          id,
          generation: named[at] as Generation,
        }));
        const request = { ...rest, storage: asShortId<StorageId>(storage), copies };
        return scrubs.within(request.scrub, async (signal) => ({
          body: asMessage(await verifier.verify(request, signal)),
        }));
      },
    },
    (error) => repo.log.error("verifying failed", { error }),
  );
  return {
    stop: async () => {
      await heard.stop();
      const stopped = subscription.stop();
      verifier.stop();
      await stopped;
    },
  };
}

/** The scrubs that one process has pieces of. */
class RunningScrubs {
  readonly #running = new Map<string, { readonly over: AbortController; count: number }>();
  readonly #over = new Set<string>();

  /** Does something for a scrub, until that is over. */
  async within<T>(scrub: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const entry = this.#running.get(scrub) ?? { over: new AbortController(), count: 0 };
    if (this.#over.has(scrub)) entry.over.abort(isOver());
    this.#running.set(scrub, entry);
    entry.count += 1;
    try {
      return await work(entry.over.signal);
    } finally {
      entry.count -= 1;
      if (entry.count === 0) this.#running.delete(scrub);
    }
  }

  end(scrub: string): void {
    this.#over.add(scrub);
    if (this.#over.size > OVER_MAX) {
      for (const oldest of this.#over.keys().take(1)) this.#over.delete(oldest);
    }
    this.#running.get(scrub)?.over.abort(isOver());
  }
}

function isOver(): AshlarError {
  return new AshlarError(ErrorCode.Cancelled, "the scrub is over");
}

function asMessage({ away, ...rest }: VerifyOutcome): Requests["verify"]["reply"] {
  if (away === undefined) return { ...rest, away: null };
  const { code, message, remedy } = away;
  return { ...rest, away: { code, message, ...(remedy === undefined ? {} : { remedy }) } };
}

/** Whoever verifies copies, as a scrub reaches them. */
export function othersWhoVerify(bus: Bus, requester: Requester): OthersWhoVerify {
  return {
    ask: (request, signal) => askVerify(requester, request, signal),
    end: (scrub) => bus.send(SCRUB_OVER_SUBJECT, { body: Buffer.from(scrub, "utf8") }),
  };
}

async function askVerify(
  requester: Requester,
  { scrub, copies, storage, bad, deep, cycleMs, boundMs }: VerifyRequest,
  signal: AbortSignal | undefined,
): Promise<VerifyOutcome> {
  const { body } = await requester.request(
    queues.verify,
    "verify",
    {
      scrub,
      storage,
      ids: packBlockIds(copies.map(({ id }) => id)),
      generations: packShortIds(copies.map(({ generation }) => generation)),
      bad,
      deep,
      cycleMs,
      boundMs,
    },
    { resendMs: RESEND_MS, ...(signal === undefined ? {} : { signal }) },
  );
  const { away, ...rest } = body;
  if (away === null) return { ...rest, away: undefined };
  const { code, message, remedy } = away;
  const options = remedy === undefined ? {} : { remedy };
  return { ...rest, away: new AshlarError(asErrorCode(code), message, options) };
}
