// The client's transport for Node, made for messages of megabytes: what comes is put together in memory that is used again
// (message-framer.ts, receive-pool.ts), and what goes is not copied together first.
import { createConnection, type Socket } from "node:net";
import {
  DataBuffer,
  NatsConnectionImpl,
  setTransportFactory,
  type NatsConnection,
  type NodeConnectionOptions,
} from "@nats-io/transport-node";
import type { Heartbeat } from "@nats-io/nats-core/internal";
import { nodeResolveHost, NodeTransport } from "@nats-io/transport-node/lib/node_transport.js";
import { MessageFramer } from "./message-framer.ts";
import { PatientHeartbeat } from "./patient-heartbeat.ts";
import { ReceivePool } from "./receive-pool.ts";
import { SendWindow } from "./send-window.ts";

/** More than a message may have at any server (`max_payload` is 64 MiB at most), in bytes. */
const MESSAGE_BYTES_MAX = 128 * 1024 * 1024;
/** Received messages that are worked on at once, about, in bytes. */
const IDLE_BYTES_MAX = 64 * 1024 * 1024;
/** What is read from a socket at once, at most, in bytes. */
const READ_BYTES = 256 * 1024;
/** Less is copied together: one write is cheaper than many, in bytes. */
const GATHERED_BYTES_MIN = 64 * 1024;

/** What waits in a socket, with the kernel's part, takes seconds on a slow line; on a fast one this keeps it busy. In bytes. */
const SEND_WINDOW_BYTES = 4 * 1024 * 1024;

/** Of all connections of the process: which transport a reconnect gets does not depend on the connection. */
const receivePool = new ReceivePool(IDLE_BYTES_MAX);

/** What a frame stands for that was not copied together. */
const gathered = new WeakMap<Uint8Array, readonly Uint8Array[]>();

/** What waits to be sent. The client takes it out as one frame. */
class GatheringBuffer extends DataBuffer {
  readonly #isUnderstood: () => boolean;

  constructor(isUnderstood: () => boolean) {
    super();
    this.#isUnderstood = isUnderstood;
  }

  override drain(bytes?: number): Uint8Array {
    const isSmall = this.byteLength < GATHERED_BYTES_MIN;
    if (bytes !== undefined || isSmall || !this.#isUnderstood()) return super.drain(bytes);
    const frame = new Uint8Array(0);
    gathered.set(frame, this.buffers.splice(0));
    this.byteLength = 0;
    return frame;
  }
}

class FramedTransport extends NodeTransport {
  readonly #framer = new MessageFramer(MESSAGE_BYTES_MAX, (bytes) => receivePool.take(bytes));
  readonly sendWindow = new SendWindow(SEND_WINDOW_BYTES);
  #isSetUp = false;
  #receivedBytes = 0;
  /** Of the connection itself, also where TLS lies over it. */
  #handle: { readonly writeQueueSize?: number } | undefined;

  /** Changes whenever bytes have come or gone. What the kernel has yet to send is taken for gone. */
  get progress(): string {
    return `${this.#receivedBytes} ${this.#handle?.writeQueueSize ?? 0}`;
  }

