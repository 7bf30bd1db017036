// A Kv whose transactions are spans, with how often each was run.
import type { Kv } from "#lib/ports/kv.ts";
import type { Telemetry } from "#lib/ports/telemetry.ts";

/** The store, telling what it does. */
export function traceKv(kv: Kv, telemetry: Telemetry): Kv {
  return {
    read: (body) => {
      telemetry.count("ashlar.kv.reads", 1);
      return kv.read(body);
    },
    transact: async (body, options) => {
      const span = telemetry.span("kv.transaction", { label: options?.label ?? "" });
      let runs = 0;
      try {
        const value = await kv.transact((tx) => {
          runs += 1;
          return body(tx);
        }, options);
        span.set({ runs });
        span.end();
        return value;
      } catch (error) {
        span.set({ runs });
        span.end(error);
        throw error;
      } finally {
        telemetry.count("ashlar.kv.transactions", 1);
        if (runs > 1) telemetry.count("ashlar.kv.conflicts", runs - 1);
      }
    },
    flush: () => kv.flush(),
    close: () => kv.close(),
  };
}
