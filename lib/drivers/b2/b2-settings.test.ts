import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { storageFileOptions } from "#lib/drivers/storages.ts";
import { parseB2Url } from "./b2-settings.ts";

function refuses(url: string, problem: RegExp): void {
  assert.throws(
    () => parseB2Url(url),
    (error) => {
      assert.ok(error instanceof AshlarError && error.code === ErrorCode.Usage, String(error));
      assert.match(error.message, problem);
      assert.match(error.remedy ?? "", /b2:\/\/BUCKET\/PREFIX/);
      return true;
    },
  );
}

describe("the URL of a B2 storage", () => {
  it("names bucket and prefix", () => {
    for (const [url, bucket, prefix, location] of [
      ["b2://backups", "backups", "", "b2://backups"],
      ["b2://backups/", "backups", "", "b2://backups"],
      ["b2://My-Backups/vm/hosts/", "My-Backups", "vm/hosts/", "b2://My-Backups/vm/hosts"],
    ] as const) {
      const settings = parseB2Url(url);
      assert.deepEqual(
        [settings.bucket, settings.prefix, settings.location],
        [bucket, prefix, location],
      );
    }
  });

  it("has defaults for everything else", () => {
    assert.partialDeepStrictEqual(parseB2Url("b2://backups"), {
      apiUrl: "https://api.backblazeb2.com",
      applicationKeyIdFile: undefined,
      applicationKeyFile: undefined,
      connectTimeoutMs: 10_000,
      idleTimeoutMs: 60_000,
      attempts: 5,
      connections: 64,
    });
  });

  it("takes all options", () => {
    const settings = parseB2Url(
      "b2://backups/vm?applicationKeyIdFile=/k/id&applicationKeyFile=/k/key&connectTimeout=2s&idleTimeout=1m&attempts=3" +
        "&connections=8&apiUrl=https://b2.example.com:8443/",
    );
    assert.partialDeepStrictEqual(settings, {
      applicationKeyIdFile: "/k/id",
      applicationKeyFile: "/k/key",
      connectTimeoutMs: 2000,
      idleTimeoutMs: 60_000,
      attempts: 3,
      connections: 8,
      apiUrl: "https://b2.example.com:8443",
      location: "b2://backups/vm at b2.example.com:8443",
    });
    assert.deepEqual(storageFileOptions("b2://backups"), [
      "applicationKeyIdFile",
      "applicationKeyFile",
    ]);
  });

  it("says what is wrong with it", () => {
    refuses("b2:backups", /is not the name of a bucket|expected b2/);
    refuses("b2://short", /"short" is not the name of a bucket/);
    refuses("b2://b2-backups", /is not the name of a bucket/);
    refuses("b2://my_backups", /is not the name of a bucket/);
    refuses("b2://backups?atempts=3", /no option "atempts"; did you mean attempts\?/);
    refuses("b2://backups?region=x", /no option "region"; there are applicationKeyIdFile/);
    refuses(
      "b2://backups?attempts=0",
      /attempts: expected a whole number between 1 and 100, found "0"/,
    );
    refuses("b2://backups?apiUrl=b2.example.com", /apiUrl: expected an http or https URL/);
    refuses("b2://backups?idleTimeout=never", /idleTimeout: expected a duration/);
    refuses("b2://backups?attempts=2&attempts=3", /attempts is there twice/);
    refuses("b2://backups?applicationKeyIdFile=/id", /belong together/);
    refuses(
      "b2://backups?applicationKeyFile=key",
      /applicationKeyFile: expected the absolute path/,
    );
    refuses("b2://backups/a b", /the prefix "a%20b" has characters/);
    refuses(`b2://backups/${"a/".repeat(500)}`, /longer than 800 bytes/);
  });

  it("repeats no secret that was put there by mistake", () => {
    for (const url of ["b2://0012:hunter2@backups", "b2://backups?applicationKey=hunter2"]) {
      assert.throws(
        () => parseB2Url(url),
        (error: Error) => !`${error.message} ${String(error.cause)}`.includes("hunter2"),
      );
    }
  });
});
