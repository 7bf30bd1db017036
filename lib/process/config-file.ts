// Finds ashlar.yaml, reads it, and says where in it something is wrong.
import { readFile, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { AshlarError, ErrorCode, fromSystemError, isErrorCode } from "#lib/core/errors.ts";
import { withoutSecrets } from "#lib/drivers/bucket-url.ts";
import { checkStorageUrl, storageFileOptions } from "#lib/drivers/storages.ts";
import {
  absolutePaths,
  type AgentConfig,
  type JobsConfig,
  type NatsConfig,
  type TelemetryConfig,
} from "./cluster-schema.ts";
import {
  allowedKeys,
  configSchema,
  clientSchema,
  permitsSmallBlocks,
  readerSchema,
} from "./config-schema.ts";
import type { Compression } from "#proto/sealed-object.ts";
import type { ConfigContent, LogFormat, LogLevel } from "./config-schema.ts";
import { parseYaml } from "./yaml-file.ts";

/** The name of the file that is looked for in a folder. */
export const CONFIG_FILE_NAME = "ashlar.yaml";
/** Where the configuration of a whole machine is. */
const SYSTEM_CONFIG = "/etc/ashlar/ashlar.yaml";
const CONFIG_BYTES_MAX = 1024 * 1024;

/** One storage of the configuration. */
export interface StorageConfig {
  readonly name: string;
  /** An absolute `file:` URL where the file names a path. */
  readonly url: string;
  readonly site: string;
  readonly readOrder: number;
  readonly simultaneousReads: number;
  readonly simultaneousWrites: number;
  readonly simultaneousRemovals: number;
  /** In bytes per second of each process. */
  readonly bandwidthRead?: number | undefined;
  readonly bandwidthWrite?: number | undefined;
  /** The folder, an absolute path, and what lies in it at most. */
  readonly cache?: { readonly path: string; readonly sizeBytes: number };
}

/** A part of a FoundationDB cluster. */
export interface FoundationDbConfig {
  /** An absolute path. */
  readonly clusterFile: string;
  /** Tells repositories in one cluster apart. */
  readonly prefix: string;
}

/** A configuration that was read: checked, with defaults, paths absolute. */
export interface Config {
  /** Path of the file itself. */
  readonly file: string;
  /** Path of the metadata folder: the LMDB, locks of this host's processes, copies of key objects. */
  readonly metadata: string;
  /** Where the metadata are instead of in that LMDB. */
  readonly foundationdb: FoundationDbConfig | undefined;
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
    /** Names of storages that restores read first, as far as a version is there. */
    readonly prefer?: readonly string[] | undefined;
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
  /** How the cluster is reached; undefined on a machine for itself. */
  readonly nats: NatsConfig | undefined;
  readonly agent: AgentConfig;
  readonly jobs: JobsConfig;
  readonly telemetry: TelemetryConfig;
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
  const schema = configSchema(permitsSmallBlocks(surroundings.env));
  const { data, complain } = parseYaml(text, file, schema, allowedKeys);
  const path = resolve(surroundings.cwd, file);
  const folder = dirname(path);
  const absolute = (each: string | undefined): string | undefined =>
    each === undefined ? undefined : resolve(folder, each);
  const { blockSize, storages, ...defaults } = data.defaults;
  return {
    file: path,
    metadata: resolve(folder, data.metadata),
    foundationdb:
      data.foundationdb === undefined
        ? undefined
        : {
            ...data.foundationdb,
            clusterFile: resolve(folder, data.foundationdb.clusterFile),
          },
    keyFile: absolute(data.keyFile),
    passphraseFile: absolute(data.passphraseFile),
    host: data.host ?? surroundings.hostname,
    defaults: {
      ...defaults,
      blockBytes: blockSize,
      storages: storages ?? data.storages.map(({ name }) => name),
    },
    storages: resolveStorages(data.storages, folder, (index, message) =>
      complain(["storages", index, "url"], message),
    ),
    sessions: {
      leaseMs: data.sessions.lease,
      resumeWindowMs: data.sessions.resumeWindow,
      patienceMs: data.sessions.patience,
    },
    memory: { budgetBytes: data.memory.budget },
    log: data.log,
    nats: data.nats === undefined ? undefined : absolutePaths(data.nats, path),
    agent: data.agent,
    jobs:
      data.jobs.failureHook === undefined
        ? data.jobs
        : { ...data.jobs, failureHook: resolve(folder, data.jobs.failureHook) },
    telemetry: data.telemetry,
  };
}

/** The configuration of an agent without the repository's keys, metadata and storages. */
export interface ReaderConfig {
  /** Path of the file itself. */
  readonly file: string;
  readonly host: string;
  readonly dedupKeyFile: string;
  readonly nats: NatsConfig;
  readonly agent: AgentConfig;
  readonly memory: { readonly budgetBytes: number | undefined };
  readonly log: { readonly level: LogLevel; readonly format: LogFormat };
  readonly telemetry: TelemetryConfig;
}

/** The configuration of somebody who only submits jobs. */
export type ClientConfig = Pick<ReaderConfig, "file" | "host" | "nats" | "log">;

/** A configuration of some part of a cluster. */
export type ClusterConfig =
  | { readonly kind: "repository"; readonly config: Config }
  | { readonly kind: "reader"; readonly config: ReaderConfig }
  | { readonly kind: "client"; readonly config: ClientConfig };

/**
 * Finds a configuration and reads it: a whole one; where it names a `dedupKeyFile`, that of a mere reader; where it has nothing
 * but `nats`, that of a client.
 */
export async function loadClusterConfig(
  option: string | undefined,
  surroundings: ConfigSurroundings,
): Promise<ClusterConfig> {
  const file = await findConfig(option, surroundings);
  const text = await readConfigFile(file);
  const has = (key: string): boolean => new RegExp(`^${key}:`, "m").test(text);
  if (has("dedupKeyFile")) {
    return { kind: "reader", config: parseReaderConfig(text, file, surroundings) };
  }
  if (has("nats") && !has("metadata") && !has("storages")) {
    return { kind: "client", config: parseClientConfig(text, file, surroundings) };
  }
  return { kind: "repository", config: parseConfig(text, file, surroundings) };
}

function parseClientConfig(
  text: string,
  file: string,
  surroundings: ConfigSurroundings,
): ClientConfig {
  const keysAt = (at: readonly PropertyKey[]): readonly string[] =>
    at.length === 0 ? Object.keys(clientSchema.shape) : allowedKeys(at);
  const { data } = parseYaml(text, file, clientSchema, keysAt);
  const path = resolve(surroundings.cwd, file);
  return {
    file: path,
    host: data.host ?? surroundings.hostname,
    nats: absolutePaths(data.nats, path),
    log: data.log,
  };
}

/** Reads the text of a reader's configuration; every error is Config and names file, line and column. */
export function parseReaderConfig(
  text: string,
  file: string,
  surroundings: ConfigSurroundings,
): ReaderConfig {
  const keysAt = (at: readonly PropertyKey[]): readonly string[] =>
    at.length === 0 ? Object.keys(readerSchema.shape) : allowedKeys(at);
  const { data } = parseYaml(text, file, readerSchema, keysAt);
  const path = resolve(surroundings.cwd, file);
  return {
    file: path,
    host: data.host ?? surroundings.hostname,
    dedupKeyFile: resolve(dirname(path), data.dedupKeyFile),
    nats: absolutePaths(data.nats, path),
    agent: data.agent,
    memory: { budgetBytes: data.memory.budget },
    log: data.log,
    telemetry: data.telemetry,
  };
}

function resolveStorages(
  storages: ConfigContent["storages"],
  folder: string,
  fail: (index: number, message: string) => AshlarError,
): StorageConfig[] {
  const nameOf = new Map<string, string>();
  return storages.map((storage, index) => {
    const url = storageUrl(storage, folder, (key, message) =>
      fail(index, `storages[${index}].${key}: ${message}`),
    );
    const other = nameOf.get(url);
    if (other !== undefined) {
      throw fail(
        index,
        `storages[${index}].url: storage ${other} is there already, and two copies in one place are one`,
      );
    }
    nameOf.set(url, storage.name);
    const { options: _, cache, ...rest } = storage;
    return {
      ...rest,
      site: storage.site ?? storage.name,
      url,
      ...(cache === undefined
        ? {}
        : { cache: { path: resolve(folder, cache.path), sizeBytes: cache.size } }),
    };
  });
}

/** With its options, which the configuration may write apart from it, and with absolute paths. */
function storageUrl(
  { url: written, options = {} }: ConfigContent["storages"][number],
  folder: string,
  fail: (key: "url" | "options", message: string) => AshlarError,
): string {
  const absolute = absoluteUrl(written, folder, (message) => fail("url", message));
  if (Object.keys(options).length > 0 && absolute.startsWith("file:")) {
    throw fail("options", "a folder has no options");
  }
  const withOptions = new URL(absolute);
  for (const [name, value] of Object.entries(options)) {
    if (withOptions.searchParams.has(name)) {
      throw fail("options", `${name} stands in the URL already`);
    }
    const isFile = storageFileOptions(absolute).includes(name);
    withOptions.searchParams.set(name, isFile ? resolve(folder, value) : value);
  }
  const url = Object.keys(options).length === 0 ? absolute : withOptions.href;
  try {
    checkStorageUrl(url);
  } catch (error) {
    if (!isErrorCode(error, ErrorCode.Usage)) throw error;
    const message = error.message.replace(/^storage [^ ]+: /, "");
    throw fail(Object.keys(options).length === 0 ? "url" : "options", message);
  }
  return url;
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
    throw fail(`${JSON.stringify(withoutSecrets(url))} is not a URL`);
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
