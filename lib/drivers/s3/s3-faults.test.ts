// What no real service does on demand: answers that are lost, bodies that break off, conflicts, overload, another bucket.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it, type TestContext } from "node:test";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { encodeStorageMarker, MARKER_NAME } from "#lib/drivers/storage-marker.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import { openS3BlobStore } from "./s3-blob-store.ts";
import { parseS3Url } from "./s3-settings.ts";

const IDENTITY = "00112233445566ff" as StorageId;
const NAME = "blocks/ab12";

interface Request {
  readonly method: string;
  /** Within the bucket. */
  readonly key: string;
  readonly headers: IncomingMessage["headers"];
  readonly body: Buffer;
}

/** Answers in the service's stead; false: it answers as it should. */
type Fault = (request: Request, response: ServerResponse) => boolean;

interface Service {
  readonly objects: Map<string, Buffer>;
  readonly requests: Request[];
  fault: Fault | undefined;
}

interface Double extends Service {
  readonly store: BlobStore;
  /** Of the store's clock. */
  advance(ms: number): void;
}

function fail(response: ServerResponse, status: number, code: string): true {
  response.writeHead(status, { "content-type": "application/xml" });
  response.end(
    `<?xml version="1.0"?><Error><Code>${code}</Code><Message>so it is</Message></Error>`,
  );
  return true;
}

/** As much of S3 as puts and gets of one bucket need. */
function answer({ objects }: Service, request: Request, response: ServerResponse): void {
  const { method, key, headers, body } = request;
  const found = objects.get(key);
  if (method === "PUT") {
    if (headers["if-none-match"] === "*" && found !== undefined) {
      fail(response, 412, "PreconditionFailed");
      return;
    }
    objects.set(key, body);
    response.setHeader("etag", '"0123456789abcdef"');
    response.end();
  } else if (found === undefined) fail(response, 404, "NoSuchKey");
  else {
    response.setHeader("etag", '"0123456789abcdef"');
    response.setHeader("content-length", found.length);
    response.end(method === "HEAD" ? undefined : found);
  }
}

async function openDouble(test: TestContext, options = ""): Promise<Double> {
  const folder = await mkdtemp(path.join(tmpdir(), "ashlar-s3-"));
  for (const name of ["id", "secret"]) await writeFile(path.join(folder, name), "x");
  const service: Service = { objects: new Map(), requests: [], fault: undefined };
  const system = systemClock();
  let aheadMs = 0;
  const clock = { ...system, monotonic: () => system.monotonic() + aheadMs };
  const marker = {
    format: 1,
    identity: IDENTITY,
    repository: "aa".repeat(16),
    created: "now",
  } as const;
  service.objects.set(MARKER_NAME, Buffer.from(encodeStorageMarker(marker)));
  const server = createServer((incoming, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of incoming) chunks.push(chunk as Buffer);
      const key = decodeURIComponent(
        new URL(incoming.url ?? "", "http://s3").pathname.split("/").slice(2).join("/"),
      );
      const request = {
        method: incoming.method ?? "",
        key,
        headers: incoming.headers,
        body: Buffer.concat(chunks),
      };
      service.requests.push(request);
      if (service.fault?.(request, response) !== true) answer(service, request, response);
    })();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const url = `s3://bucket?endpoint=http://127.0.0.1:${port}&accessKeyIdFile=${folder}/id&secretAccessKeyFile=${folder}/secret&attempts=3${options}`;
  const store = await openS3BlobStore({
    settings: parseS3Url(url),
    expectIdentity: IDENTITY,
    clock,
  });
  test.after(async () => {
    await store.close();
    server.closeAllConnections();
    server.close();
    await rm(folder, { recursive: true });
  });
  const advance = (ms: number): void => void (aheadMs += ms);
  return Object.assign(service, { store, advance });
}

const hasCode = (code: ErrorCode) => (error: unknown) => {
  assert.ok(isErrorCode(error, code), `expected ${code}: ${String(error)}`);
  return true;
};

