// What waits at a storage until its lock runs out, as people and programs are told.
import { formatSize } from "#lib/core/size.ts";
import type { WaitingTrash } from "#lib/repository/transactions/locked-trash.ts";
import { formatDate } from "./version-document.ts";

/** As JSON; null where nothing waits. */
export function waitingDocument(waiting: WaitingTrash | undefined): object | null {
  if (waiting?.firstMs === undefined || waiting.lastMs === undefined) return null;
  const { objects, bytes, more, firstMs, lastMs } = waiting;
  const dates = { first: new Date(firstMs).toISOString(), last: new Date(lastMs).toISOString() };
  return { objects, bytes, more, ...dates };
}

/** A sentence for a storage; none where nothing waits. */
export function waitingLines(name: string, waiting: WaitingTrash | undefined): string[] {
  if (waiting?.firstMs === undefined || waiting.lastMs === undefined) return [];
  const { objects, bytes, more, firstMs, lastMs } = waiting;
  const count = `${more ? "more than " : ""}${objects} ${objects === 1 ? "object" : "objects"}`;
  const first = firstMs === lastMs ? "" : `, the first until ${formatDate(firstMs)}`;
  return [
    `${name}: ${count}, ${formatSize(bytes)}, ${objects === 1 ? "waits" : "wait"} for ${objects === 1 ? "its lock" : "their locks"} until ${formatDate(lastMs)}${first}`,
  ];
}
