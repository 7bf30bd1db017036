// Compute on the calling thread: for tests, the simulation and work that is too small for threads.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Compute } from "#lib/ports/compute.ts";
import type { ComputeTasks } from "#lib/ports/compute-tasks.ts";
import { createLocalSlotPool } from "./slot-pool.ts";

/** Makes a Compute that runs `tasks` at once. */
export function createInlineCompute(tasks: ComputeTasks): Compute {
  let closed = false;
  // Asynchronous, so that a task that throws rejects, as it would on a worker.
  const run = async <Result>(task: () => Result): Promise<Result> => {
    if (closed) throw new AshlarError(ErrorCode.Internal, "compute was used after it was closed");
    return task();
  };
  return {
    concurrency: 1,
    pool: createLocalSlotPool,
    hash: (bytes, blockBytes) => run(() => tasks.hash(bytes, blockBytes)),
    seal: (requests, out) => run(() => tasks.seal(requests, out)),
    open: (requests, out) => run(() => tasks.open(requests, out)),
    async close() {
      closed = true;
    },
  };
}
