/** `npm run bench -- cluster`: what it costs that the actors run apart. Writes docs/benchmarks-cluster.md. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { parseSize } from "#lib/core/size.ts";
import { natsMissing } from "#test/servers/nats-server.ts";
import { findAshlar } from "../ashlar.ts";
import { measureStartUp } from "../contender.ts";
import { DataSet } from "../data-set.ts";
import { runPrimitives } from "../limit-contender.ts";
import { describeMachine } from "../machine.ts";
import { ROOT } from "../options.ts";
import type { Primitives } from "../primitives.ts";
import { notesOf } from "../report.ts";
import { Workspace } from "../workspace.ts";
import { backupEmbedded, backupInCluster, measureTransport, type BackupRun } from "./backups.ts";
import { measureClaims } from "./claims.ts";
import { measureIdle } from "./idle.ts";
import { formatClusterReport, type ClusterParts, type Mode } from "./report.ts";

const USAGE = `npm run bench -- cluster [options]

Measures one host's backup through a writer elsewhere, through a local writer, and embedded; claims; idle agents.

  --size SIZE       of the image (default 4GiB); the report is written from 4GiB on
  --repeat N        repetitions (default 3; the median counts)
  --dir DIR         where temporary folders are made (default: the system's)
  --report FILE     write the report there, whatever the size
`;
const FULL_BYTES = 4 * 1024 ** 3;
/** Of what agents have backed up before; random, so that nothing of it is known later. */
const OTHER_BYTES = 512 * 1024 ** 2;
/** What a reader sends at once: a slot. */
const MESSAGE_BYTES = 4 * 1024 ** 2;

interface ClusterOptions {
  readonly imageBytes: number;
  readonly repeat: number;
  readonly report: string | undefined;
}

function parseClusterOptions(args: readonly string[]): ClusterOptions | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      size: { type: "string" },
      repeat: { type: "string", default: "3" },
      dir: { type: "string", default: tmpdir() },
      report: { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return undefined;
  const imageBytes = parseSize(values.size ?? String(FULL_BYTES), "--size");
  const repeat = Number(values.repeat);
  if (!Number.isInteger(repeat) || repeat < 1)
    throw new Error("--repeat: expected a number from 1 on");
  // Whatever makes temporary folders makes them there.
  process.env["TMPDIR"] = path.resolve(values.dir);
  const whole =
    imageBytes >= FULL_BYTES ? path.join(ROOT, "docs", "benchmarks-cluster.md") : undefined;
  const report = values.report === undefined ? whole : path.resolve(values.report);
  return { imageBytes, repeat, report };
}

async function measure(options: ClusterOptions, workspace: Workspace): Promise<ClusterParts> {
  const ashlar = await findAshlar(path.join(ROOT, "bin", "ashlar"));
  if (ashlar === undefined) throw new Error("ashlar does not run here");
  const startUp = await measureStartUp(ashlar, workspace);
  const image = await new DataSet(workspace, options.imageBytes, undefined).real();
  const other = await new DataSet(workspace, OTHER_BYTES, undefined).random();
  const { hash } = JSON.parse(await runPrimitives(image, "4MiB")) as Primitives;
  const modes: Readonly<Record<Mode, () => Promise<BackupRun>>> = {
    embedded: () => backupEmbedded(ashlar, startUp, workspace, image),
    local: () => backupInCluster("local", image, other),
    pooled: () => backupInCluster("pooled", image, other),
  };
  const runs: Record<Mode, BackupRun[]> = { embedded: [], local: [], pooled: [] };
  for (let round = 1; round <= options.repeat; round += 1) {
    for (const mode of ["embedded", "local", "pooled"] as const) {
      console.error(`${mode}, round ${round} …`);
      runs[mode].push(await modes[mode]());
    }
  }
  const newBytes = runs.pooled[0]?.newBytes ?? 0;
  console.error("bare transport, claims, idle agents …");
  const transport = await measureTransport(newBytes, MESSAGE_BYTES);
  const { figures, missing } = await measureClaims();
  return {
    machine: await describeMachine(),
    imageBytes: options.imageBytes,
    runs,
    transport,
    rehashSeconds: newBytes / 1e6 / hash,
    claims: figures,
    idle: await measureIdle(),
    fdbMissing: missing,
  };
}

/** Runs it; the exit code. */
export async function benchCluster(args: readonly string[]): Promise<number> {
  let options: ClusterOptions | undefined;
  try {
    options = parseClusterOptions(args);
  } catch (error) {
    console.error((error as Error).message);
    return 64;
  }
  if (options === undefined) {
    console.log(USAGE);
    return 0;
  }
  const missing = natsMissing();
  if (missing !== undefined) {
    console.error(missing);
    return 69;
  }
  const folder = process.env["TMPDIR"] ?? tmpdir();
  await mkdir(folder, { recursive: true });
  const workspace = await Workspace.create(folder);
  try {
    const parts = await measure(options, workspace);
    const earlier =
      options.report === undefined ? "" : await readFile(options.report, "utf8").catch(() => "");
    const text = formatClusterReport(parts, notesOf(earlier));
    console.log(text);
    if (options.report !== undefined) await writeFile(options.report, text);
    return 0;
  } finally {
    await workspace.close();
  }
}
