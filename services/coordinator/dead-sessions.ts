// Noticing sessions whose process is gone, and ending those that nobody will resume (DESIGN §4.6).
import type { SessionId } from "#lib/core/ids.ts";
import {
  endSession,
  listSessions,
  markDead,
  settleStep,
  type SessionEntry,
} from "#lib/repository/transactions/session.ts";
import type { CoordinatorContext } from "./context.ts";

/** Records as dead every live session whose owner is gone; returns all sessions as they are now. */
export async function noticeDead(context: CoordinatorContext): Promise<SessionEntry[]> {
  const { repo } = context;
  const out: SessionEntry[] = [];
  for (const entry of await listSessions(repo.kv)) {
    const { record, session } = entry;
    if (record.state !== "live" || context.isOwnerAlive(entry)) {
      out.push(entry);
      continue;
    }
    // It died when it was last heard of, however long nobody has noticed.
    const endedMs = Math.min(repo.clock.now(), Math.max(entry.heartbeatMs, record.startedMs));
    await markDead(repo.kv, session, record.token, endedMs);
    out.push({ ...entry, record: { ...record, state: "dead", endedMs } });
  }
  return out;
}

/** Settles an ended session to its end. */
export async function settle(context: CoordinatorContext, session: SessionId): Promise<void> {
  while (await settleStep(context.repo.kv, context.repo.random, session));
}

/** Ends and settles the dead sessions that `which` picks; returns how many. */
export async function endDead(
  context: CoordinatorContext,
  sessions: readonly SessionEntry[],
  which: (entry: SessionEntry) => boolean,
): Promise<number> {
  let ended = 0;
  for (const entry of sessions) {
    const { state } = entry.record;
    if (state === "live" || (state === "dead" && !which(entry))) continue;
    if (state === "dead")
      await endSession(context.repo.kv, entry.session, undefined, context.repo.clock.now());
    await settle(context, entry.session);
    ended += 1;
  }
  return ended;
}
