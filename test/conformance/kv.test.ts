import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { openLmdbKv } from "#lib/drivers/lmdb/lmdb-kv.ts";
import { openMemoryKv } from "#lib/drivers/memory/memory-kv.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import { describeKv } from "./kv.ts";

const folders: string[] = [];

describeKv("memory", { open: async () => openMemoryKv() });

describeKv("memory, every read and commit waiting its turn", {
  open: async () => openMemoryKv({ turn: () => new Promise((resolve) => setImmediate(resolve)) }),
});

describeKv("lmdb", {
  async open() {
    const path = await mkdtemp(join(tmpdir(), "ashlar-kv-"));
    folders.push(path);
    return openLmdbKv({
      path,
      reserveBytes: 2 ** 16,
      clock: systemClock(),
      random: systemRandom(),
    });
  },
});

after(async () => {
  for (const folder of folders) await rm(folder, { recursive: true });
});
