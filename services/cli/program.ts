// The command line: its verbs, the options that hold for all of them, and what happens around a command.
import { Command, CommanderError, Option } from "commander";
import { assert } from "#lib/core/assert.ts";
import {
  wantsColor,
  type CommandContext,
  type GlobalOptions,
  type Surroundings,
} from "./context.ts";
import { exitCodeOf, exitCodesHelp } from "#lib/process/exit-codes.ts";
import { createLog, LOG_FORMATS, LOG_LEVELS, type LogOptions } from "#lib/process/log.ts";
import { Output } from "./output.ts";
import { reportError } from "#lib/process/report-error.ts";
/** What a verb does, with its arguments as commander gives them: operands, then options. */
export type Handler<A extends unknown[]> = (context: CommandContext, ...args: A) => Promise<void>;

/** Makes commander's action of a handler. */
export type Act = <A extends unknown[]>(handler: Handler<A>) => (...args: A) => Promise<void>;

const HELP_HEAD = `Backs up block devices: every unique block once, encrypted, to several storages.`;

const HELP_TAIL = `
A version is named by its uid, by a unique beginning of it, or by VOLUME@latest. The configuration is
looked for at --config, $ASHLAR_CONFIG, ./ashlar.yaml and /etc/ashlar/ashlar.yaml.

Examples:
  ashlar init /srv/ashlar
  ashlar --config /srv/ashlar backup /dev/vg0/web web
  ashlar --config /srv/ashlar restore web@latest web.img

${exitCodesHelp()}`;

/** Adds one verb, or several that belong together. */
type AddVerb = (program: Command, act: Act) => void;

/** The verbs in the order of the help text. Each is loaded when it is wanted, for a command needs one of them. */
const VERBS: readonly (readonly [names: readonly string[], load: () => Promise<AddVerb>])[] = [
  [["init"], async () => (await import("./verbs/init.ts")).addInit],
  [["backup"], async () => (await import("./verbs/backup.ts")).addBackup],
  [["restore"], async () => (await import("./verbs/restore.ts")).addRestore],
  [["ls"], async () => (await import("./verbs/ls.ts")).addLs],
  [["show"], async () => (await import("./verbs/show.ts")).addShow],
  [["diff"], async () => (await import("./verbs/diff.ts")).addDiff],
  [["find"], async () => (await import("./verbs/find.ts")).addFind],
  [["rm"], async () => (await import("./verbs/rm.ts")).addRm],
  [["protect", "unprotect"], async () => (await import("./verbs/protect.ts")).addProtect],
  [["label"], async () => (await import("./verbs/label.ts")).addLabel],
  [["enforce"], async () => (await import("./verbs/enforce.ts")).addEnforce],
  [["scrub"], async () => (await import("./verbs/scrub.ts")).addScrub],
  [["gc"], async () => (await import("./verbs/gc.ts")).addGc],
  [["fsck"], async () => (await import("./verbs/fsck.ts")).addFsck],
  [["rebuild"], async () => (await import("./verbs/rebuild.ts")).addRebuild],
  [["replicate"], async () => (await import("./verbs/replicate.ts")).addReplicate],
  [["usage"], async () => (await import("./verbs/usage.ts")).addUsage],
  [["status"], async () => (await import("./verbs/status.ts")).addStatus],
  [["storage"], async () => (await import("./verbs/storage.ts")).addStorage],
  [["key"], async () => (await import("./verbs/key.ts")).addKey],
  [["submit", "jobs", "watch", "cancel"], async () => (await import("./verbs/jobs.ts")).addJobs],
  [["explain"], async () => (await import("./verbs/explain.ts")).addExplain],
  [["schedule"], async () => (await import("./verbs/schedule.ts")).addSchedule],
  [["agent"], async () => (await import("./verbs/agent.ts")).addAgent],
  [["enroll", "nats-user", "revoke"], async () => (await import("./verbs/enroll.ts")).addEnroll],
  [["kv"], async () => (await import("./verbs/kv.ts")).addKv],
  [["completion"], async () => (await import("./verbs/completion.ts")).addCompletion],
  [["version"], async () => (await import("./verbs/version.ts")).addVersion],
];

/** What needs to know all verbs: help, completion, and a word that is none of them. */
const NEEDS_ALL = new Set(["help", "-h", "--help", "completion"]);

/** As every tool answers them. */
const VERSION_OPTIONS = new Set(["--version", "-V"]);

/** The verbs that a command line may mean: too many never hurt. */
async function loadVerbs(args?: readonly string[]): Promise<AddVerb[]> {
  const named = VERBS.filter(([names]) => names.some((name) => args?.includes(name) === true));
  const isOneOf = named.length > 0 && args?.some((word) => NEEDS_ALL.has(word)) === false;
  return Promise.all((isOneOf ? named : VERBS).map(([, load]) => load()));
}

