import assert from "node:assert/strict";
import { mkdtemp, rename, rm, unlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it, type TestContext } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { encodeStorageMarker, MARKER_NAME } from "#lib/drivers/storage-marker.ts";
import { StoragePresence } from "./storage-presence.ts";

const OWN = "00112233445566aa" as StorageId;
const OTHER = "00112233445566bb" as StorageId;

function markerOf(identity: StorageId): string {
  const created = "2026-01-01T00:00:00.000Z";
  return encodeStorageMarker({ format: 1, identity, repository: "bb".repeat(16), created });
}

async function newFolder(test: TestContext): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), "ashlar-presence-"));
  test.after(() => rm(folder, { recursive: true }));
  await writeFile(path.join(folder, MARKER_NAME), markerOf(OWN));
  return folder;
}

function isAway(error: unknown): true {
  assert.ok(isErrorCode(error, ErrorCode.Unavailable), String(error));
  return true;
}

describe("storage presence", () => {
  it("sees another marker in the folder that it knows: disks that changed places", async (test) => {
    const folder = await newFolder(test);
    const presence = await StoragePresence.open(folder, OWN);
    await presence.check();
    const file = path.join(folder, MARKER_NAME);
    await writeFile(`${file}.new`, markerOf(OTHER));
    await rename(`${file}.new`, file);
    await assert.rejects(presence.check(), (error) => {
      assert.match((error as Error).message, new RegExp(`${OTHER}.*instead of ${OWN}`));
      return isAway(error);
    });
    await assert.rejects(presence.check(), isAway, "it stays away");
    await writeFile(file, markerOf(OWN));
    await presence.check();
  });

  it("sees a marker that was overwritten in place", async (test) => {
    const folder = await newFolder(test);
    const file = path.join(folder, MARKER_NAME);
    const time = new Date("2026-01-01T00:00:00Z");
    await utimes(file, time, time);
    const presence = await StoragePresence.open(folder);
    await writeFile(file, markerOf(OTHER));
    // Whoever puts files back also puts their times back: the inode's own time tells.
    await utimes(file, time, time);
    await assert.rejects(presence.check(), isAway);
  });

  it("takes a marker that was put back from a copy, and misses one that is gone", async (test) => {
    const folder = await newFolder(test);
    const presence = await StoragePresence.open(folder, OWN);
    const file = path.join(folder, MARKER_NAME);
    await unlink(file);
    await assert.rejects(presence.check(), isAway);
    await writeFile(file, markerOf(OWN));
    await presence.check();
    await presence.check();
  });
});
