import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { FormatError, FormatFault } from "./format-error.ts";
import {
  decodeKeyContent,
  decodeKeyObject,
  encodeKeyContent,
  encodeKeyObject,
  keyObjectAad,
  type KeyContent,
  type KeyObject,
} from "./key-object.ts";
import { decodeRecord, encodeRecord } from "./record.ts";

const OBJECT: KeyObject = {
  repository: "0011223344556677",
  accessId: "8899aabbccddeeff",
  method: { type: "passphrase", kdf: { N: 65_536, r: 8, p: 2, salt: Buffer.alloc(32, 7) } },
  nonce: Buffer.alloc(12, 1),
  sealed: Buffer.alloc(100, 2),
};
const CONTENT: KeyContent = {
  dedupKey: Buffer.alloc(32, 1),
  hash: "blake3",
  repositoryKeys: [
    { id: "0000000000000001", key: Buffer.alloc(32, 2), state: "retired" },
    { id: "0000000000000002", key: Buffer.alloc(32, 3), state: "active" },
  ],
  compression: "zstd",
};

function edited(change: (json: Record<string, unknown>) => unknown): Buffer {
  const json = JSON.parse(encodeKeyObject(OBJECT).toString()) as Record<string, unknown>;
  return Buffer.from(JSON.stringify({ ...json, ...(change(json) as object) }));
}

describe("a key object", () => {
  it("comes back as it was", () => {
    assert.deepEqual(decodeKeyObject(encodeKeyObject(OBJECT)), OBJECT);
    const keyFile: KeyObject = { ...OBJECT, method: { type: "keyfile" } };
    assert.deepEqual(decodeKeyObject(encodeKeyObject(keyFile)), keyFile);
  });

  it("binds everything outside to what is sealed", () => {
    assert.equal(
      keyObjectAad(OBJECT).toString(),
      `ashlar key object\n1\n0011223344556677\n8899aabbccddeeff\npassphrase\nscrypt\n65536\n8\n2\n${"07".repeat(32)}\n`,
    );
    assert.equal(
      keyObjectAad({ ...OBJECT, method: { type: "keyfile" } }).toString(),
      "ashlar key object\n1\n0011223344556677\n8899aabbccddeeff\nkeyfile\n-\n",
    );
  });

  it("of a newer Ashlar is refused as such", () => {
    const newer = [{ format: 2 }, { type: "x25519" }, { kdf: { name: "argon2id" } }];
    for (const change of newer) {
      assert.throws(() => decodeKeyObject(edited(() => change)), { fault: FormatFault.Newer });
    }
  });

  it("cannot make us spend memory or time without bound", () => {
    const salt = "07".repeat(32);
    const costly = [
      { N: 2 ** 24, r: 8, p: 1 },
      { N: 65_536, r: 4096, p: 1 },
      { N: 65_536, r: 8, p: 17 },
      { N: 1000, r: 8, p: 1 },
      { N: 1, r: 8, p: 1 },
      { N: 2 ** 52, r: 2 ** 40, p: 1 },
    ];
    for (const kdf of costly) {
      assert.throws(
        () => decodeKeyObject(edited(() => ({ kdf: { name: "scrypt", salt, ...kdf } }))),
        {
          fault: FormatFault.Malformed,
        },
      );
    }
    assert.throws(() => decodeKeyObject(Buffer.alloc(2 ** 20 + 1, 0x20)), FormatError);
  });

  it("is refused when it is anything else, and never fails otherwise", () => {
    const wrong = ["", "[]", "null", "{", '{"format":1}', "\u{FEFF}{}"].map((text) =>
      Buffer.from(text),
    );
    for (const bytes of [...wrong, Buffer.from([0xff, 0xfe])])
      assert.throws(() => decodeKeyObject(bytes), FormatError);
    const valid = encodeKeyObject(OBJECT);
    fc.assert(
      fc.property(
        fc.nat({ max: valid.length - 1 }),
        fc.integer({ min: 1, max: 255 }),
        (at, flip) => {
          const bytes = Buffer.from(valid);
          bytes[at] = (bytes[at] as number) ^ flip;
          try {
            decodeKeyObject(bytes);
          } catch (error) {
            assert.ok(error instanceof FormatError, String(error));
          }
        },
      ),
      { numRuns: 500 },
    );
  });
});

describe("the content of a key object", () => {
  it("comes back as it was", () => {
    assert.deepEqual(decodeKeyContent(encodeKeyContent(CONTENT)), CONTENT);
  });

  it("has exactly one active repository key", () => {
    const states = [
      ["retired", "retired"],
      ["active", "active"],
    ] as const;
    for (const pair of states) {
      const repositoryKeys = CONTENT.repositoryKeys.map((key, index) => ({
        ...key,
        state: pair[index] ?? "active",
      }));
      assert.throws(() => encodeKeyContent({ ...CONTENT, repositoryKeys }), FormatError);
    }
    assert.throws(() => encodeKeyContent({ ...CONTENT, repositoryKeys: [] }), FormatError);
  });

  it("is refused with a field that makes no sense, and the error names it", () => {
    const map = decodeRecord(encodeKeyContent(CONTENT));
    const wrong = {
      dedupKey: Buffer.alloc(31),
      hash: "md5",
      compression: "brotli",
      repositoryKeys: [1],
    };
    for (const [name, value] of Object.entries(wrong)) {
      assert.throws(() => decodeKeyContent(encodeRecord({ ...map, [name]: value })), {
        fault: FormatFault.Malformed,
        message: new RegExp(`"${name}`),
      });
    }
    assert.throws(() => decodeKeyContent(encodeRecord({ ...map, format: 2 })), {
      fault: FormatFault.Newer,
    });
  });
});
