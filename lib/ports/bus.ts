// Bus: messages between actors. Drivers: in-process, nats (cluster).

/** Bytes that travel beside a message without being copied in one process. Reference-counted by its owner's pool. */
export interface Payload {
  readonly bytes: Uint8Array;
  /** It came from another process: what is in it is that one's word, and nothing more. */
  readonly isForeign?: boolean;
  /** Keeps the bytes valid until one more `release`. */
  retain(): void;
  release(): void;
}

/** A header that a queue may add: the same for each delivery of a message, and for no other message. */
export const PLACE_HEADER = "Ashlar-Place";

/** A message: an encoded body (msgpackr records of proto/) and perhaps one block. */
export interface BusMessage {
  readonly body: Uint8Array;
  readonly payload?: Payload;
  /** Headers, e.g. W3C trace context. */
  readonly headers?: Readonly<Record<string, string>>;
}

/** A message that came by a subject. */
export interface SentMessage extends BusMessage {
  /** By which: a subscription may be to several. */
  readonly subject: string;
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
  /** A message is delivered until a handler takes it, however often one fails: nobody would ask for it again. */
  readonly neverGivesUp?: boolean;
}

/** Called for each message; resolving acknowledges it, throwing gives it back for another delivery. */
export type MessageHandler = (message: BusMessage) => Promise<void>;

/**
 * Messages between actors, which may be lost, repeated, late or reordered: no acknowledgement here means durability.
 *
 * - Queues: each message goes to one consumer at a time and again after a failure. `publish` resolves when the message is
 *   accepted; a queue that holds its bound in bytes makes it wait (back-pressure), until `signal` aborts. A publisher that
 *   gave up while the bus was taking the message cannot know whether it came through.
 *   What a consumer gets stays valid until its handler has ended, whatever the publisher does with its own reference.
 * - Subjects: `send` reaches whoever subscribes at this moment, at most once, in order per sender where nothing is lost. It throws
 *   an AshlarError only for a message that is larger than the bus can carry. Subjects are tokens with dots between them; in what is
 *   subscribed to a token `*` stands for any one token.
 */
export interface Bus {
  publish(queue: string, message: BusMessage, options?: { signal?: AbortSignal }): Promise<void>;
  consume(queue: string, options: ConsumeOptions, handler: MessageHandler): Subscription;
  send(subject: string, message: BusMessage): void;
  subscribe(subject: string, handler: (message: SentMessage) => void): Subscription;
  /** A subject nobody else has; it begins with `inbox.`, and nothing else does. */
  inbox(): string;
  close(): Promise<void>;
}