/** Runs one command line and answers the exit code. */
export async function runProgram(args: readonly string[], world: Surroundings): Promise<number> {
  // Help is written before there is an Output; a pipe that is closed then must not end in a stack trace.
  for (const stream of [world.stdout, world.stderr]) stream.on("error", () => undefined);
  if (args.length === 1 && args.some((arg) => VERSION_OPTIONS.has(arg)))
    return await runProgram(["version"], world);
  const verbs = await loadVerbs(args);
  const outcome = await runWith(verbs, args, world);
  if (outcome !== "unknown") return outcome;
  // One of the words is a verb, but not the one that stands in the verb's place: all are needed to say what was meant.
  const second = await runWith(await loadVerbs(), args, world);
  assert(second !== "unknown", "with all verbs loaded, the answer is final");
  return second;
}

async function runWith(
  verbs: readonly AddVerb[],
  args: readonly string[],
  world: Surroundings,
): Promise<number | "unknown"> {
  let context: CommandContext | undefined;
  const act: Act =
    (handler) =>
    async (...values) => {
      context = createContext(program.opts(), world);
      await handler(context, ...values);
      await context.output.finish();
    };
  // What commander says on stderr: its errors, which are told by the one handler, and help that nobody asked for.
  const said: string[] = [];
  const program = buildProgram(verbs, act, world, said);
  try {
    await program.parseAsync([...args], { from: "user" });
    return 0;
  } catch (error) {
    const code = error instanceof CommanderError ? error.code : undefined;
    if (code === "commander.unknownCommand" && verbs.length < VERBS.length) return "unknown";
    if (code === "commander.help" && said.length > 0) {
      // A command alone that has further ones: its help, on stderr.
      world.stderr.write(said.join(""));
      return exitCodeOf(error);
    }
    const command = VERBS.flatMap(([names]) => names).find((name) => args.includes(name));
    return showError(error, context ?? createContext(program.opts(), world), command);
  }
}

function buildProgram(
  verbs: readonly AddVerb[],
  act: Act,
  world: Surroundings,
  said: string[],
): Command {
  const program = new Command("ashlar");
  program
    .summary("deduplicating backup of block devices")
    .description(HELP_HEAD)
    .usage("[OPTIONS] COMMAND ...")
    .addHelpText("after", HELP_TAIL)
    .option("-c, --config <path>", "configuration: a file, or a folder that has an ashlar.yaml")
    .option("--json", "print one JSON document on stdout")
    .option("-q, --quiet", "print results and warnings only")
    .option("-y, --yes", "do not ask before something is removed or overwritten")
    .addOption(
      new Option("--log-level <level>", "how much is logged to stderr").choices(LOG_LEVELS),
    )
    .addOption(new Option("--log-format <format>", "form of log lines").choices(LOG_FORMATS))
    .helpOption("-h, --help", "show help")
    .helpCommand("help [command]", "show help of a command")
    .showSuggestionAfterError(true)
    .configureHelp({ showGlobalOptions: true, styleTitle: (text) => text })
    .configureOutput({
      writeOut: (text) => void world.stdout.write(text),
      writeErr: (text) => void said.push(text),
      getOutHasColors: () => wantsColor(world.env, world.stdout),
      getErrHasColors: () => wantsColor(world.env, world.stderr),
    })
    .exitOverride();
  for (const add of verbs) add(program, act);
  return program;
}

/** The program with all its verbs, for completion and documentation. */
export async function describeProgram(world: Surroundings): Promise<Command> {
  return buildProgram(await loadVerbs(), () => () => Promise.resolve(), world, []);
}

function createContext(
  given: Partial<Record<string, unknown>>,
  world: Surroundings,
): CommandContext {
  const options: GlobalOptions = {
    config: given["config"] as string | undefined,
    json: given["json"] === true,
    quiet: given["quiet"] === true,
    yes: given["yes"] === true,
    logLevel: given["logLevel"] as GlobalOptions["logLevel"],
    logFormat: given["logFormat"] as GlobalOptions["logFormat"],
  };
  const onTerminal = { clear: () => undefined };
  const logOptions: LogOptions = {
    level: options.logLevel ?? (options.quiet ? "warn" : "info"),
    format: options.logFormat ?? "text",
    color: wantsColor(world.env, world.stderr),
    to: world.stderr,
    beforeLine: () => onTerminal.clear(),
  };
  return {
    ...world,
    options,
    onTerminal,
    output: new Output(world.stdout, world.stderr, {
      json: options.json,
      quiet: options.quiet,
      color: wantsColor(world.env, world.stdout),
    }),
    log: createLog(logOptions),
    configureLog: ({ level, format }) => {
      if (options.logLevel === undefined && !options.quiet) logOptions.level = level;
      if (options.logFormat === undefined) logOptions.format = format;
    },
  };
}

function showError(error: unknown, context: CommandContext, command: string | undefined): number {
  const { options, output, log } = context;
  const report = reportError(error, {
    debug: options.logLevel === "debug",
    signalName: context.signalName(),
    command,
  });
  if (report.exitCode === 0) return 0;
  context.onTerminal.clear();
  if (options.json && !output.hasDocument) output.document(report.document);
  if (options.logFormat === "json") {
    const { message, ...fields } = report.document.error;
    log.error(message, fields);
  } else {
    for (const line of report.lines) output.stderrLine(line);
  }
  return report.exitCode;
}
