import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, open, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { PassThrough, Readable } from "node:stream";
import type { TestContext } from "node:test";
import { streamSource } from "#lib/drivers/file/stream-source.ts";
import { streamTarget } from "#lib/drivers/file/stream-target.ts";
import { openSource } from "#lib/drivers/sources.ts";
import { openTarget } from "#lib/drivers/targets.ts";
import {
  type BlockTargetFixture,
  describeBlockSource,
  describeBlockTarget,
} from "./block-device.ts";

const noDevices =
  process.getuid?.() === 0 && existsSync("/dev/loop-control")
    ? undefined
    : "loop devices need root and /dev/loop-control";

async function folderOf(test: TestContext): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), "ashlar-device-"));
  test.after(() => rm(folder, { recursive: true }));
  return folder;
}

/** Leaves holes where a page is zero. */
async function writeSparse(file: string, content: Buffer): Promise<void> {
  const handle = await open(file, "w");
  for (let at = 0; at < content.length; at += 4096) {
    const page = content.subarray(at, at + 4096);
    if (page.some((byte) => byte !== 0)) await handle.write(page, 0, page.length, at);
  }
  await handle.truncate(content.length);
  await handle.close();
}

async function attach(test: TestContext, file: string): Promise<string> {
  const device = execFileSync("losetup", ["--find", "--show", file], { encoding: "utf8" }).trim();
  test.after(() => execFileSync("losetup", ["--detach", device]));
  return Promise.resolve(device);
}

describeBlockSource("file", {
  open: async (test, content) => {
    const file = path.join(await folderOf(test), "disk.img");
    await writeSparse(file, content);
    const source = await openSource(`file:${file}`, { frozen: false });
    test.after(() => source.close());
    return source;
  },
  openShrinking: async (test, content, sizeBytes) => {
    const file = path.join(await folderOf(test), "disk.img");
    await writeFile(file, content);
    const source = await openSource(file, { frozen: false });
    test.after(() => source.close());
    await truncate(file, sizeBytes);
    return source;
  },
});

describeBlockSource("block device", {
  sectorBytes: 512,
  skip: noDevices,
  open: async (test, content) => {
    const file = path.join(await folderOf(test), "disk.img");
    await writeFile(file, content);
    const device = await attach(test, file);
    const source = await openSource(device, { frozen: false });
    test.after(() => source.close());
    return source;
  },
});

describeBlockSource("stream", {
  open: (test, content) => {
    const pieces = Array.from({ length: Math.ceil(content.length / 1000) }, (_, index) =>
      content.subarray(index * 1000, (index + 1) * 1000),
    );
    const source = streamSource("-", Readable.from(pieces, { objectMode: false }));
    test.after(() => source.close());
    return Promise.resolve(source);
  },
});

async function openFile(
  test: TestContext,
  sizeBytes: number,
  old: Buffer | undefined,
): Promise<BlockTargetFixture> {
  const url = path.join(await folderOf(test), "disk.img");
  if (old !== undefined) await writeFile(url, old);
  const target = await openTarget({ url, sizeBytes, force: old !== undefined, forbid: [] });
  test.after(() => target.close());
  return { target, content: () => readFile(url) };
}

describeBlockTarget("new file", {
  open: (test, sizeBytes) => openFile(test, sizeBytes, undefined),
});

describeBlockTarget("existing file", { open: openFile });

describeBlockTarget("existing file that is larger", {
  open: (test, sizeBytes, old) =>
    openFile(test, sizeBytes, Buffer.concat([old, Buffer.alloc(100_000, 0xdd)])),
});

describeBlockTarget("block device", {
  sectorBytes: 512,
  skip: noDevices,
  open: async (test, sizeBytes, old) => {
    const file = path.join(await folderOf(test), "disk.img");
    await writeFile(file, old);
    const url = await attach(test, file);
    const target = await openTarget({ url, sizeBytes, force: true, forbid: [] });
    test.after(() => target.close());
    return { target, content: () => readFile(url) };
  },
});

describeBlockTarget("stream", {
  open: (test) => {
    const stream = new PassThrough();
    const chunks: Buffer[] = [];
    // Copied at once: the target's caller may reuse its memory.
    stream.on("data", (chunk: Buffer) => chunks.push(Buffer.from(chunk)));
    const target = streamTarget("-", stream);
    test.after(() => target.close());
    return Promise.resolve({ target, content: () => Promise.resolve(Buffer.concat(chunks)) });
  },
});
