// Scrub (DESIGN §4.8): goes through copies, oldest verification first, has them looked at piece by piece by whichever writers are
// there, heals what is wrong from other storages, and tells which versions it hits. A shallow scrub asks for existence and size; a
// deep one has every byte read and opened, and only that moves a copy in the verify queue, or a cheap look would put off the thorough one for ever.
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { placedAt } from "#lib/repository/block-record.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import { readBlock } from "#lib/repository/ledger.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { drainRechecks } from "#lib/repository/transactions/recheck.ts";
import { findBlastRadius } from "./blast-radius.ts";
import { forEachBounded } from "./bounded.ts";
import { countingStorages } from "./counting-storages.ts";
import { fillOwed } from "./fill.ts";
import { ensureGuarded } from "./guard.ts";
import { ObjectReader } from "./object-reader.ts";
import {
  badCopies,
  cycleTime,
  queuedCopies,
  versionCopies,
  type ScrubCopy,
} from "./scrub-copies.ts";
import { cutPieces, PieceWindow, type ScrubPiece } from "./scrub-pieces.ts";
import { Verifier, type VerifyOutcome, type VerifyRequest } from "./verify.ts";
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
const SAMPLE_RESOLUTION = 1_000_000;
/** So many copies are remembered, so that what versions name several times is looked at once; marks tell of older ones. */
const RECENT_MAX = 65_536;
/** Whoever works on a piece begins nothing more after so long: also one that does not hear that the scrub is over ends soon. */
const PIECE_MS = 3000;

/** Whoever is there to look at copies. */
export interface OthersWhoVerify {
  /** One of them looks. */
  ask(request: VerifyRequest, signal: AbortSignal | undefined): Promise<VerifyOutcome>;
  /** A scrub is over: none of them goes on for it. That may be lost, and then they end when the time of their piece is up. */
  end(scrub: string): void;
}

