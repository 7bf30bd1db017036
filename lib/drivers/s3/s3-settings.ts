// The URL of an S3 storage: s3://BUCKET/PREFIX?option=value. Everything but secrets stands in it; those come from files, the
// environment, or wherever the SDK looks for them.
import { closestWord } from "#lib/core/closest-word.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { formatDuration, parseDuration } from "#lib/core/size.ts";
import { S3_CHECKSUMS, S3_PRESETS, type S3Checksum } from "./s3-presets.ts";

/** Where an S3 storage is and how it is spoken to. Times in ms. */
export interface S3Settings {
  readonly bucket: string;
  /** What the keys of all objects begin with: empty, or with a slash at its end. */
  readonly prefix: string;
  readonly preset: string;
  /** Undefined: the service's own for the region. */
  readonly endpoint: string | undefined;
  /** Undefined: as the environment says. */
  readonly region: string | undefined;
  readonly addressing: "path" | "virtual";
  readonly profile: string | undefined;
  readonly accessKeyIdFile: string | undefined;
  readonly secretAccessKeyFile: string | undefined;
  readonly storageClass: string | undefined;
  readonly encryption: string | undefined;
  readonly kmsKeyId: string | undefined;
  readonly caFile: string | undefined;
  readonly connectTimeoutMs: number;
  /** How long nothing may come or go. */
  readonly idleTimeoutMs: number;
  readonly attempts: number;
  readonly connections: number;
  readonly conditionalWrites: boolean;
  readonly multiDelete: boolean;
  readonly checksum: S3Checksum;
  readonly consistentListing: boolean;
  /** For messages. */
  readonly location: string;
}

interface Option<T> {
  readonly expected: string;
  readonly read: (text: string) => T | undefined;
  /** It names a file; it must be absolute in a URL. */
  readonly isFile?: true;
}

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const CONNECT_TIMEOUT_MS = 10 * SECOND_MS;
const IDLE_TIMEOUT_MS = 60 * SECOND_MS;
const ATTEMPTS = 5;
const CONNECTIONS = 64;

const text = (expected: string, allowed: RegExp): Option<string> => ({
  expected,
  read: (value) => (allowed.test(value) ? value : undefined),
});
const oneOf = <const T extends string>(words: readonly T[]): Option<T> => ({
  expected: `one of ${words.join(", ")}`,
  read: (value) => words.find((word) => word === value),
});
const flag: Option<boolean> = {
  expected: "true or false",
  read: (value) => (value === "true" ? true : value === "false" ? false : undefined),
};
const file: Option<string> = {
  expected: "the absolute path of a file",
  read: (value) => (value.startsWith("/") ? value : undefined),
  isFile: true,
};
const whole = (least: number, most: number): Option<number> => ({
  expected: `a whole number between ${least} and ${most}`,
  read: (value) => {
    const number = /^\d{1,6}$/.test(value) ? Number(value) : Number.NaN;
    return number >= least && number <= most ? number : undefined;
  },
});
const duration = (leastMs: number, mostMs: number): Option<number> => ({
  expected: `a duration between ${formatDuration(leastMs)} and ${formatDuration(mostMs)}, such as 30s`,
  read: (value) => {
    try {
      const ms = parseDuration(value);
      return ms >= leastMs && ms <= mostMs ? ms : undefined;
    } catch {
      return undefined;
    }
  },
});

const OPTIONS = {
  preset: oneOf(Object.keys(S3_PRESETS)),
  endpoint: {
    expected: "an http or https URL without path",
    read: (value: string) => (isEndpoint(value) ? value : undefined),
  },
  region: text("the name of a region", /^[-a-zA-Z0-9_]{1,64}$/),
  addressing: oneOf(["path", "virtual"]),
  profile: text("the name of a profile of ~/.aws/config", /^[^\s]{1,128}$/),
  accessKeyIdFile: file,
  secretAccessKeyFile: file,
  storageClass: text("a storage class such as STANDARD_IA", /^[A-Z0-9_]{1,64}$/),
  encryption: oneOf(["AES256", "aws:kms", "aws:kms:dsse"]),
  kmsKeyId: text("the id or ARN of a KMS key", /^[^\s]{1,2048}$/),
  caFile: file,
  connectTimeout: duration(100, 10 * MINUTE_MS),
  idleTimeout: duration(SECOND_MS, 60 * MINUTE_MS),
  attempts: whole(1, 100),
  connections: whole(1, 1024),
  conditionalWrites: flag,
  multiDelete: flag,
  checksum: oneOf(S3_CHECKSUMS),
  consistentListing: flag,
} as const satisfies Readonly<Record<string, Option<unknown>>>;

type Options = { [K in keyof typeof OPTIONS]?: ReturnType<(typeof OPTIONS)[K]["read"]> };

/** The options of an S3 storage that name files, which a configuration may write relative to itself. */
export const S3_FILE_OPTIONS: readonly string[] = Object.entries(OPTIONS).flatMap(
  ([name, option]) => ("isFile" in option ? [name] : []),
);

