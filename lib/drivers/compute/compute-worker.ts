// A compute worker: imports its task module by URL and runs calls one after the other on memory that it shares with the
// main thread.
import { parentPort, workerData } from "node:worker_threads";
import { assert } from "#lib/core/assert.ts";
import type { Opened, Piece } from "#lib/ports/compute.ts";
import type {
  ComputeTaskModule,
  ComputeTaskSource,
  ComputeTasks,
} from "#lib/ports/compute-tasks.ts";
import {
  toWireError,
  type FromWorker,
  type MemoryRef,
  type TaskCall,
  type TaskResult,
  type ToWorker,
} from "./worker-messages.ts";

const buffers = new Map<number, SharedArrayBuffer>();

function memory(ref: MemoryRef): Uint8Array {
  if ("copy" in ref) return ref.copy;
  if ("room" in ref) return new Uint8Array(ref.room);
  const buffer = buffers.get(ref.buffer);
  assert(buffer !== undefined, "a shared buffer is introduced before it is used");
  return Buffer.from(buffer, ref.offset, ref.length);
}

function run(
  tasks: ComputeTasks,
  call: TaskCall,
): { result: TaskResult; out?: Uint8Array<ArrayBuffer> } {
  if (call.type === "hash") return { result: tasks.hash(memory(call.bytes), call.blockBytes) };
  const out = memory(call.out);
  const result =
    call.type === "seal"
      ? tasks.seal(
          call.requests.map(({ kind, id, bytes, verify = false, compression }) => {
            const request = { kind, id, plain: memory(bytes), verify };
            return compression === undefined ? request : { ...request, compression };
          }),
          out,
        )
      : tasks.open(
          call.requests.map(({ kind, id, bytes, verifyOnly = false }) => {
            return { kind, id, sealed: memory(bytes), verifyOnly };
          }),
          out,
        );
  return "room" in call.out
    ? { result, out: new Uint8Array(out.subarray(0, writtenBytes(result))) }
    : { result };
}

function writtenBytes(pieces: readonly (Piece | Opened)[]): number {
  return pieces.reduce((end, piece) => ("offset" in piece ? piece.offset + piece.length : end), 0);
}

async function main(): Promise<void> {
  const port = parentPort;
  assert(port !== null, "this module runs as a worker thread");
  const source = workerData as ComputeTaskSource;
  const send = (message: FromWorker, moved: ArrayBuffer[]): void =>
    port.postMessage(message, moved);
  const module = (await import(source.module)) as ComputeTaskModule;
  const tasks = module.createTasks(source.setup);
  const answer = (task: number, call: TaskCall): void => {
    try {
      const done = run(tasks, call);
      send({ task, ...done }, done.out === undefined ? [] : [done.out.buffer]);
    } catch (error) {
      send({ task, error: toWireError(error) }, []);
    }
  };
  port.on("message", (message: ToWorker) => {
    if ("forget" in message) {
      buffers.delete(message.forget);
      return;
    }
    for (const [index, buffer] of message.introduce) buffers.set(index, buffer);
    // One task per turn of the event loop. Messages alone keep a loop from turning while there are any, and the memory
    // of native modules is given back only between turns.
    setImmediate(answer, message.task, message.call);
  });
}

await main();
