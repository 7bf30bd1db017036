// The marker of a storage in a bucket.
import type { Readable } from "node:stream";
import { GetObjectCommand, type S3Client } from "@aws-sdk/client-s3";
import { markerMissing } from "#lib/drivers/bucket-presence.ts";
import {
  MARKER_NAME,
  parseStorageMarker,
  type StorageMarker,
} from "#lib/drivers/storage-marker.ts";
import { isNoSuchKey, s3Error, unexpectedAnswer } from "./s3-errors.ts";
import type { S3Settings } from "./s3-settings.ts";
import { versionsOf } from "./s3-versions.ts";

/** Reads the marker of the storage in a bucket; Unavailable when there is none. */
export async function readS3Marker(client: S3Client, settings: S3Settings): Promise<StorageMarker> {
  const { bucket, prefix, location } = settings;
  let text: string;
  try {
    const Key = prefix + MARKER_NAME;
    const { Body, ETag } = await client.send(
      new GetObjectCommand({
        Bucket: bucket,
        Key,
        VersionId: await firstVersion(client, settings),
      }),
    );
    if (ETag === undefined) {
      (Body as unknown as Readable).destroy();
      throw unexpectedAnswer("what came has no ETag");
    }
    text = (await Body?.transformToString("utf8")) ?? "";
  } catch (error) {
    if (!isNoSuchKey(error)) throw s3Error(error, location, "reading its marker");
    throw markerMissing(location, error);
  }
  return parseStorageMarker(text, `${MARKER_NAME} at ${location}`);
}

/** Where versions are kept: the first one. It is put once, so another one is somebody else's. */
async function firstVersion(client: S3Client, settings: S3Settings): Promise<string | undefined> {
  if (settings.objectLock === undefined) return undefined;
  const versions = await versionsOf(client, settings, settings.prefix + MARKER_NAME);
  return versions.findLast(({ isMarker }) => !isMarker)?.versionId;
}
