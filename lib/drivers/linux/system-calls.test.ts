import assert from "node:assert/strict";
import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import {
  addressOf,
  adviseSequential,
  blockDeviceSize,
  isLocked,
  lockBytesShared,
  lockFile,
  punchHole,
  renameExclusive,
  seekData,
  seekHole,
  syncFileSystem,
  zeroRange,
} from "./system-calls.ts";

const MIB = 1 << 20;

describe("system calls", () => {
  let folder = "";
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), "ashlar-calls-"));
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  /** A file of 8 MiB with data in the second and the fourth MiB. */
  function sparseFile(name: string): number {
    const fd = openSync(path.join(folder, name), "w+");
    ftruncateSync(fd, 8 * MIB);
    writeSync(fd, Buffer.alloc(MIB, 1), 0, MIB, MIB);
    writeSync(fd, Buffer.alloc(MIB, 2), 0, MIB, 3 * MIB);
    return fd;
  }

  it("finds data and holes", () => {
    const fd = sparseFile("sparse");
    assert.equal(seekData(fd, 0), MIB);
    assert.equal(seekHole(fd, MIB), 2 * MIB);
    assert.equal(seekData(fd, 2 * MIB), 3 * MIB);
    assert.equal(seekHole(fd, 3 * MIB), 4 * MIB);
    assert.equal(seekData(fd, 4 * MIB), undefined);
    closeSync(fd);
  });

  it("punches holes and zeroes ranges without changing the size", async () => {
    const fd = sparseFile("punched");
    await punchHole(fd, MIB, MIB);
    assert.equal(seekData(fd, 0), 3 * MIB);
    await zeroRange(fd, 3 * MIB, MIB);
    assert.ok(readFileSync(path.join(folder, "punched")).every((byte) => byte === 0));
    assert.equal(statSync(path.join(folder, "punched")).size, 8 * MIB);
    closeSync(fd);
  });

  it("keeps errno", async () => {
    const fd = openSync(path.join(folder, "read-only"), "w+");
    assert.throws(() => blockDeviceSize(fd), { code: "ENOTTY" });
    closeSync(fd);
    assert.throws(() => seekData(987_654, 0), { code: "EBADF" });
    await assert.rejects(punchHole(987_654, 0, 1), { code: "EBADF", syscall: "fallocate" });
    await assert.rejects(syncFileSystem(987_654), { code: "EBADF", syscall: "syncfs" });
  });

  it("flushes and advises", async () => {
    const fd = openSync(folder, "r");
    await syncFileSystem(fd);
    adviseSequential(fd);
    closeSync(fd);
  });

  it("locks a file against other openings, and asking takes no lock", () => {
    const file = path.join(folder, "lock");
    const first = openSync(file, "w+");
    const second = openSync(file, "r+");
    assert.equal(isLocked(second), false);
    assert.equal(lockFile(first), true);
    assert.equal(lockFile(second), false);
    assert.equal(isLocked(second), true);
    assert.equal(isLocked(first), false, "one's own lock does not count");
    closeSync(first);
    assert.equal(isLocked(second), false);
    assert.equal(lockFile(second), true);
    closeSync(second);
  });

  it("sees a lock on single bytes", () => {
    const file = path.join(folder, "bytes");
    const first = openSync(file, "w+");
    const second = openSync(file, "r+");
    assert.equal(lockBytesShared(first, 101, 1), true);
    assert.equal(isLocked(second, 101, 1), true);
    assert.equal(isLocked(second, 100, 1), false);
    closeSync(first);
    closeSync(second);
  });

  it("renames without replacing", () => {
    const [from, to] = [path.join(folder, "from"), path.join(folder, "to")];
    writeFileSync(from, "new");
    writeFileSync(to, "old");
    assert.throws(() => renameExclusive(from, to), { code: "EEXIST" });
    rmSync(to);
    renameExclusive(from, to);
    assert.equal(readFileSync(to, "utf8"), "new");
  });

  it("knows where memory lies", () => {
    const buffer = new SharedArrayBuffer(8192);
    const start = addressOf(new Uint8Array(buffer));
    assert.notEqual(start, 0n);
    assert.equal(addressOf(new Uint8Array(buffer, 100, 10)), start + 100n);
  });
});
