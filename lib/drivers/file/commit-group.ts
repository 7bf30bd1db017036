// Group commit: changes that wait at the same moment become durable together. First the contents of all new files are
// flushed, then they get their names, then the folders with the names are flushed. While a group is under way the next
// one gathers, so the busier it is, the larger the groups: nobody waits for company.
import type { Flusher, FlushOutcome } from "./flusher.ts";
import { closeFile } from "./file-calls.ts";

/** A change to the storage. */
export interface Change {
  /** A new file whose contents have to be flushed first; closed here. */
  readonly fd?: number | undefined;
  /** Makes the change, and gives the folders that have to be flushed for it. */
  apply(): Promise<readonly string[]>;
}

interface Member {
  readonly change: Change;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** A member that is still good, with its folders. */
interface Applied {
  readonly member: Member;
  readonly folders: readonly string[];
}

/** The largest group. */
const GROUP_COUNT_MAX = 256;
/** Groups under way at once: while one waits for the disk the other one works. */
const GROUPS_MAX = 2;

/** Makes changes durable in groups. */
export class CommitGroup {
  readonly #flusher: Pick<Flusher, "files" | "folders">;
  readonly #verify: () => Promise<void>;
  #waiting: Member[] = [];
  #running = 0;

  /** @param verify throws when what was done cannot count, since the storage is not there any more */
  constructor(flusher: Pick<Flusher, "files" | "folders">, verify: () => Promise<void>) {
    this.#flusher = flusher;
    this.#verify = verify;
  }

  /** Resolves when the change is durable. */
  commit(change: Change): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ change, resolve, reject });
    this.#start();
    return promise;
  }

  #start(): void {
    if (this.#running >= GROUPS_MAX || this.#waiting.length === 0) return;
    const group = this.#waiting.slice(0, GROUP_COUNT_MAX);
    this.#waiting = this.#waiting.slice(GROUP_COUNT_MAX);
    this.#running += 1;
    void this.#run(group);
  }

  async #run(group: readonly Member[]): Promise<void> {
    try {
      const flushed = await this.#flushContents(group);
      const applied = await applyAll(flushed);
      const durable = await this.#flushFolders(applied);
      if (durable.length > 0) await this.#verify();
      for (const { resolve } of durable) resolve();
    } catch (error) {
      // Those that have their answer already do not mind another one.
      for (const { reject } of group) reject(error);
    } finally {
      this.#running -= 1;
      this.#start();
    }
  }

  async #flushContents(group: readonly Member[]): Promise<Member[]> {
    const fds = group.map(({ change }) => change.fd).filter((fd) => fd !== undefined);
    let outcomes: FlushOutcome[];
    try {
      outcomes = await this.#flusher.files(fds);
    } finally {
      await Promise.all(fds.map((fd) => closeFile(fd).catch(() => undefined)));
    }
    const byFd = new Map(fds.map((fd, index) => [fd, outcomes[index]]));
    return group.filter(({ change, reject }) => {
      const failure = change.fd === undefined ? undefined : byFd.get(change.fd);
      if (failure !== undefined) reject(failure);
      return failure === undefined;
    });
  }

  async #flushFolders(applied: readonly Applied[]): Promise<Member[]> {
    const paths = [...new Set(applied.flatMap(({ folders }) => folders))];
    const outcomes = await this.#flusher.folders(paths);
    const failures = new Map(paths.map((path, index) => [path, outcomes[index]]));
    return applied.flatMap(({ member, folders }) => {
      const failed = folders.find((folder) => failures.get(folder) !== undefined);
      if (failed === undefined) return [member];
      member.reject(failures.get(failed));
      return [];
    });
  }
}

async function applyAll(members: readonly Member[]): Promise<Applied[]> {
  const results = await Promise.all(
    members.map(async (member) => {
      try {
        return { member, folders: await member.change.apply() };
      } catch (error) {
        member.reject(error);
        return undefined;
      }
    }),
  );
  return results.filter((result) => result !== undefined);
}
