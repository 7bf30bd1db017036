// An answer of B2 that is an error (https://www.backblaze.com/docs/cloud-storage-native-api-error-handling-and-status-codes).
import type { IncomingMessage } from "node:http";

/** What B2 says of an error is a few hundred bytes; a gateway between may say anything. */
const BODY_BYTES_MAX = 65_536;

/** An answer that is an error. */
export class B2Failure extends Error {
  override readonly name = "B2Failure";
  readonly status: number;
  /** B2's own word for it, `cap_exceeded` for one; empty where there is none, as for HEAD. */
  readonly code: string;
  /** How long B2 asks to wait, in ms. */
  readonly retryAfterMs: number | undefined;

  constructor(status: number, code: string, message: string, retryAfterMs?: number) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

/** Reads what an answer that is an error says. */
export async function readFailure(response: IncomingMessage): Promise<B2Failure> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    sizeBytes += chunk.length;
    if (sizeBytes > BODY_BYTES_MAX) break;
    chunks.push(chunk);
  }
  const { code, message } = parseError(Buffer.concat(chunks).toString("utf8"));
  const status = response.statusCode ?? 0;
  return new B2Failure(status, code, message, secondsToMs(response.headers["retry-after"]));
}

function parseError(text: string): { readonly code: string; readonly message: string } {
  try {
    const { code, message } = JSON.parse(text) as Record<string, unknown>;
    if (typeof code === "string") {
      return { code, message: typeof message === "string" ? withoutTokens(message) : "" };
    }
  } catch {
    // Not B2 itself has answered, but a gateway before it; or there is no body.
  }
  return { code: "", message: "" };
}

/** B2 repeats tokens: `more than one upload using auth token 4_002…`. */
function withoutTokens(message: string): string {
  return message.replace(/\b\d_[-\w+/=]{16,}/g, "…");
}

/** A number of seconds (https://www.backblaze.com/docs/cloud-storage-rate-limits). */
function secondsToMs(retryAfter: string | undefined): number | undefined {
  return retryAfter !== undefined && /^\d{1,7}$/.test(retryAfter)
    ? Number(retryAfter) * 1000
    : undefined;
}

/** The token is no longer valid: whoever gets another one may go on. Where no body tells (HEAD), it may be. */
export function isTokenExpired(error: unknown): boolean {
  return (
    error instanceof B2Failure &&
    error.status === 401 &&
    ["expired_auth_token", "bad_auth_token", ""].includes(error.code)
  );
}

/**
 * It is surely not there, B2 itself says so: a name of a download, or a version that is to be deleted. A 404 without its word may be
 * anybody's who stands in between.
 */
export function isNoSuchFile(error: unknown): boolean {
  if (!(error instanceof B2Failure)) return false;
  return (
    (error.status === 404 && error.code === "not_found") ||
    (error.status === 400 && ["file_not_present", "no_such_file"].includes(error.code))
  );
}
