import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import {
  CHECKSUM_BYTES,
  payloadNonceAt,
  sealedParts,
  sealOverheadBytes,
  type ObjectKind,
  type WrapScheme,
} from "#proto/sealed-object.ts";
import { Blake3Hasher } from "@napi-rs/blake-hash";
import { createHasher } from "./hashing.ts";
import { AGREED_KEYS_MAX, OBJECTS_PER_EPHEMERAL } from "./key-wrap.ts";
import {
  createRepositoryKeys,
  rotateKeys,
  writeOnlyKeys,
  type RepositoryKey,
  type RepositoryKeys,
} from "./keys.ts";
import { verifyChecksum } from "./sealed-check.ts";
import { createSealer, repositoryKeyOf, rewrap, sealedBytesMax } from "./sealing.ts";

const COMPRESSIONS = ["none", "zstd", "lz4"] as const;
const SCHEMES: readonly WrapScheme[] = ["aes", "x25519"];

function failure(action: () => unknown): AshlarError {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof AshlarError, String(error));
    return error;
  }
  throw new Error("opened");
}

/** What an attacker does: edits and makes the checksum fit again. */
function withChecksum(sealed: Buffer): Buffer {
  const end = sealed.length - CHECKSUM_BYTES;
  const digest = new Blake3Hasher().update(sealed.subarray(0, end)).digestBuffer();
  digest.copy(sealed, end, 0, CHECKSUM_BYTES);
  return sealed;
}

function createKey(scheme: WrapScheme): RepositoryKey {
  const keys = createRepositoryKeys({ hash: "blake3", compression: "none", scheme });
  return keys.repositoryKeys.get(keys.activeKeyId) as RepositoryKey;
}