/** Reads the URL of an S3 storage; Usage where something of it is wrong. */
export function parseS3Url(url: string): S3Settings {
  const wrong = (problem: string): AshlarError =>
    new AshlarError(ErrorCode.Usage, `storage ${withoutOptions(url)}: ${problem}`, {
      remedy: "write s3://BUCKET/PREFIX?option=value, with options as docs/storages.md lists them",
    });
  if (!URL.canParse(url)) throw wrong("that is not a URL");
  const { hostname, host, username, password, pathname, searchParams, hash } = new URL(url);
  if (username !== "" || password !== "") {
    throw wrong("credentials do not belong into a URL, where everybody sees them");
  }
  if (hash !== "" || host !== hostname) throw wrong("expected s3://BUCKET/PREFIX");
  const bucket = hostname;
  if (!/^[a-z0-9][-a-z0-9._]{1,61}[a-z0-9]$/i.test(bucket)) {
    throw wrong(`${JSON.stringify(bucket)} is not the name of a bucket`);
  }
  const path = pathname.replace(/^\/+|\/+$/g, "");
  if (path !== "" && !/^[-a-zA-Z0-9._~]+(?:\/[-a-zA-Z0-9._~]+)*$/.test(path)) {
    throw wrong(`the prefix ${JSON.stringify(path)} has characters that make trouble in keys`);
  }
  const options = readOptions(searchParams, wrong);
  return complete(bucket, path === "" ? "" : `${path}/`, options, wrong);
}

function readOptions(params: URLSearchParams, wrong: (problem: string) => AshlarError): Options {
  const options: Record<string, unknown> = {};
  for (const [name, value] of params) {
    const option: Option<unknown> | undefined = Object.hasOwn(OPTIONS, name)
      ? OPTIONS[name as keyof typeof OPTIONS]
      : undefined;
    if (option === undefined) {
      const similar = closestWord(name, Object.keys(OPTIONS));
      const advice =
        similar === undefined
          ? `there are ${Object.keys(OPTIONS).join(", ")}`
          : `did you mean ${similar}?`;
      throw wrong(`there is no option ${JSON.stringify(name)}; ${advice}`);
    }
    if (name in options) throw wrong(`the option ${name} is there twice`);
    const read = option.read(value);
    if (read === undefined) {
      throw wrong(`option ${name}: expected ${option.expected}, found ${JSON.stringify(value)}`);
    }
    options[name] = read;
  }
  return options;
}

function complete(
  bucket: string,
  prefix: string,
  options: Options,
  wrong: (problem: string) => AshlarError,
): S3Settings {
  const presetName = options.preset ?? (options.endpoint === undefined ? "aws" : "compatible");
  const preset = S3_PRESETS[presetName] ?? { service: presetName };
  const region = options.region ?? preset.region;
  const endpoint = options.endpoint ?? endpointOf(preset.endpoint, region);
  if (endpoint === undefined && presetName !== "aws") {
    throw wrong(
      preset.endpoint === undefined
        ? `the preset ${presetName} needs the option endpoint`
        : `the preset ${presetName} needs the option region`,
    );
  }
  if ((options.accessKeyIdFile === undefined) !== (options.secretAccessKeyFile === undefined)) {
    throw wrong("accessKeyIdFile and secretAccessKeyFile belong together");
  }
  if (options.kmsKeyId !== undefined && options.encryption?.startsWith("aws:kms") !== true) {
    throw wrong("kmsKeyId needs encryption=aws:kms");
  }
  const at = endpoint === undefined ? "" : ` at ${new URL(endpoint).host}`;
  return {
    bucket,
    prefix,
    preset: presetName,
    endpoint,
    region,
    addressing: options.addressing ?? preset.addressing ?? "virtual",
    profile: options.profile,
    accessKeyIdFile: options.accessKeyIdFile,
    secretAccessKeyFile: options.secretAccessKeyFile,
    storageClass: options.storageClass,
    encryption: options.encryption,
    kmsKeyId: options.kmsKeyId,
    caFile: options.caFile,
    connectTimeoutMs: options.connectTimeout ?? CONNECT_TIMEOUT_MS,
    idleTimeoutMs: options.idleTimeout ?? IDLE_TIMEOUT_MS,
    attempts: options.attempts ?? ATTEMPTS,
    connections: options.connections ?? CONNECTIONS,
    conditionalWrites: options.conditionalWrites ?? preset.conditionalWrites ?? true,
    multiDelete: options.multiDelete ?? preset.multiDelete ?? true,
    checksum: options.checksum ?? preset.checksum ?? "crc32",
    consistentListing: options.consistentListing ?? preset.consistentListing ?? true,
    location: `s3://${bucket}/${prefix}`.replace(/\/$/, "") + at,
  };
}

function endpointOf(pattern: string | undefined, region: string | undefined): string | undefined {
  if (pattern === undefined || !pattern.includes("{region}")) return pattern;
  return region === undefined ? undefined : pattern.replace("{region}", region);
}

function isEndpoint(value: string): boolean {
  if (!URL.canParse(value)) return false;
  const { protocol, pathname, search, username } = new URL(value);
  return (
    ["http:", "https:"].includes(protocol) && pathname === "/" && search === "" && username === ""
  );
}

/** For messages: secrets that somebody has put there by mistake are not repeated. */
function withoutOptions(url: string): string {
  const [place = url] = url.split("?", 1);
  return place.replace(/\/\/[^/@]*@/, "//…@");
}
