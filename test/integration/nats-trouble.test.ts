// What may happen to a NATS cluster: none of it is more to a bus than time; and what is set up wrongly is told with its remedy.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { after, before, describe, it, type TestContext } from "node:test";
import { setTimeout } from "node:timers/promises";
import { jetstreamManager, RetentionPolicy, StorageType } from "@nats-io/jetstream";
import { isErrorCode, ErrorCode, type AshlarError } from "#lib/core/errors.ts";
import { connectNats, requirePayload } from "#lib/drivers/nats/connect-nats.ts";
import { openMemoryTelemetry } from "#lib/drivers/memory/memory-telemetry.ts";
import type { Bus, BusMessage } from "#lib/ports/bus.ts";
import { CountedPayload } from "#test/conformance/bus.ts";
import { memoryLog } from "#test/fakes/memory-log.ts";
import {
  messageOf,
  openTestBus,
  smallTopology,
  textOf,
  untilTrue,
} from "#test/fixtures/nats-bus.ts";
import { natsMissing, startNats, type NatsCluster } from "#test/servers/nats-server.ts";

const skip = natsMissing() ?? false;

/** Publishes until it is stopped, and counts what is handled. */
function traffic(publisher: Bus, consumer: Bus) {
  const accepted = new Set<string>();
  const handled = new Set<string>();
  const stopped = new AbortController();
  consumer.consume("dedup", { concurrency: 4 }, async (message) => {
    handled.add(textOf(message));
  });
  const publishing = (async () => {
    for (let index = 0; !stopped.signal.aborted; index += 1) {
      await publisher.publish("dedup", messageOf(`m${index}`));
      accepted.add(`m${index}`);
      await setTimeout(1);
    }
  })();
  return {
    accepted,
    handled,
    stop: async () => {
      stopped.abort();
      await publishing;
    },
    /** That many more are handled from now on. */
    moves: async (count = 20) => {
      const from = handled.size;
      await untilTrue(() => handled.size >= from + count);
    },
  };
}

