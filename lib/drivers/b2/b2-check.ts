// What a bucket and a key are set up for, and whether B2 holds bytes against their SHA-1: beside the trials that every storage goes through.
import type { CheckFinding } from "#lib/drivers/storage-check.ts";
import type { Random } from "#lib/ports/random.ts";
import { B2Client, type B2Bucket } from "./b2-client.ts";
import { b2Error, NEEDED_CAPABILITIES } from "./b2-errors.ts";
import { B2Failure } from "./b2-failure.ts";
import { deleteFile } from "./b2-files.ts";
import type { B2Settings } from "./b2-settings.ts";

/** Asks B2 and tries it out. */
export async function checkB2(
  settings: B2Settings,
  { random }: { readonly random: Random },
): Promise<CheckFinding[]> {
  const client = await B2Client.open(settings);
  try {
    return [
      { check: "service", outcome: "ok", detail: `Backblaze B2, ${settings.location}` },
      checkCapabilities(await client.capabilities()),
      ...(await checkBucket(client)),
      await checkSha1(client, random),
    ];
  } finally {
    client.close();
  }
}

function checkCapabilities(allowed: readonly string[]): CheckFinding {
  const check = "capabilities";
  const missing = NEEDED_CAPABILITIES.filter((capability) => !allowed.includes(capability));
  return missing.length === 0
    ? { check, outcome: "ok", detail: "" }
    : {
        check,
        outcome: "failed",
        detail: `the key lacks ${missing.join(", ")}: make one that has ${missing.length === 1 ? "it" : "them"}`,
      };
}

async function checkBucket(client: B2Client): Promise<CheckFinding[]> {
  const { prefix, location } = client.settings;
  try {
    const bucket = await client.bucket();
    return [
      checkType(bucket),
      checkLifecycle(bucket, prefix),
      checkEncryption(bucket),
      checkFileLock(bucket),
    ];
  } catch (error) {
    const { message } = b2Error(error, location, "asking how the bucket is set up") as Error;
    return [{ check: "bucket", outcome: "unknown", detail: message }];
  }
}

function checkType({ bucketType }: B2Bucket): CheckFinding {
  const check = "bucket type";
  if (bucketType === "allPrivate") return { check, outcome: "ok", detail: bucketType };
  const detail =
    bucketType === "allPublic"
      ? "allPublic: everybody can read what is stored here, encrypted as it is; make it private"
      : `${bucketType}: expected allPrivate`;
  return { check, outcome: "warning", detail };
}

/** A rule that deletes what is hidden touches nothing in use; one that hides does (https://www.backblaze.com/docs/cloud-storage-lifecycle-rules). */
function checkLifecycle({ lifecycleRules = [] }: B2Bucket, prefix: string): CheckFinding {
  const check = "lifecycle rules";
  const harmful = lifecycleRules.filter(({ fileNamePrefix: of, daysFromUploadingToHiding }) => {
    const isForUs = of.startsWith(prefix) || prefix.startsWith(of);
    return isForUs && typeof daysFromUploadingToHiding === "number";
  });
  if (harmful.length === 0) {
    const detail = lifecycleRules.length === 0 ? "none" : "none that touches objects in use";
    return { check, outcome: "ok", detail };
  }
  const rules = harmful.map(
    ({ fileNamePrefix, daysFromUploadingToHiding: days }) =>
      `${JSON.stringify(fileNamePrefix)} after ${days} ${days === 1 ? "day" : "days"}`,
  );
  return {
    check,
    outcome: "failed",
    detail: `${rules.join(", ")}: objects in use would be hidden, and then deleted; take the rule off`,
  };
}

function checkEncryption({ defaultServerSideEncryption: setting }: B2Bucket): CheckFinding {
  const check = "default encryption";
  if (setting?.isClientAuthorizedToRead !== true) return mayNotRead(check, "readBucketEncryption");
  const { mode, algorithm } = setting.value ?? {};
  const parts = [mode, algorithm].filter((part) => typeof part === "string");
  return { check, outcome: "ok", detail: parts.length === 0 ? "none" : parts.join(" ") };
}

function checkFileLock({ fileLockConfiguration: setting }: B2Bucket): CheckFinding {
  const check = "file lock";
  if (setting?.isClientAuthorizedToRead !== true) return mayNotRead(check, "readBucketRetentions");
  if (setting.value?.isFileLockEnabled !== true) return { check, outcome: "ok", detail: "off" };
  const { mode, period } = setting.value.defaultRetention ?? {};
  if (typeof mode !== "string" || period === null || period === undefined) {
    return { check, outcome: "ok", detail: "possible; no default retention" };
  }
  return {
    check,
    outcome: "warning",
    detail: `every object is kept for ${period.duration} ${period.unit} (${mode}): what is collected earlier cannot be deleted until then`,
  };
}

function mayNotRead(check: string, capability: string): CheckFinding {
  return { check, outcome: "unknown", detail: `the key lacks ${capability}` };
}

/** A put whose SHA-1 is of other bytes must be refused. */
async function checkSha1(client: B2Client, random: Random): Promise<CheckFinding> {
  const check = "checksum";
  const { prefix, location } = client.settings;
  const fileName = `${prefix}stamps/probe.${random.bytes(8).toString("hex")}`;
  try {
    await client.upload(fileName, random.bytes(1000), undefined, random.bytes(20).toString("hex"));
  } catch (error) {
    if (error instanceof B2Failure && error.status === 400) {
      return { check, outcome: "ok", detail: "SHA-1" };
    }
    const doing = "putting an object with a wrong checksum";
    const { message } = b2Error(error, location, doing) as Error;
    return { check, outcome: "failed", detail: message };
  }
  await deleteFile(client, fileName).catch(() => undefined);
  const detail =
    "the service does not look at SHA-1: bytes that change on the way are found by scrubs only";
  return { check, outcome: "warning", detail };
}
