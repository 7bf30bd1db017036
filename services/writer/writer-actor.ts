// Writer: seals blocks and puts them to the storages; reads them back. Any number of them may run.
import { assert } from "#lib/core/assert.ts";
import { serve } from "#lib/actor/serve.ts";
import type { Bus } from "#lib/ports/bus.ts";
import type { Repository } from "#lib/repository/repository.ts";
import { queues } from "#proto/messages.ts";
import { LateNodes } from "./late-nodes.ts";
import { putBlocks, type PutContext } from "./put.ts";
import { readBlocksBack, type ReadContext } from "./read.ts";

/** Bounds of a writer. */
export interface WriterOptions {
  /** Bytes of one slot of plaintext: at least the block size. */
  readonly slotBytes: number;
  /** Slots for sealed objects, and as many for plaintexts read back. */
  readonly slotCount: number;
}

/** A running writer. */
export interface Writer {
  /** Waits for the puts that were answered at the quorum to end at the other storages, at most `ms`. */
  drain(ms: number): Promise<void>;
  stop(): Promise<void>;
}

/** What sealing adds to a block at most, and room for slots that hold many small blocks. */
export function sealedSlotBytes(slotBytes: number): number {
  return slotBytes + Math.max(65_536, Math.ceil(slotBytes / 64));
}

/** Starts a writer. */
export function startWriter(repo: Repository, bus: Bus, options: WriterOptions): Writer {
  const sealed = repo.compute.pool(sealedSlotBytes(options.slotBytes), options.slotCount);
  const plain = repo.compute.pool(options.slotBytes, options.slotCount);
  const late = new LateNodes();
  const put: PutContext = { repo, sealed, late, background: new Set() };
  const read: ReadContext = { repo, sealed, plain };
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
    (error) => repo.log.error("writing failed", { error }),
  );
  return {
    drain: async (ms) => {
      const done = new AbortController();
      const all = Promise.all(put.background).then(() => done.abort());
      await Promise.race([all, repo.clock.sleep(ms, done.signal).catch(() => undefined)]);
      await late.place(repo);
    },
    stop: () => subscription.stop(),
  };
}
