// What `ashlar key ls` shows: access keys, which storages have them, and what storages have that is none.
import { AshlarError } from "#lib/core/errors.ts";
import { readKeyFolder } from "#lib/process/key-folder.ts";
import type { Keyring } from "#lib/process/keyring.ts";
import { verifyFacts } from "#lib/repository/key-objects.ts";
import { readAccessKeys, type AccessKeySet } from "#lib/repository/transactions/access-keys.ts";
import type { AccessCapability, KeyObject } from "#proto/key-object.ts";
import { keyObjectName } from "#proto/object-names.ts";
import type { WrapScheme } from "#proto/sealed-object.ts";
import { asReason, decodeOrNothing, liveKeys, openKeysOf } from "./access-keys.ts";
import type { Engine } from "./compose.ts";

/** An access key as `key ls` shows it. */
export interface ListedAccessKey {
  readonly id: string;
  readonly label: string;
  readonly type: "keyfile" | "passphrase" | "unknown";
  readonly capability: AccessCapability;
  /** ISO 8601; null where nobody wrote it down. */
  readonly createdAt: string | null;
  readonly inUse: boolean;
  /**
   * Whether the repository keys can be sealed to it anew: *no* for one that the first release made and that has not been used
   * since, *forged* for one that nobody with all keys vouches for; *unknown* to who has a write-only key.
   */
  readonly rotates: "yes" | "no" | "forged" | "unknown";
  /** Storages that have it as it is, and those that are there and do not. */
  readonly storages: readonly string[];
  readonly missingAt: readonly string[];
}

/** What storages show that is no access key of the repository. */
export interface StrangeKeyObject {
  readonly storage: string;
  readonly name: string;
  /** It was removed, and goes when somebody writes to the storage. */
  readonly removed: boolean;
}

/** All that `key ls` shows. */
export interface AccessKeyList {
  readonly keys: readonly ListedAccessKey[];
  readonly strangers: readonly StrangeKeyObject[];
  readonly away: readonly { readonly storage: string; readonly reason: string }[];
  readonly repositoryKeys: readonly {
    readonly id: string;
    readonly kind: WrapScheme;
    readonly state: "active" | "retired";
  }[];
}

/** All access keys, and what the storages have of them. */
export async function listAccessKeys(engine: Engine): Promise<AccessKeyList> {
  const keyring = await openKeysOf(engine);
  const { keys, object: own } = keyring.opened;
  const set = await readAccessKeys(engine.kv);
  const folders = new Map<string, Map<string, Uint8Array>>();
  const away: { storage: string; reason: string }[] = [];
  for (const { name, store } of (await engine.storages()).set.list()) {
    const there = store instanceof AshlarError ? store : await readKeyFolder(store).catch(asReason);
    if (there instanceof AshlarError) away.push({ storage: name, reason: there.message });
    else folders.set(name, there);
  }
  const listed = liveKeys(set).map(({ accessId, record, object: bytes }): ListedAccessKey => {
    const object = decodeOrNothing(bytes);
    const hasIt = ([, there]: readonly [string, Map<string, Uint8Array>]): boolean => {
      const found = there.get(keyObjectName(accessId));
      return found !== undefined && bytes.equals(found);
    };
    return {
      id: accessId,
      label: record.label,
      type: object?.method.type ?? "unknown",
      capability: record.capability,
      createdAt: record.createdMs === 0 ? null : new Date(record.createdMs).toISOString(),
      inUse: accessId === own.accessId,
      rotates: object === undefined ? "unknown" : rotatesOf(keyring, object),
      storages: [...folders].filter(hasIt).map(([name]) => name),
      missingAt: [...folders].filter((each) => !hasIt(each)).map(([name]) => name),
    };
  });
  return {
    keys: listed.toSorted((a, b) => (a.createdAt ?? "").localeCompare(b.createdAt ?? "")),
    strangers: strangersOf(set, folders),
    away,
    repositoryKeys: [...keys.repositoryKeys].map(([id, { scheme }]) => ({
      id,
      kind: scheme,
      state: id === keys.activeKeyId ? "active" : "retired",
    })),
  };
}

function strangersOf(
  set: AccessKeySet,
  folders: ReadonlyMap<string, ReadonlyMap<string, Uint8Array>>,
): StrangeKeyObject[] {
  const live = new Set(liveKeys(set).map(({ accessId }) => keyObjectName(accessId)));
  const removed = new Set(set.entries.map(({ accessId }) => keyObjectName(accessId)));
  return [...folders].flatMap(([storage, there]) =>
    [...there.keys()]
      .filter((name) => !live.has(name))
      .map((name) => ({ storage, name, removed: removed.has(name) })),
  );
}

function rotatesOf(keyring: Keyring, object: KeyObject): ListedAccessKey["rotates"] {
  if (object.facts === undefined) return "no";
  const verdict = verifyFacts(keyring.opened.keys, object);
  if (verdict === "active") return "yes";
  return verdict === "unknown" ? "unknown" : "forged";
}
