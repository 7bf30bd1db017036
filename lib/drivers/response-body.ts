// The body of an answer, read into memory that is there already.
import type { Readable } from "node:stream";
import { blobSizeWrong } from "#lib/drivers/blob-errors.ts";

/** An answer came to its end before all was there: worth another try. */
export class TruncatedBody extends Error {
  override readonly name = "TruncatedBody";
}

/** What is read, and into what. */
export interface BodyTarget {
  readonly location: string;
  readonly name: string;
  /** Otherwise a buffer is made. */
  readonly into: Uint8Array | undefined;
  readonly signal: AbortSignal | undefined;
}

/**
 * Reads a body whole.
 * @param sizeBytes what the service says that it has
 * @throws Damaged when it is larger than `into`; TruncatedBody when less comes than was said
 */
export async function readBody(
  body: Readable,
  sizeBytes: number,
  { location, name, into, signal }: BodyTarget,
): Promise<Uint8Array> {
  const onAbort = (): void => void body.destroy(signal?.reason as Error);
  try {
    if (into !== undefined && sizeBytes > into.length) {
      const problem = `has ${sizeBytes} bytes, more than the ${into.length} that it may have`;
      throw blobSizeWrong(location, name, problem);
    }
    signal?.throwIfAborted();
    signal?.addEventListener("abort", onAbort, { once: true });
    const target = into ?? Buffer.allocUnsafeSlow(sizeBytes);
    let at = 0;
    for await (const chunk of body as AsyncIterable<Uint8Array>) {
      if (at + chunk.length > sizeBytes) throw new TruncatedBody("more came than was said");
      target.set(chunk, at);
      at += chunk.length;
    }
    if (at < sizeBytes) throw new TruncatedBody(`${at} of ${sizeBytes} bytes came`);
    return target.subarray(0, sizeBytes);
  } catch (error) {
    // What is not read to its end blocks its connection.
    body.destroy();
    signal?.throwIfAborted();
    throw error;
  } finally {
    signal?.removeEventListener("abort", onAbort);
  }
}
