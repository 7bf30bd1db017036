import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { constants, existsSync, openSync, closeSync } from "node:fs";
import {
  appendFile,
  chmod,
  mkdir,
  mkdtemp,
  open,
  rm,
  symlink,
  truncate,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { PassThrough } from "node:stream";
import { after, before, describe, it, type TestContext } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { lockBytesShared } from "#lib/drivers/linux/system-calls.ts";
import { openSource } from "#lib/drivers/sources.ts";
import type { BlockSource } from "#lib/ports/block-device.ts";
import { streamSource } from "./stream-source.ts";

const isRoot = process.getuid?.() === 0;
const noLoop = isRoot && existsSync("/dev/loop-control") ? false : "loop devices need root";
const noRefusal = isRoot ? "root may read everything" : false;
const TIB = 2 ** 40;

describe("file source", () => {
  let folder = "";
  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "ashlar-source-"));
  });
  after(() => rm(folder, { recursive: true }));

  async function opened(test: TestContext, url: string, frozen = false): Promise<BlockSource> {
    const source = await openSource(url, { frozen });
    test.after(() => source.close());
    return source;
  }

  async function imageOf(name: string, content = "content"): Promise<string> {
    const file = path.join(folder, name);
    await writeFile(file, content);
    return file;
  }

  it("opens what a link points to, and by any kind of URL", async (test) => {
    const file = await imageOf("with space.img");
    const link = path.join(folder, "link.img");
    await symlink(file, link);
    for (const url of [file, `file:${file}`, `file://${file.replace(" ", "%20")}`, link]) {
      const source = await opened(test, url);
      assert.equal(source.url, url);
      assert.equal(source.sizeBytes, 7);
      assert.equal(source.frozen, false);
      assert.deepEqual(source.warnings, []);
    }
  });

  it("is frozen when the user says so", async (test) => {
    assert.equal((await opened(test, await imageOf("frozen.img"), true)).frozen, true);
  });

  it("says what is wrong with a source", async () => {
    const fails = async (url: string, code: ErrorCode, message: RegExp): Promise<void> => {
      await assert.rejects(openSource(url, { frozen: false }), (error) => {
        assert.ok(isErrorCode(error, code), String(error));
        assert.match(error.message, message);
        return true;
      });
    };
    await fails(path.join(folder, "missing"), ErrorCode.NotFound, /missing: no such file/);
    await fails(folder, ErrorCode.Usage, /is a folder/);
    await fails("/dev/null", ErrorCode.Usage, /neither a file nor a block device/);
    execFileSync("mkfifo", [path.join(folder, "pipe")]);
    await fails(path.join(folder, "pipe"), ErrorCode.Usage, /neither a file nor a block device/);
    await fails("nothing:here", ErrorCode.Usage, /no such kind of source/);
  });

  it("says that it may not read a source", { skip: noRefusal }, async () => {
    const file = await imageOf("secret.img");
    await chmod(file, 0);
    await assert.rejects(openSource(file, { frozen: false }), (error) =>
      isErrorCode(error, ErrorCode.Refused),
    );
  });

  it("notices every kind of change", async (test) => {
    const changes: [string, (file: string) => Promise<void>][] = [
      ["written to", (file) => writeFile(file, "CONTENT", { flag: "r+" })],
      ["size .* changed from 7 to 11 bytes", (file) => appendFile(file, "more")],
      ["size .* changed from 7 to 3 bytes", (file) => truncate(file, 3)],
      // Written to, with the time of modification put back.
      [
        "written to",
        async (file) => {
          await writeFile(file, "CONTENT", { flag: "r+" });
          await utimes(file, 1, 1);
        },
      ],
    ];
    for (const [index, [expected, change]] of changes.entries()) {
      const file = await imageOf(`changing-${index}.img`);
      await utimes(file, 1, 1);
      const source = await opened(test, file);
      assert.equal(await source.changed(), undefined);
      await change(file);
      assert.match((await source.changed()) ?? "", new RegExp(expected));
    }
  });

  it("warns when a virtual machine has the image open", async (test) => {
    const file = await imageOf("qemu.img");
    const machine = openSync(file, constants.O_RDWR);
    assert.ok(lockBytesShared(machine, 101, 1));
    const source = await opened(test, file);
    assert.match(source.warnings[0] ?? "", /opened for writing by QEMU/);
    closeSync(machine);
    assert.deepEqual((await opened(test, file)).warnings, []);
  });

  it("finds the data in a sparse file of 16 TiB at once", async (test) => {
    // ext4 has no files that large.
    const file = `/dev/shm/ashlar-sparse-${process.pid}`;
    const handle = await open(file, "w");
    test.after(() => rm(file));
    await handle.truncate(16 * TIB - 4096);
    for (const at of [0, 5 * TIB, 16 * TIB - 8192])
      await handle.write(Buffer.alloc(4096, 1), 0, 4096, at);
    await handle.close();
    const source = await opened(test, file);
    const extents: number[] = [];
    for await (const { offset } of source.extents({ offset: 0, length: 16 * TIB }))
      extents.push(offset);
    assert.deepEqual(extents, [0, 5 * TIB, 16 * TIB - 8192]);
  });

  it("yields extents one by one", async (test) => {
    const file = path.join(folder, "many.img");
    const handle = await open(file, "w");
    for (let index = 0; index < 200; index++)
      await handle.write(Buffer.alloc(4096, 1), 0, 4096, index * 65_536);
    await handle.close();
    const source = await opened(test, file);
    let count = 0;
    for await (const _ of source.extents({ offset: 0, length: source.sizeBytes ?? 0 })) count += 1;
    assert.equal(count, 200);
    for await (const _ of source.extents({ offset: 0, length: source.sizeBytes ?? 0 })) break;
  });

  describe("on loop devices", { skip: noLoop }, () => {
    async function fileSystem(
      test: TestContext,
      name: string,
      ...options: string[]
    ): Promise<{ file: string; device: string; mountPoint: string }> {
      const file = path.join(folder, `${name}.img`);
      await writeFile(file, "");
      await truncate(file, 16 << 20);
      execFileSync("mkfs.ext4", ["-q", file]);
      const mountPoint = path.join(folder, `${name}-mount`);
      await mkdir(mountPoint);
      const device = execFileSync("losetup", ["--find", "--show", ...options, file], {
        encoding: "utf8",
      }).trim();
      test.after(() => execFileSync("losetup", ["--detach", device]));
      return { file, device, mountPoint };
    }

    it("warns of a file system that is mounted read-write, from the file and from the device", async (test) => {
      const { file, device, mountPoint } = await fileSystem(test, "mounted");
      assert.deepEqual((await opened(test, file)).warnings, []);
      const quiet = await opened(test, device);
      assert.deepEqual(quiet.warnings, []);
      execFileSync("mount", [device, mountPoint]);
      try {
        for (const url of [file, device]) {
          const { warnings } = await opened(test, url);
          assert.equal(warnings.length, 1);
          assert.match(warnings[0] ?? "", /is mounted read-write at .*mounted-mount/);
        }
        await writeFile(path.join(mountPoint, "new"), "text");
        execFileSync("sync", ["-f", mountPoint]);
        assert.match(
          (await quiet.changed()) ?? "",
          /sectors of .* were written|mounted read-write/,
        );
      } finally {
        execFileSync("umount", [mountPoint]);
      }
    });

    it("does not warn of one that is mounted read-only", async (test) => {
      const { device, mountPoint } = await fileSystem(test, "read-only");
      execFileSync("mount", ["-o", "ro,noload", device, mountPoint]);
      try {
        assert.deepEqual((await opened(test, device)).warnings, []);
      } finally {
        execFileSync("umount", [mountPoint]);
      }
    });

    it("takes a read-only device for frozen", async (test) => {
      const { device } = await fileSystem(test, "frozen", "--read-only");
      const source = await opened(test, device);
      assert.equal(source.frozen, true);
      assert.equal(source.sizeBytes, 16 << 20);
      assert.equal(await source.changed(), undefined);
    });
  });
});

