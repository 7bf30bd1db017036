// BlockTarget over a stream: stdout, or any writable. Written once, forwards, without gaps.
import type { Writable } from "node:stream";
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import type { BlockTarget, Extent } from "#lib/ports/block-device.ts";

const ZEROS = Buffer.alloc(1024 * 1024);

/** Makes a target of a writable stream; the stream stays open when the target is closed. */
export function streamTarget(url: string, stream: Writable): BlockTarget {
  return new StreamTarget(url, stream);
}

class StreamTarget implements BlockTarget {
  readonly url: string;
  readonly seekable = false;
  readonly blank = false;
  touched = false;
  readonly #stream: Writable;
  readonly #closed = new AbortController();
  #position = 0;

  constructor(url: string, stream: Writable) {
    this.url = url;
    this.#stream = stream;
    // Each write gets the error as well; without a listener it would end the process.
    stream.on("error", this.#ignore);
  }

  async *extents(range: Extent): AsyncGenerator<Extent> {
    yield range;
  }

  async write(bytes: Uint8Array, offset: number): Promise<void> {
    assert(offset === this.#position, "a stream is written forwards, without gaps");
    await this.#put(bytes);
  }

  async zero({ offset, length }: Extent): Promise<void> {
    assert(offset === this.#position, "a stream is written forwards, without gaps");
    for (let rest = length; rest > 0; rest -= ZEROS.length) {
      await this.#put(ZEROS.subarray(0, Math.min(rest, ZEROS.length)));
    }
  }

  read(): Promise<void> {
    const message = "what is on a stream cannot be compared with what is restored";
    return Promise.reject(
      new AshlarError(ErrorCode.Usage, message, { remedy: "leave out --differential" }),
    );
  }

  /** Every write has reached the other end's hands, if not its disk. */
  finish(): Promise<void> {
    return this.#put(new Uint8Array(0));
  }

  /** A write that waits for the other end fails then: it may not read for ever. */
  close(): Promise<void> {
    this.#stream.off("error", this.#ignore);
    this.#closed.abort(new AshlarError(ErrorCode.Cancelled, `${this.url} was closed`));
    return Promise.resolve();
  }

  readonly #ignore = (): void => undefined;

  /** Resolves when the stream has let go of the bytes, so that the caller may reuse them. */
  async #put(bytes: Uint8Array): Promise<void> {
    if (bytes.length > 0) this.touched = true;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const { signal } = this.#closed;
    signal.throwIfAborted();
    const onClose = (): void => reject(signal.reason);
    signal.addEventListener("abort", onClose, { once: true });
    this.#stream.write(bytes, (error) =>
      error === null || error === undefined ? resolve() : reject(error),
    );
    try {
      await promise;
    } catch (error) {
      throw this.#failure(error);
    } finally {
      signal.removeEventListener("abort", onClose);
    }
    this.#position += bytes.length;
  }

  #failure(error: unknown): AshlarError {
    const offset = this.#position;
    const isGone = (error as { code?: unknown }).code === "EPIPE";
    const what = `writing the stream ${this.url} at offset ${offset}`;
    if (!isGone) return fromSystemError(error, what, { details: { offset } });
    return new AshlarError(ErrorCode.Io, `${what}: whoever reads it has ended (EPIPE)`, {
      cause: error,
      details: { offset, errno: "EPIPE" },
    });
  }
}
