// Reading records that may be damaged: what is looked for must not stop who looks.
import { InvariantError } from "#lib/core/assert.ts";
import type { BlockId, VersionUid } from "#lib/core/ids.ts";
import type { KvReader } from "#lib/ports/kv.ts";
import { decodeBlockRecord, type BlockRecord } from "#lib/repository/block-record.ts";
import { key } from "#lib/repository/keyspace.ts";
import { decodeRecord } from "#lib/repository/records.ts";
import type { RebuiltVersion } from "./rebuild/rebuilt-version.ts";

/** A record, undefined where there is none, "unreadable" where its bytes are none. */
export async function readRecord(
  reader: KvReader,
  id: BlockId,
): Promise<BlockRecord | undefined | "unreadable"> {
  return decodeOrUnreadable(await reader.get(key.block(id)));
}

/** The same for a value that was read already. */
export function decodeOrUnreadable(
  value: Buffer | undefined,
): BlockRecord | undefined | "unreadable" {
  if (value === undefined) return undefined;
  try {
    return decodeBlockRecord(value);
  } catch (error) {
    // The codec takes bytes that it did not write for a defect; here they are what is looked for.
    if (error instanceof InvariantError) return "unreadable";
    throw error;
  }
}

/** A record that can be used: one that cannot be read is as good as none, for who makes records out of what is there. */
export async function readUsable(reader: KvReader, id: BlockId): Promise<BlockRecord | undefined> {
  const record = await readRecord(reader, id);
  return record === "unreadable" ? undefined : record;
}

/** A record that is a map; undefined where its bytes are none. */
export function tryDecode<T extends object>(value: Buffer): T | undefined {
  try {
    const record: unknown = decodeRecord<T>(value);
    return typeof record === "object" && record !== null ? (record as T) : undefined;
  } catch {
    return undefined;
  }
}

/** A version's record, undefined where it cannot be read. */
export function decodeVersion(value: Buffer): RebuiltVersion | undefined {
  const version = tryDecode<RebuiltVersion>(value);
  const isOne = typeof version?.uid === "string" && Array.isArray(version.policy?.storages);
  return isOne ? version : undefined;
}

/** The same for a version. */
export async function readUsableVersion(
  reader: KvReader,
  uid: VersionUid,
): Promise<RebuiltVersion | undefined> {
  const value = await reader.get(key.version(uid));
  return value === undefined ? undefined : decodeVersion(value);
}
