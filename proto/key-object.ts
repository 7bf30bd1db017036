// Key objects, `keys/<access id>` (docs/format.md, "Keys"): the repository's keys, sealed under one access key. The outside
// is JSON for people to read; the inside is a record (key-content.ts).
import { malformed, writtenByNewer } from "./format-error.ts";
import { FieldReader, type RecordMap } from "./record.ts";

/** The newest format of key objects that this code reads. One that is sealed under the access key itself has format 1. */
export const KEY_OBJECT_FORMAT_MAX = 2;

const SHORT_ID_BYTES = 8;
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
/** A key object has some hundred bytes; more was not written by Ashlar. */
const KEY_OBJECT_BYTES_MAX = 1024 * 1024;

/** The longest a label of an access key may be, in UTF-16 units. */
export const ACCESS_LABEL_LENGTH_MAX = 64;

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

/** What an access key is good for: *write-only* backs up, and cannot open what is stored. */
export type AccessCapability = "full" | "write-only";

/** What is known of an access key without its secret. */
export interface AccessFacts {
  /** The access key's X25519 public key: whoever has the repository's keys seals them to it anew. */
  readonly publicKey: Buffer;
  readonly capability: AccessCapability;
  /** As the user named it; for everybody to read. */
  readonly label: string;
  readonly createdMs: number;
  /** How often the repository keys had been changed when they were sealed here: what has more is newer. */
  readonly revision: number;
  /** Under a key that only full holders have (`repositoryKey` says of which repository key): nobody else's facts are trusted. */
  readonly mac: { readonly repositoryKey: string; readonly value: Buffer };
}

/** A key object. Ids are 16 hex digits. */
export interface KeyObject {
  readonly repository: string;
  readonly accessId: string;
  readonly method: AccessMethod;
  readonly nonce: Buffer;
  /** AES-256-GCM: ciphertext, then tag. Under the access key, or, with `ephemeral`, under a key agreed with its public key. */
  readonly sealed: Buffer;
  /** The X25519 public key of who sealed it without having the access key. */
  readonly ephemeral: Buffer | undefined;
  /** Undefined in objects of the first releases. */
  readonly facts: AccessFacts | undefined;
}

// Bounds on what an untrusted key object may make us spend: 1 GiB, some seconds. The lower one is what RFC 7914 needs.
const SCRYPT_MEMORY_MAX = 2 ** 30;
const SCRYPT_P_MAX = 16;

/** The format that an object is written in: the lowest that has what it has, so that older releases read what they can. */
function formatOf({ ephemeral }: Pick<KeyObject, "ephemeral">): number {
  return ephemeral === undefined ? 1 : 2;
}

/** Encodes a key object. */
export function encodeKeyObject(object: KeyObject): Buffer {
  const { repository, accessId, method, nonce, sealed, ephemeral, facts } = object;
  const json = {
    format: formatOf(object),
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
    ...(facts !== undefined && {
      public: facts.publicKey.toString("hex"),
      capability: facts.capability,
      label: facts.label,
      createdMs: facts.createdMs,
      revision: facts.revision,
      mac: {
        repositoryKey: facts.mac.repositoryKey,
        value: facts.mac.value.toString("hex"),
      },
    }),
    ...(ephemeral !== undefined && { ephemeral: ephemeral.toString("hex") }),
    nonce: nonce.toString("hex"),
    sealed: sealed.toString("base64"),
  };
  return Buffer.from(`${JSON.stringify(json, undefined, 2)}\n`);
}

/** Decodes a key object, without any key. */
export function decodeKeyObject(bytes: Uint8Array): KeyObject {
  const fields = new FieldReader(parseJson(bytes));
  const format = fields.whole("format", 1);
  if (format > KEY_OBJECT_FORMAT_MAX) throw writtenByNewer(`key object format ${format}`);
  const type = fields.text("type");
  if (type !== "keyfile" && type !== "passphrase")
    throw writtenByNewer(`access key type "${type}"`);
  const sealed = fields.text("sealed", KEY_OBJECT_BYTES_MAX);
  return {
    repository: fields.hex("repository", SHORT_ID_BYTES),
    accessId: fields.hex("accessId", SHORT_ID_BYTES),
    method: type === "keyfile" ? { type } : { type, kdf: readScrypt(fields.record("kdf")) },
    nonce: readHex(fields, "nonce", NONCE_BYTES),
    sealed: Buffer.from(sealed, "base64"),
    ephemeral: format === 1 ? undefined : readHex(fields, "ephemeral", KEY_BYTES),
    facts: fields.has("public") ? readFacts(fields) : undefined,
  };
}

function readHex(fields: FieldReader, name: string, bytes: number): Buffer {
  return Buffer.from(fields.hex(name, bytes), "hex");
}

function readFacts(fields: FieldReader): AccessFacts {
  const mac = fields.record("mac");
  return {
    publicKey: readHex(fields, "public", KEY_BYTES),
    capability: fields.oneOf("capability", ["full", "write-only"]),
    label: fields.text("label", ACCESS_LABEL_LENGTH_MAX),
    createdMs: fields.whole("createdMs", 0),
    revision: fields.whole("revision", 0),
    mac: {
      repositoryKey: mac.hex("repositoryKey", SHORT_ID_BYTES),
      value: readHex(mac, "value", KEY_BYTES),
    },
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
  return { N, r, p, salt: readHex(fields, "salt", KEY_BYTES) };
}

/** Whose object it is: what both its seal and its facts are bound to. */
type AccessIdentity = Pick<KeyObject, "repository" | "accessId" | "method">;

function identityLines({ repository, accessId, method }: AccessIdentity): (string | number)[] {
  const kdf =
    method.type === "passphrase"
      ? ["scrypt", method.kdf.N, method.kdf.r, method.kdf.p, method.kdf.salt.toString("hex")]
      : ["-"];
  return [repository, accessId, method.type, ...kdf];
}

const lines = (items: readonly (string | number)[]): Buffer =>
  Buffer.from(items.map((item) => `${item}\n`).join(""));

/** The associated data of `sealed`: who it is for and how, one item a line. */
export function keyObjectAad(object: AccessIdentity & Pick<KeyObject, "ephemeral">): Buffer {
  const { ephemeral } = object;
  const items = ["ashlar key object", formatOf(object), ...identityLines(object)];
  return lines(ephemeral === undefined ? items : [...items, ephemeral.toString("hex")]);
}

/** What the MAC of an access key's facts covers. The label goes in as JSON, in which a line feed is none. */
export function accessFactsText(
  object: AccessIdentity,
  facts: Omit<AccessFacts, "mac">,
  repositoryKey: string,
): Buffer {
  return lines([
    "ashlar access key facts 1",
    ...identityLines(object),
    facts.publicKey.toString("hex"),
    facts.capability,
    JSON.stringify(facts.label),
    facts.createdMs,
    facts.revision,
    repositoryKey,
  ]);
}
