// ashlar explain: where the time of a job went.
import type { Command } from "commander";
import { formatDuration } from "#lib/core/size.ts";
import {
  explainJob,
  type ExplainedJob,
  type Share,
} from "#services/coordinator/jobs/explain-job.ts";
import type { Act } from "../program.ts";
import { withJobs } from "../with-jobs.ts";

const HELP = `
Each moment from the submission of the job to its end is counted for the one stage that the job waited for: with
many blocks under way at once, the one that held most of them. Stages of a backup: read, hash, claim, send, seal,
put STORAGE, store transaction, commit; of a restore: fetch, write.

Examples:
  ashlar explain 01a21729b80b681523d5`;

/** Adds the verb. */
export function addExplain(program: Command, act: Act): void {
  program
    .command("explain")
    .summary("tell where the time of a job went")
    .description("Tells where the time of a job went.")
    .argument("<job>", "id of the job")
    .addHelpText("after", HELP)
    .action(
      act(async (context, id: string) => {
        await withJobs(context, async (client) => {
          const job = await client.ask<ExplainedJob>("get", { job: id });
          const shares = explainJob(job, Date.now());
          context.output.result({ job: id, stages: shares }, () => shares.map(line));
        });
      }),
    );
}

function line({ stage, ms, share }: Share): string {
  const percent = (share * 100).toFixed(share < 0.095 ? 1 : 0);
  return `${percent.padStart(4)} %  ${stage} (${formatDuration(ms)})`;
}
