// ashlar schedule: jobs that are submitted at the times of a cron expression.
import type { Command } from "commander";
import { parseJobWords } from "#services/coordinator/jobs/job-spec.ts";
import type { ScheduleDocument } from "#services/coordinator/jobs/schedules.ts";
import { formatTable } from "../output.ts";
import type { Act } from "../program.ts";
import { formatDate } from "../version-document.ts";
import { submitter, withJobs } from "../with-jobs.ts";

const ADD_HELP = `
CRON has five fields (minute, hour, day of month, month, day of week), or is @hourly, @daily, @weekly or
@monthly. JOB is written as for submit. A run is left out while the job of the run before has not ended; what
is missed while no coordinator is there is made up for once. A schedule of the same name is replaced.

Examples:
  ashlar schedule add vm1-nightly "30 2 * * *" backup volume=vm1 source=/dev/vg0/vm1 host=hv3
  ashlar schedule add --timezone Europe/Berlin weekly-gc "0 6 * * 0" gc sweep=true
  ashlar schedule add keep "@daily" enforce rules=latest3,days7,weeks4`;

/** Adds the verbs. */
export function addSchedule(program: Command, act: Act): void {
  const schedule = program
    .command("schedule")
    .summary("submit jobs at certain times")
    .description("Sets, lists and removes schedules of jobs.")
    .addHelpText("after", "\nExamples:\n  ashlar schedule ls\n  ashlar schedule rm vm1-nightly");
  addAdd(schedule, act);
  schedule
    .command("ls")
    .summary("list schedules")
    .description("Lists the schedules, and when each is due next.")
    .addHelpText("after", "\nExamples:\n  ashlar schedule ls --json")
    .action(
      act(async (context) => {
        await withJobs(context, async (client) => {
          const { schedules } = await client.ask<{ schedules: ScheduleDocument[] }>(
            "schedules",
            {},
          );
          context.output.result({ schedules }, () => table(schedules));
        });
      }),
    );
  schedule
    .command("rm")
    .summary("remove a schedule")
    .description("Removes a schedule. Jobs that were submitted go on.")
    .argument("<name>", "name of the schedule")
    .addHelpText("after", "\nExamples:\n  ashlar schedule rm vm1-nightly")
    .action(
      act(async (context, name: string) => {
        await withJobs(context, async (client) => {
          const removed = await client.ask<object>("unschedule", { name });
          context.output.result(removed, () => [`removed ${name}`]);
        });
      }),
    );
}

function addAdd(schedule: Command, act: Act): void {
  schedule
    .command("add")
    .summary("set a schedule")
    .description("Sets a schedule and tells when it is due first.")
    .argument("<name>", "name of the schedule")
    .argument("<cron>", "when: a cron expression")
    .argument("<job...>", "a kind and its fields, or JSON")
    .option("--timezone <zone>", "of the cron expression, as Europe/Berlin; default: UTC")
    .addHelpText("after", ADD_HELP)
    .action(
      act(
        async (
          context,
          name: string,
          cron: string,
          words: string[],
          { timezone }: { readonly timezone?: string },
        ) => {
          const job = parseJobWords(words);
          await withJobs(context, async (client) => {
            const document = await client.ask<ScheduleDocument>("schedule", {
              name,
              cron,
              ...(timezone === undefined ? {} : { timezone }),
              submitter: submitter(),
              job,
            });
            context.output.result(document, () => [
              `${name}: due next on ${formatDate(Date.parse(document.next))}`,
            ]);
          });
        },
      ),
    );
}

function table(schedules: readonly ScheduleDocument[]): string[] {
  if (schedules.length === 0) return ["no schedules"];
  return formatTable(
    [{ head: "name" }, { head: "when" }, { head: "next" }, { head: "last job" }, { head: "job" }],
    schedules.map(({ name, cron, timezone, next, lastJob, skipped, job }) => [
      name,
      `${cron} ${timezone}`,
      formatDate(Date.parse(next)),
      `${lastJob ?? "none yet"}${skipped === 0 ? "" : ` (${skipped} left out since)`}`,
      JSON.stringify(job),
    ]),
  );
}
