// The kinds of storages. Adding one is a file and a line here.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import type { BlobLocking, BlobStore } from "#lib/ports/blob-store.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Random } from "#lib/ports/random.ts";
import { B2_FILE_OPTIONS, parseB2Url, type B2Settings } from "./b2/b2-settings.ts";
import { innerBucketPlace } from "./bucket-url.ts";
import { createFileBlobStore } from "./file/create-file-storage.ts";
import { openFileBlobStore } from "./file/file-blob-store.ts";
import { readMarker } from "./file/storage-presence.ts";
import { parseLocation } from "./location.ts";
import { parseS3Url, S3_FILE_OPTIONS, type S3Settings } from "./s3/s3-settings.ts";
import { checkStorage, type CheckFinding } from "./storage-check.ts";
import type { StorageMarker } from "./storage-marker.ts";

/** How a storage is opened. */
export interface OpenStorageOptions {
  /** The storage that must be there; without it any is taken. */
  readonly identity?: StorageId;
  /** Nothing in it is ever changed. */
  readonly readOnly?: boolean;
  /** How its objects are locked where its URL does not say; a storage that cannot lock ignores it. */
  readonly lock?: Pick<BlobLocking, "mode" | "periodMs"> | undefined;
  readonly clock: Clock;
  readonly random: Random;
}

/** One kind of storage. A place is what its URL has after the scheme; for files a path. */
interface StorageKind {
  /** Options that name files. */
  readonly fileOptions: readonly string[];
  /** Throws Usage where the place cannot be one, without looking at it. */
  checkPlace(place: string): void;
  open(place: string, options: OpenStorageOptions): Promise<BlobStore>;
  create(place: string, marker: StorageMarker): Promise<void>;
  marker(place: string): Promise<StorageMarker>;
  /** Takes back what `create` has made, where nothing else is there. Files are taken back by who knows what was there before. */
  discard?(place: string, identity: StorageId): Promise<void>;
  /** What the service says of itself and of how it is set up, and trials of what only this kind has. */
  inspect?(
    place: string,
    ports: Pick<OpenStorageOptions, "clock" | "random">,
  ): Promise<CheckFinding[]>;
  /** A place below this one, for trials where no storage is yet. */
  inner?(place: string, name: string): string;
}

const fileKind: StorageKind = {
  fileOptions: [],
  checkPlace: (path) => {
    // A relative path would be another place for every working folder.
    if (!path.startsWith("/")) {
      throw new AshlarError(ErrorCode.Usage, `storage file:${path}: the path is not absolute`);
    }
  },
  open: (path, { identity, ...options }) =>
    openFileBlobStore({ path, ...options, expectIdentity: identity }),
  create: (path, marker) => createFileBlobStore({ path, marker }),
  marker: readMarker,
};

const settingsOf = (place: string): S3Settings => parseS3Url(`s3:${place}`);

/** The SDK is loaded by those alone who have such a storage: it takes a while. */
const s3Kind: StorageKind = {
  fileOptions: S3_FILE_OPTIONS,
  checkPlace: (place) => void settingsOf(place),
  open: async (place, { identity, clock, readOnly, lock }) => {
    const { openS3BlobStore } = await import("./s3/s3-blob-store.ts");
    return openS3BlobStore({
      settings: parseS3Url(`s3:${place}`, lock),
      expectIdentity: identity,
      clock,
      readOnly: readOnly ?? false,
    });
  },
  create: async (place, marker) => {
    const { createS3Storage } = await import("./s3/create-s3-storage.ts");
    await createS3Storage(settingsOf(place), marker);
  },
  marker: async (place) => {
    const { readS3StorageMarker } = await import("./s3/create-s3-storage.ts");
    return readS3StorageMarker(settingsOf(place));
  },
  discard: async (place, identity) => {
    const { discardS3Storage } = await import("./s3/create-s3-storage.ts");
    await discardS3Storage(settingsOf(place), identity);
  },
  inspect: async (place, ports) => {
    const { checkS3 } = await import("./s3/s3-check.ts");
    return checkS3(settingsOf(place), ports);
  },
  inner: (place, name) => innerBucketPlace("s3", place, name),
};

const b2SettingsOf = (place: string): B2Settings => parseB2Url(`b2:${place}`);

