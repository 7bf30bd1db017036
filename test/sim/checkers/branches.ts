// Rare branches of the protocol: a simulation that never takes them proves nothing about them, so the set that CI runs must
// take each at least once. They are recognised from outside, by what changes in the metadata and on the storages.

/** What is rare, and must happen nevertheless. */
export const BRANCHES = [
  "takeover-from-dead",
  "takeover-from-slow",
  "condemned-revived",
  "late-put-unnamed",
  "put-after-trash-emptied",
  "object-found-and-replaced",
  "session-resumed",
  "session-fenced",
  "claim-waits",
  "commit-returned",
  "finish-returned",
  "commit-waits-for-puts",
  "store-unnamed",
  "known-removed-under-way",
  "damage-marked",
  "damage-climbed",
  "damage-repaired",
  "false-alarm-undone",
  "bad-copy-replaced",
  "sweep-found-orphan",
  "incomplete-dropped",
  "storage-refused",
  "rebuild-adopted",
  "nodes-taken-over",
  "hint-caught",
  "policy-widened",
  "policy-narrowed",
  "copy-left",
  "copy-renewed",
  "storage-lost",
  "leaving-relied-upon",
] as const;

/** A rare branch. */
export type Branch = (typeof BRANCHES)[number];

/** Counts which were taken. */
export class Branches {
  readonly counts = new Map<Branch, number>();

  /** Notes that one was taken. */
  hit(branch: Branch): void {
    this.counts.set(branch, (this.counts.get(branch) ?? 0) + 1);
  }
}
