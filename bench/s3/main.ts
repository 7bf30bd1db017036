/** `npm run bench -- s3`: what S3 storages cost. Writes docs/benchmarks-s3.md. */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import type { StorageId } from "#lib/core/ids.ts";
import { parseSize } from "#lib/core/size.ts";
import { createStorage } from "#lib/drivers/storages.ts";
import { S3Service } from "#test/fixtures/s3-service.ts";
import { rgwMissing } from "#test/servers/rgw.ts";
import { median } from "../contender.ts";
import { DataSet } from "../data-set.ts";
import { describeMachine } from "../machine.ts";
import { runMeasured, runPlain, type Measurement } from "../measured-run.ts";
import { ROOT } from "../options.ts";
import { machineTable, NOTES_HEADING, notesOf, table, targetTable } from "../report.ts";
import { asFactor, atMost, ratio, type Verdict } from "../scenario-result.ts";
import { settle, warmFile, Workspace } from "../workspace.ts";
import type { ObjectsFigures } from "./objects.ts";

const USAGE = `npm run bench -- s3 [options]

Measures backups to one and to two buckets, and puts and gets beside the bare SDK, at Ceph's object gateway on this machine.

  --size SIZE       of the image (default 1GiB); the report is written from 1GiB on
  --repeat N        repetitions (default 3; the median counts)
`;
const FULL_BYTES = 1024 ** 3;
const TWO_BUCKETS_MAX = 1.3;
const SDK_MAX = 1.1;
const PARALLEL = 8;
/** Objects of a put and get run, by their size. */
const OBJECTS: readonly (readonly [bytes: number, count: number, name: string])[] = [
  [4 * 1024 ** 2, 100, "4 MiB"],
  [64 * 1024, 1500, "64 KiB"],
];

interface Parts {
  readonly machine: ReadonlyMap<string, string>;
  readonly imageBytes: number;
  readonly backups: ReadonlyMap<number, readonly Measurement[]>;
  readonly objects: ReadonlyMap<
    string,
    Readonly<Record<"ashlar" | "sdk", readonly ObjectsFigures[]>>
  >;
}

async function backupTo(
  service: S3Service,
  workspace: Workspace,
  image: string,
  buckets: number,
): Promise<Measurement> {
  const program = path.join(ROOT, "bin", "ashlar");
  const repository = workspace.newPath(`buckets-${buckets}`);
  const storages: string[] = [];
  for (let index = 0; index < buckets; index += 1) {
    const { url } = await service.fresh({ preset: "rgw" });
    storages.push("--storage", `s${index}=${url}`);
  }
  await runPlain({ program, args: ["init", repository, ...storages, "--quorum", String(buckets)] });
  await warmFile(image);
  await settle();
  const run = await runMeasured({ program, args: ["--config", repository, "backup", image, "vm"] });
  await service.empty();
  return run;
}

async function measureObjects(
  service: S3Service,
  [bytes, count]: (typeof OBJECTS)[number],
  who: "ashlar" | "sdk",
): Promise<ObjectsFigures> {
  const { url } = await service.fresh({ preset: "rgw" });
  const identity = randomBytes(8).toString("hex") as StorageId;
  await createStorage(url, { format: 1, identity, repository: identity, created: "" });
  const program = path.join(import.meta.dirname, "objects.ts");
  const args = [program, who, url, String(count), String(bytes), String(PARALLEL)];
  const { stdout } = await runMeasured({ program: process.execPath, args });
  await service.empty();
  return JSON.parse(stdout) as ObjectsFigures;
}

async function measure(imageBytes: number, repeat: number, workspace: Workspace): Promise<Parts> {
  const image = await new DataSet(workspace, imageBytes, undefined).real();
  const service = await S3Service.start();
  try {
    const backups = new Map<number, Measurement[]>([
      [1, []],
      [2, []],
    ]);
    const objects = new Map(
      OBJECTS.map(([, , name]) => [
        name,
        { ashlar: [] as ObjectsFigures[], sdk: [] as ObjectsFigures[] },
      ]),
    );
    for (let round = 1; round <= repeat; round += 1) {
      console.error(`round ${round} …`);
      for (const [count, runs] of backups) {
        runs.push(await backupTo(service, workspace, image, count));
      }
      for (const kind of OBJECTS) {
        for (const who of ["sdk", "ashlar"] as const) {
          objects.get(kind[2])?.[who].push(await measureObjects(service, kind, who));
        }
      }
    }
    return { machine: await describeMachine(), imageBytes, backups, objects };
  } finally {
    await service.stop();
  }
}

