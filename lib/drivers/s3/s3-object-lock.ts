// Object lock (https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-lock.html): whether a bucket has it, until when an object
// is locked, and making that longer. Nothing here, or anywhere, asks for the bypass of governance.
import {
  GetObjectLockConfigurationCommand,
  HeadObjectCommand,
  PutObjectRetentionCommand,
  type DefaultRetention,
  type S3Client,
} from "@aws-sdk/client-s3";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { s3Error, serviceCode, statusOf } from "./s3-errors.ts";
import type { S3LockMode, S3Settings } from "./s3-settings.ts";
import { newestVersion } from "./s3-versions.ts";

/** S3's own words for the modes. */
type RetentionMode = "GOVERNANCE" | "COMPLIANCE";

/** What a put under lock says. */
export interface RetentionInput {
  readonly ObjectLockMode: RetentionMode;
  readonly ObjectLockRetainUntilDate: Date;
}

/** What is put is locked until then. */
export function retentionInput(mode: Exclude<S3LockMode, "none">, untilMs: number): RetentionInput {
  return { ObjectLockMode: modeWord(mode), ObjectLockRetainUntilDate: new Date(untilMs) };
}

function modeWord(mode: Exclude<S3LockMode, "none">): RetentionMode {
  return mode === "compliance" ? "COMPLIANCE" : "GOVERNANCE";
}

/** What a bucket is made with. */
export interface BucketLock {
  readonly isEnabled: boolean;
  /** What the bucket itself locks everything with that is put. */
  readonly defaultRetention: DefaultRetention | undefined;
}

/** Asks the bucket. Errors are the SDK's. */
export async function readBucketLock(
  client: S3Client,
  { bucket }: S3Settings,
): Promise<BucketLock> {
  try {
    const { ObjectLockConfiguration: lock } = await client.send(
      new GetObjectLockConfigurationCommand({ Bucket: bucket }),
    );
    return {
      isEnabled: lock?.ObjectLockEnabled === "Enabled",
      defaultRetention: lock?.Rule?.DefaultRetention,
    };
  } catch (error) {
    const none = /ObjectLockConfigurationNotFound|InvalidRequest|NotImplemented|NoSuchObjectLock/;
    if (!none.test(serviceCode(error))) throw error;
    return { isEnabled: false, defaultRetention: undefined };
  }
}

/** Config where the storage is to lock its objects and the bucket cannot. */
export async function requireBucketLock(client: S3Client, settings: S3Settings): Promise<void> {
  if (settings.objectLock === undefined || settings.objectLock.mode === "none") return;
  const { location } = settings;
  let lock: BucketLock;
  try {
    lock = await readBucketLock(client, settings);
  } catch (error) {
    throw s3Error(error, location, "asking for its object lock");
  }
  if (lock.isEnabled) return;
  throw new AshlarError(
    ErrorCode.Config,
    `${location}: the option objectLockMode needs a bucket with object lock, which this one was made without`,
    {
      remedy:
        "make a bucket with object lock (aws s3api create-bucket --object-lock-enabled-for-bucket ...), or leave the option out",
    },
  );
}

/** A lock as an object has it. */
export interface Retention {
  readonly untilMs: number;
  readonly mode: RetentionMode | undefined;
  readonly isHeld: boolean;
}

/** The lock of a version (default: the current one). Errors are the SDK's. */
export async function readRetention(
  client: S3Client,
  { bucket }: S3Settings,
  key: string,
  versionId?: string,
): Promise<Retention> {
  const head = await client.send(
    new HeadObjectCommand({ Bucket: bucket, Key: key, VersionId: versionId }),
  );
  return {
    untilMs: head.ObjectLockRetainUntilDate?.getTime() ?? 0,
    mode: head.ObjectLockMode,
    isHeld: head.ObjectLockLegalHoldStatus === "ON",
  };
}

/** Services keep whole seconds. */
const SECOND_MS = 1000;

/**
 * Locks an object until then at least; a longer lock stays. Where a delete marker lies over it, the newest version below. False
 * where nothing is there. Errors are the SDK's.
 */
export async function extendRetention(
  client: S3Client,
  settings: S3Settings,
  key: string,
  untilMs: number,
): Promise<boolean> {
  const mode = modeWord(settings.objectLock?.mode === "compliance" ? "compliance" : "governance");
  const RetainUntilDate = new Date(untilMs);
  const put = async (Mode: RetentionMode, VersionId?: string): Promise<void> => {
    const { $metadata } = await client.send(
      new PutObjectRetentionCommand({
        Bucket: settings.bucket,
        Key: key,
        VersionId,
        Retention: { Mode, RetainUntilDate },
      }),
    );
    if ($metadata.httpStatusCode !== 200) throw new Error("the lock was not answered for");
  };
  let versionId: string | undefined;
  try {
    await put(mode);
    return true;
  } catch (error) {
    const code = serviceCode(error);
    if (code === "NoSuchKey" || code === "MethodNotAllowed") {
      versionId = (await newestVersion(client, settings, key))?.versionId;
      if (versionId === undefined) return false;
    } else if (statusOf(error) !== 403 && statusOf(error) !== 400) throw error;
    // It is locked for longer, in the other mode, or we may not: the service says the same of all of them.
    const found = await readRetention(client, settings, key, versionId);
    if (found.untilMs >= untilMs - SECOND_MS) return true;
    if (versionId === undefined && (found.mode ?? mode) === mode) throw error;
    await put(found.mode ?? mode, versionId);
    return true;
  }
}
