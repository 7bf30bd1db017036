import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { createKeyFile, formatKeyFile, parseKeyFile } from "./key-file.ts";

const KEY = Buffer.from("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f", "hex");
const LINE = /ASHLAR-KEY-1:.*/;

function line(): string {
  return LINE.exec(formatKeyFile(KEY))?.[0] ?? "";
}

function refused(text: string): void {
  assert.throws(
    () => parseKeyFile(text),
    (error) =>
      error instanceof AshlarError &&
      error.code === ErrorCode.Refused &&
      error.remedy !== undefined,
  );
}

describe("a key file", () => {
  it("comes back as it was", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (raw) => {
        const key = Buffer.from(raw);
        assert.deepEqual(parseKeyFile(formatKeyFile(key)), { type: "keyfile", key });
      }),
    );
    const { secret, text } = createKeyFile();
    assert.deepEqual(parseKeyFile(text), secret);
    assert.notDeepEqual(createKeyFile().secret, secret);
  });

  it("is one line beside comments, in groups that can be read aloud", () => {
    assert.equal(
      line(),
      "ASHLAR-KEY-1:000G-40R4-0M30-E209-185G-R38E-1W81-24GK-2GAH-C5RR-34D1-P70X-3RFG-JXA1",
    );
  });

  it("may be typed with other blanks, case, and letters that look alike", () => {
    const expected = { type: "keyfile", key: KEY };
    const digits = line().slice("ASHLAR-KEY-1:".length);
    for (const typed of [
      `\r\n# comment\r\n  ${line()}  \r\n`,
      `ashlar-key-1: ${digits.toLowerCase().replaceAll("-", " ")}`,
      `ASHLAR-KEY-1:${digits.replaceAll("-", "").replaceAll("0", "o").replaceAll("1", "l")}`,
    ]) {
      assert.deepEqual(parseKeyFile(typed), expected);
    }
  });

  it("with any one digit wrong, missing, added or swapped with its neighbour is refused", () => {
    const start = "ASHLAR-KEY-1:".length;
    const digits = line().slice(start).replaceAll("-", "");
    for (let at = 0; at < digits.length; at += 1) {
      const digit = digits[at] as string;
      const other = digit === "7" ? "8" : "7";
      const next = digits[at + 1] ?? digit;
      refused(`ASHLAR-KEY-1:${digits.slice(0, at)}${other}${digits.slice(at + 1)}`);
      refused(`ASHLAR-KEY-1:${digits.slice(0, at)}${digits.slice(at + 1)}`);
      refused(`ASHLAR-KEY-1:${digits.slice(0, at)}${digit}${digits.slice(at)}`);
      if (next !== digit)
        refused(`ASHLAR-KEY-1:${digits.slice(0, at)}${next}${digit}${digits.slice(at + 2)}`);
    }
  });

  it("of anything else is refused, without repeating what may be a secret", () => {
    const secretText = "correct horse battery staple";
    for (const text of [
      "",
      "# only a comment\n",
      secretText,
      `${line()}\n${line()}`,
      "ASHLAR-KEY-2:AAAA",
      "ASHLAR-KEY-1:",
    ]) {
      refused(text);
    }
    assert.throws(
      () => parseKeyFile(secretText),
      (error) => !String(error).includes("horse"),
    );
  });
});
