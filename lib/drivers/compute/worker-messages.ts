// What passes between the main thread and a compute worker. Memory that is shared goes as an index; other memory is copied
// once and transferred.
import { InvariantError } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { HashedBlocks, Opened, OpenRequest, Piece, SealRequest } from "#lib/ports/compute.ts";

/** A piece of memory: of a shared buffer that the worker knows, a copy, or (for output) room to be made by the worker. */
export type MemoryRef =
  | { readonly buffer: number; readonly offset: number; readonly length: number }
  | { readonly copy: Uint8Array }
  | { readonly room: number };

/** A call, with its memory described. */
export type TaskCall =
  | { readonly type: "hash"; readonly bytes: MemoryRef; readonly blockBytes: number }
  | { readonly type: "seal"; readonly requests: readonly SealRef[]; readonly out: MemoryRef }
  | { readonly type: "open"; readonly requests: readonly OpenRef[]; readonly out: MemoryRef };

/** A request with its memory described; every other field is named, so that none is left behind. */
type Described<R, M extends keyof R> = {
  readonly [K in Exclude<keyof R, M>]-?: R[K] | undefined;
} & { readonly bytes: MemoryRef };

/** A SealRequest; `bytes` is its plaintext. */
export type SealRef = Described<SealRequest, "plain"> & Pick<SealRequest, "kind" | "id">;

/** An OpenRequest; `bytes` is its sealed object. */
export type OpenRef = Described<OpenRequest, "sealed"> & Pick<OpenRequest, "kind" | "id">;

/** To the worker. */
export type ToWorker =
  | {
      readonly task: number;
      readonly call: TaskCall;
      /** Shared buffers that this worker has not seen before, by index. */
      readonly introduce: readonly (readonly [number, SharedArrayBuffer])[];
    }
  /** Nobody on the main thread holds this shared buffer any more. */
  | { readonly forget: number };

/** From the worker. `out`: the part of a copied output that was written. */
export type FromWorker =
  | { readonly task: number; readonly result: TaskResult; readonly out?: Uint8Array }
  | { readonly task: number; readonly error: WireError };

/** What a call gives. */
export type TaskResult = HashedBlocks | readonly Piece[] | readonly Opened[];

/** An error on its way between threads. */
export interface WireError {
  readonly type: "ashlar" | "invariant" | "other";
  readonly code: ErrorCode;
  readonly message: string;
  readonly remedy: string | undefined;
  readonly details: Readonly<Record<string, unknown>>;
  readonly cause: string | undefined;
}

/** Describes an error. */
export function toWireError(error: unknown): WireError {
  const base = { remedy: undefined, details: {}, cause: undefined, code: ErrorCode.Internal };
  if (error instanceof InvariantError)
    return { ...base, type: "invariant", message: error.message };
  if (error instanceof AshlarError) {
    const { code, message, remedy, details, cause } = error;
    return {
      type: "ashlar",
      code,
      message,
      remedy,
      details,
      cause: cause instanceof Error ? cause.message : undefined,
    };
  }
  return {
    ...base,
    type: "other",
    message: `a compute task failed: ${String(error)}`,
    cause: error instanceof Error ? error.stack : undefined,
  };
}

/** The inverse of {@link toWireError}, as far as an error can be brought back. */
export function fromWireError(wire: WireError): Error {
  if (wire.type === "invariant") return new InvariantError(wire.message);
  const { code, message, remedy, details, cause } = wire;
  return new AshlarError(code, message, {
    details,
    ...(remedy !== undefined && { remedy }),
    ...(cause !== undefined && { cause: new Error(cause) }),
  });
}
