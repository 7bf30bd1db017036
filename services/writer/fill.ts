// Replicate (DESIGN §4.7): fills what a storage is owed from the other storages. The sealed bytes are copied as they are,
// under the generation that the record names here, and verified by opening before they count as placed.
import { ErrorCode, isErrorCode, isNoSpace, type AshlarError } from "#lib/core/errors.ts";
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import { currentAt, type BlockRecord } from "#lib/repository/block-record.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import { readBlocks } from "#lib/repository/ledger.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { listOwed, oweChildren, placeFilled } from "#lib/repository/transactions/fill.ts";
import { drainRechecks } from "#lib/repository/transactions/recheck.ts";
import { countOwed } from "#lib/repository/transactions/storage.ts";
import { markBad } from "#lib/repository/transactions/verify.ts";
import { asAway } from "./away.ts";
import { forEachBounded } from "./bounded.ts";
import { countingStorages, storageState } from "./counting-storages.ts";
import { ensureGuarded } from "./guard.ts";
import { putOwedHeads } from "./heads.ts";
import { ObjectReader, type ObjectCopy } from "./object-reader.ts";
import type { FillSummary, ObjectFailure, UpkeepOptions } from "#lib/repository/upkeep.ts";

/** How filling is done. */
export interface FillOptions extends UpkeepOptions {
  /** Only these blocks and nodes; default: all that is owed. */
  readonly only?: readonly BlockId[];
  /** Its memory is used; default: a reader of its own. */
  readonly reader?: ObjectReader;
}

const STEP = 256;
/** Counting what stays owed, and naming what cannot be filled, stop here. */
const COUNT_MAX = 10_000;
const FAILURES_MAX = 200;
/** So many ids that cannot be filled are skipped in later passes; more are tried again, in vain but without harm. */
const FAILED_IDS_MAX = 100_000;

/**
 * Fills a storage's owed copies, children before parents, then puts the heads that became possible. A storage that is away,
 * or gets nothing new, is skipped with the reason. Refused when it and the metadata do not know each other.
 */
export async function fillOwed(
  repo: Repository,
  storage: StorageId,
  options: FillOptions = {},
): Promise<FillSummary> {
  const job = new FillJob(repo, storage, options);
  let headsPut = 0;
  let reason = await whyNot(repo, storage);
  if (reason === undefined) {
    const { away } = await ensureGuarded(repo, [storage], options.signal);
    reason = away[0]?.error.message;
  }
  if (reason === undefined) {
    await job.run();
    const { signal } = options;
    const [heads] = await putOwedHeads(
      repo,
      signal === undefined ? { storage } : { storage, signal },
    );
    headsPut = heads?.put ?? 0;
    reason = job.reason ?? (heads?.failed === true ? heads.reason : undefined);
  }
  // What was filled or judged changes marks; whoever asks for a storage's debts wants the versions' state to be true.
  await drainRechecks(repo.kv, options.signal);
  const { filled, bytes, damaged, failures } = job;
  const owed = (await countOwed(repo.kv, storage, COUNT_MAX)).copies;
  return { storage, filled, bytes, owed, headsPut, damaged, failures, reason };
}

async function whyNot(repo: Repository, storage: StorageId): Promise<string | undefined> {
  const state = await storageState(repo.kv, storage);
  if (state !== "in-use") return `the storage is ${state}, so it gets nothing new`;
  try {
    repo.storages.store(storage);
    return undefined;
  } catch (error) {
    return asAway(error).message;
  }
}

/** One owed copy with its record. */
interface Owed {
  readonly target: ObjectCopy;
  readonly record: BlockRecord;
}

class FillJob {
  readonly #repo: Repository;
  readonly #storage: StorageId;
  readonly #options: FillOptions;
  readonly #reader: ObjectReader;
  #sources: readonly StorageId[] = [];
  readonly #failed = new Set<BlockId>();
  /** The target, or the metadata, cannot be used any more. */
  #stopped: AshlarError | undefined;
  #moved = false;
  filled = 0;
  bytes = 0;
  readonly damaged: ObjectFailure[] = [];
  readonly failures: ObjectFailure[] = [];

  constructor(repo: Repository, storage: StorageId, options: FillOptions) {
    this.#repo = repo;
    this.#storage = storage;
    this.#options = options;
    this.#reader = options.reader ?? new ObjectReader(repo);
  }

  /** Why copies are still owed, or undefined. */
  get reason(): string | undefined {
    return this.#stopped?.message ?? this.failures[0]?.reason;
  }

