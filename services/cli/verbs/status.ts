// ashlar status: what is going on, and what is left to do.
import type { Command } from "commander";
import { formatDuration } from "#lib/core/size.ts";
import type { BoundedCount } from "#lib/repository/count-keys.ts";
import {
  readStatus,
  type RepositoryStatus,
  type SessionStatus,
  type StorageStatus,
} from "#services/coordinator/status.ts";
import { formatFields, formatTable } from "../output.ts";
import type { Act } from "../program.ts";
import { formatDate } from "../version-document.ts";
import { waitingDocument, waitingLines } from "../waiting-trash.ts";
import { withEngine } from "../with-engine.ts";

const HELP = `
Sessions are running (live), of a process that is gone (vanished: the next command notices), resumable
(dead), or being tidied up (ended). Storages are owed what was not put there yet: \`ashlar replicate\` fills
it. Trash is deleted by \`ashlar gc\`, what is locked at its storage once it is so no longer.

Examples:
  ashlar status
  ashlar status --json`;

/** Locks that are extended so much of a period late are told: a quarter is left when they are due. */
const LATE_SHARE = 8;

/** Adds the verb. */
export function addStatus(program: Command, act: Act): void {
  program
    .command("status")
    .summary("show sessions, debts, trash and the oldest verification")
    .description(
      "Shows sessions, what storages are owed, what waits to be deleted, and who holds collection up.",
    )
    .addHelpText("after", HELP)
    .action(
      act(async (context) => {
        await withEngine(context, async ({ kv, isOwnerAlive, ports, config }) => {
          const status = await readStatus(kv, isOwnerAlive, config.sessions.resumeWindowMs);
          context.output.result(document(status), () => lines(status, ports.clock.now()));
        });
      }),
    );
}

function document(status: RepositoryStatus): object {
  const date = (ms: number | undefined): string | null =>
    ms === undefined || ms === 0 ? null : new Date(ms).toISOString();
  return {
    ...status,
    sessions: status.sessions.map(({ startedMs, heartbeatMs, horizon, holdsUp, ...session }) => ({
      ...session,
      holdsUp: holdsUp ?? null,
      horizon: horizon ?? null,
      started: date(startedMs),
      heartbeat: date(heartbeatMs),
    })),
    storages: status.storages.map(({ oldestVerifiedMs, waiting, lock, ...storage }) => ({
      ...storage,
      lock:
        lock === undefined
          ? null
          : { lockMs: lock.lockMs, due: date(lock.firstDueMs), takingIn: lock.isTakingIn },
      waiting: waitingDocument(waiting),
      oldestVerified: date(oldestVerifiedMs),
    })),
    collectionHeldUpBy: holders(status).map(({ session }) => session),
  };
}

function holders(status: RepositoryStatus): SessionStatus[] {
  return status.sessions.filter((session) => session.holdsUp !== undefined);
}

function lines(status: RepositoryStatus, nowMs: number): string[] {
  const held = holders(status);
  return [
    ...sessionLines(status, nowMs),
    "",
    ...storageLines(status),
    ...status.storages.flatMap(({ name, waiting }) => waitingLines(name, waiting)),
    ...status.storages.flatMap((storage) => lockLines(storage, nowMs)),
    "",
    ...formatFields([
      ["unreferenced", count(status.unreferenced)],
      ["condemned", count(status.condemned)],
      ["marks to pass on", count(status.rechecks)],
      ["epoch", String(status.epoch)],
      ...held.map(
        ({ uid, holdsUp }) => ["collection waits", `${uid}: ${holdsUp}`] satisfies [string, string],
      ),
    ]),
  ];
}

/** Where locks are not extended in time. */
function lockLines({ name, lock }: StorageStatus, nowMs: number): string[] {
  if (lock === undefined) return [];
  const out = lock.isTakingIn
    ? [`${name}: what lay there before is yet to be locked: \`ashlar gc\` does that`]
    : [];
  const lateMs = nowMs - (lock.firstDueMs ?? nowMs);
  if (lateMs > lock.lockMs / LATE_SHARE) {
    out.push(
      `${name}: locks should have been extended ${formatDuration(lateMs)} ago: run \`ashlar gc\``,
    );
  }
  return out;
}

function sessionLines(status: RepositoryStatus, nowMs: number): string[] {
  if (status.sessions.length === 0) return ["no sessions"];
  return formatTable(
    [
      { head: "session" },
      { head: "kind" },
      { head: "state" },
      { head: "version" },
      { head: "host" },
      { head: "age", align: "right" },
      { head: "heartbeat", align: "right" },
    ],
    status.sessions.map((session) => [
      session.session,
      session.kind,
      session.state,
      session.uid,
      session.host,
      formatDuration(nowMs - session.startedMs),
      session.heartbeatMs === 0 ? "" : `${formatDuration(nowMs - session.heartbeatMs)} ago`,
    ]),
  );
}

function storageLines(status: RepositoryStatus): string[] {
  const right = "right" as const;
  return formatTable(
    [
      { head: "storage" },
      { head: "site" },
      { head: "state" },
      { head: "owed objects", align: right },
      { head: "owed heads", align: right },
      { head: "trash", align: right },
      { head: "oldest verification" },
    ],
    status.storages.map((storage) => [
      storage.name,
      storage.site,
      storage.state,
      count(storage.owedCopies),
      count(storage.owedHeads),
      count(storage.trash),
      storage.oldestVerifiedMs === undefined ? "" : formatDate(storage.oldestVerifiedMs),
    ]),
  );
}

function count({ count: value, more }: BoundedCount): string {
  return more ? `more than ${value}` : String(value);
}
