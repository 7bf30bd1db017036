// Key objects, `keys/<access id>` (docs/format.md, "Keys"): the repository's keys, sealed under one access key. The outside
// is JSON for people to read; the inside is a record.
import { Compression } from "./sealed-object.ts";
import { malformed, writtenByNewer } from "./format-error.ts";
import {
  decodeRecord,
  encodeRecord,
  FieldReader,
  type RecordMap,
  type RecordValue,
} from "./record.ts";

/** The key object format that this code writes; it reads none that is newer. */
export const KEY_OBJECT_FORMAT = 1;

const SHORT_ID_BYTES = 8;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
/** A key object has some hundred bytes; more was not written by Ashlar. */
const KEY_OBJECT_BYTES_MAX = 1024 * 1024;

/** Parameters of scrypt (RFC 7914). */
export interface ScryptParameters {
  readonly N: number;
  readonly r: number;
  readonly p: number;
  readonly salt: Buffer;
}

/** How the access key is had. */
export type AccessMethod =
  | { readonly type: "keyfile" }
  | { readonly type: "passphrase"; readonly kdf: ScryptParameters };

/** A key object. Ids are 16 hex digits. */
export interface KeyObject {
  readonly repository: string;
  readonly accessId: string;
  readonly method: AccessMethod;
  readonly nonce: Buffer;
  /** AES-256-GCM under the access key: ciphertext, then tag. */
  readonly sealed: Buffer;
}

/** *active*: wraps what is new, exactly one does; *retired*: only opens. */
export type RepositoryKeyState = "active" | "retired";

/** What a key object holds. */
export interface KeyContent {
  readonly dedupKey: Buffer;
  readonly hash: "blake3" | "hmac-sha256";
  readonly repositoryKeys: readonly {
    readonly id: string;
    readonly key: Buffer;
    readonly state: RepositoryKeyState;
  }[];
  /** What is used where the configuration says nothing. */
  readonly compression: Compression;
}

// Bounds on what an untrusted key object may make us spend: 1 GiB, some seconds. The lower one is what RFC 7914 needs.
const SCRYPT_MEMORY_MAX = 2 ** 30;
const SCRYPT_P_MAX = 16;

/** Encodes a key object. */
export function encodeKeyObject(object: KeyObject): Buffer {
  const { repository, accessId, method, nonce, sealed } = object;
  const json = {
    format: KEY_OBJECT_FORMAT,
    repository,
    accessId,
    type: method.type,
    ...(method.type === "passphrase" && {
      kdf: {
        name: "scrypt",
        N: method.kdf.N,
        r: method.kdf.r,
        p: method.kdf.p,
        salt: method.kdf.salt.toString("hex"),
      },
    }),
    nonce: nonce.toString("hex"),
    sealed: sealed.toString("base64"),
  };
  return Buffer.from(`${JSON.stringify(json, undefined, 2)}\n`);
}

/** Decodes a key object, without any key. */
export function decodeKeyObject(bytes: Uint8Array): KeyObject {
  const fields = new FieldReader(parseJson(bytes));
  const format = fields.whole("format", 1);
  if (format > KEY_OBJECT_FORMAT) throw writtenByNewer(`key object format ${format}`);
  const type = fields.text("type");
  if (type !== "keyfile" && type !== "passphrase")
    throw writtenByNewer(`access key type "${type}"`);
  const sealed = fields.text("sealed", KEY_OBJECT_BYTES_MAX);
  return {
    repository: fields.hex("repository", SHORT_ID_BYTES),
    accessId: fields.hex("accessId", SHORT_ID_BYTES),
    method: type === "keyfile" ? { type } : { type, kdf: readScrypt(fields.record("kdf")) },
    nonce: Buffer.from(fields.hex("nonce", NONCE_BYTES), "hex"),
    sealed: Buffer.from(sealed, "base64"),
  };
}

function parseJson(bytes: Uint8Array): RecordMap {
  if (bytes.length > KEY_OBJECT_BYTES_MAX) throw malformed(`is ${bytes.length} bytes long`);
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (cause) {
    throw malformed("is not JSON", cause);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw malformed("is not a JSON object");
  return value as RecordMap;
}

function readScrypt(fields: FieldReader): ScryptParameters {
  const name = fields.text("name");
  if (name !== "scrypt") throw writtenByNewer(`key derivation "${name}"`);
  const N = fields.whole("N", 2);
  const r = fields.whole("r", 1);
  const p = fields.whole("p", 1, SCRYPT_P_MAX);
  if (!Number.isInteger(Math.log2(N)) || 128 * N * r > SCRYPT_MEMORY_MAX) {
    throw malformed(`has scrypt parameters out of range (N ${N}, r ${r})`);
  }
  return { N, r, p, salt: Buffer.from(fields.hex("salt", KEY_BYTES), "hex") };
}

/** The associated data of `sealed`: everything else in the object, one item a line. */
export function keyObjectAad(
  object: Pick<KeyObject, "repository" | "accessId" | "method">,
): Buffer {
  const { repository, accessId, method } = object;
  const kdf =
    method.type === "passphrase"
      ? ["scrypt", method.kdf.N, method.kdf.r, method.kdf.p, method.kdf.salt.toString("hex")]
      : ["-"];
  const items = ["ashlar key object", KEY_OBJECT_FORMAT, repository, accessId, method.type, ...kdf];
  return Buffer.from(items.map((item) => `${item}\n`).join(""));
}

/** Encodes what is sealed. */
export function encodeKeyContent(content: KeyContent): Buffer {
  const { dedupKey, hash, repositoryKeys, compression } = content;
  checkOneActive(content);
  return encodeRecord({
    format: KEY_OBJECT_FORMAT,
    dedupKey,
    hash,
    repositoryKeys: repositoryKeys.map(({ id, key, state }) => ({ id, key, state })),
    compression,
  });
}

/** Decodes what was sealed. */
export function decodeKeyContent(bytes: Uint8Array): KeyContent {
  const fields = new FieldReader(decodeRecord(bytes));
  const format = fields.whole("format", 1);
  if (format > KEY_OBJECT_FORMAT) throw writtenByNewer(`key content format ${format}`);
  const content: KeyContent = {
    dedupKey: fields.bytes("dedupKey", KEY_BYTES),
    hash: fields.oneOf("hash", ["blake3", "hmac-sha256"]),
    repositoryKeys: fields.list("repositoryKeys", readRepositoryKey, "repository keys"),
    compression: fields.oneOf("compression", Object.keys(Compression) as Compression[]),
  };
  checkOneActive(content);
  return content;
}

function readRepositoryKey(value: RecordValue): KeyContent["repositoryKeys"][number] | undefined {
  if (
    typeof value !== "object" ||
    value === null ||
    Array.isArray(value) ||
    value instanceof Uint8Array
  )
    return undefined;
  const fields = new FieldReader(value as RecordMap, "repositoryKeys.");
  return {
    id: fields.hex("id", SHORT_ID_BYTES),
    key: fields.bytes("key", KEY_BYTES),
    state: fields.oneOf("state", ["active", "retired"]),
  };
}

function checkOneActive(content: KeyContent): void {
  const active = content.repositoryKeys.filter((key) => key.state === "active").length;
  if (active !== 1) throw malformed(`has ${active} active repository keys`);
}
