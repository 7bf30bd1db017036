// Access keys of a repository: who can open it, and its repository keys. Each change is one transaction in the metadata, and then a
// put or delete at every storage that is there; the others catch up when somebody writes to them.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { openSet, type Keyring } from "#lib/process/keyring.ts";
import { followKeyCopies } from "#lib/process/metadata-folder.ts";
import type { AccessSecret } from "#lib/repository/access-key.ts";
import { addFacts, resealKeys, sealKeys, verifyFacts } from "#lib/repository/key-objects.ts";
import { canOpen, rotateKeys } from "#lib/repository/keys.ts";
import { refusedToWriters } from "#lib/repository/key-wrap.ts";
import type { AccessKeyRecord } from "#lib/repository/records.ts";
import {
  changeAccessKeys,
  readAccessKeys,
  type AccessKeyChange,
  type AccessKeyEntry,
  type AccessKeySet,
} from "#lib/repository/transactions/access-keys.ts";
import { FormatError } from "#proto/format-error.ts";
import { decodeKeyObject, type AccessCapability, type KeyObject } from "#proto/key-object.ts";
import type { WrapScheme } from "#proto/sealed-object.ts";
import { renewHeads } from "#services/coordinator/renew-heads.ts";
import type { Engine } from "./compose.ts";
import { prepareChange, putHeadsNow } from "./owed-heads.ts";

/** What a storage has of a change. */
export interface SpreadOutcome {
  readonly storage: string;
  /** Null: it has all. Else why it has not; it catches up when somebody writes to it. */
  readonly reason: string | null;
}

/** An access key of the set, which is none that was removed. */
export type LiveAccessKey = AccessKeyEntry & { readonly object: Buffer };

/** The access keys that have not been removed. */
export function liveKeys({ entries }: AccessKeySet): LiveAccessKey[] {
  return entries.flatMap((entry) =>
    entry.record.object === undefined ? [] : [{ ...entry, object: entry.record.object }],
  );
}

/** The keys of an engine, with everything that a key verb needs of them; what the first release made is brought up to date. */
export async function openKeysOf(engine: Engine): Promise<Keyring> {
  await engine.repository();
  const keyring = await engine.keyring();
  await addOwnFacts(engine, keyring);
  return keyring;
}

/** Only who has the access key can say what its public key is. */
async function addOwnFacts(engine: Engine, keyring: Keyring): Promise<void> {
  const { opened } = keyring;
  const { accessId, facts } = opened.object;
  if (facts !== undefined || !canOpen(opened.keys)) return;
  const set = await readAccessKeys(engine.kv);
  const own = liveKeys(set).find((each) => each.accessId === accessId);
  if (own === undefined) return;
  const { label, createdMs } = own.record;
  const object = Buffer.from(addFacts(opened, { label, createdMs }).bytes);
  await change(engine, [{ accessId, before: own.record, after: { ...own.record, object } }]);
  await keyring.refresh();
}

/** The error when it is an expected one; any other is thrown again. */
export function asReason(error: unknown): AshlarError {
  if (error instanceof AshlarError) return error;
  throw error;
}

/** A key object; undefined for one that cannot be read. */
export function decodeOrNothing(bytes: Uint8Array): KeyObject | undefined {
  try {
    return decodeKeyObject(bytes);
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return undefined;
  }
}

/** What a new access key is to be. */
export interface NewAccessKey {
  readonly secret: AccessSecret;
  readonly label: string;
  readonly capability: AccessCapability;
}

/** Makes an access key. */
export async function addAccessKey(
  engine: Engine,
  { secret, label, capability }: NewAccessKey,
): Promise<{ readonly id: string; readonly storages: readonly SpreadOutcome[] }> {
  const keyring = await requireFull(engine, "no access key was added");
  const set = await currentSet(engine, keyring);
  const { keys } = keyring.opened;
  const active = keys.repositoryKeys.get(keys.activeKeyId);
  if (capability === "write-only" && active?.scheme !== "x25519") {
    throw new AshlarError(
      ErrorCode.Refused,
      "a write-only access key needs an X25519 repository key, and this repository's is symmetric",
      { remedy: "`ashlar key rotate --repository-key x25519` makes one" },
    );
  }
  await requireNew(set, secret, label);
  const createdMs = engine.ports.clock.now();
  const made = await sealKeys(keys, secret, { label, createdMs, capability });
  const after: AccessKeyRecord = {
    object: Buffer.from(made.bytes),
    label,
    capability,
    createdMs,
  };
  const before = set.entries.find(({ accessId }) => accessId === made.accessId)?.record;
  const { version } = set;
  await change(engine, [{ accessId: made.accessId, before, after }], { version });
  return { id: made.accessId, storages: await spread(engine) };
}

