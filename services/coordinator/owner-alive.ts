// Whether the process that runs a session is still there (DESIGN §4.6): on one host its death is noticed at once, by an OS
// lock; a stopped process, and other hosts, by lease.
import type { SessionEntry } from "#lib/repository/transactions/session.ts";

/** What tells of a process. */
export interface OwnerSigns {
  /** This host. */
  readonly host: string;
  /** A session without a heartbeat for longer is dead. */
  readonly leaseMs: number;
  /** Wall-clock time here, in ms since 1970. */
  readonly nowMs: number;
  /** Whether a process of this host holds the lock of that name. */
  readonly isLockHeld: (lock: string) => boolean;
}

/** True unless the owner is known to be gone. It only decides who works, never whether data are safe. */
export function isOwnerAlive({ record, heartbeatMs }: SessionEntry, signs: OwnerSigns): boolean {
  if (record.host === signs.host && !signs.isLockHeld(record.lock)) return false;
  return signs.nowMs - heartbeatMs <= signs.leaseMs;
}
