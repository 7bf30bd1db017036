// The Log port for people and for log collectors: pino, written synchronously, so that no line is lost at the end.
import { createRequire } from "node:module";
import type { Writable } from "node:stream";
import type * as Pino from "pino";
import type { prettyFactory } from "pino-pretty";
import type { Log } from "#lib/ports/log.ts";
import type { LogFormat, LogLevel } from "./config-schema.ts";

/** Levels, the quietest first. Not those of the schema, which would load all of it for `--help`. */
export const LOG_LEVELS: readonly LogLevel[] = ["error", "warn", "info", "debug"];
/** Forms of a line. */
export const LOG_FORMATS: readonly LogFormat[] = ["text", "json"];

/** How a log is written. Level and format may be changed until the first line: the configuration is read after the start. */
export interface LogOptions {
  level: LogLevel;
  format: LogFormat;
  readonly color: boolean;
  readonly to: Writable;
  /** Called before a line is written, to take a progress bar off the terminal. */
  readonly beforeLine: () => void;
}

/** Makes a log; pino is loaded with the first line that is written, for most runs write none. */
export function createLog(options: LogOptions): Log {
  let logger: Pino.Logger | undefined;
  const write = (
    level: LogLevel,
    message: string,
    fields: Readonly<Record<string, unknown>> | undefined,
  ): void => {
    if (LOG_LEVELS.indexOf(level) > LOG_LEVELS.indexOf(options.level)) return;
    logger ??= createLogger(options);
    logger[level](fields ?? {}, message);
  };
  return {
    debug: (message, fields) => write("debug", message, fields),
    info: (message, fields) => write("info", message, fields),
    warn: (message, fields) => write("warn", message, fields),
    error: (message, fields) => write("error", message, fields),
  };
}

function createLogger(options: LogOptions): Pino.Logger {
  const require = createRequire(import.meta.url);
  const { pino } = require("pino") as typeof Pino;
  const format = options.format === "json" ? (line: string) => line : textFormat(require, options);
  const destination = {
    write(line: string): void {
      options.beforeLine();
      options.to.write(format(line));
    },
  };
  return pino(
    {
      // What is below the level does not come here.
      level: "debug",
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: { error: pino.stdSerializers.err },
      formatters: { level: (label) => ({ level: label }) },
    },
    destination,
  );
}

function textFormat(require: NodeJS.Require, options: LogOptions): (line: string) => string {
  const pretty = require("pino-pretty") as { readonly prettyFactory: typeof prettyFactory };
  const format = pretty.prettyFactory({
    colorize: options.color,
    colorizeObjects: options.color,
    singleLine: true,
    translateTime: "SYS:HH:MM:ss",
    levelFirst: false,
  });
  return (line) => format(line);
}