async function requireNew(set: AccessKeySet, secret: AccessSecret, label: string): Promise<void> {
  const live = liveKeys(set);
  const twin = live.find(({ record }) => label !== "" && record.label === label);
  if (twin !== undefined) {
    throw new AshlarError(
      ErrorCode.AlreadyExists,
      `access key ${twin.accessId} is labelled ${label} already`,
      { remedy: "choose another label" },
    );
  }
  const known = await openSet(set, secret).catch((error: unknown) => {
    if (error instanceof AshlarError) return undefined;
    throw error;
  });
  if (known === undefined) return;
  throw new AshlarError(
    ErrorCode.AlreadyExists,
    `this is an access key of the repository already (${known.object.accessId})`,
  );
}

/** The access key of that id or label; NotFound names those that there are. */
export function findAccessKey(set: AccessKeySet, name: string): LiveAccessKey {
  const live = liveKeys(set);
  const found =
    live.find(({ accessId }) => accessId === name) ??
    live.find(({ record }) => record.label === name);
  if (found !== undefined) return found;
  const names = live.map(({ accessId, record }) => record.label || accessId);
  throw new AshlarError(ErrorCode.NotFound, `there is no access key ${name}`, {
    remedy: `the repository has: ${names.join(", ")}`,
  });
}

/**
 * Removes an access key: never the last full one, and the one in use only where `other` shows that another full one opens.
 */
export async function removeAccessKey(
  engine: Engine,
  name: string,
  other: AccessSecret | undefined,
): Promise<{ readonly id: string; readonly storages: readonly SpreadOutcome[] }> {
  const keyring = await requireFull(engine, "no access key was removed");
  const set = await currentSet(engine, keyring);
  const { accessId, record } = findAccessKey(set, name);
  const isOwn = accessId === keyring.opened.object.accessId;
  if (isOwn) await requireOther(set, accessId, other);
  const { label, capability, createdMs } = record;
  const removedMs = engine.ports.clock.now();
  const after = { object: undefined, label, capability, createdMs, removedMs };
  await change(engine, [{ accessId, before: record, after }], { version: set.version });
  return { id: accessId, storages: await spread(engine) };
}

async function requireOther(
  set: AccessKeySet,
  accessId: string,
  other: AccessSecret | undefined,
): Promise<void> {
  const remedy =
    "show that another full access key opens, with --key-file, --passphrase-file or --passphrase";
  if (other === undefined) {
    throw new AshlarError(ErrorCode.Refused, "this access key is the one in use", { remedy });
  }
  const others = { ...set, entries: set.entries.filter((each) => each.accessId !== accessId) };
  const { keys } = await openSet(others, other);
  if (canOpen(keys)) return;
  throw new AshlarError(ErrorCode.Refused, "the other access key is write-only", { remedy });
}

/** What a rotation has done. */
export interface Rotation {
  readonly repositoryKey: string;
  readonly retired: string;
  readonly accessKeys: number;
  readonly storages: readonly SpreadOutcome[];
}

