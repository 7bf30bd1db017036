// What no real service does on demand, against a double: tokens that expire, uploads that fail, answers that are lost, caps.
import assert from "node:assert/strict";
import { after, before, describe, it, type TestContext } from "node:test";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { encodeStorageMarker, MARKER_NAME } from "#lib/drivers/storage-marker.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import { B2_PREFIX, B2Service } from "#test/fixtures/b2-service.ts";
import type { B2Double, DoubleBucket, DoubleFault } from "#test/servers/b2-double.ts";
import { openB2BlobStore } from "./b2-blob-store.ts";
import { parseB2Url } from "./b2-settings.ts";

const IDENTITY = "00112233445566ff" as StorageId;
const NAME = "blocks/ab12";
const CREATE = { mode: "create" } as const;
const REPLACE = { mode: "replace" } as const;
/** Of what would wait for much longer if it were wrong. */
const HANGING = { timeout: 20_000 };

interface Opened {
  readonly store: BlobStore;
  readonly bucket: DoubleBucket;
  readonly double: B2Double;
  /** Pauses between tries so far, in ms. */
  readonly pausesMs: number[];
  /** Of the store's clock. */
  readonly advance: (ms: number) => void;
}

const hasCode = (code: ErrorCode) => (error: unknown) => {
  assert.ok(isErrorCode(error, code), `expected ${code}: ${String(error)}`);
  return true;
};

function markerOf(identity: StorageId): Buffer {
  const marker = { format: 1, identity, repository: "aa".repeat(16), created: "now" } as const;
  return Buffer.from(encodeStorageMarker(marker));
}

async function namesIn(store: BlobStore, prefix = ""): Promise<string[]> {
  return (await Array.fromAsync(store.list(prefix))).map(({ name }) => name);
}

