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

/** Reads the marker of the storage in a bucket; Unavailable when there is none. */
export async function readS3Marker(
  client: S3Client,
  { bucket, prefix, location }: S3Settings,
): Promise<StorageMarker> {
  let text: string;
  try {
    const { Body, ETag } = await client.send(
      new GetObjectCommand({ Bucket: bucket, Key: prefix + MARKER_NAME }),
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
