// What lies under a name in a bucket that keeps versions. Ashlar itself gives a name once and deletes by version, so there is one
// version; another one is an earlier try, or what somebody else has put over it, and a delete marker is always somebody else's.
import {
  ListObjectVersionsCommand,
  type ListObjectVersionsCommandOutput,
  type S3Client,
} from "@aws-sdk/client-s3";
import { unexpectedAnswer } from "./s3-errors.ts";
import type { S3Settings } from "./s3-settings.ts";

/** One version of a key, or a delete marker, which has no bytes. */
export interface S3Version {
  readonly key: string;
  readonly versionId: string;
  readonly sizeBytes: number;
  readonly isMarker: boolean;
}

/** All versions of one key, markers first and otherwise the newest first. Errors are the SDK's. */
export async function versionsOf(
  client: S3Client,
  settings: S3Settings,
  key: string,
  signal?: AbortSignal,
): Promise<S3Version[]> {
  const found: S3Version[] = [];
  for await (const page of versionPages(client, settings, key, signal)) {
    const all = versionsIn(page);
    found.push(...all.filter((version) => version.key === key));
    // Of all keys that begin so, this one comes first.
    if (all.some((version) => version.key !== key)) break;
  }
  return found;
}

/** The newest version of a key that has bytes; undefined where there is none. */
export async function newestVersion(
  client: S3Client,
  settings: S3Settings,
  key: string,
  signal?: AbortSignal,
): Promise<S3Version | undefined> {
  const versions = await versionsOf(client, settings, key, signal);
  return versions.find(({ isMarker }) => !isMarker);
}

/** Every key below a prefix that has a version with bytes, whatever marker lies over it, as its newest version. */
export async function* listNewest(
  client: S3Client,
  settings: S3Settings,
  prefix: string,
  signal?: AbortSignal,
): AsyncGenerator<S3Version> {
  let last: string | undefined;
  for await (const page of versionPages(client, settings, prefix, signal)) {
    for (const version of versionsIn(page)) {
      if (version.isMarker || version.key === last) continue;
      last = version.key;
      yield version;
    }
  }
}

/** Markers first: within each kind the order is the service's, by key and then the newest first. */
function versionsIn(page: ListObjectVersionsCommandOutput): S3Version[] {
  const markers = (page.DeleteMarkers ?? []).map(({ Key = "", VersionId = "null" }) => {
    return { key: Key, versionId: VersionId, sizeBytes: 0, isMarker: true };
  });
  const versions = (page.Versions ?? []).map(({ Key = "", VersionId = "null", Size = 0 }) => {
    return { key: Key, versionId: VersionId, sizeBytes: Size, isMarker: false };
  });
  return [...markers, ...versions];
}

async function* versionPages(
  client: S3Client,
  { bucket, location }: S3Settings,
  prefix: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<ListObjectVersionsCommandOutput> {
  let from: { readonly KeyMarker?: string; readonly VersionIdMarker?: string } | undefined = {};
  const seen = new Set<string>();
  do {
    signal?.throwIfAborted();
    const page: ListObjectVersionsCommandOutput = await client.send(
      new ListObjectVersionsCommand({ Bucket: bucket, Prefix: prefix, ...from }),
      signal === undefined ? {} : { abortSignal: signal },
    );
    if (page.Name === undefined) throw unexpectedAnswer("a listing does not name its bucket");
    yield page;
    from = undefined;
    if (page.IsTruncated !== true) continue;
    const { NextKeyMarker, NextVersionIdMarker } = page;
    const place = JSON.stringify([NextKeyMarker, NextVersionIdMarker]);
    // A listing that ends too early, or never.
    if (NextKeyMarker === undefined || seen.has(place)) {
      throw unexpectedAnswer(`a listing of ${location} does not say how it goes on`);
    }
    seen.add(place);
    from = {
      KeyMarker: NextKeyMarker,
      ...(NextVersionIdMarker === undefined ? {} : { VersionIdMarker: NextVersionIdMarker }),
    };
  } while (from !== undefined);
}
