// Reader: reads local devices for backups and restores onto them. It holds no storage credential, no repository key and no
// access to the metadata, only the dedup key (DESIGN §2).
import { createHash } from "node:crypto";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { meterPool } from "#lib/actor/metered-pool.ts";
import { Requester } from "#lib/actor/requester.ts";
import { serve } from "#lib/actor/serve.ts";
import type { BlockId } from "#lib/core/ids.ts";
import type { BlockSource, BlockTarget } from "#lib/ports/block-device.ts";
import type { Bus } from "#lib/ports/bus.ts";
import type { Compute, SlotPool } from "#lib/ports/compute.ts";
import type { Hasher } from "#lib/repository/hashing.ts";
import type { Ports } from "#lib/repository/repository.ts";
import { MIXED_READING, queues, type Requests } from "#proto/messages.ts";
import { Backup } from "./backup.ts";
import { ReaderJob } from "./reader-job.ts";
import { restore } from "./restore.ts";

/** What a target is opened for. */
export interface OpenTargetRequest {
  readonly url: string;
  readonly sizeBytes: number;
  readonly force: boolean;
  /** The restore that it is for: a later try goes on with the target that an earlier one has made. */
  readonly restore: string;
}

/** What a reader needs. */
export interface ReaderOptions {
  readonly ports: Ports;
  readonly bus: Bus;
  readonly compute: Compute;
  readonly hasher: Hasher;
  /** This host's name: the queue that it serves. */
  readonly host: string;
  /** Bytes of one slot: at least the block size; and how many. */
  readonly slotBytes: number;
  readonly slotCount: number;
  readonly openSource: (url: string, options: { readonly frozen: boolean }) => Promise<BlockSource>;
  readonly openTarget: (request: OpenTargetRequest) => Promise<BlockTarget>;
  readonly readHints: (path: string) => Promise<string>;
  /** The queue of writers that give blocks back; default: those that take them. */
  readonly readsQueue?: string;
}

/** A running reader. */
export interface Reader {
  stop(): Promise<void>;
}

interface Running {
  backup: Backup | undefined;
  readonly result: Promise<unknown>;
  /** Stops it, for the reason; resolves when it touches nothing any more. */
  stop: (why: AshlarError) => Promise<void>;
  /** Set once it is being stopped. */
  stopped?: Promise<void>;
}

class ReaderActor {
  readonly #options: ReaderOptions;
  readonly #requester: Requester;
  /** Jobs by session and token: a repeated request finds the first. */
  readonly #running = new Map<string, Running>();
  /** Sessions whose source was a stream: what is left of it must not be taken for the whole. */
  readonly #streams = new Set<string>();
  readonly #pools = new Map<number, SlotPool>();

  constructor(options: ReaderOptions) {
    this.#options = options;
    this.#requester = new Requester(options.bus, options.ports.clock, options.ports.random);
  }

  get requester(): Requester {
    return this.#requester;
  }

