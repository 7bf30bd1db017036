// Puts that go on after their answer: a storage that is slower than the quorum.
import type { BlockId, StorageId } from "#lib/core/ids.ts";

/** The late puts of one writer; bounded by the slots that they hold. */
export class LatePuts {
  readonly #works = new Set<Promise<void>>();
  readonly #byId = new Map<BlockId, Set<Promise<void>>>();
  readonly #counts = new Map<StorageId, number>();

  /** Watches `work`, which ends when these puts to a storage have ended and are recorded; it never rejects. */
  add(storage: StorageId, ids: readonly BlockId[], work: Promise<void>): void {
    this.#works.add(work);
    this.#counts.set(storage, (this.#counts.get(storage) ?? 0) + 1);
    for (const id of ids) {
      const works = this.#byId.get(id) ?? new Set();
      this.#byId.set(id, works.add(work));
    }
    void work.finally(() => this.#remove(storage, ids, work));
  }

  #remove(storage: StorageId, ids: readonly BlockId[], work: Promise<void>): void {
    this.#works.delete(work);
    const count = (this.#counts.get(storage) ?? 1) - 1;
    if (count === 0) this.#counts.delete(storage);
    else this.#counts.set(storage, count);
    for (const id of ids) {
      const works = this.#byId.get(id);
      works?.delete(work);
      if (works?.size === 0) this.#byId.delete(id);
    }
  }

  /** Storages at which puts are still under way. */
  get storages(): readonly StorageId[] {
    return [...this.#counts.keys()];
  }

  /** Resolves when the puts that are late now have ended; those of these ids, or all. */
  async ended(ids?: readonly BlockId[]): Promise<void> {
    if (ids === undefined) await Promise.all(this.#works);
    else await Promise.all(ids.flatMap((id) => [...(this.#byId.get(id) ?? [])]));
  }
}
