// A Kv of metadata that may be moved elsewhere while somebody works with it: from the moment at which they are marked nothing more
// is written. The mark is read in each transaction, so that one that it overtakes conflicts with it.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { key } from "#lib/repository/keyspace.ts";
import { decodeRecord, type RepositoryRecord } from "#lib/repository/records.ts";

/** The store; writing is Refused once its metadata are being moved. */
export function fenceKv(kv: Kv, url: string): Kv {
  return {
    read: (body) => kv.read(body),
    transact: (body, options) =>
      kv.transact(async (tx) => {
        // Beside the body: it costs no time of its own.
        const [value, record] = await Promise.all([body(tx), tx.get(key.config)]);
        if (record !== undefined) requireInUse(decodeRecord<RepositoryRecord>(record), url);
        return value;
      }, options),
    flush: () => kv.flush(),
    close: () => kv.close(),
  };
}

/** Refused for metadata that were moved elsewhere, or are yet to come. */
export function requireInUse({ movedTo, copyOf }: RepositoryRecord, url: string): void {
  if (movedTo !== undefined) {
    throw new AshlarError(ErrorCode.Refused, `the metadata in ${url} were moved to ${movedTo}`, {
      remedy:
        "make the configuration name that place; if `ashlar kv copy` did not come to its end, run it again, or with --cancel",
    });
  }
  if (copyOf !== undefined) {
    throw new AshlarError(
      ErrorCode.Refused,
      `the metadata in ${url} are an unfinished copy of ${copyOf}`,
      { remedy: "run the same `ashlar kv copy` again, or with --cancel" },
    );
  }
}
