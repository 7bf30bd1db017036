// Looks after the queues from outside: how much waits in each, and whether somebody gets it. Servers of several versions have been
// seen to stop giving out what a work queue of three replicas holds, though consumers ask for it, until the consumer is made anew
// (https://github.com/nats-io/nats-server/issues/4736, 7680). Whoever published without waiting would never hear of it.
import type { ConsumerInfo, JetStreamManager } from "@nats-io/jetstream";
import type { Clock } from "#lib/ports/clock.ts";
import type { Log } from "#lib/ports/log.ts";
import type { Telemetry } from "#lib/ports/telemetry.ts";
import { isMissing } from "./nats-errors.ts";
import type { StreamSpec } from "./nats-topology.ts";

/** Options of {@link watchQueues}. */
export interface QueueWatchOptions {
  readonly manager: JetStreamManager;
  readonly streams: readonly StreamSpec[];
  /** What the names of all subjects begin with. */
  readonly subjectPrefix: string;
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly log: Log;
  /** Ends it. */
  readonly closed: AbortSignal;
  /** Who consumes this stream is to open its consumer again. */
  readonly onRemade: (stream: string) => void;
  /** Default 15 s. */
  readonly everyMs?: number;
}

const EVERY_MS = 15_000;

/** Looks again and again, until it is closed. A look that fails is no more than late. */
export async function watchQueues(options: QueueWatchOptions): Promise<void> {
  const { clock, closed, log, streams, everyMs = EVERY_MS } = options;
  const queues = streams.filter(({ kind }) => kind === "workqueue");
  const watch = new QueueWatch(options);
  while (!closed.aborted) {
    await clock.sleep(everyMs, closed).catch(() => undefined);
    for (const { name } of queues) {
      if (closed.aborted) return;
      try {
        await watch.look(name);
      } catch (error) {
        // Streams that are away are mended by those who use them.
        log.debug(`the NATS stream ${name} could not be looked at`, { error });
      }
    }
  }
}

class QueueWatch {
  readonly #options: QueueWatchOptions;
  /** What each consumer that looked stalled the last time had given out by then. */
  readonly #suspects = new Map<string, string>();
  /** Series that have been told: what is empty again is told as such. */
  readonly #told = new Set<string>();

  constructor(options: QueueWatchOptions) {
    this.#options = options;
  }

  async look(stream: string): Promise<void> {
    const { manager, telemetry } = this.#options;
    const { state } = await manager.streams.info(stream, { subjects_filter: ">" });
    telemetry.gauge("ashlar.bus.stream_bytes", state.bytes, { stream });
    const waiting = new Map(Object.entries(state.subjects ?? {}));
    this.#tellDepths(stream, waiting);
    if (waiting.size === 0) return;
    for await (const info of manager.consumers.list(stream)) {
      const count = waiting.get(info.config.filter_subject ?? "") ?? 0;
      if (this.#isStalled(info, count)) await this.#remake(info, count);
    }
  }

  #tellDepths(stream: string, waiting: ReadonlyMap<string, number>): void {
    const { subjectPrefix, telemetry } = this.#options;
    const tell = (subject: string, count: number): void => {
      const queue = subject.slice(subjectPrefix.length + 1);
      telemetry.gauge("ashlar.bus.queue_depth", count, { stream, queue });
    };
    for (const key of this.#told) {
      const [of, subject] = key.split(" ");
      if (of !== stream || subject === undefined || waiting.has(subject)) continue;
      tell(subject, 0);
      this.#told.delete(key);
    }
    for (const [subject, count] of waiting) {
      tell(subject, count);
      this.#told.add(`${stream} ${subject}`);
    }
  }

  /** Somebody asks, more is there than is under way, and between two looks nothing has been given out. */
  #isStalled(info: ConsumerInfo, count: number): boolean {
    const key = `${info.stream_name} ${info.name}`;
    // Another process may have made it anew meanwhile.
    const delivered = `${info.created} ${info.delivered.consumer_seq}`;
    const before = this.#suspects.get(key);
    const looksStalled = info.num_waiting > 0 && count > info.num_ack_pending;
    if (looksStalled) this.#suspects.set(key, delivered);
    else this.#suspects.delete(key);
    return looksStalled && before === delivered;
  }

  /** What it had given out and not yet forgotten comes again: anything may come twice. */
  async #remake(
    { stream_name: stream, name, created, delivered }: ConsumerInfo,
    count: number,
  ): Promise<void> {
    const { manager, telemetry, log, onRemade } = this.#options;
    this.#suspects.delete(`${stream} ${name}`);
    try {
      // Counts and consumers were asked for one after the other; and another process may have been here.
      const now = await manager.consumers.info(stream, name);
      if (now.created !== created || now.delivered.consumer_seq !== delivered.consumer_seq) return;
      await manager.consumers.delete(stream, name);
    } catch (error) {
      // Another process was quicker.
      if (!isMissing(error)) throw error;
    }
    telemetry.count("ashlar.bus.stalled", 1, { stream });
    log.warn(
      `NATS has stopped giving out what waits in ${stream} for ${name} (${count}); its consumer is made anew`,
    );
    onRemade(stream);
  }
}
