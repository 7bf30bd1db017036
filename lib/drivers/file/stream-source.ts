// BlockSource over a stream: stdin, or any readable. Read once, forwards.
import type { Readable } from "node:stream";
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import type { BlockSource, Extent } from "#lib/ports/block-device.ts";

/** Makes a source of a readable stream. */
export function streamSource(url: string, stream: Readable): BlockSource {
  return new StreamSource(url, stream);
}

class StreamSource implements BlockSource {
  readonly url: string;
  readonly sizeBytes = undefined;
  readonly seekable = false;
  readonly frozen = false;
  readonly identity = undefined;
  readonly warnings: readonly string[] = [];
  readonly #stream: Readable;
  /** Bytes of the stream that nobody has asked for yet. */
  #rest: Uint8Array = new Uint8Array(0);
  #position = 0;
  #isEnded = false;
  #failure: unknown;
  #wake: () => void = () => undefined;

  constructor(url: string, stream: Readable) {
    this.url = url;
    this.#stream = stream;
    this.#isEnded = stream.readableEnded;
    this.#failure = stream.errored ?? undefined;
    stream.on("readable", () => this.#wake());
    stream.on("end", () => {
      this.#isEnded = true;
      this.#wake();
    });
    stream.on("error", (error) => {
      this.#failure ??= error;
      this.#wake();
    });
    stream.on("close", () => {
      if (!this.#isEnded)
        this.#failure ??= new AshlarError(ErrorCode.Cancelled, `${url} was closed`);
      this.#wake();
    });
  }

  async *extents(range: Extent): AsyncGenerator<Extent> {
    yield await Promise.resolve(range);
  }

  async read(into: Uint8Array, offset: number): Promise<number> {
    assert(offset === this.#position, "a stream is read forwards, without gaps");
    let done = 0;
    while (done < into.length && (await this.#fill())) {
      const part = this.#rest.subarray(0, into.length - done);
      into.set(part, done);
      this.#rest = this.#rest.subarray(part.length);
      done += part.length;
      this.#position += part.length;
    }
    return done;
  }

  changed(): Promise<string | undefined> {
    return Promise.resolve(undefined);
  }

  /** A read that waits for the stream fails then: the other end may be silent for ever. */
  close(): Promise<void> {
    this.#stream.destroy();
    return Promise.resolve();
  }

  /** Waits for bytes; false at the end. */
  async #fill(): Promise<boolean> {
    while (this.#rest.length === 0) {
      if (this.#failure !== undefined) throw this.#failed();
      const chunk = this.#stream.read() as Uint8Array | null;
      if (chunk !== null) this.#rest = chunk;
      else if (this.#isEnded) return false;
      else await this.#somethingHappens();
    }
    return true;
  }

  #somethingHappens(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    return promise;
  }

  #failed(): AshlarError {
    const offset = this.#position;
    return fromSystemError(this.#failure, `reading the stream ${this.url} at offset ${offset}`, {
      details: { offset },
    });
  }
}
