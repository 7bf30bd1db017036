/**
 * The rules of the house that no linter knows: which layer may import which, budgets, names, docstrings.
 * It reads the sources as text. The formatter has been over them, so lines and indentation can be
 * trusted, and `npm run lint` looks at the syntax tree for everything that needs one.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, it } from "node:test";

/** Text of every source file by its path from the root, with forward slashes. */
type Sources = ReadonlyMap<string, string>;

interface Reference {
  readonly specifier: string;
  /** Path from the root, or undefined for a package and for what cannot be resolved. */
  readonly target: string | undefined;
}

const ROOT = path.resolve(import.meta.dirname, "..");
const FOLDERS = ["proto", "lib", "services", "test", "infra", "bench"] as const;

const FILE_LINES_MAX = 400;
const FUNCTION_LINES_MAX = 70;

/**
 * Files over the budget with their number of lines now, and functions ("file#name") likewise. A number may
 * only go down, and an entry goes away when it is no longer needed. A function listed here carries an
 * `oxlint-disable-next-line max-lines-per-function` comment that says why it is long.
 */
const FILE_RATCHET: Readonly<Record<string, number>> = {};
const FUNCTION_RATCHET: Readonly<Record<string, number>> = {};

/** What a layer may import beside itself. */
const LAYERS: Readonly<Record<string, readonly string[]>> = {
  proto: [],
  "lib/core": [],
  "lib/ports": ["lib/core"],
  "lib/repository": ["lib/core", "lib/ports", "proto"],
  "lib/drivers": ["lib/core", "lib/ports", "proto"],
  "lib/actor": ["lib/core", "lib/ports", "proto"],
  // What every process has in common: it composes, so it may know the drivers.
  "lib/process": ["lib/core", "lib/ports", "lib/repository", "lib/drivers", "lib/actor", "proto"],
  services: ["lib/core", "lib/ports", "lib/repository", "lib/actor", "proto"],
};

/** Words that say nothing about what is inside. */
const EMPTY_NAMES = new Set(["util", "utils", "helper", "helpers", "common", "misc", "types"]);

const IMPORT_PATTERNS = [
  // import a, { b } from "x"; import * as c from "x"; export { d } from "x"; export type * from "x"
  /^(?:import|export)\s+(?:type\s+)?(?:[\w$]+\s*,\s*)?(?:[\w$]+|\{[^}]*\}|\*(?:\s+as\s+[\w$]+)?)\s+from\s+"([^"]+)"/gm,
  /^import\s+"([^"]+)"/gm,
  /\bimport\(\s*"([^"]+)"/g,
];

function readSources(): Sources {
  const sources = new Map<string, string>();
  for (const folder of FOLDERS.filter((name) => existsSync(path.join(ROOT, name)))) {
    for (const entry of readdirSync(path.join(ROOT, folder), {
      recursive: true,
      withFileTypes: true,
    })) {
      if (!entry.isFile() || !entry.name.endsWith(".ts")) continue;
      const absolute = path.join(entry.parentPath, entry.name);
      const file = path.relative(ROOT, absolute).split(path.sep).join("/");
      sources.set(file, readFileSync(absolute, "utf8"));
    }
  }
  return sources;
}

function isTest(file: string): boolean {
  return file.startsWith("test/") || file.endsWith(".test.ts");
}

function isTable(file: string): boolean {
  return file.split("/").includes("golden");
}

function withoutComments(text: string): string {
  return text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
}

/** The file that a specifier names, whether or not it exists; undefined for packages. */
function targetOf(file: string, specifier: string): string | undefined {
  if (specifier.startsWith("#")) return specifier.slice(1);
  if (!specifier.startsWith(".")) return undefined;
  return path.posix.normalize(path.posix.join(path.posix.dirname(file), specifier));
}

function referencesOf(file: string, text: string): Reference[] {
  const code = withoutComments(text);
  return IMPORT_PATTERNS.flatMap((pattern) =>
    [...code.matchAll(pattern)].map(([, specifier = ""]) => {
      return { specifier, target: targetOf(file, specifier) };
    }),
  );
}

function layerOf(file: string): string {
  const [first = "", second = ""] = file.split("/");
  return first === "lib" || first === "services" ? `${first}/${second}` : first;
}

