// The roles of one process, joined by an in-process bus.
import { readFile } from "node:fs/promises";
import { addAbortSignal } from "node:stream";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { Requester } from "#lib/actor/requester.ts";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { openInprocBus } from "#lib/drivers/inproc/inproc-bus.ts";
import { openSource } from "#lib/drivers/sources.ts";
import { openTarget } from "#lib/drivers/targets.ts";
import { createHasher } from "#lib/repository/hashing.ts";
import type { Repository } from "#lib/repository/repository.ts";
import type { CoordinatorContext, CoordinatorSettings } from "#services/coordinator/context.ts";
import { startDedup } from "#services/dedup/dedup-actor.ts";
import { startReader } from "#services/reader/reader-actor.ts";
import { createUpkeep } from "#services/writer/upkeep.ts";
import { startWriter } from "#services/writer/writer-actor.ts";
import type { Engine } from "./compose.ts";
import type { Config } from "#lib/process/config-file.ts";
import type { CommandContext } from "./context.ts";

/** Memory for blocks in flight where the configuration says nothing; the rest of the process takes about as much. */
const BUDGET_BYTES = 128 * 1024 * 1024;
/** Small blocks travel together: a slot holds as many as fit. */
const SLOT_BYTES_MIN = 4 * 1024 * 1024;
const SLOTS_MIN = 4;
/** How long the end of a command waits for storages that are slower than the quorum, in ms. */
const DRAIN_MS = 5000;

/** Running roles. */
export interface Roles {
  readonly context: CoordinatorContext;
  stop(): Promise<void>;
}

/** Starts reader, dedup and writer, and makes what coordinator jobs work with. */
export async function startRoles(
  engine: Engine,
  repo: Repository,
  blockBytes: number,
): Promise<Roles> {
  const { config, context } = engine;
  const settings = coordinatorSettings(config, await engine.defaultStorages());
  const bus = openInprocBus({ clock: repo.clock, telemetry: repo.telemetry });
  const requester = new Requester(bus, repo.clock, repo.random);
  const { slotBytes, slotCount } = slotsOf(config.memory.budgetBytes, blockBytes);
  const dedup = startDedup(repo, bus);
  const writer = startWriter(repo, bus, { slotBytes, slotCount });
  // The standard input can be read only once, and a session that was taken for dead asks again.
  let onInput: Promise<string> | undefined;
  const hintsOnInput = (): Promise<string> => (onInput ??= readHints("-", context));
  const reader = startReader({
    ports: repo,
    bus,
    compute: repo.compute,
    hasher: createHasher(repo.keys),
    host: config.host,
    slotBytes,
    slotCount,
    openSource: (url, options) => {
      if (url === "-") endWithSignal(context);
      return openSource(url, options);
    },
    openTarget: (request) => openTarget({ ...request, forbid: ownPaths(config) }),
    readHints: (file) => (file === "-" ? hintsOnInput() : readHints(file, context)),
  });
  return {
    context: {
      repo,
      bus,
      requester,
      upkeep: createUpkeep(repo, { bus, requester }, (...how) => writer.drain(...how)),
      settings,
      host: config.host,
      lock: engine.lockName,
      isOwnerAlive: engine.isOwnerAlive,
    },
    async stop() {
      await reader.stop();
      if (!context.signal.aborted) await writer.drain(DRAIN_MS, context.signal);
      await writer.stop();
      await dedup.stop();
      await requester.close();
      await bus.close();
    },
  };
}

/**
 * What the configuration says to coordinators.
 * @param storages where versions go unless a job says otherwise
 */
export function coordinatorSettings(
  { sessions, defaults }: Config,
  storages: readonly string[],
): CoordinatorSettings {
  return {
    leaseMs: sessions.leaseMs,
    resumeWindowMs: sessions.resumeWindowMs,
    patienceMs: sessions.patienceMs,
    hintSample: defaults.hintSample,
    storages,
    quorum: defaults.quorum,
    prefer: defaults.prefer?.filter((name) => storages.includes(name)),
    compression: { name: defaults.compression, level: defaults.compressionLevel },
  };
}

/** Memory for blocks in flight. */
export interface Slots {
  /** Bytes of one. */
  readonly slotBytes: number;
  readonly slotCount: number;
}

/** Slots for blocks of that size, or for several that travel together. */
export function slotsOf(budgetBytes: number | undefined, blockBytes: number): Slots {
  const slotBytes = Math.max(blockBytes, SLOT_BYTES_MIN);
  return { slotBytes, slotCount: slotsFor(budgetBytes ?? BUDGET_BYTES, slotBytes) };
}

/** Reading and writing share the budget: half of it for blocks that are read, half for objects that are put. */
export function slotsFor(budgetBytes: number, slotBytes: number): number {
  return Math.max(SLOTS_MIN, Math.floor(budgetBytes / 2 / slotBytes));
}

/** A read of standard input waits for as long as nobody writes: a signal must end that, too. */
function endWithSignal({ stdin, signal }: CommandContext): void {
  const end = (): void => void stdin.destroy(signal.reason as Error);
  if (signal.aborted) end();
  else signal.addEventListener("abort", end, { once: true });
}

/** What belongs to the repository itself: nothing is restored onto it. */
export function ownPaths(config: Config): string[] {
  const storages = config.storages
    .filter(({ url }) => url.startsWith("file:"))
    .map(({ url }) => fileURLToPath(url));
  const files = [config.keyFile, config.passphraseFile].filter((file) => file !== undefined);
  return [config.file, config.metadata, ...files, ...storages];
}

/** Hints come from a file, or from stdin: `rbd diff --format json … | ashlar backup --hints - …`. */
async function readHints(
  file: string,
  { stdin, signal }: Pick<CommandContext, "stdin" | "signal">,
): Promise<string> {
  try {
    // Not by its name: /dev/stdin cannot be opened where it is a socket.
    if (file === "-") return await text(addAbortSignal(signal, stdin));
    return await readFile(file, { encoding: "utf8", signal });
  } catch (error) {
    signal.throwIfAborted();
    if ((error as NodeJS.ErrnoException).code === "ERR_STRING_TOO_LONG") {
      throw new AshlarError(ErrorCode.Damaged, `the hints ${file} are larger than can be read`);
    }
    throw fromSystemError(error, `reading the hints ${file}`);
  }
}
