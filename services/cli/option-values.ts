// Values of options, as commander reads them.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { parseSize } from "#lib/core/size.ts";

/** For options that may be given several times. */
export function collect(value: string, previous: string[] | undefined): string[] {
  return [...(previous ?? []), value];
}

/** A whole number from 1. */
export function parseCount(text: string): number {
  const count = Number(text);
  if (/^[0-9]{1,9}$/.test(text) && count >= 1) return count;
  throw new AshlarError(ErrorCode.Usage, `${JSON.stringify(text)} is no whole number from 1`);
}

/** `OFFSET:LENGTH`, both as sizes. */
export function parseRange(text: string): { readonly offset: number; readonly length: number } {
  const [offset, length, ...rest] = text.split(":");
  if (offset === undefined || length === undefined || rest.length > 0) {
    throw new AshlarError(
      ErrorCode.Usage,
      `range ${JSON.stringify(text)}: expected OFFSET:LENGTH, such as 0:1MiB or 4GiB:512MiB`,
    );
  }
  return {
    offset: parseSize(offset, "offset of the range"),
    length: parseSize(length, "length of the range"),
  };
}
