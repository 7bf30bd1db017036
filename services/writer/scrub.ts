// Scrub (DESIGN §4.8): looks at copies, oldest verification first, marks what is wrong, heals it from other storages, and
// tells which versions it hits. A shallow scrub asks for existence and size; a deep one reads and opens every byte, and only
// that moves a copy in the verify queue, or a cheap look would put off the thorough one for ever.
import type { StorageId } from "#lib/core/ids.ts";
import { ErrorCode, isErrorCode, type AshlarError } from "#lib/core/errors.ts";
import { placedAt } from "#lib/repository/block-record.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import { readBlock } from "#lib/repository/ledger.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { drainRechecks } from "#lib/repository/transactions/recheck.ts";
import { markAllVerified, markBad, type JudgedCopy } from "#lib/repository/transactions/verify.ts";
import { asAway } from "./away.ts";
import { findBlastRadius } from "./blast-radius.ts";
import { forEachBounded } from "./bounded.ts";
import { countingStorages } from "./counting-storages.ts";
import { fillOwed } from "./fill.ts";
import { ensureGuarded } from "./guard.ts";
import { ObjectReader, type Verdict } from "./object-reader.ts";
import {
  badCopies,
  cycleTime,
  queuedCopies,
  versionCopies,
  type ScrubCopy,
} from "./scrub-copies.ts";
import type {
  DamagedObject,
  ScrubbedStorage,
  ScrubOptions,
  ScrubResult,
} from "#lib/repository/upkeep.ts";

/** How many damaged objects are told one by one. */
export const DAMAGED_MAX = 10_000;
/** Of so many of them the versions are looked up. */
const RADII_MAX = 1000;
const VERIFIED_BATCH = 64;
/** Existence and size are asked for so many objects at once. */
const SHALLOW_PARALLEL = 16;
const SAMPLE_RESOLUTION = 1_000_000;
/** So many copies are remembered, so that what versions name several times is looked at once; marks tell of older ones. */
const RECENT_MAX = 65_536;

/** Scrubs, and heals what it finds. Refused when a storage and the metadata do not know each other. */
export async function scrub(repo: Repository, options: ScrubOptions): Promise<ScrubResult> {
  const storages = options.storages ?? (await countingStorages(repo.kv));
  const { ok, away } = await ensureGuarded(repo, storages, options.signal);
  const work = new Scrub(repo, ok, options, await cycleTime(repo, ok));
  for (const { storage, error } of away) work.tally(storage).stopped = error;
  // Marks of damage must have reached the versions before anybody looks, also when the scrub is stopped.
  try {
    await work.run();
  } finally {
    await drainRechecks(repo.kv);
  }
  await work.heal();
  await drainRechecks(repo.kv);
  return work.result();
}

interface Tally {
  checked: number;
  bytes: number;
  damaged: number;
  restored: number;
  stopped: AshlarError | undefined;
}

interface Found {
  readonly copy: ScrubCopy;
  readonly reason: string;
}

class Scrub {
  readonly #repo: Repository;
  readonly #storages: readonly StorageId[];
  readonly #options: ScrubOptions;
  readonly #cycleMs: number;
  readonly #reader: ObjectReader;
  readonly #startedMs: number;
  readonly #tallies = new Map<StorageId, Tally>();
  readonly #found = new Map<string, Found>();
  readonly #recent = new Set<string>();
  #verified: JudgedCopy[] = [];
  #bytes = 0;
  /** Of the copies that are being looked at, too. */
  #promisedBytes = 0;
  #budgetSpent = false;

  constructor(
    repo: Repository,
    storages: readonly StorageId[],
    options: ScrubOptions,
    cycleMs: number,
  ) {
    this.#repo = repo;
    this.#storages = storages;
    this.#options = options;
    this.#cycleMs = cycleMs;
    this.#reader = new ObjectReader(repo);
    this.#startedMs = repo.clock.monotonic();
  }

  tally(storage: StorageId): Tally {
    const present = this.#tallies.get(storage);
    if (present !== undefined) return present;
    const fresh = { checked: 0, bytes: 0, damaged: 0, restored: 0, stopped: undefined };
    this.#tallies.set(storage, fresh);
    return fresh;
  }

