// Of what is to be sent only so much waits in the socket. What is small, signs of life among it, stands behind it there; and
// what has been handed over is waited for with a limit of time, which must not run while it has not even left.
import { untilAborted } from "#lib/core/until-aborted.ts";

interface Waiting {
  readonly bytes: number;
  readonly go: () => void;
}

/** One connection's. */
export class SendWindow {
  readonly #bytesMax: number;
  #bytes = 0;
  #isOpen = true;
  readonly #line: Waiting[] = [];

  /** @param bytesMax as much is on its way at most, or one message, in bytes */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Resolves when so many bytes may be sent; in the order of the calls. Rejects when the signal aborts first. */
  async enter(bytes: number, signal: AbortSignal): Promise<void> {
    if (this.#line.length === 0 && this.#hasRoom(bytes)) {
      this.#bytes += bytes;
      return;
    }
    const { promise, resolve } = Promise.withResolvers<void>();
    const waiting = { bytes, go: resolve };
    this.#line.push(waiting);
    try {
      await untilAborted(promise, signal);
    } catch (error) {
      const at = this.#line.indexOf(waiting);
      if (at < 0) this.left(bytes);
      else this.#line.splice(at, 1);
      throw error;
    }
  }

  /** So many bytes have left: also such as have not entered. */
  left(bytes: number): void {
    this.#bytes = Math.max(0, this.#bytes - bytes);
    this.#letIn();
  }

  /** The connection is lost: whoever waits, or comes later, finds that out where it sends. */
  close(): void {
    this.#isOpen = false;
    this.#letIn();
  }

  #hasRoom(bytes: number): boolean {
    return !this.#isOpen || this.#bytes === 0 || this.#bytes + bytes <= this.#bytesMax;
  }

  #letIn(): void {
    for (let first = this.#line[0]; first !== undefined; first = this.#line[0]) {
      if (!this.#hasRoom(first.bytes)) return;
      this.#line.shift();
      this.#bytes += first.bytes;
      first.go();
    }
  }
}
