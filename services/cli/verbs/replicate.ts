// ashlar replicate: gives storages what they are owed.
import type { Command } from "commander";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { VersionUid } from "#lib/core/ids.ts";
import { formatSize } from "#lib/core/size.ts";
import { listPlacedVersions } from "#services/coordinator/listing.ts";
import type { Engine } from "../compose.ts";
import { collect } from "../option-values.ts";
import { formatTable } from "../output.ts";
import { prepareChange, putHeadsNow } from "../owed-heads.ts";
import type { Act } from "../program.ts";
import { startCounter } from "../progress-bar.ts";
import { resolveVersions } from "../selection.ts";
import { withEngine } from "../with-engine.ts";

interface ReplicateOptions {
  readonly storage?: string[];
  readonly to?: string;
  readonly leave?: string;
  readonly all?: boolean;
}

interface ReplicateOutcome {
  readonly name: string;
  readonly copied: number;
  readonly bytes: number;
  readonly owed: number;
  readonly headsOwed: number;
  readonly reason: string | undefined;
}

const HELP = `
What a storage could not take while it was away, or was added later, is copied from another storage, never
from the source, and verified on the way. Every backup does this for its own storages at its end.

With --to, versions that were made for other storages go to this one, too, from now on. With --leave they leave
a storage, once enough of their others have them whole: what no version needs there any more the next
\`ashlar gc\` deletes. Both together move versions. It can be stopped and given again.

Examples:
  ashlar replicate
  ashlar replicate --storage offsite
  ashlar replicate --to offsite web-x3k2p9 db@latest
  ashlar replicate --to offsite --all
  ashlar replicate --to offsite --leave nas 'web@latest'`;

/** Adds the verb. */
export function addReplicate(program: Command, act: Act): void {
  program
    .command("replicate")
    .summary("give storages what they are owed")
    .description(
      "Copies to storages what they are owed, from the others, and puts the heads that wait for it.",
    )
    .argument("[uids...]", "versions, with --to or --leave")
    .option("--storage <name>", "only this storage (repeatable)", collect)
    .option("--to <name>", "make versions go to this storage, too")
    .option("--leave <name>", "make versions leave this storage")
    .option("--all", "all versions, with --to or --leave")
    .addHelpText("after", HELP)
    .action(
      act(async (context, references: string[], options: ReplicateOptions) => {
        checkOptions(references, options);
        await withEngine(context, async (engine) => {
          const startMs = engine.ports.clock.now();
          if (options.to !== undefined) await widen(engine, references, options.to);
          const outcomes = await fillAll(
            engine,
            options.to !== undefined
              ? [options.to]
              : options.leave !== undefined
                ? []
                : options.storage,
          );
          // The storages that had these versions before are told of the one more.
          if (options.to !== undefined) await putHeadsNow(engine);
          if (options.leave !== undefined) await leave(engine, references, options.leave, startMs);
          report(engine, outcomes);
        });
      }),
    );
}

/** Fills storages, one after the other; all unless named. */
async function fillAll(
  engine: Engine,
  wanted: readonly string[] | undefined,
): Promise<ReplicateOutcome[]> {
  const { upkeep, repo } = await engine.coordinator();
  const { context } = engine;
  const names = wanted ?? repo.storages.list().map(({ name }) => name);
  const outcomes: ReplicateOutcome[] = [];
  const counter = startCounter(context, "copying");
  try {
    for (const name of names) {
      const { id } = repo.storages.byName(name);
      const filled = await upkeep.fill(id, { signal: context.signal, onProgress: counter.show });
      const [heads] = await upkeep.putHeads({ storage: id }, { signal: context.signal });
      outcomes.push({
        name,
        copied: filled.filled,
        bytes: filled.bytes,
        owed: filled.owed,
        headsOwed: heads?.owed ?? 0,
        reason: filled.reason ?? heads?.reason,
      });
    }
  } finally {
    counter.stop();
  }
  return outcomes;
}

function report({ context }: Engine, outcomes: readonly ReplicateOutcome[]): void {
  context.output.result({ storages: outcomes }, () =>
    formatTable(
      [
        { head: "storage" },
        { head: "copied", align: "right" },
        { head: "bytes", align: "right" },
        { head: "still owed", align: "right" },
        { head: "heads owed", align: "right" },
        { head: "" },
      ],
      outcomes.map((each) => [
        each.name,
        String(each.copied),
        formatSize(each.bytes),
        String(each.owed),
        String(each.headsOwed),
        each.reason ?? "",
      ]),
    ),
  );
  const behind = outcomes.filter(({ owed, headsOwed }) => owed + headsOwed > 0);
  if (behind.length === 0) return;
  throw new AshlarError(
    ErrorCode.Unavailable,
    `still owed: ${behind.map(({ name, reason }) => `${name} (${reason ?? "later"})`).join(", ")}`,
    { remedy: "give the command again when the storages are there" },
  );
}

function checkOptions(references: readonly string[], options: ReplicateOptions): void {
  const isAll = options.all === true;
  const names = options.to !== undefined || options.leave !== undefined;
  const problem = !names
    ? references.length > 0 || isAll
      ? "versions and --all need --to or --leave"
      : undefined
    : options.storage !== undefined
      ? "--storage excludes --to and --leave"
      : options.to === options.leave
        ? "--to and --leave name the same storage"
        : references.length > 0 === isAll
          ? "--to and --leave need versions, or --all"
          : undefined;
  if (problem === undefined) return;
  throw new AshlarError(ErrorCode.Usage, problem, { remedy: "see `ashlar help replicate`" });
}

/** All of them or those that are named, but for those that are being made. */
async function widen(engine: Engine, references: readonly string[], to: string): Promise<void> {
  const { addToPolicies, knownStorage } = await import("../storage-state.ts");
  const id = knownStorage(engine, to);
  const { set } = await engine.storages();
  if (!set.list().some((storage) => storage.id === id && storage.name === to)) set.byName(to);
  await prepareChange(engine);
  const uids = await chosen(engine, references);
  const count = await addToPolicies(engine, uids, id, references.length === 0);
  engine.context.output.note(`${count} of ${uids.length} versions go to ${to}, too, from now on`);
}

async function chosen(engine: Engine, references: readonly string[]): Promise<VersionUid[]> {
  if (references.length > 0) return resolveVersions(engine.kv, references);
  // What is damaged cannot be copied: each later `replicate` would fail by it.
  const valid = await listPlacedVersions(engine.kv, ({ state }) => state === "valid");
  return valid.map(({ version }) => version.uid);
}

/** Those that cannot leave are told, and stay. */
async function leave(
  engine: Engine,
  references: readonly string[],
  from: string,
  sinceMs: number,
): Promise<void> {
  const { knownStorage } = await import("../storage-state.ts");
  const { leavePolicies, verifyOthers } = await import("../leave-storage.ts");
  const { output } = engine.context;
  await prepareChange(engine);
  const uids = await chosen(engine, references);
  const storage = knownStorage(engine, from);
  const verified = await verifyOthers(engine, uids, storage, sinceMs);
  const { count, kept } = await leavePolicies(engine, uids, storage, verified);
  await putHeadsNow(engine);
  output.note(`${count} of ${uids.length} versions are not to be at ${from} any more`);
  const [first] = kept;
  if (first === undefined) return;
  for (const { uid, reason } of kept) output.note(`${uid} stays at ${from}: ${reason}`);
  throw new AshlarError(ErrorCode.Unavailable, `${kept.length} versions stay at ${from}`, {
    remedy: first.reason,
  });
}
