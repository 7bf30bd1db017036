// The text of a dedup key file: all that an agent needs of the repository's keys. Whoever has it can ask whether a content that
// he can guess was backed up; he can read and delete nothing.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { formatKeyDigits, onlyLine, parseKeyDigits } from "./key-file.ts";
import type { HashKeys } from "./keys.ts";

const LINE = /^ASHLAR-DEDUP-KEY-1:(blake3|hmac-sha256):(.*)$/i;

/** The text of a dedup key's file. */
export function formatDedupKeyFile({ hash, dedupKey }: HashKeys): string {
  return [
    "# Ashlar dedup key, for agents: it names contents, and opens nothing. Keep it from others all the same.",
    `ASHLAR-DEDUP-KEY-1:${hash}:${formatKeyDigits(Buffer.from(dedupKey))}`,
    "",
  ].join("\n");
}

/** Reads the text of a dedup key file: comment lines start with #. Refused where it is none. */
export function parseDedupKeyFile(text: string): HashKeys {
  const match = LINE.exec(onlyLine(text) ?? "");
  const [, hash = "", digits = ""] = match ?? [];
  if (match === null) {
    throw notADedupKeyFile("it must have one line that starts with ASHLAR-DEDUP-KEY-1:");
  }
  return {
    hash: hash.toLowerCase() === "blake3" ? "blake3" : "hmac-sha256",
    dedupKey: parseKeyDigits(digits, notADedupKeyFile),
  };
}

function notADedupKeyFile(why: string): AshlarError {
  return new AshlarError(ErrorCode.Refused, `not a dedup key file: ${why}`, {
    remedy: "Use the file that `ashlar key dedup` wrote, or a copy of it.",
  });
}
