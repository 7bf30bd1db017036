// Makes a new storage in a bucket, or takes one back that could not be finished.
import { DeleteObjectCommand, ListObjectsV2Command, type S3Client } from "@aws-sdk/client-s3";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import {
  encodeStorageMarker,
  MARKER_NAME,
  type StorageMarker,
} from "#lib/drivers/storage-marker.ts";
import { createS3Client } from "./s3-client.ts";
import { isTaken, s3Error } from "./s3-errors.ts";
import { readS3Marker } from "./s3-marker.ts";
import { requireBucketLock } from "./s3-object-lock.ts";
import { s3Put } from "./s3-put.ts";
import type { S3Settings } from "./s3-settings.ts";
import { listNewest, versionsOf } from "./s3-versions.ts";

/**
 * Makes a storage; AlreadyExists when the bucket, or what is below its prefix, holds another
 * one or anything else. Repeating it is fine.
 */
export async function createS3Storage(settings: S3Settings, marker: StorageMarker): Promise<void> {
  await withClient(settings, async (client) => {
    await requireBucketLock(client, settings);
    const first = await firstKey(client, settings);
    if (first === settings.prefix + MARKER_NAME) {
      await requireOurs(client, settings, marker);
      return;
    }
    if (first !== undefined) {
      throw new AshlarError(
        ErrorCode.AlreadyExists,
        `${settings.location} is not empty: it holds ${first}`,
        { remedy: "choose another bucket or prefix for the storage" },
      );
    }
    await putMarker(client, settings, marker);
  });
}

/** What a storage says about itself; Unavailable when nothing there says anything. */
export function readS3StorageMarker(settings: S3Settings): Promise<StorageMarker> {
  return withClient(settings, (client) => readS3Marker(client, settings));
}

const KEYS_MAX = 1000;

/** What a storage that was only just made can hold: keys and a stamp, and what a check has put. */
const NEW_NAMES = /^(?:keys|stamps)\/[a-z0-9._-]+$/;

/**
 * Deletes what a storage holds that was only just made, its marker last. Nothing where another one is there, and nothing that is
 * not of a new storage.
 */
export async function discardS3Storage(
  settings: S3Settings,
  identity: StorageMarker["identity"],
): Promise<void> {
  await withClient(settings, async (client) => {
    if ((await readS3Marker(client, settings)).identity !== identity) return;
    const { bucket: Bucket, prefix, location } = settings;
    try {
      const keys = await firstKeys(client, settings);
      const own = keys.filter((key) => NEW_NAMES.test(key.slice(prefix.length)));
      for (const Key of [...own, prefix + MARKER_NAME]) {
        // What is locked by the bucket itself stays.
        const versions =
          settings.objectLock === undefined
            ? [{ versionId: undefined }]
            : await versionsOf(client, settings, Key);
        for (const { versionId: VersionId } of versions) {
          await client.send(new DeleteObjectCommand({ Bucket, Key, VersionId }));
        }
      }
    } catch (error) {
      throw s3Error(error, location, "taking back a storage that could not be made");
    }
  });
}

/** What a storage that was only just made can hold fits into one page. */
async function firstKeys(client: S3Client, settings: S3Settings): Promise<string[]> {
  const { bucket: Bucket, prefix } = settings;
  const keys: string[] = [];
  if (settings.objectLock === undefined) {
    const { Contents = [] } = await client.send(
      new ListObjectsV2Command({ Bucket, Prefix: prefix, MaxKeys: KEYS_MAX }),
    );
    for (const { Key } of Contents) if (Key !== undefined) keys.push(Key);
    return keys;
  }
  for await (const { key } of listNewest(client, settings, prefix)) {
    keys.push(key);
    if (keys.length === KEYS_MAX) break;
  }
  return keys;
}

async function withClient<T>(
  settings: S3Settings,
  use: (client: S3Client) => Promise<T>,
): Promise<T> {
  const client = await createS3Client(settings);
  try {
    return await use(client);
  } finally {
    client.destroy();
  }
}

async function firstKey(
  client: S3Client,
  { bucket, prefix, location }: S3Settings,
): Promise<string | undefined> {
  try {
    const listed = await client.send(
      new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, MaxKeys: 2 }),
    );
    const keys = (listed.Contents ?? []).flatMap(({ Key }) => (Key === undefined ? [] : [Key]));
    // A marker tells most.
    return keys.find((key) => key === prefix + MARKER_NAME) ?? keys[0];
  } catch (error) {
    throw s3Error(error, location, "listing it");
  }
}

async function requireOurs(
  client: S3Client,
  settings: S3Settings,
  marker: StorageMarker,
): Promise<void> {
  const { identity } = await readS3Marker(client, settings);
  if (identity === marker.identity) return;
  throw new AshlarError(
    ErrorCode.AlreadyExists,
    `${settings.location} holds the storage ${identity} already`,
    {
      remedy:
        "choose another bucket or prefix; `ashlar rebuild --from` reads a storage that is there",
    },
  );
}

/**
 * Of two who make a storage in one place at the same time the one wins whose marker is there in the end; where versions are kept,
 * whose is there first. It is not locked yet: a storage that cannot be introduced is taken back.
 */
async function putMarker(
  client: S3Client,
  settings: S3Settings,
  marker: StorageMarker,
): Promise<void> {
  const bytes = Buffer.from(encodeStorageMarker(marker));
  const isCreate = settings.conditionalWrites;
  try {
    await s3Put(client, settings, { name: MARKER_NAME, bytes, isCreate });
  } catch (error) {
    if (!isTaken(error)) throw s3Error(error, settings.location, "putting its marker");
  }
  await requireOurs(client, settings, marker);
}