describe("B2 in trouble", () => {
  let service: B2Service;
  before(async () => {
    service = await B2Service.start();
  });
  after(() => service.stop());

  async function open(
    test: TestContext,
    options: Readonly<Record<string, string>> = {},
    key?: string,
  ): Promise<Opened> {
    const { double } = service;
    const bucket = service.fresh();
    double.addVersion(bucket, B2_PREFIX + MARKER_NAME, markerOf(IDENTITY));
    const system = systemClock();
    let aheadMs = 0;
    const clock = { ...system, monotonic: () => system.monotonic() + aheadMs };
    const pausesMs: number[] = [];
    const pause = (ms: number, signal: AbortSignal | undefined): Promise<void> => {
      pausesMs.push(ms);
      signal?.throwIfAborted();
      return Promise.resolve();
    };
    const settings = parseB2Url(service.url(bucket.bucketName, options, key));
    const store = await openB2BlobStore({ settings, expectIdentity: IDENTITY, clock, pause });
    double.requests.length = 0;
    test.after(async () => {
      double.faults = [];
      double.tokenUses = Number.POSITIVE_INFINITY;
      double.uploadUrlUses = Number.POSITIVE_INFINITY;
      double.pageMost = 10_000;
      await store.close();
    });
    return { store, bucket, double, pausesMs, advance: (ms) => void (aheadMs += ms) };
  }

  const versionsOf = ({ versions }: DoubleBucket, name: string): string[] =>
    versions
      .filter(({ fileName }) => fileName === B2_PREFIX + name)
      .map(({ bytes }) => bytes.toString());

  describe("uploads", () => {
    it("use each URL for one at a time, and again", async (test) => {
      const { store, double } = await open(test, { connections: "8" });
      for (let round = 0; round < 3; round += 1) {
        const puts = Array.from({ length: 40 }, (_, index) =>
          store.put(`blocks/${round}.${index}`, Buffer.alloc(20_000), CREATE),
        );
        await Promise.all(puts);
      }
      assert.equal(double.count("b2_upload_file"), 120);
      assert.ok(
        double.count("b2_get_upload_url") <= 8,
        "as many URLs as there are uploads at once",
      );
      assert.deepEqual(double.complaints, []);
    });

    it("get a new URL when all that are there have expired", async (test) => {
      const { store, double } = await open(test, { attempts: "1" });
      const put = (index: number): Promise<void> =>
        store.put(`blocks/${index}`, Buffer.alloc(20_000), CREATE);
      await Promise.all(Array.from({ length: 10 }, (_, index) => put(index)));
      double.expireUploadUrls();
      await put(10);
      double.uploadUrlUses = 1;
      for (let index = 11; index < 20; index += 1) await put(index);
    });

    for (const [title, act] of [
      ["503", { status: 503, code: "service_unavailable" }],
      ["429", { status: 429, code: "too_many_requests" }],
      ["408", { status: 408, code: "request_timeout" }],
      ["a token that is bad", { status: 401, code: "bad_auth_token" }],
      ["bytes that arrived changed", { status: 400, code: "bad_request" }],
      ["an URL that is in use", { status: 400, code: "auth_token_limit" }],
      ["a connection that breaks", "broken"],
      ["silence", "silence"],
    ] as const satisfies readonly (readonly [string, DoubleFault["act"]])[]) {
      it(`are tried again elsewhere after ${title}`, HANGING, async (test) => {
        const { store, bucket, double } = await open(test, { idleTimeout: "1s" });
        await store.put("blocks/first", Buffer.from("x"), CREATE);
        double.faults = [{ operation: "b2_upload_file", times: 1, act }];
        await store.put(NAME, Buffer.from("mine"), CREATE);
        assert.deepEqual(versionsOf(bucket, NAME), ["mine"]);
        assert.equal(double.count("b2_get_upload_url"), 2, "the URL was thrown away");
        const more = ["blocks/1", "blocks/2", "blocks/3"];
        await Promise.all(more.map((name) => store.put(name, Buffer.alloc(20_000), CREATE)));
        assert.deepEqual(double.complaints, []);
      });
    }

    it("leave one version when an answer was lost", async (test) => {
      const { store, bucket, double } = await open(test);
      double.faults = [{ operation: "b2_upload_file", times: 2, act: "lost answer" }];
      await store.put(NAME, Buffer.from("mine"), CREATE);
      assert.deepEqual(versionsOf(bucket, NAME), ["mine"]);
      assert.equal(double.count("b2_delete_file_version"), 2);
    });

    it("are given up in the end", async (test) => {
      const { store, bucket, double, pausesMs } = await open(test, { attempts: "5" });
      const act = { status: 503, code: "service_unavailable" };
      double.faults = [{ operation: "b2_upload_file", times: Number.POSITIVE_INFINITY, act }];
      const put = store.put(NAME, Buffer.from("mine"), CREATE);
      await assert.rejects(put, hasCode(ErrorCode.Unavailable));
      assert.equal(double.count("b2_upload_file"), 5);
      assert.deepEqual(pausesMs, [500, 1000, 2000], "the second try is made elsewhere at once");
      assert.deepEqual(versionsOf(bucket, NAME), []);
    });
  });

  it("renews the account's authorization, once for all that need it", async (test) => {
    const { store, double } = await open(test, { attempts: "1" });
    await store.put(NAME, Buffer.from("mine"), CREATE);
    double.expireAll();
    await Promise.all(Array.from({ length: 30 }, () => store.get(NAME)));
    assert.equal(double.count("b2_authorize_account"), 1);
    double.expireAll();
    assert.equal((await store.stat(NAME)).sizeBytes, 4);
    double.tokenUses = 3;
    double.expireAll();
    for (let round = 0; round < 10; round += 1) {
      await store.put(`heads/${round}`, Buffer.from("x"), REPLACE);
      assert.equal((await store.get(`heads/${round}`)).length, 1);
    }
    assert.ok(double.count("b2_authorize_account") > 5);
  });

  it("waits as long as it is asked to, and longer each time, and no longer than is good", async (test) => {
    const { store, double, pausesMs } = await open(test, { attempts: "4" });
    await store.put(NAME, Buffer.from("mine"), CREATE);
    const operation = "b2_download_file_by_name";
    const busy = { status: 429, code: "too_many_requests" };
    double.faults = [{ operation, times: 1, act: { ...busy, retryAfterSeconds: 7 } }];
    await store.get(NAME);
    assert.deepEqual(pausesMs.splice(0), [7000]);
    double.faults = [{ operation, times: 3, act: busy }];
    await store.get(NAME);
    assert.deepEqual(pausesMs.splice(0), [500, 1000, 2000]);
    double.faults = [{ operation, times: 1, act: { ...busy, retryAfterSeconds: 3600 } }];
    await assert.rejects(store.get(NAME), hasCode(ErrorCode.Unavailable));
    assert.deepEqual(pausesMs, []);
  });

  it("stops waiting when told to", HANGING, async (test) => {
    const { double, bucket } = await open(test);
    const settings = parseB2Url(service.url(bucket.bucketName));
    const store = await openB2BlobStore({ settings, clock: systemClock() });
    test.after(() => store.close());
    const act = { status: 503, code: "service_unavailable", retryAfterSeconds: 50 };
    double.faults = ["b2_upload_file", "b2_download_file_by_name"].map((operation) => {
      return { operation, times: Number.POSITIVE_INFINITY, act };
    });
    for (const work of [
      (signal: AbortSignal) => store.put(NAME, Buffer.from("x"), { ...CREATE, signal }),
      (signal: AbortSignal) => store.get(NAME, { signal }),
    ]) {
      const stop = new AbortController();
      const working = work(stop.signal);
      setTimeout(() => stop.abort(new Error("enough")), 100);
      await assert.rejects(working, { message: "enough" });
    }
  });

  it("stops an upload and a download that are under way", HANGING, async (test) => {
    const { store, double } = await open(test);
    double.faults = ["b2_upload_file", "b2_download_file_by_name"].map((operation) => {
      return { operation, times: 1, act: "silence" };
    });
    for (const work of [
      (signal: AbortSignal) => store.put(NAME, Buffer.from("x"), { ...CREATE, signal }),
      (signal: AbortSignal) => store.get(NAME, { signal }),
    ]) {
      const stop = new AbortController();
      const working = work(stop.signal);
      setTimeout(() => stop.abort(new Error("enough")), 50);
      await assert.rejects(working, { message: "enough" });
    }
  });

  it("reads an object again whose body broke off, and gives up in the end", async (test) => {
    const { store, double } = await open(test);
    const bytes = Buffer.alloc(300_000, 7);
    await store.put(NAME, bytes, CREATE);
    const fault: DoubleFault = {
      operation: "b2_download_file_by_name",
      times: 2,
      act: "truncated",
    };
    double.faults = [fault];
    const into = Buffer.alloc(400_000);
    const found = await store.get(NAME, { into });
    assert.ok(bytes.equals(found) && found.buffer === into.buffer);
    fault.times = Number.POSITIVE_INFINITY;
    double.requests.length = 0;
    await assert.rejects(store.get(NAME), hasCode(ErrorCode.Unavailable));
    assert.equal(double.count("b2_download_file_by_name"), 3);
  });

  it("believes nothing that B2 has not said", async (test) => {
    const { store, double } = await open(test);
    await store.put(NAME, Buffer.from("mine"), CREATE);
    double.faults = [
      "head",
      "b2_download_file_by_name",
      "b2_upload_file",
      "b2_list_file_names",
      "b2_list_file_versions",
    ].map((operation) => ({ operation, times: Number.POSITIVE_INFINITY, act: "portal" }));
    const away = hasCode(ErrorCode.Unavailable);
    await assert.rejects(store.get(NAME), away);
    await assert.rejects(store.stat(NAME), away);
    await assert.rejects(store.check(), away);
    await assert.rejects(store.put("blocks/other", Buffer.from("x"), REPLACE), away);
    await assert.rejects(namesIn(store), away);
    away((await store.delete([NAME])).get(NAME));
    double.faults = [];
    assert.equal(Buffer.from(await store.get(NAME)).toString(), "mine");
  });

  it("lists over many pages, and again what was cut off", async (test) => {
    const { store, double } = await open(test);
    const names = Array.from({ length: 7 }, (_, index) => `heads/${index}`);
    for (const name of names) await store.put(name, Buffer.from("x"), CREATE);
    double.pageMost = 2;
    double.faults = [{ operation: "b2_list_file_names", times: 1, skip: 1, act: "truncated" }];
    assert.deepEqual(await namesIn(store), names);
  });

  describe("versions", () => {
    it("that are older go when a name is put again", async (test) => {
      const { store, bucket, double } = await open(test);
      for (const text of ["1", "2", "3"])
        double.addVersion(bucket, B2_PREFIX + NAME, Buffer.from(text));
      double.addVersion(bucket, `${B2_PREFIX}${NAME}.longer`, Buffer.from("other"));
      double.pageMost = 2;
      await store.put(NAME, Buffer.from("4"), REPLACE);
      assert.deepEqual(versionsOf(bucket, NAME), ["4"]);
      assert.deepEqual(versionsOf(bucket, `${NAME}.longer`), ["other"]);
    });

    it("that somebody else puts meanwhile stay", async (test) => {
      const { store, bucket } = await open(test);
      const puts = Array.from({ length: 12 }, (_, index) =>
        store.put(NAME, Buffer.from(`${index}`), REPLACE),
      );
      await Promise.all(puts);
      assert.equal(versionsOf(bucket, NAME).length, 1);
      assert.equal(Buffer.from(await store.get(NAME)).toString(), versionsOf(bucket, NAME)[0]);
    });

    it("that could not be deleted harm nobody, and go later", async (test) => {
      const { store, bucket, double } = await open(test);
      await store.put(NAME, Buffer.from("old"), CREATE);
      const act = { status: 403, code: "access_denied" };
      double.faults = [{ operation: "b2_delete_file_version", times: 1, act }];
      await store.put(NAME, Buffer.from("new"), REPLACE);
      assert.deepEqual(versionsOf(bucket, NAME), ["old", "new"]);
      assert.equal(Buffer.from(await store.get(NAME)).toString(), "new");
      assert.equal((await store.stat(NAME)).sizeBytes, 3);
      assert.deepEqual(await namesIn(store), [NAME]);
      assert.equal((await store.delete([NAME])).size, 0);
      assert.deepEqual(versionsOf(bucket, NAME), []);
    });

    it("are deleted oldest first: whoever is interrupted brings nothing old back", async (test) => {
      const { store, bucket, double } = await open(test);
      for (const text of ["1", "2", "3"])
        double.addVersion(bucket, B2_PREFIX + NAME, Buffer.from(text));
      const act = { status: 403, code: "access_denied" };
      double.faults = [{ operation: "b2_delete_file_version", times: 1, skip: 1, act }];
      const failures = await store.delete([NAME, "heads/absent"]);
      assert.deepEqual([...failures.keys()], [NAME]);
      hasCode(ErrorCode.Refused)(failures.get(NAME));
      assert.equal(Buffer.from(await store.get(NAME)).toString(), "3");
      assert.equal((await store.delete([NAME])).size, 0);
      assert.deepEqual(versionsOf(bucket, NAME), []);
    });

    it("that are gone already, and answers that were lost, are no failures", async (test) => {
      const { store, bucket, double } = await open(test);
      await store.put(NAME, Buffer.from("1"), CREATE);
      double.faults = [{ operation: "b2_delete_file_version", times: 1, act: "lost answer" }];
      assert.equal((await store.delete([NAME])).size, 0);
      assert.deepEqual(versionsOf(bucket, NAME), []);
    });

    it("that hide a name make it absent, and go with it", async (test) => {
      const { store, bucket, double } = await open(test);
      await store.put(NAME, Buffer.from("hidden"), CREATE);
      double.addVersion(bucket, B2_PREFIX + NAME, new Uint8Array(), "hide");
      await assert.rejects(store.get(NAME), hasCode(ErrorCode.NotFound));
      await assert.rejects(store.stat(NAME), hasCode(ErrorCode.NotFound));
      assert.deepEqual(await namesIn(store), []);
      assert.equal((await store.delete([NAME])).size, 0);
      assert.deepEqual(versionsOf(bucket, NAME), []);
    });
  });

  it("does not replace what is plainly there", async (test) => {
    const { store, bucket, double } = await open(test);
    await store.put(NAME, Buffer.from("first"), CREATE);
    const again = store.put(NAME, Buffer.from("second"), CREATE);
    await assert.rejects(again, hasCode(ErrorCode.AlreadyExists));
    assert.deepEqual(versionsOf(bucket, NAME), ["first"]);
    assert.equal(double.count("b2_upload_file"), 1);
  });

  it("tells what errors mean", async (test) => {
    const { store, double } = await open(test);
    const put = (): Promise<unknown> => store.put(NAME, Buffer.from("x"), CREATE);
    const get = (): Promise<unknown> => store.get(NAME);
    for (const [work, operation, status, code, expected, errno, remedy] of [
      [put, "b2_upload_file", 403, "storage_cap_exceeded", ErrorCode.Io, "ENOSPC", /Caps & Alerts/],
      [put, "b2_upload_file", 403, "cap_exceeded", ErrorCode.Io, "ENOSPC", /Caps & Alerts/],
      [put, "b2_get_upload_url", 403, "storage_cap_exceeded", ErrorCode.Io, "ENOSPC", /Caps/],
      [
        put,
        "b2_upload_file",
        401,
        "unauthorized",
        ErrorCode.Refused,
        "EACCES",
        /listBuckets, listFiles, readFiles, writeFiles, deleteFiles/,
      ],
      [put, "b2_get_upload_url", 400, "bad_bucket_id", ErrorCode.Unavailable, undefined, /make it/],
      [
        get,
        "b2_download_file_by_name",
        403,
        "transaction_cap_exceeded",
        ErrorCode.Unavailable,
        undefined,
        /Caps & Alerts.*0:00 UTC/,
      ],
      [
        get,
        "b2_download_file_by_name",
        403,
        "download_cap_exceeded",
        ErrorCode.Unavailable,
        undefined,
        /Caps & Alerts/,
      ],
      [
        get,
        "b2_download_file_by_name",
        403,
        "access_denied",
        ErrorCode.Refused,
        "EACCES",
        /readFiles/,
      ],
      [
        get,
        "b2_download_file_by_name",
        403,
        "account_trouble",
        ErrorCode.Refused,
        "EACCES",
        /see to it/,
      ],
    ] as const) {
      double.requests.length = 0;
      double.faults = [{ operation, times: Number.POSITIVE_INFINITY, act: { status, code } }];
      await assert.rejects(work(), (error) => {
        assert.ok(
          error instanceof AshlarError && error.code === expected,
          `${code}: ${String(error)}`,
        );
        assert.equal(error.details["errno"], errno, code);
        assert.equal(error.details["serviceCode"], code);
        assert.match(error.remedy ?? "", remedy);
        assert.ok(error.message.includes(NAME) && error.message.includes("b2://"), error.message);
        return true;
      });
      assert.equal(double.count(operation), 1, `${code} is not tried again`);
    }
  });

  it("asks for the reason where an answer has no body", async (test) => {
    const { store, double } = await open(test);
    await store.put(NAME, Buffer.from("x"), CREATE);
    const act = { status: 403, code: "download_cap_exceeded" };
    double.faults = ["head", "b2_download_file_by_name"].map((operation) => {
      return { operation, times: 1, act };
    });
    await assert.rejects(store.stat(NAME), (error) => {
      assert.ok(error instanceof AshlarError && error.code === ErrorCode.Unavailable);
      return error.details["serviceCode"] === "download_cap_exceeded";
    });
  });

  it("repeats no token that an answer repeats", async (test) => {
    const { store, double } = await open(test, { attempts: "1" });
    const token = "4_0028bc628f87f040000000001_019e8f5e_263f9e_upld_Yr3aQphj7BktivNK60zSnoh6UDU=";
    const message = `more than one upload using auth token ${token}`;
    const act = { status: 400, code: "bad_request", message };
    double.faults = [{ operation: "b2_upload_file", times: 1, act }];
    await assert.rejects(store.put(NAME, Buffer.from("x"), CREATE), (error) => {
      assert.ok(error instanceof AshlarError);
      assert.match(error.message, /more than one upload/);
      return !`${error.message} ${String(error.cause)} ${JSON.stringify(error)}`.includes("Yr3aQ");
    });
  });

  it("puts nothing into a bucket that is another storage, and takes nothing for absent there", async (test) => {
    const { store, bucket, double, advance } = await open(test);
    const other = "ffffffffffffffff" as StorageId;
    double.addVersion(bucket, B2_PREFIX + MARKER_NAME, markerOf(other));
    await assert.rejects(store.get(NAME), hasCode(ErrorCode.Unavailable));
    await assert.rejects(store.stat(NAME), hasCode(ErrorCode.Unavailable));
    await assert.rejects(store.check(), hasCode(ErrorCode.Unavailable));
    await assert.rejects(namesIn(store), hasCode(ErrorCode.Unavailable));
    // A put looks when the last look is long ago.
    advance(60_000);
    const put = store.put(NAME, Buffer.from("x"), CREATE);
    await assert.rejects(put, hasCode(ErrorCode.Unavailable));
    assert.deepEqual(versionsOf(bucket, NAME), []);
    hasCode(ErrorCode.Unavailable)((await store.delete([NAME])).get(NAME));
    bucket.versions.length = 0;
    await assert.rejects(store.get(NAME), hasCode(ErrorCode.Unavailable));
  });
});
