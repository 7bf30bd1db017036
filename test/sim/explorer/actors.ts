// All that can happen in a state, in a fixed order: a step is known by its position.
import { collectorSteps, deletionSteps, sweepSteps } from "./collector-steps.ts";
import { readerSteps } from "./reader-steps.ts";
import { duplicateSteps, lateRequestSteps, sessionSteps, storageSteps } from "./session-steps.ts";
import type { Situation, Step } from "./step.ts";
import { fillSteps, lossSteps, scrubSteps } from "./upkeep-steps.ts";
import { lateJobSteps } from "./writer-steps.ts";

/** The steps of all actors. */
export function actorSteps(situation: Situation): Step[] {
  const steps = [
    ...sessionSteps(situation),
    ...readerSteps(situation),
    ...lateJobSteps(situation),
    ...collectorSteps(situation),
    ...deletionSteps(situation),
    ...sweepSteps(situation),
    ...fillSteps(situation),
    ...scrubSteps(situation),
    ...lossSteps(situation),
    ...storageSteps(situation),
  ];
  return [...steps, ...duplicateSteps(situation, steps), ...lateRequestSteps(situation)];
}
