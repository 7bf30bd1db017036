/**
 * The images of the benchmark. The real one is the machine's /usr, one file after the other as tar
 * lays them out. Where that is not enough, the rest is cut from the same data in pieces of random
 * lengths and random order: still real, so it compresses as real data does, but no block of any size
 * comes twice, and no chunk of a content-defined chunker either, because a piece is shorter than the
 * shortest chunk (512 KiB in restic and borg). Deduplication finds what /usr itself holds, no more.
 */
import { createCipheriv } from "node:crypto";
import {
  closeSync,
  constants,
  lstatSync,
  openSync,
  readdirSync,
  readSync,
  writeSync,
} from "node:fs";
import { copyFile, open, stat, truncate, writeFile, type FileHandle } from "node:fs/promises";
import path from "node:path";
import { setImmediate } from "node:timers/promises";

const CORPUS = "/usr";
const TAR_UNIT = 512;
const BUFFER_BYTES = 4 * 1024 * 1024;
const PIECE_BYTES_MIN = 100_000;
const PIECE_BYTES_MAX = 400_000;
/** The unit of change in scenario 4, and of allocation in scenario 5: an object of Ceph RBD. */
export const EXTENT_BYTES: number = 4 * 1024 * 1024;
/** Scenario 5: what is allocated of how much. */
export const SPARSE_BYTES: number = 16 * 1024 ** 4;
export const SPARSE_DATA_BYTES: number = 1024 ** 3;
/** The share of the image that changes in scenario 4. */
export const CHANGED_SHARE = 0.01;

/** Numbers from a seed, the same on every machine (Mulberry32). */
export function createSeededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function shuffle<T>(items: T[], random: () => number): T[] {
  for (let index = items.length - 1; index > 0; index--) {
    const other = Math.floor(random() * (index + 1));
    [items[index], items[other]] = [items[other] as T, items[index] as T];
  }
  return items;
}

/** What `read` returns, or undefined where this user may not read. */
function ifReadable<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EACCES") return undefined;
    throw error;
  }
}

/** Every regular file of the corpus in a fixed order; a file with several names counts once. */
function* corpusFiles(folder: string, seen: Set<number>): Generator<string> {
  const entries = ifReadable(() => readdirSync(folder, { withFileTypes: true }));
  for (const entry of (entries ?? []).toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) yield* corpusFiles(file, seen);
    if (!entry.isFile()) continue;
    const { ino, nlink } = lstatSync(file);
    if (nlink > 1 && seen.has(ino)) continue;
    if (nlink > 1) seen.add(ino);
    yield file;
  }
}

/** Collects small pieces and writes them in large ones. */
class ImageWriter {
  readonly #fd: number;
  readonly #buffer = Buffer.allocUnsafe(BUFFER_BYTES);
  #used = 0;
  #flushed = 0;

  constructor(fd: number) {
    this.#fd = fd;
  }

  get position(): number {
    return this.#flushed + this.#used;
  }