describe("S3 in trouble", () => {
  it("knows its own put again when the answer was lost", async (test) => {
    const double = await openDouble(test);
    let lost = 0;
    double.fault = (request, response) => {
      if (request.method !== "PUT" || lost > 0) return false;
      lost += 1;
      double.objects.set(request.key, request.body);
      response.destroy();
      return true;
    };
    await double.store.put(NAME, Buffer.from("mine"), { mode: "create" });
    assert.equal(lost, 1);
    assert.equal(double.objects.get(NAME)?.toString(), "mine");
  });

  it("does not take somebody else's object for its own", async (test) => {
    const double = await openDouble(test);
    let lost = 0;
    double.fault = (request, response) => {
      if (request.method !== "PUT" || lost > 0) return false;
      lost += 1;
      double.objects.set(request.key, Buffer.from("else"));
      response.destroy();
      return true;
    };
    const put = double.store.put(NAME, Buffer.from("mine"), { mode: "create" });
    await assert.rejects(put, hasCode(ErrorCode.AlreadyExists));
    assert.equal(double.objects.get(NAME)?.toString(), "else");
  });

  it("finds out who has won when two create at the same time", async (test) => {
    const double = await openDouble(test);
    let conflicts = 0;
    double.fault = (request, response) => {
      if (request.method !== "PUT" || conflicts === 2) return false;
      conflicts += 1;
      return fail(response, 409, "ConditionalRequestConflict");
    };
    await double.store.put(NAME, Buffer.from("mine"), { mode: "create" });
    assert.equal(conflicts, 2);
    double.fault = (request, response) => {
      if (request.method !== "PUT" || conflicts === 3) return false;
      conflicts += 1;
      return fail(response, 409, "ConditionalRequestConflict");
    };
    const other = double.store.put(NAME, Buffer.from("other"), { mode: "create" });
    await assert.rejects(other, hasCode(ErrorCode.AlreadyExists));
  });

  it("reads an object again whose body broke off, and gives up in the end", async (test) => {
    const double = await openDouble(test);
    const bytes = Buffer.alloc(300_000, 7);
    await double.store.put(NAME, bytes, { mode: "create" });
    let breaks = 0;
    let most = 1;
    double.fault = (request, response) => {
      if (request.method !== "GET" || request.key !== NAME || breaks >= most) return false;
      breaks += 1;
      response.setHeader("etag", '"0123456789abcdef"');
      response.setHeader("content-length", bytes.length);
      response.write(bytes.subarray(0, 100_000), () => response.destroy());
      return true;
    };
    const into = Buffer.alloc(400_000);
    const found = await double.store.get(NAME, { into });
    assert.ok(bytes.equals(found) && breaks === 1, `after ${breaks}`);
    most = Number.POSITIVE_INFINITY;
    await assert.rejects(double.store.get(NAME), hasCode(ErrorCode.Unavailable));
    assert.equal(breaks, 1 + 3);
  });

  it("tries again while the service is overloaded", async (test) => {
    const double = await openDouble(test);
    let count = 0;
    double.fault = (_, response) => {
      count += 1;
      return count <= 2 && fail(response, 503, "SlowDown");
    };
    await double.store.put(NAME, Buffer.from("x"), { mode: "create" });
    assert.equal(count, 3);
    double.fault = (_, response) => fail(response, 503, "SlowDown");
    await assert.rejects(double.store.get(NAME), hasCode(ErrorCode.Unavailable));
  });

  it("tells what errors mean", async (test) => {
    const double = await openDouble(test);
    for (const [status, code, expected, remedy] of [
      [403, "AccessDenied", ErrorCode.Refused, /s3:ListBucket/],
      [403, "ExpiredToken", ErrorCode.Refused, /correct the credentials/],
      [403, "RequestTimeTooSkewed", ErrorCode.Refused, /set the clock/],
      [404, "NoSuchBucket", ErrorCode.Unavailable, /make it/],
      [403, "InvalidObjectState", ErrorCode.Unavailable, /archiving rules/],
      [400, "AuthorizationHeaderMalformed", ErrorCode.Refused, /region/],
    ] as const) {
      double.fault = (_, response) => fail(response, status, code);
      await assert.rejects(double.store.get(NAME), (error) => {
        assert.ok(
          error instanceof AshlarError && error.code === expected,
          `${code}: ${String(error)}`,
        );
        assert.match(error.remedy ?? "", remedy);
        assert.ok(
          error.message.includes(NAME) && error.message.includes("s3://bucket"),
          error.message,
        );
        return true;
      });
    }
    for (const [status, code] of [
      [403, "QuotaExceeded"],
      [507, "InsufficientStorage"],
    ] as const) {
      double.fault = (_, response) => fail(response, status, code);
      await assert.rejects(
        double.store.put(NAME, Buffer.from("x"), { mode: "create" }),
        (error) => {
          assert.ok(
            error instanceof AshlarError && error.details["errno"] === "ENOSPC",
            String(error),
          );
          return true;
        },
      );
    }
  });

  it("puts nothing into a bucket that is another storage, and takes nothing for absent there", async (test) => {
    const double = await openDouble(test);
    const marker = {
      format: 1,
      identity: "ffffffffffffffff" as StorageId,
      repository: "aa",
      created: "now",
    } as const;
    double.objects.set(MARKER_NAME, Buffer.from(encodeStorageMarker(marker)));
    await assert.rejects(double.store.get(NAME), hasCode(ErrorCode.Unavailable));
    await assert.rejects(double.store.stat(NAME), hasCode(ErrorCode.Unavailable));
    await assert.rejects(double.store.check(), hasCode(ErrorCode.Unavailable));
    // A put looks when the last look is long ago.
    double.advance(60_000);
    const put = double.store.put(NAME, Buffer.from("x"), { mode: "create" });
    await assert.rejects(put, hasCode(ErrorCode.Unavailable));
    assert.ok(!double.objects.has(NAME));
    double.objects.delete(MARKER_NAME);
    await assert.rejects(double.store.get(NAME), hasCode(ErrorCode.Unavailable));
  });

  it("says of each put what the service is to hold it against", async (test) => {
    for (const [checksum, header] of [
      ["signature", "x-amz-content-sha256"],
      ["md5", "content-md5"],
      ["crc32", "x-amz-checksum-crc32"],
      ["sha256", "x-amz-checksum-sha256"],
    ] as const) {
      const double = await openDouble(
        test,
        `&checksum=${checksum}&storageClass=STANDARD_IA&encryption=AES256`,
      );
      await double.store.put(NAME, Buffer.from("hello"), { mode: "replace" });
      const put = double.requests.find(({ method }) => method === "PUT");
      assert.ok(put?.headers[header] !== undefined, checksum);
      assert.equal(put.headers["x-amz-storage-class"], "STANDARD_IA");
      assert.equal(put.headers["x-amz-server-side-encryption"], "AES256");
      assert.equal(put.headers["if-none-match"], undefined);
    }
  });

  it("believes nothing that S3 has not said", async (test) => {
    const double = await openDouble(test);
    const page = Buffer.from("<html>Sign in to this network</html>");
    // Whoever stands in between answers for the objects; the marker was looked at just before.
    const answerAll = (status: number): Fault => {
      return ({ key }, response) => {
        if (key === MARKER_NAME) return false;
        response.writeHead(status, { "content-type": "text/html", "content-length": page.length });
        response.end(page);
        return true;
      };
    };
    const away = hasCode(ErrorCode.Unavailable);
    for (const status of [200, 404]) {
      double.fault = answerAll(status);
      await assert.rejects(double.store.put(NAME, Buffer.from("x"), { mode: "create" }), away);
      const failures = await double.store.delete([NAME, "blocks/ab13"]);
      assert.equal(failures.size, 2, `${status}: nothing counts as deleted`);
      away(failures.get(NAME));
      await assert.rejects(async () => {
        for await (const _ of double.store.list("blocks/")) assert.fail("nothing is listed");
      }, away);
      // Neither absent nor damaged: nobody may judge a copy by it.
      await assert.rejects(double.store.get(NAME, { into: Buffer.alloc(8) }), away);
    }
    await assert.rejects(double.store.stat(NAME), away);
    // The marker, too.
    double.fault = (_, response) => {
      response.writeHead(200, { "content-type": "text/html", "content-length": page.length });
      response.end(page);
      return true;
    };
    await assert.rejects(double.store.check(), away);
  });

  it("counts as deleted what is named as such, and nothing else", async (test) => {
    const double = await openDouble(test);
    const names = ["blocks/a1", "blocks/a2", "blocks/a3", "blocks/a4"];
    double.fault = ({ method }, response) => {
      if (method !== "POST") return false;
      response.end(
        `<?xml version="1.0"?><DeleteResult><Deleted><Key>blocks/a1</Key></Deleted><Error><Code>InternalError</Code></Error>` +
          `<Error><Key>blocks/a2</Key><Code>AccessDenied</Code><Message>no</Message></Error>` +
          `<Error><Key>blocks/a3</Key><Code>NoSuchKey</Code></Error></DeleteResult>`,
      );
      return true;
    };
    const failures = await double.store.delete(names);
    assert.deepEqual([...failures.keys()].toSorted(), ["blocks/a2", "blocks/a4"]);
    hasCode(ErrorCode.Refused)(failures.get("blocks/a2"));
    hasCode(ErrorCode.Unavailable)(failures.get("blocks/a4"));
  });

  it("does not take a listing for whole that does not say how it goes on", async (test) => {
    for (const token of ["", "<NextContinuationToken>same</NextContinuationToken>"]) {
      const double = await openDouble(test);
      double.fault = ({ key }, response) => {
        if (key !== "") return false;
        response.end(
          `<?xml version="1.0"?><ListBucketResult><Name>bucket</Name><IsTruncated>true</IsTruncated>${token}` +
            `<Contents><Key>blocks/a1</Key><Size>1</Size></Contents></ListBucketResult>`,
        );
        return true;
      };
      await assert.rejects(async () => {
        for await (const _ of double.store.list("blocks/"));
      }, hasCode(ErrorCode.Unavailable));
    }
  });
});
