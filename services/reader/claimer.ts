// Batches claims: what is asked while earlier batches are out goes together into the next one. Waits with patience for
// blocks that another session brings.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { packBlockIds, type BlockId, type SessionId, type Token } from "#lib/core/ids.ts";
import type { Requester } from "#lib/actor/requester.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { CopyMessage, PolicyMessage } from "#proto/message-parts.ts";
import { queues } from "#proto/messages.ts";
import type { EpochTracker, ReleaseEpoch } from "./epoch-tracker.ts";

/** What a claim came to. The epoch is held until `release`: when a committed node has used the answer. */
export type Claimed =
  | { readonly kind: "known"; readonly release: ReleaseEpoch }
  | {
      readonly kind: "send";
      readonly copies: readonly CopyMessage[];
      readonly need: number;
      readonly release: ReleaseEpoch;
    }
  | { readonly kind: "wait" };

/** What all claims of a backup have in common. */
export interface ClaimerOptions {
  readonly requester: Requester;
  readonly clock: Clock;
  readonly epochs: EpochTracker;
  readonly session: SessionId;
  readonly token: Token;
  readonly signal: AbortSignal;
  /** How long another session's promise to bring a block is waited for, in ms. */
  readonly patienceMs: number;
}

interface Wanted {
  readonly kind: "block" | "node";
  readonly id: BlockId;
  readonly plainBytes: number;
  readonly policy: PolicyMessage;
  readonly impatient: boolean;
  readonly resolve: (claimed: Claimed) => void;
  readonly reject: (error: unknown) => void;
}

const BATCH = 256;
const BATCHES_OUT_MAX = 2;
const WAIT_FIRST_MS = 20;
const WAIT_MAX_MS = 1000;

/** Claims ids for one backup. */
export class Claimer {
  readonly #options: ClaimerOptions;
  #queue: Wanted[] = [];
  #out = 0;
  #scheduled = false;

  constructor(options: ClaimerOptions) {
    this.#options = options;
  }

  /** Claims once. */
  claim(
    kind: "block" | "node",
    id: BlockId,
    plainBytes: number,
    policy: PolicyMessage,
    impatient = false,
  ): Promise<Claimed> {
    const { promise, resolve, reject } = Promise.withResolvers<Claimed>();
    this.#queue.push({ kind, id, plainBytes, policy, impatient, resolve, reject });
    this.#schedule();
    return promise;
  }

  /** Claims again until it is known or to be sent; out of patience, other sessions' promises no longer count. */
  async claimPatiently(
    kind: "block" | "node",
    id: BlockId,
    plainBytes: number,
    policy: PolicyMessage,
  ): Promise<Exclude<Claimed, { kind: "wait" }>> {
    const { clock, patienceMs, signal } = this.#options;
    const started = clock.monotonic();
    for (let pause = WAIT_FIRST_MS; ; pause = Math.min(WAIT_MAX_MS, pause * 2)) {
      const impatient = clock.monotonic() - started >= patienceMs;
      const claimed = await this.claim(kind, id, plainBytes, policy, impatient);
      if (claimed.kind !== "wait") return claimed;
      await clock.sleep(pause, signal);
    }
  }

  #schedule(): void {
    if (this.#scheduled || this.#out >= BATCHES_OUT_MAX) return;
    this.#scheduled = true;
    queueMicrotask(() => {
      this.#scheduled = false;
      while (this.#queue.length > 0 && this.#out < BATCHES_OUT_MAX) void this.#sendBatch();
    });
  }

  async #sendBatch(): Promise<void> {
    const batch = this.#takeBatch();
    const { epochs } = this.#options;
    this.#out += 1;
    // Whatever is answered from now on belongs to the newest known epoch or a later one.
    const release = epochs.hold(epochs.latest);
    try {
      await this.#ask(batch);
    } catch (error) {
      for (const wanted of batch) wanted.reject(error);
    } finally {
      release();
      this.#out -= 1;
      this.#schedule();
    }
  }

  /** The first of the queue with all that can be asked together with it: same kind and policy, no id twice. */
  #takeBatch(): Wanted[] {
    const first = this.#queue[0] as Wanted;
    const batch: Wanted[] = [];
    const rest: Wanted[] = [];
    const seen = new Set<BlockId>();
    for (const wanted of this.#queue) {
      const fits =
        batch.length < BATCH &&
        wanted.kind === first.kind &&
        wanted.policy === first.policy &&
        wanted.impatient === first.impatient &&
        !seen.has(wanted.id);
      (fits ? batch : rest).push(wanted);
      if (fits) seen.add(wanted.id);
    }
    this.#queue = rest;
    return batch;
  }

  async #ask(batch: readonly Wanted[]): Promise<void> {
    const { requester, session, token, signal, epochs } = this.#options;
    const first = batch[0] as Wanted;
    const { body } = await requester.request(
      queues.dedup,
      "claim",
      {
        session,
        token,
        kind: first.kind,
        ids: packBlockIds(batch.map((wanted) => wanted.id)),
        plainBytes: batch.map((wanted) => wanted.plainBytes),
        policy: first.policy,
        impatient: first.impatient,
      },
      { signal },
    );
    epochs.saw(body.epoch);
    for (const [index, wanted] of batch.entries()) {
      const answer = body.answers[index];
      if (answer === undefined) {
        wanted.reject(new AshlarError(ErrorCode.Internal, "a claim was not answered"));
      } else if (epochs.isVoid(body.epoch)) {
        this.#queue.push(wanted);
      } else if (answer.kind === "wait") {
        wanted.resolve(answer);
      } else {
        wanted.resolve({ ...answer, release: epochs.hold(body.epoch) });
      }
    }
  }
}
