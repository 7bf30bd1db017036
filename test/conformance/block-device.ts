// What every BlockSource and every BlockTarget must do (lib/ports/block-device.ts).
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it, type TestContext } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { BlockSource, BlockTarget, Extent } from "#lib/ports/block-device.ts";

/** How a kind of source is tested. */
export interface BlockSourceSuiteOptions {
  /** Opens a source with exactly this content; zeros may be holes. */
  readonly open: (test: TestContext, content: Buffer) => Promise<BlockSource>;
  /** Sizes must be a multiple of this. */
  readonly sectorBytes?: number;
  /** Opens a source that ends earlier than it said; undefined where that cannot be made. */
  readonly openShrinking?: (
    test: TestContext,
    content: Buffer,
    sizeBytes: number,
  ) => Promise<BlockSource>;
  readonly skip?: string | undefined;
}

/** An open target, and how to see what became of it. */
export interface BlockTargetFixture {
  readonly target: BlockTarget;
  /** What the target holds after it was finished. */
  readonly content: () => Promise<Buffer>;
}

/** How a kind of target is tested. */
export interface BlockTargetSuiteOptions {
  /** Opens a target of that size; `old` is what it holds before, where it can hold anything. */
  readonly open: (test: TestContext, sizeBytes: number, old: Buffer) => Promise<BlockTargetFixture>;
  readonly sectorBytes?: number;
  readonly skip?: string | undefined;
}

const KIB = 1024;
const MIB = 1024 * KIB;

async function allExtents(source: Pick<BlockSource, "extents">, range: Extent): Promise<Extent[]> {
  const extents: Extent[] = [];
  for await (const extent of source.extents(range)) extents.push(extent);
  return extents;
}

/** Data with holes: nothing, data, nothing, data, nothing. */
function sparseContent(sectorBytes: number): Buffer {
  const content = Buffer.alloc(2 * MIB + 3 * sectorBytes);
  randomBytes(100 * KIB).copy(content, 256 * KIB);
  randomBytes(64 * KIB).copy(content, MIB);
  return content;
}

/** Runs the suite against one kind of source. */
export function describeBlockSource(kind: string, options: BlockSourceSuiteOptions): void {
  const sectorBytes = options.sectorBytes ?? 1;
  describe(`BlockSource: ${kind}`, { skip: options.skip ?? false }, () => {
    for (const sectors of [0, 1, 7, 4096, 100_001]) {
      const sizeBytes = Math.min(sectors * sectorBytes, 8 * MIB);
      if (sectorBytes > 1 && sizeBytes === 0) continue;
      it(`reads ${sizeBytes} bytes`, async (test) => {
        const content = randomBytes(sizeBytes);
        const source = await options.open(test, content);
        assert.equal(source.sizeBytes, source.seekable ? sizeBytes : undefined);
        assert.ok(content.equals(await readForwards(source, sizeBytes, 4096)));
        assert.equal(await source.changed(), undefined);
      });
    }

    it("reads into any memory", async (test) => {
      const content = randomBytes(16 * KIB);
      const source = await options.open(test, content);
      const into = new Uint8Array(new SharedArrayBuffer(20 * KIB), 2 * KIB, 16 * KIB);
      assert.equal(await source.read(into, 0), 16 * KIB);
      assert.ok(content.equals(into));
    });

    it("tells the end", async (test) => {
      const content = randomBytes(10 * KIB);
      const source = await options.open(test, content);
      const into = Buffer.alloc(16 * KIB);
      if (source.seekable) {
        await assert.rejects(source.read(into, 0), (error) => {
          assert.ok(isErrorCode(error, ErrorCode.Io));
          return error.details["offset"] === 10 * KIB;
        });
      } else {
        assert.equal(await source.read(into, 0), 10 * KIB);
        assert.equal(await source.read(into, 10 * KIB), 0);
      }
    });

    it("names extents that hold all data, ascending, not touching", async (test) => {
      const content = sparseContent(sectorBytes);
      const source = await options.open(test, content);
      const whole = { offset: 0, length: content.length };
      const extents = await allExtents(source, whole);
      checkExtents(extents, whole);
      if (!source.seekable) return;
      const rest = Buffer.from(content);
      for (const { offset, length } of extents) rest.fill(0, offset, offset + length);
      assert.ok(
        rest.every((byte) => byte === 0),
        "what is in no extent is zero",
      );
    });

    it("keeps extents within the range that was asked for", async (test) => {
      const content = sparseContent(sectorBytes);
      const source = await options.open(test, content);
      if (!source.seekable) return;
      const range = { offset: 300 * KIB, length: MIB - 300 * KIB + 10 * KIB };
      const extents = await allExtents(source, range);
      checkExtents(extents, range);
      assert.ok(extents.length > 0);
    });

    it("reads anywhere, several at once", async (test) => {
      const content = randomBytes(MIB);
      const source = await options.open(test, content);
      if (!source.seekable) return;
      const offsets = [512 * KIB, 0, 64 * KIB, MIB - 4 * KIB];
      await Promise.all(
        offsets.map(async (offset) => {
          const into = Buffer.alloc(4 * KIB);
          await source.read(into, offset);
          assert.ok(content.subarray(offset, offset + 4 * KIB).equals(into));
        }),
      );
    });

    it("fails with the offset when the source has shrunk", async (test) => {
      const source = await options.openShrinking?.(test, randomBytes(64 * KIB), 40 * KIB);
      if (source === undefined) return;
      await assert.rejects(source.read(Buffer.alloc(32 * KIB), 32 * KIB), (error) => {
        assert.ok(isErrorCode(error, ErrorCode.Io), String(error));
        assert.match(error.message, /offset 40960/);
        return error.details["offset"] === 40 * KIB;
      });
      assert.match((await source.changed()) ?? "", /size .* changed/);
    });
  });
}

