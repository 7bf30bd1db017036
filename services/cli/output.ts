// What a command prints. Results go to stdout; everything about the run goes to stderr. With --json, stdout has exactly
// one document and nothing else.
import { createRequire } from "node:module";
import type { Writable } from "node:stream";
import type TableConstructor from "cli-table3";
import { fromSystemError } from "#lib/core/errors.ts";

/** How much is printed, and in which form. */
export interface OutputOptions {
  readonly json: boolean;
  readonly quiet: boolean;
  readonly color: boolean;
}

/** Lines written at once: enough to make few system calls, little enough to show at once. */
const CHUNK_LINES = 500;

/** The printer of one command. */
export class Output {
  readonly options: OutputOptions;
  readonly #stdout: Writable;
  readonly #stderr: Writable;
  #closed = false;
  #failure: Error | undefined;
  #documents = 0;

  constructor(stdout: Writable, stderr: Writable, options: OutputOptions) {
    this.options = options;
    this.#stdout = stdout;
    this.#stderr = stderr;
    // A reader that has seen enough (`ashlar ls | head`) is no failure: the rest is not written, and nobody is told.
    stdout.on("error", (error: NodeJS.ErrnoException) => {
      this.#closed = true;
      if (error.code !== "EPIPE") this.#failure ??= error;
    });
    stderr.on("error", () => undefined);
  }

  /** Whether a JSON document was printed. */
  get hasDocument(): boolean {
    return this.#documents > 0;
  }

  /** Waits until everything is written; Io when it could not be: a full disk behind `ashlar ls > file`. */
  async finish(): Promise<void> {
    if (!this.#closed) {
      // The error comes to the listener as well, whatever the callback says.
      await new Promise<void>((resolve) => this.#stdout.write("", () => resolve()));
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
    if (this.#failure !== undefined) {
      throw fromSystemError(this.#failure, "writing to standard output");
    }
  }

  /** The command's result: `document` with --json, else the lines of `text`. Printed with --quiet as well. */
  result(document: unknown, text: () => Iterable<string>): void {
    if (this.options.json) {
      this.document(document);
      return;
    }
    let lines: string[] = [];
    for (const line of text()) {
      lines.push(line);
      if (lines.length < CHUNK_LINES) continue;
      this.write(`${lines.join("\n")}\n`);
      lines = [];
    }
    if (lines.length > 0) this.write(`${lines.join("\n")}\n`);
  }

  /** A JSON document; a command prints one. */
  document(document: unknown): void {
    this.#documents += 1;
    this.write(`${JSON.stringify(document, undefined, 2)}\n`);
  }

  /** A line that is good to know; not printed with --json or --quiet. */
  note(line: string): void {
    if (!this.options.json && !this.options.quiet) this.write(`${line}\n`);
  }

  /** A line for people on stderr, whatever the options. */
  stderrLine(line: string): void {
    this.#stderr.write(`${line}\n`);
  }

  /** Text as it is, to stdout. */
  write(text: string): void {
    if (!this.#closed) this.#stdout.write(text);
  }
}

/** A column of a table. */
export interface Column {
  readonly head: string;
  readonly align?: "left" | "right";
}

/** Lines of a table: a head and rows, without frames, so that they can be read and cut with ordinary tools. */
export function formatTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  color = false,
): string[] {
  // Loaded on use: most commands that scripts call print no table.
  const Table = createRequire(import.meta.url)("cli-table3") as typeof TableConstructor;
  const none = "";
  const table = new Table({
    head: columns.map((column) => column.head),
    colAligns: columns.map((column) => column.align ?? "left"),
    style: { head: color ? ["bold"] : [], border: [], "padding-left": 0, "padding-right": 0 },
    chars: {
      top: none,
      "top-mid": none,
      "top-left": none,
      "top-right": none,
      bottom: none,
      "bottom-mid": none,
      "bottom-left": none,
      "bottom-right": none,
      left: none,
      "left-mid": none,
      mid: none,
      "mid-mid": none,
      right: none,
      "right-mid": none,
      middle: "  ",
    },
  });
  for (const row of rows) table.push([...row]);
  return table
    .toString()
    .split("\n")
    .map((line) => line.trimEnd());
}

/** Rows of names and values, aligned. */
export function formatFields(
  fields: readonly (readonly [name: string, value: string])[],
): string[] {
  const width = Math.max(...fields.map(([name]) => name.length)) + 2;
  return fields.map(([name, value]) => `${`${name}:`.padEnd(width)}${value}`.trimEnd());
}
