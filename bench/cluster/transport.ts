/**
 * The bare transport of blocks: as many bytes as a backup sends, published to a work queue in memory and consumed, with the NATS
 * client alone. A program of its own, so that its CPU time is that of nothing else.
 *
 *   node bench/cluster/transport.ts publish|consume URL MESSAGES MESSAGE_BYTES
 */
import {
  AckPolicy,
  DiscardPolicy,
  jetstream,
  jetstreamManager,
  JetStreamApiError,
  RetentionPolicy,
  StorageType,
} from "@nats-io/jetstream";
import { connect, type NatsConnection } from "@nats-io/transport-node";
import { setTimeout } from "node:timers/promises";

const STREAM = "bench-transport";
const CONSUMER = "consumer";
/** As the stream of blocks has by default. */
const STREAM_BYTES = 256 * 1024 ** 2;
/** Messages under way at once, as a writer's slots allow. */
const TOGETHER = 2;
const FULL_PAUSE_MS = 5;

async function prepare(connection: NatsConnection): Promise<void> {
  const manager = await jetstreamManager(connection);
  await manager.streams.add({
    name: STREAM,
    subjects: [STREAM],
    retention: RetentionPolicy.Workqueue,
    storage: StorageType.Memory,
    discard: DiscardPolicy.New,
    max_bytes: STREAM_BYTES,
  });
  await manager.consumers.add(STREAM, {
    durable_name: CONSUMER,
    ack_policy: AckPolicy.Explicit,
  });
}

async function publish(connection: NatsConnection, count: number, bytes: number): Promise<void> {
  const client = jetstream(connection);
  const body = new Uint8Array(bytes).fill(7);
  let left = count;
  const one = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      for (;;) {
        try {
          await client.publish(STREAM, body);
          break;
        } catch (error) {
          // The stream is full: the consumer is slower.
          if (!(error instanceof JetStreamApiError)) throw error;
          await setTimeout(FULL_PAUSE_MS);
        }
      }
    }
  };
  await Promise.all(Array.from({ length: TOGETHER }, one));
}

async function consume(connection: NatsConnection, count: number): Promise<void> {
  const consumer = await jetstream(connection).consumers.get(STREAM, CONSUMER);
  const messages = await consumer.consume({ max_messages: TOGETHER });
  let left = count;
  for await (const message of messages) {
    message.ack();
    left -= 1;
    if (left === 0) break;
  }
}

const [role = "", url = "", countText = "", bytesText = ""] = process.argv.slice(2);
const connection = await connect({ servers: url });
if (role === "prepare") await prepare(connection);
const before = process.cpuUsage();
if (role === "publish") await publish(connection, Number(countText), Number(bytesText));
if (role === "consume") await consume(connection, Number(countText));
await connection.flush();
const { user, system } = process.cpuUsage(before);
console.log(JSON.stringify({ cpuSeconds: (user + system) / 1e6 }));
await connection.close();
