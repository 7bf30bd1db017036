// Finds ashlar.yaml, reads it, and says where in it something is wrong.
import { readFile, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { isAlias, isMap, isNode, isScalar, isSeq, LineCounter, parseDocument, visit } from "yaml";
import type { Document } from "yaml";
import type { z } from "zod";
import { closestWord } from "#lib/core/closest-word.ts";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { allowedKeys, configSchema, permitsSmallBlocks } from "./config-schema.ts";
import type { Compression, ConfigContent, LogFormat, LogLevel } from "./config-schema.ts";

/** The name of the file that is looked for in a folder. */
export const CONFIG_FILE_NAME = "ashlar.yaml";
/** Where the configuration of a whole machine is. */
const SYSTEM_CONFIG = "/etc/ashlar/ashlar.yaml";
const CONFIG_BYTES_MAX = 1024 * 1024;
/** Complaints about one file that are shown at a time. */
const COMPLAINTS_SHOWN = 5;

/** One storage of the configuration. */
export interface StorageConfig {
  readonly name: string;
  /** An absolute `file:` URL where the file names a path. */
  readonly url: string;
  readonly site: string;
  readonly simultaneousReads: number;
  readonly simultaneousWrites: number;
}

/** A configuration that was read: checked, with defaults, paths absolute. */
export interface Config {
  /** Path of the file itself. */
  readonly file: string;
  /** Path of the metadata folder. */
  readonly metadata: string;
  readonly keyFile: string | undefined;
  readonly passphraseFile: string | undefined;
  readonly host: string;
  readonly defaults: {
    readonly blockBytes: number;
    readonly compression: Compression;
    readonly compressionLevel: number;
    readonly quorum: number;
    /** Names of the storages that a version goes to. */
    readonly storages: readonly string[];
    /** Between 0 and 1. */
    readonly hintSample: number;
  };
  readonly storages: readonly StorageConfig[];
  readonly sessions: {
    readonly leaseMs: number;
    readonly resumeWindowMs: number;
    readonly patienceMs: number;
  };
  readonly memory: { readonly budgetBytes: number | undefined };
  readonly log: { readonly level: LogLevel; readonly format: LogFormat };
}

/** What the process knows about its surroundings. */
export interface ConfigSurroundings {
  readonly env: Readonly<Record<string, string | undefined>>;
  /** The working folder. */
  readonly cwd: string;
  /** The machine's name, where the file gives none. */
  readonly hostname: string;
}

/**
 * Finds the configuration and reads it.
 * @param option what `--config` says
 */
export async function loadConfig(
  option: string | undefined,
  surroundings: ConfigSurroundings,
): Promise<Config> {
  const file = await findConfig(option, surroundings);
  return parseConfig(await readConfigFile(file), file, surroundings);
}

/**
 * Looks for the configuration: `--config` (a file, or a folder with an ashlar.yaml), ASHLAR_CONFIG likewise, ./ashlar.yaml,
 * /etc/ashlar/ashlar.yaml. What is named must be there: another file in its stead would be the wrong repository.
 */
export async function findConfig(
  option: string | undefined,
  surroundings: ConfigSurroundings,
): Promise<string> {
  const { env, cwd } = surroundings;
  const named = option ?? env["ASHLAR_CONFIG"];
  if (named !== undefined && named !== "") {
    const path = resolve(cwd, named);
    const kind = await kindOf(path);
    if (kind === "file") return path;
    const inFolder = join(path, CONFIG_FILE_NAME);
    if (kind === "folder" && (await kindOf(inFolder)) === "file") return inFolder;
    const origin = option === undefined ? "ASHLAR_CONFIG names" : "--config names";
    throw notFound(
      `there is no configuration at ${kind === "folder" ? inFolder : path}, which ${origin}`,
    );
  }
  const places = [join(cwd, CONFIG_FILE_NAME), SYSTEM_CONFIG];
  for (const place of places) if ((await kindOf(place)) === "file") return place;
  throw notFound(
    `there is no configuration: --config and ASHLAR_CONFIG are not given, and neither ${places.join(" nor ")} exists`,
  );
}

function notFound(message: string): AshlarError {
  return new AshlarError(ErrorCode.Config, message, {
    remedy:
      "`ashlar init DIR` makes a repository with its configuration; `--config DIR` names it from anywhere.",
  });
}

async function kindOf(path: string): Promise<"file" | "folder" | "nothing"> {
  try {
    return (await stat(path)).isDirectory() ? "folder" : "file";
  } catch (error) {
    const failure = fromSystemError(error, `looking for the configuration ${path}`);
    if (failure.code === ErrorCode.NotFound) return "nothing";
    throw failure;
  }
}

async function readConfigFile(file: string): Promise<string> {
  let bytes: Buffer;
  try {
    // Not a special file's size: a configuration may come from a pipe.
    bytes = await readFile(file);
  } catch (error) {
    throw fromSystemError(error, `reading the configuration ${file}`);
  }
  if (bytes.length > CONFIG_BYTES_MAX) {
    throw new AshlarError(
      ErrorCode.Config,
      `${file}: a configuration has at most ${CONFIG_BYTES_MAX} bytes`,
    );
  }
  return bytes.toString("utf8");
}

/** Reads the text of a configuration; every error is Config and names file, line and column. */
export function parseConfig(text: string, file: string, surroundings: ConfigSurroundings): Config {
  const lines = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: lines,
    prettyErrors: false,
    logLevel: "error",
  });
  const [syntaxError] = document.errors;
  if (syntaxError !== undefined) {
    throw complaintsError(file, [
      { place: lines.linePos(syntaxError.pos[0]), message: syntaxError.message },
    ]);
  }
  const checked = configSchema(permitsSmallBlocks(surroundings.env)).safeParse(
    toValue(document, file, lines),
  );
  if (!checked.success) {
    throw complaintsError(
      file,
      checked.error.issues.flatMap((issue) => complaintsOf(issue, document, lines)),
    );
  }
  const { data } = checked;
  const folder = dirname(resolve(surroundings.cwd, file));
  const absolute = (path: string | undefined): string | undefined =>
    path === undefined ? undefined : resolve(folder, path);
  const { blockSize, storages, ...defaults } = data.defaults;
  return {
    file: resolve(surroundings.cwd, file),
    metadata: resolve(folder, data.metadata),
    keyFile: absolute(data.keyFile),
    passphraseFile: absolute(data.passphraseFile),
    host: data.host ?? surroundings.hostname,
    defaults: {
      ...defaults,
      blockBytes: blockSize,
      storages: storages ?? data.storages.map(({ name }) => name),
    },
    storages: resolveStorages(data.storages, folder, (index, message) => {
      const place = placeOf(document, lines, ["storages", index, "url"]);
      return complaintsError(file, [{ place, message }]);
    }),
    sessions: {
      leaseMs: data.sessions.lease,
      resumeWindowMs: data.sessions.resumeWindow,
      patienceMs: data.sessions.patience,
    },
    memory: { budgetBytes: data.memory.budget },
    log: data.log,
  };
}

