// An agent on a line that takes a minute for what it has under way: what crosses it crosses it once, and nobody takes it for dead.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { KIB, MIB, writeNoise } from "#test/fixtures/integration-image.ts";
import { TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";
import {
  leaveNetwork,
  NetworkHost,
  networkSkip,
  OUTSIDE_ADDRESS,
} from "#test/fixtures/network-host.ts";
import { TestCluster } from "#test/fixtures/test-cluster.ts";
import { natsMissing } from "#test/servers/nats-server.ts";

/** Lines in bytes a second, and what has to cross them. */
const LINES = [
  // More than a stream's patience for what is under way at once.
  { bytesPerSecond: MIB, imageBytes: 16 * MIB },
  // What waits in the socket and in the kernel takes longer than a server may be silent.
  { bytesPerSecond: 200 * KIB, imageBytes: 8 * MIB },
] as const;
/** Headers, claims and signs of life come on top of the blocks, and packets' own bytes. */
const OVERHEAD = 1.15;

describe("a slow line", { skip: natsMissing() ?? networkSkip, timeout: TEST_TIMEOUT_MS }, () => {
  const resources = new AsyncDisposableStack();
  let cluster: TestCluster;
  let host: NetworkHost;
  before(async () => {
    await leaveNetwork();
    host = resources.use(await NetworkHost.make());
    cluster = resources.use(await TestCluster.make({ nats: { address: OUTSIDE_ADDRESS } }));
    await Promise.all([
      cluster.startAgent("dedup,coordinator,writer"),
      cluster.startAgent("reader", await cluster.enroll("hv1"), host),
    ]);
  });
  after(() => resources.disposeAsync());

  for (const { bytesPerSecond, imageBytes } of LINES) {
    const name = `${bytesPerSecond / KIB}-kib`;
    it(`of ${name} per second carries each block once`, async (test) => {
      const { repo } = cluster;
      const source = repo.fresh("image");
      const bytes = await writeNoise(source, name, imageBytes);
      await host.slowDown(bytesPerSecond);
      const sentBefore = await host.sentBytes();
      const job = await cluster.submit({ kind: "backup", volume: name, source, host: "hv1" });
      const { uid } = await cluster.done(job, TEST_TIMEOUT_MS);
      const sent = (await host.sentBytes()) - sentBefore;
      test.diagnostic(`${(sent / imageBytes).toFixed(2)} times the image crossed the line`);
      assert.ok(sent < imageBytes * OVERHEAD, `${sent} bytes for ${imageBytes}`);
      assert.equal((await cluster.get(job)).attempts, 1);
      await repo.assertRestores(String(uid), bytes);
    });
  }
});
