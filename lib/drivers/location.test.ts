import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { parseLocation } from "./location.ts";

const KINDS = { file: "file", rbd: "rbd", "-": "stream" };

describe("locations", () => {
  const good: [string, string, string][] = [
    ["/srv/disk.img", "file", "/srv/disk.img"],
    ["disk.img", "file", "disk.img"],
    ["./odd:name", "file", "./odd:name"],
    ["/srv/odd:name", "file", "/srv/odd:name"],
    ["file:/srv/a%20b", "file", "/srv/a%20b"],
    ["file:disk.img", "file", "disk.img"],
    ["file:///srv/a%20b", "file", "/srv/a b"],
    ["file://localhost/srv", "file", "/srv"],
    ["rbd:pool/image@snap", "rbd", "pool/image@snap"],
    ["-", "stream", "-"],
  ];
  for (const [location, kind, rest] of good) {
    it(`reads ${location}`, () => {
      assert.deepEqual(parseLocation(location, "source", KINDS), { kind, rest });
    });
  }

  for (const location of [
    "",
    "file:",
    "file://",
    "file://host/path",
    "file:///%zz",
    "iscsi:x",
    "odd:name",
  ]) {
    it(`refuses ${JSON.stringify(location)}`, () => {
      assert.throws(
        () => parseLocation(location, "source", KINDS),
        (error) => isErrorCode(error, ErrorCode.Usage),
      );
    });
  }

  it("names what it knows", () => {
    try {
      parseLocation("odd:name", "source", KINDS);
      assert.fail();
    } catch (error) {
      assert.ok(error instanceof AshlarError);
      assert.match(error.remedy ?? "", /file:, rbd:, - \(a stream\) or a path.*\.\/odd:name/);
    }
  });
});
