// What B2's errors mean, in Ashlar's terms.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { B2Failure } from "./b2-failure.ts";

interface Meaning {
  readonly code: ErrorCode;
  readonly what: string;
  readonly remedy?: string;
  readonly errno?: string;
}

/** What a key must be allowed (https://www.backblaze.com/docs/cloud-storage-application-key-capabilities). */
export const NEEDED_CAPABILITIES = [
  "listBuckets",
  "listFiles",
  "readFiles",
  "writeFiles",
  "deleteFiles",
] as const;

const CAPABILITIES_REMEDY = `use a key with ${NEEDED_CAPABILITIES.join(", ")} for this bucket and prefix`;
const KEY_REMEDY =
  "correct the key: applicationKeyIdFile and applicationKeyFile, or B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY";
/** https://www.backblaze.com/docs/cloud-storage-data-caps-and-alerts */
const CAPS_PAGE = "Caps & Alerts at https://secure.backblaze.com";
const CAPS_REMEDY = `raise it under ${CAPS_PAGE}, or wait until it counts anew, at 0:00 UTC`;
const STORAGE_CAP_REMEDY = `raise it under ${CAPS_PAGE}, or make room`;

/** No key is there, or it may not do what it must. As of a folder that may not be read: others of several storages go on. */
const refused = (what: string, remedy: string): Meaning => ({
  code: ErrorCode.Refused,
  what,
  remedy,
  errno: "EACCES",
});
const away = (what: string, remedy?: string): Meaning => ({
  code: ErrorCode.Unavailable,
  what,
  ...(remedy === undefined ? {} : { remedy }),
});
const full: Meaning = {
  code: ErrorCode.Io,
  what: "the storage cap of the account is reached",
  remedy: STORAGE_CAP_REMEDY,
  errno: "ENOSPC",
};
const NO_BUCKET = away("there is no such bucket", "make it, or correct the storage's URL");
const NO_TOKEN = away("the service does not take the token that it has given");
const UNAUTHORIZED = refused("the key does not allow it", CAPABILITIES_REMEDY);
const DENIED = refused(
  "access is denied",
  `${CAPABILITIES_REMEDY}; where a file lock or a legal hold keeps the file, wait for its end or take it off`,
);

const MEANINGS: Readonly<Record<string, Meaning>> = {
  storage_cap_exceeded: full,
  // Of uploads, by services and versions of B2 that do not tell caps apart.
  cap_exceeded: full,
  transaction_cap_exceeded: away("the cap of transactions per day is reached", CAPS_REMEDY),
  download_cap_exceeded: away("the cap of downloads per day is reached", CAPS_REMEDY),
  unauthorized: UNAUTHORIZED,
  // They are renewed, so that it was a new one that was not taken.
  bad_auth_token: NO_TOKEN,
  expired_auth_token: NO_TOKEN,
  access_denied: DENIED,
  // https://help.backblaze.com/hc/en-us/articles/219361957
  account_trouble: refused(
    "there is trouble with the account",
    "see to it at https://secure.backblaze.com",
  ),
  bad_bucket_id: NO_BUCKET,
  invalid_bucket_id: NO_BUCKET,
  bad_bucket_name: NO_BUCKET,
};

/** The error for a bucket that is not there. */
export function noBucket(location: string): AshlarError {
  return make(NO_BUCKET, `${location}: ${NO_BUCKET.what}`, undefined);
}

/** The error for a key that is restricted to something else, or missing altogether. */
export function keyUnfit(location: string, problem: string): AshlarError {
  return make(UNAUTHORIZED, `${location}: ${problem}`, undefined);
}

/** The error where no key was given. */
export function keyMissing(location: string): AshlarError {
  const remedy =
    "give applicationKeyIdFile and applicationKeyFile, or set B2_APPLICATION_KEY_ID and B2_APPLICATION_KEY";
  return make(refused("", remedy), `${location}: there is no application key`, undefined);
}

/** The error for a key that B2 does not take. */
export function keyRefused(location: string, failure: B2Failure): AshlarError {
  const what = `${location}: the application key is not accepted${detail(failure)}`;
  return make(refused("", KEY_REMEDY), what, failure);
}

/**
 * Turns an error of a request into an {@link AshlarError}; those of ours and aborts pass through.
 * @param doing what was being done, `putting blocks/…`
 */
export function b2Error(error: unknown, location: string, doing: string): unknown {
  if (error instanceof AshlarError || !(error instanceof Error)) return error;
  const meaning =
    error instanceof B2Failure
      ? (MEANINGS[error.code] ?? byStatus(error))
      : away(describeTransport(error));
  return make(meaning, `${location}: ${doing}: ${meaning.what}${detail(error)}`, error);
}

function make(meaning: Meaning, message: string, cause: Error | undefined): AshlarError {
  const failure = cause instanceof B2Failure ? cause : undefined;
  return new AshlarError(meaning.code, message, {
    cause,
    ...(meaning.remedy === undefined ? {} : { remedy: meaning.remedy }),
    details: {
      ...(meaning.errno === undefined ? {} : { errno: meaning.errno }),
      ...(failure === undefined ? {} : { status: failure.status }),
      ...(failure === undefined || failure.code === "" ? {} : { serviceCode: failure.code }),
    },
  });
}

function byStatus({ status, message }: B2Failure): Meaning {
  if (status === 401) return UNAUTHORIZED;
  if (status === 403) return DENIED;
  if (status === 408 || status === 429 || status >= 500) {
    return away("the service is overloaded or in trouble");
  }
  return away(message === "" ? "the service does not understand it" : message);
}

function describeTransport(error: Error): string {
  const { code } = error as NodeJS.ErrnoException;
  if (code === "ETIMEDOUT") return "the service does not answer in time";
  return typeof code === "string" ? `it cannot be reached (${code})` : error.message;
}

/** The service's code and status, for whoever asks its operator. */
function detail(error: Error): string {
  if (!(error instanceof B2Failure)) return "";
  return ` (${error.code === "" ? "" : `${error.code}, `}${error.status})`;
}