for (const scheme of SCHEMES) {
  const KEYS = createRepositoryKeys({ hash: "blake3", compression: "zstd", scheme });
  const HASHER = createHasher(KEYS);
  const overhead = sealOverheadBytes(scheme);
  const SEALER = createSealer(KEYS, { compression: "zstd" });

  const TEXT = Buffer.from("some text that repeats, ".repeat(50));
  const TEXT_ID = HASHER.hashBlock(TEXT).toString("hex");
  const TEXT_SEALED = SEALER.seal({ kind: "block", id: TEXT_ID, plain: TEXT });

  function checkOf(
    sealed: Buffer,
    id = TEXT_ID,
    kind: ObjectKind = "block",
    sealer = SEALER,
  ): string {
    const error = failure(() => sealer.open({ kind, id, sealed }));
    assert.equal(error.code, ErrorCode.Damaged, error.message);
    assert.ok(error.message.includes(`${kind} ${id}`));
    return error.details["check"] as string;
  }

  function flipped(at: number, mask = 1): Buffer {
    const bytes = Buffer.from(TEXT_SEALED);
    bytes[at] = (bytes[at] as number) ^ mask;
    return bytes;
  }

  describe(`a sealed object: ${scheme}`, () => {
    it("opens to what was sealed, whatever the compression, size and place in memory", () => {
      const plain = fc.oneof(
        fc.uint8Array({ minLength: 1, maxLength: 3000 }),
        fc.integer({ min: 1, max: 3000 }).map((length) => Buffer.alloc(length, "abc")),
      );
      fc.assert(
        fc.property(
          plain,
          fc.constantFrom(...COMPRESSIONS),
          fc.nat({ max: 99 }),
          (bytes, compression, offset) => {
            const sealer = createSealer(KEYS, { compression });
            const id = HASHER.hashNode(bytes).toString("hex");
            const room = Buffer.from(new SharedArrayBuffer(offset + sealedBytesMax(bytes.length)));
            const length = sealer.sealInto({ kind: "node", id, plain: bytes }, room, offset);
            const sealed = room.subarray(offset, offset + length);
            const out = Buffer.alloc(bytes.length + 20);
            assert.equal(sealer.openInto({ kind: "node", id, sealed }, out, 20), bytes.length);
            assert.deepEqual(out.subarray(20), Buffer.from(bytes));
            assert.deepEqual(sealer.open({ kind: "node", id, sealed }), Buffer.from(bytes));
            verifyChecksum(sealed);
          },
        ),
      );
    });

    it("opens whatever the compression of the one who opens", () => {
      const plain = Buffer.concat([randomBytes(300_000), Buffer.alloc(300_000)]);
      const id = HASHER.hashBlock(plain).toString("hex");
      for (const compression of COMPRESSIONS) {
        const sealed = createSealer(KEYS, { compression }).seal({ kind: "block", id, plain });
        assert.equal(sealed.length > plain.length, compression === "none");
        assert.deepEqual(SEALER.open({ kind: "block", id, sealed }), plain);
      }
    });

    it("is never the same twice, and shows nothing of its plaintext", () => {
      const secret = randomBytes(64);
      const id = HASHER.hashBlock(secret).toString("hex");
      const [a, b] = [1, 2].map(() => SEALER.seal({ kind: "block", id, plain: secret })) as [
        Buffer,
        Buffer,
      ];
      assert.equal(a.length, secret.length + overhead);
      assert.ok(!a.includes(secret.subarray(0, 8)));
      const [partsA, partsB] = [sealedParts(a, scheme, 64), sealedParts(b, scheme, 64)];
      for (const part of ["wrapNonce", "wrappedKey", "nonce", "ciphertext"] as const) {
        assert.notDeepEqual(partsA[part], partsB[part]);
      }
    });

    it("has a data key and nonces of its own, however many are made", () => {
      const sealed = Array.from({ length: 200 }, () =>
        SEALER.seal({ kind: "block", id: TEXT_ID, plain: TEXT }),
      );
      const at = payloadNonceAt(scheme);
      for (const [start, end] of [
        [at - 60, at - 48],
        [at - 48, at - 16],
        [at, at + 12],
        [at + 12, at + 32],
      ] as const) {
        assert.equal(new Set(sealed.map((bytes) => bytes.toString("hex", start, end))).size, 200);
      }
    });

    it("does not change the memory that it was sealed from or opened from", () => {
      const plain = Buffer.from(TEXT);
      const sealed = SEALER.seal({ kind: "block", id: TEXT_ID, plain });
      assert.deepEqual(plain, TEXT);
      const copy = Buffer.from(sealed);
      SEALER.open({ kind: "block", id: TEXT_ID, sealed });
      assert.deepEqual(sealed, copy);
    });

    it("holds heads and stamps, which have no content hash", () => {
      for (const kind of ["head", "stamp"] as const) {
        const id = "07".repeat(32);
        assert.deepEqual(
          SEALER.open({ kind, id, sealed: SEALER.seal({ kind, id, plain: TEXT }) }),
          TEXT,
        );
      }
    });

    it("needs its room, and says so as a defect", () => {
      const out = Buffer.alloc(TEXT_SEALED.length - 1);
      const sealing = failure(() =>
        SEALER.sealInto({ kind: "block", id: TEXT_ID, plain: TEXT }, out),
      );
      const opening = failure(() =>
        SEALER.openInto(
          { kind: "block", id: TEXT_ID, sealed: TEXT_SEALED },
          Buffer.alloc(TEXT.length),
          1,
        ),
      );
      assert.deepEqual([sealing.code, opening.code], [ErrorCode.Internal, ErrorCode.Internal]);
      for (const size of [0, 100, overhead]) {
        failure(() =>
          SEALER.sealInto({ kind: "block", id: TEXT_ID, plain: TEXT }, Buffer.alloc(size)),
        );
      }
      assert.throws(
        () => SEALER.seal({ kind: "block", id: TEXT_ID, plain: Buffer.alloc(0) }),
        /1 byte/,
      );
    });
  });

  describe(`a damaged object: ${scheme}`, () => {
    it("with any bit flipped does not open, and its checksum alone tells", () => {
      for (let at = 0; at < TEXT_SEALED.length; at += 1) {
        const bytes = flipped(at, 1 << (at % 8));
        const check = checkOf(bytes);
        assert.equal(
          check,
          at < 7 ? "magic" : check === "truncated" ? "truncated" : "checksum",
          `byte ${at}`,
        );
        assert.throws(() => verifyChecksum(bytes), { code: ErrorCode.Damaged });
      }
    });

    it("cut at any byte does not open, and is called truncated", () => {
      for (let length = 0; length < TEXT_SEALED.length; length += 1) {
        const cut = TEXT_SEALED.subarray(0, length);
        assert.equal(checkOf(cut), "truncated", `${length} bytes`);
        assert.throws(() => verifyChecksum(cut), { details: { check: "truncated" } });
      }
      assert.equal(checkOf(Buffer.concat([TEXT_SEALED, Buffer.alloc(1)])), "checksum");
      assert.equal(checkOf(Buffer.alloc(1000)), "magic");
    });
  });

  describe(`an edited object: ${scheme}`, () => {
    it("with any byte changed and a checksum that fits does not open either", () => {
      const checks = new Map<string, number>();
      for (let at = 0; at < TEXT_SEALED.length - CHECKSUM_BYTES; at += 1) {
        const error = failure(() =>
          SEALER.open({ kind: "block", id: TEXT_ID, sealed: withChecksum(flipped(at, 0x10)) }),
        );
        // A format, kind, compression, cipher, feature or wrap that is not known is a newer Ashlar's as far as one can tell.
        const newer = [7, 8, 9, 10, 12, 13, 14, 15, 64].includes(at);
        assert.equal(error.code, newer ? ErrorCode.Refused : ErrorCode.Damaged, `byte ${at}`);
        const check = newer ? "newer" : (error.details["check"] as string);
        checks.set(check, (checks.get(check) ?? 0) + 1);
      }
      const stored = TEXT_SEALED.length - overhead;
      assert.equal(checks.get("id"), 32);
      assert.equal(checks.get("key"), 8);
      assert.equal(checks.get("wrap"), scheme === "aes" ? 60 : 92);
      assert.ok((checks.get("tag") ?? 0) >= 12 + stored + 16);
    });

    it("with the compression changed to another one does not open", () => {
      const bytes = Buffer.from(TEXT_SEALED);
      bytes[9] = 2;
      assert.equal(checkOf(withChecksum(bytes)), "tag");
    });

    it("put in the place of another is recognised", () => {
      const otherId = HASHER.hashBlock(Buffer.from("other")).toString("hex");
      assert.equal(checkOf(TEXT_SEALED, otherId), "id");
      assert.equal(checkOf(TEXT_SEALED, TEXT_ID, "node"), "kind");
      const renamed = Buffer.from(TEXT_SEALED);
      renamed.write(otherId, 16, "hex");
      assert.equal(checkOf(withChecksum(renamed), otherId), "wrap");
    });

    it("with the wrapped key of another object does not open", () => {
      const again = SEALER.seal({ kind: "block", id: TEXT_ID, plain: TEXT });
      const grafted = Buffer.from(TEXT_SEALED);
      again.copy(grafted, 56, 56, payloadNonceAt(scheme));
      assert.equal(checkOf(withChecksum(grafted)), "tag");
    });

    it("of content that does not fit its id is recognised, though everything else fits", () => {
      const lie = SEALER.seal({ kind: "block", id: TEXT_ID, plain: Buffer.from("something else") });
      assert.equal(checkOf(lie), "content");
      const asNode = SEALER.seal({ kind: "node", id: TEXT_ID, plain: TEXT });
      assert.equal(checkOf(asNode, TEXT_ID, "node"), "content");
    });

    it("is an object of another repository when its key is unknown", () => {
      const other = createRepositoryKeys({ hash: "blake3", compression: "zstd", scheme });
      const sealer = createSealer({ ...other, dedupKey: KEYS.dedupKey }, { compression: "zstd" });
      assert.equal(checkOf(sealer.seal({ kind: "block", id: TEXT_ID, plain: TEXT })), "key");
    });
  });

  describe(`repository keys: ${scheme}`, () => {
    it("that are retired still open, and make nothing new", () => {
      for (const other of SCHEMES) {
        const rotated: RepositoryKeys = {
          ...KEYS,
          activeKeyId: "00000000000000ff",
          repositoryKeys: new Map([...KEYS.repositoryKeys, ["00000000000000ff", createKey(other)]]),
        };
        const sealer = createSealer(rotated, { compression: "none" });
        assert.deepEqual(sealer.open({ kind: "block", id: TEXT_ID, sealed: TEXT_SEALED }), TEXT);
        const fresh = sealer.seal({ kind: "block", id: TEXT_ID, plain: TEXT });
        assert.equal(fresh.toString("hex", 56, 64), "00000000000000ff");
        assert.equal(checkOf(fresh), "key");
      }
    });
  });

  describe(`rewrap: from ${scheme}`, () => {
    it("puts an object under the active key, whatever its kind, and leaves the payload as it is", () => {
      for (const to of SCHEMES) {
        const rotated = rotateKeys(KEYS, to);
        const sealer = createSealer(rotated, { compression: "none" });
        const head = { kind: "head", id: "07".repeat(32) } as const;
        const objects = [
          { kind: "block", id: TEXT_ID, sealed: TEXT_SEALED },
          { ...head, sealed: SEALER.seal({ ...head, plain: TEXT }) },
        ] as const;
        for (const object of objects) {
          const before = Buffer.from(object.sealed);
          const sealed = rewrap(object.sealed, rotated);
          assert.deepEqual(object.sealed, before);
          assert.equal(repositoryKeyOf(object.sealed), KEYS.activeKeyId);
          assert.equal(repositoryKeyOf(sealed), rotated.activeKeyId);
          assert.deepEqual(sealer.open({ ...object, sealed }), TEXT);
          assert.equal(sealed.length - before.length, sealOverheadBytes(to) - overhead);
          const payload = sealed.subarray(payloadNonceAt(to), -CHECKSUM_BYTES);
          assert.deepEqual(payload, before.subarray(payloadNonceAt(scheme), -CHECKSUM_BYTES));
          assert.deepEqual(sealed.subarray(0, 56), before.subarray(0, 56));
          assert.notDeepEqual(rewrap(object.sealed, rotated), sealed);
          assert.equal(checkOf(sealed, object.id, object.kind), "key");
          const renewed = sealer.renew(object.sealed);
          assert.ok(renewed !== undefined);
          assert.deepEqual(sealer.open({ ...object, sealed: renewed }), TEXT);
          assert.equal(sealer.renew(renewed), undefined, "it is under the active key");
          // And back: a repository key that is retired once more.
          assert.deepEqual(sealer.open({ ...object, sealed: rewrap(sealed, rotated) }), TEXT);
        }
      }
    });

    it("refuses what is not whole, what was edited, and what is not to be opened", () => {
      const rotated = rotateKeys(KEYS);
      for (let at = 0; at < TEXT_SEALED.length; at += 1) {
        assert.equal(failure(() => rewrap(flipped(at), rotated)).code, ErrorCode.Damaged);
        if (at < 56 + 12 || at >= payloadNonceAt(scheme)) continue;
        const error = failure(() => rewrap(withChecksum(flipped(at)), rotated));
        assert.equal(error.details["check"], "wrap", `byte ${at}`);
      }
      for (let length = 0; length < TEXT_SEALED.length; length += 7) {
        const cut = TEXT_SEALED.subarray(0, length);
        assert.equal(failure(() => rewrap(cut, rotated)).code, ErrorCode.Damaged);
      }
      const stranger = createRepositoryKeys({ hash: "blake3", compression: "none" });
      assert.equal(failure(() => rewrap(TEXT_SEALED, stranger)).details["check"], "key");
      for (const keys of [stranger, writeOnlyKeys(rotateKeys(KEYS, "x25519"))]) {
        assert.equal(createSealer(keys, { compression: "none" }).renew(TEXT_SEALED), undefined);
      }
    });

    it("makes nothing whole that was not: an edited payload shows when it is opened", () => {
      const rotated = rotateKeys(KEYS);
      const sealer = createSealer(rotated, { compression: "none" });
      const edited = withChecksum(flipped(payloadNonceAt(scheme) + 20));
      assert.equal(checkOf(rewrap(edited, rotated), TEXT_ID, "block", sealer), "tag");
    });
  });
}

