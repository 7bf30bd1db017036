// The file `flushed`: which state of the store the disk has for certain, and in which run of the machine.
//
// Two slots, 4096 bytes apart, written in turn; the one with the higher sequence number counts. Numbers are
// little-endian:
//
//   0 "ASHFLUS1" (8) · 8 sequence (8) · 16 boot id (16) · 32 root (144) · 176 CRC-32 of bytes 0–175 (4)
import {
  closeSync,
  constants,
  fdatasyncSync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  writeSync,
} from "node:fs";
import { crc32 } from "node:zlib";
import { assert } from "#lib/core/assert.ts";
import { decodeRoot, type Root, ROOT_BYTES } from "./lmdb-root.ts";

const MAGIC = Buffer.from("ASHFLUS1", "latin1");
const SEQUENCE_AT = 8;
const BOOT_AT = 16;
const BOOT_BYTES = 16;
const ROOT_AT = BOOT_AT + BOOT_BYTES;
const CRC_AT = ROOT_AT + ROOT_BYTES;
const SLOT_BYTES = CRC_AT + 4;
const SLOT_DISTANCE = 4096;
const FILE_BYTES = 2 * SLOT_DISTANCE;

/** A root that is on the disk with every page below it. */
export interface FlushedRoot extends Root {
  /** Which run of the machine recorded it. */
  readonly bootId: Buffer;
  /** Counts the records. */
  readonly sequence: bigint;
}

/** The machine's boot id: the same for as long as its page cache lives. */
export function readBootId(): Buffer {
  const text = readFileSync("/proc/sys/kernel/random/boot_id", "utf8");
  const bootId = Buffer.from(text.replaceAll(/[^0-9a-f]/g, ""), "hex");
  assert(bootId.length === BOOT_BYTES, "a boot id has 16 bytes");
  return bootId;
}

/** The record, open. */
export class FlushRecord {
  /** For flushing it. */
  readonly fd: number;
  readonly #path: string;

  private constructor(fd: number, path: string) {
    this.fd = fd;
    this.#path = path;
  }

  /** Opens it; a writer creates it. */
  static open(path: string, writable: boolean): FlushRecord {
    const flags = writable ? constants.O_RDWR | constants.O_CREAT : constants.O_RDONLY;
    return new FlushRecord(openSync(path, flags, 0o600), path);
  }

  /** The newest root in it; undefined when there is none. */
  read(): FlushedRoot | undefined {
    const [first, second] = [this.#readSlot(0), this.#readSlot(1)];
    if (first === undefined || second === undefined) return first ?? second;
    return first.sequence > second.sequence ? first : second;
  }

  /**
   * Records a root, unless this or a newer one is there. Only under LMDB's write lock: two processes must not take the
   * same slot. It replaces the older slot, so whatever the disk gets of it, the other one still holds.
   */
  write(root: Root, bootId: Buffer): void {
    const newest = this.read();
    if (newest?.bootId.equals(bootId) === true && newest.txnId >= root.txnId) return;
    const sequence = (newest?.sequence ?? 0n) + 1n;
    const slot = Buffer.alloc(SLOT_BYTES);
    MAGIC.copy(slot);
    slot.writeBigUInt64LE(sequence, SEQUENCE_AT);
    bootId.copy(slot, BOOT_AT);
    root.bytes.copy(slot, ROOT_AT);
    slot.writeUInt32LE(crc32(slot.subarray(0, CRC_AT)), CRC_AT);
    // Sequence numbers alternate between the slots.
    const written = writeSync(this.fd, slot, 0, SLOT_BYTES, Number(sequence % 2n) * SLOT_DISTANCE);
    assert(written === SLOT_BYTES, "a slot is written whole");
  }

  /** Gives a new record its full size, so that a full disk never keeps a root from being recorded. Under the lock. */
  reserve(): void {
    if (fstatSync(this.fd).size >= FILE_BYTES) return;
    writeSync(this.fd, Buffer.alloc(FILE_BYTES), 0, FILE_BYTES, 0);
    fdatasyncSync(this.fd);
  }

  close(): void {
    closeSync(this.fd);
  }

  #readSlot(index: number): FlushedRoot | undefined {
    const slot = Buffer.alloc(SLOT_BYTES);
    const read = readSync(this.fd, slot, 0, SLOT_BYTES, index * SLOT_DISTANCE);
    if (read < SLOT_BYTES || !slot.subarray(0, MAGIC.length).equals(MAGIC)) return undefined;
    if (crc32(slot.subarray(0, CRC_AT)) !== slot.readUInt32LE(CRC_AT)) return undefined;
    const root = decodeRoot(slot.subarray(ROOT_AT, CRC_AT), this.#path);
    return {
      ...root,
      bootId: slot.subarray(BOOT_AT, ROOT_AT),
      sequence: slot.readBigUInt64LE(SEQUENCE_AT),
    };
  }
}
