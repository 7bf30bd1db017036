import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, constants, existsSync, openSync } from "node:fs";
import {
  link,
  mkdir,
  mkdtemp,
  open as openHandle,
  readFile,
  rm,
  stat,
  symlink,
  truncate,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { PassThrough, Writable } from "node:stream";
import { after, before, describe, it, type TestContext } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { getAttribute, lockBytesShared } from "#lib/drivers/linux/system-calls.ts";
import { openTarget } from "#lib/drivers/targets.ts";
import type { Extent } from "#lib/ports/block-device.ts";
import { streamTarget } from "./stream-target.ts";

const isRoot = process.getuid?.() === 0;
const noLoop = isRoot && existsSync("/dev/loop-control") ? false : "loop devices need root";
const MIB = 1 << 20;

describe("file target", () => {
  let folder = "";
  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "ashlar-target-"));
  });
  after(() => rm(folder, { recursive: true }));

  const at = (...parts: string[]): string => path.join(folder, ...parts);

  interface Request {
    readonly sizeBytes?: number;
    readonly force?: boolean;
    readonly forbid?: readonly string[];
    readonly restore?: string;
  }

  function open(url: string, request: Request = {}) {
    return openTarget({ url, sizeBytes: MIB, force: false, forbid: [], ...request });
  }

  async function refused(
    url: string,
    code: ErrorCode,
    message: RegExp,
    request?: Request,
  ): Promise<void> {
    await assert.rejects(open(url, request), (error) => {
      assert.ok(isErrorCode(error, code), String(error));
      assert.match(error.message, message);
      return true;
    });
  }

  it("gives a new file its size at the end, and no space that it does not need", async () => {
    const target = await open(at("new.img"), { sizeBytes: 64 * MIB + 1 });
    assert.equal(target.blank, true);
    await target.write(Buffer.alloc(MIB, 1), 32 * MIB);
    await target.zero({ offset: 0, length: 32 * MIB }, { discard: true });
    assert.equal((await stat(at("new.img"))).size, 33 * MIB);
    await target.finish();
    await target.close();
    const { size, blocks } = await stat(at("new.img"));
    assert.equal(size, 64 * MIB + 1);
    assert.ok(blocks * 512 <= 2 * MIB);
  });

  it("keeps the space of zeros when it is not to discard", async () => {
    const target = await open(at("thick.img"), { sizeBytes: 8 * MIB });
    await target.zero({ offset: 0, length: 8 * MIB }, { discard: false });
    await target.finish();
    await target.close();
    const { size, blocks } = await stat(at("thick.img"));
    assert.equal(size, 8 * MIB);
    assert.ok(blocks * 512 >= 8 * MIB);
  });

  it("gives the space of old content back when it is to discard", async () => {
    await writeFile(at("old.img"), Buffer.alloc(8 * MIB, 0xee));
    const target = await open(at("old.img"), { sizeBytes: 8 * MIB, force: true });
    await target.zero({ offset: 100, length: 8 * MIB - 200 }, { discard: true });
    await target.finish();
    await target.close();
    assert.ok((await stat(at("old.img"))).blocks * 512 <= MIB);
    const content = await readFile(at("old.img"));
    assert.ok(content.subarray(0, 100).every((byte) => byte === 0xee));
    assert.ok(content.subarray(100, -100).every((byte) => byte === 0));
  });

  it("tells its holes, so that a differential restore need not read them", async () => {
    const handle = await openHandle(at("holes.img"), "w");
    await handle.write(Buffer.alloc(MIB, 1), 0, MIB, 32 * MIB);
    await handle.truncate(64 * MIB);
    await handle.close();
    const target = await open(at("holes.img"), { sizeBytes: 128 * MIB, force: true });
    const extents: Extent[] = [];
    const whole = { offset: 0, length: 128 * MIB };
    for await (const extent of target.extents(whole)) extents.push(extent);
    assert.deepEqual(extents, [{ offset: 32 * MIB, length: MIB }]);
    await target.close();
  });

  it("leaves nothing of a new file that nothing was written to, and what was written otherwise", async () => {
    const untouched = await open(at("untouched"));
    assert.equal(untouched.touched, false);
    await untouched.close();
    assert.ok(!existsSync(at("untouched")));
    const begun = await open(at("begun"));
    await begun.write(Buffer.alloc(10, 1), 0);
    assert.equal(begun.touched, true);
    await begun.close();
    assert.ok(existsSync(at("begun")));
    await writeFile(at("present"), "old");
    await (await open(at("present"), { force: true })).close();
    assert.equal(await readFile(at("present"), "utf8"), "old");
    const empty = await open(at("empty"), { sizeBytes: 0 });
    await empty.finish();
    await empty.close();
    assert.ok(existsSync(at("empty")));
  });

  it("cuts off what lay behind the version, and extends what is too short", async () => {
    for (const oldBytes of [3 * MIB, 10]) {
      await writeFile(at("resized.img"), Buffer.alloc(oldBytes, 0xee));
      const target = await open(at("resized.img"), { force: true });
      await target.write(Buffer.alloc(MIB / 2, 1), 0);
      await target.zero({ offset: MIB / 2, length: MIB / 2 }, { discard: true });
      await target.finish();
      await target.close();
      assert.ok(
        Buffer.concat([Buffer.alloc(MIB / 2, 1), Buffer.alloc(MIB / 2)]).equals(
          await readFile(at("resized.img")),
        ),
      );
    }
  });

  it("overwrites only when told to", async () => {
    await writeFile(at("there.img"), "x");
    await refused(at("there.img"), ErrorCode.AlreadyExists, /exists already/);
    assert.equal(await readFile(at("there.img"), "utf8"), "x");
  });

  it("goes on with a file that an earlier try of the same restore has made, and with no other", async (test) => {
    const file = at("tried");
    const first = await open(file, { restore: "job 1" });
    await first.write(Buffer.alloc(4096, 1), 0);
    await first.finish();
    await first.close();
    const fd = openSync(file, "r");
    const hasAttributes = getAttribute(fd, "user.ashlar.restore") !== undefined;
    closeSync(fd);
    if (!hasAttributes) {
      test.skip("the file system has no extended attributes");
      return;
    }
    const again = await open(file, { restore: "job 1" });
    assert.equal(again.blank, false);
    await again.close();
    for (const restore of [{ restore: "job 2" }, {}]) {
      await refused(file, ErrorCode.AlreadyExists, /exists already/, restore);
    }
    await writeFile(at("older"), "mine");
    await refused(at("older"), ErrorCode.AlreadyExists, /exists already/, { restore: "job 1" });
  });

  it("says what is wrong with a target", async () => {
    await refused(folder, ErrorCode.Usage, /is a folder/, { force: true });
    await refused("/dev/null", ErrorCode.Usage, /neither a file nor a block device/, {
      force: true,
    });
    await refused(at("missing", "new.img"), ErrorCode.NotFound, /no such file/);
    await refused("rbd:x", ErrorCode.Usage, /no such kind of target/);
    await refused(`/dev/ashlar-${process.pid}`, ErrorCode.NotFound, /there is no device/);
    await refused(`/dev/disk/../ashlar-${process.pid}`, ErrorCode.NotFound, /there is no device/);
  });

  it("says at once that a file would be too large", async (test) => {
    try {
      await open(at("huge.img"), { sizeBytes: 2 ** 53 - 1 });
      test.skip("this file system takes files of any size");
    } catch (error) {
      assert.ok(isErrorCode(error, ErrorCode.Io), String(error));
      assert.match(error.message, /EFBIG/);
      assert.equal(existsSync(at("huge.img")), false);
    }
  });

  it("never touches what belongs to the repository", async () => {
    await mkdir(at("storage", "blocks"), { recursive: true });
    await mkdir(at("elsewhere"));
    await writeFile(at("key"), "secret");
    await symlink(at("storage"), at("elsewhere", "link"));
    await link(at("key"), at("elsewhere", "hard-link"));
    const request = { force: true, forbid: [at("storage"), at("key"), at("not-there")] };
    for (const url of [
      at("storage", "new.img"),
      at("storage", "blocks", "x"),
      at("elsewhere", "link", "blocks", "new.img"),
      at("key"),
      at("elsewhere", "hard-link"),
    ]) {
      await refused(url, ErrorCode.Refused, /belongs to the repository itself/, request);
    }
    assert.equal(await readFile(at("key"), "utf8"), "secret");
    await (await open(at("storage-not.img"), request)).close();
  });

  it("refuses an image that a virtual machine has open", async () => {
    await writeFile(at("qemu.img"), "x");
    const machine = openSync(at("qemu.img"), constants.O_RDWR);
    assert.ok(lockBytesShared(machine, 100, 1));
    await refused(at("qemu.img"), ErrorCode.Refused, /opened for reading by QEMU/, { force: true });
    closeSync(machine);
  });

  describe("on loop devices", { skip: noLoop }, () => {
    async function attach(test: TestContext, name: string, ...options: string[]): Promise<string> {
      await writeFile(at(name), "");
      await truncate(at(name), 16 * MIB);
      execFileSync("mkfs.ext4", ["-q", at(name)]);
      const device = execFileSync("losetup", ["--find", "--show", ...options, at(name)], {
        encoding: "utf8",
      }).trim();
      test.after(() => execFileSync("losetup", ["--detach", device]));
      return device;
    }

    it("needs to be told, and room", async (test) => {
      const device = await attach(test, "small.img");
      await refused(
        device,
        ErrorCode.AlreadyExists,
        /is a block device, whose content would be lost/,
      );
      await refused(device, ErrorCode.Refused, /16\.00 MiB .*16777216.*17\.00 MiB/, {
        force: true,
        sizeBytes: 17 * MIB,
      });
      await refused(at("small.img"), ErrorCode.Refused, /is attached to \/dev\/loop/, {
        force: true,
      });
    });

    it("says that a larger device keeps its tail", async (test) => {
      const target = await open(await attach(test, "tail.img"), { force: true, sizeBytes: MIB });
      assert.match(target.warnings[0] ?? "", /16\.00 MiB.*behind the first 1\.00 MiB/);
      await target.close();
    });

    it("discards, and what is discarded reads as zero", async (test) => {
      const device = await attach(test, "discard.img");
      const target = await open(device, { force: true, sizeBytes: 16 * MIB });
      await target.write(Buffer.alloc(16 * MIB, 0xee), 0);
      await target.finish();
      const fullBlocks = (await stat(at("discard.img"))).blocks;
      await target.zero({ offset: 0, length: 16 * MIB }, { discard: true });
      await target.finish();
      await target.close();
      assert.ok((await readFile(device)).every((byte) => byte === 0));
      assert.ok((await stat(at("discard.img"))).blocks < fullBlocks / 2, "the space is given back");
    });

    it("refuses devices that are mounted, held or read-only", async (test) => {
      const device = await attach(test, "mounted.img");
      await mkdir(at("mounted"));
      execFileSync("mount", [device, at("mounted")]);
      try {
        await refused(device, ErrorCode.Refused, /is mounted read-write at/, { force: true });
        await refused(at("mounted.img"), ErrorCode.Refused, /is mounted read-write at/, {
          force: true,
        });
      } finally {
        execFileSync("umount", [at("mounted")]);
      }
      // Held exclusively by somebody of whom /proc and /sys say nothing.
      const holder = openSync(device, constants.O_RDWR | constants.O_EXCL);
      await refused(device, ErrorCode.Refused, /is in use/, { force: true });
      closeSync(holder);
      const readOnly = await attach(test, "read-only.img", "--read-only");
      await refused(readOnly, ErrorCode.Refused, /read-only/, { force: true });
    });
  });
});

