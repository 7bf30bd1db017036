// A hash over everything that happens, in order: two runs of a seed are the same when their hashes are.
import { createHash } from "node:crypto";

/** Lines that are hashed at once. */
const CHUNK = 1024;

/** The trace of a run. */
export class TraceHash {
  readonly #hash = createHash("sha256");
  readonly #keep: ((line: string) => void) | undefined;
  #lines: string[] = [];

  /** `keep` gets every line, too: to look at a run. */
  constructor(keep?: (line: string) => void) {
    this.#keep = keep;
  }

  /** Adds a line. */
  add(line: string): void {
    this.#keep?.(line);
    this.#lines.push(line);
    if (this.#lines.length >= CHUNK) this.#flush();
  }

  /** The hash of all lines so far, 16 hex digits. */
  digest(): string {
    this.#flush();
    return this.#hash.copy().digest("hex").slice(0, 16);
  }

  #flush(): void {
    this.#hash.update(this.#lines.join("\n"));
    this.#lines = [];
  }
}