describe("an X25519 wrap", () => {
  const keys = createRepositoryKeys({ hash: "blake3", compression: "none", scheme: "x25519" });
  const block = { kind: "head", id: "07".repeat(32), plain: Buffer.from("x") } as const;
  const ephemeralOf = (sealed: Buffer): string => sealed.toString("hex", 68, 100);

  it("shares its ephemeral key with a bounded number of others of one sealer", () => {
    const sealer = createSealer(keys, { compression: "none" });
    const counts = new Map<string, number>();
    for (let index = 0; index < 2 * OBJECTS_PER_EPHEMERAL + 1; index += 1) {
      const ephemeral = ephemeralOf(sealer.seal(block));
      counts.set(ephemeral, (counts.get(ephemeral) ?? 0) + 1);
    }
    assert.deepEqual([...counts.values()], [OBJECTS_PER_EPHEMERAL, OBJECTS_PER_EPHEMERAL, 1]);
    const other = createSealer(keys, { compression: "none" });
    assert.ok(!counts.has(ephemeralOf(other.seal(block))));
  });

  it("opens in any order, with more ephemeral keys than are remembered", () => {
    const opener = createSealer(keys, { compression: "none" });
    const objects = Array.from({ length: AGREED_KEYS_MAX + 50 }, (_, index) => {
      const plain = Buffer.from(`object ${index}`);
      return {
        ...block,
        plain,
        sealed: createSealer(keys, { compression: "none" }).seal({ ...block, plain }),
      };
    });
    for (const round of [objects, objects.toReversed(), objects]) {
      for (const { plain, ...object } of round) assert.deepEqual(opener.open(object), plain);
    }
  });

  it("opens with the private key alone, and is made without it", () => {
    const writer = createSealer(writeOnlyKeys(keys), { compression: "none" });
    const sealed = writer.seal(block);
    const error = failure(() => writer.open({ ...block, sealed }));
    assert.deepEqual([error.code, error.details["check"]], [ErrorCode.Refused, "write-only"]);
    assert.match(error.remedy ?? "", /full access key/);
    assert.deepEqual(
      createSealer(keys, { compression: "none" }).open({ ...block, sealed }),
      block.plain,
    );
    assert.throws(() => rewrap(sealed, writeOnlyKeys(keys)), { code: ErrorCode.Refused });
  });

  it("is verified without the private key: all but whether somebody has edited it", () => {
    const writer = createSealer(writeOnlyKeys(keys), { compression: "none" });
    const sealed = writer.seal(block);
    const { kind, id } = block;
    writer.verify({ kind, id, sealed });
    const check = (object: Parameters<typeof writer.verify>[0]): unknown =>
      failure(() => writer.verify(object)).details["check"];
    assert.equal(check({ kind: "stamp", id, sealed }), "kind");
    assert.equal(check({ kind, id: "08".repeat(32), sealed }), "id");
    assert.equal(check({ kind, id, sealed: sealed.subarray(0, 200) }), "truncated");
    const other = createRepositoryKeys({ hash: "blake3", compression: "none", scheme: "x25519" });
    const foreign = createSealer(other, { compression: "none" }).seal(block);
    assert.equal(check({ kind, id, sealed: foreign }), "key");
    for (let at = 7; at < sealed.length; at += 1) {
      const bytes = Buffer.from(sealed);
      bytes[at] = (bytes[at] as number) ^ 4;
      assert.ok(["checksum", "truncated"].includes(check({ kind, id, sealed: bytes }) as string));
    }
  });

  it("is not opened where its ephemeral key gives zeros", () => {
    const sealed = createSealer(keys, { compression: "none" }).seal(block);
    sealed.fill(0, 68, 100);
    const error = failure(() =>
      createSealer(keys, { compression: "none" }).open({ ...block, sealed: withChecksum(sealed) }),
    );
    assert.equal(error.details["check"], "wrap");
  });

  it("is never taken for one under a symmetric key of the same id, or the other way round", () => {
    const symmetric: RepositoryKeys = {
      ...keys,
      repositoryKeys: new Map([[keys.activeKeyId, createKey("aes")]]),
    };
    for (const [from, to] of [
      [keys, symmetric],
      [symmetric, keys],
    ] as const) {
      const sealed = createSealer(from, { compression: "none" }).seal(block);
      const error = failure(() =>
        createSealer(to, { compression: "none" }).open({ ...block, sealed }),
      );
      assert.equal(error.details["check"], "wrap");
    }
  });
});
