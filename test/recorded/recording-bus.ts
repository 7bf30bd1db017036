// A bus that keeps what its actors send, as the bytes that the NATS driver puts on the wire.
import { isDeepStrictEqual } from "node:util";
import { headers as emptyHeaders, type MsgHdrs } from "@nats-io/transport-node";
import { encodeMessage } from "#lib/drivers/nats/nats-message.ts";
import { clusterTopology } from "#lib/drivers/nats/nats-topology.ts";
import type { Bus, BusMessage } from "#lib/ports/bus.ts";
import { decodeReply, decodeRequest } from "#proto/message-codec.ts";
import { asJson, kindOfSubject, meaningOf } from "./message-kinds.ts";

/** A message as a recording has it. */
export interface RecordedMessage {
  /** The queue that it was published to, if that was one. */
  readonly queue?: string;
  /** Its subject on NATS. */
  readonly subject: string;
  /** Of the wire, in base64: headers as NATS encodes them, empty for none, and data. */
  readonly headers: string;
  readonly data: string;
  /** What the code that recorded it made of it. */
  readonly means: unknown;
}

/** As many of a kind as differ in what they have in them are kept, up to this. */
const SAMPLES_MAX = 4;
const BYTES = 1024 * 1024;

/** The topology of the recordings. */
export const TOPOLOGY = clusterTopology({
  prefix: "ashlar",
  replicas: 1,
  claimBytes: BYTES,
  blockBytes: BYTES,
  requestBytes: BYTES,
});

/** Samples of every kind that was seen. */
export class Recording {
  readonly #samples = new Map<string, Map<string, RecordedMessage>>();
  /** Types of requests by their ids: a reply does not say it. */
  readonly #types = new Map<string, string>();

  /** What was seen, by kind. */
  get kinds(): ReadonlyMap<string, readonly RecordedMessage[]> {
    return new Map([...this.#samples].map(([kind, samples]) => [kind, [...samples.values()]]));
  }

  /** The bus, listened to. */
  over(bus: Bus): Bus {
    return {
      publish: (queue, message, options) => {
        this.#published(queue, message);
        return bus.publish(queue, message, options);
      },
      send: (subject, message) => {
        this.#sent(subject, message);
        bus.send(subject, message);
      },
      consume: (...how) => bus.consume(...how),
      subscribe: (...how) => bus.subscribe(...how),
      inbox: () => bus.inbox(),
      close: () => bus.close(),
    };
  }

  /** What a client of the jobs service asked, or was answered: JSON without headers, as NATS's own clients send it. */
  service(kind: string, endpoint: string, json: string): void {
    this.#keep(kind, `jobs.${endpoint}`, { body: Buffer.from(json) }, undefined, emptyHeaders());
  }

  #published(queue: string, message: BusMessage): void {
    if (queue === "jobs") {
      const { kind } = JSON.parse(Buffer.from(message.body).toString()) as {
        readonly kind: string;
      };
      // People's clients send no headers.
      this.#keep(`job ${kind}`, "", { body: message.body }, queue, emptyHeaders());
      return;
    }
    const { type, id } = decodeRequest(message.body);
    this.#types.set(id, type);
    const { headers } = encodeMessage(message);
    // The publisher's, by which a stream knows a message that comes again.
    headers.set("Nats-Msg-Id", `${this.#types.size}`);
    this.#keep(`request ${type}`, "", message, queue, headers);
  }

  #sent(subject: string, message: BusMessage): void {
    const { headers } = encodeMessage(message);
    if (!subject.startsWith("inbox.")) {
      const kind = kindOfSubject(subject);
      if (kind === undefined) throw new Error(`no kind of message is known at ${subject}`);
      this.#keep(kind, subject, message, undefined, headers);
      return;
    }
    // A coordinator listens to itself.
    if (message.body.length === 0) return;
    const { id, error } = decodeReply(message.body);
    const kind = error === undefined ? `reply ${this.#types.get(id) ?? ""}` : "error";
    this.#keep(kind, subject, message, undefined, headers);
  }

  #keep(
    kind: string,
    subject: string,
    message: BusMessage,
    queue: string | undefined,
    headers: MsgHdrs,
  ): void {
    const samples = this.#samples.get(kind) ?? new Map<string, RecordedMessage>();
    this.#samples.set(kind, samples);
    if (samples.size >= SAMPLES_MAX) return;
    const means = asJson(meaningOf(kind, message));
    const form = JSON.stringify(formOf(means));
    if (samples.has(form)) return;
    const { data } = encodeMessage(message);
    const isBare = isDeepStrictEqual(headers, emptyHeaders());
    const wire = isBare
      ? Buffer.alloc(0)
      : (headers as unknown as { encode(): Uint8Array }).encode();
    samples.set(form, {
      ...(queue === undefined ? {} : { queue }),
      subject:
        queue === undefined
          ? `${TOPOLOGY.subjectPrefix}.${subject}`
          : TOPOLOGY.queue(queue).subject,
      headers: Buffer.from(wire).toString("base64"),
      data: Buffer.from(data).toString("base64"),
      means,
    });
  }
}

/** Words that tell forms of one message apart. */
const TELLING = new Set([
  "kind",
  "ok",
  "state",
  "phase",
  "code",
  "asks",
  "leaves",
  "named",
  "held",
]);

/** What is in it, without what it says. */
function formOf(value: unknown, name = ""): unknown {
  if (TELLING.has(name)) return value;
  if (Array.isArray(value)) {
    return [...new Set(value.map((each) => JSON.stringify(formOf(each))))].sort();
  }
  if (typeof value !== "object" || value === null) return value === null ? null : typeof value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, formOf(each, key)]));
}
