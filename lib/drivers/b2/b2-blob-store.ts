// BlobStore on Backblaze B2, by its native API: an object a file, whole in one request (objects are at most some MiB).
import type { StorageId } from "#lib/core/ids.ts";
import { blobExists, blobSizeWrong, readOnlyError } from "#lib/drivers/blob-errors.ts";
import { checkBlobName, checkBlobPrefix, isBlobName } from "#lib/drivers/blob-name.ts";
import { BucketPresence } from "#lib/drivers/bucket-presence.ts";
import { readBody } from "#lib/drivers/response-body.ts";
import { MARKER_NAME } from "#lib/drivers/storage-marker.ts";
import type {
  BlobEntry,
  BlobStore,
  BlobStoreCapabilities,
  GetOptions,
  PutOptions,
} from "#lib/ports/blob-store.ts";
import type { Clock } from "#lib/ports/clock.ts";
import { B2Client } from "./b2-client.ts";
import { b2Error } from "./b2-errors.ts";
import { B2Failure, isNoSuchFile } from "./b2-failure.ts";
import { contentLength, deleteFile, listNames, putFile, sizeOfFile } from "./b2-files.ts";
import { readB2Marker } from "./b2-marker.ts";
import type { Pause } from "./b2-retry.ts";
import type { B2Settings } from "./b2-settings.ts";

/** How a B2 storage is opened. */
export interface OpenB2Options {
  readonly settings: B2Settings;
  /** The storage that must be there; without it any is taken. */
  readonly expectIdentity?: StorageId | undefined;
  /** Nothing in it is ever changed. */
  readonly readOnly?: boolean;
  readonly clock: Clock;
  /** How pauses between tries are waited for; otherwise by the machine's clock. */
  readonly pause?: Pause;
}

const DELETES_AT_ONCE = 16;

/** Opens the storage in a bucket; Unavailable when it is not there, Refused when it is another one than expected. */
export async function openB2BlobStore(options: OpenB2Options): Promise<BlobStore> {
  const { settings, expectIdentity, clock } = options;
  const client = await B2Client.open(settings, options.pause);
  try {
    const read = () => readB2Marker(client);
    const { location } = settings;
    const presence = await BucketPresence.open({ location, read, clock }, expectIdentity);
    return new B2BlobStore(client, presence, options.readOnly === true);
  } catch (error) {
    client.close();
    throw error;
  }
}

class B2BlobStore implements BlobStore {
  /**
   * B2 has no put that fails where a name is taken: two versions are made. Its listing is of one sorted list of names for each
   * bucket (https://help.backblaze.com/hc/en-us/articles/218975607), and no delay is documented; what deletes looks for its own
   * stamp in it first.
   */
  readonly capabilities: BlobStoreCapabilities = { createOnly: false, consistentListing: true };
  readonly location: string;
  readonly #client: B2Client;
  readonly #presence: BucketPresence;
  readonly #readOnly: boolean;

  constructor(client: B2Client, presence: BucketPresence, readOnly: boolean) {
    this.#client = client;
    this.#presence = presence;
    this.#readOnly = readOnly;
    this.location = client.settings.location;
  }

