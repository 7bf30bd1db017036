import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { StorageId, VersionUid } from "#lib/core/ids.ts";
import { openMemoryKv } from "#lib/drivers/memory/memory-kv.ts";
import { key } from "#lib/repository/keyspace.ts";
import { encodeRecord, type VersionRecord } from "#lib/repository/records.ts";
import { compileSelection } from "#services/coordinator/selection.ts";
import { resolveVersions, selectVersions } from "./selection.ts";

const NOW = Date.parse("2026-05-09T12:00:00Z");
const names = (storage: StorageId): string => `name-of-${storage}`;

function version(uid: string, given: Partial<VersionRecord> = {}): VersionRecord {
  return {
    uid: uid as VersionUid,
    volume: uid.slice(0, uid.lastIndexOf("-")),
    snapshot: "",
    createdMs: NOW,
    sizeBytes: 1,
    blockBytes: 1,
    state: "valid",
    protected: false,
    labels: {},
    policy: { storages: ["aa" as StorageId], quorum: 1 },
    statistics: undefined,
    ...given,
  } as VersionRecord;
}

async function kvWith(...versions: VersionRecord[]) {
  const kv = openMemoryKv();
  await kv.transact(async (tx) => {
    for (const each of versions) {
      tx.set(key.version(each.uid), encodeRecord(each));
      tx.set(key.volume(each.volume, each.createdMs, each.uid), Buffer.alloc(0));
    }
    await Promise.resolve();
  });
  return kv;
}

describe("a selection", () => {
  it("without a filter is everything; with one, what it matches", async () => {
    assert.ok((await compileSelection(undefined, names, NOW))(version("a-1")));
    const filter = await compileSelection('volume == "a" and storage == "name-of-aa"', names, NOW);
    assert.ok(filter(version("a-1")));
    assert.ok(!filter(version("b-1")));
  });

  it("is a uid, its beginning or VOLUME@latest where it looks like one, else a filter", async () => {
    const kv = await kvWith(version("web-x1"), version("web-y2", { createdMs: NOW + 1 }));
    const select = (text: string | undefined) => selectVersions(kv, text, names, NOW);
    assert.equal((await select("web-x")).uid, "web-x1");
    assert.equal((await select("web@latest")).uid, "web-y2");
    assert.equal((await select(undefined)).uid, undefined);
    for (const text of ["protected", 'volume == "web"', "not protected", "(protected)"]) {
      assert.equal((await select(text)).uid, undefined, text);
    }
    const { include } = await select("web-x1");
    assert.deepEqual([include(version("web-x1")), include(version("web-y2"))], [true, false]);
    await assert.rejects(select("db-1"), (error) => isErrorCode(error, ErrorCode.NotFound));
    await assert.rejects(select("volume =="), (error) => isErrorCode(error, ErrorCode.Usage));
  });

  it("of several uids has each once, in the given order", async () => {
    const kv = await kvWith(version("web-x1"), version("db-y2"));
    assert.deepEqual(await resolveVersions(kv, ["web-x1", "db", "web"]), ["web-x1", "db-y2"]);
  });
});
