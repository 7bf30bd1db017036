// Verifying copies, a piece of a scrub at a time (DESIGN §4.8): what a writer, or any other process that reaches the storages, does
// with a request of this kind. It may come twice, late, or to two processes at once: the marks in the records say what was done.
import { ErrorCode, isErrorCode, AshlarError } from "#lib/core/errors.ts";
import type { BlockId, Generation, StorageId } from "#lib/core/ids.ts";
import { Semaphore } from "#lib/core/semaphore.ts";
import type { BlockRecord, Copy } from "#lib/repository/block-record.ts";
import { objectName } from "#lib/repository/keyspace.ts";
import { canOpen } from "#lib/repository/keys.ts";
import { readBlock, readBlocks } from "#lib/repository/ledger.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { drainRechecks } from "#lib/repository/transactions/recheck.ts";
import { markAllVerified, markBad, type JudgedCopy } from "#lib/repository/transactions/verify.ts";
import { asAway } from "./away.ts";
import { forEachBounded } from "./bounded.ts";
import { ensureGuarded } from "./guard.ts";
import { renewCopy } from "./renew.ts";
import { ObjectReader, type ObjectCopy, type Verdict } from "./object-reader.ts";

/** Copies to look at, in this order; what the fields mean stands with the message (proto/messages.ts). */
export interface VerifyRequest {
  readonly scrub: string;
  readonly storage: StorageId;
  readonly copies: readonly { readonly id: BlockId; readonly generation: Generation }[];
  readonly bad: boolean;
  readonly deep: boolean;
  readonly cycleMs: number;
  readonly boundMs: number;
}

/** What came of it. */
export interface VerifyOutcome {
  /** Which copies were not looked at, ascending. */
  readonly left: readonly number[];
  readonly checked: number;
  readonly bytes: number;
  readonly restored: number;
  readonly damaged: readonly { readonly index: number; readonly reason: string }[];
  readonly away: AshlarError | undefined;
  readonly workMs: number;
}

/** Pieces that one process works on at once: they share the memory of one reader, which is never idle between two of them. */
export const PIECES_AT_ONCE = 4;
/** Records are read for so many copies at a time, right before their objects are: another process may have looked at them. */
const RECORDS_STEP = 64;
const VERIFIED_BATCH = 64;
/** Existence and size are asked for so many objects at once. */
const SHALLOW_PARALLEL = 16;
/** The reader's memory is given back when nothing came for so long, in ms. */
const IDLE_MS = 10_000;
const FOUND_BEFORE = "it was found damaged before";

/** What all pieces of one process share. */
interface Tools {
  readonly reader: ObjectReader;
  /** Batches that are looked at at once: what waits for its turn has not begun, and can be left when time is up. */
  readonly turns: Semaphore;
}

function toolsOf(repo: Repository): Tools {
  const reader = new ObjectReader(repo, { yields: true });
  return { reader, turns: new Semaphore(Math.max(reader.concurrency, SHALLOW_PARALLEL)) };
}

/** Verifies for one process. */
export class Verifier {
  readonly #repo: Repository;
  readonly #places = new Semaphore(PIECES_AT_ONCE);
  readonly #stopped = new AbortController();
  #tools: Tools | undefined;
  #working = 0;
  #idle = new AbortController();

  constructor(repo: Repository) {
    this.#repo = repo;
  }