describe("one NATS server", { skip }, () => {
  let nats: NatsCluster;
  before(async () => {
    nats = await startNats();
  });
  after(() => nats.stop());
  const open = (test: TestContext, prefix: string, managesStreams = true) =>
    openTestBus(test, { urls: nats.urls, topology: smallTopology(prefix), managesStreams });

  it("goes on when all streams are deleted", async (test) => {
    const bus = await open(test, "deleted");
    const other = await open(test, "deleted", false);
    const flow = traffic(other, bus);
    await flow.moves();
    const manager = await jetstreamManager(bus.connection);
    for await (const { config } of manager.streams.list()) {
      if (config.name.startsWith("deleted-")) await manager.streams.delete(config.name);
    }
    await flow.moves();
    await flow.stop();
  });

  it("goes on when the server is killed and comes back without its memory", async (test) => {
    const bus = await open(test, "killed");
    const other = await open(test, "killed", false);
    const flow = traffic(other, bus);
    await flow.moves();
    await nats.servers[0]!.kill();
    await setTimeout(500);
    await nats.servers[0]!.start();
    await flow.moves();
    await flow.stop();
  });

  it("gives the messages of a consumer that is gone to another one", async (test) => {
    const topology = smallTopology("gone");
    const quick = {
      ...topology,
      queue: (name: string) => ({ ...topology.queue(name), ackWaitMs: 1000 }),
    };
    const dies = await openTestBus(test, { urls: nats.urls, topology: quick });
    const begun: string[] = [];
    const gate = Promise.withResolvers<void>();
    dies.consume("dedup", { concurrency: 1 }, async (message) => {
      begun.push(textOf(message));
      await gate.promise;
    });
    const telemetry = openMemoryTelemetry();
    const bus = await openTestBus(test, { urls: nats.urls, topology: quick, telemetry });
    await bus.publish("dedup", messageOf("orphan"));
    await untilTrue(() => begun.length === 1);
    const seen: string[] = [];
    bus.consume("dedup", { concurrency: 1 }, async (message) => void seen.push(textOf(message)));
    // For as long as the handler runs, however long, nobody else gets it.
    await setTimeout(3000);
    assert.deepEqual(seen, []);
    await dies.connection.close();
    await untilTrue(() => seen.length === 1);
    gate.resolve();
    assert.deepEqual(seen, ["orphan"]);
    assert.equal(telemetry.counted("ashlar.bus.redelivered"), 1);
  });

  it("gives up a message that always fails, and forgets it", async (test) => {
    const telemetry = openMemoryTelemetry();
    const topology = smallTopology("poison");
    const options = { urls: nats.urls, topology, telemetry, deliveriesMax: 4 };
    const bus = await openTestBus(test, options);
    let deliveries = 0;
    bus.consume("dedup", { concurrency: 1 }, async () => {
      deliveries += 1;
      throw new Error("never");
    });
    await bus.publish("dedup", messageOf("poison"));
    await untilTrue(() => telemetry.counted("ashlar.bus.given_up") === 1);
    assert.equal(deliveries, 4);
    const manager = await jetstreamManager(bus.connection);
    await setTimeout(100);
    assert.equal((await manager.streams.info("poison-claims")).state.messages, 0);
  });

  it("never gives a message up where the consumer wants that", async (test) => {
    const topology = smallTopology("stubborn");
    const bus = await openTestBus(test, { urls: nats.urls, topology, deliveriesMax: 2 });
    let deliveries = 0;
    bus.consume("jobs", { concurrency: 1, neverGivesUp: true }, async () => {
      deliveries += 1;
      if (deliveries < 5) throw new Error("not yet");
    });
    await bus.publish("jobs", messageOf("job"));
    await untilTrue(() => deliveries === 5);
  });

  it("carries blocks as they are, with their bodies and headers", async (test) => {
    const bus = await open(test, "blocks");
    const bytes = Buffer.alloc(4 * 1024 * 1024, 7);
    const payload = new CountedPayload(Buffer.from(bytes));
    const seen: BusMessage[] = [];
    bus.consume("writer", { concurrency: 1 }, async (message) => void seen.push(message));
    await bus.publish("writer", { body: Buffer.from([0, 255]), payload, headers: { trace: "1" } });
    payload.release();
    await untilTrue(() => seen.length === 1);
    assert.deepEqual(Buffer.from(seen[0]!.body), Buffer.from([0, 255]));
    assert.ok(bytes.equals(seen[0]!.payload!.bytes));
    assert.equal(seen[0]!.headers?.["trace"], "1");
    assert.equal(payload.references, 0);
  });

  it("lets all who wait for room through, one after the other", async (test) => {
    const bus = await open(test, "room");
    const block = (): CountedPayload => new CountedPayload(Buffer.alloc(3 * 1024 * 1024));
    const order: number[] = [];
    const publishing = Array.from({ length: 12 }, async (_, index) => {
      await bus.publish("writer", { body: Buffer.alloc(0), payload: block() });
      order.push(index);
    });
    await untilTrue(() => order.length === 2);
    await setTimeout(200);
    assert.equal(order.length, 2);
    let handled = 0;
    bus.consume("writer", { concurrency: 2 }, async () => void (handled += 1));
    await Promise.all(publishing);
    await untilTrue(() => handled === 12);
    assert.equal(bus.connection.stats().outMsgs < 500, true, "only the first in the line tries");
  });

  it("alters streams whose bounds are otherwise, and refuses those of another kind", async (test) => {
    const bus = await open(test, "altered");
    const manager = await jetstreamManager(bus.connection);
    await manager.streams.update("altered-claims", { max_bytes: 4096 });
    await open(test, "altered");
    assert.equal((await manager.streams.info("altered-claims")).config.max_bytes, 8 * 1024 * 1024);
    await manager.streams.add({
      name: "kind-claims",
      subjects: ["kind.v1.claims.>"],
      storage: StorageType.File,
      retention: RetentionPolicy.Limits,
    });
    await assert.rejects(open(test, "kind"), (error) => {
      assert.ok(isErrorCode(error, ErrorCode.Config));
      assert.match(error.message, /stream kind-claims is of another kind: file storage/);
      return true;
    });
  });

  it("names the setting when blocks are larger than the server takes", async (test) => {
    const bus = await open(test, "large");
    requirePayload(bus.connection, 16 * 1024 * 1024);
    assert.throws(
      () => requirePayload(bus.connection, 32 * 1024 * 1024),
      ({ code, message, remedy }: AshlarError) => {
        assert.equal(code, ErrorCode.Config);
        assert.match(message, /takes messages of 24\.00 MiB at most, and blocks need 32\.00 MiB/);
        assert.match(remedy ?? "", /max_payload: 33554432/);
        return true;
      },
    );
    const payload = new CountedPayload(Buffer.alloc(25 * 1024 * 1024));
    await assert.rejects(
      bus.publish("writer", { body: Buffer.alloc(0), payload }),
      ({ code, remedy }: AshlarError) =>
        code === ErrorCode.Config && remedy?.includes("max_payload") === true,
    );
  });
});

