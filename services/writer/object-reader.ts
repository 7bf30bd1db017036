// Reads sealed objects and verifies them by opening, many at once in bounded memory. What a storage gives is not trusted,
// and sizes in records are only hints: the object's own header decides how much room its plaintext needs. It is used by those
// who judge and copy (scrub, filling), so it never asks for what a cache has kept: it sees the storage.
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import { Semaphore } from "#lib/core/semaphore.ts";
import type { Opened, OpenRequest, Slot, SlotPool } from "#lib/ports/compute.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import { canOpen } from "#lib/repository/keys.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { sealedBytesMax } from "#lib/repository/sealing.ts";
import { NODE_BYTES_MAX } from "#proto/node.ts";
import { decodeSealed, PLAIN_BYTES_MAX } from "#proto/sealed-object.ts";
import { asAway } from "./away.ts";

/** One copy to read. */
export interface ObjectCopy {
  readonly kind: "block" | "node";
  readonly id: BlockId;
  readonly storage: StorageId;
  readonly generation: Generation;
  /** As the record says; a hint. */
  readonly plainBytes: number;
}

/** What reading and opening a copy showed. `sealed` is valid while the reader's callback runs. */
export type Verdict =
  | { readonly kind: "good"; readonly sealed: Uint8Array }
  /** Missing, damaged, or not the object that it should be. */
  | { readonly kind: "bad"; readonly reason: string }
  /** It could not be read: no judgement. */
  | { readonly kind: "away"; readonly error: AshlarError };

/** Objects read into one slot: bounds what a batch of tiny objects has under way. */
export const BATCH_OBJECTS_MAX = 64;
/** What the slots of a reader take together, unless a single one is larger. */
const POOL_BYTES_MAX = 128 * 1024 * 1024;
/** Small objects are read and opened many at once: a slot is at least so large. */
const SLOT_BYTES_MIN = 4 * 1024 * 1024;
/** Far storages answer late, so more batches are under way than there are cores. */
const CONCURRENCY_MIN = 8;

/** Reads and verifies; made once for a piece of work, for it owns memory. */
export class ObjectReader {
  readonly #repo: Repository;
  /** Who has a write-only access key verifies what can be verified without opening: enough to find rot, and to copy. */
  readonly #verifyOnly: boolean;
  readonly #slotBytes: number;
  /** How many batches are worked on at once. */
  readonly concurrency: number;
  #pool: SlotPool | undefined;
  /** Objects that do not fit a slot get memory of their own, one at a time. */
  readonly #oversize = new Semaphore(1);
  readonly #yields: boolean;

