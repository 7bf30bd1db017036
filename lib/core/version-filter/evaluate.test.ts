import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { AshlarError, ErrorCode } from "../errors.ts";
import { compileFilter, FILTER_IDENTIFIERS } from "./evaluate.ts";
import type { FilterableVersion } from "./evaluate.ts";

const NOW = Date.parse("2026-05-09T14:23:45.678Z");

const VERSION: FilterableVersion = {
  uid: "vm-1-abc123",
  date: Date.parse("2026-05-01T00:00:00Z"),
  volume: "vm-1",
  snapshot: "",
  sizeBytes: 10 * 1024 ** 3,
  blockBytes: 4 * 1024 ** 2,
  status: "valid",
  protected: false,
  storages: ["here", "offsite-1"],
  labels: { host: "hv1", build: "17", empty: "" },
  bytesRead: 4096,
  bytesWritten: 0,
  durationMs: 90_000,
};

function matches(filter: string, version: Partial<FilterableVersion> = {}): boolean {
  return compileFilter(filter, NOW, "UTC")({ ...VERSION, ...version });
}

/** Every filter of the first list selects the sample version, none of the second does. */
function check(selecting: readonly string[], refusing: readonly string[]): void {
  for (const filter of selecting) assert.equal(matches(filter), true, filter);
  for (const filter of refusing) assert.equal(matches(filter), false, filter);
}

describe("version filter", () => {
  it("compares texts", () => {
    check(
      [
        'volume == "vm-1"',
        "volume == 'vm-1'",
        '"vm-1" == volume',
        'volume != "vm-2"',
        'volume like "vm%"',
        'uid like "vm-1-______"',
        'volume < "vm-2"',
        '"vm-2" > volume',
        'snapshot == ""',
        'volume=="vm-1"and(uid>="vm")',
      ],
      [
        'volume == "VM-1"',
        'volume like "VM%"',
        'snapshot != ""',
        'snapshot like "_%"',
        "uid == volume",
      ],
    );
    assert.ok(matches("volume == 17", { volume: "17" }));
    assert.ok(matches(String.raw`volume == "a\"b'c"`, { volume: `a"b'c` }));
    assert.ok(matches(String.raw`volume like "a\_%"`, { volume: "a_b" }));
    assert.ok(!matches(String.raw`volume like "a\_%"`, { volume: "axb" }));
  });

  it("compares sizes, with and without a unit, quoted or not", () => {
    check(
      [
        "size == 10GiB",
        "size == '10 GiB'",
        "size >= 10737418240",
        "size > 1.5GiB",
        "1GiB < size",
        "size > -1",
        "size != block_size",
        "block_size <= size",
        "bytes_read == 4k",
        "bytes_written == 0",
      ],
      ["size < 10GiB", "size == block_size", "bytes_read > 4096"],
    );
  });

  it("takes durations for seconds unless they have a unit", () => {
    check(
      ["duration == 90", "duration == 1.5m", "duration > 1m29s", "duration < '2m'"],
      ["duration > 90s"],
    );
  });

  it("answers false for what a version does not have, whatever the comparison", () => {
    check(
      ["not bytes_sparse", "not bytes_sparse == 0", "not (bytes_sparse != 0)"],
      ["bytes_sparse == 0"],
    );
    assert.equal(matches("duration != 1", { durationMs: undefined }), false);
  });

  it("compares dates", () => {
    check(
      [
        'date == "2026-05-01"',
        'date < "1 week ago"',
        'date > "10 days ago"',
        '"now" > date',
        'date <= "2026-05-01T02:00:00+02:00"',
      ],
      ['date < "2026-05-01"', 'date > "yesterday"'],
    );
    const local = compileFilter('date == "2026-05-01 02:00"', NOW, "Europe/Berlin");
    assert.equal(local(VERSION), true);
  });

  it("compares the status", () => {
    check(['status == "valid"', 'status != "invalid"'], ['status == "incomplete"']);
  });

  it("knows protected as a truth", () => {
    check(
      ["not protected", "protected == False", "protected != true", "false == protected"],
      ["protected", "protected == True", "not not protected"],
    );
    assert.equal(matches("protected", { protected: true }), true);
    assert.equal(matches("not protected", { protected: true }), false);
  });

  it("asks for any storage of the policy, and != for none", () => {
    check(
      [
        'storage == "here"',
        'storage == "offsite-1"',
        'storage like "off%"',
        'storage != "tape"',
        "storage",
      ],
      ['storage == "tape"', 'storage != "here"', 'storage like "tape%"'],
    );
    assert.equal(matches("storage", { storages: [] }), false);
  });

  it("knows labels: alone they exist, a comparison needs them to", () => {
    check(
      [
        'labels["host"]',
        "labels['empty']",
        'labels["host"] == "hv1"',
        'labels["host"] != "hv2"',
        'labels["host"] like "hv_"',
        'labels["host"] < "hv2"',
        'labels["build"] == 17',
        'labels["host"] != labels["build"]',
        'labels["host"] != volume',
        'not labels["none"] == "x"',
      ],
      [
        'labels["none"]',
        'labels["none"] == ""',
        'labels["none"] != "x"',
        'labels["constructor"]',
        'labels["__proto__"]',
        'labels["host"] == "HV1"',
      ],
    );
  });

  it("takes other identifiers alone for not empty", () => {
    check(["volume", "size", "not snapshot", "not bytes_written"], ["snapshot", "bytes_written"]);
    for (const identifier of FILTER_IDENTIFIERS) assert.doesNotThrow(() => matches(identifier));
  });

  it("binds comparison before not, not before and, and before or, in any case", () => {
    check(
      [
        'volume == "vm-1" or volume == "x" and protected',
        'not volume == "x" and not protected',
        'NOT protected AND (volume == "x" Or size == 10GiB)',
        '(volume) == ("vm-1")',
        'not (protected or volume == "x")',
      ],
      ['(volume == "vm-1" or volume == "x") and protected', 'not volume == "vm-1" or protected'],
    );
  });
});

