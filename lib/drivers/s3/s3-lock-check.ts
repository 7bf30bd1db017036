// Trials of object lock, with locks of some seconds: nothing of them stays.
import type { S3Client } from "@aws-sdk/client-s3";
import { AshlarError } from "#lib/core/errors.ts";
import { formatDuration } from "#lib/core/size.ts";
import type { CheckFinding } from "#lib/drivers/storage-check.ts";
import { lockOf } from "#lib/ports/blob-store.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Random } from "#lib/ports/random.ts";
import { deleteObjects } from "./s3-deletions.ts";
import { s3Error } from "./s3-errors.ts";
import { extendRetention, readBucketLock, readRetention } from "./s3-object-lock.ts";
import { s3Put } from "./s3-put.ts";
import type { S3Settings } from "./s3-settings.ts";

/** Where and with what it is tried. */
export interface LockCheckOptions {
  readonly client: S3Client;
  readonly settings: S3Settings;
  readonly clock: Clock;
  readonly random: Random;
}

const DAY_MS = 86_400_000;
/** How long the object of the trial is locked, and how much longer then, in ms. */
const LOCK_MS = 4000;
const MORE_MS = 1000;
/** Services keep whole seconds, and their clocks are not ours. */
const SLACK_MS = 1500;
/** A lock is tried again for so long after it should have run out. */
const LATE_MS = 10_000;

/** What the bucket says about its lock, and, where the storage uses it, whether it keeps what it says. */
export async function checkObjectLock(options: LockCheckOptions): Promise<CheckFinding[]> {
  const { client, settings } = options;
  const check = "object lock";
  try {
    const { isEnabled, defaultRetention: retention } = await readBucketLock(client, settings);
    const lock = settings.objectLock;
    const isUsed = lock !== undefined && lock.mode !== "none";
    if (!isEnabled) {
      return isUsed
        ? [{ check, outcome: "failed", detail: "the bucket was made without it" }]
        : [{ check, outcome: "ok", detail: "off" }];
    }
    const findings: CheckFinding[] = [tellUse(settings)];
    if (retention !== undefined) {
      const period =
        retention.Days === undefined ? `${retention.Years} years` : `${retention.Days} days`;
      findings.push({
        check: "default retention",
        outcome: "warning",
        detail: `the bucket itself locks every object for ${period} (${retention.Mode}), stamps and what a check puts too: take it off, for the storage locks what it needs`,
      });
    }
    return isUsed ? [...findings, ...(await new LockTrial(options).run())] : findings;
  } catch (error) {
    return [
      {
        check,
        outcome: "unknown",
        detail: messageOf(error, settings, "asking for its object lock"),
      },
    ];
  }
}

function tellUse({ objectLock: lock }: S3Settings): CheckFinding {
  const check = "object lock";
  if (lock === undefined) {
    return {
      check,
      outcome: "warning",
      detail:
        "possible, and not used: what is deleted stays; set objectLockMode, or objectLockMode=none for deleting it by version",
    };
  }
  if (lock.mode === "none") return { check, outcome: "ok", detail: "possible, and not used" };
  const detail = `${lock.mode}, for ${formatDuration(lock.periodMs)}`;
  return lock.periodMs < DAY_MS
    ? { check, outcome: "warning", detail: `${detail}: less than a day protects little` }
    : { check, outcome: "ok", detail };
}

function messageOf(error: unknown, { location }: S3Settings, doing: string): string {
  return (s3Error(error, location, doing) as Error).message;
}

/** What is wrong with the lock, in words. */
class Wrong extends Error {
  override readonly name = "Wrong";
}

class LockTrial {
  readonly #options: LockCheckOptions;
  readonly #findings: CheckFinding[] = [];
  readonly #name: string;
  readonly #key: string;
  #untilMs = 0;

  constructor(options: LockCheckOptions) {
    this.#options = options;
    this.#name = `stamps/probe.${options.random.bytes(8).toString("hex")}`;
    this.#key = options.settings.prefix + this.#name;
  }

  async run(): Promise<CheckFinding[]> {
    const { client, settings, clock } = this.#options;
    const isLocked = await this.#try("retention at put", async () => {
      this.#untilMs = clock.now() + LOCK_MS;
      const put = { name: this.#name, bytes: Buffer.from("locked"), isCreate: false };
      await s3Put(client, settings, { ...put, lockUntilMs: this.#untilMs });
      await this.#requireLock();
    });
    if (isLocked) {
      await this.#try("early delete", () => this.#requireRefusal());
      await this.#try("extension", async () => {
        this.#untilMs += MORE_MS;
        if (!(await extendRetention(client, settings, this.#key, this.#untilMs)))
          throw new Wrong("what was just put is not there");
        await this.#requireLock();
      });
    }
    await this.#try("late delete", () => this.#clean());
    return this.#findings;
  }

  async #requireLock(): Promise<void> {
    const { client, settings } = this.#options;
    const { untilMs, mode = "none" } = await readRetention(client, settings, this.#key);
    if (mode.toLowerCase() !== settings.objectLock?.mode) {
      throw new Wrong(
        `the mode is told as ${mode}: the service does not lock, or s3:GetObjectRetention is not allowed`,
      );
    }
    const offMs = untilMs - this.#untilMs;
    if (Math.abs(offMs) > SLACK_MS) {
      throw new Wrong(
        `it ends ${formatDuration(Math.abs(offMs))} too ${offMs < 0 ? "early" : "late"}`,
      );
    }
  }

  async #requireRefusal(): Promise<void> {
    const error = (await this.#delete()).get(this.#name);
    if (error === undefined) throw new Wrong("an object was deleted before its lock ran out");
    // Not allowed at all, say.
    if (lockOf(error) === undefined) throw error;
  }

  async #clean(): Promise<void> {
    const { clock } = this.#options;
    await clock.sleep(Math.max(0, this.#untilMs - clock.now()));
    const endMs = this.#untilMs + LATE_MS;
    for (;;) {
      const error = (await this.#delete()).get(this.#name);
      if (error === undefined) return;
      if (lockOf(error) === undefined) throw error;
      if (clock.now() >= endMs) throw new Wrong(error.message);
      await clock.sleep(SLACK_MS);
    }
  }

  #delete(): Promise<ReadonlyMap<string, Error>> {
    const checkLately = (): Promise<void> => Promise.resolve();
    return deleteObjects({ ...this.#options, checkLately }, [this.#name]);
  }

  async #try(check: string, work: () => Promise<void>): Promise<boolean> {
    try {
      await work();
      this.#findings.push({ check, outcome: "ok", detail: "" });
      return true;
    } catch (error) {
      const isOurs = error instanceof Wrong || error instanceof AshlarError;
      const detail = isOurs ? error.message : messageOf(error, this.#options.settings, check);
      this.#findings.push({ check, outcome: "failed", detail });
      return false;
    }
  }
}
