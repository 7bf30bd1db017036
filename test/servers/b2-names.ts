// Names of files as B2 has them: https://www.backblaze.com/docs/cloud-storage-files says which there may be,
// https://www.backblaze.com/docs/cloud-storage-native-api-string-encoding how they are written in headers and paths.

/** These may stand for themselves; everything else is written `%20`. */
const UNENCODED = /[-A-Za-z0-9._~/]/;

/** Throws where nothing can be called so. */
export function checkFileName(name: string): void {
  const sizeBytes = Buffer.byteLength(name);
  const isLong = sizeBytes > 1024 || name.split("/").some((part) => Buffer.byteLength(part) > 250);
  // oxlint-disable-next-line no-control-regex -- exactly those are forbidden
  const hasControls = /[\u0000-\u001f\u007f]/.test(name);
  const hasSlashes = name.startsWith("/") || name.endsWith("/") || name.includes("//");
  if (sizeBytes === 0 || isLong || hasControls || hasSlashes || name.includes("\\")) {
    throw new Error(`not the name of a file: ${JSON.stringify(name)}`);
  }
}

/** The one way that is taken here to write a name; the service takes others as well. */
export function encodeFileName(name: string): string {
  return Array.from(Buffer.from(name, "utf8"), (byte) => {
    const character = String.fromCharCode(byte);
    const hex = byte.toString(16).toUpperCase().padStart(2, "0");
    return UNENCODED.test(character) ? character : `%${hex}`;
  }).join("");
}