function resolveStorages(
  storages: ConfigContent["storages"],
  folder: string,
  fail: (index: number, message: string) => AshlarError,
): StorageConfig[] {
  const nameOf = new Map<string, string>();
  return storages.map((storage, index) => {
    const url = absoluteUrl(storage.url, folder, (message) =>
      fail(index, `storages[${index}].url: ${message}`),
    );
    const other = nameOf.get(url);
    if (other !== undefined) {
      throw fail(
        index,
        `storages[${index}].url: storage ${other} is there already, and two copies in one place are one`,
      );
    }
    nameOf.set(url, storage.name);
    return { ...storage, site: storage.site ?? storage.name, url };
  });
}

function toValue(document: Document, file: string, lines: LineCounter): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    // An alias without its anchor, or a bomb of them.
    let offset = 0;
    visit(document, {
      Alias(_, alias) {
        if (alias.range) [offset] = alias.range;
        return alias.resolve(document) === undefined ? visit.BREAK : undefined;
      },
    });
    const place = lines.linePos(offset);
    throw complaintsError(file, [{ place, message: (error as Error).message }], error);
  }
}

/**
 * A storage's URL as the drivers take it: paths, and `file:` followed by a relative path, become absolute URLs.
 * @param folder that relative paths start from
 * @param fail makes the error for a URL that is none
 */
