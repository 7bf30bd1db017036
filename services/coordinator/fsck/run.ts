// What all checks of fsck share: walking ranges in bounded steps, confirming what looks wrong in one transaction before it
// is reported (other processes work meanwhile), and repairing it there.
import type { KvEntry, KvReader, KvTransaction } from "#lib/ports/kv.ts";
import { keyAfter, type KeyRange } from "#lib/repository/keyspace.ts";
import type { Repository } from "#lib/repository/repository.ts";

/** What a finding breaks. */
export type FsckInvariant =
  /** I1: what a placed node names is at the same storage; a valid version has its root at a quorum. */
  | "closure"
  /** I2: reference records equal those that nodes, versions and holds make. */
  | "references"
  /** A node's plaintext is what its id says. */
  | "nodes"
  /** Damaged and invalid are marked exactly where there is damage. */
  | "marks"
  /** Queues equal what records say, and nothing unreferenced is forgotten. */
  | "queues"
  /** A record can be read and makes sense. */
  | "records"
  /** Versions, their index and their sessions fit. */
  | "versions"
  /** Holds and claims belong to sessions. */
  | "sessions"
  /** I3: trash names nothing that a record names. */
  | "trash"
  /** Heads and stamps that the metadata know fit the versions and what the storage shows. */
  | "heads"
  /** I3, I4: what is placed is on the storage. */
  | "objects"
  /** A rebuild did not come to its end. */
  | "rebuild";

/** Something that is not as it must be. */
export interface FsckFinding {
  readonly invariant: FsckInvariant;
  /** What is wrong, as a clause for people. */
  readonly what: string;
  /** Which record, object or version. */
  readonly where: string;
  readonly repaired: boolean;
}

/** A finding before it is reported; `repair` reads again what it changes, in the same transaction. */
export interface Problem {
  readonly invariant: FsckInvariant;
  readonly what: string;
  readonly where: string;
  readonly repair?: (tx: KvTransaction) => Promise<void>;
}

/** Looks at one thing, with all that it depends on, at one point in time. */
export type Check = (reader: KvReader) => Promise<readonly Problem[]>;

/** How many of each there are. */
export interface FsckCounts {
  readonly blocks: number;
  readonly nodes: number;
  readonly references: number;
  readonly versions: number;
  readonly sessions: number;
  readonly queued: number;
  /** Records marked as damaged, and versions that are invalid therefore: known damage is no finding. */
  readonly damaged: number;
  readonly invalidVersions: number;
  /** Objects listed at the storages, and those among them that no record names: `gc --sweep` takes them away. */
  readonly objects: number;
  readonly orphans: number;
}

/** How fsck is watched and stopped. */
export interface FsckOptions {
  /** Mend what can be mended without touching good data. */
  readonly repair?: boolean;
  /** Also list the storages and compare. */
  readonly storages?: boolean;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: FsckProgress) => void;
}

/** Where fsck is. */
export interface FsckProgress {
  /** What is looked at, as a word for people. */
  readonly phase: string;
  /** Things of this phase that were looked at. */
  readonly done: number;
}

/** More findings than these are only counted: someone has to look at the cause, not at each. */
const FINDINGS_MAX = 1000;

/** One run of fsck. */
export class FsckRun {
  readonly repo: Repository;
  readonly options: FsckOptions;
  readonly findings: FsckFinding[] = [];
  readonly counts: { -readonly [Name in keyof FsckCounts]: number } = {
    blocks: 0,
    nodes: 0,
    references: 0,
    versions: 0,
    sessions: 0,
    queued: 0,
    damaged: 0,
    invalidVersions: 0,
    objects: 0,
    orphans: 0,
  };
  findingCount = 0;
  unrepairedCount = 0;

  constructor(repo: Repository, options: FsckOptions) {
    this.repo = repo;
    this.options = options;
  }

  get repairs(): boolean {
    return this.options.repair === true;
  }

  /** The entries of a range, page by page; `visit` sees the same point in time as its page. */
  async pages<T>(
    phase: string,
    { start, end }: KeyRange,
    limit: number,
    visit: (reader: KvReader, entries: readonly KvEntry[]) => Promise<T>,
    then?: (visited: T) => Promise<void>,
  ): Promise<void> {
    let from = start;
    for (let done = 0; ;) {
      this.options.signal?.throwIfAborted();
      const at = from;
      const page = await this.repo.kv.read(async (reader) => {
        const entries = await reader.range({ start: at, end, limit });
        return { entries, visited: await visit(reader, entries) };
      });
      await then?.(page.visited);
      done += page.entries.length;
      this.options.onProgress?.({ phase, done });
      const last = page.entries.at(-1);
      if (last === undefined || page.entries.length < limit) return;
      from = keyAfter(last.key);
    }
  }

  /** Runs a check on each entry of a range, and confirms those that found something. */
  async checkAll(
    phase: string,
    within: KeyRange,
    limit: number,
    checkOf: (entry: KvEntry) => Check,
  ): Promise<void> {
    await this.pages(
      phase,
      within,
      limit,
      async (reader, entries) => {
        const checks = entries.map(checkOf);
        const problems = await Promise.all(checks.map((check) => check(reader)));
        return checks.filter((_, index) => (problems[index] ?? []).length > 0);
      },
      async (suspicious) => {
        for (const check of suspicious) await this.confirm(check);
      },
    );
  }

  /** Runs a check in a transaction of its own, repairs what it finds there, and reports. */
  async confirm(check: Check): Promise<void> {
    const { repairs } = this;
    const problems = await this.repo.kv.transact(
      async (tx) => {
        const found = await check(tx);
        if (repairs) for (const problem of found) await problem.repair?.(tx);
        return found;
      },
      { label: "free:fsck" },
    );
    for (const { repair, ...problem } of problems) {
      this.report({ ...problem, repaired: repairs && repair !== undefined });
    }
  }

  /** Adds a finding to the result. */
  report(finding: FsckFinding): void {
    this.findingCount += 1;
    if (!finding.repaired) this.unrepairedCount += 1;
    if (this.findings.length < FINDINGS_MAX) this.findings.push(finding);
  }
}

/** The range over all values of an 8-byte id that stands first in a key. */
export function wholeRange<Id extends string>(of: (id: Id) => KeyRange): KeyRange {
  return { start: of("0".repeat(16) as Id).start, end: of("f".repeat(16) as Id).end };
}
