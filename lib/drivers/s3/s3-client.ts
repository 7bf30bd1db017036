// The SDK's client as Ashlar wants it: enough connections that are kept, time limits, and credentials that may change.
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { Agent as HttpAgent } from "node:http";
import { Agent as HttpsAgent } from "node:https";
import { S3Client, type S3ClientConfig } from "@aws-sdk/client-s3";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import type { S3Settings } from "./s3-settings.ts";

type Credentials = Exclude<S3ClientConfig["credentials"], undefined>;

/** The SDK takes credentials for expired five minutes before they are: so files are read again every five minutes. */
const CREDENTIALS_MS = 10 * 60_000;

/** Makes a client; Config where a file that it needs cannot be read. */
export async function createS3Client(settings: S3Settings): Promise<S3Client> {
  const { endpoint, region, profile, attempts, addressing, connections } = settings;
  const agent = { keepAlive: true, maxSockets: connections };
  const ca = settings.caFile === undefined ? undefined : await readOptionFile(settings.caFile);
  const client = new S3Client({
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(region === undefined ? {} : { region }),
    ...(profile === undefined ? {} : { profile }),
    ...credentialsOf(settings),
    forcePathStyle: addressing === "path",
    maxAttempts: attempts,
    retryMode: "standard",
    requestHandler: {
      connectionTimeout: settings.connectTimeoutMs,
      socketTimeout: settings.idleTimeoutMs,
      httpAgent: new HttpAgent(agent),
      httpsAgent: new HttpsAgent({ ...agent, ...(ca === undefined ? {} : { ca }) }),
    },
    // What is read is verified by its own checksum and tag; what is put says itself how.
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
  });
  sendMd5OfDeletions(client);
  return client;
}

const WITH_MD5: ReadonlySet<string> = new Set([
  "DeleteObjectsCommand",
  "PutObjectRetentionCommand",
]);

/**
 * DeleteObjects and PutObjectRetention must have a checksum. All services know Content-MD5; the SDK's CRC32 is refused by several
 * (https://github.com/aws/aws-sdk-js-v3/blob/main/supplemental-docs/MD5_FALLBACK.md).
 */
function sendMd5OfDeletions(client: S3Client): void {
  client.middlewareStack.add(
    (next, { commandName }) =>
      (args) => {
        if (!WITH_MD5.has(commandName ?? "")) return next(args);
        const request = args.request as { headers: Record<string, string>; body: string };
        for (const name of Object.keys(request.headers)) {
          if (/^x-amz-(?:sdk-)?checksum-/i.test(name)) delete request.headers[name];
        }
        request.headers["content-md5"] = createHash("md5").update(request.body).digest("base64");
        return next(args);
      },
    { step: "build", name: "ashlarMd5OfDeletions", priority: "low" },
  );
}

function credentialsOf(settings: S3Settings): { credentials?: Credentials } {
  const { accessKeyIdFile, secretAccessKeyFile } = settings;
  // Otherwise as the SDK looks for them: environment, profiles, containers, instance roles.
  if (accessKeyIdFile === undefined || secretAccessKeyFile === undefined) return {};
  return {
    credentials: async () => ({
      accessKeyId: (await readOptionFile(accessKeyIdFile)).trim(),
      secretAccessKey: (await readOptionFile(secretAccessKeyFile)).trim(),
      expiration: new Date(Date.now() + CREDENTIALS_MS),
    }),
  };
}

async function readOptionFile(file: string): Promise<string> {
  try {
    return await readFile(file, "utf8");
  } catch (error) {
    const { message } = fromSystemError(error, `reading ${file}`);
    throw new AshlarError(ErrorCode.Config, message, { cause: error });
  }
}
