// The URL of a storage at Backblaze B2: b2://BUCKET/PREFIX?option=value. Everything but the key stands in it; that comes from files
// or the environment.
import { parseBucketUrl } from "#lib/drivers/bucket-url.ts";
import {
  durationOption,
  endpointOption,
  fileOption,
  fileOptionsOf,
  readUrlOptions,
  wholeOption,
  type UrlOptions,
} from "#lib/drivers/url-options.ts";

/** Where a B2 storage is and how it is spoken to. Times in ms. */
export interface B2Settings {
  readonly bucket: string;
  /** What the names of all files begin with: empty, or with a slash at its end. */
  readonly prefix: string;
  /** Undefined: both from the environment. */
  readonly applicationKeyIdFile: string | undefined;
  readonly applicationKeyFile: string | undefined;
  /** Where keys are authorized; it tells where the rest answers. */
  readonly apiUrl: string;
  readonly connectTimeoutMs: number;
  /** How long nothing may come or go. */
  readonly idleTimeoutMs: number;
  readonly attempts: number;
  /** Requests under way at once. */
  readonly connections: number;
  /** For messages. */
  readonly location: string;
}

/** https://www.backblaze.com/apidocs/b2-authorize-account */
const API_URL = "https://api.backblazeb2.com";

const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const CONNECT_TIMEOUT_MS = 10 * SECOND_MS;
const IDLE_TIMEOUT_MS = 60 * SECOND_MS;
const ATTEMPTS = 5;
const CONNECTIONS = 64;
/** A name has at most 1024 bytes (https://www.backblaze.com/docs/cloud-storage-files), and Ashlar's have up to 200. */
const PREFIX_BYTES_MAX = 800;

const OPTIONS = {
  applicationKeyIdFile: fileOption,
  applicationKeyFile: fileOption,
  apiUrl: endpointOption,
  connectTimeout: durationOption(100, 10 * MINUTE_MS),
  idleTimeout: durationOption(SECOND_MS, 60 * MINUTE_MS),
  attempts: wholeOption(1, 100),
  connections: wholeOption(1, 1024),
} as const satisfies UrlOptions;

/** The options of a B2 storage that name files. */
export const B2_FILE_OPTIONS: readonly string[] = fileOptionsOf(OPTIONS);

/** 6 to 63 letters, digits and hyphens; `b2-` is kept for Backblaze (https://www.backblaze.com/docs/cloud-storage-buckets). */
const isBucket = (name: string): boolean => /^(?!b2-)[-a-z0-9]{6,63}$/i.test(name);

/** Reads the URL of a B2 storage; Usage where something of it is wrong. */
export function parseB2Url(url: string): B2Settings {
  const { bucket, prefix, params, wrong } = parseBucketUrl(url, "b2", isBucket);
  const options = readUrlOptions(OPTIONS, params, wrong);
  const { applicationKeyIdFile, applicationKeyFile, apiUrl } = options;
  if (prefix.length > PREFIX_BYTES_MAX) {
    throw wrong(`the prefix is longer than ${PREFIX_BYTES_MAX} bytes`);
  }
  if ((applicationKeyIdFile === undefined) !== (applicationKeyFile === undefined)) {
    throw wrong("applicationKeyIdFile and applicationKeyFile belong together");
  }
  const at = apiUrl === undefined ? "" : ` at ${new URL(apiUrl).host}`;
  return {
    bucket,
    prefix,
    applicationKeyIdFile,
    applicationKeyFile,
    apiUrl: new URL(apiUrl ?? API_URL).origin,
    connectTimeoutMs: options.connectTimeout ?? CONNECT_TIMEOUT_MS,
    idleTimeoutMs: options.idleTimeout ?? IDLE_TIMEOUT_MS,
    attempts: options.attempts ?? ATTEMPTS,
    connections: options.connections ?? CONNECTIONS,
    location: `b2://${bucket}/${prefix}`.replace(/\/$/, "") + at,
  };
}
