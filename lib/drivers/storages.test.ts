import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { createStorage, openStorage, readStorageMarker } from "./storages.ts";
import { systemClock } from "./system/system-clock.ts";
import { systemRandom } from "./system/system-random.ts";

const PORTS = { clock: systemClock(), random: systemRandom() };
const MARKER = {
  format: 1,
  identity: "00112233445566cc" as StorageId,
  repository: "aa",
  created: "2026-01-01T00:00:00Z",
} as const;

describe("storages", () => {
  it("are made, looked at and opened by their URLs", async (test) => {
    const folder = await mkdtemp(path.join(tmpdir(), "ashlar-storages-"));
    test.after(() => rm(folder, { recursive: true }));
    const url = `file://${folder}/with%20space`;
    await createStorage(url, MARKER);
    assert.deepEqual(await readStorageMarker(`${folder}/with space`), MARKER);
    const store = await openStorage(url, { identity: MARKER.identity, ...PORTS });
    await store.put("keys/a", Buffer.from("x"), { mode: "create" });
    assert.equal(Buffer.from(await store.get("keys/a")).toString(), "x");
    await store.close();
  });

  it("need a kind that is known, and an absolute path", async () => {
    for (const url of ["s3:bucket", "file:relative", "relative", "-"]) {
      await assert.rejects(openStorage(url, PORTS), (error) => isErrorCode(error, ErrorCode.Usage));
    }
  });
});
