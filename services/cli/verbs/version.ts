// ashlar version: which Ashlar this is, and which formats it speaks.
import { readFileSync } from "node:fs";
import type { Command } from "commander";
import { METADATA_SCHEMA } from "#lib/repository/records.ts";
import { HEAD_FORMAT } from "#proto/head.ts";
import { KEY_OBJECT_FORMAT_MAX } from "#proto/key-object.ts";
import { MESSAGE_VERSION } from "#proto/messages.ts";
import { STAMP_FORMAT } from "#proto/stamp.ts";
import { formatFields } from "../output.ts";
import type { Act } from "../program.ts";

const HELP = `
Examples:
  ashlar version
  ashlar version --json`;

/** The version in package.json: of the checkout, or of the installed package. */
export function programVersion(): string {
  const manifest = new URL("../../../package.json", import.meta.url);
  return (JSON.parse(readFileSync(manifest, "utf8")) as { readonly version: string }).version;
}

/** Adds the verb. */
export function addVersion(program: Command, act: Act): void {
  program
    .command("version")
    .summary("show the version")
    .description("Shows the version of Ashlar and of the formats that it writes.")
    .addHelpText("after", HELP)
    .action(
      act((context) => {
        const document = {
          version: programVersion(),
          node: process.version,
          formats: {
            metadata: METADATA_SCHEMA,
            head: HEAD_FORMAT,
            stamp: STAMP_FORMAT,
            keys: KEY_OBJECT_FORMAT_MAX,
            messages: MESSAGE_VERSION,
          },
        };
        context.output.result(document, () =>
          formatFields([
            ["ashlar", document.version],
            ["node", document.node],
            ...Object.entries(document.formats).map(
              ([name, value]) => [`${name} format`, String(value)] satisfies [string, string],
            ),
          ]),
        );
        return Promise.resolve();
      }),
    );
}
