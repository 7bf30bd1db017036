// What a bucket is set up for, and what its service makes of what it is told: beside the trials that every storage goes through.
import {
  GetBucketLifecycleConfigurationCommand,
  GetBucketVersioningCommand,
  HeadBucketCommand,
  type LifecycleRule,
  type S3Client,
} from "@aws-sdk/client-s3";
import { formatDuration } from "#lib/core/size.ts";
import { MARKER_NAME } from "#lib/drivers/storage-marker.ts";
import type { CheckFinding } from "#lib/drivers/storage-check.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Random } from "#lib/ports/random.ts";
import { createS3Client } from "./s3-client.ts";
import { deleteObjects } from "./s3-deletions.ts";
import { s3Error, serviceCode } from "./s3-errors.ts";
import { checkObjectLock } from "./s3-lock-check.ts";
import { s3Put } from "./s3-put.ts";
import { S3_PRESETS } from "./s3-presets.ts";
import type { S3Settings } from "./s3-settings.ts";

/** What the names of a storage's objects begin with. */
const OBJECT_PREFIXES = ["blocks/", "nodes/", "heads/", "stamps/", "keys/", MARKER_NAME];
/** Signatures are refused beyond 15 minutes; whoever is off by a minute will be off by more. */
const SKEW_MS = 60_000;

/** Asks the service and tries it out. */
export async function checkS3(
  settings: S3Settings,
  { clock, random }: { readonly clock: Clock; readonly random: Random },
): Promise<CheckFinding[]> {
  const client = await createS3Client(settings);
  try {
    const service = S3_PRESETS[settings.preset]?.service ?? settings.preset;
    return [
      { check: "service", outcome: "ok", detail: `${service}, ${settings.location}` },
      await checkClock(client, settings, clock),
      await checkVersioning(client, settings),
      await checkLifecycle(client, settings),
      ...(await checkObjectLock({ client, settings, clock, random })),
      await checkChecksum(client, settings, { clock, random }),
    ];
  } finally {
    client.destroy();
  }
}

async function checkClock(
  client: S3Client,
  settings: S3Settings,
  clock: Clock,
): Promise<CheckFinding> {
  const check = "clock";
  let date: string | undefined;
  client.middlewareStack.add(
    (next) => async (args) => {
      const result = await next(args);
      const { headers } = result.response as { headers?: Record<string, string> };
      date ??= headers?.["date"];
      return result;
    },
    { step: "deserialize", name: "ashlarDate", priority: "low" },
  );
  try {
    await client.send(new HeadBucketCommand({ Bucket: settings.bucket }));
  } catch (error) {
    return failed(check, settings, error, "looking at the bucket");
  } finally {
    client.middlewareStack.remove("ashlarDate");
  }
  const atMs = date === undefined ? Number.NaN : Date.parse(date);
  if (Number.isNaN(atMs)) return { check, outcome: "unknown", detail: "the service tells no date" };
  const skewMs = Math.abs(clock.now() - atMs);
  return skewMs < SKEW_MS
    ? { check, outcome: "ok", detail: "" }
    : {
        check,
        outcome: "warning",
        detail: `this machine's differs by ${formatDuration(skewMs)}; from 15 minutes on everything is refused`,
      };
}

async function checkVersioning(client: S3Client, settings: S3Settings): Promise<CheckFinding> {
  const check = "versioning";
  try {
    const { Status } = await client.send(
      new GetBucketVersioningCommand({ Bucket: settings.bucket }),
    );
    if (settings.objectLock !== undefined && Status === "Enabled") {
      return { check, outcome: "ok", detail: "on: objects are deleted by version" };
    }
    return Status === undefined
      ? { check, outcome: "ok", detail: "off" }
      : {
          check,
          outcome: "warning",
          detail:
            Status === "Enabled"
              ? "on: what is deleted stays and is paid for, until a lifecycle rule expires noncurrent versions"
              : "suspended: what was there before stays and is paid for",
        };
  } catch (error) {
    return unknown(check, settings, error, "asking for its versioning");
  }
}

