// The plaintext of a version's head (docs/format.md, "Heads"): all that a storage needs to tell a version without a KV.
import { malformed, writtenByNewer } from "./format-error.ts";
import { NODE_LEVEL_MAX } from "./node.ts";
import { decodeRecord, encodeRecord, FieldReader, isHex, type RecordMap } from "./record.ts";

/** Readers ignore fields that they do not know; a head that must not be read so gets a higher format. */
export const HEAD_FORMAT = 1;

const STORAGE_ID_BYTES = 8;
const ROOT_BYTES = 32;

/** A version's head. Ids are hex. */
export interface Head {
  readonly uid: string;
  /** From 1; the highest one on a storage is the one that counts. */
  readonly revision: number;
  /** True on the last revision, which says that the version was removed. */
  readonly removed: boolean;
  readonly volume: string;
  readonly snapshot: string;
  readonly createdMs: number;
  readonly sizeBytes: number;
  readonly blockBytes: number;
  /** Height of the tree; the root is at level `levels - 1`. */
  readonly levels: number;
  /** Id of the root node; a last revision names none, every other does. */
  readonly root: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
  readonly protected: boolean;
  /** What the backup did: counters by name. */
  readonly statistics: Readonly<Record<string, number>>;
  readonly policy: {
    readonly storages: readonly string[];
    readonly quorum: number;
    /** Absent where there is no preference. */
    readonly prefer?: readonly string[];
    /** Absent where nobody chose one. A name that is not known here may be of a newer Ashlar. */
    readonly compression?: { readonly name: string; readonly level: number };
  };
  readonly source: string;
  readonly warnings: readonly string[];
  /** Fields of a newer Ashlar, to be kept in the next revision. */
  readonly unknown?: RecordMap;
}

/** Encodes a head; equal heads give equal bytes. */
export function encodeHead(head: Head): Buffer {
  const { unknown, removed, root, policy, ...fields } = head;
  checkRoot(removed, root);
  return encodeRecord({
    ...unknown,
    ...fields,
    format: HEAD_FORMAT,
    removed: removed ? true : undefined,
    root: root === undefined ? undefined : Buffer.from(root, "hex"),
    policy: {
      storages: policy.storages,
      quorum: policy.quorum,
      prefer: policy.prefer,
      compression: policy.compression,
    },
  });
}

/** Decodes a head and checks every field. */
export function decodeHead(bytes: Uint8Array): Head {
  const fields = new FieldReader(decodeRecord(bytes));
  const format = fields.whole("format", 1);
  if (format > HEAD_FORMAT) throw writtenByNewer(`head format ${format}`);
  const policy = fields.record("policy");
  const removed = fields.has("removed") && fields.flag("removed");
  const root = fields.has("root") ? fields.bytes("root", ROOT_BYTES).toString("hex") : undefined;
  checkRoot(removed, root);
  const head: Head = {
    uid: fields.text("uid"),
    revision: fields.whole("revision", 1),
    removed,
    volume: fields.text("volume"),
    snapshot: fields.text("snapshot"),
    createdMs: fields.whole("createdMs", 0),
    sizeBytes: fields.whole("sizeBytes", 0),
    blockBytes: fields.whole("blockBytes", 1),
    levels: fields.whole("levels", 1, NODE_LEVEL_MAX + 1),
    root,
    labels: fields.map("labels", asText, "text"),
    protected: fields.flag("protected"),
    statistics: fields.map("statistics", asNumber, "numbers"),
    policy: {
      storages: policy.list("storages", asStorageId, "storage identities"),
      quorum: policy.whole("quorum", 1),
      ...(policy.has("prefer")
        ? { prefer: policy.list("prefer", asStorageId, "storage identities") }
        : {}),
      ...(policy.has("compression")
        ? { compression: decodeCompression(policy.record("compression")) }
        : {}),
    },
    source: fields.text("source"),
    warnings: fields.list("warnings", asText, "text"),
  };
  const unknown = fields.unknown();
  return Object.keys(unknown).length === 0 ? head : { ...head, unknown };
}

function decodeCompression(fields: FieldReader): { name: string; level: number } {
  return { name: fields.text("name"), level: fields.whole("level", 0) };
}

function checkRoot(removed: boolean, root: string | undefined): void {
  if (removed !== (root === undefined))
    throw malformed(removed ? "is removed but names a root" : "names no root");
}

const asText = (value: unknown): string | undefined =>
  typeof value === "string" ? value : undefined;
const asNumber = (value: unknown): number | undefined =>
  typeof value === "number" ? value : undefined;
const asStorageId = (value: unknown): string | undefined =>
  isHex(value, STORAGE_ID_BYTES) ? value : undefined;
