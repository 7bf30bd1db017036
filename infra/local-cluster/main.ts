// infra/dev-cluster: a whole cluster on this machine, to try things out.
import process from "node:process";
import { parseArgs } from "node:util";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { reportError } from "#lib/process/report-error.ts";
import { watchSignals } from "#lib/process/signals.ts";
import { Place } from "./place.ts";
import { startCluster } from "./start.ts";
import { showStatus } from "./status.ts";
import { stopCluster } from "./stop.ts";

const HELP = `Usage: infra/dev-cluster start|stop|status [DIR]

A whole cluster on this machine, on loopback: three NATS servers, FoundationDB where it is installed, a repository with two
storages, one coordinator, one dedup, two writers, and two readers for the hosts hv1 and hv2.

  start   makes it in DIR, or starts what does not run; the processes go on until they are stopped
  stop    stops all of them; the data stay
  status  says which run and are ready; exit code 69 where one is not

DIR is ~/ashlar-dev-cluster unless given. It is yours to remove when the cluster is stopped.
`;
const EXIT_UNAVAILABLE = 69;

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function main(args: readonly string[], signal: AbortSignal): Promise<number> {
  const { verb, place } = parse(args);
  switch (verb) {
    case "help":
      process.stdout.write(HELP);
      return 0;
    case "start":
      await startCluster(place, { say, signal });
      return 0;
    case "stop":
      await stopCluster(place, say);
      return 0;
    case "status":
      return (await showStatus(place, say)) ? 0 : EXIT_UNAVAILABLE;
  }
}

function parse(args: readonly string[]): {
  readonly verb: "start" | "stop" | "status" | "help";
  readonly place: Place;
} {
  let parsed;
  try {
    const options = { help: { type: "boolean", short: "h" } } as const;
    parsed = parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    throw usage((error as Error).message, error);
  }
  const [verb = "", folder, ...more] = parsed.positionals;
  const place = folder === undefined ? Place.default() : new Place(folder);
  if (parsed.values.help === true || verb === "help") return { verb: "help", place };
  if (more.length > 0) throw usage("expected one folder");
  if (verb === "start" || verb === "stop" || verb === "status") return { verb, place };
  throw usage(verb === "" ? "expected a command" : `there is no command ${JSON.stringify(verb)}`);
}

function usage(message: string, cause?: unknown): AshlarError {
  const remedy = "infra/dev-cluster start|stop|status [DIR]; --help says more";
  return new AshlarError(ErrorCode.Usage, message, { cause, remedy });
}

// Whoever reads the output may go away; what is under way is done nonetheless.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);

const { signal, signalName } = watchSignals((line) =>
  process.stderr.write(`dev-cluster: ${line}\n`),
);
try {
  process.exitCode = await main(process.argv.slice(2), signal);
} catch (error) {
  const { lines, exitCode } = reportError(signal.aborted ? signal.reason : error, {
    debug: false,
    signalName: signalName(),
  });
  for (const line of lines) process.stderr.write(`${line.replace(/^ashlar: /, "dev-cluster: ")}\n`);
  process.exitCode = exitCode;
}