  /** Looks at copies. Refused when the storage and the metadata do not know each other. */
  verify(request: VerifyRequest, signal?: AbortSignal): Promise<VerifyOutcome> {
    const { signal: stopped } = this.#stopped;
    const until = signal === undefined ? stopped : AbortSignal.any([stopped, signal]);
    return this.#places.run(async () => {
      this.#idle.abort();
      this.#working += 1;
      const tools = (this.#tools ??= toolsOf(this.#repo));
      try {
        return await new Piece(this.#repo, tools, request, until).run();
      } finally {
        this.#working -= 1;
        if (this.#working === 0) void this.#giveBack();
      }
    }, until);
  }

  /** Ends what is under way; what was verified is kept. */
  stop(): void {
    this.#stopped.abort(new AshlarError(ErrorCode.Cancelled, "the process is stopping"));
    this.#idle.abort();
  }

  async #giveBack(): Promise<void> {
    if (this.#stopped.signal.aborted) return;
    const { signal } = (this.#idle = new AbortController());
    await this.#repo.clock.sleep(IDLE_MS, signal).catch(() => undefined);
    if (!signal.aborted) this.#tools = undefined;
  }
}

/** A copy that is to be looked at. */
interface Chosen extends ObjectCopy {
  readonly index: number;
  readonly isBad: boolean;
  readonly storedBytes: number;
}

class Piece {
  readonly #repo: Repository;
  readonly #tools: Tools;
  readonly #request: VerifyRequest;
  readonly #signal: AbortSignal;
  readonly #startedMs: number;
  readonly #left: Set<number>;
  readonly #damaged: { index: number; reason: string }[] = [];
  #verified: JudgedCopy[] = [];
  #checked = 0;
  #bytes = 0;
  #restored = 0;
  #away: AshlarError | undefined;
  #hasBegun = false;
  #isRecheckDue = false;

  constructor(repo: Repository, tools: Tools, request: VerifyRequest, signal: AbortSignal) {
    this.#repo = repo;
    this.#tools = tools;
    this.#request = request;
    this.#signal = signal;
    this.#startedMs = repo.clock.monotonic();
    this.#left = new Set(request.copies.keys());
  }

  async run(): Promise<VerifyOutcome> {
    const { storage, deep } = this.#request;
    const { away } = await ensureGuarded(this.#repo, [storage], this.#signal);
    this.#away = away[0]?.error;
    const parallel = deep ? this.#tools.reader.concurrency : SHALLOW_PARALLEL;
    try {
      await forEachBounded(
        this.#batches(),
        parallel,
        (batch) => this.#tools.turns.run(() => this.#check(batch), this.#signal),
        this.#signal,
      );
    } finally {
      await this.#flushVerified();
      // Marks of damage reach the versions whatever becomes of the scrub that this is a piece of.
      if (this.#isRecheckDue) await drainRechecks(this.#repo.kv);
    }
    return {
      left: [...this.#left],
      checked: this.#checked,
      bytes: this.#bytes,
      restored: this.#restored,
      damaged: this.#damaged,
      away: this.#away,
      workMs: this.#repo.clock.monotonic() - this.#startedMs,
    };
  }

  /** Time is up; one batch is looked at in any case, so that whoever asks again gets on. */
  get #isOver(): boolean {
    if (this.#away !== undefined) return true;
    const tookMs = this.#repo.clock.monotonic() - this.#startedMs;
    return this.#hasBegun && tookMs >= this.#request.boundMs;
  }

  async *#batches(): AsyncGenerator<Chosen[]> {
    const { copies, deep } = this.#request;
    for (let from = 0; from < copies.length; from += RECORDS_STEP) {
      const chosen = await this.#choose(from);
      const { reader } = this.#tools;
      for (const batch of deep ? reader.batches(chosen) : chosen.map((copy) => [copy])) {
        if (this.#isOver) return;
        yield batch;
      }
    }
  }

  async #check(batch: readonly Chosen[]): Promise<void> {
    if (this.#isOver) return;
    this.#hasBegun = true;
    if (this.#request.deep) await this.#checkDeep(batch);
    else await this.#checkShallow(batch[0] as Chosen);
  }

  /** What a look at the records does not settle already. */
  async #choose(from: number): Promise<Chosen[]> {
    const step = this.#request.copies.slice(from, from + RECORDS_STEP);
    const ids = step.map(({ id }) => id);
    const records = await this.#repo.kv.read((reader) => readBlocks(reader, ids));
    const chosen: Chosen[] = [];
    for (const [at, { id, generation }] of step.entries()) {
      const record = records[at];
      const copy = record?.copies.find((other) => this.#isNamed(other, generation));
      const index = from + at;
      if (record !== undefined && copy !== undefined && !this.#isSettled(index, record, copy)) {
        const { kind, plainBytes, storedBytes } = record;
        const { storage } = this.#request;
        const isBad = copy.state === "bad";
        chosen.push({ index, isBad, id, kind, storage, generation, plainBytes, storedBytes });
      } else this.#left.delete(index);
    }
    return chosen;
  }

  #isNamed(copy: Copy, generation: Generation): boolean {
    return copy.storage === this.#request.storage && copy.generation === generation;
  }

  #isSettled(index: number, { storedBytes }: BlockRecord, copy: Copy): boolean {
    const { bad, deep, cycleMs } = this.#request;
    // A checksum without a key is no proof against a verdict with one.
    if (copy.state === "bad" && deep && bad && canOpen(this.#repo.keys)) return false;
    if (copy.state === "bad") this.#damaged.push({ index, reason: FOUND_BEFORE });
    // Otherwise than it was when it was chosen: an earlier try of this piece, most likely, whose answer was lost. It counts here.
    if (copy.state === "bad" && !bad) this.#checked += 1;
    if (copy.state !== "placed") return true;
    if (!deep || copy.verifiedMs < cycleMs) return false;
    this.#count(storedBytes);
    if (bad) this.#restored += 1;
    return true;
  }

  async #checkShallow(copy: Chosen): Promise<void> {
    const name = objectName(copy.kind, copy.id, copy.generation);
    try {
      const { sizeBytes } = await this.#repo.storages.store(copy.storage).stat(name);
      // Another size than the record's is no proof: copies may have been sealed apart. Then opening tells.
      if (sizeBytes !== copy.storedBytes) return await this.#checkDeep([copy]);
      this.#left.delete(copy.index);
      this.#count(sizeBytes);
    } catch (error) {
      this.#signal.throwIfAborted();
      if (isErrorCode(error, ErrorCode.NotFound)) await this.#judgeBad(copy, "it is missing");
      else this.#away ??= asAway(error);
    }
  }

  async #checkDeep(batch: readonly Chosen[]): Promise<void> {
    const work = async (verdicts: readonly Verdict[]): Promise<void> => {
      for (const [at, copy] of batch.entries()) await this.#judge(copy, verdicts[at] as Verdict);
    };
    await this.#tools.reader.read(batch, work, this.#signal);
  }

  async #judge(copy: Chosen, verdict: Verdict): Promise<void> {
    switch (verdict.kind) {
      case "away":
        this.#away ??= verdict.error;
        return;
      case "bad":
        return this.#judgeBad(copy, verdict.reason);
      case "good":
        this.#left.delete(copy.index);
        if (copy.isBad) {
          this.#restored += 1;
          this.#isRecheckDue = true;
        }
        this.#count(verdict.sealed.length);
        if (await this.#renew(copy, verdict.sealed)) return;
        this.#verified.push(copy);
        if (this.#verified.length >= VERIFIED_BATCH) await this.#flushVerified();
    }
  }

  /**
   * What lies under a retired repository key is put anew under the active one (DESIGN §5), while it is at hand; it counts as
   * verified then. What cannot be put now is good as it is, and comes again in the next cycle.
   */
  async #renew(copy: Chosen, sealed: Uint8Array): Promise<boolean> {
    if (copy.isBad) return false;
    const { sealer, telemetry, storages, log } = this.#repo;
    const renewed = sealer.renew(sealed);
    if (renewed === undefined) return false;
    const storage = storages.nameOf(copy.storage);
    try {
      const counts = await renewCopy(
        this.#repo,
        copy,
        renewed,
        this.#request.cycleMs,
        this.#signal,
      );
      if (counts) telemetry.count("ashlar.copies.renewed", 1, { storage });
      return counts;
    } catch (error) {
      this.#signal.throwIfAborted();
      if (!(error instanceof AshlarError)) throw error;
      log.warn("an object under a retired key could not be put anew", { storage, error });
      return false;
    }
  }

  #count(bytes: number): void {
    this.#checked += 1;
    this.#bytes += bytes;
  }

  async #flushVerified(): Promise<void> {
    while (this.#verified.length > 0) {
      const batch = this.#verified.splice(0, VERIFIED_BATCH);
      const nowMs = Math.max(this.#request.cycleMs, this.#repo.clock.now());
      await markAllVerified(this.#repo.kv, nowMs, batch);
    }
  }

  /** The transaction reads the record again: a copy that was replaced or removed meanwhile is no damage. */
  async #judgeBad(copy: Chosen, reason: string): Promise<void> {
    const { kv, random, telemetry, storages } = this.#repo;
    const isMarked = !copy.isBad && (await markBad(kv, random, copy));
    const storage = storages.nameOf(copy.storage);
    if (isMarked) {
      telemetry.count("ashlar.copies.bad", 1, { storage });
      this.#isRecheckDue = true;
    }
    // Another process may have marked it just now, and its answer may be lost.
    if (isMarked || (await this.#isBad(copy))) this.#damaged.push({ index: copy.index, reason });
    this.#left.delete(copy.index);
    this.#checked += 1;
  }

  async #isBad({ id, generation }: Chosen): Promise<boolean> {
    const record = await this.#repo.kv.read((reader) => readBlock(reader, id));
    return record?.copies.find((copy) => this.#isNamed(copy, generation))?.state === "bad";
  }
}
