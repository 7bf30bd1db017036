// Checks of sessions: whatever a session leaves behind can be found by its end, which goes through its claims and holds.
import type { BlockId, SessionId } from "#lib/core/ids.ts";
import type { KvTransaction } from "#lib/ports/kv.ts";
import { key, parse, range, type KeyRange } from "#lib/repository/keyspace.ts";
import { hasReference, queueUnreferenced } from "#lib/repository/ledger.ts";
import type { SessionRecord } from "#lib/repository/records.ts";
import { dropEntry, dropReference } from "./repair.ts";
import { wholeRange, type Check, type FsckRun, type Problem } from "./run.ts";
import { tryDecode } from "../readable-records.ts";

const STEP = 256;

/** Checks all sessions. */
export async function checkSessions(run: FsckRun): Promise<void> {
  await run.checkAll("sessions", range.sessions(), STEP, ({ key: at }) => {
    run.counts.sessions += 1;
    return checkSession(at);
  });
  await run.checkAll("sessions", range.allHolds(), STEP, ({ key: at }) => checkHold(at));
  const claims = wholeRange<SessionId>(range.claims);
  await run.checkAll("sessions", claims, STEP, ({ key: at }) => checkClaim(at));
  for (const keyOf of [key.heartbeat, key.horizon]) {
    // These keys end with the session: the first and the last possible one bound them.
    const within: KeyRange = wholeRange<SessionId>((session) => ({
      start: keyOf(session),
      end: Buffer.concat([keyOf(session), Buffer.of(0)]),
    }));
    await run.checkAll("sessions", within, STEP, ({ key: at }) => checkLeftOver(at, keyOf));
  }
}

/** A live backup has a horizon: without one, the collector waits for it for ever. */
function checkSession(at: Buffer): Check {
  const session = parse.session(at);
  return async (reader): Promise<Problem[]> => {
    const value = await reader.get(at);
    if (value === undefined) return [];
    const record = tryDecode<SessionRecord>(value);
    if (record === undefined) {
      const what = "its record cannot be read";
      return [{ invariant: "records", what, where: `session ${session}` }];
    }
    if (record.state !== "live" || record.kind !== "backup") return [];
    if ((await reader.get(key.horizon(session))) !== undefined) return [];
    return [
      {
        invariant: "sessions",
        what: "it is a live backup without a horizon, so nothing is collected",
        where: `session ${session}`,
      },
    ];
  };
}

function checkHold(at: Buffer): Check {
  const { session, position } = parse.hold(at);
  const where = `hold ${position.level}/${position.index} of session ${session}`;
  return async (reader): Promise<Problem[]> => {
    const value = await reader.get(at);
    if (value === undefined) return [];
    const id = value.toString("hex") as BlockId;
    if ((await reader.get(key.session(session))) === undefined) {
      const repair = async (tx: KvTransaction): Promise<void> => {
        tx.clear(at);
        await dropReference(tx, id, { kind: "hold", session, position });
      };
      return [{ invariant: "sessions", what: "its session is gone", where, repair }];
    }
    if ((await reader.get(key.block(id))) !== undefined) return [];
    return [{ invariant: "closure", what: `node ${id}, which it holds, has no record`, where }];
  };
}

function checkClaim(at: Buffer): Check {
  const { session, id } = parse.claim(at);
  return async (reader): Promise<Problem[]> => {
    if ((await reader.get(at)) === undefined) return [];
    if ((await reader.get(key.session(session))) !== undefined) return [];
    const repair = async (tx: KvTransaction): Promise<void> => {
      tx.clear(at);
      const isThere = (await tx.get(key.block(id))) !== undefined;
      if (isThere && !(await hasReference(tx, id))) queueUnreferenced(tx, id);
    };
    return [
      {
        invariant: "sessions",
        what: "its session is gone",
        where: `claim of session ${session} on ${id}`,
        repair,
      },
    ];
  };
}

function checkLeftOver(at: Buffer, keyOf: (session: SessionId) => Buffer): Check {
  const session = at.toString("hex", at.length - 8) as SessionId;
  return async (reader) => {
    if (!at.equals(keyOf(session)) || (await reader.get(at)) === undefined) return [];
    if ((await reader.get(key.session(session))) !== undefined) return [];
    return [
      {
        invariant: "sessions",
        what: "its heartbeat or horizon is left over",
        where: `session ${session}`,
        repair: (tx) => dropEntry(tx, at),
      },
    ];
  };
}
