// What commands about jobs do first and last: reach the service of the coordinators, and leave it.
import { hostname, userInfo } from "node:os";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { JobClient } from "#lib/process/job-client.ts";
import type { CommandContext } from "./context.ts";

/** Runs `work` with a connection to the jobs service. */
export async function withJobs(
  context: CommandContext,
  work: (client: JobClient) => Promise<void>,
): Promise<void> {
  const { loadClusterConfig } = await import("#lib/process/config-file.ts");
  const { connectJobs } = await import("#lib/process/job-client.ts");
  const { env, cwd, options, log } = context;
  const { config } = await loadClusterConfig(options.config, { env, cwd, hostname: hostname() });
  context.configureLog(config.log);
  if (config.nats === undefined) {
    throw new AshlarError(ErrorCode.Config, `${config.file}: there is no cluster without nats`, {
      remedy: "add nats: { servers: [nats://HOST:4222] }",
    });
  }
  const client = await connectJobs(config.nats, { host: config.host, log });
  try {
    await work(client);
  } finally {
    await client.close();
  }
}

/** Who submits, for the history of jobs. */
export function submitter(): string {
  try {
    return `${userInfo().username}@${hostname()}`;
  } catch {
    // A user without a name, as in some containers.
    return hostname();
  }
}
