// Keys that are restricted, wrong or missing, and buckets that are not there.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import {
  createStorage,
  discardStorage,
  openStorage,
  readStorageMarker,
} from "#lib/drivers/storages.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import { B2_PREFIX, B2Service } from "#test/fixtures/b2-service.ts";
import type { DoubleKey } from "#test/servers/b2-double.ts";

const PORTS = { clock: systemClock(), random: systemRandom() };
const MARKER = {
  format: 1,
  identity: "00112233445566ff" as StorageId,
  repository: "aa".repeat(16),
  created: "2026-01-01T00:00:00Z",
} as const;

function isError(code: ErrorCode, message: RegExp, errno?: string) {
  return (error: unknown): true => {
    assert.ok(error instanceof AshlarError, String(error));
    assert.deepEqual([error.code, error.details["errno"]], [code, errno], error.message);
    assert.match(`${error.message}; ${error.remedy}`, message);
    return true;
  };
}

describe("keys and buckets of B2", () => {
  let service: B2Service;
  before(async () => {
    service = await B2Service.start();
  });
  after(() => service.stop());

  /** A URL with a key of its own. */
  async function urlWith(bucket: string, name: string, key: Partial<DoubleKey>): Promise<string> {
    await service.writeKey(name, service.double.addKey(key));
    return service.url(bucket, {}, name);
  }

  it("a key for one bucket and a name prefix does", async () => {
    const bucket = service.fresh();
    const capabilities = ["listBuckets", "listFiles", "readFiles", "writeFiles", "deleteFiles"];
    const buckets = [bucket.bucketName];
    for (const namePrefix of [B2_PREFIX, "some/", "some/pre"]) {
      const url = await urlWith(bucket.bucketName, "restricted", {
        capabilities,
        buckets,
        namePrefix,
      });
      await createStorage(url, MARKER);
      const store = await openStorage(url, { identity: MARKER.identity, ...PORTS });
      await store.put("keys/a", Buffer.from("x"), { mode: "create" });
      await store.put("keys/a", Buffer.from("y"), { mode: "replace" });
      assert.equal(Buffer.from(await store.get("keys/a")).toString(), "y");
      const listed = await Array.fromAsync(store.list(""));
      assert.deepEqual(
        listed.map(({ name }) => name),
        ["keys/a"],
      );
      assert.equal((await store.delete(["keys/a"])).size, 0);
      await store.close();
      await discardStorage(url, MARKER.identity);
      assert.deepEqual(bucket.versions, []);
    }
  });

  it("a key for something else is refused, with what it needs", async () => {
    const { bucketName } = service.fresh();
    const other = service.fresh().bucketName;
    const elsewhere = await urlWith(bucketName, "elsewhere", { namePrefix: "other/" });
    const needs = /for names that begin with "other\/" only.*listFiles, readFiles/;
    await assert.rejects(
      openStorage(elsewhere, PORTS),
      isError(ErrorCode.Refused, needs, "EACCES"),
    );
    const foreign = await urlWith(bucketName, "foreign", { buckets: [other] });
    const refused = isError(ErrorCode.Refused, /for other buckets only/, "EACCES");
    await assert.rejects(openStorage(foreign, PORTS), refused);
    const weak = await urlWith(bucketName, "weak", { capabilities: ["listBuckets", "listFiles"] });
    const lacks = isError(ErrorCode.Refused, /does not allow it.*writeFiles/, "EACCES");
    await assert.rejects(createStorage(weak, MARKER), lacks);
    await assert.rejects(openStorage(weak, PORTS), lacks);
    const blind = await urlWith(bucketName, "blind", { capabilities: ["readFiles"] });
    await assert.rejects(
      openStorage(blind, PORTS),
      isError(ErrorCode.Refused, /listBuckets/, "EACCES"),
    );
  });

  it("a key that may not delete says so for each object", async () => {
    const { bucketName } = service.fresh();
    const capabilities = ["listBuckets", "listFiles", "readFiles", "writeFiles"];
    const url = await urlWith(bucketName, "keeps", { capabilities });
    await createStorage(url, MARKER);
    const store = await openStorage(url, PORTS);
    await store.put("keys/a", Buffer.from("x"), { mode: "create" });
    await store.put("keys/a", Buffer.from("y"), { mode: "replace" });
    const failure = (await store.delete(["keys/a"])).get("keys/a");
    isError(ErrorCode.Refused, /deleteFiles/, "EACCES")(failure);
    await store.close();
  });

  it("a wrong key is refused, and not repeated", async () => {
    const { bucketName } = service.fresh();
    const { id } = service.double.addKey();
    await service.writeKey("wrong", { id, key: "hunter2" });
    await assert.rejects(openStorage(service.url(bucketName, {}, "wrong"), PORTS), (error) => {
      isError(ErrorCode.Refused, /is not accepted.*correct the key/, "EACCES")(error);
      return !JSON.stringify(error).includes("hunter2") && !String(error).includes("hunter2");
    });
    const missing = service.url(bucketName, {}, "missing");
    await assert.rejects(openStorage(missing, PORTS), isError(ErrorCode.Config, /missing-id/));
  });

  it("without files the environment has the key", async (test) => {
    const { bucketName } = service.fresh();
    const url = `b2://${bucketName}/${B2_PREFIX}?apiUrl=${service.double.url}`;
    const { B2_APPLICATION_KEY_ID, B2_APPLICATION_KEY } = process.env;
    test.after(() => {
      delete process.env["B2_APPLICATION_KEY_ID"];
      delete process.env["B2_APPLICATION_KEY"];
      Object.assign(process.env, {
        ...(B2_APPLICATION_KEY_ID === undefined ? {} : { B2_APPLICATION_KEY_ID }),
        ...(B2_APPLICATION_KEY === undefined ? {} : { B2_APPLICATION_KEY }),
      });
    });
    const { id, key } = service.double.addKey();
    delete process.env["B2_APPLICATION_KEY_ID"];
    process.env["B2_APPLICATION_KEY"] = key;
    const none = /there is no application key.*applicationKeyFile.*B2_APPLICATION_KEY_ID/;
    await assert.rejects(createStorage(url, MARKER), isError(ErrorCode.Refused, none, "EACCES"));
    process.env["B2_APPLICATION_KEY_ID"] = id;
    await createStorage(url, MARKER);
    assert.deepEqual(await readStorageMarker(url), MARKER);
  });

  it("a bucket that is not there is away", async () => {
    const missing = service.url("no-such-bucket");
    const away = isError(ErrorCode.Unavailable, /there is no such bucket.*make it/);
    await assert.rejects(openStorage(missing, PORTS), away);
    await assert.rejects(createStorage(missing, MARKER), away);
    const { bucketName } = service.fresh();
    const empty = service.url(bucketName);
    await assert.rejects(
      openStorage(empty, PORTS),
      isError(ErrorCode.Unavailable, /marker.*missing/),
    );
  });

  it("a storage is made in an empty place alone, and taken back whole", async () => {
    const bucket = service.fresh();
    const url = service.url(bucket.bucketName);
    const foreign = service.double.addVersion(bucket, `${B2_PREFIX}somebody`, Buffer.from("x"));
    const full = isError(ErrorCode.AlreadyExists, /is not empty: it holds some\/prefix\/somebody/);
    await assert.rejects(createStorage(url, MARKER), full);
    bucket.versions.splice(bucket.versions.indexOf(foreign), 1);
    service.double.addVersion(bucket, "elsewhere", Buffer.from("x"));
    await createStorage(url, MARKER);
    await createStorage(url, MARKER);
    const other = { ...MARKER, identity: "ffffffffffffffff" as StorageId };
    const taken = isError(ErrorCode.AlreadyExists, /holds the storage 00112233445566ff already/);
    await assert.rejects(createStorage(url, other), taken);
    const refused = isError(ErrorCode.Refused, /holds the storage/);
    await assert.rejects(openStorage(url, { identity: other.identity, ...PORTS }), refused);
    service.double.addVersion(bucket, `${B2_PREFIX}keys/a`, Buffer.from("old"));
    service.double.addVersion(bucket, `${B2_PREFIX}keys/a`, new Uint8Array(), "hide");
    // A bucket that shows nothing may hold what somebody has hidden, and wants to bring back one day.
    service.double.addVersion(bucket, `${B2_PREFIX}hidden`, Buffer.from("dear"));
    service.double.addVersion(bucket, `${B2_PREFIX}hidden`, new Uint8Array(), "hide");
    await discardStorage(url, other.identity);
    assert.equal(bucket.versions.length, 6);
    service.double.pageMost = 1;
    await discardStorage(url, MARKER.identity);
    service.double.pageMost = 10_000;
    assert.deepEqual(
      bucket.versions.map(({ fileName }) => fileName),
      ["elsewhere", `${B2_PREFIX}hidden`, `${B2_PREFIX}hidden`],
    );
  });
});
