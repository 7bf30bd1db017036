// Compute on worker threads: one per core, each running its whole task on shared memory. Threads start when they are
// first needed and do not keep an idle process alive, so that a short command pays nothing for them.
import { availableParallelism } from "node:os";
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Compute, HashedBlocks, Opened, Piece } from "#lib/ports/compute.ts";
import type { ComputeTaskSource } from "#lib/ports/compute-tasks.ts";
import { createSharedSlotPool } from "./slot-pool.ts";
import {
  fromWireError,
  type FromWorker,
  type MemoryRef,
  type OpenRef,
  type SealRef,
  type TaskCall,
  type TaskResult,
} from "./worker-messages.ts";

/** How to make a {@link createWorkerCompute}. */
export interface WorkerComputeOptions {
  /** What the workers do. Its setup, keys included, reaches them as workerData. */
  readonly tasks: ComputeTaskSource;
  /** Threads; by default one per core. */
  readonly concurrency?: number;
}

// One running and one that waits at the worker, so that it never idles for the time a message takes. More would tie
// tasks to a worker while another becomes free.
const TASKS_PER_WORKER = 2;

// Blocks are in shared memory; the heap has messages, and handles of native memory that are freed when they are
// collected. A small young generation collects them soon.
const HEAP_LIMITS = { maxYoungGenerationSizeMb: 4, maxOldGenerationSizeMb: 64 };

/** Describes the memory of one call to the worker that gets it. */
type Describe = (view: Uint8Array) => MemoryRef;

interface Task {
  readonly describe: (input: Describe, output: Describe) => TaskCall;
  /** Where a copied output goes. */
  readonly out?: Uint8Array;
  readonly resolve: (result: TaskResult) => void;
  readonly reject: (error: Error) => void;
}

interface Thread {
  readonly worker: Worker;
  readonly running: Map<number, Task>;
  /** Indices of the shared buffers that it knows. */
  readonly known: Set<number>;
}

/** Makes a Compute over worker threads. A thread that dies makes it unusable: every later call rejects as Internal. */
export function createWorkerCompute(options: WorkerComputeOptions): Compute {
  return new WorkerCompute(options);
}

class WorkerCompute implements Compute {
  readonly concurrency: number;
  readonly #source: ComputeTaskSource;
  readonly #threads: Thread[] = [];
  readonly #queue: Task[] = [];
  readonly #buffers = new WeakMap<SharedArrayBuffer, number>();
  readonly #collected = new FinalizationRegistry<number>((index) => this.#forget(index));
  #nextBuffer = 0;
  #nextTask = 0;
  #broken: AshlarError | undefined;
  #closing: Promise<void> | undefined;
  #onIdle: (() => void) | undefined;

  constructor(options: WorkerComputeOptions) {
    this.concurrency = options.concurrency ?? availableParallelism();
    assert(this.concurrency > 0, "there is at least one worker");
    this.#source = options.tasks;
  }

  pool = createSharedSlotPool;

