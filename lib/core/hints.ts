// Hints: what a source says has changed, or is allocated, so that a backup need not read the rest. The format is that of
// `rbd diff --format=json`, which Benji takes as well: an array of {"offset", "length", "exists"}.
import { assert } from "./assert.ts";
import { AshlarError, ErrorCode } from "./errors.ts";

/** Extents in ascending order that neither overlap nor touch: start, end, start, end, … in bytes. */
export type Extents = Float64Array;

/** What a hints file says, 16 bytes per extent. */
export interface Hints {
  /** Has data that may differ from the base, or is allocated. */
  readonly changed: Extents;
  /** Exists no more: reads as zeros. Where it overlaps `changed`, that wins. */
  readonly zero: Extents;
}

/** What is to be done with a range of blocks. */
export type BlockState = "read" | "zero" | "unchanged";

/** Blocks `first` … `end - 1`. */
export interface BlockRange {
  readonly first: number;
  readonly end: number;
  readonly state: BlockState;
}

/**
 * Reads the text of a hints file. Whatever is wrong with it is Damaged and names the entry, counted from 0.
 * @param sizeBytes of the source: hints that reach beyond it are of something else
 */
export function parseHints(text: string, sizeBytes: number): Hints {
  let entries: unknown;
  try {
    entries = JSON.parse(text);
  } catch (error) {
    throw hintsError(`not JSON: ${(error as Error).message}`, { cause: error });
  }
  // What `ashlar diff --json` prints has them among other things.
  const { extents } = (entries ?? {}) as { readonly extents?: unknown };
  if (Array.isArray(extents)) entries = extents;
  if (!Array.isArray(entries)) {
    throw hintsError(
      `expected an array of {"offset", "length", "exists"}, found ${kindOf(entries)}`,
    );
  }
  const changed: number[] = [];
  const zero: number[] = [];
  for (const [index, entry] of entries.entries()) {
    const { offset, length, exists } = checkEntry(entry, index, sizeBytes);
    // An empty extent says nothing.
    if (length > 0) (exists ? changed : zero).push(offset, offset + length);
  }
  return { changed: normalize(changed), zero: normalize(zero) };
}

interface Entry {
  readonly offset: number;
  readonly length: number;
  readonly exists: boolean;
}

function checkEntry(entry: unknown, index: number, sizeBytes: number): Entry {
  if (entry === null || typeof entry !== "object" || Array.isArray(entry)) {
    throw entryError(index, `expected {"offset", "length", "exists"}, found ${kindOf(entry)}`);
  }
  const fields = entry as Readonly<Record<string, unknown>>;
  const offset = checkCount(fields, "offset", index);
  const length = checkCount(fields, "length", index);
  if (offset + length > sizeBytes) {
    throw entryError(
      index,
      `reaches to byte ${offset + length}, but the source has ${sizeBytes} bytes; are these the hints of another source?`,
    );
  }
  const exists = Object.hasOwn(fields, "exists") ? fields["exists"] : undefined;
  switch (exists) {
    case true:
    case "true":
      return { offset, length, exists: true };
    case false:
    case "false":
      return { offset, length, exists: false };
    default:
      throw entryError(index, `"exists" must be true or false, found ${kindOf(exists)}`);
  }
}

function checkCount(
  fields: Readonly<Record<string, unknown>>,
  name: "offset" | "length",
  index: number,
): number {
  const value = Object.hasOwn(fields, name) ? fields[name] : undefined;
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
    throw entryError(index, `"${name}" must be a whole number of bytes, found ${kindOf(value)}`);
  }
  return value;
}

function kindOf(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  if (typeof value === "object") return "an object";
  const text = JSON.stringify(value);
  return text.length > 40 ? `${text.slice(0, 40)}…` : text;
}

function entryError(index: number, problem: string): AshlarError {
  return hintsError(`entry ${index}: ${problem}`, { details: { index } });
}

function hintsError(
  problem: string,
  options: { cause?: unknown; details?: Readonly<Record<string, unknown>> } = {},
): AshlarError {
  return new AshlarError(ErrorCode.Damaged, `hints: ${problem}`, options);
}

/** Sorts pairs of start and end, and joins those that overlap or touch. */
function normalize(pairs: readonly number[]): Extents {
  const count = pairs.length / 2;
  let order: Uint32Array | undefined;
  for (let index = 1; index < count; index += 1) {
    // Nearly always they come in order, and sorting millions would cost more than all the rest.
    if (startOf(pairs, index) < startOf(pairs, index - 1)) {
      order = Uint32Array.from({ length: count }, (_, each) => each);
      order.sort((a, b) => startOf(pairs, a) - startOf(pairs, b));
      break;
    }
  }
  const joined = new Float64Array(pairs.length);
  let used = 0;
  for (let index = 0; index < count; index += 1) {
    const at = order?.[index] ?? index;
    const start = startOf(pairs, at);
    const end = endOf(pairs, at);
    const lastEnd = joined[used - 1];
    if (lastEnd !== undefined && start <= lastEnd) {
      joined[used - 1] = Math.max(lastEnd, end);
    } else {
      joined[used] = start;
      joined[used + 1] = end;
      used += 2;
    }
  }
  return joined.slice(0, used);
}

function startOf(extents: ArrayLike<number>, index: number): number {
  return extents[index * 2] ?? Number.NaN;
}

