// The agents that are there now, as they say themselves.
import { isAllowed } from "#lib/core/allow-list.ts";
import type { Bus, Subscription } from "#lib/ports/bus.ts";
import type { Clock } from "#lib/ports/clock.ts";
import { decodeAgent } from "#proto/message-codec.ts";
import type { AgentMessage } from "#proto/messages.ts";
import { AGENTS_SUBJECT, agentSubject } from "#proto/subjects.ts";
import type { DeviceWish } from "./job-kinds.ts";

/** An agent that said nothing for so long is given no job, in ms: three times what it may be silent. */
const ASSIGN_MS = 15_000;
/** And after so long those that it has are given to others. */
const GONE_MS = 30_000;
/** It is forgotten. */
const FORGET_MS = 3_600_000;
/** How often this process listens to itself, in ms: what it cannot hear of itself it cannot hear of others. */
const BEACON_MS = 5000;

/** Why a device cannot be reached now. */
export interface Unreachable {
  readonly waitsFor: string;
}

/** The agents of a cluster. */
export class AgentDirectory {
  readonly #clock: Clock;
  readonly #subscriptions: readonly Subscription[];
  readonly #agents = new Map<string, AgentMessage & { readonly atMs: number }>();
  readonly #stopped = new AbortController();
  readonly #beating: Promise<void>;
  /** Time that counts: while nothing is heard, no agent grows older than the last beacon and one more. */
  #heardMs = 0;
  #beaconMs: number;

  /** @param onArrival told when there is one more: jobs may have waited for it */
  constructor(bus: Bus, clock: Clock, onArrival: () => void) {
    this.#clock = clock;
    this.#beaconMs = clock.monotonic();
    const own = bus.inbox();
    this.#subscriptions = [
      bus.subscribe(AGENTS_SUBJECT, ({ body, subject }) => {
        const agent = decodeAgent(body);
        // Whoever may publish there is of that host; what it says of another one is nothing.
        if (subject !== agentSubject(agent.host)) return;
        const isNew = !this.#agents.has(agent.host);
        if (agent.leaves) this.#agents.delete(agent.host);
        else this.#agents.set(agent.host, { ...agent, atMs: this.#nowMs() });
        if (isNew && !agent.leaves) onArrival();
      }),
      bus.subscribe(own, () => {
        this.#heardMs = this.#nowMs();
        this.#beaconMs = clock.monotonic();
        this.#forget();
      }),
    ];
    this.#beating = this.#beat(bus, own);
  }

  async #beat(bus: Bus, own: string): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      bus.send(own, { body: Buffer.alloc(0) });
      await this.#clock.sleep(BEACON_MS, signal).catch(() => undefined);
    }
  }

  #nowMs(): number {
    return this.#heardMs + Math.min(this.#clock.monotonic() - this.#beaconMs, 2 * BEACON_MS);
  }

  #forget(): void {
    const nowMs = this.#nowMs();
    for (const [host, { atMs }] of this.#agents) {
      if (nowMs - atMs > FORGET_MS) this.#agents.delete(host);
    }
  }

  /**
   * The host whose agent is to do it: the one that was asked for, or any that may.
   * @param busyness how many jobs a host has now: of several hosts the least busy is taken
   */
  find(wish: DeviceWish, busyness: (host: string) => number): string | Unreachable {
    const present = [...this.#agents.values()].filter(({ host }) =>
      this.#isWithin(host, ASSIGN_MS),
    );
    if (wish.host !== undefined) {
      // What it may touch it decides itself, with an error that names its configuration.
      if (present.some(({ host }) => host === wish.host)) return wish.host;
      return { waitsFor: `the agent of host ${wish.host}` };
    }
    const able = present
      .filter((agent) => isAllowed(wish.use === "source" ? agent.sources : agent.targets, wish.url))
      .toSorted((a, b) => busyness(a.host) - busyness(b.host) || (a.host < b.host ? -1 : 1));
    return able[0]?.host ?? { waitsFor: `an agent that may use ${wish.url}` };
  }

  /** Whether the host's agent has left, or was not heard of for long, though others could be heard. */
  isGone(host: string): boolean {
    return !this.#isWithin(host, GONE_MS);
  }

  #isWithin(host: string, ms: number): boolean {
    const agent = this.#agents.get(host);
    return agent !== undefined && this.#nowMs() - agent.atMs <= ms;
  }

  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#beating;
    await Promise.all(this.#subscriptions.map((subscription) => subscription.stop()));
  }
}
