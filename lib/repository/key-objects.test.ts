import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { decodeKeyObject, encodeKeyObject } from "#proto/key-object.ts";
import { parseObjectName } from "#proto/object-names.ts";
import { passphraseSecret } from "./access-key.ts";
import { createKeyFile } from "./key-file.ts";
import {
  addFacts,
  openKeyObject,
  openKeys,
  resealKeys,
  sealKeys,
  verifyFacts,
  type StoredKeyObject,
} from "./key-objects.ts";
import { canOpen, createRepositoryKeys, rotateKeys, secretOf, writeOnlyKeys } from "./keys.ts";

const KEYS = createRepositoryKeys({ hash: "blake3", compression: "zstd" });
const PAIRED = createRepositoryKeys({ hash: "blake3", compression: "zstd", scheme: "x25519" });
const PLAN = { label: "first", createdMs: 1_764_000_000_000 };
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
    const objects = [await sealKeys(KEYS, PHRASE, PLAN), await sealKeys(KEYS, FILE, PLAN)];
    assert.deepEqual(await openKeys(objects, FILE), KEYS);
    assert.deepEqual(await openKeys(objects, PHRASE), KEYS);
    for (const { name } of objects) assert.equal(parseObjectName(name)?.type, "key");
  });

  it("keep their retired repository keys", async () => {
    const rotated = rotateKeys(KEYS);
    assert.equal(rotated.revision, 1);
    assert.notEqual(rotated.activeKeyId, KEYS.activeKeyId);
    assert.deepEqual([...rotated.repositoryKeys.keys()], [KEYS.activeKeyId, rotated.activeKeyId]);
    assert.deepEqual(await openKeys([await sealKeys(rotated, FILE, PLAN)], FILE), rotated);
  });

  it("show nothing of themselves outside", async () => {
    assert.ok(FILE.type === "keyfile");
    for (const keys of [KEYS, PAIRED]) {
      const first = await sealKeys(keys, FILE, PLAN);
      const { bytes } = resealKeys(keys, decodeKeyObject(first.bytes));
      const repositoryKeys = [...keys.repositoryKeys.values()].map((key) => secretOf(key));
      for (const secret of [keys.dedupKey, ...repositoryKeys, FILE.key]) {
        for (const each of [first.bytes, bytes].map((one) => Buffer.from(one))) {
          assert.ok(secret !== undefined && !each.includes(Buffer.from(secret)));
          assert.ok(!each.includes(Buffer.from(secret).toString("hex")));
          assert.ok(!each.includes(Buffer.from(secret).toString("base64").slice(0, 40)));
        }
      }
    }
  });

  it("have one object per key file, and a new one each time for a passphrase", async () => {
    const [a, b] = [await sealKeys(KEYS, FILE, PLAN), await sealKeys(KEYS, FILE, PLAN)];
    assert.equal(a.name, b.name);
    assert.notDeepEqual(a.bytes, b.bytes);
    assert.notEqual(
      (await sealKeys(KEYS, PHRASE, PLAN)).name,
      (await sealKeys(KEYS, PHRASE, PLAN)).name,
    );
  });

  it("are refused to every other key, with a remedy", async () => {
    const objects = [await sealKeys(KEYS, PHRASE, PLAN), await sealKeys(KEYS, FILE, PLAN)];
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
    const { name, bytes } = await sealKeys(KEYS, FILE, PLAN);
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
    const good = await sealKeys(KEYS, FILE, PLAN);
    const broken = { name: "keys/0123456789abcdef", bytes: Buffer.from("{") };
    assert.deepEqual(await openKeys([broken, good], FILE), KEYS);
    assert.equal((await codeOf(openKeys([broken], FILE)))[0], ErrorCode.Damaged);
    const newer = { name: broken.name, bytes: Buffer.from('{"format": 3}') };
    const [code, remedy] = await codeOf(openKeys([newer], FILE));
    assert.equal(code, ErrorCode.Refused);
    assert.match(remedy ?? "", /newer/);
  });
});

