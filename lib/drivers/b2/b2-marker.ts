// The marker of a storage in a bucket.
import { markerMissing } from "#lib/drivers/bucket-presence.ts";
import { readBody } from "#lib/drivers/response-body.ts";
import {
  MARKER_NAME,
  parseStorageMarker,
  type StorageMarker,
} from "#lib/drivers/storage-marker.ts";
import type { B2Client } from "./b2-client.ts";
import { b2Error } from "./b2-errors.ts";
import { isNoSuchFile } from "./b2-failure.ts";
import { contentLength } from "./b2-files.ts";

/** Reads the marker of the storage in a bucket; Unavailable when there is none. */
export async function readB2Marker(client: B2Client): Promise<StorageMarker> {
  const { prefix, location } = client.settings;
  const target = { location, name: MARKER_NAME, into: undefined, signal: undefined };
  let bytes: Uint8Array;
  try {
    bytes = await client.download(
      { method: "GET", fileName: prefix + MARKER_NAME, signal: undefined },
      (response) => readBody(response, contentLength(response), target),
    );
  } catch (error) {
    if (!isNoSuchFile(error)) throw b2Error(error, location, "reading its marker");
    throw markerMissing(location, error);
  }
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("utf8");
  return parseStorageMarker(text, `${MARKER_NAME} at ${location}`);
}
