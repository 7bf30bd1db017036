// Putting an object as the settings want it: marker, probes and backups alike, for a bucket may refuse what lacks something.
import type { PutObjectCommandInput, S3Client } from "@aws-sdk/client-s3";
import { putWithChecksum } from "./s3-checksum.ts";
import { unexpectedAnswer } from "./s3-errors.ts";
import { retentionInput } from "./s3-object-lock.ts";
import type { S3Settings } from "./s3-settings.ts";

/** What is put. */
export interface S3Put {
  /** Below the prefix. */
  readonly name: string;
  readonly bytes: Uint8Array;
  /** Only where nothing is. */
  readonly isCreate: boolean;
  readonly signal?: AbortSignal | undefined;
  /** Instead of `bytes`, what the checksum is of: for trying out whether the service looks at it. */
  readonly checksumOf?: Uint8Array;
  /** Locked until then, in ms since 1970; undefined: as the bucket locks by itself. */
  readonly lockUntilMs?: number;
}

/** Puts an object; it is there when this resolves. Errors are the SDK's. */
export async function s3Put(client: S3Client, settings: S3Settings, put: S3Put): Promise<void> {
  const { bucket, prefix, storageClass, encryption, kmsKeyId, checksum, objectLock } = settings;
  const { name, bytes, isCreate, signal, checksumOf = bytes, lockUntilMs } = put;
  const input: PutObjectCommandInput = {
    Bucket: bucket,
    Key: prefix + name,
    Body: Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength),
    ContentLength: bytes.byteLength,
    ContentType: "application/octet-stream",
  };
  if (isCreate) input.IfNoneMatch = "*";
  if (storageClass !== undefined) {
    input.StorageClass = storageClass as NonNullable<PutObjectCommandInput["StorageClass"]>;
  }
  if (encryption !== undefined) {
    input.ServerSideEncryption = encryption as NonNullable<
      PutObjectCommandInput["ServerSideEncryption"]
    >;
  }
  if (kmsKeyId !== undefined) input.SSEKMSKeyId = kmsKeyId;
  if (lockUntilMs !== undefined && objectLock !== undefined && objectLock.mode !== "none") {
    Object.assign(input, retentionInput(objectLock.mode, lockUntilMs));
  }
  const { ETag } = await client.send(
    putWithChecksum(input, checksum, checksumOf),
    signal === undefined ? {} : { abortSignal: signal },
  );
  // Whoever else may stand between here and the service says 200, too; but not what it has stored.
  if (ETag === undefined)
    throw unexpectedAnswer("a put was answered without the ETag of an object");
}
