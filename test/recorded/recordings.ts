// What is recorded: a folder for each release, with a file for each kind of message and the shapes of that release.
import { readdirSync, readFileSync, writeFileSync, mkdirSync } from "node:fs";
import path from "node:path";
import { AGENT, PRESENCE, PROGRESS, REPLY_SHAPES, REQUEST_SHAPES } from "#proto/message-shapes.ts";
import type { ShapeData } from "#proto/shape.ts";
import type { RecordedMessage } from "./recording-bus.ts";

const SHAPES = "shapes.json";

/** One release as it was recorded. */
export interface RecordedRelease {
  readonly release: string;
  readonly messages: ReadonlyMap<string, readonly RecordedMessage[]>;
  readonly shapes: Readonly<Record<string, ShapeData>>;
}

interface RecordedFile {
  readonly kind: string;
  readonly messages: readonly RecordedMessage[];
}

/** The shapes of today, by kind of message. */
export function shapesOfToday(): Record<string, ShapeData> {
  const named = (what: string, shapes: Readonly<Record<string, ShapeData>>) =>
    Object.fromEntries(Object.entries(shapes).map(([name, shape]) => [`${what} ${name}`, shape]));
  return {
    ...named("request", REQUEST_SHAPES),
    ...named("reply", REPLY_SHAPES),
    progress: PROGRESS,
    agent: AGENT,
    presence: PRESENCE,
  };
}

/** Reads all releases of a folder. */
export function readRecordings(folder: string): RecordedRelease[] {
  const releases = readdirSync(folder, { withFileTypes: true }).filter((each) =>
    each.isDirectory(),
  );
  return releases.map(({ name: release }) => {
    const read = (name: string): unknown =>
      JSON.parse(readFileSync(path.join(folder, release, name), "utf8"));
    const files = readdirSync(path.join(folder, release)).filter((name) => name !== SHAPES);
    return {
      release,
      messages: new Map(
        files.map((name) => {
          const { kind, messages } = read(name) as RecordedFile;
          return [kind, messages] as const;
        }),
      ),
      shapes: read(SHAPES) as Record<string, ShapeData>,
    };
  });
}

/**
 * Writes a release. What is recorded already is left as it is: processes of that release are out there.
 * @returns the names of the files that were written, and of those that were there
 */
export function writeRecording(
  folder: string,
  { release, messages, shapes }: RecordedRelease,
): { readonly written: readonly string[]; readonly kept: readonly string[] } {
  mkdirSync(path.join(folder, release), { recursive: true });
  const written: string[] = [];
  const kept: string[] = [];
  const write = (name: string, value: unknown): void => {
    try {
      const file = path.join(folder, release, name);
      writeFileSync(file, `${JSON.stringify(value, undefined, 2)}\n`, { flag: "wx" });
      written.push(name);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
      kept.push(name);
    }
  };
  for (const [kind, samples] of messages) {
    const file: RecordedFile = { kind, messages: samples };
    write(`${kind.replaceAll(" ", "-")}.json`, file);
  }
  write(SHAPES, shapes);
  return { written, kept };
}