function mayImport(file: string, target: string): boolean {
  if (isTest(file) || file.startsWith("bench/")) return true;
  const from = layerOf(file);
  const to = layerOf(target);
  if (from === to) return true;
  if (isTest(target) || to === "bench" || to === "infra") return false;
  if (from === "infra") return true;
  if (
    from === "services/cli" &&
    (to.startsWith("services/") || to === "lib/drivers" || to === "lib/process")
  )
    return true;
  // An entry point composes. That of a role is the command line's verb `agent` with its role.
  if (
    (to === "lib/drivers" || to === "lib/process" || to === "services/cli") &&
    /^services\/[^/]+\/main\.ts$/.test(file)
  )
    return true;
  const allowed = from.startsWith("services/") ? LAYERS["services"] : LAYERS[from];
  return allowed?.includes(to) ?? false;
}

function layerProblems(sources: Sources): string[] {
  const problems: string[] = [];
  for (const [file, text] of sources) {
    const layer = layerOf(file);
    if (layer.startsWith("lib/") && LAYERS[layer] === undefined)
      problems.push(`${file}: lib has no layer of this name`);
    for (const { target } of referencesOf(file, text)) {
      if (target !== undefined && !mayImport(file, target))
        problems.push(`${file}: ${layer} must not import ${target}`);
    }
  }
  return problems;
}

function resolutionProblems(sources: Sources): string[] {
  const problems: string[] = [];
  for (const [file, text] of sources) {
    for (const { specifier, target } of referencesOf(file, text)) {
      if (target !== undefined && !sources.has(target))
        problems.push(`${file}: "${specifier}" names no source file`);
    }
  }
  return problems;
}

/** A worker's entry file is named in a URL, often without its extension, which differs when compiled. */
function isNamedInText(file: string, sources: Sources): boolean {
  const stem = path.posix.basename(file, ".ts");
  const pattern = new RegExp(`["'\`/]${RegExp.escape(stem)}(?:\\.ts|\\$\\{|["'\`])`);
  return [...sources].some(([other, text]) => other !== file && pattern.test(text));
}

function deadFileProblems(sources: Sources): string[] {
  const live = new Set<string>();
  for (const [file, text] of sources) {
    for (const { target } of referencesOf(file, text)) if (target !== undefined) live.add(target);
  }
  const isEntry = (file: string) => /(?:\.test|\/main)\.ts$|^(?:infra|bench)\/[^/]+$/.test(file);
  return [...sources.keys()]
    .filter((file) => !isEntry(file) && !live.has(file) && !isNamedInText(file, sources))
    .map((file) => `${file}: nothing imports it`);
}

function nameProblems(files: Iterable<string>): string[] {
  const problems: string[] = [];
  for (const file of files) {
    const segments = file.replace(/(?:\.test)?\.ts$/, "").split("/");
    const empty = segments.find((segment) => EMPTY_NAMES.has(segment));
    if (empty !== undefined) problems.push(`${file}: "${empty}" says nothing about what is inside`);
    const odd = segments.find((segment) => !/^[a-z0-9]+(?:-[a-z0-9]+)*$/.test(segment));
    if (odd !== undefined) problems.push(`${file}: "${odd}" is not in kebab-case`);
  }
  return problems;
}

function ratchetProblems(
  what: string,
  sizes: ReadonlyMap<string, number>,
  limit: number,
  ratchet: Readonly<Record<string, number>>,
): string[] {
  const problems: string[] = [];
  for (const [name, lines] of sizes) {
    const allowed = ratchet[name] ?? limit;
    if (lines > allowed)
      problems.push(`${name}: ${what} has ${lines} lines, allowed are ${allowed}`);
  }
  for (const [name, listed] of Object.entries(ratchet)) {
    const lines = sizes.get(name) ?? 0;
    if (lines <= limit) problems.push(`${name}: within the limit, take it off the ratchet`);
    else if (lines < listed) problems.push(`${name}: lower the ratchet from ${listed} to ${lines}`);
  }
  return problems;
}

function lineCount(text: string): number {
  return text.split("\n").length - (text.endsWith("\n") ? 1 : 0);
}

function fileSizes(sources: Sources): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const [file, text] of sources) {
    if (!isTest(file) && !isTable(file)) sizes.set(file, lineCount(text));
  }
  return sizes;
}

