// Bus: messages between actors. Drivers: in-process, nats (cluster).

/** Bytes that travel beside a message without being copied in one process. Reference-counted by its owner's pool. */
export interface Payload {
  readonly bytes: Uint8Array;
  /** Keeps the bytes valid until one more `release`. */
  retain(): void;
  release(): void;
}

/** A message: an encoded body (msgpackr records of proto/) and perhaps one block. */
export interface BusMessage {
  readonly body: Uint8Array;
  readonly payload?: Payload;
  /** Headers, e.g. W3C trace context. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** Something that was subscribed to. */
export interface Subscription {
  /** No further deliveries; resolves when the handlers under way have ended. */
  stop(): Promise<void>;
}

/** How a queue is consumed. */
export interface ConsumeOptions {
  /** Handlers that run at once. */
  readonly concurrency: number;
}

/** Called for each message; resolving acknowledges it, throwing gives it back for another delivery. */
export type MessageHandler = (message: BusMessage) => Promise<void>;

/**
 * Messages between actors, which may be lost, repeated, late or reordered: no acknowledgement here means durability.
 *
 * - Queues: each message goes to one consumer at a time and again after a failure. `publish` resolves when the message is
 *   accepted; a queue that holds its bound in bytes makes it wait (back-pressure), until `signal` aborts.
 *   The payload is retained by the bus from acceptance until acknowledgement; the publisher keeps its own reference.
 * - Subjects: `send` reaches whoever subscribes at this moment, at most once, in order per sender where nothing is lost.
 */
export interface Bus {
  publish(queue: string, message: BusMessage, options?: { signal?: AbortSignal }): Promise<void>;
  consume(queue: string, options: ConsumeOptions, handler: MessageHandler): Subscription;
  send(subject: string, message: BusMessage): void;
  subscribe(subject: string, handler: (message: BusMessage) => void): Subscription;
  /** A subject nobody else has. */
  inbox(): string;
  close(): Promise<void>;
}
