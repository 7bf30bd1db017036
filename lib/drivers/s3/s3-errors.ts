// What the errors of an S3 service mean (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html).
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";

/** What of the SDK's errors is looked at. */
interface ServiceError {
  readonly name: string;
  readonly message: string;
  readonly code?: unknown;
  readonly $metadata?: { readonly httpStatusCode?: number; readonly attempts?: number };
  readonly $retryable?: unknown;
}

interface Meaning {
  readonly code: ErrorCode;
  readonly what: string;
  readonly remedy?: string;
  readonly errno?: string;
}

const CREDENTIALS_REMEDY =
  "correct the credentials: accessKeyIdFile and secretAccessKeyFile, the profile, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
const REGION_REMEDY = "correct the options region and endpoint of the storage";

const refused = (what: string, remedy?: string): Meaning => ({
  code: ErrorCode.Refused,
  what,
  // As of a folder that may not be read: whoever opens several storages goes on with the others.
  errno: "EACCES",
  ...(remedy === undefined ? {} : { remedy }),
});
const away = (what: string, remedy?: string): Meaning => ({
  code: ErrorCode.Unavailable,
  what,
  ...(remedy === undefined ? {} : { remedy }),
});
const full = (what: string): Meaning => ({ code: ErrorCode.Io, what, errno: "ENOSPC" });

const MEANINGS: Readonly<Record<string, Meaning>> = {
  NoSuchBucket: away("there is no such bucket", "make it, or correct the storage's URL"),
  AccessDenied: refused(
    "access is denied",
    "allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject on its objects",
  ),
  AllAccessDisabled: refused("all access to it is disabled"),
  AccountProblem: refused("there is a problem with the account"),
  InvalidAccessKeyId: refused("the access key is not known", CREDENTIALS_REMEDY),
  SignatureDoesNotMatch: refused("the secret key is wrong", CREDENTIALS_REMEDY),
  ExpiredToken: refused("the credentials have expired", CREDENTIALS_REMEDY),
  InvalidToken: refused("the session token is not valid", CREDENTIALS_REMEDY),
  CredentialsProviderError: refused("there are no credentials", CREDENTIALS_REMEDY),
  RequestTimeTooSkewed: refused(
    "this machine's clock differs too much from the service's",
    "set the clock of this machine",
  ),
  AuthorizationHeaderMalformed: refused("the region is another one", REGION_REMEDY),
  PermanentRedirect: refused("the bucket is in another region", REGION_REMEDY),
  IllegalLocationConstraintException: refused("the bucket is in another region", REGION_REMEDY),
  InvalidBucketName: refused("that is not the name of a bucket"),
  InvalidObjectState: away(
    "the object was moved to an archive",
    "restore it from there, and take the archiving rules off the bucket",
  ),
  QuotaExceeded: full("its quota is used up"),
  InsufficientCapacity: full("no space left"),
  XMinioStorageFull: full("no space left"),
  EntityTooLarge: refused("an object is larger than the service allows"),
  InvalidStorageClass: refused("there is no such storage class", "correct the option storageClass"),
  NotImplemented: refused(
    "the service cannot do that",
    "see `ashlar storage check`, and set conditionalWrites, multiDelete or checksum of the storage",
  ),
  UnexpectedAnswer: away(
    "something else than S3 has answered",
    "see what stands between here and the service, and whether the endpoint is right",
  ),
  BadDigest: away("the bytes arrived changed"),
  InvalidDigest: away("the bytes arrived changed"),
  XAmzContentSHA256Mismatch: away("the bytes arrived changed"),
};

/** How often the SDK had tried when it gave up. */
export function attemptsOf(error: unknown): number {
  return (error as ServiceError).$metadata?.attempts ?? 1;
}

/** The service's own word for what went wrong, `NoSuchKey` for one; empty where there is none. */
export function serviceCode(error: unknown): string {
  if (!(error instanceof Error)) return "";
  const { name } = error;
  return name === "Error" || name === "Unknown" ? "" : name;
}

/** The status of the answer, or undefined where none came. */
export function statusOf(error: unknown): number | undefined {
  return (error as ServiceError).$metadata?.httpStatusCode;
}

/** It is surely not there: the service itself says so. Whatever else stands in between may answer 404 as well, but not that. */
export function isNoSuchKey(error: unknown): boolean {
  return serviceCode(error) === "NoSuchKey";
}

/** It is not there, or somebody else has answered: HEAD has no body that would tell. */
export function isBare404(error: unknown): boolean {
  return statusOf(error) === 404 && serviceCode(error) === "NotFound";
}

/** An answer that is no answer of S3: a portal's, a balancer's. */
export function unexpectedAnswer(what: string): Error {
  return Object.assign(new Error(`${what}: that is no answer of S3`), { name: "UnexpectedAnswer" });
}

/** The name is taken: `If-None-Match: *` did not hold. */
export function isTaken(error: unknown): boolean {
  return statusOf(error) === 412 || serviceCode(error) === "PreconditionFailed";
}

/** Somebody else creates the same name now: whoever tries again finds out who has won. */
export function isConflict(error: unknown): boolean {
  return statusOf(error) === 409 && serviceCode(error) !== "BucketAlreadyOwnedByYou";
}

/**
 * Turns an error of the SDK into an {@link AshlarError}; those of ours and aborts pass through.
 * @param doing what was being done, `putting blocks/…`
 */
export function s3Error(error: unknown, location: string, doing: string): unknown {
  if (error instanceof AshlarError || !(error instanceof Error)) return error;
  const code = serviceCode(error);
  const status = statusOf(error);
  const known = MEANINGS[code] ?? byMessage(error.message) ?? byStatus(status);
  const meaning = known ?? away(describeTransport(error));
  return new AshlarError(meaning.code, `${location}: ${doing}: ${meaning.what}${detail(error)}`, {
    cause: error,
    ...(meaning.remedy === undefined ? {} : { remedy: meaning.remedy }),
    details: {
      ...(meaning.errno === undefined ? {} : { errno: meaning.errno }),
      ...(status === undefined ? {} : { status }),
      ...(code === "" ? {} : { serviceCode: code }),
    },
  });
}

/** What the SDK finds missing by itself. */
function byMessage(message: string): Meaning | undefined {
  if (!message.startsWith("Region is missing")) return undefined;
  return {
    code: ErrorCode.Config,
    what: "its region is not known",
    remedy: "give the option region, or AWS_REGION, or a profile that has one",
  };
}

function byStatus(status: number | undefined): Meaning | undefined {
  if (status === undefined) return undefined;
  if (status === 401 || status === 403) return MEANINGS["AccessDenied"];
  if (status === 507) return full("no space left");
  if (status === 301) return MEANINGS["PermanentRedirect"];
  if (status === 501) return MEANINGS["NotImplemented"];
  if (status === 429 || status >= 500) return away("the service is overloaded or in trouble");
  return undefined;
}

function describeTransport(error: Error): string {
  const { code } = error as unknown as ServiceError;
  if (error.name === "TimeoutError") return "the service does not answer in time";
  return typeof code === "string" ? `it cannot be reached (${code})` : error.message;
}

/** The service's code and status, for whoever asks its operator. */
function detail(error: Error): string {
  const parts = [serviceCode(error), statusOf(error)].filter((part) => part !== "" && part);
  return parts.length === 0 ? "" : ` (${parts.join(", ")})`;
}
