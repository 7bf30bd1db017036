// A file system that is really full. Needs root, to mount one.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { isErrorCode } from "#lib/core/errors.ts";
import { openLmdbKv } from "#lib/drivers/lmdb/lmdb-kv.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { checkPages } from "#test/fakes/lmdb-pages.ts";

const KEYS_PER_STEP = 20;
const random = systemRandom();
const root = fs.mkdtempSync(join(tmpdir(), "ashlar-full-"));
const mounted: string[] = [];

after(() => {
  // Lazily: after a failure something is still open there.
  for (const folder of mounted) execFileSync("umount", ["--lazy", folder]);
  fs.rmSync(root, { recursive: true });
});

/** Mounts a small file system; returns its folder, or why it cannot be. */
function mount(kind: "tmpfs" | "ext4"): { folder: string } | { problem: string } {
  const folder = join(root, kind);
  fs.mkdirSync(folder);
  try {
    if (kind === "tmpfs") {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], { stdio: "pipe" });
    } else {
      const image = join(root, "image");
      fs.writeFileSync(image, "");
      fs.truncateSync(image, 14 * 2 ** 20);
      const path = `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin`;
      execFileSync("mke2fs", ["-q", "-t", "ext4", image], { stdio: "pipe", env: { PATH: path } });
      execFileSync("mount", ["-o", "loop", image, folder], { stdio: "pipe" });
    }
  } catch (error) {
    return {
      problem: `${kind} cannot be mounted: ${(error as Error).message.split("\n")[0] ?? ""}`,
    };
  }
  mounted.push(folder);
  return { folder };
}

function open(path: string): Promise<Kv> {
  return openLmdbKv({ path, reserveBytes: 2 * 2 ** 20, clock: systemClock(), random });
}

function step(kv: Kv, index: number, label: string, write: boolean): Promise<void> {
  return kv.transact(
    async (tx) => {
      for (let each = 0; each < KEYS_PER_STEP; each++) {
        const key = Buffer.from(`key-${index}-${each}`);
        if (write) tx.set(key, random.bytes(3000));
        else tx.clear(key);
      }
    },
    { label, durable: index % 40 === 0 },
  );
}

/** Writes until the disk is full; returns how many steps went in. */
async function fill(kv: Kv): Promise<number> {
  for (let count = 0; ; count++) {
    try {
      await step(kv, count, "fill", true);
    } catch (error) {
      assert.ok(isErrorCode(error, "IO") && error.details["errno"] === "ENOSPC", String(error));
      return count;
    }
  }
}

async function entryCount(kv: Kv): Promise<number> {
  const range = { start: Buffer.from("key"), end: Buffer.from("kez"), limit: 1_000_000 };
  return (await kv.read((reader) => reader.range(range))).length;
}

describe("LMDB: a full disk", () => {
  for (const kind of ["tmpfs", "ext4"] as const) {
    const file = process.getuid?.() === 0 ? mount(kind) : { problem: "only root can mount" };
    const skip = "problem" in file ? file.problem : false;
    it(`refuses to write, lets removals through, and writes again: ${kind}`, { skip }, async () => {
      assert.ok("folder" in file);
      const path = join(file.folder, "kv");
      const other = join(file.folder, "other");
      fs.writeFileSync(other, Buffer.alloc(3 * 2 ** 20, 1));
      let kv = await open(path);
      const count = await fill(kv);
      assert.ok(count > 20);
      assert.equal(await entryCount(kv), count * KEYS_PER_STEP);
      // Also by a process that comes later, and when others have taken the rest of the disk.
      await kv.close();
      fillUp(other);
      kv = await open(path);
      for (let index = 0; index < count; index++) await step(kv, index, "free:removal", false);
      assert.equal(await entryCount(kv), 0);
      await kv.flush();
      const again = await fill(kv);
      assert.ok(again > count / 2, `${again} of ${count} steps`);
      for (let index = 0; index < again; index++) await step(kv, index, "free:removal", false);
      // When there is room for it, the space is kept back again.
      fs.rmSync(other);
      await kv.close();
      kv = await open(path);
      assert.equal(fs.statSync(join(path, "reserve")).size, 2 * 2 ** 20);
      await step(kv, 0, "fill", true);
      await kv.close();
      assert.deepEqual(checkPages(fs.readFileSync(join(path, "data.mdb"))).problems, []);
    });
  }
});

/** Takes what is left of a disk. */
function fillUp(file: string): void {
  const fd = fs.openSync(file, "a");
  try {
    for (let size = 2 ** 20; size >= 512;) {
      try {
        if (fs.writeSync(fd, Buffer.alloc(size, 1)) < size) size /= 2;
      } catch {
        size /= 2;
      }
    }
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}
