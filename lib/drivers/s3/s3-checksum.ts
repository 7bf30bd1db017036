// What a put says of its bytes, so that the service notices when others arrive.
import { createHash } from "node:crypto";
import { crc32 } from "node:zlib";
import type { PutObjectCommandInput } from "@aws-sdk/client-s3";
import type { S3Checksum } from "./s3-presets.ts";

/** The part of a put's input that carries the checksum. */
export function checksumOf(
  checksum: S3Checksum,
  bytes: Uint8Array,
): Partial<PutObjectCommandInput> {
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
    case "none":
      return {};
  }
}
