// Compute of a simulated process: the real hashing and sealing, at once, each call with a turn before it, as if a thread had
// taken it up.
import { createInlineCompute } from "#lib/drivers/compute/inline-compute.ts";
import type { Compute } from "#lib/ports/compute.ts";
import type { ComputeTasks } from "#lib/ports/compute-tasks.ts";
import type { SimProcess } from "./sim-process.ts";

/** Makes the Compute of a process. */
export function createSimCompute(tasks: ComputeTasks, process: SimProcess): Compute {
  const inline = createInlineCompute(tasks);
  const after = async <T>(label: string, work: () => Promise<T>): Promise<T> => {
    await process.turn(label);
    return work();
  };
  return {
    concurrency: 2,
    pool: (slotBytes, slotCount) => inline.pool(slotBytes, slotCount),
    hash: (bytes, blockBytes) => after("hash", () => inline.hash(bytes, blockBytes)),
    seal: (requests, out) => after("seal", () => inline.seal(requests, out)),
    open: (requests, out) => after("open", () => inline.open(requests, out)),
    close: () => inline.close(),
  };
}
