// What a key object holds (docs/format.md, "Keys"), as a record.
import { malformed, writtenByNewer } from "./format-error.ts";
import {
  decodeRecord,
  encodeRecord,
  FieldReader,
  type RecordMap,
  type RecordValue,
} from "./record.ts";
import { Compression, type WrapScheme } from "./sealed-object.ts";

/** The newest format that this code reads. Format 1 has symmetric repository keys only. */
const KEY_CONTENT_FORMAT_MAX = 2;

const SHORT_ID_BYTES = 8;
const KEY_BYTES = 32;

/** *active*: wraps what is new, exactly one does; *retired*: only opens. */
export type RepositoryKeyState = "active" | "retired";

/** A repository key as a key object has it. */
export interface RepositoryKeyRecord {
  readonly id: string;
  readonly scheme: WrapScheme;
  /** The symmetric or the private key; undefined in the object of a write-only access key. */
  readonly key: Buffer | undefined;
  /** Of an X25519 key. */
  readonly publicKey: Buffer | undefined;
  readonly state: RepositoryKeyState;
}

/** What a key object holds. */
export interface KeyContent {
  readonly dedupKey: Buffer;
  readonly hash: "blake3" | "hmac-sha256";
  readonly repositoryKeys: readonly RepositoryKeyRecord[];
  /** How often the repository keys were changed: of several contents the one with more is the newer. */
  readonly revision: number;
  /** What is used where the configuration says nothing. */
  readonly compression: Compression;
}

/** Encodes what is sealed, in the lowest format that has all of it: format 1 is what the first releases read. */
export function encodeKeyContent(content: KeyContent): Buffer {
  const { dedupKey, hash, repositoryKeys, revision, compression } = content;
  checkKeys(content);
  const isFirst = repositoryKeys.every(({ scheme, key }) => scheme === "aes" && key !== undefined);
  return encodeRecord({
    format: isFirst ? 1 : 2,
    dedupKey,
    hash,
    repositoryKeys: repositoryKeys.map(({ id, scheme, key, publicKey, state }) => ({
      id,
      scheme: scheme === "aes" ? undefined : scheme,
      key,
      public: publicKey,
      state,
    })),
    revision: revision === 0 ? undefined : revision,
    compression,
  });
}

/** Decodes what was sealed. */
export function decodeKeyContent(bytes: Uint8Array): KeyContent {
  const fields = new FieldReader(decodeRecord(bytes));
  const format = fields.whole("format", 1);
  if (format > KEY_CONTENT_FORMAT_MAX) throw writtenByNewer(`key content format ${format}`);
  const content: KeyContent = {
    dedupKey: fields.bytes("dedupKey", KEY_BYTES),
    hash: fields.oneOf("hash", ["blake3", "hmac-sha256"]),
    repositoryKeys: fields.list("repositoryKeys", readRepositoryKey, "repository keys"),
    revision: fields.has("revision") ? fields.whole("revision", 0) : 0,
    compression: fields.oneOf("compression", Object.keys(Compression) as Compression[]),
  };
  checkKeys(content);
  return content;
}

function readRepositoryKey(value: RecordValue): RepositoryKeyRecord | undefined {
  if (
    typeof value !== "object" ||
    value === null ||
    Array.isArray(value) ||
    value instanceof Uint8Array
  )
    return undefined;
  const fields = new FieldReader(value as RecordMap, "repositoryKeys.");
  const scheme = fields.has("scheme") ? fields.oneOf("scheme", ["aes", "x25519"]) : "aes";
  return {
    id: fields.hex("id", SHORT_ID_BYTES),
    scheme,
    key: fields.has("key") ? fields.bytes("key", KEY_BYTES) : undefined,
    publicKey: scheme === "x25519" ? fields.bytes("public", KEY_BYTES) : undefined,
    state: fields.oneOf("state", ["active", "retired"]),
  };
}

function checkKeys({ repositoryKeys }: KeyContent): void {
  const active = repositoryKeys.filter((key) => key.state === "active");
  if (active.length !== 1) throw malformed(`has ${active.length} active repository keys`);
  // Who may only write seals with the public half; of a symmetric key there is none.
  if (active.some(({ scheme, key }) => scheme === "aes" && key === undefined))
    throw malformed("has an active repository key that is not there");
}
