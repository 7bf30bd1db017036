import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { AshlarError, ErrorCode } from "./errors.ts";
import { blocksToRead, extentBytes, parseHints, sampleRounds, sampleUnchanged } from "./hints.ts";
import type { BlockState } from "./hints.ts";

interface Entry {
  readonly offset: number;
  readonly length: number;
  readonly exists: boolean | "true" | "false";
}

function parse(entries: unknown, sizeBytes = 1000): { changed: number[]; zero: number[] } {
  const { changed, zero } = parseHints(JSON.stringify(entries), sizeBytes);
  return { changed: [...changed], zero: [...zero] };
}

function entry(offset: number, length: number, exists: Entry["exists"]): Entry {
  return { offset, length, exists };
}

describe("a hints file", () => {
  it("is what rbd diff prints", () => {
    assert.deepEqual(parse([]), { changed: [], zero: [] });
    assert.deepEqual(parse([entry(0, 10, "true"), entry(20, 5, true), entry(40, 60, "false")]), {
      changed: [0, 10, 20, 25],
      zero: [40, 100],
    });
  });

  it("is sorted, and what overlaps or touches is joined", () => {
    assert.deepEqual(
      parse([
        entry(50, 10, true),
        entry(0, 10, true),
        entry(10, 5, true),
        entry(55, 20, true),
        entry(52, 1, true),
      ]),
      { changed: [0, 15, 50, 75], zero: [] },
    );
    assert.deepEqual(parse([entry(5, 0, true), entry(0, 1000, false)]), {
      changed: [],
      zero: [0, 1000],
    });
  });

  it("may have other fields", () => {
    assert.deepEqual(parse([{ ...entry(0, 1, true), object: "rbd_data.1" }]).changed, [0, 1]);
  });

  it("is refused as damaged, naming the entry and what is wrong", () => {
    const table: readonly (readonly [string, RegExp])[] = [
      ["", /not JSON/],
      ["[", /not JSON/],
      ["{}", /expected an array .*found an object/],
      ["null", /found null/],
      ["[1]", /entry 0: expected .*found 1/],
      ["[[]]", /entry 0: expected .*found an array/],
      ['[{"offset":0,"length":1,"exists":true},null]', /entry 1: expected .*found null/],
      [
        '[{"length":1,"exists":true}]',
        /entry 0: "offset" must be a whole number of bytes, found nothing/,
      ],
      ['[{"offset":-1,"length":1,"exists":true}]', /"offset" must .*found -1/],
      ['[{"offset":1.5,"length":1,"exists":true}]', /"offset" must .*found 1.5/],
      ['[{"offset":"0","length":1,"exists":true}]', /"offset" must .*found "0"/],
      ['[{"offset":0,"exists":true}]', /"length" must .*found nothing/],
      ['[{"offset":0,"length":1e300,"exists":true}]', /"length" must .*found 1e\+300/],
      ['[{"offset":0,"length":1}]', /"exists" must be true or false, found nothing/],
      ['[{"offset":0,"length":1,"exists":"yes"}]', /"exists" must be true or false, found "yes"/],
      ['[{"offset":0,"length":1,"exists":1}]', /"exists" must/],
      [
        '[{"offset":999,"length":2,"exists":true}]',
        /entry 0: reaches to byte 1001, but the source has 1000 bytes/,
      ],
    ];
    for (const [text, message] of table) {
      assert.throws(
        () => parseHints(text, 1000),
        (error) => {
          assert.ok(error instanceof AshlarError, String(error));
          assert.match(error.message, message);
          return error.code === ErrorCode.Damaged;
        },
        text,
      );
    }
  });

  it("never fails in another way", () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string()), (text) => {
        try {
          parseHints(text, 1000);
        } catch (error) {
          assert.ok(
            error instanceof AshlarError && error.code === ErrorCode.Damaged,
            String(error),
          );
        }
      }),
    );
  });
});

function states(entries: readonly Entry[], sizeBytes: number, blockBytes: number): string {
  const letters: Readonly<Record<BlockState, string>> = { read: "r", zero: "0", unchanged: "." };
  let text = "";
  let last: BlockState | undefined;
  for (const { first, end, state } of blocksToRead(
    parseHints(JSON.stringify(entries), sizeBytes),
    sizeBytes,
    blockBytes,
  )) {
    assert.equal(first, text.length, "ranges leave no gap");
    assert.ok(end > first && state !== last, "ranges are neither empty nor cut up");
    text += letters[state].repeat(end - first);
    last = state;
  }
  return text;
}

/** Byte by byte. */
function statesByBruteForce(
  entries: readonly Entry[],
  sizeBytes: number,
  blockBytes: number,
): string {
  const covers = (byte: number, exists: boolean): boolean =>
    entries.some(
      (each) =>
        String(each.exists) === String(exists) &&
        each.offset <= byte &&
        byte < each.offset + each.length,
    );
  let text = "";
  for (let start = 0; start < sizeBytes; start += blockBytes) {
    const bytes = Array.from(
      { length: Math.min(blockBytes, sizeBytes - start) },
      (_, index) => start + index,
    );
    const changed = bytes.some((byte) => covers(byte, true));
    const zeros = bytes.filter((byte) => covers(byte, false)).length;
    if (changed || (zeros > 0 && zeros < bytes.length)) text += "r";
    else text += zeros === bytes.length ? "0" : ".";
  }
  return text;
}

