// Key objects: sealing the repository's keys under an access key, or to its public key, and opening them again.
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  randomBytes,
  timingSafeEqual,
} from "node:crypto";
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { FormatError, FormatFault } from "#proto/format-error.ts";
import {
  decodeKeyContent,
  encodeKeyContent,
  type RepositoryKeyRecord,
} from "#proto/key-content.ts";
import {
  accessFactsText,
  decodeKeyObject,
  encodeKeyObject,
  keyObjectAad,
  type AccessCapability,
  type AccessFacts,
  type AccessMethod,
  type KeyObject,
} from "#proto/key-object.ts";
import { keyObjectName } from "#proto/object-names.ts";
import { accessKeys, keyFileAccessId, type AccessKeys, type AccessSecret } from "./access-key.ts";
import { deriveKey } from "./derive-key.ts";
import { secretOf, writeOnlyKeys, type RepositoryKey, type RepositoryKeys } from "./keys.ts";
import { agreeFrom, agreeWith, x25519PublicKey } from "./x25519.ts";

/** A key object as found on a storage. */
export interface StoredKeyObject {
  /** Its name on the storage, for messages. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** A key object that was opened. */
export interface OpenedKeys {
  readonly keys: RepositoryKeys;
  /** What opened them. */
  readonly object: KeyObject;
  readonly access: AccessKeys;
}

/** What a new access key is to be. */
export interface AccessPlan {
  readonly label: string;
  readonly createdMs: number;
  /** Default: full. */
  readonly capability?: AccessCapability;
}

const CIPHER = "aes-256-gcm";
const KEY_BYTES = 32;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const SHORT_ID_BYTES = 8;
const AGREEMENT_INFO = "ashlar key object x25519 1";
const MAC_INFO = "ashlar access mac 1";

// 64 MiB and about a third of a second: what an interactive command may cost, on a machine that also runs backups.
const SCRYPT_DEFAULT = { N: 65_536, r: 8, p: 2 };

/**
 * Seals the repository's keys under an access key. A key file has one access id for ever, so that sealing again replaces
 * its object; a passphrase gets a random one, for its object must not tell whether two repositories share it.
 */
export async function sealKeys(
  keys: RepositoryKeys,
  secret: AccessSecret,
  plan: AccessPlan,
): Promise<StoredKeyObject & { readonly accessId: string }> {
  const method: AccessMethod =
    secret.type === "keyfile"
      ? { type: "keyfile" }
      : { type: "passphrase", kdf: { ...SCRYPT_DEFAULT, salt: randomBytes(KEY_BYTES) } };
  const accessId =
    secret.type === "keyfile"
      ? keyFileAccessId(secret.key)
      : randomBytes(SHORT_ID_BYTES).toString("hex");
  const outside = { repository: keys.repository, accessId, method };
  const access = await accessKeys(secret, method);
  const { label, createdMs, capability = "full" } = plan;
  const facts = signFacts(keys, outside, {
    publicKey: access.pair.publicKey,
    capability,
    label,
    createdMs,
  });
  const sealed = encrypt(keys, capability, access.key, { ...outside, ephemeral: undefined });
  const bytes = encodeKeyObject({ ...outside, ...sealed, facts });
  return { accessId, name: keyObjectName(accessId), bytes };
}

/**
 * Seals the repository's keys to an access key that is not there, by its public key; `object` is its present object, whose
 * facts must have been verified ({@link verifyFacts}).
 */
export function resealKeys(keys: RepositoryKeys, object: KeyObject): StoredKeyObject {
  const { repository, accessId, method, facts } = object;
  assert(facts !== undefined, "whoever is sealed to has a public key");
  const { ephemeral, key } = agreeWith(facts.publicKey, AGREEMENT_INFO);
  const outside = { repository, accessId, method };
  const sealed = encrypt(keys, facts.capability, key, { ...outside, ephemeral });
  key.fill(0);
  const bytes = encodeKeyObject({
    ...outside,
    ...sealed,
    facts: signFacts(keys, outside, facts),
  });
  return { name: keyObjectName(accessId), bytes };
}

/** The object of an access key that is there, with its facts, as the first releases did not write them. */
export function addFacts(
  { keys, object, access }: OpenedKeys,
  plan: Omit<AccessPlan, "capability">,
): StoredKeyObject {
  const facts = signFacts(keys, object, {
    ...plan,
    publicKey: access.pair.publicKey,
    capability: "full",
  });
  return { name: keyObjectName(object.accessId), bytes: encodeKeyObject({ ...object, facts }) };
}

/**
 * Whether an access key's facts were written by somebody who has the repository's keys in full, under the active one or under
 * one of the retired. *unknown*: whoever asks has a write-only access key, or has never had that repository key.
 */
export function verifyFacts(
  keys: RepositoryKeys,
  object: KeyObject,
): "active" | "retired" | "forged" | "unknown" {
  const { facts } = object;
  assert(facts !== undefined, "there are facts to verify");
  const { repositoryKey, value } = facts.mac;
  const key = keys.repositoryKeys.get(repositoryKey);
  const secret = key && secretOf(key);
  if (secret === undefined) return "unknown";
  if (!timingSafeEqual(macOf(secret, object, facts, repositoryKey), value)) return "forged";
  return repositoryKey === keys.activeKeyId ? "active" : "retired";
}

function signFacts(
  keys: RepositoryKeys,
  object: Pick<KeyObject, "repository" | "accessId" | "method">,
  { publicKey, capability, label, createdMs }: Omit<AccessFacts, "mac" | "revision">,
): AccessFacts {
  const repositoryKey = keys.activeKeyId;
  const active = keys.repositoryKeys.get(repositoryKey);
  const secret = active && secretOf(active);
  assert(secret !== undefined, "only who has all keys makes key objects");
  const facts = { publicKey, capability, label, createdMs, revision: keys.revision };
  return { ...facts, mac: { repositoryKey, value: macOf(secret, object, facts, repositoryKey) } };
}

function macOf(
  secret: Uint8Array,
  object: Pick<KeyObject, "repository" | "accessId" | "method">,
  facts: Omit<AccessFacts, "mac">,
  repositoryKey: string,
): Buffer {
  return createHmac("sha256", deriveKey(secret, MAC_INFO))
    .update(accessFactsText(object, facts, repositoryKey))
    .digest();
}

/** Seals the content for one access key: `nonce`, `sealed` and `ephemeral` of its object. */
function encrypt(
  keys: RepositoryKeys,
  capability: AccessCapability,
  key: Buffer,
  outside: Pick<KeyObject, "repository" | "accessId" | "method" | "ephemeral">,
): Pick<KeyObject, "nonce" | "sealed" | "ephemeral"> {
  const given = capability === "full" ? keys : writeOnlyKeys(keys);
  const content = encodeKeyContent({
    dedupKey: Buffer.from(given.dedupKey),
    hash: given.hash,
    repositoryKeys: [...given.repositoryKeys].map(([id, each]) =>
      recordOf(id, each, id === given.activeKeyId),
    ),
    revision: given.revision,
    compression: given.compression,
  });
  const nonce = randomBytes(NONCE_BYTES);
  const cipher = createCipheriv(CIPHER, key, nonce);
  cipher.setAAD(keyObjectAad(outside));
  const sealed = Buffer.concat([cipher.update(content), cipher.final(), cipher.getAuthTag()]);
  content.fill(0);
  return { nonce, sealed, ephemeral: outside.ephemeral };
}

function recordOf(id: string, key: RepositoryKey, isActive: boolean): RepositoryKeyRecord {
  const secret = secretOf(key);
  return {
    id,
    scheme: key.scheme,
    key: secret && Buffer.from(secret),
    publicKey: key.scheme === "x25519" ? Buffer.from(key.publicKey) : undefined,
    state: isActive ? "active" : "retired",
  };
}

/**
 * Opens the repository's keys with what the user has, trying each key object that it may fit; of several that it opens (a
 * storage that was away has an older one) the newest. Refused when it fits none, before anything else is read or written;
 * Damaged when the only one that might fit cannot be read.
 */
export async function openKeys(
  objects: readonly StoredKeyObject[],
  secret: AccessSecret,
): Promise<RepositoryKeys> {
  return (await openKeyObject(objects, secret)).keys;
}

/** {@link openKeys}, with the object that was opened. */
export async function openKeyObject(
  objects: readonly StoredKeyObject[],
  secret: AccessSecret,
): Promise<OpenedKeys> {
  let unreadable: AshlarError | undefined;
  let found: OpenedKeys | undefined;
  const tried = new Set<string>();
  for (const { name, bytes } of objects) {
    const text = Buffer.from(bytes).toString("latin1");
    if (tried.has(text)) continue;
    tried.add(text);
    try {
      const object = decodeKeyObject(bytes);
      if (!mayFit(object, secret, found)) continue;
      const opened = await tryOpen(object, secret, found?.access);
      if (opened !== undefined && opened.keys.revision > (found?.keys.revision ?? -1)) {
        found = opened;
      }
    } catch (error) {
      unreadable = keyObjectError(name, error);
    }
  }
  if (found !== undefined) return found;
  throw unreadable ?? wrongKey(secret, objects.length);
}

/** Once one is open, the others of the same access key are looked at, and of no other: each would cost a third of a second. */
function mayFit(object: KeyObject, secret: AccessSecret, found: OpenedKeys | undefined): boolean {
  if (object.method.type !== secret.type) return false;
  if (secret.type === "keyfile") return object.accessId === keyFileAccessId(secret.key);
  return found === undefined || object.accessId === found.object.accessId;
}

/** Undefined when the access key does not fit (or the object was edited: the two cannot be told apart). */
async function tryOpen(
  object: KeyObject,
  secret: AccessSecret,
  known: AccessKeys | undefined,
): Promise<OpenedKeys | undefined> {
  if (object.sealed.length <= TAG_BYTES) return undefined;
  const access = known ?? (await accessKeys(secret, object.method));
  const { ephemeral } = object;
  const key = ephemeral ? agreeFrom(ephemeral, access.pair, AGREEMENT_INFO) : access.key;
  const content = key && decrypt(object, key);
  if (content === undefined) return undefined;
  const { dedupKey, hash, repositoryKeys, revision, compression } = decodeKeyContent(content);
  const active = repositoryKeys.find((each) => each.state === "active");
  assert(active !== undefined, "the codec lets one active repository key through");
  const keys: RepositoryKeys = {
    repository: object.repository,
    dedupKey,
    hash,
    activeKeyId: active.id,
    repositoryKeys: new Map(repositoryKeys.map((each) => [each.id, keyOf(each)])),
    revision,
    compression,
  };
  return { keys, object, access };
}

function decrypt(object: KeyObject, key: Buffer): Buffer | undefined {
  const decipher = createDecipheriv(CIPHER, key, object.nonce);
  decipher.setAAD(keyObjectAad(object));
  decipher.setAuthTag(object.sealed.subarray(-TAG_BYTES));
  try {
    const content = decipher.update(object.sealed.subarray(0, -TAG_BYTES));
    decipher.final();
    return content;
  } catch {
    return undefined;
  }
}

function keyOf({ scheme, key, publicKey }: RepositoryKeyRecord): RepositoryKey {
  if (scheme === "aes") return { scheme, key };
  assert(publicKey !== undefined, "the codec lets no X25519 key without its public half through");
  if (key !== undefined && !x25519PublicKey(key).equals(publicKey)) {
    throw new FormatError(
      FormatFault.Malformed,
      "has a repository key whose halves do not belong together",
    );
  }
  return { scheme, publicKey, privateKey: key };
}

function keyObjectError(name: string, error: unknown): AshlarError {
  if (!(error instanceof FormatError)) throw error;
  const code = error.fault === FormatFault.Newer ? ErrorCode.Refused : ErrorCode.Damaged;
  return new AshlarError(code, `key object ${name} ${error.message}`, {
    cause: error,
    remedy:
      code === ErrorCode.Refused
        ? "Use the newer Ashlar."
        : `Put ${name} back from another storage of the repository: every storage has the same one.`,
    details: { name },
  });
}

function wrongKey(secret: AccessSecret, objectCount: number): AshlarError {
  const [message, remedy] =
    secret.type === "keyfile"
      ? [
          "the key file is not one of this repository",
          "Use the key file that `ashlar init` made for it, or a copy.",
        ]
      : ["the passphrase is wrong", "Type it again; upper and lower case differ, spaces count."];
  return new AshlarError(ErrorCode.Refused, message, {
    remedy:
      objectCount === 0
        ? "The storage has no key objects in keys/: bring them back from another one."
        : remedy,
    details: { keyObjects: objectCount },
  });
}