/** Makes a new active repository key, seals all keys to every access key anew, and retires the one before. */
export async function rotateRepositoryKey(
  engine: Engine,
  scheme: WrapScheme | undefined,
): Promise<Rotation> {
  const keyring = await requireFull(engine, "no repository key was made");
  const set = await currentSet(engine, keyring);
  const { keys } = keyring.opened;
  const live = liveKeys(set);
  requireSealable(keyring, live, scheme);
  const rotated = rotateKeys(keys, scheme);
  const changes = live.map(({ accessId, record, object }): AccessKeyChange => ({
    accessId,
    before: record,
    after: { ...record, object: Buffer.from(resealKeys(rotated, decodeKeyObject(object)).bytes) },
  }));
  await change(engine, changes, { complete: true, version: set.version });
  // This process, too, seals under the new key from here on, and only where the key objects are.
  await keyring.refresh();
  const storages = await spread(engine);
  // Heads are small: all are put anew at once, and `gc` does what this does not come to.
  await renewHeads(await engine.repository(), engine.context.signal);
  await putHeadsNow(engine);
  return {
    repositoryKey: rotated.activeKeyId,
    retired: keys.activeKeyId,
    accessKeys: changes.length,
    storages,
  };
}

/** Nobody is locked out by a rotation, and nobody is sealed to whom no full holder has let in. */
function requireSealable(
  { opened: { keys } }: Keyring,
  live: readonly LiveAccessKey[],
  scheme: WrapScheme | undefined,
): void {
  const name = ({ accessId, record }: AccessKeyEntry): string => record.label || accessId;
  const writers = live.filter(({ record }) => record.capability === "write-only");
  if (scheme === "aes" && writers.length > 0) {
    throw new AshlarError(
      ErrorCode.Refused,
      `write-only access keys cannot seal under a symmetric repository key: ${writers.map(name).join(", ")}`,
      { remedy: "`ashlar key remove` takes them away first" },
    );
  }
  const objects = live.map((entry) => ({ entry, object: decodeOrNothing(entry.object) }));
  const old = objects.filter(({ object }) => object !== undefined && object.facts === undefined);
  if (old.length > 0) {
    const names = old.map(({ entry }) => name(entry)).join(", ");
    throw new AshlarError(
      ErrorCode.Refused,
      `these access keys were made by an older Ashlar and cannot be sealed to without their secret: ${names}`,
      { remedy: "run `ashlar key ls` once with each of them, or `ashlar key remove` it" },
    );
  }
  const strange = objects.filter(
    ({ object }) => object === undefined || verifyFacts(keys, object) !== "active",
  );
  if (strange.length === 0) return;
  const names = strange.map(({ entry }) => name(entry)).join(", ");
  throw new AshlarError(
    ErrorCode.Refused,
    `nobody with all keys of the repository vouches for these access keys: ${names}`,
    {
      remedy:
        "`ashlar key remove` takes them away; where you know whose they are, add them again after that",
    },
  );
}

async function requireFull(engine: Engine, what: string): Promise<Keyring> {
  // Where storages and metadata do not know each other, nothing is changed.
  await prepareChange(engine);
  const keyring = await openKeysOf(engine);
  if (canOpen(keyring.opened.keys)) return keyring;
  throw refusedToWriters(what);
}

/** The access keys, and the keyring as they have it: nobody seals the keys of before a rotation to anybody. */
async function currentSet(engine: Engine, keyring: Keyring): Promise<AccessKeySet> {
  await keyring.refresh();
  const set = await readAccessKeys(engine.kv);
  if (set.version === keyring.version) return set;
  throw new AshlarError(ErrorCode.TryAgain, "somebody else is changing the access keys", {
    remedy: "look at `ashlar key ls`, and run it again",
  });
}

async function change(
  engine: Engine,
  changes: readonly AccessKeyChange[],
  options: { readonly complete?: boolean; readonly version?: number } = {},
): Promise<void> {
  const set = await changeAccessKeys(engine.kv, changes, options);
  engine.keyFolders.require(set.version);
  await followKeyCopies(engine.config.metadata, set, engine.context.log);
}

/** Brings all storages that are there in line with the access keys. */
async function spread(engine: Engine): Promise<SpreadOutcome[]> {
  const outcomes: SpreadOutcome[] = [];
  for (const { id, name, store } of (await engine.storages()).set.list()) {
    const state = engine.knownStorages.find(({ storage }) => storage === id)?.record.state;
    const reason =
      store instanceof AshlarError
        ? store.message
        : state === "disabled" || state === "retired"
          ? `it is ${state}`
          : await engine.keyFolders.bringInLine(store, name).then(
              () => null,
              (error: unknown) => asReason(error).message,
            );
    outcomes.push({ storage: name, reason });
  }
  return outcomes;
}
