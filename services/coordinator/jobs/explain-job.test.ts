import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { openMemoryKv } from "#lib/drivers/memory/memory-kv.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { BLOCK_BYTES, openOneProcess } from "#test/fixtures/one-process.ts";
import { runBackup } from "../backup-job.ts";
import { explainJob, type ExplainedJob } from "./explain-job.ts";

const at = (ms: number): string => new Date(ms).toISOString();
const sumOf = (shares: readonly { readonly share: number }[]): number =>
  shares.reduce((sum, { share }) => sum + share, 0);

describe("where the time of a job went", () => {
  it("adds up to the whole, the largest first", () => {
    const job: ExplainedJob = {
      submitted: at(0),
      started: at(1000),
      ended: at(11_000),
      result: { stages: { "put site-b": 8000, read: 500 } },
    };
    const shares = explainJob(job, 0);
    assert.deepEqual(
      shares.map(({ stage, ms }) => `${stage} ${ms}`),
      ["put site-b 8000", "other 1500", "waiting to begin 1000", "read 500"],
    );
    assert.ok(Math.abs(sumOf(shares) - 1) < 1e-9);
  });

  it("is told of one that waits or runs, too", () => {
    const waiting = explainJob({ submitted: at(0), started: null, ended: null }, 500);
    assert.deepEqual(waiting, [{ stage: "waiting to begin", ms: 500, share: 1 }]);
  });

  /** A backup of which one part is slow. */
  async function slowed(slow: "source" | "far" | "nothing") {
    const process = await openOneProcess({ storages: 2, quorum: 2, kv: openMemoryKv() });
    const device = process.device("disk", seededRandom(4).bytes(400 * BLOCK_BYTES));
    if (slow === "source") device.onRead = () => setTimeout(80);
    if (slow === "far") {
      const store = process.stores[1]!;
      const put = store.put.bind(store);
      store.put = async (...args) => {
        await setTimeout(80);
        return put(...args);
      };
    }
    const submitted = Date.now();
    const { stages } = await runBackup(process.context, { source: "disk", volume: "v" });
    const ended = Date.now();
    await process.close();
    const job = { submitted: at(submitted), started: at(submitted), ended: at(ended) };
    const shares = explainJob({ ...job, result: { stages } }, 0);
    assert.ok(Math.abs(sumOf(shares) - 1) <= 0.05, `they add up: ${JSON.stringify(shares)}`);
    return (stage: string): number => shares.find((each) => each.stage === stage)?.share ?? 0;
  }

  it("names what is slow: the source, or the one storage", async () => {
    const [usual, source, far] = [
      await slowed("nothing"),
      await slowed("source"),
      await slowed("far"),
    ];
    assert.ok(source("read") > 0.5, `read has ${source("read")}`);
    assert.ok(source("read") > usual("read") + 0.2);
    assert.ok(far("put s1") > 0.4, `put s1 has ${far("put s1")}`);
    assert.ok(far("put s1") > usual("put s1") + 0.2);
  });
});