  /** @param options.yields nobody waits for what it reads: it lets others read first */
  constructor(repo: Repository, { yields = false }: { readonly yields?: boolean } = {}) {
    this.#repo = repo;
    this.#verifyOnly = !canOpen(repo.keys);
    this.#yields = yields;
    const largest = Math.max(repo.config.blockBytes, NODE_BYTES_MAX);
    this.#slotBytes = Math.max(roomFor(largest), SLOT_BYTES_MIN);
    const affordable = Math.floor(POOL_BYTES_MAX / this.#slotBytes);
    const wanted = Math.max(CONCURRENCY_MIN, repo.compute.concurrency + 2);
    this.concurrency = Math.max(2, Math.min(wanted, affordable));
  }

  /** Splits copies, in order, into batches that fit a slot each. */
  *batches<T extends ObjectCopy>(copies: Iterable<T>): Generator<T[]> {
    let batch: T[] = [];
    let room = 0;
    for (const copy of copies) {
      const needed = roomFor(copy.plainBytes);
      if (
        batch.length === BATCH_OBJECTS_MAX ||
        (batch.length > 0 && room + needed > this.#slotBytes)
      ) {
        yield batch;
        batch = [];
        room = 0;
      }
      batch.push(copy);
      room += needed;
    }
    if (batch.length > 0) yield batch;
  }

  /** Reads a batch of {@link batches} and hands the verdicts, in order, to `use`. */
  async read<T>(
    copies: readonly ObjectCopy[],
    use: (verdicts: readonly Verdict[]) => Promise<T>,
    signal?: AbortSignal,
  ): Promise<T> {
    const [first] = copies;
    const room = copies.reduce((sum, copy) => sum + roomFor(copy.plainBytes), 0);
    if (room > this.#slotBytes) {
      assert(first !== undefined && copies.length === 1, "only a single object outgrows a slot");
      return this.#oversize.run(async () => use([await this.#readAlone(first, signal)]), signal);
    }
    this.#pool ??= this.#repo.compute.pool(this.#slotBytes, this.concurrency);
    const slot = await this.#pool.acquire(signal);
    try {
      return await use(await this.#readInto(slot, copies, signal));
    } finally {
      slot.release();
    }
  }

  /** The slot holds the sealed objects first, then their plaintexts. */
  async #readInto(
    slot: Slot,
    copies: readonly ObjectCopy[],
    signal: AbortSignal | undefined,
  ): Promise<Verdict[]> {
    let at = 0;
    const areas = copies.map((copy) => {
      const area = slot.bytes.subarray(at, at + sealedBytesMax(copy.plainBytes));
      at += area.length;
      return area;
    });
    const out = slot.bytes.subarray(at);
    const read = await Promise.all(
      copies.map((copy, index) => this.#get(copy, areas[index] as Uint8Array, signal)),
    );
    const fitting = copies.map((copy, index) => {
      const one = read[index] as Read;
      return one.kind === "read" && plainBytesOf(one.sealed) <= copy.plainBytes;
    });
    const opened = await this.#open(
      copies.filter((_, index) => fitting[index]),
      read.filter((one, index): one is Sealed => one.kind === "read" && fitting[index] === true),
      out,
    );
    const verdicts: Verdict[] = [];
    for (const [index, copy] of copies.entries()) {
      const one = read[index] as Read;
      if (fitting[index] === true) verdicts.push(opened.shift() as Verdict);
      else if (one.kind === "read" || one.kind === "large") {
        verdicts.push(await this.#oversize.run(() => this.#readAlone(copy, signal), signal));
      } else verdicts.push(one);
    }
    return verdicts;
  }

  async #get(copy: ObjectCopy, into: Uint8Array, signal: AbortSignal | undefined): Promise<Read> {
    const { storages } = this.#repo;
    const name = objectName(copy.kind, copy.id, copy.generation);
    const options = { into, yields: this.#yields, ...(signal === undefined ? {} : { signal }) };
    for (let tries = 1; ; tries += 1) {
      try {
        return { kind: "read", sealed: await storages.get(copy.storage, name, options) };
      } catch (error) {
        signal?.throwIfAborted();
        if (isErrorCode(error, ErrorCode.NotFound)) return { kind: "bad", reason: "it is missing" };
        // Also what is too large for the buffer comes as Damaged.
        if (isErrorCode(error, ErrorCode.Damaged)) {
          return (await this.#isLarger(copy, name, into.length))
            ? { kind: "large" }
            : { kind: "bad", reason: error.message };
        }
        // A sector that cannot be read is damage; but a failing cable looks the same, so it is asked twice.
        const isUnreadable = error instanceof AshlarError && error.details["errno"] === "EIO";
        if (isUnreadable && tries === 1) continue;
        if (isUnreadable) return { kind: "bad", reason: error.message };
        return { kind: "away", error: asAway(error) };
      }
    }
  }

  async #isLarger(copy: ObjectCopy, name: string, bytes: number): Promise<boolean> {
    try {
      const { sizeBytes } = await this.#repo.storages.store(copy.storage).stat(name);
      return sizeBytes > bytes && sizeBytes <= sealedBytesMax(PLAIN_BYTES_MAX);
    } catch (error) {
      asAway(error);
      return false;
    }
  }

  async #open(
    copies: readonly ObjectCopy[],
    read: readonly Sealed[],
    out: Uint8Array,
  ): Promise<Verdict[]> {
    if (copies.length === 0) return [];
    const requests = copies.map((copy, index): OpenRequest => ({
      kind: copy.kind,
      id: copy.id,
      sealed: (read[index] as Sealed).sealed,
      verifyOnly: this.#verifyOnly,
    }));
    try {
      const opened = await this.#repo.compute.open(requests, out);
      return opened.map((one, index) => verdictOf(one, (read[index] as Sealed).sealed));
    } catch (error) {
      const away = asAway(error);
      if (copies.length === 1) return [{ kind: "away", error: away }];
      // One of them is of a newer Ashlar, which says nothing about the others.
      const verdicts: Verdict[] = [];
      for (const [index, copy] of copies.entries()) {
        verdicts.push(...(await this.#open([copy], [read[index] as Sealed], out)));
      }
      return verdicts;
    }
  }

  /** An object whose record's size is too small a hint, or larger than any slot. */
  async #readAlone(copy: ObjectCopy, signal: AbortSignal | undefined): Promise<Verdict> {
    const name = objectName(copy.kind, copy.id, copy.generation);
    try {
      const { sizeBytes } = await this.#repo.storages.store(copy.storage).stat(name);
      if (sizeBytes > sealedBytesMax(PLAIN_BYTES_MAX)) {
        return { kind: "bad", reason: `it has ${sizeBytes} bytes, more than any object` };
      }
    } catch (error) {
      signal?.throwIfAborted();
      if (isErrorCode(error, ErrorCode.NotFound)) return { kind: "bad", reason: "it is missing" };
      return { kind: "away", error: asAway(error) };
    }
    const read = await this.#get(
      copy,
      Buffer.allocUnsafeSlow(sealedBytesMax(PLAIN_BYTES_MAX)),
      signal,
    );
    if (read.kind === "large") return { kind: "bad", reason: "it is too large" };
    if (read.kind !== "read") return read;
    const out = Buffer.allocUnsafeSlow(Math.max(1, plainBytesOf(read.sealed)));
    const [verdict] = await this.#open([copy], [read], out);
    return verdict as Verdict;
  }
}

type Sealed = { readonly kind: "read"; readonly sealed: Uint8Array };
type Read = Sealed | { readonly kind: "large" } | Exclude<Verdict, { kind: "good" }>;

/** Room for one object and its plaintext. */
function roomFor(plainBytes: number): number {
  return sealedBytesMax(plainBytes) + plainBytes;
}

/** What the header says, or 0 where it cannot be read: opening tells why. At most 64 MiB. */
function plainBytesOf(sealed: Uint8Array): number {
  try {
    const bytes = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength);
    return decodeSealed(bytes).header.plainBytes;
  } catch {
    return 0;
  }
}

function verdictOf(opened: Opened, sealed: Uint8Array): Verdict {
  return opened.ok ? { kind: "good", sealed } : { kind: "bad", reason: opened.reason };
}
