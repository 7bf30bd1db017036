// Waiting for copies that a commit wants (DESIGN §4.3), so that nothing has to be read from a source again: the late puts that
// are under way here, and then, where copies are still owed, a fill from other storages.
import { Semaphore } from "#lib/core/semaphore.ts";
import type { BlockId, StorageId } from "#lib/core/ids.ts";
import { placedAt } from "#lib/repository/block-record.ts";
import { readBlocks } from "#lib/repository/ledger.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { fillOwed } from "./fill.ts";
import type { LatePuts } from "./late-puts.ts";
import { ObjectReader } from "./object-reader.ts";

/** What is to be placed where. */
export interface SettleRequest {
  readonly ids: readonly BlockId[];
  readonly storages: readonly StorageId[];
  /** How long that may take. */
  readonly patienceMs: number;
}

/** Requests to settle that one writer works on at once. */
export const SETTLES_MAX = 16;

/** Settles for one writer. */
export class Settler {
  readonly #repo: Repository;
  readonly #latePuts: LatePuts;
  /** One fill at a time, for it has memory of its own; at a storage that hangs it may outlast the patience of its request. */
  readonly #fills = new Semaphore(1);
  #reader: ObjectReader | undefined;

  constructor(repo: Repository, latePuts: LatePuts) {
    this.#repo = repo;
    this.#latePuts = latePuts;
  }

  /** Waits; resolves with the number of those that are still not placed at all these storages. */
  async settle(request: SettleRequest): Promise<number> {
    const { clock } = this.#repo;
    const done = new AbortController();
    const outOfPatience = clock.sleep(request.patienceMs, done.signal).catch(() => undefined);
    const work = this.#work(request, done.signal).catch((error: unknown) =>
      this.#repo.log.debug("copies that are wanted could not be filled", { error }),
    );
    await Promise.race([work, outOfPatience]);
    done.abort();
    return (await this.#missing(request)).length;
  }

  async #work(request: SettleRequest, signal: AbortSignal): Promise<void> {
    await this.#latePuts.ended(request.ids);
    for (const storage of request.storages) {
      const only = await this.#missing({ ...request, storages: [storage] });
      if (only.length === 0) continue;
      const reader = (this.#reader ??= new ObjectReader(this.#repo));
      await this.#fills.run(() => fillOwed(this.#repo, storage, { only, signal, reader }), signal);
    }
  }

  /** Those that are not placed at one of the storages. */
  async #missing({ ids, storages }: Omit<SettleRequest, "patienceMs">): Promise<BlockId[]> {
    const records = await this.#repo.kv.read((reader) => readBlocks(reader, ids));
    return ids.filter((_, index) => {
      const record = records[index];
      return (
        record === undefined || storages.some((storage) => placedAt(record, storage) === undefined)
      );
    });
  }
}
