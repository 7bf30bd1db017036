// Makes a new storage in a bucket, or takes one back that could not be finished.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import {
  encodeStorageMarker,
  MARKER_NAME,
  type StorageMarker,
} from "#lib/drivers/storage-marker.ts";
import { B2Client } from "./b2-client.ts";
import { b2Error } from "./b2-errors.ts";
import {
  deleteOldestFirst,
  listNames,
  listVersions,
  putFile,
  type FileVersion,
} from "./b2-files.ts";
import { readB2Marker } from "./b2-marker.ts";
import type { B2Settings } from "./b2-settings.ts";

/**
 * Makes a storage; AlreadyExists when the bucket, or what is below its prefix, holds another
 * one or anything else. Repeating it is fine.
 */
export async function createB2Storage(settings: B2Settings, marker: StorageMarker): Promise<void> {
  await withClient(settings, "making it", async (client) => {
    const first = await firstName(client);
    if (first === settings.prefix + MARKER_NAME) {
      await requireOurs(client, marker);
      return;
    }
    if (first !== undefined) {
      throw new AshlarError(
        ErrorCode.AlreadyExists,
        `${settings.location} is not empty: it holds ${first}`,
        { remedy: "choose another bucket or prefix for the storage" },
      );
    }
    const bytes = Buffer.from(encodeStorageMarker(marker));
    const put = { isReplacing: false, signal: undefined };
    await putFile(client, settings.prefix + MARKER_NAME, bytes, put);
    // Of two who make a storage in one place at the same time the one wins whose marker is there in the end.
    await requireOurs(client, marker);
  });
}

/** What a storage says about itself; Unavailable when nothing there says anything. */
export function readB2StorageMarker(settings: B2Settings): Promise<StorageMarker> {
  return withClient(settings, "reading its marker", readB2Marker);
}

/** What a storage that was only just made can hold: keys and a stamp, and what a check has put. */
const NEW_NAMES = /^(?:keys|stamps)\/[a-z0-9._-]+$/;

/**
 * Deletes what a storage holds that was only just made, its marker last. Nothing where another one is there, and nothing that is
 * not of a new storage: a bucket that shows no file may hold hidden and older ones of somebody else.
 */
export async function discardB2Storage(
  settings: B2Settings,
  identity: StorageMarker["identity"],
): Promise<void> {
  await withClient(settings, "taking it back", async (client) => {
    if ((await readB2Marker(client)).identity !== identity) return;
    const markers: FileVersion[] = [];
    const others: FileVersion[] = [];
    for await (const version of listVersions(client, settings.prefix)) {
      const name = version.fileName.slice(settings.prefix.length);
      if (name === MARKER_NAME) markers.push(version);
      else if (NEW_NAMES.test(name)) others.push(version);
    }
    await deleteOldestFirst(client, [...markers, ...others]);
  });
}

async function withClient<T>(
  settings: B2Settings,
  doing: string,
  use: (client: B2Client) => Promise<T>,
): Promise<T> {
  const client = await B2Client.open(settings);
  try {
    return await use(client);
  } catch (error) {
    throw b2Error(error, settings.location, doing);
  } finally {
    client.close();
  }
}

async function firstName(client: B2Client): Promise<string | undefined> {
  const { prefix } = client.settings;
  const { files } = await listNames(client, prefix, null, undefined);
  const names = files.map(({ fileName }) => fileName);
  // A marker tells most.
  return names.find((name) => name === prefix + MARKER_NAME) ?? names[0];
}

async function requireOurs(client: B2Client, marker: StorageMarker): Promise<void> {
  const { identity } = await readB2Marker(client);
  if (identity === marker.identity) return;
  const { location } = client.settings;
  throw new AshlarError(
    ErrorCode.AlreadyExists,
    `${location} holds the storage ${identity} already`,
    {
      remedy:
        "choose another bucket or prefix; `ashlar rebuild --from` reads a storage that is there",
    },
  );
}