async function checkLifecycle(client: S3Client, settings: S3Settings): Promise<CheckFinding> {
  const check = "lifecycle rules";
  try {
    const { Rules = [] } = await client.send(
      new GetBucketLifecycleConfigurationCommand({ Bucket: settings.bucket }),
    );
    const harmful = Rules.filter((rule) => isHarmful(rule, settings.prefix));
    if (harmful.length === 0)
      return {
        check,
        outcome: "ok",
        detail: Rules.length === 0 ? "none" : "none that touches objects in use",
      };
    const names = harmful.map(({ ID = "without a name" }) => ID).join(", ");
    return {
      check,
      outcome: "failed",
      detail: `${names}: objects in use would be deleted, or moved where they cannot be read; take the rule off`,
    };
  } catch (error) {
    if (serviceCode(error) === "NoSuchLifecycleConfiguration")
      return { check, outcome: "ok", detail: "none" };
    return unknown(check, settings, error, "asking for its lifecycle rules");
  }
}

/** Whether a rule deletes or archives current objects below the prefix. */
function isHarmful(rule: LifecycleRule, prefix: string): boolean {
  if (rule.Status !== "Enabled") return false;
  const of = rule.Filter?.Prefix ?? rule.Filter?.And?.Prefix ?? rule.Prefix ?? "";
  // A rule for tagged objects alone: ours have no tags.
  if (rule.Filter?.Tag !== undefined || (rule.Filter?.And?.Tags ?? []).length > 0) return false;
  const touches = OBJECT_PREFIXES.some(
    (name) => (prefix + name).startsWith(of) || of.startsWith(prefix + name),
  );
  if (!touches) return false;
  const { Expiration, Transitions = [] } = rule;
  const expires = Expiration?.Days !== undefined || Expiration?.Date !== undefined;
  const archives = Transitions.some(({ StorageClass = "" }) =>
    ["GLACIER", "DEEP_ARCHIVE"].includes(StorageClass),
  );
  return expires || archives;
}

/** A put whose checksum is of other bytes must be refused. */
async function checkChecksum(
  client: S3Client,
  settings: S3Settings,
  { clock, random }: { readonly clock: Clock; readonly random: Random },
): Promise<CheckFinding> {
  const check = "checksum";
  const { checksum } = settings;
  if (checksum === "none") {
    return {
      check,
      outcome: "warning",
      detail: "none is sent: bytes that change on the way are found by scrubs only",
    };
  }
  const name = `stamps/probe.${random.bytes(8).toString("hex")}`;
  try {
    const bytes = random.bytes(1000);
    const checksumOf = Buffer.from("other bytes");
    await s3Put(client, settings, { name, bytes, isCreate: false, checksumOf });
  } catch (error) {
    if (
      /BadDigest|InvalidDigest|InvalidRequest|XAmzContentChecksumMismatch|Mismatch/.test(
        serviceCode(error),
      )
    ) {
      return { check, outcome: "ok", detail: checksum };
    }
    return failed(check, settings, error, "putting an object with a wrong checksum");
  }
  const checkLately = (): Promise<void> => Promise.resolve();
  await deleteObjects({ client, settings, clock, checkLately }, [name]);
  return {
    check,
    outcome: "warning",
    detail: `the service does not look at ${checksum}: try another value of the option checksum, such as signature`,
  };
}

function failed(check: string, settings: S3Settings, error: unknown, doing: string): CheckFinding {
  return { check, outcome: "failed", detail: messageOf(error, settings, doing) };
}

function unknown(check: string, settings: S3Settings, error: unknown, doing: string): CheckFinding {
  return { check, outcome: "unknown", detail: messageOf(error, settings, doing) };
}

function messageOf(error: unknown, settings: S3Settings, doing: string): string {
  return (s3Error(error, settings.location, doing) as Error).message;
}
