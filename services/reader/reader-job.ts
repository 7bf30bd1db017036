// A job of a reader: what it can be stopped by, where it reports, its signs of life, and whether anybody still waits for it.
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { Requester } from "#lib/actor/requester.ts";
import type { Bus } from "#lib/ports/bus.ts";
import type { Clock } from "#lib/ports/clock.ts";
import { encodeProgress } from "#proto/message-codec.ts";
import type { ProgressMessage, SessionMessage } from "#proto/message-parts.ts";
import { queues } from "#proto/messages.ts";
import { attendSubject, cancelSubject, progressSubject } from "#proto/subjects.ts";

const PROGRESS_EVERY_MS = 200;
/** So many signs of life in a row to which nobody said that he still waits: whoever gave the job is gone. */
const UNATTENDED_MAX = 20;

/** What a job works with. */
export interface ReaderJobPorts {
  readonly bus: Bus;
  readonly clock: Clock;
  readonly requester: Requester;
  /** This host. */
  readonly host: string;
}

/** A job under way. */
export class ReaderJob {
  readonly #ports: ReaderJobPorts;
  readonly #request: SessionMessage & { readonly job: string; readonly heartbeatMs: number };
  readonly #stopped = new AbortController();
  readonly #ended = new AbortController();
  readonly #orphaned = Promise.withResolvers<void>();
  readonly #unsubscribe: () => void;
  #unattended = 0;
  #reportedMs = 0;
  #latest: ProgressMessage | undefined;

  constructor(
    ports: ReaderJobPorts,
    request: SessionMessage & { readonly job: string; readonly heartbeatMs: number },
  ) {
    this.#ports = ports;
    this.#request = request;
    const { bus, host } = ports;
    // Of another token it is about another run of the session.
    const isMeant = (body: Uint8Array): boolean => Buffer.from(body).toString() === request.token;
    const cancel = bus.subscribe(cancelSubject(host, request.session), ({ body }) => {
      if (isMeant(body)) this.fail(new AshlarError(ErrorCode.Cancelled, "stopped on request"));
    });
    const attendance = bus.subscribe(attendSubject(host, request.session), ({ body }) => {
      if (isMeant(body)) this.#unattended = 0;
    });
    this.#unsubscribe = () => {
      void cancel.stop();
      void attendance.stop();
    };
  }

  /** Aborts when the job is to stop. */
  get signal(): AbortSignal {
    return this.#stopped.signal;
  }

  /** Resolves when the job is nobody's any more: its session was taken over or has ended, or nobody waits for it. */
  get orphaned(): Promise<void> {
    return this.#orphaned.promise;
  }

  /** Stops it. */
  fail(error: unknown): void {
    this.#stopped.abort(error);
  }

  /** It has ended: no further signs of life, and a last report. */
  end(): void {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort();
    this.flush();
    this.#unsubscribe();
  }

  /** Reports, but not too often. */
  readonly report = (progress: ProgressMessage): void => {
    this.#latest = progress;
    const now = this.#ports.clock.monotonic();
    if (now - this.#reportedMs < PROGRESS_EVERY_MS) return;
    this.#reportedMs = now;
    this.flush();
  };

  /** Sends the last report again, whenever the one before was. */
  flush(): void {
    if (this.#latest === undefined) return;
    const body = encodeProgress(this.#latest);
    const { bus, host } = this.#ports;
    bus.send(progressSubject(host, this.#request.job), { body });
  }

  /** Fenced unless the session is live: a request may come late, or once more, and nothing is opened for it then. */
  async requireLive(): Promise<void> {
    await this.#alive(null, this.signal);
  }

  /** Signs of life with the horizon, until the job has ended; one that is nobody's any more stops. */
  async keepAlive(horizon: () => number | null): Promise<void> {
    const ended = this.#ended.signal;
    while (!ended.aborted) {
      try {
        await this.#ports.clock.sleep(this.#request.heartbeatMs, ended);
      } catch {
        return;
      }
      this.#unattended += 1;
      if (this.#unattended > UNATTENDED_MAX) {
        // Its session dies by lease: it can be gone on with.
        this.#orphan(new AshlarError(ErrorCode.TryAgain, "nobody waits for the job any more"));
        return;
      }
      try {
        await this.#alive(horizon(), ended);
      } catch (error) {
        if (ended.aborted) return;
        if (!isErrorCode(error, ErrorCode.Fenced)) continue;
        this.#orphan(error);
        return;
      }
    }
  }

  #orphan(error: AshlarError): void {
    this.fail(error);
    this.#orphaned.resolve();
  }

  async #alive(horizon: number | null, signal: AbortSignal): Promise<void> {
    const { session, token } = this.#request;
    const body = { session, token, horizon, reading: null };
    await this.#ports.requester.request(queues.dedup, "alive", body, { signal });
  }
}
