// ashlar enroll, nats-user and revoke: what agents, processes and people need to take part in a cluster, and its end.
import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { Option, type Command } from "commander";
import { stringify } from "yaml";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import type { NatsRole } from "#lib/drivers/nats/nats-users.ts";
import type { NatsConfig } from "#lib/process/cluster-schema.ts";
import type { Config } from "#lib/process/config-file.ts";
import { formatDedupKeyFile } from "#lib/repository/dedup-key-file.ts";
import { collect } from "../option-values.ts";
import type { Act } from "../program.ts";
import { readConfig, withEngine } from "../with-engine.ts";

interface EnrollOptions {
  readonly source?: string[];
  readonly target?: string[];
  readonly natsUsers?: string;
}

interface UserOptions {
  readonly natsUsers: string;
  readonly role: NatsRole;
}

const HELP = `
DIR gets agent.yaml and dedup.key, and with --nats-users agent.nk, the key of a NATS user of the host's own,
which is added to FILE. The NATS servers include that file (infra/nats has examples), and read it again with
\`nats-server --signal reload\`. Bring DIR to the host and start
\`ashlar --config DIR/agent.yaml agent --roles reader\` there. The agent reads what --source allows and
restores onto what --target allows, and nothing else; it cannot read or delete backups.

Examples:
  ashlar enroll hv3 hv3-agent --source '/dev/vg0/*' --target '/dev/vg0/restore-*'
  ashlar enroll hv3 hv3-agent --source '/dev/vg0/*' --nats-users /etc/nats/ashlar-users.conf`;

const USER_HELP = `
KEYFILE gets the user's key: name it as nats.nkeyFile in ashlar.yaml, or give it to \`nats --nkey\`. A client
has inboxes of its own: \`nats --inbox-prefix _INBOX_NAME\`.

Examples:
  ashlar nats-user central /etc/ashlar/central.nk --role core --nats-users /etc/nats/ashlar-users.conf
  ashlar nats-user alice alice.nk --role client --nats-users /etc/nats/ashlar-users.conf`;

const REVOKE_HELP = `
The servers end the user's connections when they read the file again. The dedup key stays: it names contents,
and opens nothing.

Examples:
  ashlar revoke hv3 --nats-users /etc/nats/ashlar-users.conf`;

/** Adds the verbs. */
export function addEnroll(program: Command, act: Act): void {
  addEnrollVerb(program, act);
  program
    .command("nats-user")
    .summary("make a NATS user for a process or a person")
    .description("Adds a user to the file that the NATS servers include, and writes its key.")
    .argument("<name>", "name of the user")
    .argument("<keyfile>", "file for its key; it must not be there yet")
    .addOption(
      new Option("--role <role>", "what it is for")
        .choices(["core", "client"])
        .makeOptionMandatory(),
    )
    .requiredOption("--nats-users <file>", "the file that the NATS servers include")
    .addHelpText("after", USER_HELP)
    .action(
      act(async (context, name: string, keyFile: string, { role, natsUsers }: UserOptions) => {
        const { prefix } = requireNats(await readConfig(context));
        const { addNatsUser } = await import("../nats-users-file.ts");
        const users = path.resolve(context.cwd, natsUsers);
        const file = path.resolve(context.cwd, keyFile);
        await writeNew(file, "", 0o600);
        try {
          await writeFile(file, `${await addNatsUser(users, prefix, { role, name })}\n`);
        } catch (error) {
          await rm(file, { force: true });
          throw error;
        }
        context.output.result({ name, role, files: [file, users] }, () => [file]);
      }),
    );
  program
    .command("revoke")
    .summary("take a NATS user away")
    .description("Takes a user out of the file that the NATS servers include.")
    .argument("<name>", "host of an agent, or name of another user")
    .requiredOption("--nats-users <file>", "the file that the NATS servers include")
    .addHelpText("after", REVOKE_HELP)
    .action(
      act(async (context, name: string, { natsUsers }: Pick<UserOptions, "natsUsers">) => {
        const { prefix } = requireNats(await readConfig(context));
        const { removeNatsUser } = await import("../nats-users-file.ts");
        const users = path.resolve(context.cwd, natsUsers);
        await removeNatsUser(users, prefix, name);
        context.output.result({ name, files: [users] }, () => [`revoked ${name}`]);
      }),
    );
}

function addEnrollVerb(program: Command, act: Act): void {
  program
    .command("enroll")
    .summary("make what the agent of a host needs")
    .description("Writes the configuration and the keys of the agent of HOST into DIR.")
    .argument("<host>", "name of the host")
    .argument("<dir>", "folder for the files; it must not have them yet")
    .option("--source <pattern>", "what it may read (repeatable)", collect)
    .option("--target <pattern>", "what it may restore onto (repeatable)", collect)
    .option("--nats-users <file>", "add a NATS user for it to this file")
    .addHelpText("after", HELP)
    .action(
      act(async (context, host: string, dir: string, options: EnrollOptions) => {
        await withEngine(context, async (engine) => {
          const { keys } = await engine.repository();
          const nats = requireNats(engine.config);
          const folder = path.resolve(context.cwd, dir);
          await makeFolder(folder);
          const file = (name: string): string => path.join(folder, name);
          const files = [
            await writeNew(file("dedup.key"), formatDedupKeyFile(keys), 0o600),
            await writeNew(file("agent.yaml"), agentConfig(nats, host, options), 0o644),
          ];
          if (options.natsUsers !== undefined) {
            const { addNatsUser } = await import("../nats-users-file.ts");
            const users = path.resolve(context.cwd, options.natsUsers);
            const seed = await addNatsUser(users, nats.prefix, { role: "reader", name: host });
            files.push(await writeNew(file("agent.nk"), `${seed}\n`, 0o600), users);
          }
          context.output.result({ host, files }, () => files);
        });
      }),
    );
}

function requireNats(config: Config): NatsConfig {
  if (config.nats !== undefined) return config.nats;
  throw new AshlarError(ErrorCode.Config, `${config.file}: it has no section nats`, {
    remedy: "add nats: { servers: [nats://HOST:4222] }",
  });
}

function agentConfig(nats: NatsConfig, host: string, options: EnrollOptions): string {
  const document = {
    version: 1,
    host,
    dedupKeyFile: "dedup.key",
    nats: {
      servers: nats.servers,
      prefix: nats.prefix,
      ...(options.natsUsers === undefined ? {} : { nkeyFile: "agent.nk" }),
      ...(nats.tls?.caFile === undefined ? {} : { tls: { caFile: nats.tls.caFile } }),
    },
    agent: { sources: options.source ?? [], targets: options.target ?? [] },
  };
  return `# Configuration of the agent of ${host}. Paths are relative to this file.\n${stringify(document)}`;
}

async function makeFolder(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw fromSystemError(error, `making the folder ${folder}`);
  }
}

async function writeNew(file: string, text: string, mode: number): Promise<string> {
  try {
    await writeFile(file, text, { flag: "wx", mode });
  } catch (error) {
    throw fromSystemError(error, `writing ${file}`);
  }
  return file;
}
