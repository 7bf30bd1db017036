// ashlar diff: what differs between two versions.
import type { Command } from "commander";
import { formatSize } from "#lib/core/size.ts";
import { diffVersions, type ChangedExtent } from "#services/coordinator/diff.ts";
import { resolveVersion } from "#services/coordinator/listing.ts";
import { requireVersion } from "#lib/repository/transactions/version.ts";
import { formatTable } from "../output.ts";
import type { Act } from "../program.ts";
import { withEngine } from "../with-engine.ts";

const HELP = `
Only the parts of the two trees that differ are read, so the cost is that of the difference. The extents
of --json have the form of \`rbd diff\`: they can be used as hints.

Examples:
  ashlar diff web-x3k2p9 web@latest
  ashlar diff --json web-x3k2p9 web@latest`;

/** Adds the verb. */
export function addDiff(program: Command, act: Act): void {
  program
    .command("diff")
    .summary("list what differs between two versions")
    .description("Lists the extents in which the second version differs from the first.")
    .argument("<from>", "version")
    .argument("<to>", "version")
    .addHelpText("after", HELP)
    .action(
      act(async (context, fromText: string, toText: string) => {
        await withEngine(context, async ({ kv }) => {
          const [from, to] = await Promise.all(
            [fromText, toText].map(async (text) => {
              const uid = await resolveVersion(kv, text);
              return kv.read((reader) => requireVersion(reader, uid));
            }),
          );
          if (from === undefined || to === undefined) return;
          const extents: ChangedExtent[] = [];
          for await (const extent of diffVersions(kv, from, to, context.signal))
            extents.push(extent);
          const changedBytes = extents.reduce((sum, { length }) => sum + length, 0);
          const document = {
            from: { uid: from.uid, sizeBytes: from.sizeBytes },
            to: { uid: to.uid, sizeBytes: to.sizeBytes },
            blockBytes: to.blockBytes,
            changedBytes,
            extents,
          };
          context.output.result(document, () => [
            ...(extents.length === 0 ? [] : table(extents)),
            ...(from.sizeBytes === to.sizeBytes
              ? []
              : [`size: ${from.sizeBytes} bytes, then ${to.sizeBytes} bytes`]),
            `${formatSize(changedBytes)} in ${extents.length} ${extents.length === 1 ? "extent differs" : "extents differ"}`,
          ]);
        });
      }),
    );
}

function table(extents: readonly ChangedExtent[]): string[] {
  return formatTable(
    [{ head: "offset", align: "right" }, { head: "length", align: "right" }, { head: "now" }],
    extents.map(({ offset, length, exists }) => [
      String(offset),
      String(length),
      exists ? "data" : "zero",
    ]),
  );
}
