// A version's policy after it was made: it may go to more storages than it did, or leave one (DESIGN §4.5, §4.7).
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId, VersionUid } from "#lib/core/ids.ts";
import type { Kv, KvTransaction } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import { currentAt, placedAt } from "../block-record.ts";
import { key } from "../keyspace.ts";
import {
  newGeneration,
  readBlock,
  readPolicyStorages,
  rely,
  saveBlock,
  withCopy,
} from "../ledger.ts";
import { encodeRecord, type VersionRecord } from "../records.ts";
import { hasHeadIn, trashHeads } from "./heads.ts";
import { oweHeads, policyLeft, requireVersion } from "./version.ts";

const EMPTY = Buffer.alloc(0);

/**
 * Adds storages to a version's policy: they are owed its root, from which filling finds all that is below, and its head, whose
 * revision rises, so that each storage tells of all of them. Lands twice without harm.
 * @throws NotFound for a version that is gone, TryAgain for one that is being made, Refused for a storage that is not in use
 */
export function widenPolicy(
  kv: Kv,
  random: Random,
  uid: VersionUid,
  storages: readonly StorageId[],
): Promise<VersionRecord> {
  return kv.transact(
    async (tx) => {
      const version = await requireVersion(tx, uid);
      if (version.state === "incomplete" || version.root === undefined) {
        throw new AshlarError(ErrorCode.TryAgain, `version ${uid} is being made`, {
          remedy: "wait until its backup has ended",
        });
      }
      const added = storages.filter((storage) => !version.policy.storages.includes(storage));
      if (added.length === 0) return version;
      const { taking } = await readPolicyStorages(tx, { storages: added, quorum: 1 });
      const closed = added.find((storage) => !taking.includes(storage));
      if (closed !== undefined) {
        throw new AshlarError(ErrorCode.Refused, `storage ${closed} is not in use`, {
          remedy: "`ashlar storage enable` puts it in use",
        });
      }
      const root = await readBlock(tx, version.root);
      if (root !== undefined) {
        let after = rely(root, added);
        for (const storage of added) {
          if (currentAt(after, storage) !== undefined) continue;
          after = withCopy(after, { state: "owed", storage, generation: newGeneration(random) });
        }
        if (after !== root) await saveBlock(tx, version.root, root, after);
      }
      const widened: VersionRecord = {
        ...version,
        policy: { ...version.policy, storages: [...version.policy.storages, ...added] },
        revision: version.revision + 1,
      };
      tx.set(key.version(uid), encodeRecord(widened));
      oweHeads(tx, widened);
      return widened;
    },
    { label: "widen" },
  );
}

/** How a version leaves a storage. */
export interface Narrowing {
  readonly uid: VersionUid;
  readonly storage: StorageId;
  /** The start of all head names of the version. */
  readonly headPrefix: string;
  /** The storage is lost: the version makes do with what is left, and with a lower quorum if need be. */
  readonly isLost: boolean;
  /** Only these others are known to have what the records say; default: all. */
  readonly verified?: ReadonlySet<StorageId>;
}

/**
 * Takes a storage out of a version's policy: its heads there go to trash, and its root is queued to leave, from which all that is
 * below follows (leave.ts). First a quorum of the others must have it whole, with a head. Lands twice without harm.
 * @throws NotFound for a version that is gone, TryAgain for one that is being made, Refused where the others are not enough
 */
export function narrowPolicy(kv: Kv, narrowing: Narrowing): Promise<VersionRecord> {
  const { uid, storage, headPrefix, isLost, verified } = narrowing;
  return kv.transact(
    async (tx) => {
      const version = await requireVersion(tx, uid);
      if (!version.policy.storages.includes(storage)) return version;
      if (version.state === "incomplete" || version.root === undefined) {
        throw new AshlarError(ErrorCode.TryAgain, `version ${uid} is being made`, {
          remedy: "wait until its backup has ended",
        });
      }
      const storages = version.policy.storages.filter((other) => other !== storage);
      const others = storages.filter((other) => verified?.has(other) !== false);
      if (!isLost) await requireWholeElsewhere(tx, version, others, headPrefix);
      // Whoever has lost the only one keeps the name of what is lost.
      if (storages.length === 0) return version;
      const narrowed: VersionRecord = {
        ...version,
        policy: policyLeft(version.policy, [storage]),
        revision: version.revision + 1,
      };
      tx.set(key.version(uid), encodeRecord(narrowed));
      oweHeads(tx, narrowed);
      tx.clear(key.owedHead(storage, uid));
      await trashHeads(tx, storage, headPrefix, () => true);
      tx.set(key.leaving(storage, version.root), EMPTY);
      return narrowed;
    },
    { label: "free:narrow" },
  );
}

/** A quorum of these storages has the version whole, with a head that tells of it. */
async function requireWholeElsewhere(
  tx: KvTransaction,
  version: VersionRecord,
  storages: readonly StorageId[],
  headPrefix: string,
): Promise<void> {
  const { uid, policy, root } = version;
  const { counting } = await readPolicyStorages(tx, { storages, quorum: 1 });
  const record = root === undefined ? undefined : await readBlock(tx, root);
  let whole = 0;
  for (const storage of counting) {
    const isPlaced = record !== undefined && placedAt(record, storage) !== undefined;
    if (isPlaced && (await hasHeadIn(tx, storage, headPrefix))) whole += 1;
  }
  if (version.state === "valid" && whole >= policy.quorum) return;
  throw new AshlarError(
    ErrorCode.Refused,
    version.state === "valid"
      ? `${whole} of its other storages have version ${uid} whole, and its policy wants ${policy.quorum}`
      : `version ${uid} is damaged`,
    {
      remedy:
        version.state === "valid"
          ? "`ashlar replicate --to NAME` gives it to another storage first"
          : "`ashlar scrub` heals it from what is there, `ashlar rm` gives it up",
      details: { uid, whole, quorum: policy.quorum },
    },
  );
}