async function readForwards(source: BlockSource, sizeBytes: number, step: number): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for (let offset = 0; offset < sizeBytes; offset += step) {
    const into = Buffer.alloc(Math.min(step, sizeBytes - offset));
    assert.equal(await source.read(into, offset), into.length);
    pieces.push(into);
  }
  return Buffer.concat(pieces);
}

function checkExtents(extents: readonly Extent[], range: Extent): void {
  let end = -1;
  for (const { offset, length } of extents) {
    assert.ok(length > 0);
    assert.ok(offset > end, "ascending, not touching");
    assert.ok(offset >= range.offset);
    end = offset + length;
  }
  assert.ok(end <= range.offset + range.length);
}

/** Runs the suite against one kind of target. */
export function describeBlockTarget(kind: string, options: BlockTargetSuiteOptions): void {
  const sectorBytes = options.sectorBytes ?? 1;
  describe(`BlockTarget: ${kind}`, { skip: options.skip ?? false }, () => {
    it("holds what was written", async (test) => {
      const wanted = randomBytes(300 * KIB + sectorBytes);
      const { target, content } = await options.open(
        test,
        wanted.length,
        Buffer.alloc(wanted.length, 0xee),
      );
      for (let at = 0; at < wanted.length; at += 64 * KIB) {
        await target.write(wanted.subarray(at, at + 64 * KIB), at);
      }
      await target.finish();
      assert.ok(wanted.equals(await content()));
    });

    for (const discard of [true, false]) {
      it(`never lets old content show through zeros, ${discard ? "discarding" : "keeping space"}`, async (test) => {
        const sizeBytes = MIB + 5 * sectorBytes;
        const wanted = Buffer.alloc(sizeBytes);
        randomBytes(64 * KIB).copy(wanted, 128 * KIB);
        const { target, content } = await options.open(
          test,
          sizeBytes,
          Buffer.alloc(sizeBytes, 0xee),
        );
        await target.zero({ offset: 0, length: 128 * KIB }, { discard });
        await target.write(wanted.subarray(128 * KIB, 192 * KIB), 128 * KIB);
        await target.zero({ offset: 192 * KIB, length: sizeBytes - 192 * KIB }, { discard });
        await target.finish();
        assert.ok(wanted.equals(await content()));
      });
    }

    it("zeroes parts that are aligned to nothing", async (test) => {
      const sizeBytes = 64 * KIB;
      const old = Buffer.alloc(sizeBytes, 0xee);
      const { target, content } = await options.open(test, sizeBytes, old);
      if (!target.seekable) return;
      if (target.blank) await target.write(old, 0);
      await target.zero({ offset: 3, length: 10 }, { discard: !target.blank });
      await target.zero({ offset: 5000, length: 20_001 }, { discard: false });
      await target.finish();
      const wanted = Buffer.from(old).fill(0, 3, 13).fill(0, 5000, 25_001);
      assert.ok(wanted.equals(await content()));
    });

    it("writes anywhere, and from any memory", async (test) => {
      const wanted = randomBytes(256 * KIB);
      const { target, content } = await options.open(
        test,
        wanted.length,
        Buffer.alloc(wanted.length),
      );
      const shared = new Uint8Array(new SharedArrayBuffer(wanted.length + 100), 100);
      shared.set(wanted);
      const offsets = [0, 64 * KIB, 128 * KIB, 192 * KIB];
      const order = target.seekable ? offsets.toReversed() : offsets;
      for (const at of order) await target.write(shared.subarray(at, at + 64 * KIB), at);
      await target.finish();
      assert.ok(wanted.equals(await content()));
    });

    it("reads what is there, and zeros beyond its end", async (test) => {
      const old = randomBytes(64 * KIB);
      const { target } = await options.open(test, old.length, old);
      if (!target.seekable) return;
      if (target.blank) await target.write(old, 0);
      const into = Buffer.alloc(32 * KIB, 1);
      await target.read(into, 16 * KIB);
      assert.ok(old.subarray(16 * KIB, 48 * KIB).equals(into));
      into.fill(1);
      await target.read(into, old.length + MIB);
      assert.ok(into.every((byte) => byte === 0));
    });

    it("names extents that hold all that is not zero, within the range", async (test) => {
      const old = sparseContent(sectorBytes);
      const { target } = await options.open(test, old.length, old);
      if (!target.seekable) return;
      if (target.blank) await target.write(old.subarray(256 * KIB, 512 * KIB), 256 * KIB);
      // Also beyond the end of what is there.
      const range = { offset: 300 * KIB, length: 4 * MIB };
      const extents = await allExtents(target, range);
      checkExtents(extents, range);
      const rest = Buffer.alloc(old.length);
      await target.read(rest, 0);
      rest.fill(0, 0, range.offset);
      for (const { offset, length } of extents)
        rest.fill(0, offset, Math.min(offset + length, rest.length));
      assert.ok(
        rest.every((byte) => byte === 0),
        "what is in no extent is zero",
      );
    });

    it("reads as zero where it is blank", async (test) => {
      const { target, content } = await options.open(
        test,
        128 * KIB,
        Buffer.alloc(128 * KIB, 0xee),
      );
      if (!target.blank) return;
      await target.write(Buffer.alloc(sectorBytes * 2, 7), 64 * KIB);
      await target.finish();
      const wanted = Buffer.alloc(128 * KIB).fill(7, 64 * KIB, 64 * KIB + sectorBytes * 2);
      assert.ok(wanted.equals(await content()));
    });
  });
}