  /**
   * Passes over what is owed until one moves nothing: a pass owes the children of owed nodes, the next ones fill them, and
   * their parents after them. Only a page of the queue is in memory.
   */
  async run(): Promise<void> {
    const counting = await countingStorages(this.#repo.kv);
    this.#sources = counting.filter((id) => this.#repo.storages.isAvailable(id));
    do {
      this.#moved = false;
      for await (const ids of this.#pages()) {
        const owed = await this.#readOwed(ids);
        await this.#each(
          owed.filter(({ record }) => record.kind === "block"),
          (one) => this.#fill(one),
        );
        await this.#each(
          owed.filter(({ record }) => record.kind === "node"),
          (one) => this.#fillNode(one),
        );
        if (this.#stopped !== undefined) return;
      }
    } while (this.#moved);
  }

  async *#pages(): AsyncGenerator<readonly BlockId[]> {
    const { only } = this.#options;
    if (only !== undefined) {
      for (let at = 0; at < only.length; at += STEP) yield only.slice(at, at + STEP);
      return;
    }
    let from: Buffer | undefined;
    do {
      const page = await listOwed(this.#repo.kv, this.#storage, from, STEP);
      yield page.ids;
      from = page.next;
    } while (from !== undefined);
  }

  async #readOwed(ids: readonly BlockId[]): Promise<Owed[]> {
    const wanted = ids.filter((id) => !this.#failed.has(id));
    const records = await this.#repo.kv.read((reader) => readBlocks(reader, wanted));
    const out: Owed[] = [];
    for (const [index, id] of wanted.entries()) {
      const record = records[index];
      const copy = record === undefined ? undefined : currentAt(record, this.#storage);
      if (record === undefined || copy?.state !== "owed") continue;
      out.push({ record, target: copyOf(id, record, this.#storage, copy.generation) });
    }
    return out;
  }

  #each(owed: readonly Owed[], work: (one: Owed) => Promise<void>): Promise<void> {
    return forEachBounded(
      owed,
      this.#reader.concurrency,
      async (one) => {
        if (this.#stopped !== undefined) return;
        try {
          await work(one);
        } catch (error) {
          // Metadata that is full: copies stay owed. It gets room from what is done after filling.
          if (!isNoSpace(error)) throw error;
          this.#stopped ??= error;
        }
      },
      this.#options.signal,
    );
  }

  async #fillNode(owed: Owed): Promise<void> {
    const { kv, random } = this.#repo;
    const { missing, added } = await oweChildren(kv, random, owed.target.id, this.#storage);
    if (added > 0) this.#moved = true;
    if (missing === 0) await this.#fill(owed);
  }

  async #fill(owed: Owed): Promise<void> {
    if (await this.#takeWhatIsThere(owed)) return;
    const reasons: string[] = [];
    for (const source of this.#sourcesOf(owed)) {
      const reason = await this.#copyFrom(owed, source);
      if (reason === undefined || this.#stopped !== undefined) return;
      reasons.push(`${this.#repo.storages.nameOf(source.storage)}: ${reason}`);
    }
    const { id, kind } = owed.target;
    const reason =
      reasons.length > 0 ? reasons.join("; ") : "no storage that is there has a good copy";
    if (this.#failed.size < FAILED_IDS_MAX) this.#failed.add(id);
    if (this.failures.length < FAILURES_MAX) {
      this.failures.push({ storage: this.#storage, id, kind, reason });
    }
  }

  /** An earlier try may have left the object under this very name: it is verified, never trusted. */
  async #takeWhatIsThere({ target }: Owed): Promise<boolean> {
    const { id, kind, generation } = target;
    try {
      await this.#repo.storages.store(this.#storage).stat(objectName(kind, id, generation));
    } catch (error) {
      this.#options.signal?.throwIfAborted();
      if (!isErrorCode(error, ErrorCode.NotFound)) this.#stopped = asAway(error);
      return this.#stopped !== undefined;
    }
    return this.#reader.read(
      [target],
      async ([verdict]) => {
        if (verdict?.kind === "away") this.#stopped = verdict.error;
        if (verdict?.kind !== "good") return this.#stopped !== undefined;
        await this.#place(target, verdict.sealed.length, true);
        return true;
      },
      this.#options.signal,
    );
  }

  #sourcesOf({ target, record }: Owed): ObjectCopy[] {
    return record.copies
      .filter((copy) => copy.state === "placed" && this.#sources.includes(copy.storage))
      .filter((copy) => copy.storage !== this.#storage)
      .map((copy) => copyOf(target.id, record, copy.storage, copy.generation));
  }

  /** Copies from one source; returns why it could not give the object. */
  #copyFrom({ target }: Owed, source: ObjectCopy): Promise<string | undefined> {
    return this.#reader.read(
      [source],
      async ([verdict]) => {
        if (verdict?.kind === "good") {
          await this.#put(target, verdict.sealed);
          return undefined;
        }
        if (verdict?.kind === "away") return verdict.error.message;
        const reason = verdict?.reason ?? "it was not read";
        await this.#judge(source, reason);
        return reason;
      },
      this.#options.signal,
    );
  }

  async #put(target: ObjectCopy, sealed: Uint8Array): Promise<void> {
    const { signal } = this.#options;
    const name = objectName(target.kind, target.id, target.generation);
    try {
      await this.#repo.storages.put(
        this.#storage,
        name,
        sealed,
        signal === undefined ? {} : { signal },
      );
    } catch (error) {
      signal?.throwIfAborted();
      // Away, full or not writable: so it will be for the next object.
      this.#stopped ??= asAway(error);
      return;
    }
    await this.#place(target, sealed.length, false);
  }

  async #place(target: ObjectCopy, storedBytes: number, wasThere: boolean): Promise<void> {
    const { id, kind, generation } = target;
    const copy = { id, kind, storage: this.#storage, generation, storedBytes, wasThere };
    const outcome = await placeFilled(this.#repo.kv, this.#repo.clock.now(), copy);
    if (outcome !== "placed") return;
    this.#moved = true;
    this.filled += 1;
    this.bytes += storedBytes;
    this.#options.onProgress?.(this.bytes);
  }

  /** The transaction reads the record again: a copy that it does not name as placed any more is not judged. */
  async #judge(copy: ObjectCopy, reason: string): Promise<void> {
    const { id, kind, storage, generation } = copy;
    if (!(await markBad(this.#repo.kv, this.#repo.random, { id, storage, generation }))) return;
    if (this.damaged.length < FAILURES_MAX) this.damaged.push({ storage, id, kind, reason });
    this.#repo.log.warn("a damaged object was found", {
      storage: this.#repo.storages.nameOf(storage),
      object: objectName(kind, id, generation),
      reason,
    });
  }
}

/** A copy of a record as the reader wants it. */
export function copyOf(
  id: BlockId,
  { kind, plainBytes }: BlockRecord,
  storage: StorageId,
  generation: Generation,
): ObjectCopy {
  return { kind, id, storage, generation, plainBytes };
}
