// Memory for large messages, used again and again: memory that is new costs more to clear, to map and to collect than to fill. It is
// shared memory, so that worker threads read it without a copy.
import { assert } from "#lib/core/assert.ts";

/** Smaller messages are not worth it, in bytes. */
const POOLED_BYTES_MIN = 128 * 1024;
/** Messages of about the same length share their memory, in bytes. */
const STEP_BYTES = 64 * 1024;

/** Takes and gives memory. What is never given back the garbage collector has. */
export class ReceivePool {
  readonly #idleBytesMax: number;
  readonly #idle = new Map<number, SharedArrayBuffer[]>();
  #idleBytes = 0;
  /** What was taken and not given back. */
  readonly #taken = new WeakSet<ArrayBufferLike>();

  /** @param idleBytesMax as much is kept that nobody uses, in bytes */
  constructor(idleBytesMax: number) {
    this.#idleBytesMax = idleBytesMax;
  }

  /** Memory of this length, with whatever was there before. */
  take(bytes: number): Uint8Array {
    if (bytes < POOLED_BYTES_MIN) return Buffer.allocUnsafeSlow(bytes);
    const size = Math.ceil(bytes / STEP_BYTES) * STEP_BYTES;
    let memory = this.#idle.get(size)?.pop();
    if (memory === undefined) memory = new SharedArrayBuffer(size);
    else this.#idleBytes -= size;
    this.#taken.add(memory);
    return Buffer.from(memory, 0, bytes);
  }

  /** Nobody looks at the memory of this view, or of any other of it, any more. */
  giveBack({ buffer }: Uint8Array): void {
    if (!(buffer instanceof SharedArrayBuffer)) return;
    assert(this.#taken.delete(buffer), "memory is given back once");
    const size = buffer.byteLength;
    if (this.#idleBytes + size > this.#idleBytesMax) return;
    const idle = this.#idle.get(size) ?? [];
    this.#idle.set(size, idle);
    idle.push(buffer);
    this.#idleBytes += size;
  }
}
