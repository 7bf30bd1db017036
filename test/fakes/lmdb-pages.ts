// Looks at an LMDB data file page by page: every page has at most one owner, and none that is free is in use.
// The lmdb module's own layout: 24-byte page headers, offsets counted from behind them, runs in the lists of free pages.

/** What is in a data file. */
export interface PageReport {
  /** Empty when the file is sound. */
  readonly problems: readonly string[];
  readonly entries: number;
  readonly pagesUsed: number;
  readonly pagesFree: number;
  /** Neither in use nor free: lost until the store is copied. Harmless. */
  readonly pagesLost: number;
}

const HEADER = 24;
const Flag = { branch: 1, leaf: 2, overflow: 4 } as const;
const BIG_DATA = 1;
const NO_PAGE = 0xffff_ffff_ffff_ffffn;

/**
 * Checks a whole data file that nobody writes at the moment.
 * @param meta an older meta structure to begin from: then no page may be newer than it either
 */
export function checkPages(file: Buffer, meta?: Buffer): PageReport {
  return new PageCheck(file).run(meta);
}

class PageCheck {
  readonly #file: Buffer;
  readonly #pageSize: number;
  readonly #problems: string[] = [];
  readonly #owner = new Map<number, string>();
  #entries = 0;
  #txnIdMax = 0n;

  constructor(file: Buffer) {
    this.#file = file;
    this.#pageSize = file.readUInt32LE(HEADER + 24);
  }

  run(older: Buffer | undefined): PageReport {
    const metas = [0, 1].map((index) => this.#file.subarray(index * this.#pageSize + HEADER));
    const txnOf = (meta: Buffer): bigint => meta.readBigUInt64LE(128);
    const [first, second] = metas as [Buffer, Buffer];
    const meta = older ?? (txnOf(first) >= txnOf(second) ? first : second);
    this.#txnIdMax = txnOf(meta);
    const lastPage = Number(meta.readBigUInt64LE(120));
    this.#owner.set(0, "meta").set(1, "meta");
    this.#tree(meta.readBigUInt64LE(24 + 40), lastPage, "free");
    this.#tree(meta.readBigUInt64LE(72 + 40), lastPage, "data");
    const pagesFree = [...this.#owner.values()].filter((owner) => owner === "list").length;
    return {
      problems: this.#problems,
      entries: this.#entries,
      pagesUsed: this.#owner.size - pagesFree,
      pagesFree,
      pagesLost: lastPage + 1 - this.#owner.size,
    };
  }

  #tree(root: bigint, lastPage: number, name: string): void {
    if (root === NO_PAGE) return;
    const pages = [Number(root)];
    for (let page = pages.pop(); page !== undefined; page = pages.pop()) {
      if (!this.#own(page, 1, lastPage, name)) continue;
      const bytes = this.#file.subarray(page * this.#pageSize, (page + 1) * this.#pageSize);
      const flags = bytes.readUInt16LE(18);
      const nodes = this.#nodes(bytes);
      if ((flags & Flag.branch) !== 0) {
        for (const node of nodes) pages.push(node.readUInt32LE(0) + node.readUInt16LE(4) * 2 ** 32);
      } else if ((flags & Flag.leaf) !== 0) {
        for (const node of nodes) this.#leafNode(node, lastPage, name);
      } else {
        this.#problems.push(`page ${page} of ${name} is neither branch nor leaf`);
      }
    }
  }

  #nodes(page: Buffer): Buffer[] {
    const count = page.readUInt16LE(20) >> 1;
    return Array.from({ length: count }, (_, index) =>
      page.subarray(HEADER + page.readUInt16LE(HEADER + index * 2)),
    );
  }

  #leafNode(node: Buffer, lastPage: number, name: string): void {
    const [dataSize, flags, keySize] = [
      node.readUInt32LE(0),
      node.readUInt16LE(4),
      node.readUInt16LE(6),
    ];
    let data = node.subarray(8 + keySize);
    if ((flags & BIG_DATA) !== 0) {
      const [page, count] = [Number(data.readBigUInt64LE(0)), Number(data.readBigUInt64LE(16))];
      if (!this.#own(page, count, lastPage, `${name} overflow`)) return;
      data = this.#file.subarray(page * this.#pageSize + HEADER);
    }
    if (name === "data") this.#entries++;
    else this.#freeList(data.subarray(0, dataSize), lastPage);
  }

  /** A count, then pages; a negative number -N before a page stands for N pages from there; 0 stands for nothing. */
  #freeList(data: Buffer, lastPage: number): void {
    const count = Number(data.readBigInt64LE(0));
    for (let index = 1; index <= count; index++) {
      let run = 1;
      let page = Number(data.readBigInt64LE(index * 8));
      if (page < 0) {
        run = -page;
        index++;
        page = index <= count ? Number(data.readBigInt64LE(index * 8)) : 0;
      }
      if (page > 0) this.#own(page, run, lastPage, "list");
    }
  }

  #own(page: number, count: number, lastPage: number, name: string): boolean {
    let sound = true;
    for (let each = page; each < page + count; each++) {
      const before = this.#owner.get(each);
      if (each > lastPage) this.#problems.push(`page ${each} of ${name} is behind the last one`);
      else if (before === undefined) this.#owner.set(each, name);
      else this.#problems.push(`page ${each} belongs to ${before} and to ${name}`);
      sound &&= each <= lastPage && before === undefined;
    }
    const isInUse = name !== "list";
    if (
      sound &&
      isInUse &&
      this.#file.readBigUInt64LE(page * this.#pageSize + 8) > this.#txnIdMax
    ) {
      this.#problems.push(`page ${page} of ${name} was overwritten later`);
      return false;
    }
    return sound;
  }
}
