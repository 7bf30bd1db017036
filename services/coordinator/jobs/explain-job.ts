// Where the time of a job went, as people ask for it: shares of the time from its submission to its end.
/** A job as the service tells it, as far as it matters here. */
export interface ExplainedJob {
  readonly submitted: string;
  readonly started: string | null;
  readonly ended: string | null;
  readonly result?: Readonly<Record<string, unknown>>;
}

/** One share. */
export interface Share {
  readonly stage: string;
  readonly ms: number;
  /** Of the whole, 0 to 1. */
  readonly share: number;
}

/**
 * The shares, the largest first; they add up to the whole. What no stage accounts for (tries before the last one, what a
 * coordinator does between the stages) is *other*.
 * @param nowMs in the place of the end of a job that has not ended
 */
export function explainJob(job: ExplainedJob, nowMs: number): readonly Share[] {
  const submittedMs = Date.parse(job.submitted);
  const startedMs = job.started === null ? nowMs : Date.parse(job.started);
  const endedMs = job.ended === null ? nowMs : Date.parse(job.ended);
  const wholeMs = Math.max(1, endedMs - submittedMs);
  const stages: [string, number][] = [["waiting to begin", startedMs - submittedMs]];
  const told = (job.result?.["stages"] ?? {}) as Readonly<Record<string, unknown>>;
  for (const [stage, ms] of Object.entries(told)) {
    if (typeof ms === "number") stages.push([stage, ms]);
  }
  const sum = stages.reduce((total, [, ms]) => total + ms, 0);
  stages.push(["other", Math.max(0, wholeMs - sum)]);
  return stages
    .filter(([, ms]) => ms > 0)
    .map(([stage, ms]) => ({ stage, ms, share: ms / wholeMs }))
    .toSorted((a, b) => b.ms - a.ms);
}
