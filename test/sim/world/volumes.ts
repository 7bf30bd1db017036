// The volumes of a world: contents that share blocks, change between backups, are cloned, and have snapshots.
import type { SeededRandom } from "#lib/drivers/memory/seeded-random.ts";
import type { Content } from "../engine/sim-device.ts";

/** A volume. */
export interface Volume {
  readonly name: string;
  content: Content;
  /** Jobs that read it; it is changed only when there are none. */
  readers: number;
  snapshots: number;
}

/** Blocks that many volumes have: an operating system. */
const SHARED_LETTERS = 6;
/** Blocks of a small volume, at most; and of a wide one, whose tree has two levels. */
const SMALL_BLOCKS_MAX = 8;
const WIDE_BLOCKS = 300;
const WIDE_ALLOCATED = 5;

/** How often a volume that changes grows or shrinks. */
const RESIZED = 0.15;

/** All volumes, by the URLs of sources. */
export class Volumes {
  readonly list: Volume[] = [];
  readonly #random: SeededRandom;
  readonly #snapshots = new Map<string, Content>();
  #letters = 0;
  #streams = 0;

  constructor(random: SeededRandom, count: number) {
    this.#random = random;
    for (let index = 0; index < count; index += 1) {
      const isWide = index === count - 1 && count > 2 && random.chance(0.5);
      const content = isWide ? this.#wideContent() : this.#smallContent();
      this.list.push({ name: `v${index}`, content, readers: 0, snapshots: 0 });
    }
  }

  /** The content behind a source; undefined when there is no such source. */
  contentAt(url: string): Content | undefined {
    const snapshot = this.#snapshots.get(url);
    if (snapshot !== undefined) return snapshot;
    return this.list.find((volume) => urlOf(volume) === url)?.content;
  }

  /** Makes a snapshot, and gives its name. */
  snapshot(volume: Volume): string {
    volume.snapshots += 1;
    const name = `snap${volume.snapshots}`;
    this.#snapshots.set(snapshotUrl(volume, name), volume.content);
    return name;
  }

  /** Makes a stream of what a volume holds, and gives its URL. */
  stream(volume: Volume): string {
    this.#streams += 1;
    const url = `${STREAM}${this.#streams}`;
    this.#snapshots.set(url, volume.content);
    return url;
  }

  /** Changes some blocks. */
  change(volume: Volume): void {
    const content = [...volume.content];
    const changes = 1 + this.#random.below(3);
    for (let count = 0; count < changes; count += 1) {
      content[this.#random.below(content.length)] = this.#drawBlock();
    }
    if (this.#random.chance(RESIZED)) {
      if (content.length === 1 || this.#random.chance(0.5)) content.push(this.#drawBlock());
      else content.pop();
    }
    volume.content = content;
  }

  /** Makes one volume a copy of another, but for a block. */
  clone(from: Volume, to: Volume): void {
    to.content = from.content;
    this.change(to);
  }

  #drawBlock(): string | undefined {
    const random = this.#random;
    if (random.chance(0.2)) return undefined;
    if (random.chance(0.4)) return `shared${random.below(SHARED_LETTERS)}`;
    return this.#newLetter();
  }

  #newLetter(): string {
    this.#letters += 1;
    return `block${this.#letters}`;
  }

  #smallContent(): Content {
    const count = 2 + this.#random.below(SMALL_BLOCKS_MAX - 1);
    const content = Array.from({ length: count }, () => this.#drawBlock());
    // A version without any block is a case of its own, and a rare one.
    if (!this.#random.chance(0.05)) content[0] = this.#newLetter();
    return content;
  }

  #wideContent(): Content {
    const content: (string | undefined)[] = Array.from({ length: WIDE_BLOCKS });
    for (let count = 0; count < WIDE_ALLOCATED; count += 1) {
      content[this.#random.below(WIDE_BLOCKS)] = this.#newLetter();
    }
    return content;
  }
}

const STREAM = "stream:";

/** Whether a source is a stream. */
export function isStream(url: string): boolean {
  return url.startsWith(STREAM);
}

/** URL of a volume as it is. */
export function urlOf(volume: Volume): string {
  return `sim:${volume.name}`;
}

/** URL of a snapshot. */
export function snapshotUrl(volume: Volume, snapshot: string): string {
  return `sim:${volume.name}@${snapshot}`;
}
