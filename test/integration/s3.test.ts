/** BlobStore on S3, on a real service: Ceph's object gateway. */
import { randomBytes } from "node:crypto";
import { after, before, describe } from "node:test";
import type { StorageId } from "#lib/core/ids.ts";
import { createStorage, openStorage } from "#lib/drivers/storages.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import { describeBlobStore } from "#test/conformance/blob-store.ts";
import { S3Service } from "#test/fixtures/s3-service.ts";
import { rgwMissing } from "#test/servers/rgw.ts";

const ports = { clock: systemClock(), random: systemRandom() };

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
  ] as const) {
    describeBlobStore(driver, {
      open: async (test) => {
        const { url } = await service.fresh(options);
        const identity = randomBytes(8).toString("hex") as StorageId;
        const repository = "aa".repeat(16);
        await createStorage(url, {
          format: 1,
          identity,
          repository,
          created: "2026-01-01T00:00:00Z",
        });
        const stores: BlobStore[] = [];
        const open = async (): Promise<BlobStore> => {
          const store = await openStorage(url, { identity, ...ports });
          stores.push(store);
          return store;
        };
        test.after(() => Promise.all(stores.map((store) => store.close())));
        const takeAway = async (): Promise<() => Promise<void>> => {
          await service.rgw.kill();
          return () => service.rgw.start();
        };
        return { store: await open(), reopen: open, takeAway };
      },
    });
  }
});