  /** Appends what `fill` puts into the room that it is given, until it puts nothing there. */
  append(fill: (room: Buffer) => number): void {
    for (;;) {
      const count = fill(this.#buffer.subarray(this.#used));
      if (count === 0) return;
      this.#used += count;
      if (this.#used === BUFFER_BYTES) this.flush();
    }
  }

  /** Appends zeros up to a multiple of `unit`. */
  align(unit: number): void {
    let missing = Math.ceil(this.position / unit) * unit - this.position;
    this.append((room) => {
      const count = Math.min(missing, room.length);
      room.fill(0, 0, count);
      missing -= count;
      return count;
    });
  }

  flush(): void {
    writeSync(this.#fd, this.#buffer, 0, this.#used, this.#flushed);
    this.#flushed += this.#used;
    this.#used = 0;
  }
}

/** Copies bytes between files; returns how many there were before the source ended. */
async function copyRange(
  source: FileHandle,
  from: number,
  target: FileHandle,
  to: number,
  length: number,
): Promise<number> {
  const buffer = Buffer.allocUnsafe(Math.min(BUFFER_BYTES, length));
  let done = 0;
  while (done < length) {
    const want = Math.min(buffer.length, length - done);
    const { bytesRead } = await source.read(buffer, 0, want, from + done);
    if (bytesRead === 0) break;
    await target.write(buffer, 0, bytesRead, to + done);
    done += bytesRead;
  }
  return done;
}

/**
 * Writes the corpus from the start of the image; returns where it ends. It is synchronous, for /usr has
 * a hundred thousand small files; between large steps the event loop has a turn, so that signals arrive.
 */
async function writeCorpus(target: FileHandle, sizeBytes: number): Promise<number> {
  const writer = new ImageWriter(target.fd);
  let turnAt = BUFFER_BYTES;
  for (const file of corpusFiles(CORPUS, new Set())) {
    if (writer.position >= sizeBytes) break;
    const source = ifReadable(() => openSync(file, "r"));
    if (source === undefined) continue;
    // The name stands where tar has its header.
    let name = Buffer.from(file).subarray(0, TAR_UNIT);
    writer.append((room) => {
      const count = name.copy(room);
      name = name.subarray(count);
      return count;
    });
    writer.align(TAR_UNIT);
    try {
      writer.append((room) =>
        writer.position >= sizeBytes ? 0 : readSync(source, room, 0, room.length, null),
      );
    } finally {
      closeSync(source);
    }
    writer.align(TAR_UNIT);
    if (writer.position < turnAt) continue;
    await setImmediate();
    turnAt = writer.position + BUFFER_BYTES;
  }
  writer.flush();
  return writer.position;
}

/** Fills a range with pieces of another range, cut and shuffled anew in each pass. */
async function writePieces(
  source: FileHandle,
  sourceBytes: number,
  target: FileHandle,
  range: { readonly from: number; readonly end: number },
  seed: number,
): Promise<void> {
  const random = createSeededRandom(seed);
  let position = range.from;
  while (position < range.end) {
    const pieces: [from: number, length: number][] = [];
    for (let from = 0; from < sourceBytes;) {
      const length =
        PIECE_BYTES_MIN + Math.floor(random() * (PIECE_BYTES_MAX - PIECE_BYTES_MIN + 1));
      pieces.push([from, Math.min(length, sourceBytes - from)]);
      from += length;
    }
    for (const [from, length] of shuffle(pieces, random)) {
      if (position >= range.end) break;
      const wanted = Math.min(length, range.end - position);
      position += await copyRange(source, from, target, position, wanted);
    }
  }
}

/** Makes the image of real data. */
export async function writeRealImage(file: string, sizeBytes: number): Promise<void> {
  const image = await open(file, "w+");
  try {
    const corpusBytes = Math.min(await writeCorpus(image, sizeBytes), sizeBytes);
    if (corpusBytes === 0) throw new Error(`${CORPUS} holds nothing to make an image of`);
    await writePieces(image, corpusBytes, image, { from: corpusBytes, end: sizeBytes }, 1);
    await image.truncate(sizeBytes);
  } finally {
    await image.close();
  }
}

/** Makes the image that nothing can compress: the key stream of AES under a fixed key. */
export async function writeRandomImage(file: string, sizeBytes: number): Promise<void> {
  const stream = createCipheriv("aes-256-ctr", Buffer.alloc(32, 0x33), Buffer.alloc(16));
  const zeros = Buffer.alloc(BUFFER_BYTES);
  const image = await open(file, "w");
  try {
    for (let position = 0; position < sizeBytes; position += BUFFER_BYTES) {
      const chunk = stream.update(zeros.subarray(0, Math.min(BUFFER_BYTES, sizeBytes - position)));
      await image.write(chunk, 0, chunk.length, position);
    }
  } finally {
    await image.close();
  }
}

/** An entry of a hints file, as `rbd diff --format=json` writes it. */
interface HintsEntry {
  readonly offset: number;
  readonly length: number;
  readonly exists: "true";
}

/**
 * Makes a copy of an image in which every hundredth extent is new, the hints file that says so, and a
 * file of just these extents, on which the limit of such a backup can be measured. Returns their bytes.
 */
export async function writeChangedImage(
  source: string,
  files: { readonly image: string; readonly hints: string; readonly changes: string },
): Promise<number> {
  await copyFile(source, files.image, constants.COPYFILE_FICLONE);
  const { size } = await stat(source);
  const extentCount = Math.floor(size / EXTENT_BYTES);
  const random = createSeededRandom(2);
  const indexes = shuffle([...Array.from({ length: extentCount }).keys()], random)
    .slice(0, Math.max(1, Math.round(extentCount * CHANGED_SHARE)))
    .sort((a, b) => a - b);
  const original = await open(source);
  const image = await open(files.image, "r+");
  const changes = await open(files.changes, "w+");
  try {
    await writePieces(original, size, changes, { from: 0, end: indexes.length * EXTENT_BYTES }, 3);
    for (const [at, index] of indexes.entries())
      await copyRange(changes, at * EXTENT_BYTES, image, index * EXTENT_BYTES, EXTENT_BYTES);
  } finally {
    for (const handle of [original, image, changes]) await handle.close();
  }
  const hints: HintsEntry[] = indexes.map((index) => {
    return { offset: index * EXTENT_BYTES, length: EXTENT_BYTES, exists: "true" };
  });
  await writeFile(files.hints, JSON.stringify(hints));
  return indexes.length * EXTENT_BYTES;
}

/** Makes a file of 16 TiB with data in few places, and a file of the same data without the holes. */
export async function writeSparseImage(
  source: string,
  files: { readonly sparse: string; readonly dense: string },
  dataBytes: number,
): Promise<void> {
  await writeFile(files.sparse, "");
  await truncate(files.sparse, SPARSE_BYTES);
  const random = createSeededRandom(4);
  const extentCount = Math.floor(dataBytes / EXTENT_BYTES);
  const stride = Math.floor(SPARSE_BYTES / extentCount / EXTENT_BYTES);
  const original = await open(source);
  const sparse = await open(files.sparse, "r+");
  const dense = await open(files.dense, "w");
  try {
    for (let index = 0; index < extentCount; index++) {
      const from = index * EXTENT_BYTES;
      // One extent somewhere in each part of equal length.
      const at = (index * stride + Math.floor(random() * stride)) * EXTENT_BYTES;
      await copyRange(original, from, sparse, at, EXTENT_BYTES);
      await copyRange(original, from, dense, from, EXTENT_BYTES);
    }
  } finally {
    for (const handle of [original, sparse, dense]) await handle.close();
  }
}
