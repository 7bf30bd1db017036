// Writer: seals blocks and puts them to the storages; reads them back. Any number of them may run.
import { assert } from "#lib/core/assert.ts";
import { meterPool } from "#lib/actor/metered-pool.ts";
import { serve } from "#lib/actor/serve.ts";
import { asShortId, unpackBlockIds, type StorageId } from "#lib/core/ids.ts";
import type { Bus } from "#lib/ports/bus.ts";
import type { SlotPool } from "#lib/ports/compute.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { queues } from "#proto/messages.ts";
import { LateNodes } from "./late-nodes.ts";
import { LatePuts } from "./late-puts.ts";
import { PutTurns } from "./put-turns.ts";
import { putBlocks, type PutContext } from "./put.ts";
import { ReadSteering } from "./read-steering.ts";
import { readBlocksBack, type ReadContext } from "./read.ts";
import { Settler, SETTLES_MAX } from "./settle.ts";
import { canOpen } from "#lib/repository/keys.ts";
import { serveVerify } from "./verify-messages.ts";

/** Bounds of a writer. */
export interface WriterOptions {
  /** Bytes of one slot of plaintext: at least the block size. */
  readonly slotBytes: number;
  /** Slots for sealed objects, and as many for plaintexts read back. */
  readonly slotCount: number;
  /**
   * With a write-only access key it takes no part in scrubs: who cannot open what is stored judges less, and wraps nothing anew. For
   * writers beside which there is a coordinator elsewhere, which scrubs where nobody else does.
   */
  readonly leavesScrubs?: boolean;
}

/** A running writer. */
export interface Writer {
  /**
   * Waits for the puts that were answered at the quorum to end at the other storages, at most `ms`, or until the signal aborts.
   * Gives the storages at which they have not ended.
   */
  drain(ms: number, signal?: AbortSignal): Promise<readonly StorageId[]>;
  stop(): Promise<void>;
}

/** What sealing adds to a block at most, and room for slots that hold many small blocks. */
export function sealedSlotBytes(slotBytes: number): number {
  return slotBytes + Math.max(65_536, Math.ceil(slotBytes / 64));
}

/** Starts a writer. */
export function startWriter(repo: Repository, bus: Bus, options: WriterOptions): Writer {
  const pool = (slotBytes: number, role: string): SlotPool =>
    meterPool(repo.compute.pool(slotBytes, options.slotCount), repo.telemetry, { role });
  const sealed = pool(sealedSlotBytes(options.slotBytes), "writer");
  const plain = pool(options.slotBytes, "writer, reading back");
  const lateNodes = new LateNodes();
  const latePuts = new LatePuts();
  const turns = new PutTurns(options.slotCount);
  const put: PutContext = { repo, sealed, turns, lateNodes, latePuts };
  const steering = new ReadSteering(repo.clock);
  const read: ReadContext = { repo, sealed, plain, steering };
  const settler = new Settler(repo, latePuts);
  const onDefect = (error: unknown): void => repo.log.error("writing failed", { error });
  const subscription = serve(
    bus,
    queues.writer,
    options.slotCount,
    {
      put: async (request, payload) => {
        assert(payload !== undefined, "a put has a payload");
        return { body: await putBlocks(put, request, payload) };
      },
      read: (request) => readBlocksBack(read, request),
    },
    onDefect,
  );
  // On a queue of its own: who waits for a slow storage must not keep others from putting.
  const upkeep = serve(
    bus,
    queues.upkeep,
    SETTLES_MAX,
    {
      settle: async ({ ids, storages, patienceMs }) => {
        const missing = await settler.settle({
          ids: unpackBlockIds(ids),
          storages: storages.map((storage) => asShortId<StorageId>(storage)),
          patienceMs,
        });
        return { body: { missing } };
      },
    },
    onDefect,
  );
  const takesPart = options.leavesScrubs !== true || canOpen(repo.keys);
  const verifying = takesPart ? serveVerify(repo, bus) : undefined;
  return {
    drain: async (ms, signal) => {
      const done = new AbortController();
      const until = signal === undefined ? done.signal : AbortSignal.any([done.signal, signal]);
      const all = latePuts.ended().then(() => done.abort());
      await Promise.race([all, repo.clock.sleep(ms, until).catch(() => undefined)]);
      if (signal?.aborted !== true) await lateNodes.place(repo);
      return latePuts.storages;
    },
    stop: async () => {
      await verifying?.stop();
      await subscription.stop();
      await upkeep.stop();
    },
  };
}
