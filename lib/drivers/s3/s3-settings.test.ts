import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { S3_PRESETS } from "./s3-presets.ts";
import { parseS3Url } from "./s3-settings.ts";

function refuses(url: string, problem: RegExp): void {
  assert.throws(
    () => parseS3Url(url),
    (error) => {
      assert.ok(error instanceof AshlarError && error.code === ErrorCode.Usage, String(error));
      assert.match(error.message, problem);
      assert.ok(error.remedy !== undefined);
      return true;
    },
  );
}

describe("the URL of an S3 storage", () => {
  it("names bucket and prefix", () => {
    for (const [url, bucket, prefix, location] of [
      ["s3://backups", "backups", "", "s3://backups"],
      ["s3://backups/", "backups", "", "s3://backups"],
      ["s3://my.backups/vm/hosts/", "my.backups", "vm/hosts/", "s3://my.backups/vm/hosts"],
    ] as const) {
      const settings = parseS3Url(url);
      assert.deepEqual(
        [settings.bucket, settings.prefix, settings.location],
        [bucket, prefix, location],
      );
    }
  });

  it("is Amazon's unless an endpoint is given", () => {
    const amazon = parseS3Url("s3://backups?region=eu-central-1");
    assert.deepEqual(
      [amazon.preset, amazon.endpoint, amazon.addressing],
      ["aws", undefined, "virtual"],
    );
    const other = parseS3Url("s3://backups?endpoint=https://s3.example.com:8443");
    assert.deepEqual(
      [other.preset, other.addressing, other.region, other.location],
      ["compatible", "path", "us-east-1", "s3://backups at s3.example.com:8443"],
    );
  });

  it("takes all options", () => {
    const settings = parseS3Url(
      "s3://b-1?storageClass=STANDARD_IA&encryption=aws:kms&kmsKeyId=k&connectTimeout=2s&idleTimeout=1m&attempts=3" +
        "&connections=8&conditionalWrites=false&multiDelete=false&checksum=sha256&consistentListing=false" +
        "&accessKeyIdFile=/k/id&secretAccessKeyFile=/k/secret&caFile=/k/ca.pem&addressing=path&profile=p&region=r",
    );
    assert.partialDeepStrictEqual(settings, {
      storageClass: "STANDARD_IA",
      encryption: "aws:kms",
      kmsKeyId: "k",
      connectTimeoutMs: 2000,
      idleTimeoutMs: 60_000,
      attempts: 3,
      connections: 8,
      conditionalWrites: false,
      multiDelete: false,
      checksum: "sha256",
      consistentListing: false,
      accessKeyIdFile: "/k/id",
      secretAccessKeyFile: "/k/secret",
      caFile: "/k/ca.pem",
      addressing: "path",
      profile: "p",
      region: "r",
    });
  });

  it("knows services by presets, and an option overrules its preset", () => {
    const wasabi = parseS3Url("s3://backups?preset=wasabi&region=eu-central-2");
    assert.equal(wasabi.endpoint, "https://s3.eu-central-2.wasabisys.com");
    assert.equal(wasabi.conditionalWrites, false);
    assert.equal(
      parseS3Url("s3://backups?preset=wasabi&conditionalWrites=true").conditionalWrites,
      true,
    );
    for (const [name, preset] of Object.entries(S3_PRESETS)) {
      const where = preset.endpoint === undefined ? "&endpoint=https://s3.example.com" : "";
      const settings = parseS3Url(`s3://backups?preset=${name}&region=somewhere-1${where}`);
      assert.equal(settings.preset, name);
      assert.ok(name === "aws" || settings.endpoint !== undefined, name);
    }
  });

  it("locks objects where it says so, and only then keeps to what needs versions", () => {
    assert.equal(
      parseS3Url("s3://backups?preset=rgw&endpoint=https://s3.example.com").objectLock,
      undefined,
    );
    const locked = parseS3Url(
      "s3://backups?preset=rgw&endpoint=https://s3.example.com&objectLockMode=compliance&objectLockPeriod=14d",
    );
    assert.deepEqual(locked.objectLock, { mode: "compliance", periodMs: 14 * 86_400_000 });
    // This gateway does not look at If-None-Match where versions are kept.
    assert.deepEqual([locked.conditionalWrites, locked.checksum], [false, "signature"]);
    const other = parseS3Url(
      "s3://backups?endpoint=https://s3.example.com&objectLockMode=governance",
    );
    assert.deepEqual(other.objectLock, { mode: "governance", periodMs: 30 * 86_400_000 });
    assert.deepEqual([other.conditionalWrites, other.checksum], [true, "md5"]);
    assert.equal(parseS3Url("s3://backups?objectLockMode=none").objectLock?.mode, "none");
    // What the repository goes by holds where the URL does not say.
    const kept = { mode: "compliance", periodMs: 86_400_000 } as const;
    const inherited = { ...kept, isInherited: true };
    assert.deepEqual(parseS3Url("s3://backups", kept).objectLock, inherited);
    assert.equal(
      parseS3Url("s3://backups?preset=rgw&endpoint=https://s3.example.com", kept).checksum,
      locked.checksum,
    );
    assert.equal(parseS3Url("s3://backups?objectLockMode=none", kept).objectLock?.mode, "none");
  });

  it("says what is wrong with it", () => {
    refuses("s3:backups", /is not the name of a bucket|expected s3/);
    refuses("s3://a", /"a" is not the name of a bucket/);
    refuses("s3://backups?regoin=x", /no option "regoin"; did you mean region\?/);
    refuses(
      "s3://backups?attempts=0",
      /attempts: expected a whole number between 1 and 100, found "0"/,
    );
    refuses("s3://backups?endpoint=s3.example.com", /endpoint: expected an http or https URL/);
    refuses("s3://backups?endpoint=https://s3.example.com/bucket", /endpoint: expected/);
    refuses("s3://backups?idleTimeout=never", /idleTimeout: expected a duration/);
    refuses(
      "s3://backups?checksum=crc",
      /checksum: expected one of signature, crc32, sha256, md5, none/,
    );
    refuses("s3://backups?region=a&region=b", /region is there twice/);
    refuses("s3://backups?preset=minio", /minio needs the option endpoint/);
    refuses("s3://backups?preset=b2", /b2 needs the option region/);
    refuses("s3://backups?accessKeyIdFile=/id", /belong together/);
    refuses(
      "s3://backups?accessKeyIdFile=id&secretAccessKeyFile=/s",
      /accessKeyIdFile: expected the absolute path/,
    );
    refuses("s3://backups?storageClass=DEEP_ARCHIVE", /objects can be read at once/);
    refuses("s3://backups?objectLockMode=legal", /expected one of governance, compliance, none/);
    refuses("s3://backups?objectLockPeriod=30d", /objectLockPeriod needs objectLockMode/);
    refuses("s3://backups?objectLockMode=governance&objectLockPeriod=1000y", /expected a duration/);
    refuses("s3://backups?objectLockMode=compliance&objectLockPeriod=3000d", /between 1s and/);
    refuses("s3://backups?kmsKeyId=k", /kmsKeyId needs encryption=aws:kms/);
    refuses("s3://backups/a b", /the prefix "a%20b" has characters/);
  });

  it("repeats no secret that was put there by mistake", () => {
    for (const url of [
      "s3://AKIA:hunter2@backups",
      "s3://backups?secretAccessKey=hunter2",
      "s3://AKIA:a/hunter2+x@backups",
      "s3://backups?secretAccessKeyFile=hunter2&accessKeyIdFile=/k",
    ]) {
      assert.throws(
        () => parseS3Url(url),
        (error: Error) => !`${error.message} ${String(error.cause)}`.includes("hunter2"),
      );
    }
  });
});
