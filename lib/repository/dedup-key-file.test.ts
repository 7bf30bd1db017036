import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { formatDedupKeyFile, parseDedupKeyFile } from "./dedup-key-file.ts";
import { createKeyFile } from "./key-file.ts";

const keys = fc.record(
  {
    dedupKey: fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => Buffer.from(bytes)),
    hash: fc.constantFrom("blake3" as const, "hmac-sha256" as const),
  },
  { noNullPrototype: true },
);

describe("a dedup key file", () => {
  it("gives back the key and the kind of hash", () => {
    fc.assert(
      fc.property(keys, (each) => {
        assert.deepEqual(parseDedupKeyFile(formatDedupKeyFile(each)), each);
      }),
    );
  });

  it("is told from other texts, without repeating them", () => {
    const text = formatDedupKeyFile({ hash: "blake3", dedupKey: Buffer.alloc(32, 1) });
    for (const wrong of [
      "",
      createKeyFile().text,
      `${text}${text}`,
      text.replace("blake3", "md5"),
      text.slice(0, -3),
      text.replace(/0(?=[^0]*$)/, "3"),
    ]) {
      assert.throws(
        () => parseDedupKeyFile(wrong),
        (error) =>
          isErrorCode(error, ErrorCode.Refused) && error.message.startsWith("not a dedup key file"),
      );
    }
  });
});
