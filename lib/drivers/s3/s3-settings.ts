// The URL of an S3 storage: s3://BUCKET/PREFIX?option=value. Everything but secrets stands in it; those come from files, the
// environment, or wherever the SDK looks for them.
import { parseBucketUrl } from "#lib/drivers/bucket-url.ts";
import {
  durationOption,
  endpointOption,
  fileOption,
  fileOptionsOf,
  flagOption,
  readUrlOptions,
  textOption,
  wholeOption,
  wordOption,
  type UrlOptions,
  type UrlOptionValues,
  type WrongUrl,
} from "#lib/drivers/url-options.ts";
import { S3_CHECKSUMS, S3_PRESETS, type S3Checksum } from "./s3-presets.ts";

/** `none`: nothing is locked any more, in a bucket that can. */
export const S3_LOCK_MODES = ["governance", "compliance", "none"] as const;
export type S3LockMode = (typeof S3_LOCK_MODES)[number];

/** How objects are locked. */
export interface S3ObjectLock {
  readonly mode: S3LockMode;
  readonly periodMs: number;
  /** The URL says nothing of it. */
  readonly isInherited?: boolean;
}

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
  /** The bucket keeps versions: objects are deleted by version, and, unless the mode is "none", locked. */
  readonly objectLock: S3ObjectLock | undefined;
  /** For messages. */
  readonly location: string;
}

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const DAY_MS = 24 * 60 * MINUTE_MS;
/** Nobody can take back a lock of a thousand years. What is needed for longer is extended. */
const LOCK_MS_MAX = 366 * DAY_MS;
const LOCK_MS = 30 * DAY_MS;
const CONNECT_TIMEOUT_MS = 10 * SECOND_MS;
const IDLE_TIMEOUT_MS = 60 * SECOND_MS;
const ATTEMPTS = 5;
/** Above what a process has under way, for whoever waits for a connection would be counting it as time of the service. */
const CONNECTIONS = 1024;

const OPTIONS = {
  preset: wordOption(Object.keys(S3_PRESETS)),
  endpoint: endpointOption,
  region: textOption("the name of a region", /^[-a-zA-Z0-9_]{1,64}$/),
  addressing: wordOption(["path", "virtual"]),
  profile: textOption("the name of a profile of ~/.aws/config", /^[^\s]{1,128}$/),
  accessKeyIdFile: fileOption,
  secretAccessKeyFile: fileOption,
  // What must be taken out of an archive first is no storage.
  storageClass: textOption(
    "a storage class whose objects can be read at once, such as STANDARD_IA or GLACIER_IR",
    /^(?!(?:GLACIER|DEEP_ARCHIVE)$)[A-Z0-9_]{1,64}$/,
  ),
  encryption: wordOption(["AES256", "aws:kms", "aws:kms:dsse"]),
  kmsKeyId: textOption("the id or ARN of a KMS key", /^[^\s]{1,2048}$/),
  caFile: fileOption,
  connectTimeout: durationOption(100, 10 * MINUTE_MS),
  idleTimeout: durationOption(SECOND_MS, 60 * MINUTE_MS),
  attempts: wholeOption(1, 100),
  connections: wholeOption(1, 65_536),
  conditionalWrites: flagOption,
  multiDelete: flagOption,
  checksum: wordOption(S3_CHECKSUMS),
  consistentListing: flagOption,
  objectLockMode: wordOption(S3_LOCK_MODES),
  objectLockPeriod: durationOption(SECOND_MS, LOCK_MS_MAX),
} as const satisfies UrlOptions;

type Options = UrlOptionValues<typeof OPTIONS>;

/** The options of an S3 storage that name files. */
export const S3_FILE_OPTIONS: readonly string[] = fileOptionsOf(OPTIONS);

const isBucket = (name: string): boolean => /^[a-z0-9][-a-z0-9._]{1,61}[a-z0-9]$/i.test(name);

/**
 * Reads the URL of an S3 storage; Usage where something of it is wrong.
 * @param lock how objects are locked where the URL does not say
 */
export function parseS3Url(url: string, lock?: S3ObjectLock): S3Settings {
  const { bucket, prefix, params, wrong } = parseBucketUrl(url, "s3", isBucket);
  const options = readUrlOptions(OPTIONS, params, wrong);
  const { objectLockMode = lock?.mode, objectLockPeriod = lock?.periodMs } = options;
  const isSilent = options.objectLockMode === undefined && options.objectLockPeriod === undefined;
  const settings = complete(
    bucket,
    prefix,
    { ...options, objectLockMode, objectLockPeriod },
    wrong,
  );
  const { objectLock } = settings;
  if (!isSilent || objectLock === undefined) return settings;
  return { ...settings, objectLock: { ...objectLock, isInherited: true } };
}

function complete(bucket: string, prefix: string, options: Options, wrong: WrongUrl): S3Settings {
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
  const objectLock = objectLockOf(options, wrong);
  const isVersioned = objectLock !== undefined;
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
    conditionalWrites:
      options.conditionalWrites ??
      ((preset.conditionalWrites ?? true) &&
        (!isVersioned || (preset.conditionalVersions ?? true))),
    multiDelete: options.multiDelete ?? preset.multiDelete ?? true,
    checksum:
      options.checksum ??
      (isVersioned ? preset.lockChecksum : undefined) ??
      preset.checksum ??
      "crc32",
    consistentListing: options.consistentListing ?? preset.consistentListing ?? true,
    objectLock,
    location: `s3://${bucket}/${prefix}`.replace(/\/$/, "") + at,
  };
}

function objectLockOf(options: Options, wrong: WrongUrl): S3ObjectLock | undefined {
  const { objectLockMode: mode, objectLockPeriod: periodMs } = options;
  if (mode === undefined) {
    if (periodMs !== undefined) throw wrong("objectLockPeriod needs objectLockMode");
    return undefined;
  }
  return { mode, periodMs: periodMs ?? LOCK_MS };
}

function endpointOf(pattern: string | undefined, region: string | undefined): string | undefined {
  if (pattern === undefined || !pattern.includes("{region}")) return pattern;
  return region === undefined ? undefined : pattern.replace("{region}", region);
}
