// Requests to a reader that come at odd times.
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { describe, it } from "node:test";
import type { Requester } from "#lib/actor/requester.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { queues, type Requests } from "#proto/messages.ts";
import { BLOCK_BYTES, openOneProcess } from "#test/fixtures/one-process.ts";
import { runBackup } from "#services/coordinator/backup-job.ts";

describe("a reader that is asked for its root", () => {
  it("answers when it has read everything, with the size that belongs to it", async () => {
    const process = await openOneProcess();
    const { context } = process;
    const device = process.device("disk", seededRandom(1).bytes(3 * BLOCK_BYTES));
    const mayRead = Promise.withResolvers<void>();
    device.onRead = () => mayRead.promise;
    const asked = Promise.withResolvers<Requests["backup"]["request"]>();
    const request: Requester["request"] = (queue, type, body, options) => {
      if (type === "backup") asked.resolve(body as Requests["backup"]["request"]);
      return context.requester.request(queue, type, body, options);
    };
    const requester = Object.assign(Object.create(context.requester) as Requester, { request });
    const backup = runBackup({ ...context, requester }, { source: "disk", volume: "v" });
    const { session, token, policy } = await asked.promise;
    let isAnswered = false;
    const ensured = context.requester
      .request(queues.reader("here"), "ensureRoot", { session, token, policy })
      .finally(() => (isAnswered = true));
    await setTimeout(50);
    assert.equal(isAnswered, false);
    mayRead.resolve();
    const { body } = await ensured;
    assert.equal(body.sizeBytes, 3 * BLOCK_BYTES);
    assert.equal(body.levels, 1);
    assert.equal((await backup).sizeBytes, 3 * BLOCK_BYTES);
    await process.close();
  });
});
