// Which driver a storage's URL means. Another kind of storage is another case here.
import { fileURLToPath } from "node:url";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { createFileBlobStore } from "#lib/drivers/file/create-file-storage.ts";
import { openFileBlobStore } from "#lib/drivers/file/file-blob-store.ts";
import { readMarker } from "#lib/drivers/file/storage-presence.ts";
import type { StorageMarker } from "#lib/drivers/storage-marker.ts";
import type { BlobStore } from "#lib/ports/blob-store.ts";
import type { Ports } from "#lib/repository/repository.ts";

/** What a storage says about itself, without opening it; Unavailable when nothing there says anything. */
export function peekStorage(url: string): Promise<StorageMarker> {
  return readMarker(pathOf(url));
}

/** Opens a storage of that identity; Refused when it is another one. */
export function openStorage(url: string, identity: StorageId, ports: Ports): Promise<BlobStore> {
  const { clock, random } = ports;
  return openFileBlobStore({ path: pathOf(url), expectIdentity: identity, clock, random });
}

/** Makes a storage in a new or empty place and opens it. */
export async function createStorage(
  url: string,
  names: { readonly identity: StorageId; readonly repository: string },
  ports: Ports,
): Promise<BlobStore> {
  const created = new Date(ports.clock.now()).toISOString();
  await createFileBlobStore({ path: pathOf(url), marker: { format: 1, ...names, created } });
  return openStorage(url, names.identity, ports);
}

function pathOf(url: string): string {
  if (url.startsWith("file:")) return fileURLToPath(url);
  throw new AshlarError(ErrorCode.Config, `there is no kind of storage for ${url}`, {
    remedy: "use a path, or file:///PATH",
  });
}
