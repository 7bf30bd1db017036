// The end of a backup, when others change the version between its turning valid and its acknowledgement.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { changeVersion, removeVersion } from "#lib/repository/transactions/version.ts";
import { BLOCK_BYTES, openOneProcess, type OneProcess } from "#test/fixtures/one-process.ts";
import type { CoordinatorContext } from "./context.ts";
import { runBackup } from "./backup-job.ts";
import { listPlacedVersions } from "./listing.ts";

/** Does something when the heads of the new version have been put, and has them put once more. */
function afterHeads(
  { context }: OneProcess,
  meddle: (uid: Parameters<typeof changeVersion>[1]) => Promise<unknown>,
): CoordinatorContext {
  const { upkeep } = context;
  return {
    ...context,
    upkeep: {
      ...upkeep,
      putHeads: async (which, options) => {
        const heads = await upkeep.putHeads(which, options);
        if (which.uid === undefined) return heads;
        await meddle(which.uid);
        return upkeep.putHeads(which, options);
      },
    },
  };
}

async function opened(): Promise<OneProcess> {
  const process = await openOneProcess({ storages: 2, quorum: 2 });
  process.device("disk", seededRandom(1).bytes(3 * BLOCK_BYTES));
  return process;
}

describe("a version that is changed before its backup is acknowledged", () => {
  it("counts where a head of it is, though a newer one is owed", async () => {
    const process = await opened();
    const context = afterHeads(process, async (uid) => {
      await changeVersion(process.repo.kv, uid, { labels: { site: "north" } });
      for (const store of process.stores) {
        store.faults = {
          before: ({ kind, name }) => {
            if (kind !== "put" || !name.startsWith("heads/")) return "none";
            throw new AshlarError(ErrorCode.Unavailable, "no new heads now");
          },
        };
      }
    });
    const { uid } = await runBackup(context, { source: "disk", volume: "v" });
    const [listed] = await listPlacedVersions(process.repo.kv);
    assert.equal(listed?.version.uid, uid);
    await process.close();
  });

  it("is not acknowledged when somebody has removed it", async () => {
    const process = await opened();
    const context = afterHeads(process, (uid) => removeVersion(process.repo.kv, uid));
    await assert.rejects(
      runBackup(context, { source: "disk", volume: "v" }),
      (error) =>
        isErrorCode(error, ErrorCode.NotFound) && /removed by somebody/.test(error.message),
    );
    await process.close();
  });
});