/** What a wrong filter must answer. */
const WRONG: readonly (readonly [filter: string, column: number, message: RegExp])[] = [
  ["", 1, /empty/],
  ["   ", 1, /empty/],
  ["notprotected", 1, /unknown identifier "notprotected".*did you mean protected\?/],
  ["notprotected == True", 1, /unknown identifier/],
  ["volume == vm1", 11, /unknown identifier "vm1".*a text in quotes/],
  ["Volume == 'x'", 1, /did you mean volume\?/],
  ["volume = 'x'", 8, /equality is written "=="/],
  ["volume == 'x", 11, /no closing '/],
  ["volume ==", 10, /expected an identifier, a value.*found the end/],
  ["volume 'x'", 8, /expected "and", "or" or the end, found the text "x"/],
  ["(volume == 'x'", 15, /expected "\)".*found the end/],
  ["volume == 'x')", 14, /expected "and", "or" or the end, found "\)"/],
  ["volume == 'x' and", 18, /found the end/],
  ["or volume", 1, /found "or"/],
  ["volume like", 12, /found the end/],
  ["volume == and", 11, /found "and"/],
  ["1 < size < 5", 10, /compared again/],
  ["(size < 5) == True", 1, /found an expression in parentheses/],
  ["True", 1, /a value alone/],
  ["'x' and protected", 1, /a value alone/],
  ["1 == 1", 1, /two values/],
  ["'vm%' like volume", 1, /to the left of "like"/],
  ["size like '1%'", 6, /"like" makes no sense here; expected "=="/],
  ["status < 'valid'", 8, /makes no sense/],
  ["protected < True", 11, /makes no sense/],
  ["storage < 'x'", 9, /makes no sense/],
  ["size == 'big'", 9, /expected a number of bytes, such as 4096 or 10GiB, found "big"/],
  ["size == 10XiB", 9, /expected a number of bytes/],
  ["size == True", 9, /expected a number of bytes/],
  ["duration == 5GiB", 13, /expected seconds or a duration/],
  ["duration == 1.2.3", 13, /expected seconds or a duration/],
  ["date == 5", 9, /expected a date in quotes/],
  ["date > 'whenever'", 8, /expected a date in quotes.*found "whenever"/],
  ["status == 'good'", 11, /expected "incomplete", "valid", "invalid", found "good"/],
  ["protected == 1", 14, /expected True or False/],
  ["size == volume", 9, /of another kind/],
  ["storage == storage", 12, /of another kind/],
  ["labels", 7, /expected "\[" after labels/],
  ["labels[host]", 8, /label's name in quotes/],
  ["labels['host'", 14, /expected "\]"/],
  ["volume ? 'x'", 8, /unexpected "\?"/],
  [`${"(".repeat(200)}protected${")".repeat(200)}`, 101, /nested more than 100 deep/],
  ["not ".repeat(200).concat("protected"), 401, /nested more than 100 deep/],
  ["a".repeat(10_001), 10_001, /at most 10000 characters/],
];

describe("a wrong filter", () => {
  it("is a Usage error with the column and what was expected", () => {
    for (const [filter, column, message] of WRONG) {
      assert.throws(
        () => matches(filter),
        (error) => {
          assert.ok(error instanceof AshlarError, `${filter}: ${String(error)}`);
          assert.equal(error.code, ErrorCode.Usage);
          assert.match(error.message, message);
          assert.match(
            error.message,
            new RegExp(`^filter, column ${column}: `),
            filter.slice(0, 40),
          );
          return error.details["column"] === column;
        },
      );
    }
  });

  it("never fails in any other way", () => {
    const token = fc.constantFrom(
      ..."volume size date protected status storage labels duration __proto__".split(" "),
      ..."== != < <= > >= like and or not NOT ( ) [ ] ['a']".split(" "),
      ..."'x' '%' 'valid' 5 -5 10GiB 5m True FALSE 1.5.2".split(" "),
      '"1 week ago"',
      ..."=\\'\"%é\n".split(""),
    );
    fc.assert(
      fc.property(
        fc.array(token, { maxLength: 12 }),
        fc.constantFrom(" ", ""),
        (tokens, between) => {
          try {
            assert.equal(typeof matches(tokens.join(between)), "boolean");
          } catch (error) {
            assert.ok(
              error instanceof AshlarError && error.code === ErrorCode.Usage,
              String(error),
            );
            assert.match(error.message, /^filter, column \d+: /);
          }
        },
      ),
      { numRuns: 3000 },
    );
  });
});

/** A random filter as text, with what it must answer for the sample version. */
interface Sample {
  readonly text: string;
  readonly answer: boolean;
  /** 0 or, 1 and, 2 not, 3 comparison. */
  readonly level: number;
}

function wrap(sample: Sample, level: number): string {
  return sample.level < level ? `(${sample.text})` : sample.text;
}

const samples = fc.letrec<{ any: Sample; leaf: Sample; not: Sample; both: Sample }>((tie) => ({
  any: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    tie("leaf"),
    tie("not"),
    tie("both"),
  ),
  leaf: fc.constantFrom<Sample>(
    { text: "volume == 'vm-1'", answer: true, level: 3 },
    { text: "protected", answer: false, level: 3 },
    { text: "size < 1GiB", answer: false, level: 3 },
    { text: "labels['host'] like 'hv%'", answer: true, level: 3 },
  ),
  not: tie("any").map((operand) => ({
    text: `not ${wrap(operand, 2)}`,
    answer: !operand.answer,
    level: 2,
  })),
  both: fc.tuple(tie("any"), tie("any"), fc.boolean()).map(([left, right, and]) => {
    const level = and ? 1 : 0;
    return {
      text: `${wrap(left, level)} ${and ? "and" : "or"} ${wrap(right, level)}`,
      answer: and ? left.answer && right.answer : left.answer || right.answer,
      level,
    };
  }),
}));

describe("a right filter", () => {
  it("answers as its parts do", () => {
    fc.assert(
      fc.property(samples.any, ({ text, answer }) => matches(text) === answer),
      { numRuns: 2000 },
    );
  });
});
