// Memory that several hold, and that is given back when the last of them lets go.
import { assert } from "#lib/core/assert.ts";
import type { Payload } from "#lib/ports/bus.ts";

/** One holding of some memory, with one reference. A new object each time, so that a release too many cannot hit the next holder. */
export class CountedBytes<Bytes extends Uint8Array = Uint8Array> implements Payload {
  readonly bytes: Bytes;
  readonly #giveBack: () => void;
  #references = 1;

  /** @param giveBack called once, with the last release */
  constructor(bytes: Bytes, giveBack: () => void) {
    this.bytes = bytes;
    this.#giveBack = giveBack;
  }

  retain(): void {
    assert(this.#references > 0, "only what is held can be retained");
    this.#references += 1;
  }

  release(): void {
    assert(this.#references > 0, "memory is released once per reference");
    this.#references -= 1;
    if (this.#references === 0) this.#giveBack();
  }
}