describe("three NATS servers", { skip }, () => {
  it("go on when the leader is killed, and when one is stopped for a while", async (test) => {
    const nats = await startNats({ count: 3 });
    test.after(() => nats.stop());
    const topology = smallTopology("r3", 3);
    const bus = await openTestBus(test, { urls: nats.urls, topology });
    const other = await openTestBus(test, { urls: nats.urls, topology, managesStreams: false });
    const flow = traffic(other, bus);
    await flow.moves();
    const manager = await jetstreamManager(bus.connection);
    const { cluster } = await manager.streams.info("r3-claims");
    const leader = nats.servers[Number(cluster?.leader?.split("-").at(-1))]!;
    await leader.kill();
    await flow.moves();
    await leader.start();
    await flow.moves();
    const paused = nats.servers.find((server) => server !== leader)!;
    paused.signal("SIGSTOP");
    await setTimeout(12_000);
    paused.signal("SIGCONT");
    await flow.moves();
    await flow.stop();
    await untilTrue(() => flow.handled.size >= flow.accepted.size);
  });
});

describe("a NATS that does not do", { skip }, () => {
  const connectTo = (urls: readonly string[]) =>
    connectNats({ servers: urls }, { name: "t", inboxPrefix: "t.v1.inbox.t", log: memoryLog() });

  async function startFor(test: TestContext, options: Parameters<typeof startNats>[0]) {
    const nats = await startNats(options);
    test.after(() => nats.stop());
    return nats;
  }

  it("has JetStream off", async (test) => {
    const { urls } = await startFor(test, { jetstream: null });
    await assert.rejects(
      openTestBus(test, { urls, topology: smallTopology("off") }),
      ({ code, message, remedy }: AshlarError) => {
        assert.equal(code, ErrorCode.Config);
        assert.match(message, /JetStream is off/);
        assert.match(remedy ?? "", /jetstream section/);
        return true;
      },
    );
  });

  it("has too little memory for the streams", async (test) => {
    const { urls } = await startFor(test, { jetstream: "max_memory_store: 1MB" });
    await assert.rejects(
      openTestBus(test, { urls, topology: smallTopology("little") }),
      ({ code, message, remedy }: AshlarError) => {
        assert.equal(code, ErrorCode.Config);
        assert.match(message, /making the NATS stream little-claims: NATS has no 8\.00 MiB/);
        assert.match(remedy ?? "", /max_memory_store/);
        return true;
      },
    );
  });

  it("has too few servers for the replicas", async (test) => {
    const { urls } = await startFor(test, {});
    await assert.rejects(
      openTestBus(test, { urls, topology: smallTopology("few", 3) }),
      ({ code, remedy }: AshlarError) =>
        code === ErrorCode.Config && remedy?.includes("nats.replicas") === true,
    );
  });

  it("refuses the credentials", async (test) => {
    const { urls } = await startFor(test, { extra: 'authorization { user: a, password: "b" }' });
    await assert.rejects(
      connectTo(urls),
      ({ code, message }: AshlarError) =>
        code === ErrorCode.Refused && message.includes("refuses the credentials"),
    );
  });

  it("is not there", async () => {
    await assert.rejects(
      connectTo(["nats://127.0.0.1:1"]),
      ({ code, message }: AshlarError) =>
        code === ErrorCode.Unavailable && message.includes("nats://127.0.0.1:1"),
    );
  });

  it("is too old", async (test) => {
    // Only how a server introduces itself; no such old one can be had.
    const server = createServer((socket) => {
      const info = { server_id: "old", version: "2.8.4", headers: true, max_payload: 1024 };
      socket.write(`INFO ${JSON.stringify(info)}\r\n`);
      socket.on("data", (data) => {
        if (data.includes("PING")) socket.write("PONG\r\n");
      });
      socket.on("error", () => undefined);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    test.after(() => server.close());
    const { port } = server.address() as { port: number };
    await assert.rejects(
      connectTo([`nats://127.0.0.1:${port}`]),
      ({ code, message }: AshlarError) => {
        assert.equal(code, ErrorCode.Config);
        assert.match(message, /is version 2\.8\.4; Ashlar needs 2\.9 or newer/);
        return true;
      },
    );
  });
});
