// Sets values in a configuration, and leaves its comments and everything else as they are.
import { readFile, rename, writeFile } from "node:fs/promises";
import { parseDocument } from "yaml";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";

/** A value and where it stands, as in `["nats", "servers"]`. */
export type Setting = readonly [at: readonly string[], value: unknown];

/** Reads a configuration and writes it, with the settings, to `to`. */
export async function editYaml(
  from: string,
  settings: readonly Setting[],
  to = from,
): Promise<void> {
  const document = parseDocument(await readFile(from, "utf8"));
  const [wrong] = document.errors;
  if (wrong !== undefined) throw new AshlarError(ErrorCode.Config, `${from}: ${wrong.message}`);
  for (const [at, value] of settings) {
    const [section] = at;
    // A section with nothing but comments in it has no value to set anything in.
    const isEmpty = (document.get(section) ?? undefined) === undefined;
    if (at.length > 1 && isEmpty) document.set(section, document.createNode({}));
    document.setIn(at, value);
  }
  await writeFile(`${to}.new`, document.toString({ lineWidth: 0 }), { mode: 0o600 });
  await rename(`${to}.new`, to);
}
