// The text of a key file: made to be printed and typed in again, so it has no letters that look alike and check digits.
import { createHash, randomBytes } from "node:crypto";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { AccessSecret } from "./access-key.ts";

/** Only its owner may read a key file. */
export const KEY_FILE_MODE = 0o600;

const PREFIX = "ASHLAR-KEY-1:";
const KEY_BYTES = 32;
// Crockford's base32. 256 bits fill 51.2 digits; the last digit's low 4 bits are zero.
const DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
const BITS_PER_DIGIT = 5;
const KEY_DIGITS = 52;
// 20 bits: one typing mistake in a million goes unnoticed here (and is then refused as a wrong key).
const CHECK_DIGITS = 4;
const GROUP = /.{4}(?=.)/g;

/** Makes a new key and the text of its file. */
export function createKeyFile(): { readonly secret: AccessSecret; readonly text: string } {
  const key = randomBytes(KEY_BYTES);
  return { secret: { type: "keyfile", key }, text: formatKeyFile(key) };
}

/** The text of a key's file. */
export function formatKeyFile(key: Buffer): string {
  return [
    "# Ashlar key file. Whoever has it can read the backups; without it nobody can. Keep a copy off this machine.",
    `${PREFIX}${formatKeyDigits(key)}`,
    "",
  ].join("\n");
}

/** A key of 32 bytes as people can type it, with check digits. */
export function formatKeyDigits(key: Buffer): string {
  const digits = toDigits(key).slice(0, KEY_DIGITS) + checkDigits(key);
  return digits.replace(GROUP, "$&-");
}

/** Reads the text of a key file: comment lines start with #; case, blanks and dashes do not matter. */
export function parseKeyFile(text: string): AccessSecret {
  const line = onlyLine(text);
  if (line?.toUpperCase().startsWith(PREFIX) !== true) {
    throw notAKeyFile(`it must have one line that starts with ${PREFIX}`);
  }
  const key = parseKeyDigits(line.slice(PREFIX.length), notAKeyFile);
  return { type: "keyfile", key };
}

/** The one line of a text that is neither empty nor a comment; undefined where there are none or several. */
export function onlyLine(text: string): string | undefined {
  const lines = text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
  return lines.length === 1 ? lines[0] : undefined;
}

/** Reads what {@link formatKeyDigits} wrote; case, blanks and dashes do not matter. `wrong` makes the error of what is none. */
export function parseKeyDigits(text: string, wrong: (why: string) => AshlarError): Buffer {
  const digits = text
    .toUpperCase()
    .replaceAll(/[\s-]/g, "")
    .replaceAll("O", "0")
    .replaceAll(/[IL]/g, "1");
  if (digits.length !== KEY_DIGITS + CHECK_DIGITS) {
    throw wrong(`it has ${digits.length} digits instead of ${KEY_DIGITS + CHECK_DIGITS}`);
  }
  const key = fromDigits(digits.slice(0, KEY_DIGITS));
  if (key === undefined || checkDigits(key) !== digits.slice(KEY_DIGITS)) {
    throw wrong("its check digits do not fit: there is a typing mistake in it");
  }
  return key;
}

function notAKeyFile(why: string): AshlarError {
  // The text itself stays out of the message: it may be a secret.
  return new AshlarError(ErrorCode.Refused, `not a key file: ${why}`, {
    remedy: "Use the key file that `ashlar init` made, or a copy of it.",
  });
}

function checkDigits(key: Buffer): string {
  const digest = createHash("sha256").update("ashlar key file").update(key).digest();
  return toDigits(digest).slice(0, CHECK_DIGITS);
}

function toDigits(bytes: Buffer): string {
  let bits = BigInt(`0x${bytes.toString("hex")}`);
  const count = Math.ceil((bytes.length * 8) / BITS_PER_DIGIT);
  bits <<= BigInt(count * BITS_PER_DIGIT - bytes.length * 8);
  let out = "";
  for (let index = 0; index < count; index += 1) {
    out = `${DIGITS[Number(bits & 31n)]}${out}`;
    bits >>= BigInt(BITS_PER_DIGIT);
  }
  return out;
}

function fromDigits(digits: string): Buffer | undefined {
  let bits = 0n;
  for (const digit of digits) {
    const value = DIGITS.indexOf(digit);
    if (value < 0) return undefined;
    bits = (bits << BigInt(BITS_PER_DIGIT)) | BigInt(value);
  }
  const spare = BigInt(digits.length * BITS_PER_DIGIT - KEY_BYTES * 8);
  if ((bits & ((1n << spare) - 1n)) !== 0n) return undefined;
  return Buffer.from((bits >> spare).toString(16).padStart(KEY_BYTES * 2, "0"), "hex");
}