  /** Slots are allocated when the first job needs them; larger ones only for larger blocks. */
  #pool(blockBytes: number): SlotPool {
    const { slotBytes, slotCount, compute, ports } = this.#options;
    const bytes = Math.max(blockBytes, Math.floor(slotBytes / blockBytes) * blockBytes);
    let pool = this.#pools.get(bytes);
    if (pool === undefined) {
      const count = Math.max(4, Math.floor((slotBytes * slotCount) / bytes));
      pool = meterPool(compute.pool(bytes, count), ports.telemetry, { role: "reader" });
      this.#pools.set(bytes, pool);
    }
    return pool;
  }

  backup(request: Requests["backup"]["request"]): Promise<Requests["backup"]["reply"]> {
    const at = `${request.session}/${request.token}`;
    const known = this.#running.get(at);
    if (known !== undefined) return known.result as Promise<Requests["backup"]["reply"]>;
    // Known before anything is opened: hints may take minutes to come, and a repeated request must not read them as well.
    const { promise, resolve } = Promise.withResolvers<Requests["backup"]["reply"]>();
    const running: Running = { backup: undefined, result: promise, stop: nothingToStop };
    this.#running.set(at, running);
    resolve(this.#backup(request, at, running));
    return promise;
  }

  async #backup(
    request: Requests["backup"]["request"],
    at: string,
    running: Running,
  ): Promise<Requests["backup"]["reply"]> {
    const { openSource, readHints } = this.#options;
    const job = this.#job(request);
    const horizon = (): number | null => running.backup?.horizon() ?? null;
    const alive = job.keepAlive(horizon);
    let source: BlockSource | undefined;
    const end = async (): Promise<void> => {
      job.end();
      await alive;
      await source?.close();
    };
    running.stop = async (why) => {
      job.fail(why);
      await running.result.catch(() => undefined);
      await end();
    };
    // A job that is nobody's any more keeps nothing open, also when it had come to its end.
    void job.orphaned.then(() => this.#forget(at, running));
    try {
      await job.requireLive();
      source = await openSource(request.source, { frozen: request.frozen });
      job.signal.throwIfAborted();
      this.#readOnce(request.session, source);
      const hintsText = request.hints === null ? undefined : await readHints(request.hints);
      running.backup = await this.#startBackup(request, job, source, hintsText);
      // The session is kept alive until it is released: its version has yet to turn valid.
      return await running.backup.run();
    } catch (error) {
      if (this.#running.get(at) === running) this.#running.delete(at);
      await end();
      throw error;
    }
  }

  /**
   * Stops what runs, and forgets it only then: whoever asks meanwhile, for its end or for its result, gets those of this job.
   * @param only this job, and none that has taken its place
   */
  async #forget(at: string, only?: Running, why: AshlarError = nobodyWaits()): Promise<void> {
    const running = this.#running.get(at);
    if (running === undefined || (only !== undefined && only !== running)) return;
    running.stopped ??= running.stop(why).catch((error: unknown) =>
      // A source that cannot be closed is no reason to fail whoever has no use for it.
      this.#options.ports.log.warn("a job was not ended cleanly", { error }),
    );
    await running.stopped;
    if (this.#running.get(at) === running) this.#running.delete(at);
  }

  /** Ends all that runs: it is gone on with when this host's reader is there again. */
  async stopAll(): Promise<void> {
    const all = [...this.#running];
    await Promise.all(all.map(([at, running]) => this.#forget(at, running, isStopping())));
  }

  #readOnce(session: string, source: BlockSource): void {
    if (source.seekable) return;
    if (this.#streams.has(session)) {
      throw new AshlarError(
        ErrorCode.TryAgain,
        `the backup was taken for dead while it read ${source.url}, and a stream cannot be read twice`,
        {
          remedy:
            "run it again with the stream from its beginning: what is stored is not sent again",
        },
      );
    }
    this.#streams.add(session);
  }

  #job(request: Requests["backup" | "restore"]["request"]): ReaderJob {
    const { bus, ports, host } = this.#options;
    return new ReaderJob({ bus, clock: ports.clock, requester: this.#requester, host }, request);
  }

  /** What is read is told before any node of it is brought, so that no other run takes it for its own. */
  async #startBackup(
    request: Requests["backup"]["request"],
    job: ReaderJob,
    source: BlockSource,
    hintsText: string | undefined,
  ): Promise<Backup> {
    const { ports, compute, hasher } = this.#options;
    const { session, token, frozen, placed, placedOf } = request;
    const reading = frozen ? readingOf(source, request, hintsText) : MIXED_READING;
    const tell = async (what: string): Promise<void> => {
      const body = { session, token, horizon: null, reading: what };
      await this.#requester.request(queues.dedup, "alive", body, { signal: job.signal });
    };
    if (frozen) await tell(reading);
    const isSame = reading !== MIXED_READING && reading === placedOf;
    return new Backup(
      {
        ports,
        requester: this.#requester,
        compute,
        pool: this.#pool(request.blockBytes),
        hasher,
        source,
        hintsText,
        signal: job.signal,
        onProgress: job.report,
        placed: new Map(
          isSame ? placed.map(({ level, index, id }) => [`${level}/${index}`, id as BlockId]) : [],
        ),
        readsOtherwise: () => tell(MIXED_READING),
      },
      request,
    );
  }

  /** A reader that was started anew reads once more, as the repeated request told it to: that comes to its end first. */
  async ensureRoot(
    request: Requests["ensureRoot"]["request"],
  ): Promise<Requests["ensureRoot"]["reply"]> {
    const running = this.#running.get(`${request.session}/${request.token}`);
    await running?.result;
    if (running?.backup === undefined) {
      throw new AshlarError(ErrorCode.TryAgain, "the backup is not running here any more");
    }
    return running.backup.ensureRoot(request.policy);
  }

  /** Ends what runs for the session; when it resolves, nothing is read or written for it any more. */
  release(request: Requests["release"]["request"]): Promise<void> {
    return this.#forget(`${request.session}/${request.token}`);
  }

  /** Once for each session: a repeated request, also one that comes when all is done, gets the result of the first. */
  restore(request: Requests["restore"]["request"]): Promise<Requests["restore"]["reply"]> {
    const at = `${request.session}/${request.token}`;
    const known = this.#running.get(at);
    if (known !== undefined) return known.result as Promise<Requests["restore"]["reply"]>;
    const job = this.#job(request);
    const alive = job.keepAlive(() => null);
    const result = this.#restore(request, job).finally(() => job.flush());
    const stop = async (why: AshlarError): Promise<void> => {
      job.fail(why);
      await result.catch(() => undefined);
      job.end();
      await alive;
    };
    const running: Running = { backup: undefined, result, stop };
    this.#running.set(at, running);
    void job.orphaned.then(() => this.#forget(at, running));
    return result;
  }

  async #restore(
    request: Requests["restore"]["request"],
    job: ReaderJob,
  ): Promise<Requests["restore"]["reply"]> {
    await job.requireLive();
    const { readsQueue } = this.#options;
    const target = await this.#options.openTarget({
      url: request.target,
      sizeBytes: request.length,
      force: request.force,
      // Of an older coordinator there is no more than its session.
      restore: request.restore ?? request.session,
    });
    try {
      return await restore(
        {
          ports: this.#options.ports,
          requester: this.#requester,
          target,
          pool: this.#pool(request.blockBytes),
          signal: job.signal,
          onProgress: job.report,
          ...(readsQueue === undefined ? {} : { readsQueue }),
        },
        request,
      );
    } catch (error) {
      throw target.touched ? incomplete(error, request.target) : error;
    } finally {
      await target.close();
    }
  }
}

const nobodyWaits = (): AshlarError =>
  new AshlarError(ErrorCode.Cancelled, "nobody waits for the job any more");

const isStopping = (): AshlarError =>
  new AshlarError(ErrorCode.TryAgain, "the reader is being stopped", {
    remedy: "it can be gone on with when a reader is there again",
  });

const nothingToStop = (): Promise<void> => Promise.resolve();

/** A target that was begun is not what it seems to be, and nothing else tells. */
function incomplete(error: unknown, target: string): unknown {
  if (!(error instanceof AshlarError) || target === "-") return error;
  const { code, message, remedy, details } = error;
  const again = `restore onto it again with --force --differential`;
  return new AshlarError(code, `${message}; ${target} is incomplete`, {
    cause: error,
    remedy: remedy === undefined ? again : `${remedy}; ${again}`,
    details: { ...details, incomplete: target },
  });
}

/** What tells readings apart: the content of the source, and which parts of it are taken from elsewhere. */
function readingOf(
  source: BlockSource,
  request: Requests["backup"]["request"],
  hintsText: string | undefined,
): string {
  if (source.identity === undefined) return MIXED_READING;
  const parts = [source.identity, request.base?.root ?? "", hintsText ?? ""];
  return createHash("sha256").update(JSON.stringify(parts)).digest("hex");
}

/** Starts a reader; it takes as many jobs at once as it is given. */
export function startReader(options: ReaderOptions): Reader {
  const actor = new ReaderActor(options);
  const subscription = serve(
    options.bus,
    queues.reader(options.host),
    64,
    {
      backup: async (request) => ({ body: await actor.backup(request) }),
      ensureRoot: async (request) => ({ body: await actor.ensureRoot(request) }),
      release: async (request) => {
        await actor.release(request);
        return { body: {} };
      },
      restore: async (request) => ({ body: await actor.restore(request) }),
    },
    (error) => options.ports.log.error("reading failed", { error }),
  );
  return {
    stop: async () => {
      const stopped = subscription.stop();
      await actor.stopAll();
      await stopped;
      await actor.requester.close();
    },
  };
}
