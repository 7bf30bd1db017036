// What a put says of its bytes, so that the service notices when others arrive.
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import { PutObjectCommand, type PutObjectCommandInput } from "@aws-sdk/client-s3";
import type { S3Checksum } from "./s3-presets.ts";

/** A put that carries the checksum of its bytes. */
export function putWithChecksum(
  input: PutObjectCommandInput,
  checksum: S3Checksum,
  bytes: Uint8Array,
): PutObjectCommand {
  const command = new PutObjectCommand({ ...input, ...checksumInput(checksum, bytes) });
  if (checksum === "signature") signPayload(command, bytes);
  return command;
}

/** Over TLS the SDK would sign no more than that there is a payload. */
function signPayload(command: PutObjectCommand, bytes: Uint8Array): void {
  const hash = createHash("sha256").update(bytes).digest("hex");
  command.middlewareStack.add(
    (next) => (args) => {
      const { headers } = args.request as { headers: Record<string, string> };
      headers["x-amz-content-sha256"] = hash;
      return next(args);
    },
    { step: "build", name: "ashlarSignedPayload", priority: "low" },
  );
}

function checksumInput(checksum: S3Checksum, bytes: Uint8Array): Partial<PutObjectCommandInput> {
  switch (checksum) {
    case "md5":
      return { ContentMD5: createHash("md5").update(bytes).digest("base64") };
    case "sha256":
      return { ChecksumSHA256: createHash("sha256").update(bytes).digest("base64") };
    case "crc32": {
      const sum = Buffer.alloc(4);
      sum.writeUInt32BE(crc32(bytes));
      return { ChecksumCRC32: sum.toString("base64") };
    }
    case "signature":
    case "none":
      return {};
  }
}