describe("the blocks to read", () => {
  it("are those that a change touches, and the edges of what exists no more", () => {
    assert.equal(states([], 100, 10), "..........");
    assert.equal(states([entry(9, 2, true)], 100, 10), "rr........");
    assert.equal(states([entry(10, 30, false)], 100, 10), ".000......");
    assert.equal(states([entry(15, 30, false)], 100, 10), ".r00r.....");
    assert.equal(states([entry(12, 3, false)], 100, 10), ".r........");
    assert.equal(states([entry(10, 30, false), entry(25, 1, true)], 100, 10), ".0r0......");
    assert.equal(states([entry(0, 5, false), entry(5, 5, false)], 100, 10), "0.........");
    assert.equal(states([entry(0, 100, true)], 100, 10), "rrrrrrrrrr");
    assert.equal(states([], 0, 10), "");
  });

  it("take a short last block for what it is", () => {
    assert.equal(states([entry(90, 3, false)], 93, 10), ".........0");
    assert.equal(states([entry(90, 2, false)], 93, 10), ".........r");
    assert.equal(states([entry(85, 8, false)], 93, 10), "........r0");
  });

  it("agree with brute force", () => {
    const cases = fc
      .record({
        sizeBytes: fc.integer({ min: 0, max: 120 }),
        blockBytes: fc.integer({ min: 1, max: 16 }),
      })
      .chain(({ sizeBytes, blockBytes }) =>
        fc.record({
          sizeBytes: fc.constant(sizeBytes),
          blockBytes: fc.constant(blockBytes),
          entries: fc.array(
            fc
              .tuple(
                fc.nat(sizeBytes),
                fc.nat(sizeBytes),
                fc.constantFrom(true, false, "true", "false"),
              )
              .map(([a, b, exists]) =>
                entry(Math.min(a, b), Math.abs(a - b), exists as Entry["exists"]),
              ),
            { maxLength: 6 },
          ),
        }),
      );
    fc.assert(
      fc.property(cases, ({ sizeBytes, blockBytes, entries }) => {
        assert.equal(
          states(entries, sizeBytes, blockBytes),
          statesByBruteForce(entries, sizeBytes, blockBytes),
        );
        const changed = parseHints(JSON.stringify(entries), sizeBytes).changed;
        assert.ok(extentBytes(changed) <= sizeBytes);
      }),
      { numRuns: 1000 },
    );
  });

  it("cost what the hints say, not what the image has", () => {
    const sizeBytes = 2 ** 52;
    const hints = parseHints(JSON.stringify([entry(2 ** 51, 1, true)]), sizeBytes);
    assert.equal([...blocksToRead(hints, sizeBytes, 65_536)].length, 3);
  });
});

describe("the sample of unchanged blocks", () => {
  it("covers every block exactly once in sampleRounds runs, at most 1/rate of them", () => {
    fc.assert(
      fc.property(
        fc.nat(3000),
        fc.nat(1_000_000),
        fc.oneof(
          fc.constantFrom(0.001, 0.01, 0.5, 1, 2),
          fc.double({ min: 0.002, max: 1, noNaN: true }),
        ),
        (blockCount, run, rate) => {
          const rounds = sampleRounds(blockCount, rate);
          assert.ok(rounds <= Math.ceil(1 / rate) && rounds >= 1);
          const seen = new Uint8Array(blockCount);
          for (let round = 0; round < rounds; round += 1) {
            let last = -1;
            let count = 0;
            for (const index of sampleUnchanged(blockCount, run + round, rate)) {
              assert.ok(index > last && index < blockCount);
              seen[index] = (seen[index] ?? 0) + 1;
              last = index;
              count += 1;
            }
            assert.ok(Math.abs(count - blockCount / rounds) < 1, "every run does its share");
          }
          assert.ok(seen.every((times) => times === 1));
        },
      ),
    );
  });

  it("is the same for the same run, and none at a rate of 0", () => {
    assert.deepEqual([...sampleUnchanged(10_000, 7)], [...sampleUnchanged(10_000, 7)]);
    assert.equal([...sampleUnchanged(10_000, 7)].length, 10);
    assert.deepEqual([...sampleUnchanged(10_000, 7, 0)], []);
    assert.deepEqual([...sampleUnchanged(0, 3)], []);
  });

  it("can be asked for a part of the image", () => {
    fc.assert(
      fc.property(fc.nat(500), fc.nat(500), fc.nat(500), fc.nat(99), (blockCount, a, b, run) => {
        const [first, end] = [Math.min(a, b), Math.max(a, b)];
        assert.deepEqual(
          [...sampleUnchanged(blockCount, run, 0.1, first, end)],
          [...sampleUnchanged(blockCount, run, 0.1)].filter(
            (index) => first <= index && index < end,
          ),
        );
      }),
    );
  });

  it("finds a stretch of neighbours long before the round is over", () => {
    const run = Array.from({ length: 1000 }, (_, index) => index).find(
      (each) => [...sampleUnchanged(100_000, each, 0.001, 4000, 4050)].length > 0,
    );
    assert.ok(run !== undefined && run <= 40, `found in run ${run}`);
  });
});
