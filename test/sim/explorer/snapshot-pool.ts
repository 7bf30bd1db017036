// Snapshots of the metadata, each stored once: exploring meets the same contents again and again, and a number is a far
// better key than the contents.
import { assert } from "#lib/core/assert.ts";

/** One key with its value, stored once. Neither buffer is ever changed. */
export interface Entry {
  readonly index: number;
  /** The key, one character per byte: compares as the bytes do. */
  readonly text: string;
  readonly key: Buffer;
  readonly value: Buffer;
}

/** Contents of the metadata at one point; two with the same contents are the same object. */
export interface Snapshot {
  readonly index: number;
  /** In key order. */
  readonly entries: readonly Entry[];
}

/** Stores entries and snapshots once each. */
export class SnapshotPool {
  readonly #entries = new Map<string, Map<string, Entry>>();
  readonly #snapshots = new Map<string, Snapshot>();
  #entryCount = 0;

  /** How many different snapshots there are. */
  get size(): number {
    return this.#snapshots.size;
  }

  /** The one entry of this key and value. */
  entry(text: string, value: Buffer): Entry {
    let values = this.#entries.get(text);
    if (values === undefined) {
      values = new Map();
      this.#entries.set(text, values);
    }
    const valueText = value.toString("latin1");
    let entry = values.get(valueText);
    if (entry === undefined) {
      entry = {
        index: this.#entryCount,
        text,
        key: Buffer.from(text, "latin1"),
        value: Buffer.from(value),
      };
      this.#entryCount += 1;
      values.set(valueText, entry);
    }
    return entry;
  }

  /** The one snapshot of these entries, which are in key order. */
  snapshot(entries: readonly Entry[]): Snapshot {
    let text = "";
    for (const { index } of entries) text += String.fromCharCode(index >>> 16, index & 0xffff);
    let snapshot = this.#snapshots.get(text);
    if (snapshot === undefined) {
      snapshot = { index: this.#snapshots.size, entries };
      this.#snapshots.set(text, snapshot);
    }
    return snapshot;
  }
}

/** Where a key stands among entries in key order, or would stand. */
export function positionOf(entries: readonly Entry[], text: string): number {
  let [low, high] = [0, entries.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const entry = entries[middle];
    assert(entry !== undefined, "the middle lies inside");
    if (entry.text < text) low = middle + 1;
    else high = middle;
  }
  return low;
}