const FUNCTION_HEADS = [
  /^(\s*)(?:export )?(?:async )?function\*? ([\w$]+)/,
  /^(\s*)(?:export )?const ([\w$]+)(?:: [^=]+)? = (?:async )?(?:<[^>]*>)?\(/,
  /^(\s+)(?:(?:private|protected|public|static|override|async|get|set) )*\*?(#?[\w$]+)(?:<[^>]*>)?\(/,
];

/** Lines of the function that starts at `start`, or undefined when no block follows its head. */
function functionLength(
  lines: readonly string[],
  start: number,
  indent: string,
): number | undefined {
  if (/[^{]\}[;,]?$/.test(lines[start] ?? "")) return undefined;
  for (let index = start + 1; index < lines.length; index++) {
    const line = lines[index] ?? "";
    if (line === "") continue;
    if (!line.startsWith(indent)) return undefined;
    const rest = line.slice(indent.length);
    if (rest.startsWith("}")) return index - start + 1;
    if (!/^[\s)]/.test(rest)) return undefined;
  }
  return undefined;
}

function functionSizes(sources: Sources): Map<string, number> {
  const sizes = new Map<string, number>();
  for (const [file, text] of sources) {
    if (isTest(file) || isTable(file)) continue;
    const lines = text.split("\n");
    lines.forEach((line, start) => {
      const head = FUNCTION_HEADS.map((pattern) => pattern.exec(line)).find(
        (match) => match !== null,
      );
      const [, indent = "", name = ""] = head ?? [];
      if (name === "" || /^(?:if|for|while|switch|catch|with)$/.test(name)) return;
      const length = functionLength(lines, start, indent);
      const key = `${file}#${name}`;
      if (length !== undefined) sizes.set(key, Math.max(length, sizes.get(key) ?? 0));
    });
  }
  return sizes;
}

function exportProblems(sources: Sources): string[] {
  const problems: string[] = [];
  for (const [file, text] of sources) {
    const code = withoutComments(text);
    if (/^export default\b|^export \{[^}]*\bas default\b/m.test(code))
      problems.push(`${file}: a default export has no name to search for`);
    const rest = code.replace(
      /^export\s+(?:type\s+)?(?:\{[^}]*\}|\*[^"]*)\s+from\s+"[^"]+";?/gm,
      "",
    );
    if (rest !== code && rest.replace(/^import\s[^;]*;/gm, "").trim() === "")
      problems.push(`${file}: only re-exports; import the file that defines the thing`);
  }
  return problems;
}

/** A type may share the docstring of the constant of the same name (the `as const` object of a closed set). */
function docstringProblems(sources: Sources): string[] {
  const declaration =
    /^export (?:declare )?(?:abstract )?(?:async )?(const|function|class|interface|type)\*? ([\w$]+)/;
  const problems: string[] = [];
  for (const [file, text] of sources) {
    if (!/^lib\/(?:ports|repository)\//.test(file) || isTest(file)) continue;
    const lines = text.split("\n").filter((line) => !line.startsWith("// oxlint-"));
    const documented = new Set<string>();
    lines.forEach((line, index) => {
      const [, kind, name = ""] = declaration.exec(line) ?? [];
      if (kind === undefined) return;
      if ((lines[index - 1] ?? "").endsWith("*/")) documented.add(name);
      else if (kind !== "const" && !documented.has(name))
        problems.push(`${file}: ${kind} ${name} has no docstring`);
    });
  }
  return problems;
}

describe("tidy", () => {
  const sources = readSources();
  const files = [...sources.keys()];
  const clean = (problems: readonly string[]) => assert.deepEqual(problems, []);

  it("imports only follow the layers", () => clean(layerProblems(sources)));
  it("every import of ours resolves", () => clean(resolutionProblems(sources)));
  it("has no file that nothing imports", () => clean(deadFileProblems(sources)));
  it("has names that say something", () => clean(nameProblems(files)));
  it("keeps files short", () =>
    clean(ratchetProblems("file", fileSizes(sources), FILE_LINES_MAX, FILE_RATCHET)));
  it("keeps functions short", () =>
    clean(
      ratchetProblems("function", functionSizes(sources), FUNCTION_LINES_MAX, FUNCTION_RATCHET),
    ));
  it("has neither default exports nor barrels", () => clean(exportProblems(sources)));
  it("documents what lib/ports and lib/repository export", () => clean(docstringProblems(sources)));
  it("has a lock file that names no registry", () => {
    const lock = readFileSync(path.join(ROOT, "package-lock.json"), "utf8");
    assert.equal(/"resolved":/.exec(lock), null, "set omit-lockfile-registry-resolved in npm");
  });
});

describe("tidy, each check on a planted mistake", () => {
  const plant = (files: Readonly<Record<string, string>>): Sources =>
    new Map(Object.entries(files));
  const body = (lines: number) => "  call();\n".repeat(lines - 2);

  it("layers", () => {
    const dynamicImport = "import"; // written apart, or this file itself would seem to import it
    const planted = plant({
      "proto/a.ts": 'import { x } from "#lib/core/x.ts";',
      "lib/core/a.ts": 'export type { P } from "../ports/p.ts";',
      "lib/ports/a.ts": 'import type { K } from "#lib/repository/k.ts";',
      "lib/repository/a.ts": `const k = await ${dynamicImport}("#lib/drivers/k.ts");`,
      "lib/drivers/a.ts": 'import {\n  one,\n  two,\n} from "#lib/repository/k.ts";',
      "lib/new/a.ts": "",
      "services/dedup/a.ts": 'import "#lib/drivers/k.ts";',
      "services/dedup/b.ts": 'import * as r from "#services/reader/r.ts";',
      "services/dedup/c.ts": 'import { fake } from "#test/fakes/fake.ts";',
      "services/dedup/d.ts": 'import { run } from "#services/cli/run.ts";',
      "services/writer/main.ts": 'import { r } from "#services/reader/r.ts";',
    });
    assert.equal(layerProblems(planted).length, planted.size);
    const allowed = plant({
      "services/dedup/main.ts": 'import "#lib/drivers/k.ts"; // import "#services/reader/r.ts";',
      "services/reader/main.ts": 'import { run } from "#services/cli/run.ts";',
      "services/cli/a.ts": 'import { r } from "#services/reader/r.ts";',
      "lib/core/a.test.ts": 'import { fake } from "#test/fakes/fake.ts";',
    });
    assert.deepEqual(layerProblems(allowed), []);
  });

  it("resolution and dead files", () => {
    const planted = plant({
      "lib/core/a.ts": 'import { b } from "./b.ts";\nnew URL(`./worker${extension}`, here);',
      "lib/core/worker.ts": "",
    });
    assert.deepEqual(resolutionProblems(planted), ['lib/core/a.ts: "./b.ts" names no source file']);
    assert.deepEqual(deadFileProblems(planted), ["lib/core/a.ts: nothing imports it"]);
  });

  it("names", () => {
    const planted = ["lib/core/utils.ts", "lib/common/a.ts", "lib/core/BlobStore.ts"];
    assert.equal(nameProblems(planted).length, planted.length);
  });

  it("budgets", () => {
    const planted = plant({
      "lib/core/a.ts": `export function long(\n  a: number,\n): void {\n${body(70)}}\n`,
      "lib/core/b.ts": `class C {\n  async m(): Promise<void> {\n${body(71).replaceAll("  call", "    call")}  }\n}\n`,
      "lib/core/c.ts": `export function fits(): void {\n${body(70)}}\n`,
      "lib/core/d.ts": `call(\n  1,\n);\n${body(400)}`,
    });
    const functions = functionSizes(planted);
    assert.deepEqual(ratchetProblems("function", functions, 70, {}), [
      "lib/core/a.ts#long: function has 72 lines, allowed are 70",
      "lib/core/b.ts#m: function has 71 lines, allowed are 70",
    ]);
    const ratchet = { "lib/core/a.ts#long": 71, "lib/core/b.ts#m": 72, "lib/core/c.ts#fits": 80 };
    assert.equal(ratchetProblems("function", functions, 70, ratchet).length, 3);
    assert.equal(ratchetProblems("file", fileSizes(planted), 400, {}).length, 1);
  });

  it("exports and docstrings", () => {
    const planted = plant({
      "lib/ports/a.ts": "export default class A {}\nexport interface B {}\n",
      "lib/ports/b.ts": '/** All of it. */\nexport * from "./a.ts";\nexport { B } from "./a.ts";\n',
      "lib/ports/c.ts":
        "/** A closed set. */\nexport const D = {};\nexport type D = keyof typeof D;\n",
    });
    assert.equal(exportProblems(planted).length, 2);
    assert.deepEqual(docstringProblems(planted), ["lib/ports/a.ts: interface B has no docstring"]);
  });
});