/** Scrubs, and heals what it finds. Refused when a storage and the metadata do not know each other. */
export async function scrub(
  repo: Repository,
  options: ScrubOptions,
  others: OthersWhoVerify,
): Promise<ScrubResult> {
  const storages = options.storages ?? (await countingStorages(repo.kv));
  const { ok, away } = await ensureGuarded(repo, storages, options.signal);
  const latestMs = await cycleTime(repo, ok);
  const cycleMs = options.keepCycle === undefined ? latestMs : await options.keepCycle(latestMs);
  const work = new Scrub(repo, ok, options, cycleMs, others);
  for (const { storage, error } of away) work.tally(storage).stopped = error;
  // Marks of damage must have reached the versions before anybody looks, also when the scrub is stopped.
  try {
    await work.run();
  } finally {
    work.end();
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
  readonly #others: OthersWhoVerify;
  readonly #name: string;
  /** Does what nobody else can. */
  readonly #own: Verifier;
  readonly #failed = new AbortController();
  readonly #signal: AbortSignal;
  readonly #startedMs: number;
  readonly #tallies = new Map<StorageId, Tally>();
  readonly #found = new Map<string, Found>();
  readonly #recent = new Set<string>();
  #bytes = 0;
  /** Of the copies that are being looked at, too. */
  #promisedBytes = 0;
  #budgetSpent = false;

  constructor(
    repo: Repository,
    storages: readonly StorageId[],
    options: ScrubOptions,
    cycleMs: number,
    others: OthersWhoVerify,
  ) {
    this.#repo = repo;
    this.#storages = storages;
    this.#options = options;
    this.#cycleMs = cycleMs;
    this.#others = others;
    this.#name = repo.random.bytes(8).toString("hex");
    this.#own = new Verifier(repo);
    const { signal } = this.#failed;
    this.#signal =
      options.signal === undefined ? signal : AbortSignal.any([signal, options.signal]);
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
    if (versions !== undefined) {
      return this.#look(versionCopies(this.#repo, versions, this.#storages));
    }
    // A failure at one storage ends the work at the others before anybody hears of it.
    const all = this.#storages.map((storage) =>
      this.#lookAt(storage).catch((error: unknown) => {
        this.#failed.abort(error);
        throw error;
      }),
    );
    await Promise.allSettled(all);
    await Promise.all(all);
  }

  end(): void {
    this.#others.end(this.#name);
    this.#own.stop();
  }

  async #lookAt(storage: StorageId): Promise<void> {
    // Bad copies first: what is marked bad in this cycle need not be read twice.
    await this.#look(badCopies(this.#repo, storage));
    await this.#look(queuedCopies(this.#repo, storage, this.#cycleMs));
  }

  #look(pages: AsyncIterable<ScrubCopy[]>): Promise<void> {
    const window = new PieceWindow();
    return forEachBounded(
      this.#pieces(pages),
      () => window.size,
      (piece) => this.#verify(piece, window),
      this.#signal,
    );
  }

  /** Pieces of what is to be looked at, until the budget is spent. */
  async *#pieces(pages: AsyncIterable<ScrubCopy[]>): AsyncGenerator<ScrubPiece> {
    for await (const page of pages) {
      for (const piece of cutPieces(page.filter((copy) => this.#isChosen(copy)))) {
        const copies = this.#affordable(piece.copies);
        if (copies.length > 0) yield { ...piece, copies };
        if (copies.length === piece.copies.length) continue;
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

  /** The copies that the budget still allows. What is under way counts, or many at once would spend it manifold. */
  #affordable(copies: readonly ScrubCopy[]): ScrubCopy[] {
    const { bytes = Infinity } = this.#options.budget ?? {};
    if (this.#timeLeftMs() <= 0) return [];
    const affordable: ScrubCopy[] = [];
    for (const copy of copies) {
      if (this.#promisedBytes >= bytes) break;
      this.#promisedBytes += copy.storedBytes;
      affordable.push(copy);
    }
    return affordable;
  }

  #timeLeftMs(): number {
    const { ms = Infinity } = this.#options.budget ?? {};
    return ms - (this.#repo.clock.monotonic() - this.#startedMs);
  }

  /** Has a piece looked at, again and again until nothing is left of it. */
  async #verify({ storage, bad, copies }: ScrubPiece, window: PieceWindow): Promise<void> {
    const tally = this.tally(storage);
    const { deep } = this.#options;
    let left = copies;
    let isOwn: boolean = false;
    while (left.length > 0 && tally.stopped === undefined) {
      this.#signal.throwIfAborted();
      const leftMs = this.#timeLeftMs();
      if (leftMs <= 0) {
        this.#budgetSpent = true;
        return;
      }
      const boundMs = Math.min(PIECE_MS, leftMs);
      const request = {
        scrub: this.#name,
        storage,
        bad,
        copies: left,
        deep,
        cycleMs: this.#cycleMs,
        boundMs,
      };
      const outcome: VerifyOutcome | undefined = isOwn
        ? await this.#own.verify(request, this.#signal)
        : await this.#askOthers(request, window);
      if (outcome !== undefined) this.#take(tally, left, outcome);
      const rest: readonly ScrubCopy[] =
        outcome === undefined ? left : left.filter((_, at) => outcome.left.includes(at));
      const isStuck = rest.length === left.length;
      if (isOwn) tally.stopped ??= outcome?.away;
      assert(!isOwn || !isStuck || tally.stopped !== undefined, "each look gets on");
      // Whom a storage is away for may be alone in that; and nobody need be there who can do more than others.
      isOwn = !isOwn && (isStuck || outcome?.away !== undefined);
      left = rest;
    }
  }

  /** Undefined where whoever took it could not do it. */
  async #askOthers(
    request: VerifyRequest,
    window: PieceWindow,
  ): Promise<VerifyOutcome | undefined> {
    const { clock, log } = this.#repo;
    const askedMs = clock.monotonic();
    try {
      const outcome = await this.#others.ask(request, this.#signal);
      window.answered(outcome.workMs, clock.monotonic() - askedMs);
      return outcome;
    } catch (error) {
      this.#signal.throwIfAborted();
      // One that is being stopped, has a defect, or is of another release. That a storage is suspect is everybody's business.
      if (!(error instanceof AshlarError) || error.code === ErrorCode.Refused) throw error;
      log.warn("a writer could not verify what it was given; it is done here", { error });
      return undefined;
    }
  }

  #take(tally: Tally, asked: readonly ScrubCopy[], outcome: VerifyOutcome): void {
    tally.checked += outcome.checked;
    tally.restored += outcome.restored;
    tally.bytes += outcome.bytes;
    this.#bytes += outcome.bytes;
    for (const { index, reason } of outcome.damaged) {
      const copy = asked[index];
      if (copy !== undefined) this.#remember(copy, reason);
    }
    this.#options.onProgress?.(this.#bytes);
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
    const reader = new ObjectReader(this.#repo);
    for (const storage of this.#storages) {
      const only = [...this.#found.values()]
        .filter(({ copy }) => copy.storage === storage)
        .map(({ copy }) => copy.id);
      if (only.length === 0) continue;
      const { signal } = this.#options;
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
