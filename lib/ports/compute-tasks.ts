// ComputeTasks: the work behind Compute, which a driver runs on its own thread or on others. Implemented by lib/repository.
import type { HashedBlocks, Opened, OpenRequest, Piece, SealRequest } from "./compute.ts";

/** The same three calls as Compute, synchronous. */
export interface ComputeTasks {
  hash(bytes: Uint8Array, blockBytes: number): HashedBlocks;
  seal(requests: readonly SealRequest[], out: Uint8Array): Piece[];
  open(requests: readonly OpenRequest[], out: Uint8Array): Opened[];
}

/** A module of tasks, which a worker thread imports for itself: threads share no functions. */
export interface ComputeTaskModule {
  /** `setup` crossed to the thread by structured clone. */
  createTasks(setup: unknown): ComputeTasks;
}

/** Names a task module and what to set it up with. */
export interface ComputeTaskSource {
  /** Its URL, e.g. its own `import.meta.url`. */
  readonly module: string;
  /** Given to its `createTasks`. */
  readonly setup: unknown;
}
