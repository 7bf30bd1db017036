// Heads after a change: versions that were labelled, protected or removed are told to the storages at once, as far as those
// are there. What could not be put stays owed.
import type { Engine } from "./compose.ts";
import { ensureGuarded } from "#services/writer/guard.ts";
import { putOwedHeads } from "#services/writer/heads.ts";

/**
 * Before a change: opens the keys, so that a wrong one shows now, and looks whether storages and metadata know each other.
 * Refused where they do not (DESIGN §4.10).
 */
export async function prepareChange(engine: Engine): Promise<void> {
  const repo = await engine.repository();
  const ids = repo.storages.list().map(({ id }) => id);
  await ensureGuarded(repo, ids, engine.context.signal);
}

/** After a change: puts the heads that are owed; answers how many stay owed, and warns of each storage with the reason. */
export async function putHeadsNow(engine: Engine): Promise<number> {
  const repo = await engine.repository();
  const outcomes = await putOwedHeads(repo, { signal: engine.context.signal });
  let owed = 0;
  for (const outcome of outcomes) {
    owed += outcome.owed;
    if (outcome.owed === 0) continue;
    engine.context.log.warn(
      `storage ${engine.nameOf(outcome.storage)} is owed ${outcome.owed} heads: ${outcome.reason ?? "later"}`,
    );
  }
  return owed;
}
