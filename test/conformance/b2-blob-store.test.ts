// BlobStore on Backblaze B2, on a double: no real one can be had in a test.
import { after, before, describe } from "node:test";
import type { StorageId } from "#lib/core/ids.ts";
import { openB2BlobStore } from "#lib/drivers/b2/b2-blob-store.ts";
import { parseB2Url } from "#lib/drivers/b2/b2-settings.ts";
import { createB2Storage } from "#lib/drivers/b2/create-b2-storage.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import { B2Service } from "#test/fixtures/b2-service.ts";
import { describeBlobStore } from "./blob-store.ts";

const MARKER = {
  format: 1,
  identity: "00112233445566ff" as StorageId,
  repository: "aa".repeat(16),
  created: "2026-01-01T00:00:00Z",
} as const;

describe("Backblaze B2", () => {
  let service: B2Service;
  before(async () => {
    service = await B2Service.start();
  });
  after(() => service.stop());

  describeBlobStore("b2", {
    open: async (test) => {
      const { bucketName } = service.fresh();
      const settings = parseB2Url(service.url(bucketName, { attempts: "2" }));
      await createB2Storage(settings, MARKER);
      const stores: BlobStore[] = [];
      const open = async (): Promise<BlobStore> => {
        const pause = () => Promise.resolve();
        const expectIdentity = MARKER.identity;
        const clock = systemClock();
        const store = await openB2BlobStore({ settings, expectIdentity, clock, pause });
        stores.push(store);
        return store;
      };
      test.after(() => Promise.all(stores.map((store) => store.close())));
      const takeAway = async (): Promise<() => Promise<void>> => {
        await service.double.stop();
        return () => service.double.resume();
      };
      return { store: await open(), reopen: open, takeAway };
    },
  });
});
