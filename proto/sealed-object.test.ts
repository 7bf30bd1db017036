import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { FormatError, FormatFault } from "./format-error.ts";
import {
  CHECKSUM_BYTES,
  Compression,
  decodeSealed,
  IMMUTABLE_BYTES,
  ObjectKind,
  PLAIN_BYTES_MAX,
  payloadAt,
  payloadNonceAt,
  SEAL_OVERHEAD_BYTES_MAX,
  SEAL_OVERHEAD_BYTES_MIN,
  sealedBytes,
  sealOverheadBytes,
  WrapScheme,
  writeHeader,
  type SealedHeader,
} from "./sealed-object.ts";

const HEADER: SealedHeader = {
  kind: "block",
  compression: "zstd",
  id: "a1".repeat(32),
  plainBytes: 0x01020304,
  storedBytes: 5,
  keyId: "b2".repeat(8),
  wrapScheme: "aes",
};
const SCHEMES = Object.keys(WrapScheme) as WrapScheme[];

function object(header: SealedHeader): Buffer {
  const bytes = Buffer.alloc(sealedBytes(header.wrapScheme, header.storedBytes), 0xee);
  writeHeader(bytes, header);
  return bytes;
}

function faultOf(bytes: Buffer): FormatFault | undefined {
  try {
    decodeSealed(bytes);
    return undefined;
  } catch (error) {
    assert.ok(error instanceof FormatError, String(error));
    return error.fault;
  }
}

describe("the header of a sealed object", () => {
  it("has its fields where the format says", () => {
    const bytes = object(HEADER);
    assert.equal(
      bytes.subarray(0, 68).toString("hex"),
      [
        "4153484c41520001", // "ASHLAR", zero, format 1
        "01010100", // block, zstd, AES-256-GCM, reserved
        "00000000", // required features
        "a1".repeat(32),
        "0403020105000000", // sizes, little-endian
        "b2".repeat(8),
        "01003c00", // key wrap: AES-256-GCM, reserved, 60 bytes
      ].join(""),
    );
    assert.equal(IMMUTABLE_BYTES, 56);
    const agreed = object({ ...HEADER, wrapScheme: "x25519" });
    assert.equal(agreed.toString("hex", 64, 68), "02005c00"); // agreed with X25519, reserved, 92 bytes
    assert.deepEqual(agreed.subarray(0, 64), bytes.subarray(0, 64));
    assert.deepEqual(
      [payloadNonceAt("aes"), payloadAt("aes"), sealOverheadBytes("aes")],
      [128, 140, 172],
    );
    assert.deepEqual(
      [payloadNonceAt("x25519"), payloadAt("x25519"), sealOverheadBytes("x25519")],
      [160, 172, 204],
    );
    assert.deepEqual([SEAL_OVERHEAD_BYTES_MIN, SEAL_OVERHEAD_BYTES_MAX], [172, 204]);
  });

  it("comes back as it was, with every part in its place", () => {
    const header = fc
      .record(
        {
          kind: fc.constantFrom(...(Object.keys(ObjectKind) as ObjectKind[])),
          compression: fc.constantFrom(...(Object.keys(Compression) as Compression[])),
          id: fc.constant("c3".repeat(32)),
          plainBytes: fc.integer({ min: 2, max: 5000 }),
          keyId: fc.constant("d4".repeat(8)),
          wrapScheme: fc.constantFrom(...SCHEMES),
          share: fc.double({ min: 0, max: 0.99, noNaN: true }),
        },
        { noNullPrototype: true },
      )
      .map(({ share, kind, compression, id, plainBytes, keyId, wrapScheme }): SealedHeader => {
        const compressedBytes = Math.max(1, Math.floor(plainBytes * share));
        const storedBytes = compression === "none" ? plainBytes : compressedBytes;
        return { kind, compression, id, plainBytes, storedBytes, keyId, wrapScheme };
      });
    fc.assert(
      fc.property(header, (value) => {
        const bytes = object(value);
        const parts = decodeSealed(bytes);
        assert.deepEqual(parts.header, value);
        const { immutable, ephemeral, wrapNonce, wrappedKey, wrapTag } = parts;
        const { nonce, ciphertext, tag } = parts;
        const outside = Buffer.concat([
          immutable,
          bytes.subarray(56, 68),
          ephemeral,
          wrapNonce,
          wrappedKey,
          wrapTag,
          nonce,
          ciphertext,
          tag,
        ]);
        assert.deepEqual(outside, bytes.subarray(0, bytes.length - CHECKSUM_BYTES));
        assert.equal(ephemeral.length, value.wrapScheme === "aes" ? 0 : 32);
        assert.deepEqual([wrapNonce.length, wrappedKey.length, wrapTag.length], [12, 32, 16]);
        assert.deepEqual(
          [nonce.length, ciphertext.length, tag.length],
          [12, value.storedBytes, 16],
        );
      }),
    );
  });

  it("is of a newer Ashlar when it has what is not known here", () => {
    for (const at of [7, 8, 9, 10, 12, 13, 14, 15, 64]) {
      const bytes = object(HEADER);
      bytes[at] = 0x7f;
      assert.equal(faultOf(bytes), FormatFault.Newer, `byte ${at}`);
    }
  });

  it("is not written with an id that is none", () => {
    for (const id of ["", "a1".repeat(31), "zz".repeat(32)]) {
      assert.throws(() => writeHeader(Buffer.alloc(200), { ...HEADER, id }), FormatError);
    }
  });

  it("is foreign with another magic", () => {
    for (let at = 0; at < 7; at += 1) {
      const bytes = object(HEADER);
      bytes[at] = 0x7f;
      assert.equal(faultOf(bytes), FormatFault.Foreign, `byte ${at}`);
    }
  });

  it("is malformed with reserved bytes, wrap lengths or sizes that no Ashlar writes", () => {
    for (const at of [11, 65, 66, 67]) {
      const bytes = object(HEADER);
      bytes[at] = 0x7f;
      assert.equal(faultOf(bytes), FormatFault.Malformed, `byte ${at}`);
    }
    const sizes: Partial<SealedHeader>[] = [
      { plainBytes: 0 },
      { plainBytes: PLAIN_BYTES_MAX + 1 },
      { plainBytes: 0xffffffff },
      { storedBytes: 0 },
      { plainBytes: 5, storedBytes: 5 },
      { plainBytes: 4, storedBytes: 5 },
      { compression: "none", plainBytes: 6, storedBytes: 5 },
    ];
    for (const change of sizes)
      assert.equal(faultOf(object({ ...HEADER, ...change })), FormatFault.Malformed);
  });

  it("knows when the object is cut or has a tail", () => {
    const bytes = object(HEADER);
    for (let length = 0; length < bytes.length; length += 1) {
      assert.equal(faultOf(bytes.subarray(0, length)), FormatFault.Truncated, `${length} bytes`);
    }
    assert.equal(faultOf(Buffer.concat([bytes, Buffer.alloc(1)])), FormatFault.Malformed);
    // A claim of 4 GiB allocates nothing.
    const huge = object(HEADER);
    huge.writeUInt32LE(PLAIN_BYTES_MAX, 48);
    huge.writeUInt32LE(PLAIN_BYTES_MAX - 1, 52);
    assert.equal(faultOf(huge), FormatFault.Truncated);
  });
});
