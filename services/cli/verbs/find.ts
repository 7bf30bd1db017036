// ashlar find: what an object is, and which versions need it.
import type { Command } from "commander";
import { formatSize } from "#lib/core/size.ts";
import type { Copy } from "#lib/repository/block-record.ts";
import { findObject, type FoundHead, type FoundRecord } from "#services/coordinator/find-object.ts";
import { findBlastRadius } from "#services/writer/blast-radius.ts";
import type { Engine } from "../compose.ts";
import { formatFields, formatTable } from "../output.ts";
import type { Act } from "../program.ts";
import { formatDate } from "../version-document.ts";
import { withEngine } from "../with-engine.ts";

const HELP = `
The object is named as it is on a storage, as a path or in a bucket, or by the id of a block or node, or the
beginning of one, as \`ashlar scrub\` and \`ashlar fsck\` tell it. Offsets are told up to a number.

Examples:
  ashlar find blocks/3fa4…c1.0123456789abcdef
  ashlar find /mnt/nas/ashlar/blocks/3fa/3fa4…c1.0123456789abcdef
  ashlar find 3fa4e1 --json`;

/** Adds the verb. */
export function addFind(program: Command, act: Act): void {
  program
    .command("find")
    .summary("tell which versions need an object")
    .description(
      "Tells what an object of a storage is, where its copies are, and which versions need it.",
    )
    .argument("<object>", "name of an object, or id of a block or node")
    .addHelpText("after", HELP)
    .action(
      act(async (context, text: string) => {
        await withEngine(context, async (engine) => {
          const found = await findObject(engine.kv, text);
          if (found.type === "head") tellHead(engine, found);
          else await tellRecord(engine, found);
        });
      }),
    );
}

function tellHead({ context, nameOf }: Engine, { name, uid, at }: FoundHead): void {
  const storages = at.map(({ storage, head }) => ({
    storage: nameOf(storage),
    state: head.state,
    revision: head.revision,
    removed: head.removed,
  }));
  context.output.result({ type: "head", name, uid, storages }, () => [
    `a head of version ${uid}`,
    ...storages.map(
      ({ storage, state, revision, removed }) =>
        `${storage}: ${state}, revision ${revision}${removed ? ", which removes it" : ""}`,
    ),
  ]);
}

async function tellRecord(engine: Engine, found: FoundRecord): Promise<void> {
  const { context, kv, nameOf } = engine;
  const { type, id, record, generation } = found;
  const { versions, more } = await findBlastRadius(kv, id, type);
  const copies = record.copies.map((copy) => ({
    storage: nameOf(copy.storage),
    generation: copy.generation,
    state: stateOf(copy),
    verified: copy.state === "placed" ? formatDate(copy.verifiedMs) : null,
  }));
  const isNamed = generation === undefined || copies.some((copy) => copy.generation === generation);
  const { plainBytes, storedBytes, damaged } = record;
  const isCondemned = record.condemnedEpoch !== undefined;
  const document = { type, id, plainBytes, storedBytes, damaged, condemned: isCondemned };
  context.output.result({ ...document, named: isNamed, copies, versions, more }, () => [
    ...formatFields([
      [type, id],
      ["size", `${formatSize(plainBytes)}, stored ${formatSize(storedBytes)}`],
      ["damaged", damaged ? "yes" : "no"],
      ...(isNamed
        ? []
        : [["generation", `${generation} is not named any more`] satisfies [string, string]]),
      ...(isCondemned ? [["collection", "nothing refers to it"] satisfies [string, string]] : []),
    ]),
    "",
    ...formatTable(
      [{ head: "storage" }, { head: "generation" }, { head: "copy" }, { head: "verified" }],
      copies.map((copy) => [copy.storage, copy.generation, copy.state, copy.verified ?? ""]),
    ),
    "",
    ...(versions.length === 0 ? ["no version needs it"] : []),
    ...versions.map(
      ({ uid, offsets, length, more: hasMore }) =>
        `${uid} at offset ${offsets.join(", ")}${hasMore ? ", …" : ""} (${formatSize(length)} each)`,
    ),
    ...(more ? ["and more versions"] : []),
  ]);
}

const stateOf = (copy: Copy): string =>
  copy.state === "placed" ? (copy.leaving === true ? "leaving" : "good") : copy.state;
