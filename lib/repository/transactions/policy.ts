// A version's policy after it was made: it may go to more storages than it did (DESIGN §4.7).
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId, VersionUid } from "#lib/core/ids.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import { currentAt } from "../block-record.ts";
import { key } from "../keyspace.ts";
import { newGeneration, readBlock, readPolicyStorages, saveBlock, withCopy } from "../ledger.ts";
import { encodeRecord, type VersionRecord } from "../records.ts";
import { oweHeads, requireVersion } from "./version.ts";

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
        let after = root;
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
