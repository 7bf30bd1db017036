// What every version must contain. Contents never change in place: a source that was opened at some moment reads as it was
// then, so a version must equal what its source held when one of the session's readings opened it; and as a whole.
import type { VersionUid } from "#lib/core/ids.ts";
import { blockBytesOf, type Content } from "../engine/sim-device.ts";

interface Opening {
  readonly url: string;
  readonly atMs: number;
  readonly content: Content;
}

/** What blocks may be instead of what their source has: hints that were wrong, or a base that was itself made by wrong hints. */
export type Alternatives = ReadonlyMap<number, readonly (string | undefined)[]>;

/** A backup whose hints leave such blocks out. */
interface Concealment {
  readonly url: string;
  readonly fromMs: number;
  toMs: number;
  readonly hidden: Alternatives;
}

/** What is known of a version. */
interface Expected {
  readonly url: string;
  fromMs: number;
  toMs: number;
}

/** The oracle. */
export class Oracle {
  readonly #openings: Opening[] = [];
  readonly #concealed: Concealment[] = [];
  readonly #versions = new Map<VersionUid, Expected>();
  /** Acknowledged, and not removed by anybody since. */
  readonly acknowledged = new Set<VersionUid>();

  /** A source was opened. */
  opened(url: string, atMs: number, content: Content): void {
    this.#openings.push({ url, atMs, content });
  }

  /** A backup begins whose hints leave out blocks that the base has, or may have, otherwise; returns how to say that it has ended. */
  conceals(url: string, atMs: number, hidden: Alternatives): (atMs: number) => void {
    const concealment = { url, fromMs: atMs, toMs: Infinity, hidden };
    if (hidden.size > 0) this.#concealed.push(concealment);
    return (endMs) => {
      concealment.toMs = endMs;
    };
  }

  /** What a block of a version may be, as letters. */
  lettersOf(uid: VersionUid, block: number): (string | undefined)[] {
    const letters = this.#contents(uid).map((content) => content[block]);
    return [...letters, ...this.#hidden(uid).flatMap((hidden) => hidden.get(block) ?? [])];
  }

  /** An unfinished version has appeared. */
  began(uid: VersionUid, url: string, atMs: number): void {
    if (!this.#versions.has(uid)) this.#versions.set(uid, { url, fromMs: atMs, toMs: Infinity });
  }

  /** Its session goes on under a new token: what it reads from now on counts. */
  resumed(uid: VersionUid, atMs: number): void {
    const expected = this.#versions.get(uid);
    if (expected === undefined) return;
    expected.fromMs = atMs;
    // Metadata that were put back may have it unfinished once more.
    expected.toMs = Infinity;
  }

  /** It has turned valid. */
  finished(uid: VersionUid, atMs: number): void {
    const expected = this.#versions.get(uid);
    if (expected !== undefined) expected.toMs = Math.min(expected.toMs, atMs);
  }

  /** A content that the version may have (to make hints against it); undefined for one that is not known. */
  contentOf(uid: VersionUid): Content | undefined {
    return this.#contents(uid).at(-1);
  }

  /**
   * Undefined where the bytes are what the version must have there, else what is wrong.
   * @param part.firstBlock of a part of the version; without it, the image is all of it, and of its size
   * @param part.skip blocks that were reported as damaged
   */
  compare(
    uid: VersionUid,
    image: Buffer,
    blockBytes: number,
    part: { readonly firstBlock?: number; readonly skip?: ReadonlySet<number> } = {},
  ): string | undefined {
    const { firstBlock = 0, skip = new Set() } = part;
    const contents = this.#contents(uid);
    if (contents.length === 0) return `nothing is known of ${uid}`;
    const hidden = this.#hidden(uid);
    let problem: string | undefined;
    for (const content of contents) {
      if (part.firstBlock === undefined && image.length !== content.length * blockBytes) {
        problem = `it has ${image.length} bytes, not ${content.length * blockBytes}`;
        continue;
      }
      problem = differenceOf(content, hidden, { image, blockBytes, firstBlock, skip });
      if (problem === undefined) return undefined;
    }
    return problem;
  }

  #hidden(uid: VersionUid): Alternatives[] {
    const expected = this.#versions.get(uid);
    if (expected === undefined) return [];
    return this.#concealed
      .filter(
        ({ url, fromMs, toMs }) =>
          url === expected.url && fromMs <= expected.toMs && toMs >= expected.fromMs,
      )
      .map(({ hidden }) => hidden);
  }

  #contents(uid: VersionUid): Content[] {
    const expected = this.#versions.get(uid);
    if (expected === undefined) return [];
    const { url, fromMs, toMs } = expected;
    return this.#openings
      .filter((opening) => opening.url === url && opening.atMs >= fromMs && opening.atMs <= toMs)
      .map(({ content }) => content);
  }
}

function differenceOf(
  content: Content,
  concealed: readonly Alternatives[],
  found: {
    readonly image: Buffer;
    readonly blockBytes: number;
    readonly firstBlock: number;
    readonly skip: ReadonlySet<number>;
  },
): string | undefined {
  const { image, blockBytes, firstBlock, skip } = found;
  const count = Math.ceil(image.length / blockBytes);
  for (let index = 0; index < count; index += 1) {
    const block = firstBlock + index;
    if (skip.has(block)) continue;
    const bytes = image.subarray(index * blockBytes, (index + 1) * blockBytes);
    const letters = [content[block], ...concealed.flatMap((hidden) => hidden.get(block) ?? [])];
    if (letters.some((letter) => bytes.equals(blockBytesOf(letter, blockBytes)))) continue;
    return `block ${block} is ${bytes.toString("latin1", 0, 8)}…, not ${letters.join(" or ")}`;
  }
  return undefined;
}