  async run(): Promise<void> {
    for (const storage of this.#storages) this.tally(storage);
    const { versions } = this.#options;
    try {
      if (versions !== undefined)
        await this.#look(versionCopies(this.#repo, versions, this.#storages));
      else await Promise.all(this.#storages.map((storage) => this.#lookAt(storage)));
    } finally {
      await this.#flushVerified();
    }
  }

  async #lookAt(storage: StorageId): Promise<void> {
    // Bad copies first: what is marked bad in this cycle need not be read twice.
    await this.#look(badCopies(this.#repo, storage));
    await this.#look(queuedCopies(this.#repo, storage, this.#cycleMs));
  }

  #look(pages: AsyncIterable<ScrubCopy[]>): Promise<void> {
    const { deep, signal } = this.#options;
    const parallel = deep ? this.#reader.concurrency : SHALLOW_PARALLEL;
    return forEachBounded(this.#batches(pages), parallel, (batch) => this.#check(batch), signal);
  }

  /** Batches of copies that are to be looked at, until the budget is spent. */
  async *#batches(pages: AsyncIterable<ScrubCopy[]>): AsyncGenerator<ScrubCopy[]> {
    const { deep } = this.#options;
    for await (const page of pages) {
      const chosen = page.filter((copy) => this.#isChosen(copy));
      const batches = deep ? this.#reader.batches(chosen) : chosen.map((copy) => [copy]);
      for (const batch of batches) {
        const affordable = this.#affordable(batch);
        if (affordable.length > 0) yield affordable;
        if (affordable.length === batch.length) continue;
        this.#budgetSpent = true;
        return;
      }
    }
  }

  #isChosen(copy: ScrubCopy): boolean {
    const { deep, samplePercent } = this.#options;
    if (this.tally(copy.storage).stopped !== undefined) return false;
    if (deep && copy.verifiedMs >= this.#cycleMs) return false;
    if (!this.#isFirst(copy)) return false;
    if (samplePercent === undefined || copy.state === "bad") return true;
    return this.#repo.random.below(SAMPLE_RESOLUTION) < (samplePercent / 100) * SAMPLE_RESOLUTION;
  }

  #isFirst({ storage, id, generation }: ScrubCopy): boolean {
    const recent = this.#recent;
    const at = `${storage}${id}${generation}`;
    if (recent.has(at)) return false;
    recent.add(at);
    if (recent.size > RECENT_MAX) for (const oldest of recent.keys().take(1)) recent.delete(oldest);
    return true;
  }

  /** The copies of a batch that the budget still allows. What is under way counts, or many at once would spend it manifold. */
  #affordable(batch: readonly ScrubCopy[]): ScrubCopy[] {
    const { ms, bytes = Infinity } = this.#options.budget ?? {};
    if (ms !== undefined && this.#repo.clock.monotonic() - this.#startedMs >= ms) return [];
    const affordable: ScrubCopy[] = [];
    for (const copy of batch) {
      if (this.#promisedBytes >= bytes) break;
      this.#promisedBytes += copy.storedBytes;
      affordable.push(copy);
    }
    return affordable;
  }

  async #check(batch: readonly ScrubCopy[]): Promise<void> {
    const [first] = batch;
    if (first !== undefined && !this.#options.deep) return this.#checkShallow(first);
    await this.#checkDeep(batch);
  }

  async #checkShallow(copy: ScrubCopy): Promise<void> {
    const tally = this.tally(copy.storage);
    if (copy.state === "bad") {
      this.#remember(copy, "it was found damaged before");
      return;
    }
    try {
      const name = objectName(copy.kind, copy.id, copy.generation);
      const { sizeBytes } = await this.#repo.storages.store(copy.storage).stat(name);
      // Another size than the record's is no proof: copies may have been sealed apart. Then opening tells.
      if (sizeBytes !== copy.storedBytes) return await this.#checkDeep([copy]);
      tally.checked += 1;
      this.#count(tally, sizeBytes);
    } catch (error) {
      this.#options.signal?.throwIfAborted();
      if (!isErrorCode(error, ErrorCode.NotFound)) {
        tally.stopped ??= asAway(error);
        return;
      }
      tally.checked += 1;
      await this.#judgeBad(copy, "it is missing");
    }
  }

  async #checkDeep(batch: readonly ScrubCopy[]): Promise<void> {
    const work = async (verdicts: readonly Verdict[]): Promise<void> => {
      for (const [index, copy] of batch.entries())
        await this.#judge(copy, verdicts[index] as Verdict);
    };
    await this.#reader.read(batch, work, this.#options.signal);
  }

