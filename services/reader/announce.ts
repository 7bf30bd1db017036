// An agent says that it is there: jobs wait for one that can reach their device.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Bus, Subscription } from "#lib/ports/bus.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Log } from "#lib/ports/log.ts";
import type { Random } from "#lib/ports/random.ts";
import { decodePresence, encodeAgent, encodePresence } from "#proto/message-codec.ts";
import type { AgentMessage } from "#proto/messages.ts";
import { agentSubject, presenceSubject } from "#proto/subjects.ts";

/** How often, in ms; coordinators forget an agent that was not heard of for some of these. */
const EVERY_MS = 5000;

/** Says so from now on, and that it leaves when it is stopped. */
export function announceAgent(
  bus: Bus,
  clock: Clock,
  agent: Omit<AgentMessage, "leaves">,
): { stop(): Promise<void> } {
  const stopped = new AbortController();
  const say = (leaves: boolean): void =>
    bus.send(agentSubject(agent.host), { body: encodeAgent({ ...agent, leaves }) });
  const telling = (async () => {
    while (!stopped.signal.aborted) {
      say(false);
      await clock.sleep(EVERY_MS, stopped.signal).catch(() => undefined);
    }
    say(true);
  })();
  return {
    stop: () => {
      stopped.abort();
      return telling;
    },
  };
}

/** How long the answer of an agent that is there already is waited for, in ms. */
const ANSWER_MS = 1000;

/**
 * Makes sure that this is the only agent of its host: two would take one another's jobs, and neither could end what the other
 * began. Refused where another one answers. One that is stopped, or cut off, cannot answer: when it is back, both are told.
 */
export async function claimHost(
  bus: Bus,
  ports: { readonly clock: Clock; readonly random: Random; readonly log: Log },
  host: string,
): Promise<Subscription> {
  const instance = ports.random.bytes(8).toString("hex");
  const subject = presenceSubject(host);
  const say = (asks: boolean): void =>
    bus.send(subject, { body: encodePresence({ instance, asks }) });
  const answered = new AbortController();
  let isRunning = false;
  const subscription = bus.subscribe(subject, ({ body }) => {
    const other = decodePresence(body);
    if (other.instance === instance) return;
    answered.abort();
    if (isRunning && other.asks) say(false);
    if (isRunning && !other.asks) {
      ports.log.error(`host ${host} has two agents: stop one of them, or give it another name`);
    }
  });
  say(true);
  await ports.clock.sleep(ANSWER_MS, answered.signal).catch(() => undefined);
  if (answered.signal.aborted) {
    await subscription.stop();
    throw new AshlarError(ErrorCode.Refused, `host ${host} has an agent already`, {
      remedy: "stop the other one, or give this one another host in its configuration",
      details: { host },
    });
  }
  isRunning = true;
  // Whoever was away when it was asked hears that there is another one.
  say(false);
  return subscription;
}