export function absoluteUrl(
  url: string,
  folder: string,
  fail: (message: string) => AshlarError,
): string {
  const scheme = /^([a-z][a-z0-9+.-]*):/i.exec(url)?.[1]?.toLowerCase();
  if (scheme === undefined) return pathToFileURL(resolve(folder, url)).href;
  if (scheme !== "file") {
    if (URL.canParse(url)) return url;
    throw fail(`${JSON.stringify(url)} is not a URL`);
  }
  const rest = url.slice("file:".length);
  if (!rest.startsWith("/")) return pathToFileURL(resolve(folder, rest)).href;
  try {
    return pathToFileURL(fileURLToPath(url)).href;
  } catch {
    throw fail(
      `${JSON.stringify(url)} is not a file URL; expected file:///PATH, with three slashes, or a path`,
    );
  }
}

interface Place {
  readonly line: number;
  readonly col: number;
}

interface Complaint {
  readonly place: Place;
  readonly message: string;
}

function complaintsError(
  file: string,
  complaints: readonly Complaint[],
  cause?: unknown,
): AshlarError {
  const sorted = [...complaints].sort(
    (a, b) => a.place.line - b.place.line || a.place.col - b.place.col,
  );
  const shown = sorted
    .slice(0, COMPLAINTS_SHOWN)
    .map(({ place, message }) => `${file}:${place.line}:${place.col}: ${message}`);
  const more = sorted.length - shown.length;
  if (more > 0) shown.push(`and ${more} more`);
  const [first] = sorted;
  return new AshlarError(ErrorCode.Config, shown.join("\n"), {
    cause,
    details: { file, line: first?.place.line, column: first?.place.col },
  });
}

function complaintsOf(
  issue: z.core.$ZodIssue,
  document: Document,
  lines: LineCounter,
): readonly Complaint[] {
  if (issue.code !== "unrecognized_keys") {
    const place = placeOf(document, lines, issue.path);
    return [{ place, message: `${keyName(issue.path)}: ${issue.message}` }];
  }
  const allowed = allowedKeys(issue.path);
  return issue.keys.map((key) => {
    const similar = closestWord(key, allowed);
    return {
      place: placeOf(document, lines, [...issue.path, key], true),
      message:
        `${keyName([...issue.path, key])}: unknown key; ` +
        (similar === undefined ? "" : `did you mean ${similar}? `) +
        `Expected ${allowed.join(", ")}`,
    };
  });
}

/** `storages[1].url` for the path of a value. */
function keyName(path: readonly PropertyKey[]): string {
  let name = "";
  for (const part of path) {
    if (typeof part === "number") name += `[${part}]`;
    else name += name === "" ? String(part) : `.${String(part)}`;
  }
  return name === "" ? "the file" : name;
}

/** Where a value stands, or the key of a pair; for what is missing, the section that it is missing in. */
function placeOf(
  document: Document,
  lines: LineCounter,
  path: readonly PropertyKey[],
  wantsKey = false,
): Place {
  let node: unknown = document.contents;
  let offset = 0;
  for (const [depth, part] of path.entries()) {
    if (isAlias(node)) node = node.resolve(document);
    let child: unknown;
    if (isSeq(node)) {
      child = node.items[Number(part)];
    } else if (isMap(node)) {
      const pair = node.items.find(
        ({ key }) => isScalar(key) && String(key.value) === String(part),
      );
      child = wantsKey && depth === path.length - 1 ? pair?.key : pair?.value;
      // An empty value has no place of its own in some styles; its key has.
      if (isNode(pair?.key) && pair.key.range) [offset] = pair.key.range;
    }
    if (!isNode(child)) break;
    node = child;
    if (child.range) [offset] = child.range;
  }
  return lines.linePos(offset);
}
