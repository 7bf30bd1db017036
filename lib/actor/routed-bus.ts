// A bus whose queues may lie elsewhere: a reader's blocks go to a writer in the same process, or to a pool of writers, and the
// roles know nothing of it.
import type { Bus, SentMessage, Subscription } from "#lib/ports/bus.ts";

/** Where a queue really is. */
export interface Route {
  /** The bus that has it; default: the one that is routed. */
  readonly bus?: Bus;
  /** Its name there; default: its own. */
  readonly queue?: string;
}

/** What inboxes begin with (lib/ports/bus.ts). */
const INBOX = "inbox.";

/**
 * The bus with some of its queues elsewhere. What is sent to an inbox is heard wherever it is: who asks over one bus may be
 * answered over another. Closing it closes all of them.
 */
export function routeBus(bus: Bus, routes: Readonly<Record<string, Route>>): Bus {
  const routeOf = (name: string): { readonly bus: Bus; readonly queue: string } => {
    const route = routes[name];
    return { bus: route?.bus ?? bus, queue: route?.queue ?? name };
  };
  const others = new Set(
    Object.values(routes).flatMap((route) => (route.bus === undefined ? [] : [route.bus])),
  );
  /** Inboxes of this process. */
  const own = new Map<string, number>();
  return {
    publish: (name, message, options) => {
      const route = routeOf(name);
      return route.bus.publish(route.queue, message, options);
    },
    consume: (name, options, handler) => {
      const route = routeOf(name);
      return route.bus.consume(route.queue, options, handler);
    },
    send: (subject, message) => {
      // To a subscriber here it is handed over in memory.
      if (own.has(subject)) for (const other of others) other.send(subject, message);
      else bus.send(subject, message);
    },
    subscribe: (subject, handler) => {
      const subscription = bus.subscribe(subject, handler);
      if (others.size === 0 || !subject.startsWith(INBOX)) return subscription;
      return subscribeHere(subject, handler, subscription);
    },
    inbox: () => bus.inbox(),
    close: async () => {
      for (const each of [bus, ...others]) await each.close();
    },
  };

  function subscribeHere(
    subject: string,
    handler: (message: SentMessage) => void,
    first: Subscription,
  ): Subscription {
    own.set(subject, (own.get(subject) ?? 0) + 1);
    const all = [first, ...[...others].map((other) => other.subscribe(subject, handler))];
    return {
      stop: async () => {
        const count = (own.get(subject) ?? 0) - 1;
        if (count > 0) own.set(subject, count);
        else own.delete(subject);
        await Promise.all(all.map((each) => each.stop()));
      },
    };
  }
}
