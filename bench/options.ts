/** What the benchmark is told on its command line. */
import { existsSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { parseSize } from "#lib/core/size.ts";

export const SCENARIO_COUNT = 8;
/** The size that the targets are about. */
export const FULL_IMAGE_BYTES = 8 * 1024 ** 3;
const QUICK_IMAGE_BYTES = 512 * 1024 ** 2;

export const USAGE = `npm run bench -- [options]
npm run bench -- cluster [options]        what it costs that the actors run apart; --help tells more
npm run bench -- s3 [options]             what S3 storages cost; --help tells more

Measures Ashlar beside the machine's own limit, restic and borg, and writes docs/benchmarks.md.

  --scenario N      only this one (repeatable): 1 full backup of real data, 2 of random data,
                    3 unchanged, 4 one percent changed with hints, 5 sparse 16 TiB, 6 restore,
                    7 scrub --deep, 8 blocks of 64 KiB
  --size SIZE       of the images (default 8GiB); the report is written from 8GiB on
  --quick           images of 512 MiB, one repetition: to see that everything works
  --repeat N        repetitions of what takes less than 30 s (default 3; the median counts)
  --contender NAME  only limit, ashlar, restic, borg (repeatable)
  --dir DIR         where the temporary folder is made (default: the system's)
  --keep-data DIR   keep the images there, and use them again the next time
  --ashlar PATH     the program to measure (default bin/ashlar)
  --report FILE     write the report there, whatever was run
  --sparse-on KIND  tmpfs or xfs, for scenario 5 (default: what works without root, then tmpfs)
`;

/** The options, checked and with their defaults. */
export interface BenchOptions {
  readonly scenarios: readonly number[];
  readonly imageBytes: number;
  readonly repeat: number;
  readonly contenders: readonly string[];
  readonly directory: string;
  readonly keepData: string | undefined;
  readonly ashlar: string;
  readonly report: string | undefined;
  readonly sparseOn: "tmpfs" | "xfs" | undefined;
  readonly isWhole: boolean;
}

export const ROOT: string = path.resolve(import.meta.dirname, "..");
const CONTENDER_NAMES = ["limit", "ashlar", "restic", "borg"];

function count(text: string, what: string, max: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > max)
    throw new Error(`${what}: expected a number from 1 to ${max}, found ${JSON.stringify(text)}`);
  return value;
}

function checkSparseOn(text: string | undefined): "tmpfs" | "xfs" | undefined {
  if (text === undefined || text === "tmpfs" || text === "xfs") return text;
  throw new Error(`--sparse-on: expected tmpfs or xfs, found ${JSON.stringify(text)}`);
}

/** Reads the arguments; undefined when help is asked for. */
export function parseOptions(args: readonly string[]): BenchOptions | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      scenario: { type: "string", multiple: true },
      size: { type: "string" },
      quick: { type: "boolean", default: false },
      repeat: { type: "string" },
      contender: { type: "string", multiple: true },
      dir: { type: "string", default: tmpdir() },
      "keep-data": { type: "string" },
      ashlar: { type: "string", default: path.join(ROOT, "bin", "ashlar") },
      report: { type: "string" },
      "sparse-on": { type: "string" },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return undefined;
  const contenders = values.contender ?? CONTENDER_NAMES;
  const unknown = contenders.find((name) => !CONTENDER_NAMES.includes(name));
  if (unknown !== undefined)
    throw new Error(`--contender: expected ${CONTENDER_NAMES.join(", ")}, found ${unknown}`);
  const scenarios = values.scenario?.map((text) => count(text, "--scenario", SCENARIO_COUNT));
  const imageBytes = parseSize(
    values.size ?? String(values.quick ? QUICK_IMAGE_BYTES : FULL_IMAGE_BYTES),
    "--size",
  );
  if (imageBytes < 64 * 1024 ** 2) throw new Error("--size: at least 64MiB");
  return {
    scenarios: scenarios ?? Array.from({ length: SCENARIO_COUNT }, (_, index) => index + 1),
    imageBytes,
    repeat: count(values.repeat ?? (values.quick ? "1" : "3"), "--repeat", 100),
    contenders,
    directory: path.resolve(values.dir),
    keepData: values["keep-data"] === undefined ? undefined : path.resolve(values["keep-data"]),
    ashlar: path.resolve(values.ashlar),
    report: values.report === undefined ? undefined : path.resolve(values.report),
    sparseOn: checkSparseOn(values["sparse-on"]),
    isWhole:
      scenarios === undefined &&
      values.contender === undefined &&
      imageBytes >= FULL_IMAGE_BYTES &&
      existsSync(path.resolve(values.ashlar)),
  };
}
