// Whose turn it is to put (DESIGN §4.7). Nobody knows beforehand which put will hang, and one that has begun keeps the memory
// that it reads. So the requests that may have begun puts at a storage are bounded: whichever storages beyond the quorum hang,
// slots remain for everything else.
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";

/** One request to put: what its puts have in common. */
export class PutHolder {
  /** Requests that may have begun puts at one storage while this one begins its own. */
  readonly requestsMax: number;
  /** It was answered; what is left of it goes on without anybody waiting for it. */
  late = false;

  /** `spare`: storages that its quorum does not need. */
  constructor(turns: PutTurns, spare: number) {
    this.requestsMax = spare === 0 ? Infinity : Math.max(1, Math.floor(turns.lateSlotsMax / spare));
  }
}

interface Waiter {
  readonly holder: PutHolder;
  readonly begin: () => void;
  readonly giveUp: () => void;
}

/** The puts at one storage: how many each request has begun, and those that wait for their turn. */
interface AtStorage {
  readonly begun: Map<PutHolder, number>;
  waiters: Waiter[];
}

/** The turns of one writer. */
export class PutTurns {
  /** Slots that late puts may hold: all but a quarter, and all but two. */
  readonly lateSlotsMax: number;
  readonly #storages = new Map<StorageId, AtStorage>();

  constructor(slotCount: number) {
    this.lateSlotsMax = Math.max(1, slotCount - Math.max(2, Math.floor(slotCount / 4)));
  }

  /** Runs a put when it is its turn; Unavailable when it was given up before. */
  async run(storage: StorageId, holder: PutHolder, put: () => Promise<void>): Promise<void> {
    const at = this.#at(storage);
    await this.#begin(at, holder);
    try {
      await put();
    } finally {
      this.#end(at, holder);
    }
  }

  /** All turns at the storage are held by puts that nobody waits for any more: it cannot keep up. */
  isBehind(storage: StorageId): boolean {
    const { begun } = this.#at(storage);
    return begun.size > 0 && [...begun.keys()].every(({ late }) => late);
  }

  /** A request was answered: what it has begun is late, and what waits for its turn is given up. */
  leave(holder: PutHolder): void {
    holder.late = true;
    for (const at of this.#storages.values()) {
      const mine = at.waiters.filter((waiter) => waiter.holder === holder);
      if (mine.length === 0) continue;
      at.waiters = at.waiters.filter((waiter) => waiter.holder !== holder);
      for (const { giveUp } of mine) giveUp();
    }
  }

  #at(storage: StorageId): AtStorage {
    let at = this.#storages.get(storage);
    if (at === undefined) {
      at = { begun: new Map(), waiters: [] };
      this.#storages.set(storage, at);
    }
    return at;
  }

  async #begin(at: AtStorage, holder: PutHolder): Promise<void> {
    if (mayBegin(at, holder)) {
      hold(at, holder);
      return;
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const giveUp = (): void =>
      reject(new AshlarError(ErrorCode.Unavailable, "it is slower than the other storages"));
    at.waiters.push({ holder, begin: resolve, giveUp });
    await promise;
  }

  #end(at: AtStorage, holder: PutHolder): void {
    const count = at.begun.get(holder);
    assert(count !== undefined, "a put that ends has begun");
    if (count > 1) {
      at.begun.set(holder, count - 1);
      return;
    }
    at.begun.delete(holder);
    at.waiters = at.waiters.filter((waiter) => {
      if (!mayBegin(at, waiter.holder)) return true;
      hold(at, waiter.holder);
      waiter.begin();
      return false;
    });
  }
}

function mayBegin({ begun }: AtStorage, holder: PutHolder): boolean {
  return begun.has(holder) || begun.size < holder.requestsMax;
}

function hold({ begun }: AtStorage, holder: PutHolder): void {
  begun.set(holder, (begun.get(holder) ?? 0) + 1);
}
