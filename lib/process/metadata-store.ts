// Where the metadata are: in the LMDB of a folder, or in a part of a FoundationDB cluster.
import { stat } from "node:fs/promises";
import path from "node:path";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import { key } from "#lib/repository/keyspace.ts";
import { decodeRecord, METADATA_SCHEMA, type RepositoryRecord } from "#lib/repository/records.ts";
import type { Config } from "./config-file.ts";
import { fenceKv, requireInUse } from "./fenced-kv.ts";
import { makeMetadataFolder, metadataPaths } from "./metadata-folder.ts";

/** What of a configuration tells where the metadata are. */
export type MetadataPlace = Pick<Config, "metadata" | "foundationdb">;

type StorePorts = { readonly clock: Clock; readonly random: Random };

/** The place as a URL, for people and for records of where metadata were moved. */
export function metadataUrl({ metadata, foundationdb }: MetadataPlace): string {
  if (foundationdb === undefined) return `lmdb:${metadata}`;
  return `foundationdb:${foundationdb.clusterFile}?prefix=${foundationdb.prefix}`;
}

/** Opens the store, whatever is in it; an LMDB is made where there is none. Only what is used is loaded. */
export async function openMetadataStore(place: MetadataPlace, ports: StorePorts): Promise<Kv> {
  const { metadata, foundationdb } = place;
  if (foundationdb === undefined) {
    const { openLmdbKv } = await import("#lib/drivers/lmdb/lmdb-kv.ts");
    return openLmdbKv({ path: metadataPaths(metadata).kv, ...ports });
  }
  // Locks of this host's processes, and copies of keys: another host has a folder of its own.
  await makeMetadataFolder(metadata);
  const { openFoundationDbKv } = await import("#lib/drivers/foundationdb/foundationdb-kv.ts");
  const { clusterFile, prefix } = foundationdb;
  return openFoundationDbKv({ clusterFile, prefix: Buffer.from(`${prefix}/`), ...ports });
}

/** Opens metadata that exist; the remedy for those that do not is a rebuild. */
export async function openMetadata(
  place: MetadataPlace,
  ports: StorePorts,
): Promise<{ readonly kv: Kv; readonly record: RepositoryRecord }> {
  if (place.foundationdb === undefined) await requireLmdb(place.metadata);
  const kv = await openMetadataStore(place, ports);
  const url = metadataUrl(place);
  try {
    const record = await readRepositoryRecord(kv, url);
    return { kv: fenceKv(kv, url), record };
  } catch (error) {
    await kv.close();
    throw error;
  }
}

async function requireLmdb(folder: string): Promise<void> {
  try {
    await stat(path.join(metadataPaths(folder).kv, "data.mdb"));
  } catch (cause) {
    const error = fromSystemError(cause, `opening the metadata in ${folder}`);
    if (error.code !== ErrorCode.NotFound) throw error;
    throw new AshlarError(ErrorCode.Unavailable, `there are no metadata in ${folder}`, {
      cause,
      remedy:
        "mount it if it is not mounted; if it is lost, `ashlar rebuild DIR --from URL` makes it again from a storage",
    });
  }
}

/**
 * What the metadata say of the repository; Refused where they are not to be used.
 * @param url of the metadata, for messages
 */
export async function readRepositoryRecord(kv: Kv, url: string): Promise<RepositoryRecord> {
  const value = await kv.read((reader) => reader.get(key.config));
  if (value === undefined) {
    throw new AshlarError(ErrorCode.Unavailable, `the metadata in ${url} are empty`, {
      remedy: url.startsWith("lmdb:")
        ? "an `init` or `rebuild` did not come to its end: remove the folder and run it again"
        : "correct foundationdb.clusterFile or foundationdb.prefix; `ashlar kv copy` moves metadata there",
    });
  }
  const record = decodeRecord<RepositoryRecord>(value);
  if (record.schema > METADATA_SCHEMA) {
    throw new AshlarError(
      ErrorCode.Refused,
      `the metadata in ${url} are of schema ${record.schema}; this Ashlar knows ${METADATA_SCHEMA}`,
      { remedy: "use the newer Ashlar" },
    );
  }
  requireInUse(record, url);
  return record;
}
