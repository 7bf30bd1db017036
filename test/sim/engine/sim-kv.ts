// The metadata as one simulated process sees them: real snapshots and conflicts (the memory driver), with turns around each
// transaction. What lies between its reads is of no interest to anybody else, for they all come from one snapshot; so a
// process can die before it begins, before it commits, and between the commit and the answer.
import type { CommitFault, MemoryKv } from "#lib/drivers/memory/memory-kv.ts";
import type { Kv, KvReader, KvTransaction, TransactOptions } from "#lib/ports/kv.ts";
import type { Fault, FaultPlan } from "./faults.ts";
import type { SimProcess } from "./sim-process.ts";

/** How long a transaction lives in the cluster, in ms: one that is older loses, whatever it read. */
const TOO_OLD_MS = 5000;

const COMMIT_FAULTS: readonly (readonly [Fault, CommitFault])[] = [
  ["kv-conflict", "conflict"],
  ["kv-unknown-committed", "unknown-committed"],
  ["kv-unknown-not-committed", "unknown-not-committed"],
  ["kv-unknown-late", "unknown-late"],
];

/** Opens the metadata for a process. */
export function openSimKv(shared: MemoryKv, process: SimProcess, faults: FaultPlan): Kv {
  return new SimKv(shared, process, faults);
}

class SimKv implements Kv {
  readonly #kv: MemoryKv;
  readonly #process: SimProcess;

  constructor(shared: MemoryKv, process: SimProcess, faults: FaultPlan) {
    this.#process = process;
    this.#kv = shared.client({
      pacing: {
        random: process.random,
        pause: (ms, signal) => process.clock.sleep(ms, signal),
      },
      faults: {
        beforeCommit: async (label) => {
          await process.turn(`commit ${label}`);
          if (faults.strikes("kv-too-old")) {
            await process.until(TOO_OLD_MS, "too old");
            return "conflict";
          }
          return COMMIT_FAULTS.find(([fault]) => faults.strikes(fault))?.[1] ?? "ok";
        },
      },
    });
  }

  async read<T>(body: (reader: KvReader) => Promise<T>): Promise<T> {
    await this.#process.turn("read");
    return this.#kv.read(body);
  }

  async transact<T>(
    body: (tx: KvTransaction) => Promise<T>,
    options: TransactOptions = {},
  ): Promise<T> {
    await this.#process.turn("begin");
    const value = await this.#kv.transact(body, options);
    await this.#process.turn(`done ${options.label ?? "transaction"}`);
    return value;
  }

  async flush(): Promise<void> {
    await this.#process.turn("flush");
    await this.#kv.flush();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
