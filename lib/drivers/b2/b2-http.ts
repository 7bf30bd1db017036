// Requests as B2 wants them, over connections that are kept. Node's own client rather than fetch: fetch copies what it sends, takes
// no shared memory, and has no time limits.
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { TruncatedBody } from "#lib/drivers/response-body.ts";
import { readFailure } from "./b2-failure.ts";
import type { B2Settings } from "./b2-settings.ts";

/** One request. */
export interface B2Request {
  readonly method: "GET" | "HEAD" | "POST";
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  /** Sent as it lies there; it must not change until the answer has come. */
  readonly body?: Uint8Array;
  readonly signal: AbortSignal | undefined;
}

/** A connection that is not used is closed before most services and balancers close it. */
const KEEP_ALIVE_MS = 20_000;
/** B2 wants to know who calls (https://www.backblaze.com/docs/cloud-storage-integration-checklist). */
const USER_AGENT = `ashlar node/${process.versions.node}`;
/** A page of a listing has at most some hundred KiB. */
const JSON_BYTES_MAX = 64 * 1024 * 1024;

/** Nothing came or went for too long. */
class TimedOut extends Error {
  override readonly name = "TimedOut";
  readonly code = "ETIMEDOUT";
}

/** Connections to whatever hosts B2 names. */
export class B2Http {
  readonly #http: HttpAgent;
  readonly #https: HttpsAgent;
  readonly #connectTimeoutMs: number;
  readonly #idleTimeoutMs: number;

  constructor({ connections, connectTimeoutMs, idleTimeoutMs }: B2Settings) {
    const agent = { keepAlive: true, timeout: KEEP_ALIVE_MS, maxFreeSockets: connections };
    this.#http = new HttpAgent(agent);
    this.#https = new HttpsAgent(agent);
    this.#connectTimeoutMs = connectTimeoutMs;
    this.#idleTimeoutMs = idleTimeoutMs;
  }

  /** Gives the answer when its head is there; its body is the caller's. B2Failure where it is an error. */
  async send(request: B2Request): Promise<IncomingMessage> {
    const response = await this.#send(request);
    const { statusCode: status = 0 } = response;
    if (status === 200 || status === 206) return response;
    throw await readFailure(response);
  }

  /** Gives an answer that is JSON. */
  async sendForJson<T>(request: B2Request): Promise<T> {
    const text = await readText(await this.send(request));
    try {
      return JSON.parse(text) as T;
    } catch (error) {
      throw new TruncatedBody("the answer is not JSON", { cause: error });
    }
  }

  #send({ method, url, headers, body, signal }: B2Request): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const isSecure = url.startsWith("https:");
    const request = (isSecure ? httpsRequest : httpRequest)(url, {
      method,
      agent: isSecure ? this.#https : this.#http,
      timeout: this.#idleTimeoutMs,
      headers: {
        ...headers,
        "user-agent": USER_AGENT,
        ...(body === undefined ? {} : { "content-length": String(body.byteLength) }),
      },
      ...(signal === undefined ? {} : { signal }),
    });
    // It may fail after its answer has begun as well: then who reads the body is told.
    request.on("error", reject);
    request.on("response", resolve);
    request.on("timeout", () => request.destroy(new TimedOut("nothing came or went")));
    request.on("socket", (socket) => {
      if (!socket.connecting) return;
      const late = (): void => void request.destroy(new TimedOut("no connection was made"));
      const timer = setTimeout(late, this.#connectTimeoutMs);
      const isMade = (): void => clearTimeout(timer);
      socket.once(isSecure ? "secureConnect" : "connect", isMade).once("close", isMade);
    });
    // A view, not a copy: it may lie in shared memory.
    if (body === undefined) request.end();
    else request.end(Buffer.from(body.buffer, body.byteOffset, body.byteLength));
    return promise;
  }

  close(): void {
    this.#http.destroy();
    this.#https.destroy();
  }
}

async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > JSON_BYTES_MAX) throw new TruncatedBody("the answer has no end");
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}
