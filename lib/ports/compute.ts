// Compute: hashing and sealing off the main thread. Drivers: worker threads, inline (tests, simulation).
import type { Payload } from "./bus.ts";

/** A piece of shared memory of fixed size, handed out by a pool. `bytes` covers the whole slot. */
export type Slot = Payload;

/** A bounded set of equal slots: the memory that a pipeline may use, and so its back-pressure. */
export interface SlotPool {
  readonly slotBytes: number;
  readonly slotCount: number;
  readonly freeCount: number;
  /** Takes a slot (reference count 1), waiting until one is free; rejects with the signal's reason when it aborts. */
  acquire(signal?: AbortSignal): Promise<Slot>;
}

/** What hashing a run of blocks gave. */
export interface HashedBlocks {
  /** 32 bytes per block; of zero blocks, undefined content. */
  readonly ids: Buffer;
  /** 1 where the block is all zero (such a block has no id). */
  readonly zero: Uint8Array;
}

/** How objects are compressed: a name that objects have for it (proto/sealed-object.ts), and zstd's level. */
export interface CompressionChoice {
  readonly name: string;
  readonly level: number;
}

/** One object to seal. */
export interface SealRequest {
  /** "block" or "node". */
  readonly kind: "block" | "node";
  /** 32 bytes, as hex. */
  readonly id: string;
  readonly plain: Uint8Array;
  /** Instead of how this process compresses what nobody has a wish for. */
  readonly compression?: CompressionChoice;
  /** Refuse (Damaged) what does not hash to the id: it came from another process. */
  readonly verify?: boolean;
}

/** One object to open. */
export interface OpenRequest {
  readonly kind: "block" | "node";
  readonly id: string;
  readonly sealed: Uint8Array;
  /**
   * Only what needs no private key is verified: that it is whole, says that it is this object, and is under a known key. Nothing
   * is written to the output. That nobody who can write to the storage has edited it, only opening tells.
   */
  readonly verifyOnly?: boolean;
}

/** Where a sealed object lies in the output buffer. */
export interface Piece {
  readonly offset: number;
  readonly length: number;
}

/** Outcome of opening one object: where its plaintext lies, or what is wrong with it. */
export type Opened =
  | (Piece & { readonly ok: true })
  | {
      readonly ok: false;
      readonly reason: string;
      /** It is sealed under a repository key that the one who opened it does not have. */
      readonly isKeyUnknown?: boolean;
    };

/**
 * CPU work on blocks, one worker per core, each running its whole task on memory that is shared, not copied
 * (views of slots; other memory is copied in and out). Tasks of one call run on one worker.
 */
export interface Compute {
  readonly concurrency: number;
  /** Makes a pool whose slots the workers see without copying. */
  pool(slotBytes: number, slotCount: number): SlotPool;
  /** Hashes consecutive blocks of `blockBytes` (the last may be shorter) under the block key, and finds zero blocks. */
  hash(bytes: Uint8Array, blockBytes: number): Promise<HashedBlocks>;
  /** Compresses and encrypts; the sealed objects lie one behind the other in `out`. Throws when they do not fit. */
  seal(requests: readonly SealRequest[], out: Uint8Array): Promise<Piece[]>;
  /** Decrypts, decompresses and checks against the id; plaintexts lie one behind the other in `out`. */
  open(requests: readonly OpenRequest[], out: Uint8Array): Promise<Opened[]>;
  close(): Promise<void>;
}
