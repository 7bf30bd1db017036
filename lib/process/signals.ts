// SIGINT and SIGTERM: the first one stops cleanly, the second one at once.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";

/** A clean stop that takes longer than this has failed: what a killed process leaves behind is safe as well. */
const STOP_MAX_MS = 20_000;

const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;
type StopSignal = keyof typeof EXIT_CODES;

/** The watch over a process' signals. */
export interface SignalWatch {
  readonly signal: AbortSignal;
  readonly signalName: () => string | undefined;
}

/** Watches the process' signals for as long as it lives. */
export function watchSignals(say: (line: string) => void): SignalWatch {
  const controller = new AbortController();
  let first: StopSignal | undefined;
  const onSignal = (name: StopSignal): void => {
    if (first !== undefined) {
      process.exit(EXIT_CODES[name]);
    }
    first = name;
    say(`${name}: stopping; once more to stop at once`);
    setTimeout(() => {
      say(`not stopped after ${STOP_MAX_MS / 1000} s: leaving at once, which loses nothing`);
      process.exit(EXIT_CODES[name]);
    }, STOP_MAX_MS).unref();
    controller.abort(new AshlarError(ErrorCode.Cancelled, `stopped by ${name}`));
  };
  for (const name of Object.keys(EXIT_CODES) as StopSignal[]) {
    process.on(name, () => onSignal(name));
  }
  return { signal: controller.signal, signalName: () => first };
}