  async put(name: string, bytes: Uint8Array, { mode, signal }: PutOptions): Promise<void> {
    checkBlobName(name);
    this.#requireWritable();
    signal?.throwIfAborted();
    await this.#presence.checkLately(signal);
    const isReplacing = mode === "replace";
    // Not atomic, and so `capabilities` say; but what is plainly there is not replaced.
    if (!isReplacing && (await this.#has(name, signal))) throw blobExists(this.location, name);
    try {
      await putFile(this.#client, this.#fileName(name), bytes, { isReplacing, signal });
    } catch (error) {
      signal?.throwIfAborted();
      throw this.#error(error, "putting", name);
    }
  }

  async get(name: string, { range, into, signal }: GetOptions = {}): Promise<Uint8Array> {
    checkBlobName(name);
    signal?.throwIfAborted();
    const { location } = this;
    try {
      return await this.#client.download(
        { method: "GET", fileName: this.#fileName(name), range, signal },
        (response) => {
          const sizeBytes = contentLength(response);
          if (range !== undefined && sizeBytes !== range.length) {
            response.destroy();
            return Promise.reject(this.#rangeWrong(name, range));
          }
          return readBody(response, sizeBytes, { location, name, into, signal });
        },
      );
    } catch (error) {
      signal?.throwIfAborted();
      if (isNoSuchFile(error)) throw await this.#presence.absent(name);
      const isBeyond = error instanceof B2Failure && error.status === 416;
      if (isBeyond && range !== undefined) throw this.#rangeWrong(name, range);
      throw this.#error(error, "getting", name);
    }
  }

  #rangeWrong(name: string, range: { readonly offset: number; readonly length: number }): Error {
    const problem = `ends before byte ${range.offset + range.length}`;
    return blobSizeWrong(this.location, name, problem);
  }

  async stat(name: string): Promise<BlobEntry> {
    checkBlobName(name);
    try {
      const sizeBytes = await sizeOfFile(this.#client, this.#fileName(name), undefined, true);
      return { name, sizeBytes };
    } catch (error) {
      if (isNoSuchFile(error)) throw await this.#presence.absent(name);
      throw this.#error(error, "looking at", name);
    }
  }

  async delete(names: readonly string[]): Promise<ReadonlyMap<string, Error>> {
    for (const name of names) checkBlobName(name);
    this.#requireWritable();
    const failures = new Map<string, Error>();
    const left = [...names];
    const work = async (): Promise<void> => {
      for (let name = left.pop(); name !== undefined; name = left.pop()) {
        try {
          await this.#presence.checkLately();
          await deleteFile(this.#client, this.#fileName(name));
        } catch (error) {
          failures.set(name, this.#error(error, "deleting", name) as Error);
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(DELETES_AT_ONCE, left.length) }, work));
    return failures;
  }

  async *list(prefix: string, { signal }: { signal?: AbortSignal } = {}): AsyncIterable<BlobEntry> {
    checkBlobPrefix(prefix);
    let start: string | null = null;
    do {
      signal?.throwIfAborted();
      const page = await this.#page(prefix, start, signal);
      for (const { fileName, contentLength: sizeBytes } of page.files) {
        signal?.throwIfAborted();
        const name = fileName.slice(this.#client.settings.prefix.length);
        // What others have put there is not ours.
        if (isBlobName(name) && name !== MARKER_NAME) yield { name, sizeBytes: sizeBytes ?? 0 };
      }
      start = page.nextFileName;
    } while (start !== null);
    // A bucket that was emptied, or is another one, would show nothing as well.
    await this.#presence.check();
  }

  async #page(prefix: string, start: string | null, signal: AbortSignal | undefined) {
    try {
      return await listNames(this.#client, this.#fileName(prefix), start, signal);
    } catch (error) {
      signal?.throwIfAborted();
      throw this.#error(error, "listing", prefix);
    }
  }

  check(): Promise<void> {
    return this.#presence.check();
  }

  close(): Promise<void> {
    this.#client.close();
    return Promise.resolve();
  }

  #fileName(name: string): string {
    return this.#client.settings.prefix + name;
  }

  async #has(name: string, signal: AbortSignal | undefined): Promise<boolean> {
    try {
      await sizeOfFile(this.#client, this.#fileName(name), signal, false);
      return true;
    } catch (error) {
      signal?.throwIfAborted();
      // Whoever says so: the put that follows finds out whether it is B2.
      if (error instanceof B2Failure && error.status === 404) return false;
      throw this.#error(error, "looking at", name);
    }
  }

  #requireWritable(): void {
    if (this.#readOnly) throw readOnlyError(this.location);
  }

  #error(error: unknown, doing: string, name: string): unknown {
    return b2Error(error, this.location, `${doing} ${name}`);
  }
}
