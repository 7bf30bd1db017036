// Key derivation, apart from keys.ts so that worker threads load no more than they use.
import { hkdfSync } from "node:crypto";

const KEY_BYTES = 32;
const NO_SALT = Buffer.alloc(0);

/** HKDF-SHA256 without salt. Distinct `info` strings give independent keys. */
export function deriveKey(
  key: Uint8Array,
  info: string | Uint8Array,
  lengthBytes: number = KEY_BYTES,
): Buffer {
  return Buffer.from(hkdfSync("sha256", key, NO_SALT, info, lengthBytes));
}