function endOf(extents: ArrayLike<number>, index: number): number {
  return extents[index * 2 + 1] ?? Number.NaN;
}

/** Bytes of all extents together. */
export function extentBytes(extents: Extents): number {
  let bytes = 0;
  for (let index = 0; index < extents.length / 2; index += 1) {
    bytes += endOf(extents, index) - startOf(extents, index);
  }
  return bytes;
}

/**
 * What is to be done with each block of a source, as ranges without gaps from block 0 to the last; neighbours differ.
 *
 * A block that a changed extent touches is read. A block that zero extents cover whole is zero without reading; one that
 * they cover in part is read, for the rest of it may hold anything. A last block that is short counts as long as it is.
 */
export function* blocksToRead(
  hints: Hints,
  sizeBytes: number,
  blockBytes: number,
): Generator<BlockRange, void, undefined> {
  assert(blockBytes > 0, "blocks are not empty");
  const blockCount = Math.ceil(sizeBytes / blockBytes);
  const { read, zero } = blockExtents(hints, sizeBytes, blockBytes);
  let first = 0;
  let readIndex = 0;
  let zeroIndex = 0;
  let pending: BlockRange | undefined;
  while (first < blockCount) {
    while (endOf(read, readIndex) <= first) readIndex += 1;
    while (endOf(zero, zeroIndex) <= first) zeroIndex += 1;
    const [state, end] = stateAt(first, blockCount, readIndex, zeroIndex, read, zero);
    if (pending?.state === state) {
      pending = { first: pending.first, end, state };
    } else {
      if (pending !== undefined) yield pending;
      pending = { first, end, state };
    }
    first = end;
  }
  if (pending !== undefined) yield pending;
}

/** The state of block `first`, and the first block after it for which that may be another. */
function stateAt(
  first: number,
  blockCount: number,
  readIndex: number,
  zeroIndex: number,
  read: Extents,
  zero: Extents,
): readonly [BlockState, number] {
  const readStart = readIndex * 2 < read.length ? startOf(read, readIndex) : blockCount;
  if (readStart <= first) return ["read", endOf(read, readIndex)];
  const zeroStart = zeroIndex * 2 < zero.length ? startOf(zero, zeroIndex) : blockCount;
  if (zeroStart <= first) return ["zero", Math.min(endOf(zero, zeroIndex), readStart)];
  return ["unchanged", Math.min(readStart, zeroStart)];
}

/** Extents in blocks: those to read, edges of zero extents among them, and those that are zero as a whole. */
function blockExtents(
  hints: Hints,
  sizeBytes: number,
  blockBytes: number,
): { readonly read: Extents; readonly zero: Extents } {
  const { changed, zero } = hints;
  const read: number[] = [];
  const whole: number[] = [];
  for (let index = 0; index < changed.length / 2; index += 1) {
    read.push(
      Math.floor(startOf(changed, index) / blockBytes),
      Math.ceil(endOf(changed, index) / blockBytes),
    );
  }
  for (let index = 0; index < zero.length / 2; index += 1) {
    const start = startOf(zero, index) / blockBytes;
    const end = endOf(zero, index) / blockBytes;
    const firstWhole = Math.ceil(start);
    const endWhole = endOf(zero, index) === sizeBytes ? Math.ceil(end) : Math.floor(end);
    if (firstWhole < endWhole) whole.push(firstWhole, endWhole);
    if (Math.floor(start) < firstWhole) read.push(Math.floor(start), firstWhole);
    if (endWhole < Math.ceil(end)) read.push(Math.floor(end), Math.ceil(end));
  }
  return { read: normalize(read), zero: normalize(whole) };
}

/** Runs after which every unchanged block has been looked at once. */
export function sampleRounds(blockCount: number, rate: number): number {
  if (!(rate > 0)) return 0;
  // With fewer blocks than rounds every run looks at one, and is round the sooner.
  return Math.max(1, Math.min(Math.ceil(1 / Math.min(rate, 1)), blockCount));
}

/**
 * The blocks among `first` … `end - 1` that the sample of run `runNumber` looks at, in ascending order. In any
 * {@link sampleRounds} runs in a row every block comes exactly once, so wrong hints cannot hide for ever.
 *
 * Blocks are meant by their index in the image of `blockCount` blocks, not by their number among the unchanged: those
 * shift from run to run, and the promise with them.
 */
export function* sampleUnchanged(
  blockCount: number,
  runNumber: number,
  rate = 0.001,
  first = 0,
  end = blockCount,
): Generator<number, void, undefined> {
  const rounds = sampleRounds(blockCount, rate);
  if (rounds === 0) return;
  const phase = samplePhase(runNumber, rounds);
  const skipped = Math.max(0, Math.ceil((first - phase) / rounds));
  for (let index = phase + skipped * rounds; index < Math.min(end, blockCount); index += rounds)
    yield index;
}

/**
 * Successive runs do not look at neighbours but step by the golden section of the round: a wrong hint covers neighbouring
 * blocks, and is found the sooner.
 */
function samplePhase(runNumber: number, rounds: number): number {
  assert(Number.isSafeInteger(runNumber) && runNumber >= 0, "runs are counted from 0");
  let step = Math.max(1, Math.round(rounds * 0.618));
  while (greatestCommonDivisor(step, rounds) !== 1) step += 1;
  return ((runNumber % rounds) * step) % rounds;
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