const b2Kind: StorageKind = {
  fileOptions: B2_FILE_OPTIONS,
  checkPlace: (place) => void b2SettingsOf(place),
  open: async (place, { identity, clock, readOnly }) => {
    const { openB2BlobStore } = await import("./b2/b2-blob-store.ts");
    return openB2BlobStore({
      settings: b2SettingsOf(place),
      expectIdentity: identity,
      clock,
      readOnly: readOnly ?? false,
    });
  },
  create: async (place, marker) => {
    const { createB2Storage } = await import("./b2/create-b2-storage.ts");
    await createB2Storage(b2SettingsOf(place), marker);
  },
  marker: async (place) => {
    const { readB2StorageMarker } = await import("./b2/create-b2-storage.ts");
    return readB2StorageMarker(b2SettingsOf(place));
  },
  discard: async (place, identity) => {
    const { discardB2Storage } = await import("./b2/create-b2-storage.ts");
    await discardB2Storage(b2SettingsOf(place), identity);
  },
  inspect: async (place, ports) => {
    const { checkB2 } = await import("./b2/b2-check.ts");
    return checkB2(b2SettingsOf(place), ports);
  },
  inner: (place, name) => innerBucketPlace("b2", place, name),
};

const KINDS: Readonly<Record<string, StorageKind>> = { file: fileKind, s3: s3Kind, b2: b2Kind };

/** Throws Usage where a URL cannot be that of a storage. Nothing is looked at but the text. */
export function checkStorageUrl(url: string): void {
  const { kind, rest } = parseLocation(url, "storage", KINDS);
  kind.checkPlace(rest);
}

/** The options of such a URL that name files: a configuration may write them relative to itself. */
export function storageFileOptions(url: string): readonly string[] {
  return parseLocation(url, "storage", KINDS).kind.fileOptions;
}

/** Opens a storage; Unavailable when it is not there, Refused when it is another one than expected. */
export function openStorage(url: string, options: OpenStorageOptions): Promise<BlobStore> {
  return at(url, (kind, place) => kind.open(place, options));
}

/** Makes a storage in a new or empty place; AlreadyExists when something is there. */
export function createStorage(url: string, marker: StorageMarker): Promise<void> {
  return at(url, (kind, place) => kind.create(place, marker));
}

/** What a storage says about itself, without opening it; Unavailable when nothing there says anything. */
export function readStorageMarker(url: string): Promise<StorageMarker> {
  return at(url, (kind, place) => kind.marker(place));
}

/** Takes back a storage that was made just now and could not be introduced; nothing where another one is there. */
export function discardStorage(url: string, identity: StorageId): Promise<void> {
  return at(url, async (kind, place) => kind.discard?.(place, identity));
}

/**
 * Tries out all that Ashlar relies on, at a storage, or, where its kind can be tried so, at a place where one is yet to be made.
 * @throws as opening does, where that is not possible
 */
export function tryStorage(
  url: string,
  ports: Pick<OpenStorageOptions, "clock" | "random">,
): Promise<CheckFinding[]> {
  return at(url, async (kind, place) => {
    const findings = (await kind.inspect?.(place, ports)) ?? [];
    const store = await openOrUndefined(kind, place, ports);
    if (store !== undefined) {
      try {
        return [...findings, ...(await checkStorage(store, ports.random))];
      } finally {
        await store.close();
      }
    }
    return [...findings, ...(await tryInside(kind, place, ports))];
  });
}

/** Undefined where no storage is yet, and its kind can be tried nevertheless. */
async function openOrUndefined(
  kind: StorageKind,
  place: string,
  ports: Pick<OpenStorageOptions, "clock" | "random">,
): Promise<BlobStore | undefined> {
  try {
    return await kind.open(place, ports);
  } catch (error) {
    const isMissing = error instanceof AshlarError && error.details["marker"] === "missing";
    if (!isMissing || kind.inner === undefined) throw error;
    return undefined;
  }
}

async function tryInside(
  kind: StorageKind,
  place: string,
  ports: Pick<OpenStorageOptions, "clock" | "random">,
): Promise<CheckFinding[]> {
  const identity = ports.random.bytes(8).toString("hex") as StorageId;
  const inner = kind.inner?.(place, `ashlar-check-${identity}`) ?? place;
  const created = new Date(ports.clock.now()).toISOString();
  await kind.create(inner, { format: 1, identity, repository: identity, created });
  const findings = await tryOpen(kind, inner, ports).catch(async (error: unknown) => {
    await kind.discard?.(inner, identity).catch(() => undefined);
    throw error;
  });
  try {
    await kind.discard?.(inner, identity);
    return findings;
  } catch (error) {
    if (!(error instanceof AshlarError)) throw error;
    return [...findings, { check: "clean up", outcome: "failed", detail: error.message }];
  }
}

async function tryOpen(
  kind: StorageKind,
  place: string,
  ports: Pick<OpenStorageOptions, "clock" | "random">,
): Promise<CheckFinding[]> {
  const store = await kind.open(place, ports);
  try {
    return await checkStorage(store, ports.random);
  } finally {
    await store.close();
  }
}

async function at<T>(
  url: string,
  use: (kind: StorageKind, place: string) => Promise<T>,
): Promise<T> {
  const { kind, rest } = parseLocation(url, "storage", KINDS);
  kind.checkPlace(rest);
  return use(kind, rest);
}
