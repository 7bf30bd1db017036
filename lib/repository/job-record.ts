// What coordinators remember of a job. It is work to be done, never a promise about data: those are the sessions' and versions'.
import type { ErrorCode } from "#lib/core/errors.ts";
import type { Token } from "#lib/core/ids.ts";

/** *queued* until a coordinator takes it, and again after a passing failure; the last three are final. */
export type JobState = "queued" | "running" | "done" | "failed" | "cancelled";

/** Why a job failed, or has to be tried again. */
export interface JobError {
  readonly code: ErrorCode;
  readonly message: string;
  readonly remedy?: string;
  readonly details?: Readonly<Record<string, unknown>>;
}

/** `job/<id>`. */
export interface JobRecord {
  readonly kind: string;
  /** What is to be done, as it was submitted and checked. */
  readonly spec: Readonly<Record<string, unknown>>;
  readonly state: JobState;
  /** Who says that he submitted it. */
  readonly submitter: string | undefined;
  readonly submittedMs: number;
  /** Submitting again under the same key gives the same job. */
  readonly key: string | undefined;
  readonly startedMs: number | undefined;
  readonly endedMs: number | undefined;
  /** How often it was begun. */
  readonly attempts: number;
  /** The coordinator that runs it, and the token under which it may say what has become of it. */
  readonly owner: string | undefined;
  readonly token: Token | undefined;
  /** It is to be stopped. */
  readonly isCancelled: boolean;
  /** Not begun again before. */
  readonly notBeforeMs: number;
  /** Locks that it holds while it runs. */
  readonly locks: readonly string[];
  readonly result: Readonly<Record<string, unknown>> | undefined;
  /** Of the last try. */
  readonly error: JobError | undefined;
  /** Of a scrub: what was verified then or later was verified by one of its tries. */
  readonly cycleMs?: number;
}
