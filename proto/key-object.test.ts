import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FormatError, FormatFault } from "./format-error.ts";
import {
  accessFactsText,
  decodeKeyObject,
  encodeKeyObject,
  keyObjectAad,
  type AccessFacts,
  type KeyObject,
} from "./key-object.ts";
import { assertFailsWell } from "#test/fixtures/flipped-bytes.ts";

const OBJECT: KeyObject = {
  repository: "0011223344556677",
  accessId: "8899aabbccddeeff",
  method: { type: "passphrase", kdf: { N: 65_536, r: 8, p: 2, salt: Buffer.alloc(32, 7) } },
  nonce: Buffer.alloc(12, 1),
  sealed: Buffer.alloc(100, 2),
  ephemeral: undefined,
  facts: undefined,
};
const FACTS: AccessFacts = {
  publicKey: Buffer.alloc(32, 3),
  capability: "write-only",
  label: "zoë's host",
  createdMs: 1_764_000_000_123,
  revision: 3,
  mac: { repositoryKey: "0000000000000002", value: Buffer.alloc(32, 4) },
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
    for (const facts of [FACTS, { ...FACTS, capability: "full" as const }]) {
      assert.deepEqual(decodeKeyObject(encodeKeyObject({ ...OBJECT, facts })), {
        ...OBJECT,
        facts,
      });
      const resealed = { ...OBJECT, facts, ephemeral: Buffer.alloc(32, 5) };
      assert.deepEqual(decodeKeyObject(encodeKeyObject(resealed)), resealed);
    }
  });

  it("has the lowest format that says all of it", () => {
    const formatOf = (object: KeyObject): unknown =>
      (JSON.parse(encodeKeyObject(object).toString()) as { format: unknown }).format;
    assert.equal(formatOf(OBJECT), 1);
    assert.equal(formatOf({ ...OBJECT, facts: FACTS }), 1);
    assert.equal(formatOf({ ...OBJECT, facts: FACTS, ephemeral: Buffer.alloc(32) }), 2);
  });

  it("binds its facts to whose they are, a line each", () => {
    const text = accessFactsText(
      { ...OBJECT, method: { type: "keyfile" } },
      FACTS,
      "0000000000000002",
    );
    assert.equal(
      text.toString(),
      `ashlar access key facts 1\n0011223344556677\n8899aabbccddeeff\nkeyfile\n-\n${"03".repeat(32)}\nwrite-only\n"zoë's host"\n1764000000123\n3\n0000000000000002\n`,
    );
    const label = 'a"\n\nfull\n';
    const odd = accessFactsText(OBJECT, { ...FACTS, label }, "0000000000000002").toString();
    assert.equal(odd.split("\n").length, 16);
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
    const ephemeral = Buffer.alloc(32, 5);
    assert.equal(
      keyObjectAad({ ...OBJECT, method: { type: "keyfile" }, ephemeral }).toString(),
      `ashlar key object\n2\n0011223344556677\n8899aabbccddeeff\nkeyfile\n-\n${"05".repeat(32)}\n`,
    );
  });

  it("of a newer Ashlar is refused as such", () => {
    const newer = [{ format: 3 }, { type: "x25519" }, { kdf: { name: "argon2id" } }];
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
    const valid = encodeKeyObject({ ...OBJECT, facts: FACTS, ephemeral: Buffer.alloc(32, 5) });
    assertFailsWell(valid, decodeKeyObject);
  });
});
