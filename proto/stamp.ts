// The plaintext of a stamp (docs/format.md, "Stamps"): by it a storage and its KV recognise each other.
import { writtenByNewer } from "./format-error.ts";
import { decodeRecord, encodeRecord, FieldReader } from "./record.ts";

/** The stamp format that this code writes; it reads none that is newer. */
export const STAMP_FORMAT = 1;

const SHORT_ID_BYTES = 8;

/** A stamp. Ids are 16 hex digits. */
export interface Stamp {
  readonly repository: string;
  /** Identity of the storage that it was put on. */
  readonly storage: string;
  /** The storage's run number that this stamp begins. */
  readonly run: number;
  /** Also its name. */
  readonly random: string;
  readonly createdMs: number;
}

/** Encodes a stamp; equal stamps give equal bytes. */
export function encodeStamp(stamp: Stamp): Buffer {
  const { repository, storage, run, random, createdMs } = stamp;
  return encodeRecord({ format: STAMP_FORMAT, repository, storage, run, random, createdMs });
}

/** Decodes a stamp and checks every field. */
export function decodeStamp(bytes: Uint8Array): Stamp {
  const fields = new FieldReader(decodeRecord(bytes));
  const format = fields.whole("format", 1);
  if (format > STAMP_FORMAT) throw writtenByNewer(`stamp format ${format}`);
  return {
    repository: fields.hex("repository", SHORT_ID_BYTES),
    storage: fields.hex("storage", SHORT_ID_BYTES),
    run: fields.whole("run", 0),
    random: fields.hex("random", SHORT_ID_BYTES),
    createdMs: fields.whole("createdMs", 0),
  };
}
