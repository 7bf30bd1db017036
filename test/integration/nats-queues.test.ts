// Consumers are what they must be, and one that NATS has stalled is made anew.
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { AckPolicy, jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, nanos } from "@nats-io/transport-node";
import { connectNats } from "#lib/drivers/nats/connect-nats.ts";
import { receivePoolOf } from "#lib/drivers/nats/framed-transport.ts";
import { openMemoryTelemetry } from "#lib/drivers/memory/memory-telemetry.ts";
import { memoryLog } from "#test/fakes/memory-log.ts";
import {
  messageOf,
  openTestBus,
  smallTopology,
  textOf,
  untilTrue,
} from "#test/fixtures/nats-bus.ts";
import { natsMissing, startNats, type NatsCluster } from "#test/servers/nats-server.ts";

const MIB = 1024 * 1024;

describe("queues of NATS", { skip: natsMissing() ?? false }, () => {
  let nats: NatsCluster;
  before(async () => {
    nats = await startNats();
  });
  after(() => nats.stop());

  it("makes a consumer anew that has stopped giving out what waits", async (test) => {
    const topology = smallTopology("stalled");
    const telemetry = openMemoryTelemetry();
    const urls = nats.urls;
    const bus = await openTestBus(test, { urls, topology, telemetry, watchEveryMs: 200 });
    const { stream, subject, consumer } = topology.queue("dedup");
    // Delivered as often as it may be, and given back: it stays in the stream, and the server gives it out no more.
    const manager = await jetstreamManager(bus.connection);
    await manager.consumers.add(stream, {
      durable_name: consumer,
      filter_subject: subject,
      ack_policy: AckPolicy.Explicit,
      ack_wait: nanos(30_000),
      max_ack_pending: 100_000,
      max_deliver: 1,
    });
    await bus.publish("dedup", messageOf("stuck"));
    const lost = await jetstream(bus.connection).consumers.get(stream, consumer);
    (await lost.next())!.nak();
    const seen: string[] = [];
    bus.consume("dedup", { concurrency: 1 }, async (message) => void seen.push(textOf(message)));
    await untilTrue(() => seen.length === 1);
    assert.deepEqual(seen, ["stuck"]);
    assert.equal(telemetry.counted("ashlar.bus.stalled"), 1);
    await untilTrue(
      () => telemetry.gauged("ashlar.bus.queue_depth", { queue: "claims.default" }) === 0,
    );
  });

  it("leaves a consumer alone whose messages are worked on, given back or wanted by nobody", async (test) => {
    const topology = smallTopology("busy");
    const telemetry = openMemoryTelemetry();
    const urls = nats.urls;
    const bus = await openTestBus(test, { urls, topology, telemetry, watchEveryMs: 100 });
    await bus.publish("writer.nobody", messageOf("nobody's"));
    await bus.publish("dedup", messageOf("slow"));
    const gate = Promise.withResolvers<void>();
    let calls = 0;
    bus.consume("dedup", { concurrency: 2 }, async () => {
      calls += 1;
      if (calls === 1) throw new Error("not now");
      await gate.promise;
    });
    await untilTrue(
      () => telemetry.gauged("ashlar.bus.queue_depth", { queue: "blocks.nobody" }) === 1,
    );
    await setTimeout(1500);
    gate.resolve();
    assert.equal(telemetry.counted("ashlar.bus.stalled"), 0);
    assert.equal(calls, 2);
  });

  it("alters a consumer that is otherwise", async (test) => {
    const topology = smallTopology("altered");
    const bus = await openTestBus(test, { urls: nats.urls, topology });
    const { stream, subject, consumer } = topology.queue("dedup");
    const manager = await jetstreamManager(bus.connection);
    await manager.consumers.add(stream, {
      durable_name: consumer,
      filter_subject: subject,
      ack_policy: AckPolicy.Explicit,
      ack_wait: nanos(1000),
      max_ack_pending: 1,
    });
    let handled = 0;
    bus.consume("dedup", { concurrency: 1 }, async () => void (handled += 1));
    await bus.publish("dedup", messageOf("m"));
    await untilTrue(() => handled === 1);
    const { config } = await manager.consumers.info(stream, consumer);
    assert.deepEqual([config.ack_wait, config.max_ack_pending], [nanos(30_000), 100_000]);
  });

  it("uses the memory of a payload again when its handler has ended, and not before", async (test) => {
    const bus = await openTestBus(test, { urls: nats.urls, topology: smallTopology("memory") });
    const memory = new Set<ArrayBufferLike>();
    let handled = 0;
    bus.consume("writer", { concurrency: 2 }, async ({ body, payload }) => {
      assert.ok(payload !== undefined);
      const { bytes } = payload;
      // Of one message it was a reference of its own.
      if (Buffer.from(body).toString() === "7") payload.retain();
      await setTimeout(20);
      memory.add(bytes.buffer);
      const expected = Number(Buffer.from(body).toString());
      if (bytes.every((byte) => byte === expected)) handled += 1;
    });
    for (let index = 0; index < 30; index += 1) {
      const bytes = Buffer.alloc(MIB / 2, index);
      await bus.publish("writer", {
        body: Buffer.from(String(index)),
        payload: { bytes, retain: () => undefined, release: () => undefined },
      });
    }
    await untilTrue(() => handled === 30);
    assert.ok(memory.size < 10, `${memory.size} pieces of memory`);
  });
});

describe("connections to NATS", { skip: natsMissing() ?? false }, () => {
  const connectTo = (clusters: readonly NatsCluster[]) =>
    connectNats(
      { servers: clusters.flatMap(({ urls }) => urls) },
      { name: "test", inboxPrefix: "inbox.test", log: memoryLog() },
    );

  it("leave a server that stands still, also with megabytes that it has not taken", async () => {
    const both = [await startNats(), await startNats()];
    try {
      const connection = await connectTo(both);
      const used = both.findIndex(({ urls }) => urls[0]?.endsWith(connection.getServer()));
      const server = both[used]?.servers[0];
      assert.ok(server !== undefined);
      server.signal("SIGSTOP");
      for (let index = 0; index < 20; index += 1) connection.publish("any", Buffer.alloc(4 * MIB));
      await untilTrue(() => !server.url.endsWith(connection.getServer()));
      await connection.flush();
      server.signal("SIGCONT");
      await connection.close();
    } finally {
      for (const cluster of both) await cluster.stop();
    }
  });

  it("share their memory, and lose nothing where another transport was used meanwhile", async () => {
    const nats = await startNats();
    try {
      const first = await connectTo([nats]);
      const second = await connectTo([nats]);
      const stock = await connect({ servers: [...nats.urls] });
      assert.equal(receivePoolOf(first), receivePoolOf(second));
      assert.equal(receivePoolOf(stock), undefined);
      const seen: number[] = [];
      second.subscribe("any", { callback: (_, { data }) => void seen.push(data.length) });
      await second.flush();
      await nats.servers[0]!.kill();
      await nats.servers[0]!.start();
      for (;;) {
        // Until both are there again.
        first.publish("any", Buffer.alloc(2 * MIB));
        await first.flush().catch(() => undefined);
        if (seen.length > 0) break;
        await setTimeout(50);
      }
      assert.equal(seen[0], 2 * MIB);
      for (const connection of [first, second, stock]) await connection.close();
    } finally {
      await nats.stop();
    }
  });
});
