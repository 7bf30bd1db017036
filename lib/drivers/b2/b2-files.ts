// Files of a bucket by their names. B2 keeps every version of a name, and hides names by a version that is none; here a name has one
// content, the newest, or is not there (https://www.backblaze.com/docs/cloud-storage-file-versions).
import type { IncomingMessage } from "node:http";
import { B2Failure, isNoSuchFile } from "./b2-failure.ts";
import type { B2Client, Uploaded } from "./b2-client.ts";

/** One version of a name. */
export interface FileVersion {
  readonly fileId: string;
  readonly fileName: string;
  /** `upload`, `hide`, or `start` for a large file that was never finished. */
  readonly action: string;
  readonly contentLength: number | null;
}

/** A page of a listing. */
export interface FilePage {
  readonly files: readonly FileVersion[];
  /** Where the next one begins; null after the last. */
  readonly nextFileName: string | null;
  readonly nextFileId?: string | null;
}

/** As much as one transaction is billed for (https://www.backblaze.com/apidocs/b2-list-file-names). */
const PAGE_FILES = 1000;

type Signal = AbortSignal | undefined;

/**
 * Puts a file. Of what was there before nothing is left, nor of what an earlier try has put unnoticed.
 * @param isReplacing there may be older versions
 */
export async function putFile(
  client: B2Client,
  fileName: string,
  bytes: Uint8Array,
  { isReplacing, signal }: { readonly isReplacing: boolean; readonly signal: Signal },
): Promise<void> {
  const uploaded = await client.upload(fileName, bytes, signal);
  if (!isReplacing && !uploaded.isRepeated) return;
  try {
    await deleteOlder(client, fileName, uploaded);
  } catch {
    // It is put. Older versions are read by nobody, cost a little, and go when the name is put again or deleted.
  }
}

/** Only what was there before: who puts the name at the same time, and later, keeps what they have put. */
async function deleteOlder(
  client: B2Client,
  fileName: string,
  { fileId }: Uploaded,
): Promise<void> {
  const versions = await versionsOf(client, fileName);
  const own = versions.findIndex((version) => version.fileId === fileId);
  if (own < 0) return;
  await deleteOldestFirst(client, versions.slice(own + 1));
}

/**
 * The size of a file in bytes.
 * @param isSure whether a 404 is to be B2's own word: that takes a second request
 */
export async function sizeOfFile(
  client: B2Client,
  fileName: string,
  signal: Signal,
  isSure: boolean,
): Promise<number> {
  try {
    return await client.download({ method: "HEAD", fileName, signal }, (response) => {
      response.resume();
      return Promise.resolve(contentLength(response));
    });
  } catch (error) {
    // An answer to HEAD has no body that would say which of many things is forbidden, or who says that nothing is there.
    const isMute =
      error instanceof B2Failure && (error.status === 403 || (isSure && error.status === 404));
    if (!isMute) throw error;
    const range = { offset: 0, length: 1 };
    return client.download({ method: "GET", fileName, range, signal }, (response) => {
      response.destroy();
      return Promise.reject(error);
    });
  }
}

/** How much an answer says that it has. */
export function contentLength(response: IncomingMessage): number {
  return Number(response.headers["content-length"] ?? 0);
}

/** A page of the names that begin with a prefix, each once, without those that are hidden. */
export function listNames(
  client: B2Client,
  prefix: string,
  startFileName: string | null,
  signal: Signal,
): Promise<FilePage> {
  const { bucketId } = client;
  const start = startFileName === null ? {} : { startFileName };
  const body = { bucketId, prefix, maxFileCount: PAGE_FILES, ...start };
  return client.call<FilePage>("b2_list_file_names", body, signal);
}

/** Deletes all versions of a name, and all that hide it. An absent one is a success. */
export async function deleteFile(client: B2Client, fileName: string): Promise<void> {
  await deleteOldestFirst(client, await versionsOf(client, fileName));
}

/** All versions of all names that begin with a prefix, newest first within a name. */
export async function* listVersions(client: B2Client, prefix: string): AsyncGenerator<FileVersion> {
  const { bucketId } = client;
  let start: { readonly startFileName?: string; readonly startFileId?: string } = {};
  for (;;) {
    const body = { bucketId, prefix, maxFileCount: PAGE_FILES, ...start };
    const page: FilePage = await client.call("b2_list_file_versions", body, undefined);
    yield* page.files;
    const { nextFileName, nextFileId } = page;
    if (nextFileName === null) return;
    start = {
      startFileName: nextFileName,
      ...(typeof nextFileId === "string" ? { startFileId: nextFileId } : {}),
    };
  }
}

/** Newest first. */
async function versionsOf(client: B2Client, fileName: string): Promise<FileVersion[]> {
  const versions: FileVersion[] = [];
  for await (const version of listVersions(client, fileName)) {
    // Names that are longer come after all of this one.
    if (version.fileName !== fileName) break;
    versions.push(version);
  }
  return versions;
}

/** The newest goes last: who is interrupted leaves what was to be read, never something older. */
export async function deleteOldestFirst(
  client: B2Client,
  versions: readonly FileVersion[],
): Promise<void> {
  for (const { fileId, fileName } of versions.toReversed()) {
    try {
      await client.call("b2_delete_file_version", { fileName, fileId }, undefined);
    } catch (error) {
      // Somebody else has, or an earlier try whose answer was lost.
      if (!isNoSuchFile(error)) throw error;
    }
  }
}