describe("stream source", () => {
  it("fails with the offset when the stream does", async () => {
    const stream = new PassThrough();
    const source = streamSource("-", stream);
    stream.write(Buffer.alloc(100));
    assert.equal(await source.read(Buffer.alloc(100), 0), 100);
    const reading = source.read(Buffer.alloc(100), 100);
    stream.write(Buffer.alloc(50));
    stream.destroy(Object.assign(new Error("broken"), { code: "EIO" }));
    await assert.rejects(reading, (error) => {
      assert.ok(isErrorCode(error, ErrorCode.Io), String(error));
      return error.details["errno"] === "EIO" && Number(error.details["offset"]) >= 100;
    });
  });

  it("ends a read that waits when it is closed", async () => {
    const source = streamSource("-", new PassThrough());
    const reading = source.read(Buffer.alloc(100), 0);
    await source.close();
    await assert.rejects(reading, (error) => isErrorCode(error, ErrorCode.Cancelled));
  });

  it("knows a stream that has ended before", async () => {
    const stream = new PassThrough();
    stream.end();
    stream.resume();
    await new Promise((resolve) => stream.once("end", resolve));
    assert.equal(await streamSource("-", stream).read(Buffer.alloc(10), 0), 0);
  });

  it("is read forwards only", async () => {
    const source = streamSource("-", new PassThrough());
    await assert.rejects(source.read(Buffer.alloc(1), 5), /forwards/);
  });
});
