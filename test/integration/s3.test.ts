/** BlobStore on S3, on a real service: Ceph's object gateway. */
import { randomBytes } from "node:crypto";
import { after, before, describe, type TestContext } from "node:test";
import type { StorageId } from "#lib/core/ids.ts";
import { createStorage, openStorage } from "#lib/drivers/storages.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import { describeBlobStore } from "#test/conformance/blob-store.ts";
import { describeBlobLocking } from "#test/conformance/blob-locking.ts";
import { S3Service } from "#test/fixtures/s3-service.ts";
import { rgwMissing } from "#test/servers/rgw.ts";

const ports = { clock: systemClock(), random: systemRandom() };

/** Makes a storage; gives what opens it. */
async function makeStore(url: string, test: TestContext): Promise<() => Promise<BlobStore>> {
  const identity = randomBytes(8).toString("hex") as StorageId;
  const repository = "aa".repeat(16);
  await createStorage(url, { format: 1, identity, repository, created: "2026-01-01T00:00:00Z" });
  const stores: BlobStore[] = [];
  test.after(() => Promise.all(stores.map((store) => store.close())));
  return async () => {
    const store = await openStorage(url, { identity, ...ports });
    stores.push(store);
    return store;
  };
}

describe("S3 on Ceph's object gateway", { skip: rgwMissing() ?? false }, () => {
  let service: S3Service;
  before(async () => {
    service = await S3Service.start();
  });
  after(() => service.stop());

  for (const [driver, options] of [
    ["s3", { preset: "rgw" }],
    [
      "s3 without conditional writes and multi-delete",
      { conditionalWrites: "false", multiDelete: "false", checksum: "crc32" },
    ],
    ["s3 that keeps versions", { objectLockMode: "none" }],
  ] as const) {
    describeBlobStore(driver, {
      open: async (test) => {
        const { url } =
          "objectLockMode" in options
            ? await service.freshLocked(options)
            : await service.fresh(options);
        const open = await makeStore(url, test);
        const takeAway = async (): Promise<() => Promise<void>> => {
          await service.rgw.kill();
          return () => service.rgw.start();
        };
        return { store: await open(), reopen: open, takeAway };
      },
    });
  }

  for (const [driver, options] of [
    ["s3, governance", {}],
    ["s3, compliance, a request for each", { objectLockMode: "compliance", multiDelete: "false" }],
  ] as const) {
    describeBlobLocking(driver, {
      open: async (test) => {
        const { bucket, url } = await service.freshLocked(options);
        const open = await makeStore(url, test);
        return {
          store: await open(),
          now: () => ports.clock.now(),
          wait: (ms) => ports.clock.sleep(ms),
          hide: (name) => service.remove(bucket, [name]),
        };
      },
    });
  }
});
