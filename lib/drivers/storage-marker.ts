// The marker of a storage: the object by which it is known as one, and as which one. Every kind of storage has it.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";

/** What a storage says about itself. */
export interface StorageMarker {
  readonly format: 1;
  /** The storage's own identity. */
  readonly identity: StorageId;
  /** The repository that it belongs to, in hex. */
  readonly repository: string;
  /** When it was made, as ISO 8601. */
  readonly created: string;
}

/** The name of the marker in the storage; no object can be called so. */
export const MARKER_NAME = "ashlar-storage.json";

/** The newest layout of a storage that this version reads and writes. */
const MARKER_FORMAT = 1;

/** Writes a marker. */
export function encodeStorageMarker(marker: StorageMarker): string {
  return `${JSON.stringify(marker, undefined, 2)}\n`;
}

/** Reads a marker; Damaged when it is none, Refused when it is of a newer format. */
export function parseStorageMarker(text: string, where: string): StorageMarker {
  const marker = parseObject(text, where);
  const { format, identity, repository, created } = marker;
  if (typeof format === "number" && format > MARKER_FORMAT) {
    throw new AshlarError(
      ErrorCode.Refused,
      `${where} is of format ${format}; this version of Ashlar knows ${MARKER_FORMAT}`,
      { remedy: "use the version of Ashlar that made it, or a newer one" },
    );
  }
  if (format !== 1 || !isHex(identity, 16) || !isHex(repository) || typeof created !== "string") {
    throw damaged(where);
  }
  return { format, identity: identity as StorageId, repository, created };
}

function parseObject(text: string, where: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch (error) {
    throw damaged(where, error);
  }
  throw damaged(where);
}

function isHex(value: unknown, digits?: number): value is string {
  if (typeof value !== "string" || !/^(?:[0-9a-f]{2})+$/.test(value)) return false;
  return digits === undefined || value.length === digits;
}

function damaged(where: string, cause?: unknown): AshlarError {
  return new AshlarError(ErrorCode.Damaged, `${where} is not the marker of an Ashlar storage`, {
    remedy: "put the file back from a copy: `ashlar storage ls` shows the storage's identity",
    cause,
  });
}
