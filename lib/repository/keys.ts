// Keys of a repository: made once at `init`, kept sealed under access keys in `keys/` objects, never anywhere in the clear.
import { randomBytes } from "node:crypto";
import { assert } from "#lib/core/assert.ts";
import type { Compression, WrapScheme } from "#proto/sealed-object.ts";
import { createX25519Pair } from "./x25519.ts";

/** What hashing needs: all that a reader is given. */
export interface HashKeys {
  /** Of 32 bytes. Cannot be rotated: it gives every id. */
  readonly dedupKey: Uint8Array;
  readonly hash: "blake3" | "hmac-sha256";
}

/**
 * A repository key of 32 bytes: a symmetric one, or an X25519 pair of which writers need the public half only. The secret half
 * is undefined for who has a write-only access key.
 */
export type RepositoryKey =
  | { readonly scheme: "aes"; readonly key: Uint8Array | undefined }
  | {
      readonly scheme: "x25519";
      readonly publicKey: Uint8Array;
      readonly privateKey: Uint8Array | undefined;
    };

/** All keys of a repository. It can be cloned into a worker. */
export interface RepositoryKeys extends HashKeys {
  /** Identity of the repository, 16 hex digits. */
  readonly repository: string;
  /** The repository key that wraps what is new. */
  readonly activeKeyId: string;
  /** Repository keys by id (16 hex digits), the active one and the retired ones. */
  readonly repositoryKeys: ReadonlyMap<string, RepositoryKey>;
  /** How often the repository keys were changed. */
  readonly revision: number;
  /** Used where the configuration says nothing. */
  readonly compression: Compression;
}

const KEY_BYTES = 32;
const SHORT_ID_BYTES = 8;

/** Makes the keys of a new repository. */
export function createRepositoryKeys(options: {
  readonly hash: HashKeys["hash"];
  readonly compression: Compression;
  /** What the repository key is; default: symmetric. */
  readonly scheme?: WrapScheme;
}): RepositoryKeys {
  const activeKeyId = randomBytes(SHORT_ID_BYTES).toString("hex");
  return {
    repository: randomBytes(SHORT_ID_BYTES).toString("hex"),
    dedupKey: randomBytes(KEY_BYTES),
    hash: options.hash,
    activeKeyId,
    repositoryKeys: new Map([[activeKeyId, createRepositoryKey(options.scheme ?? "aes")]]),
    revision: 0,
    compression: options.compression,
  };
}

function createRepositoryKey(scheme: WrapScheme): RepositoryKey {
  if (scheme === "aes") return { scheme, key: randomBytes(KEY_BYTES) };
  return { scheme, ...createX25519Pair() };
}

/** The keys with a new active repository key; the one before is retired, and still opens. */
export function rotateKeys(keys: RepositoryKeys, scheme?: WrapScheme): RepositoryKeys {
  const activeKeyId = randomBytes(SHORT_ID_BYTES).toString("hex");
  const before = keys.repositoryKeys.get(keys.activeKeyId);
  assert(before !== undefined, "the active repository key is among the repository's keys");
  const added = createRepositoryKey(scheme ?? before.scheme);
  return {
    ...keys,
    activeKeyId,
    repositoryKeys: new Map([...keys.repositoryKeys, [activeKeyId, added]]),
    revision: keys.revision + 1,
  };
}

/** What a write-only access key opens: the ids of all repository keys, and the public half of those that have one. */
export function writeOnlyKeys(keys: RepositoryKeys): RepositoryKeys {
  const repositoryKeys = [...keys.repositoryKeys].map(([id, key]): [string, RepositoryKey] => [
    id,
    key.scheme === "aes" ? { ...key, key: undefined } : { ...key, privateKey: undefined },
  ]);
  return { ...keys, repositoryKeys: new Map(repositoryKeys) };
}

/** The secret half of a repository key; undefined for who may only write. */
export function secretOf(key: RepositoryKey): Uint8Array | undefined {
  return key.scheme === "aes" ? key.key : key.privateKey;
}

/** Whether all that is sealed under these keys can be opened with them: not with a write-only access key. */
export function canOpen({ repositoryKeys }: Pick<RepositoryKeys, "repositoryKeys">): boolean {
  return [...repositoryKeys.values()].every((key) => secretOf(key) !== undefined);
}
