// Deleting objects of a bucket: by name, or, where the bucket keeps versions, each version of a name.
import { DeleteObjectCommand, DeleteObjectsCommand, type S3Client } from "@aws-sdk/client-s3";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { blobLocked } from "#lib/drivers/blob-errors.ts";
import type { Clock } from "#lib/ports/clock.ts";
import { isNoSuchKey, s3Error, serviceCode, statusOf, unexpectedAnswer } from "./s3-errors.ts";
import { readRetention } from "./s3-object-lock.ts";
import type { S3Settings } from "./s3-settings.ts";
import { versionsOf } from "./s3-versions.ts";

const NO_CONTENT = 204;
/** Names that one request deletes. */
const DELETE_MAX = 1000;
/** Requests under way at once. */
const AT_ONCE = 16;
/** By so much a service's clock may differ from ours, in ms: a lock that ran out longer ago is no reason for a refusal. */
const SKEW_MS = 5000;

/** One thing to delete; without a version where the bucket keeps none. */
interface Target {
  readonly name: string;
  readonly versionId: string | undefined;
  readonly sizeBytes: number;
}

/** How objects are deleted. */
export interface S3DeletionOptions {
  readonly client: S3Client;
  readonly settings: S3Settings;
  readonly clock: Clock;
  /** Throws unless the storage was there lately. */
  readonly checkLately: () => Promise<void>;
}

/** Deletes objects; the result names those that could not be, with their error. */
export async function deleteObjects(
  options: S3DeletionOptions,
  names: readonly string[],
): Promise<ReadonlyMap<string, Error>> {
  const deletion = new Deletion(options);
  const most = options.settings.multiDelete ? DELETE_MAX : 1;
  await inParallel(chunks(names, most), (batch) => deletion.run(batch));
  return deletion.failures;
}

function chunks<T>(items: readonly T[], most: number): T[][] {
  const out: T[][] = [];
  for (let at = 0; at < items.length; at += most) out.push(items.slice(at, at + most));
  return out;
}

/** Does it for all, some at once. */
export async function inParallel<T>(
  items: readonly T[],
  work: (item: T) => Promise<void>,
): Promise<void> {
  const left = items.toReversed();
  const worker = async (): Promise<void> => {
    for (let item = left.pop(); item !== undefined; item = left.pop()) await work(item);
  };
  await Promise.all(Array.from({ length: Math.min(AT_ONCE, left.length) }, worker));
}

class Deletion {
  readonly failures = new Map<string, Error>();
  readonly #options: S3DeletionOptions;

  constructor(options: S3DeletionOptions) {
    this.#options = options;
  }

  async run(names: readonly string[]): Promise<void> {
    const { settings, checkLately } = this.#options;
    try {
      await checkLately();
      const targets =
        settings.objectLock === undefined
          ? names.map((name) => ({ name, versionId: undefined, sizeBytes: 0 }))
          : await this.#versions(names);
      const failed = new Map<Target, unknown>();
      for (const batch of chunks(targets, settings.multiDelete ? DELETE_MAX : 1)) {
        await this.#deleteBatch(batch, failed);
      }
      await this.#explain(failed);
    } catch (error) {
      for (const name of names) this.#fail(name, error);
    }
  }