describe("stream target", () => {
  it("waits until the bytes are taken", async () => {
    const taken: (() => void)[] = [];
    const stream = new Writable({
      highWaterMark: 1,
      write: (_chunk, _encoding, done) => void taken.push(done),
    });
    const target = streamTarget("-", stream);
    let written = false;
    const writing = target.write(Buffer.alloc(10), 0).then(() => {
      written = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(written, false);
    taken[0]?.();
    await writing;
    await target.close();
  });

  it("says when nobody reads any more", async () => {
    const stream = new Writable({
      write: (_chunk, _encoding, done) => done(Object.assign(new Error("gone"), { code: "EPIPE" })),
    });
    const target = streamTarget("-", stream);
    await assert.rejects(target.write(Buffer.alloc(10), 0), (error) => {
      assert.ok(isErrorCode(error, ErrorCode.Io));
      assert.match(error.message, /whoever reads it has ended/);
      return true;
    });
    await target.close();
  });

  it("ends a write that waits when it is closed", async () => {
    const target = streamTarget("-", new Writable({ write: () => undefined }));
    const writing = target.write(Buffer.alloc(10), 0);
    await target.close();
    await assert.rejects(writing, (error) => isErrorCode(error, ErrorCode.Cancelled));
  });

  it("is written forwards only, and cannot be read", async () => {
    const target = streamTarget("-", new PassThrough());
    await assert.rejects(target.write(Buffer.alloc(1), 5), /forwards/);
    await assert.rejects(target.zero({ offset: 5, length: 1 }, { discard: true }), /forwards/);
    await assert.rejects(target.read(Buffer.alloc(1), 0), (error) =>
      isErrorCode(error, ErrorCode.Usage),
    );
    await target.close();
  });
});
