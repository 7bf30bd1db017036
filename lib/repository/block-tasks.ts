// What compute workers do with blocks. A worker thread imports this file by its URL, so it loads little.
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { HashedBlocks, Opened, OpenRequest, Piece, SealRequest } from "#lib/ports/compute.ts";
import type { ComputeTasks, ComputeTaskSource } from "#lib/ports/compute-tasks.ts";
import { BLOCK_ID_BYTES } from "#lib/core/ids.ts";
import { asBuffer, createHasher, type Hasher } from "./hashing.ts";
import type { HashKeys, RepositoryKeys } from "./keys.ts";
import { createSealer, type Sealer, type SealOptions } from "./sealing.ts";

/** What the tasks need. A reader has no `seal`: its workers then hash and do nothing else. */
export interface BlockTaskSetup {
  readonly hash: HashKeys;
  readonly seal?: SealOptions & { readonly keys: RepositoryKeys };
}

/** This module and its setup, as the worker driver wants them. Keys go to the threads this way and no other. */
export function blockTaskSource(setup: BlockTaskSetup): ComputeTaskSource {
  return { module: import.meta.url, setup };
}

/** Makes the tasks; one set per thread. */
export function createTasks(setup: BlockTaskSetup): ComputeTasks {
  const hasher = createHasher(setup.hash);
  const sealer = setup.seal === undefined ? undefined : createSealer(setup.seal.keys, setup.seal);
  return {
    hash: (bytes, blockBytes) => hashBlocks(hasher, bytes, blockBytes),
    seal(requests, out) {
      assert(sealer !== undefined, "only who has repository keys seals");
      let offset = 0;
      return requests.map((request): Piece => {
        if (request.verify === true) requireId(hasher, request);
        const length = sealer.sealInto(request, out, offset);
        offset += length;
        return { offset: offset - length, length };
      });
    },
    open(requests, out) {
      assert(sealer !== undefined, "only who has repository keys opens");
      let offset = 0;
      return requests.map((request): Opened => {
        const opened = openOne(sealer, request, out, offset);
        if (opened.ok) offset += opened.length;
        return opened;
      });
    },
  };
}

/** Nobody can have a wrong block stored under an id that others know. */
function requireId(hasher: Hasher, { kind, id, plain }: SealRequest): void {
  const found = kind === "block" ? hasher.hashBlock(plain) : hasher.hashNode(plain);
  if (found.toString("hex") === id) return;
  throw new AshlarError(ErrorCode.Damaged, `what was sent as ${kind} ${id} is something else`, {
    remedy: "the agent that sent it is broken, or not to be trusted: look at its host",
    details: { id, kind },
  });
}

function openOne(sealer: Sealer, request: OpenRequest, out: Uint8Array, offset: number): Opened {
  try {
    if (request.verifyOnly === true) {
      sealer.verify(request);
      return { ok: true, offset, length: 0 };
    }
    return { ok: true, offset, length: sealer.openInto(request, out, offset) };
  } catch (error) {
    // Anything else (an object of a newer Ashlar) is no verdict on the copy, so it fails the call.
    if (!(error instanceof AshlarError) || error.code !== ErrorCode.Damaged) throw error;
    const isKeyUnknown = error.details["check"] === "key";
    return { ok: false, reason: error.message, ...(isKeyUnknown && { isKeyUnknown }) };
  }
}

const ZERO = Buffer.alloc(256 * 1024);

function hashBlocks(hasher: Hasher, bytes: Uint8Array, blockBytes: number): HashedBlocks {
  assert(blockBytes > 0, "blocks have a size");
  const all = asBuffer(bytes);
  const count = Math.ceil(all.length / blockBytes);
  const ids = Buffer.alloc(count * BLOCK_ID_BYTES);
  const zero = new Uint8Array(count);
  for (let index = 0; index < count; index += 1) {
    const block = all.subarray(index * blockBytes, (index + 1) * blockBytes);
    if (isZero(block)) zero[index] = 1;
    else ids.set(hasher.hashBlock(block), index * BLOCK_ID_BYTES);
  }
  return { ids, zero };
}

/** memcmp with zeros costs nothing on data, which differ at once, and runs at memory speed on holes. */
function isZero(block: Buffer): boolean {
  for (let at = 0; at < block.length; at += ZERO.length) {
    const piece = block.subarray(at, at + ZERO.length);
    if (!piece.equals(piece.length === ZERO.length ? ZERO : ZERO.subarray(0, piece.length)))
      return false;
  }
  return true;
}