  async #judge(copy: ScrubCopy, verdict: Verdict): Promise<void> {
    const tally = this.tally(copy.storage);
    switch (verdict.kind) {
      case "away":
        tally.stopped ??= verdict.error;
        return;
      case "bad":
        tally.checked += 1;
        return this.#judgeBad(copy, verdict.reason);
      case "good":
        tally.checked += 1;
        if (copy.state === "bad") tally.restored += 1;
        this.#count(tally, verdict.sealed.length);
        this.#verified.push(copy);
        if (this.#verified.length >= VERIFIED_BATCH) await this.#flushVerified();
    }
  }

  #count(tally: Tally, bytes: number): void {
    tally.bytes += bytes;
    this.#bytes += bytes;
    this.#options.onProgress?.(this.#bytes);
  }

  async #flushVerified(): Promise<void> {
    while (this.#verified.length > 0) {
      const batch = this.#verified.splice(0, VERIFIED_BATCH);
      const nowMs = Math.max(this.#cycleMs, this.#repo.clock.now());
      await markAllVerified(this.#repo.kv, nowMs, batch);
    }
  }

  /** The transaction reads the record again: a copy that was replaced or removed meanwhile is no damage. */
  async #judgeBad(copy: ScrubCopy, reason: string): Promise<void> {
    const marked = copy.state === "bad" || (await markBad(this.#repo.kv, this.#repo.random, copy));
    if (marked) this.#remember(copy, reason);
  }

  #remember(copy: ScrubCopy, reason: string): void {
    const name = objectName(copy.kind, copy.id, copy.generation);
    const at = `${copy.storage}/${name}`;
    if (this.#found.has(at)) return;
    this.tally(copy.storage).damaged += 1;
    if (this.#found.size < DAMAGED_MAX) this.#found.set(at, { copy, reason });
    const storage = this.#repo.storages.nameOf(copy.storage);
    this.#repo.log.warn("a damaged object was found", { storage, object: name, reason });
  }

  /** Fills what was found bad from other storages; what cannot be healed now stays owed. */
  async heal(): Promise<void> {
    for (const storage of this.#storages) {
      const only = [...this.#found.values()]
        .filter(({ copy }) => copy.storage === storage)
        .map(({ copy }) => copy.id);
      if (only.length === 0) continue;
      const { signal } = this.#options;
      const reader = this.#reader;
      await fillOwed(
        this.#repo,
        storage,
        signal === undefined ? { only, reader } : { only, reader, signal },
      );
    }
  }

  async result(): Promise<ScrubResult> {
    const damaged: DamagedObject[] = [];
    for (const { copy, reason } of this.#found.values()) {
      const { id, kind, storage, generation } = copy;
      const { kv } = this.#repo;
      const radius =
        damaged.length < RADII_MAX
          ? await findBlastRadius(kv, id, kind)
          : { versions: [], more: true };
      const record = await kv.read((reader) => readBlock(reader, id));
      const healed = record !== undefined && placedAt(record, storage) !== undefined;
      const name = objectName(kind, id, generation);
      damaged.push({ storage, name, id, kind, reason, healed, ...radius });
    }
    const storages: ScrubbedStorage[] = [];
    for (const [storage, { stopped, ...counts }] of this.#tallies) {
      storages.push({ storage, ...counts, reason: stopped?.message });
    }
    return { storages, damaged, budgetSpent: this.#budgetSpent };
  }
}
