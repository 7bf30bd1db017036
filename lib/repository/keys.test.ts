import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { decodeKeyObject, encodeKeyObject } from "#proto/key-object.ts";
import { parseObjectName } from "#proto/object-names.ts";
import { deriveKey } from "./derive-key.ts";
import { createKeyFile } from "./key-file.ts";
import {
  createRepositoryKeys,
  openKeys,
  passphraseSecret,
  sealKeys,
  type RepositoryKeys,
  type StoredKeyObject,
} from "./keys.ts";

const KEYS = createRepositoryKeys({ hash: "blake3", compression: "zstd" });
const FILE = createKeyFile().secret;
const PHRASE = passphraseSecret("Füße im Schnee");

async function codeOf(promise: Promise<unknown>): Promise<[ErrorCode, string | undefined]> {
  try {
    await promise;
  } catch (error) {
    assert.ok(error instanceof AshlarError, String(error));
    return [error.code, error.remedy];
  }
  throw new Error("opened");
}

describe("the keys of a repository", () => {
  it("are new each time", () => {
    const other = createRepositoryKeys({ hash: "hmac-sha256", compression: "none" });
    assert.notDeepEqual(other.dedupKey, KEYS.dedupKey);
    assert.notEqual(other.repository, KEYS.repository);
    assert.notEqual(other.activeKeyId, KEYS.activeKeyId);
  });

  it("open with the key file or the passphrase that they were sealed under", async () => {
    const objects = [await sealKeys(KEYS, PHRASE), await sealKeys(KEYS, FILE)];
    assert.deepEqual(await openKeys(objects, FILE), KEYS);
    assert.deepEqual(await openKeys(objects, PHRASE), KEYS);
    for (const { name } of objects) assert.equal(parseObjectName(name)?.type, "key");
  });

  it("keep their retired repository keys", async () => {
    const rotated: RepositoryKeys = {
      ...KEYS,
      activeKeyId: "00000000000000ff",
      repositoryKeys: new Map([...KEYS.repositoryKeys, ["00000000000000ff", Buffer.alloc(32, 9)]]),
    };
    assert.deepEqual(await openKeys([await sealKeys(rotated, FILE)], FILE), rotated);
  });

  it("show nothing of themselves outside", async () => {
    const { bytes } = await sealKeys(KEYS, FILE);
    assert.ok(FILE.type === "keyfile");
    for (const secret of [KEYS.dedupKey, ...KEYS.repositoryKeys.values(), FILE.key]) {
      assert.ok(!bytes.includes(Buffer.from(secret)));
      assert.ok(!bytes.includes(Buffer.from(secret).toString("hex")));
    }
  });

  it("have one object per key file, and a new one each time for a passphrase", async () => {
    const [a, b] = [await sealKeys(KEYS, FILE), await sealKeys(KEYS, FILE)];
    assert.equal(a.name, b.name);
    assert.notDeepEqual(a.bytes, b.bytes);
    assert.notEqual((await sealKeys(KEYS, PHRASE)).name, (await sealKeys(KEYS, PHRASE)).name);
  });

  it("are refused to every other key, with a remedy", async () => {
    const objects = [await sealKeys(KEYS, PHRASE), await sealKeys(KEYS, FILE)];
    for (const secret of [createKeyFile().secret, passphraseSecret("Füße im schnee")]) {
      const [code, remedy] = await codeOf(openKeys(objects, secret));
      assert.equal(code, ErrorCode.Refused);
      assert.ok(remedy !== undefined);
    }
    const [code, remedy] = await codeOf(openKeys([], FILE));
    assert.equal(code, ErrorCode.Refused);
    assert.match(remedy ?? "", /keys\//);
  });

  it("do not open from an object of which anything was edited", async () => {
    const { name, bytes } = await sealKeys(KEYS, FILE);
    const object = decodeKeyObject(bytes);
    const sealed = Buffer.from(object.sealed);
    sealed[5] = (sealed[5] as number) ^ 1;
    const nonce = Buffer.from(object.nonce);
    nonce[0] = (nonce[0] as number) ^ 1;
    const edits = [
      { sealed },
      { nonce },
      { repository: "0".repeat(16) },
      { sealed: Buffer.alloc(3) },
    ];
    for (const edit of edits) {
      const edited: StoredKeyObject = { name, bytes: encodeKeyObject({ ...object, ...edit }) };
      assert.equal((await codeOf(openKeys([edited], FILE)))[0], ErrorCode.Refused);
    }
  });

  it("open where another object is unreadable, and say Damaged where that was the only one", async () => {
    const good = await sealKeys(KEYS, FILE);
    const broken = { name: "keys/0123456789abcdef", bytes: Buffer.from("{") };
    assert.deepEqual(await openKeys([broken, good], FILE), KEYS);
    assert.equal((await codeOf(openKeys([broken], FILE)))[0], ErrorCode.Damaged);
    const newer = { name: broken.name, bytes: Buffer.from('{"format": 2}') };
    const [code, remedy] = await codeOf(openKeys([newer], FILE));
    assert.equal(code, ErrorCode.Refused);
    assert.match(remedy ?? "", /newer/);
  });
});

describe("a passphrase", () => {
  it("is the same however its letters are composed, and without the line end of its file", async () => {
    assert.deepEqual(passphraseSecret("Fu\u0308ße im Schnee\r\n"), PHRASE);
    assert.deepEqual(passphraseSecret(" a \n\n"), { type: "passphrase", passphrase: " a \n" });
  });

  it("is not empty", () => {
    for (const text of ["", "\n"])
      assert.throws(() => passphraseSecret(text), { code: ErrorCode.Usage });
  });
});

describe("key derivation", () => {
  it("is HKDF-SHA256 without salt (RFC 5869, test case 3)", () => {
    assert.equal(
      deriveKey(Buffer.alloc(22, 0x0b), "", 42).toString("hex"),
      "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    );
  });
});