describe("an access key", () => {
  it("is sealed to without its secret, and opens what it was given", async () => {
    for (const keys of [KEYS, PAIRED]) {
      for (const secret of [FILE, PHRASE]) {
        const before = await sealKeys(keys, secret, PLAN);
        const rotated = rotateKeys(keys);
        const after = resealKeys(rotated, decodeKeyObject(before.bytes));
        assert.equal(after.name, before.name);
        const opened = await openKeyObject([after], secret);
        assert.deepEqual(opened.keys, rotated);
        assert.equal(verifyFacts(rotated, opened.object), "active");
        const { label, createdMs, capability } = opened.object.facts ?? {};
        assert.deepEqual({ label, createdMs, capability }, { ...PLAN, capability: "full" });
        const other = secret === FILE ? createKeyFile().secret : passphraseSecret("another");
        assert.equal((await codeOf(openKeys([after], other)))[0], ErrorCode.Refused);
      }
    }
  });

  it("opens the newest of what storages have of it, in whatever order", async () => {
    const before = await sealKeys(KEYS, FILE, PLAN);
    const rotated = rotateKeys(KEYS);
    const after = resealKeys(rotated, decodeKeyObject(before.bytes));
    assert.deepEqual(await openKeys([before, after], FILE), rotated);
    assert.deepEqual(await openKeys([after, before], FILE), rotated);
  });

  it("does not open what was edited of an object that was sealed to it", async () => {
    const { bytes, name } = resealKeys(
      KEYS,
      decodeKeyObject((await sealKeys(KEYS, FILE, PLAN)).bytes),
    );
    const object = decodeKeyObject(bytes);
    const { ephemeral } = object;
    assert.ok(ephemeral !== undefined);
    const flip = (from: Buffer, at = 3): Buffer => {
      const to = Buffer.from(from);
      to[at] = (to[at] as number) ^ 0x80;
      return to;
    };
    const edits = [
      { ephemeral: flip(ephemeral) },
      // X25519 ignores the highest bit; the key that is derived does not.
      { ephemeral: flip(ephemeral, 31) },
      { ephemeral: Buffer.alloc(32) },
      { ephemeral: undefined },
      { nonce: flip(object.nonce) },
      { sealed: flip(object.sealed) },
      { repository: "0".repeat(16) },
    ];
    for (const edit of edits) {
      const edited = { name, bytes: encodeKeyObject({ ...object, ...edit }) };
      assert.equal((await codeOf(openKeys([edited], FILE)))[0], ErrorCode.Refused);
    }
  });

  it("has facts that nobody forges who has not all of the keys", async () => {
    const { bytes } = await sealKeys(PAIRED, FILE, PLAN);
    const object = decodeKeyObject(bytes);
    const { facts } = object;
    assert.ok(facts !== undefined);
    const edits = [
      { facts: { ...facts, publicKey: Buffer.alloc(32, 9) } },
      { facts: { ...facts, capability: "write-only" as const } },
      { facts: { ...facts, label: "another" } },
      { facts: { ...facts, createdMs: 1 } },
      { facts: { ...facts, revision: 1 } },
      { accessId: "0".repeat(16) },
      { repository: "0".repeat(16) },
    ];
    for (const edit of edits) assert.equal(verifyFacts(PAIRED, { ...object, ...edit }), "forged");
    assert.equal(verifyFacts(PAIRED, object), "active");
    assert.equal(verifyFacts(rotateKeys(PAIRED), object), "retired");
    assert.equal(verifyFacts(writeOnlyKeys(PAIRED), object), "unknown");
    assert.equal(verifyFacts(KEYS, object), "unknown");
    const writer = writeOnlyKeys(PAIRED);
    await assert.rejects(sealKeys(writer, FILE, PLAN), /only who has all keys/);
  });

  it("of the first releases gets its facts from who has it, and stays what it was", async () => {
    const { bytes } = await sealKeys(KEYS, FILE, PLAN);
    const old = encodeKeyObject({ ...decodeKeyObject(bytes), facts: undefined });
    const opened = await openKeyObject([{ name: "keys/x", bytes: old }], FILE);
    assert.equal(opened.object.facts, undefined);
    const { bytes: added } = addFacts(opened, PLAN);
    const object = decodeKeyObject(added);
    assert.equal(verifyFacts(KEYS, object), "active");
    assert.deepEqual(encodeKeyObject({ ...object, facts: undefined }), old);
    const rotated = rotateKeys(KEYS);
    assert.deepEqual(await openKeys([resealKeys(rotated, object)], FILE), rotated);
  });

  it("that is write-only has no secret half of any repository key, neither then nor after a rotation", async () => {
    const mixed = rotateKeys(KEYS, "x25519");
    const object = await sealKeys(mixed, FILE, { ...PLAN, capability: "write-only" });
    const opened = await openKeyObject([object], FILE);
    assert.deepEqual(opened.keys, writeOnlyKeys(mixed));
    assert.ok(!canOpen(opened.keys) && canOpen(mixed));
    const rotated = rotateKeys(mixed);
    const after = await openKeyObject([resealKeys(rotated, opened.object)], FILE);
    assert.deepEqual(after.keys, writeOnlyKeys(rotated));
    for (const key of after.keys.repositoryKeys.values()) assert.equal(secretOf(key), undefined);
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
