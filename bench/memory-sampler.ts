/**
 * The memory of a tree of processes, watched from outside. What counts is RssAnon + RssShmem: memory
 * that the programs asked for. Mapped files (RssFile) are the page cache's and can be dropped.
 */
import { readdirSync, readFileSync } from "node:fs";

const SAMPLE_INTERVAL_MS = 50;
/** The tree is walked at every n-th sample only: with many threads the walk costs more than the sample. */
const WALK_EVERY = 5;

/** The moment at which the tree held most. */
export interface MemoryPeak {
  readonly bytes: number;
  readonly anonBytes: number;
  readonly sharedBytes: number;
  readonly processes: number;
  readonly samples: number;
}

function readOrEmpty(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // The process ended between two looks.
    return "";
  }
}

function childrenOf(pid: number): number[] {
  let threads: string[];
  try {
    threads = readdirSync(`/proc/${pid}/task`);
  } catch {
    return [];
  }
  return threads.flatMap((thread) =>
    readOrEmpty(`/proc/${pid}/task/${thread}/children`)
      .split(" ")
      .filter((text) => text !== "")
      .map(Number),
  );
}

/** A process and all that descends from it, as far as it still has its parents. */
function treeOf(root: number): number[] {
  const tree = [root];
  for (const pid of tree) tree.push(...childrenOf(pid));
  return tree;
}

function kibibytes(status: string, field: string): number {
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, "m").exec(status)?.[1] ?? 0);
}

/** Watches one tree from `start` to `stop`. */
export class MemorySampler {
  readonly #root: number;
  readonly #timer: NodeJS.Timeout;
  #tree: number[];
  #samples = 0;
  #peak: MemoryPeak = { bytes: 0, anonBytes: 0, sharedBytes: 0, processes: 0, samples: 0 };

  constructor(root: number) {
    this.#root = root;
    this.#tree = [root];
    this.#timer = setInterval(() => this.#sample(), SAMPLE_INTERVAL_MS);
  }

  #sample(): void {
    if (this.#samples % WALK_EVERY === 0) this.#tree = treeOf(this.#root);
    this.#samples += 1;
    let anonBytes = 0;
    let sharedBytes = 0;
    for (const pid of this.#tree) {
      const status = readOrEmpty(`/proc/${pid}/status`);
      anonBytes += kibibytes(status, "RssAnon") * 1024;
      sharedBytes += kibibytes(status, "RssShmem") * 1024;
    }
    const bytes = anonBytes + sharedBytes;
    if (bytes <= this.#peak.bytes) return;
    this.#peak = { bytes, anonBytes, sharedBytes, processes: this.#tree.length, samples: 0 };
  }

  /** Ends the watch and tells the peak. */
  stop(): MemoryPeak {
    clearInterval(this.#timer);
    return { ...this.#peak, samples: this.#samples };
  }
}
