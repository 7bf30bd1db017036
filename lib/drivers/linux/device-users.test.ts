import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import {
  deviceName,
  parseMounts,
  sectorsChanged,
  usesOfBlockDevice,
  usesOfFile,
} from "./device-users.ts";

/** Device 8:0 with the partition 8:1, which holds the mapping 253:0. */
const DISK = 0x800n;
const OTHER_DISK = 0x810n;

const MOUNTINFO = String.raw`21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 21 253:0 / /srv/my\040data ro,relatime - xfs /dev/mapper/x rw,attr2
31 21 7:3 / /mnt/image rw - ext4 /dev/loop3 rw
32 21 7:4 / /mnt/snapshot ro - ext4 /dev/loop4 ro,noload
33 21 0:40 / /proc rw - proc proc rw
`;

describe("device users", () => {
  let root = "";
  const write = (file: string, text: string): void => {
    mkdirSync(path.join(root, path.dirname(file)), { recursive: true });
    writeFileSync(path.join(root, file), text);
  };
  const kernel = () => ({ proc: path.join(root, "proc"), sys: path.join(root, "sys") });

  before(() => {
    root = mkdtempSync(path.join(tmpdir(), "ashlar-kernel-"));
    write("proc/self/mountinfo", MOUNTINFO);
    write("proc/swaps", `Filename Type Size Used Priority\n${root}/swapfile file 1 0 -2\n`);
    write("swapfile", "");
    write("disk.img", "");
    write("sys/dev/block/8:0/sda1/partition", "1\n");
    write("sys/dev/block/8:0/sda1/dev", "8:1\n");
    write("sys/dev/block/8:0/stat", "1 2 3 4 5 6 700 8 9 10 11 12 13 20 15 16 17\n");
    write("sys/dev/block/8:1/holders/dm-0/dev", "253:0\n");
    write("sys/dev/block/253:0/dev", "253:0\n");
    write("sys/block/loop3/loop/backing_file", `${root}/disk.img\n`);
    write("sys/block/loop3/dev", "7:3\n");
    write("sys/block/loop3/ro", "0\n");
    write("sys/block/loop4/loop/backing_file", `${root}/other.img (deleted)\n`);
    write("sys/block/sda/dev", "8:0\n");
  });
  after(() => rmSync(root, { recursive: true }));

  it("finds mounts of partitions and of what is stacked on them", () => {
    assert.deepEqual(usesOfBlockDevice(DISK, kernel()), [
      { kind: "mounted", sentence: "is mounted read-write at /", writable: true },
      { kind: "mounted", sentence: "is mounted read-write at /srv/my data", writable: true },
    ]);
  });

  it("says who holds a partition", () => {
    const uses = usesOfBlockDevice(DISK + 1n, kernel());
    assert.deepEqual(uses.at(-1), { kind: "held", sentence: "is held by dm-0", writable: true });
  });

  it("finds nothing where nothing is", () => {
    assert.deepEqual(usesOfBlockDevice(OTHER_DISK, kernel()), []);
    assert.deepEqual(usesOfFile(path.join(root, "missing"), kernel()), []);
  });

  it("finds loop devices by what they stand for, not by its name", () => {
    const name = path.join(root, "link.img");
    symlinkSync(path.join(root, "disk.img"), name);
    assert.deepEqual(usesOfFile(name, kernel()), [
      { kind: "mounted", sentence: "is mounted read-write at /mnt/image", writable: true },
      { kind: "attached", sentence: "is attached to /dev/loop3", writable: true },
    ]);
  });

  it("finds swap files", () => {
    const uses = usesOfFile(path.join(root, "swapfile"), kernel());
    assert.deepEqual(
      uses.map(({ kind }) => kind),
      ["swap"],
    );
  });

  it("counts changed sectors", () => {
    assert.equal(sectorsChanged(DISK, kernel()), 720);
    assert.equal(sectorsChanged(OTHER_DISK, kernel()), undefined);
  });

  it("tells file systems that may be written to from those that may not", () => {
    assert.deepEqual(
      parseMounts(MOUNTINFO).map(({ writable }) => writable),
      [true, true, true, false, true],
    );
  });

  it("takes device numbers apart", () => {
    assert.equal(deviceName(DISK + 1n), "8:1");
    // makedev(259, 300) and makedev(5000, 70000)
    assert.equal(deviceName(0x11032cn), "259:300");
    assert.equal(deviceName(0x100011138870n), "5000:70000");
  });
});
