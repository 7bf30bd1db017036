// LMDB's meta pages, byte by byte: what a state of the store is rooted in.
//
// A data file begins with two pages, each with one meta structure; transaction N writes the one of page N mod 2. It
// lies within the first sector of its page, so that a disk writes it whole or not at all. Numbers are little-endian:
//
//   0 magic (4) · 4 version (4) · 8 address (8) · 16 map size (8) · 24 tree of free pages (48) · 72 tree of the
//   data (48) · 120 last page (8) · 128 transaction (8) · 136 boot id (8)
//
// The first 4 bytes of the tree of free pages hold the page size.
import { readSync, writeSync } from "node:fs";
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { DAMAGED_REMEDY } from "./lmdb-errors.ts";

/** Size of a root in bytes. */
export const ROOT_BYTES = 144;

const PAGE_HEADER_BYTES = 24;
const MAGIC = 0xbeefc0de;
const VERSION = 2;
const VERSION_AT = 4;
const CONTENT_AT = 16;
const PAGE_SIZE_AT = 24;
const TXN_AT = 128;
const CONTENT_TRIES = 1000;
const PAGE_SIZES: ReadonlySet<number> = new Set([4096, 8192, 16_384, 32_768, 65_536]);

/** One committed state: all that its pages hang from. */
export interface Root {
  /** The transaction that made it. */
  readonly txnId: number;
  /** The meta structure as it is on the page. */
  readonly bytes: Buffer;
}

/** Checks and reads a meta structure. */
export function decodeRoot(bytes: Buffer, path: string): Root {
  assert(bytes.length === ROOT_BYTES, "a root has 144 bytes");
  if (bytes.readUInt32LE(0) !== MAGIC || bytes.readUInt32LE(VERSION_AT) !== VERSION) {
    throw damagedError(path);
  }
  return { txnId: Number(bytes.readBigUInt64LE(TXN_AT)), bytes };
}

/**
 * Reads the root of the last commit, without a lock.
 * @param lastTxnId tells the last commit; LMDB publishes it after the meta page is written
 */
export function readNewestRoot(dataFd: number, path: string, lastTxnId: () => number): Root {
  for (let tries = 0; tries < CONTENT_TRIES; tries++) {
    const txnId = lastTxnId();
    const root = decodeRoot(readMeta(dataFd, txnId, path), path);
    // The page is written again two transactions later, which begins only after the one between is published. So
    // while that one is not, what was read is whole.
    if (root.txnId === txnId && lastTxnId() === txnId) return root;
  }
  throw new AshlarError(
    ErrorCode.TryAgain,
    `the metadata store ${path} changes too fast to be read`,
  );
}

/** Throws unless the file begins with two sound meta pages. */
export function assertRoots(dataFd: number, path: string): void {
  lastTxnIdOnPages(dataFd, path);
}

/** The number of the last transaction by the meta pages, which LMDB keeps in its lock file as well. */
export function lastTxnIdOnPages(dataFd: number, path: string): number {
  const [even, odd] = [0, 1].map((txnId) => decodeRoot(readMeta(dataFd, txnId, path), path).txnId);
  return Math.max(even ?? 0, odd ?? 0);
}

/**
 * Makes `root` the newest state again: both meta pages get its content, under the numbers of the two last transactions.
 * They keep the numbers because pages of the states given up carry them, and because LMDB's lock file holds the last.
 * Only under LMDB's write lock, and with no reader.
 */
export function rollBackTo(root: Root, newest: Root, dataFd: number, path: string): Root {
  assert(newest.txnId > root.txnId, "rolling back goes back");
  for (const txnId of [newest.txnId, newest.txnId - 1]) {
    const meta = readMeta(dataFd, txnId, path);
    root.bytes.copy(meta, CONTENT_AT, CONTENT_AT, TXN_AT);
    meta.writeBigUInt64LE(BigInt(txnId), TXN_AT);
    const written = writeSync(dataFd, meta, 0, ROOT_BYTES, metaOffset(dataFd, txnId, path));
    assert(written === ROOT_BYTES, "a meta page is written whole");
  }
  return decodeRoot(readMeta(dataFd, newest.txnId, path), path);
}

function damagedError(path: string): AshlarError {
  const message = `the metadata store ${path} is damaged in its first pages, or its files are not Ashlar's`;
  return new AshlarError(ErrorCode.Damaged, message, { remedy: DAMAGED_REMEDY, details: { path } });
}

function readMeta(dataFd: number, txnId: number, path: string): Buffer {
  return readAt(dataFd, metaOffset(dataFd, txnId, path));
}

function metaOffset(dataFd: number, txnId: number, path: string): number {
  const first = decodeRoot(readAt(dataFd, PAGE_HEADER_BYTES), path);
  const pageSize = first.bytes.readUInt32LE(PAGE_SIZE_AT);
  if (!PAGE_SIZES.has(pageSize)) throw damagedError(path);
  return PAGE_HEADER_BYTES + (txnId % 2) * pageSize;
}

function readAt(fd: number, offset: number): Buffer {
  const bytes = Buffer.alloc(ROOT_BYTES);
  readSync(fd, bytes, 0, ROOT_BYTES, offset);
  return bytes;
}