function medianCpu(runs: readonly { readonly cpuSeconds: number }[] | undefined): number {
  return median((runs ?? []).map(({ cpuSeconds }) => cpuSeconds));
}

/** The targets, and what became of them. */
function judge({ backups, objects }: Parts): Verdict[] {
  const verdicts = [
    atMost(
      `two buckets: CPU at most ${TWO_BUCKETS_MAX} × that of one`,
      ratio(medianCpu(backups.get(2)), medianCpu(backups.get(1))),
      TWO_BUCKETS_MAX,
      asFactor,
    ),
  ];
  for (const [name, { ashlar, sdk }] of objects) {
    for (const way of ["put", "get"] as const) {
      verdicts.push(
        atMost(
          `${way} of ${name}: CPU at most ${SDK_MAX} × the bare SDK's`,
          ratio(
            medianCpu(ashlar.map((each) => each[way])),
            medianCpu(sdk.map((each) => each[way])),
          ),
          SDK_MAX,
          asFactor,
        ),
      );
    }
  }
  return verdicts;
}

function format(parts: Parts, notes: string): string {
  const { machine, imageBytes, backups, objects } = parts;
  const seconds = (value: number): string => value.toFixed(2);
  const backupRows = [...backups].map(([count, runs]) => [
    String(count),
    seconds(medianCpu(runs)),
    seconds(median(runs.map(({ wallSeconds }) => wallSeconds))),
    String(runs.length),
  ]);
  const objectRows = [...objects].flatMap(([name, by]) =>
    (["put", "get"] as const).flatMap((way) =>
      (["sdk", "ashlar"] as const).map((who) => {
        const figures = by[who].map((each) => each[way]);
        const wall = median(figures.map(({ wallSeconds }) => wallSeconds));
        return [name, way, who, seconds(medianCpu(figures)), seconds(wall)];
      }),
    ),
  );
  return [
    "# Benchmarks of S3 storages",
    "",
    "Written by `npm run bench -- s3`, except for the notes at the end. The service is Ceph's object gateway over one OSD in memory, on",
    "the same machine, which it shares with what is measured: so CPU counts, of Ashlar's own processes, and the time on the clock stands",
    "beside it. Medians.",
    "",
    ...machineTable(machine),
    "",
    "## Targets",
    "",
    ...targetTable(judge(parts)),
    "",
    "## Backups",
    "",
    `A full backup of ${(imageBytes / 1024 ** 3).toFixed(1)} GiB of real data, with start-up, to one bucket and to two at once.`,
    "",
    ...table(["buckets", "CPU s", "s", "runs"], backupRows),
    "",
    "## Puts and gets",
    "",
    `Objects of random bytes, ${PARALLEL} at once, by Ashlar's driver and by the SDK alone.`,
    "",
    ...table(["objects", "", "by", "CPU s", "s"], objectRows),
    "",
    NOTES_HEADING,
    notes === "" ? "" : `\n${notes.trim()}\n`,
  ].join("\n");
}

/** Runs it; the exit code. */
export async function benchS3(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      size: { type: "string" },
      repeat: { type: "string", default: "3" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  const missing = rgwMissing();
  if (values.help || missing !== undefined) {
    console.log(values.help ? USAGE : missing);
    return values.help ? 0 : 69;
  }
  const imageBytes = parseSize(values.size ?? String(FULL_BYTES), "--size");
  await mkdir(tmpdir(), { recursive: true });
  const workspace = await Workspace.create(tmpdir());
  try {
    const parts = await measure(imageBytes, Number(values.repeat), workspace);
    const report = path.join(ROOT, "docs", "benchmarks-s3.md");
    const earlier = await readFile(report, "utf8").catch(() => "");
    const text = format(parts, notesOf(earlier));
    console.log(text);
    if (imageBytes >= FULL_BYTES) await writeFile(report, text);
    return 0;
  } finally {
    await workspace.close();
  }
}
