// ashlar agent: roles of a cluster in this process.
import { InvalidArgumentError, type Command } from "commander";
import { closestWord } from "#lib/core/closest-word.ts";
import type { AgentRole } from "../agent.ts";
import type { Act } from "../program.ts";

const ROLES = ["reader", "dedup", "writer", "coordinator"] as const satisfies readonly AgentRole[];

const HELP = `
A reader reads and restores the devices that agent.sources and agent.targets of its configuration allow. It
needs no more of the repository than a dedup key file: give it a configuration of its own, with version,
dedupKeyFile, nats and agent. Dedup, writers and coordinators open the metadata; writers and coordinators
also the storages. Any number of each may run, and any may be stopped or killed at any time.

The agent runs until SIGTERM or SIGINT. What it was doing is gone on with elsewhere, or when it is back.

Examples:
  ashlar --config /etc/ashlar/agent.yaml agent --roles reader
  ashlar agent --roles dedup,writer,coordinator`;

/** Adds the verb. */
export function addAgent(program: Command, act: Act): void {
  program
    .command("agent")
    .summary("run roles of a cluster in this process")
    .description("Runs roles of a cluster, joined by NATS, until it is told to stop.")
    .requiredOption(
      "--roles <list>",
      `some of ${ROLES.join(", ")}, separated by commas`,
      parseRoles,
    )
    .addHelpText("after", HELP)
    .action(
      act(async (context, options: { readonly roles: ReadonlySet<AgentRole> }) => {
        const { runAgent } = await import("../agent.ts");
        await runAgent(context, options.roles);
      }),
    );
}

function parseRoles(text: string): ReadonlySet<AgentRole> {
  const words = text
    .split(",")
    .map((word) => word.trim())
    .filter((word) => word !== "");
  const roles = words.map((word) => {
    const role = ROLES.find((each) => each === word);
    if (role !== undefined) return role;
    const similar = closestWord(word, ROLES);
    throw new InvalidArgumentError(
      `There is no role ${JSON.stringify(word)}${similar === undefined ? "" : `; did you mean ${similar}`}? Expected some of ${ROLES.join(", ")}.`,
    );
  });
  if (roles.length === 0) throw new InvalidArgumentError("Expected at least one role.");
  return new Set(roles);
}
