// What most commands do first and last: read the configuration, open the repository, close it. The modules behind it are
// loaded here, so that `--help` and `completion` do not wait for them.
import { hostname } from "node:os";
import type { Config } from "#lib/process/config-file.ts";
import type { Engine } from "./compose.ts";
import type { CommandContext } from "./context.ts";

/** Reads the configuration that the command line, the environment and the working folder lead to. */
export async function readConfig(context: CommandContext): Promise<Config> {
  const { loadConfig } = await import("#lib/process/config-file.ts");
  const { env, cwd, options } = context;
  const config = await loadConfig(options.config, { env, cwd, hostname: hostname() });
  context.configureLog(config.log);
  return config;
}

/** Runs `work` with the configured repository open; what it needs of it is opened when it asks. */
export async function withEngine<T>(
  context: CommandContext,
  work: (engine: Engine) => Promise<T>,
): Promise<T> {
  const config = await readConfig(context);
  const { openEngine } = await import("./compose.ts");
  const engine = await openEngine(config, context);
  let result: T;
  try {
    result = await work(engine);
  } catch (error) {
    // What went wrong first is what the user has to hear.
    await engine.close().catch((second: unknown) => {
      context.log.debug("closing failed as well", { error: String(second) });
    });
    throw error;
  }
  await engine.close();
  return result;
}
