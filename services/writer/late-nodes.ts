// Nodes whose objects this writer has made durable at a storage that was slower than the quorum, before all that they name
// was placed there. They stay owed; this list only saves reading them back to place them.
import type { Repository } from "#lib/repository/repository.ts";
import { placeFilled, type FilledCopy } from "#lib/repository/transactions/fill.ts";

/** The largest number of nodes that are remembered; the others are found through the owed queue. */
const MAX = 10_000;

/** Late nodes of one writer. */
export class LateNodes {
  readonly #copies = new Map<string, FilledCopy>();

  /** Remembers a durable, unplaced copy. */
  add(copy: FilledCopy): void {
    if (this.#copies.size < MAX) this.#copies.set(`${copy.storage}/${copy.id}`, copy);
  }

  /** Places what can be placed now, children before parents: passes until nothing moves. */
  async place(repo: Repository): Promise<void> {
    for (let moved = true; moved;) {
      moved = false;
      for (const [at, copy] of this.#copies) {
        const outcome = await placeFilled(repo.kv, repo.clock.now(), copy);
        if (outcome === "children") continue;
        this.#copies.delete(at);
        moved = true;
      }
    }
  }
}
