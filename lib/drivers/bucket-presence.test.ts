import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { virtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import { BucketPresence } from "./bucket-presence.ts";
import type { StorageMarker } from "./storage-marker.ts";

const marker: StorageMarker = {
  format: 1,
  identity: "00112233445566ff" as StorageId,
  repository: "aa".repeat(16),
  created: "2026-01-01T00:00:00Z",
};
const LONG_MS = 3_600_000;

describe("the presence of a storage in a bucket", () => {
  it("is looked for once by all who ask at the same time, and believed for a while", async () => {
    const clock = virtualClock();
    let reads = 0;
    const read = (): Promise<StorageMarker> => {
      reads += 1;
      return Promise.resolve(marker);
    };
    const presence = await BucketPresence.open(
      { location: "s3://b", read, clock },
      marker.identity,
    );
    await presence.checkLately();
    assert.equal(reads, 1);
    await clock.advance(LONG_MS);
    await Promise.all([presence.checkLately(), presence.checkLately(), presence.checkLately()]);
    assert.equal(reads, 2);
  });

  it("keeps nobody waiting who has had enough, and fails those who wait on", async () => {
    const clock = virtualClock();
    const look = Promise.withResolvers<StorageMarker>();
    let isFirst = true;
    const read = (): Promise<StorageMarker> => {
      if (!isFirst) return look.promise;
      isFirst = false;
      return Promise.resolve(marker);
    };
    const presence = await BucketPresence.open(
      { location: "s3://b", read, clock },
      marker.identity,
    );
    await clock.advance(LONG_MS);
    const stop = new AbortController();
    const impatient = presence.checkLately(stop.signal);
    const patient = presence.checkLately();
    stop.abort(new Error("enough"));
    await assert.rejects(impatient, { message: "enough" });
    look.resolve({ ...marker, identity: "ffffffffffffffff" as StorageId });
    await assert.rejects(patient, (error) => isErrorCode(error, ErrorCode.Unavailable));
  });

  it("is in doubt when the marker is damaged, which says nothing about an object", async () => {
    const clock = virtualClock();
    let isFirst = true;
    const read = (): Promise<StorageMarker> => {
      if (!isFirst) return Promise.reject(new AshlarError(ErrorCode.Damaged, "that is no marker"));
      isFirst = false;
      return Promise.resolve(marker);
    };
    const presence = await BucketPresence.open({ location: "s3://b", read, clock }, undefined);
    await assert.rejects(presence.check(), (error) => isErrorCode(error, ErrorCode.Unavailable));
  });
});
