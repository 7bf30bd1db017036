// The Bus suite on real nats-servers, one and three (R3).
import { after } from "node:test";
import type { Topology } from "#lib/drivers/nats/nats-topology.ts";
import { describeBus } from "#test/conformance/bus.ts";
import { openTestBus } from "#test/fixtures/nats-bus.ts";
import { natsMissing, startNats, type NatsCluster } from "#test/servers/nats-server.ts";

let serial = 0;

/** A stream for the queue that is bounded, and one for two queues beside each other. */
function testTopology(queueBytes: number, replicas: number): Topology {
  serial += 1;
  const subjectPrefix = `test-${serial}.v1`;
  const stream = (name: string, queues: readonly string[]) => ({
    name: `test-${serial}-${name}`,
    subjects: queues.map((queue) => `${subjectPrefix}.${queue}`),
    storage: "memory" as const,
    kind: "workqueue" as const,
    maxBytes: queueBytes,
    maxAgeMs: 60_000,
    replicas,
  });
  return {
    subjectPrefix,
    streams: [stream("work", ["work"]), stream("beside", ["a", "b"])],
    queue: (name) => ({
      stream: `test-${serial}-${name === "work" ? "work" : "beside"}`,
      subject: `${subjectPrefix}.${name}`,
      consumer: name,
      ackWaitMs: 1000,
    }),
  };
}

function describeNats(count: 1 | 3): void {
  let cluster: Promise<NatsCluster> | undefined;
  describeBus(`nats, ${count === 1 ? "one server" : "three servers, R3"}`, {
    skip: natsMissing(),
    open: async (test, queueBytes) => {
      cluster ??= startNats({ count });
      const { urls } = await cluster;
      return openTestBus(test, { urls, topology: testTopology(queueBytes, count) });
    },
  });
  after(async () => (await cluster)?.stop());
}

describeNats(1);
describeNats(3);