  /** As the client's, but for where what comes is read to: else each piece of 64 KiB has memory of its own. */
  override dial({ hostname, port }: { readonly hostname: string; readonly port: number }) {
    const { promise, resolve, reject } = Promise.withResolvers<Socket>();
    let dialError: Error | undefined;
    const callback = (count: number, buffer: Uint8Array): boolean => {
      const bytes = buffer.subarray(0, count);
      if (this.#isSetUp) this.#receive(bytes);
      // It greets us: whoever listens may keep what it gets.
      else socket.emit("data", Buffer.from(bytes));
      return true;
    };
    const onread = { buffer: Buffer.allocUnsafeSlow(READ_BYTES), callback };
    const socket: Socket = createConnection({ host: hostname, port, onread }, () => {
      this.#handle = (socket as unknown as { _handle: { writeQueueSize?: number } })._handle;
      resolve(socket);
      socket.removeAllListeners();
    });
    socket.on("error", (error) => {
      dialError = error;
    });
    socket.on("close", () => {
      socket.removeAllListeners();
      reject(dialError);
    });
    socket.setNoDelay(true);
    return promise;
  }

  override setupHandlers(): void {
    super.setupHandlers();
    this.#isSetUp = true;
    // What greeted us came before.
    const greeting = this.yields;
    this.yields = [];
    for (const chunk of greeting) this.#receive(chunk);
    this.socket.on("close", () => this.sendWindow.close());
    // Of a socket that has become another one, for TLS.
    this.socket.removeAllListeners("data");
    this.socket.on("data", (chunk: Uint8Array) => this.#receive(chunk));
  }

  /** What is kept of the chunk is copied. */
  #receive(chunk: Uint8Array): void {
    this.#receivedBytes += chunk.length;
    const pieces = this.#framer.push(chunk);
    if (pieces.length === 0) return;
    for (const piece of pieces) {
      this.yields.push(piece.buffer === chunk.buffer ? Buffer.from(piece) : piece);
    }
    this.signal.resolve();
  }

  /** The client waits for its last bytes to leave: behind megabytes that a server does not take that would be for ever. */
  override disconnect(): void {
    this.sendWindow.close();
    if (this.socket !== undefined && this.socket.writableLength > 0) this.socket.destroy();
    else super.disconnect();
  }

  override discard(): void {
    this.sendWindow.close();
    super.discard();
  }

  override close(error?: Error): Promise<void> {
    this.sendWindow.close();
    return super.close(error);
  }

  override async _send(frame: Uint8Array): Promise<void> {
    try {
      await super._send(frame);
    } finally {
      this.sendWindow.left(frame.length);
    }
  }

  override send(frame: Uint8Array): void {
    const pieces = gathered.get(frame);
    if (pieces === undefined) {
      super.send(frame);
      return;
    }
    if (this.isClosed || this.socket === undefined) return;
    this.socket.cork();
    for (const piece of pieces) super.send(piece);
    this.socket.uncork();
  }
}

const framed = new WeakSet<NatsConnection>();

/**
 * As the client's own `connect`, whose transport it would set. What is published or sent must not change until the server has
 * answered it, or something later (`flush`), or the connection is lost.
 */
export async function connectFramed(options: NodeConnectionOptions): Promise<NatsConnection> {
  setTransportFactory({ factory: () => new FramedTransport(), dnsResolveFn: nodeResolveHost });
  const connection = await NatsConnectionImpl.connect(options);
  const protocol = protocolOf(connection);
  // Where somebody has connected with the client's own transport since, a reconnect gets that.
  const outbound = new GatheringBuffer(() => protocol.transport instanceof FramedTransport);
  // Only what is the first to wait is flushed by itself, so nothing must seem to wait.
  const waiting = protocol.outbound.drain();
  if (waiting.length > 0) outbound.fill(waiting);
  protocol.outbound = outbound;
  protocol.heartbeats = PatientHeartbeat.inPlaceOf(protocol.heartbeats, () =>
    protocol.transport instanceof FramedTransport ? protocol.transport.progress : "",
  );
  framed.add(connection);
  return connection;
}

/** What of the client is set or looked at here, and its types leave out. */
interface Client {
  outbound: DataBuffer;
  heartbeats: Heartbeat;
  readonly transport: unknown;
}

function protocolOf(connection: NatsConnection): Client {
  return (connection as unknown as { readonly protocol: Client }).protocol;
}

/** Whoever sends megabytes over this connection enters it first; none where the connection is another's. */
export function sendWindowOf(connection: NatsConnection): SendWindow | undefined {
  if (!framed.has(connection)) return undefined;
  const { transport } = protocolOf(connection);
  return transport instanceof FramedTransport ? transport.sendWindow : undefined;
}

/** Where the memory of received messages comes from; none where the connection is another's. */
export function receivePoolOf(connection: NatsConnection): ReceivePool | undefined {
  return framed.has(connection) ? receivePool : undefined;
}