  /** Every version of the names, and every delete marker. */
  async #versions(names: readonly string[]): Promise<Target[]> {
    const { client, settings } = this.#options;
    const targets: Target[] = [];
    await inParallel(names, async (name) => {
      const versions = await versionsOf(client, settings, settings.prefix + name);
      for (const { versionId, sizeBytes } of versions) targets.push({ name, versionId, sizeBytes });
    });
    return targets;
  }

  async #deleteBatch(targets: readonly Target[], failed: Map<Target, unknown>): Promise<void> {
    if (this.#options.settings.multiDelete) {
      await this.#deleteMany(targets, failed);
      return;
    }
    for (const target of targets) {
      await this.#deleteOne(target).catch((error: unknown) => failed.set(target, error));
    }
  }

  async #deleteOne({ name, versionId }: Target): Promise<void> {
    const { client, settings } = this.#options;
    try {
      const { $metadata } = await client.send(
        new DeleteObjectCommand({
          Bucket: settings.bucket,
          Key: settings.prefix + name,
          VersionId: versionId,
        }),
      );
      if ($metadata.httpStatusCode !== NO_CONTENT) {
        throw unexpectedAnswer(`a deletion was answered with ${$metadata.httpStatusCode}`);
      }
    } catch (error) {
      if (!isNoSuchKey(error) && serviceCode(error) !== "NoSuchVersion") throw error;
    }
  }

  /** What is not named as deleted is not: an answer of whatever else gives no names. */
  async #deleteMany(targets: readonly Target[], failed: Map<Target, unknown>): Promise<void> {
    const { client, settings } = this.#options;
    const label = (key: string, versionId: string | undefined): string =>
      `${key}\n${versionId ?? ""}`;
    const left = new Map(
      targets.map((target) => [label(settings.prefix + target.name, target.versionId), target]),
    );
    const { Deleted = [], Errors = [] } = await client.send(
      new DeleteObjectsCommand({
        Bucket: settings.bucket,
        Delete: {
          Quiet: false,
          Objects: targets.map(({ name, versionId }) => ({
            Key: settings.prefix + name,
            VersionId: versionId,
          })),
        },
      }),
    );
    const isVersioned = settings.objectLock !== undefined;
    for (const { Key = "", VersionId } of Deleted) {
      left.delete(label(Key, isVersioned ? VersionId : undefined));
    }
    for (const { Key = "", VersionId, Code = "", Message = "" } of Errors) {
      const at = label(Key, isVersioned ? VersionId : undefined);
      const target = left.get(at);
      left.delete(at);
      if (target === undefined || Code === "NoSuchKey" || Code === "NoSuchVersion") continue;
      failed.set(target, Object.assign(new Error(Message), { name: Code }));
    }
    const silence = unexpectedAnswer("nothing was said of what became of an object");
    for (const target of left.values()) failed.set(target, silence);
  }

  /** Of a refusal the service does not say whether a lock is the reason. */
  async #explain(failed: ReadonlyMap<Target, unknown>): Promise<void> {
    const locked = new Map<string, { untilMs: number; sizeBytes: number }>();
    await inParallel([...failed], async ([target, error]) => {
      const { name, sizeBytes } = target;
      const untilMs = await this.#lockedUntil(target, error);
      if (untilMs === undefined) {
        this.#fail(name, error);
        return;
      }
      const before = locked.get(name) ?? { untilMs: 0, sizeBytes: 0 };
      locked.set(name, {
        untilMs: Math.max(before.untilMs, untilMs),
        sizeBytes: before.sizeBytes + sizeBytes,
      });
    });
    const { location } = this.#options.settings;
    for (const [name, lock] of locked) {
      // What cannot be deleted for another reason as well waits for nothing.
      if (!this.failures.has(name)) this.failures.set(name, blobLocked(location, name, lock));
    }
  }

  /** Until when a version that was not deleted is locked; undefined where that is not why. */
  async #lockedUntil({ name, versionId }: Target, error: unknown): Promise<number | undefined> {
    const { client, settings, clock } = this.#options;
    if (versionId === undefined || !isRefusal(error)) return undefined;
    try {
      const key = settings.prefix + name;
      const { untilMs, isHeld } = await readRetention(client, settings, key, versionId);
      if (isHeld) {
        throw new AshlarError(
          ErrorCode.Refused,
          `${settings.location}: object ${name} is under a legal hold, which somebody else has put on it`,
          { remedy: "take the legal hold off", details: { name } },
        );
      }
      return untilMs > clock.now() - SKEW_MS ? untilMs : undefined;
    } catch (problem) {
      if (problem instanceof AshlarError) this.#fail(name, problem);
      return undefined;
    }
  }

  /** The first error of a name stays. */
  #fail(name: string, error: unknown): void {
    if (this.failures.has(name)) return;
    const doing = `deleting ${name}`;
    this.failures.set(name, s3Error(error, this.#options.settings.location, doing) as Error);
  }
}

function isRefusal(error: unknown): boolean {
  const status = statusOf(error);
  return (
    status === 403 ||
    status === 400 ||
    /^(?:AccessDenied|InvalidRequest|ObjectLocked|Forbidden)$/.test(serviceCode(error))
  );
}