  async hash(bytes: Uint8Array, blockBytes: number): Promise<HashedBlocks> {
    const { ids, zero } = (await this.#submit((input) => ({
      type: "hash",
      bytes: input(bytes),
      blockBytes,
    }))) as HashedBlocks;
    // Structured clone makes plain Uint8Arrays of Buffers.
    return { ids: Buffer.from(ids.buffer, ids.byteOffset, ids.byteLength), zero };
  }

  async seal(requests: Parameters<Compute["seal"]>[0], out: Uint8Array): Promise<Piece[]> {
    const pieces = await this.#submit(
      (input, output) => ({
        type: "seal",
        requests: requests.map(({ kind, id, plain, verify, compression }): SealRef => ({
          kind,
          id,
          bytes: input(plain),
          verify,
          compression,
        })),
        out: output(out),
      }),
      out,
    );
    return pieces as Piece[];
  }

  async open(requests: Parameters<Compute["open"]>[0], out: Uint8Array): Promise<Opened[]> {
    const opened = await this.#submit(
      (input, output) => ({
        type: "open",
        requests: requests.map(({ kind, id, sealed, verifyOnly }): OpenRef => ({
          kind,
          id,
          bytes: input(sealed),
          verifyOnly,
        })),
        out: output(out),
      }),
      out,
    );
    return opened as Opened[];
  }

  /** Lets the calls under way finish, then ends the threads. */
  close(): Promise<void> {
    this.#closing ??= this.#drain();
    return this.#closing;
  }

  async #drain(): Promise<void> {
    if (this.#queue.length > 0 || this.#threads.some((thread) => thread.running.size > 0)) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    await Promise.all(this.#threads.map((thread) => thread.worker.terminate()));
  }

  #submit(describe: Task["describe"], out?: Uint8Array): Promise<TaskResult> {
    if (this.#broken !== undefined) return Promise.reject(this.#broken);
    if (this.#closing !== undefined) {
      return Promise.reject(
        new AshlarError(ErrorCode.Internal, "compute was used after it was closed"),
      );
    }
    return new Promise((resolve, reject) => {
      this.#queue.push({ describe, resolve, reject, ...(out !== undefined && { out }) });
      this.#dispatch();
    });
  }

  #dispatch(): void {
    while (this.#queue.length > 0) {
      const thread = this.#freeThread();
      if (thread === undefined) return;
      this.#send(thread, this.#queue.shift() as Task);
    }
  }

  /** An idle thread, else a new one while there may be more, else the one with the least to do, if it may have more. */
  #freeThread(): Thread | undefined {
    let best: Thread | undefined;
    for (const thread of this.#threads) {
      if (best === undefined || thread.running.size < best.running.size) best = thread;
    }
    if (best?.running.size === 0) return best;
    if (this.#threads.length < this.concurrency) return this.#start();
    return best !== undefined && best.running.size < TASKS_PER_WORKER ? best : undefined;
  }

  #start(): Thread {
    // Run from source the worker is .ts, packed it is .js: as this file.
    const entry = new URL(`compute-worker${extname(import.meta.filename)}`, import.meta.url);
    const worker = new Worker(entry, {
      name: "ashlar-compute",
      workerData: this.#source,
      resourceLimits: HEAP_LIMITS,
    });
    const thread: Thread = { worker, running: new Map(), known: new Set() };
    worker.on("message", (message: FromWorker) => this.#receive(thread, message));
    worker.on("messageerror", (error) => this.#fail(thread, error));
    worker.on("error", (error) => this.#fail(thread, error));
    worker.on("exit", (code) => {
      if (this.#closing === undefined || thread.running.size > 0)
        this.#fail(thread, `exit code ${code}`);
    });
    this.#threads.push(thread);
    return thread;
  }

  #send(thread: Thread, task: Task): void {
    const introduce: [number, SharedArrayBuffer][] = [];
    const transfer: ArrayBuffer[] = [];
    const shared = (view: Uint8Array<SharedArrayBuffer>): MemoryRef =>
      this.#describeShared(view, thread, introduce);
    const input: Describe = (view) => {
      if (isShared(view)) return shared(view);
      const copy = new Uint8Array(view);
      transfer.push(copy.buffer);
      return { copy };
    };
    const output: Describe = (view) => (isShared(view) ? shared(view) : { room: view.length });
    let call: TaskCall;
    try {
      call = task.describe(input, output);
    } catch (error) {
      task.reject(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    const number = this.#nextTask;
    this.#nextTask += 1;
    if (thread.running.size === 0) thread.worker.ref();
    thread.running.set(number, task);
    thread.worker.postMessage({ task: number, call, introduce }, transfer);
  }

  #describeShared(
    view: Uint8Array<SharedArrayBuffer>,
    thread: Thread,
    introduce: [number, SharedArrayBuffer][],
  ): MemoryRef {
    let index = this.#buffers.get(view.buffer);
    if (index === undefined) {
      index = this.#nextBuffer;
      this.#nextBuffer += 1;
      this.#buffers.set(view.buffer, index);
      this.#collected.register(view.buffer, index);
    }
    if (!thread.known.has(index)) {
      thread.known.add(index);
      introduce.push([index, view.buffer]);
    }
    return { buffer: index, offset: view.byteOffset, length: view.length };
  }

  /** A pool that was dropped must not live on in the threads. */
  #forget(index: number): void {
    for (const thread of this.#threads) {
      if (thread.known.delete(index)) thread.worker.postMessage({ forget: index });
    }
  }

  #receive(thread: Thread, message: FromWorker): void {
    const task = thread.running.get(message.task);
    if (task === undefined) {
      // What a thread sent before it died may come after the news of its death.
      assert(this.#broken !== undefined, "a worker answers each task once");
      return;
    }
    this.#finish(thread, message.task);
    if ("error" in message) {
      task.reject(fromWireError(message.error));
    } else {
      if (message.out !== undefined) task.out?.set(message.out);
      task.resolve(message.result);
    }
  }

  #finish(thread: Thread, number: number): void {
    thread.running.delete(number);
    if (this.#broken === undefined) this.#dispatch();
    if (thread.running.size === 0) thread.worker.unref();
    if (this.#queue.length === 0 && this.#threads.every((other) => other.running.size === 0))
      this.#onIdle?.();
  }

  #fail(thread: Thread, cause: unknown): void {
    this.#broken ??= new AshlarError(
      ErrorCode.Internal,
      `a compute worker died: ${cause instanceof Error ? cause.message : String(cause)}`,
      { cause },
    );
    const lost = [
      ...thread.running.entries(),
      ...this.#queue.splice(0).map((task) => [-1, task] as const),
    ];
    for (const [number, task] of lost) {
      thread.running.delete(number);
      task.reject(this.#broken);
    }
    if (this.#threads.every((other) => other.running.size === 0)) this.#onIdle?.();
  }
}

function isShared(view: Uint8Array): view is Uint8Array<SharedArrayBuffer> {
  return view.buffer instanceof SharedArrayBuffer;
}
