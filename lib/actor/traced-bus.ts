// A Bus whose messages carry the trace that they belong to: what a handler does is part of what its message was published for.
import type { Bus } from "#lib/ports/bus.ts";
import type { Telemetry } from "#lib/ports/telemetry.ts";

/** Queues only: what is sent by subject is answers, progress and presence. */
export function traceBus(bus: Bus, telemetry: Telemetry): Bus {
  return {
    publish: (queue, message, options) => {
      const trace = telemetry.headers();
      const headers = { ...message.headers, ...trace };
      return bus.publish(queue, { ...message, headers }, options);
    },
    consume: (queue, options, handler) =>
      bus.consume(queue, options, async (message) => {
        const span = telemetry.spanFrom(message.headers, `queue ${queue}`);
        try {
          await telemetry.within(span, () => handler(message));
          span.end();
        } catch (error) {
          span.end(error);
          throw error;
        }
      }),
    send: (subject, message) => bus.send(subject, message),
    subscribe: (subject, handler) => bus.subscribe(subject, handler),
    inbox: () => bus.inbox(),
    close: () => bus.close(),
  };
}
