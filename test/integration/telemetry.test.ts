// What a cluster tells of itself, held against what is measured outside: one trace for each job across all processes, metrics for
// Prometheus, and where the time of a job went.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MIB, writeNoise } from "#test/fixtures/integration-image.ts";
import { TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";
import { startCollector, type CollectedSpan } from "#test/fixtures/otlp-collector.ts";
import { metricsAt, seriesOf } from "#test/fixtures/prometheus.ts";
import { TestCluster } from "#test/fixtures/test-cluster.ts";
import { freePort, natsMissing } from "#test/servers/nats-server.ts";
import { parseDocument } from "yaml";
import { readFile, writeFile } from "node:fs/promises";

const skip = natsMissing() ?? false;
const BYTES = 8 * MIB;

/** Sets a section of a configuration file. */
async function configure(file: string, section: string, value: object): Promise<void> {
  const document = parseDocument(await readFile(file, "utf8"));
  for (const [key, each] of Object.entries(value)) document.setIn([section, key], each);
  await writeFile(file, document.toString());
}

describe("telemetry of a cluster", { skip, timeout: TEST_TIMEOUT_MS }, () => {
  it("has one trace for a job across its processes, and metrics that tell what was stored", async () => {
    await using collector = await startCollector();
    await using cluster = await TestCluster.make({ storages: ["a", "b"] });
    const { repo } = cluster;
    const ports = { central: await freePort(), hv1: await freePort() };
    await configure(repo.configFile, "telemetry", { otlp: collector.url });
    await configure(repo.configFile, "agent", { health: `127.0.0.1:${ports.central}` });
    const hv1 = await cluster.enroll("hv1");
    await configure(hv1, "telemetry", { otlp: collector.url });
    await configure(hv1, "agent", { health: `127.0.0.1:${ports.hv1}` });
    await cluster.startAgent("dedup,writer,coordinator");
    await cluster.startAgent("reader", hv1);
    const image = repo.fresh("image");
    await writeNoise(image, "traced", BYTES);
    const startMs = Date.now();
    const job = await cluster.submit({ kind: "backup", volume: "vm", source: image });
    await cluster.done(job);
    const endMs = Date.now();

    const atReader = await metricsAt(ports.hv1);
    assert.equal(seriesOf(atReader, "ashlar_bytes_total", { outcome: "new" }), BYTES);
    // Told, and nothing is left of it.
    assert.match(atReader, /^ashlar_inflight_bytes\{[^}]*role="reader"[^}]*\} 0$/m);
    const atWriter = await metricsAt(ports.central);
    assert.match(atWriter, /^ashlar_inflight_bytes\{[^}]*role="writer"[^}]*\} 0$/m);
    assert.ok(seriesOf(atWriter, "ashlar_kv_reads_total", {}) > 0);
    assert.ok(seriesOf(atWriter, "ashlar_kv_transactions_total", {}) > 0);
    for (const storage of ["a", "b"]) {
      const objects = await repo.objects(storage);
      for (const kind of ["blocks", "nodes", "heads"]) {
        const stored = objects.filter(({ name }) => name.startsWith(`${kind}/`));
        const bytes = stored.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
        const written = { storage, direction: "written", kind };
        assert.equal(seriesOf(atWriter, "ashlar_storage_bytes_total", written), bytes, kind);
      }
      const puts = { storage, operation: "put" };
      const requests = seriesOf(atWriter, "ashlar_storage_requests_total", puts);
      assert.equal(seriesOf(atWriter, "ashlar_storage_latency_count", puts), requests);
      assert.equal(seriesOf(atWriter, "ashlar_storage_attached", { storage }), 1);
    }
    assert.equal(seriesOf(atWriter, "ashlar_jobs_total", { kind: "backup", state: "done" }), 1);

    // What is left is exported when they stop.
    await cluster.stopAgents();
    const root = collector.spans.find(({ name }) => name === "job backup") as CollectedSpan;
    assert.equal(root.attributes["job"], job);
    const trace = collector.spans.filter(({ traceId }) => traceId === root.traceId);
    const byHost = (name: string, host: string): number =>
      trace.filter((span) => span.name === name && span.host === host).length;
    for (const name of ["reader.read", "reader.hash", "reader.claim", "reader.put"]) {
      assert.ok(byHost(name, "hv1") > 0, `${name} at hv1`);
    }
    for (const name of ["queue dedup", "queue writer", "kv.transaction", "writer.put"]) {
      assert.ok(byHost(name, "central") > 0, `${name} at central`);
    }
    const blocks = await repo.objects("a", "blocks");
    const puts = trace.filter(({ name }) => name === "storage.put");
    assert.ok(puts.length >= 2 * blocks.length);
    const ids = new Set(trace.map(({ spanId }) => spanId));
    for (const { name, parentSpanId } of trace) {
      assert.ok(name === "job backup" || ids.has(parentSpanId), `${name} has its parent`);
    }
    // Clocks of one machine.
    for (const span of trace) {
      assert.ok(span.startMs >= startMs - 5 && span.endMs >= span.startMs, span.name);
    }
    assert.ok(root.endMs - root.startMs <= endMs - startMs + 5);
  });

  it("tells where the time of a job went", async () => {
    await using cluster = await TestCluster.make();
    const { repo } = cluster;
    await cluster.startAgent("dedup,writer,coordinator");
    await cluster.startAgent("reader", await cluster.enroll("hv1"));
    const image = repo.fresh("image");
    await writeNoise(image, "explained", BYTES);
    const job = await cluster.submit({ kind: "backup", volume: "vm", source: image });
    await cluster.done(job);
    const { stages } = await repo.json<{ stages: { stage: string; share: number }[] }>([
      "explain",
      job,
    ]);
    const sum = stages.reduce((total, { share }) => total + share, 0);
    assert.ok(Math.abs(sum - 1) <= 0.05, JSON.stringify(stages));
    const text = (await repo.run(["explain", job])).stdout.toString();
    assert.match(text, /^ *[\d.]+ % {2}\S/m);
  });

  it("follows the sampling that is configured: no job is traced with none", async () => {
    await using collector = await startCollector();
    await using cluster = await TestCluster.make();
    const { repo } = cluster;
    await configure(repo.configFile, "telemetry", { otlp: collector.url, sampling: 0 });
    await cluster.startAgent("coordinator");
    await cluster.done(await cluster.submit({ kind: "gc" }));
    await cluster.stopAgents();
    assert.deepEqual(collector.spans, []);
  });
});
