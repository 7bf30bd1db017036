// Known answers of every cipher, hash and key derivation, from the documents that define them: what Ashlar calls by these names
// is what others call so, whatever library is below. Those of our own wraps are the golden files (golden.test.ts).
import assert from "node:assert/strict";
import { createCipheriv, createDecipheriv, createHmac, hkdfSync, scryptSync } from "node:crypto";
import { describe, it } from "node:test";
import { Blake3Hasher } from "@napi-rs/blake-hash";
import { accessKeys } from "./access-key.ts";
import { deriveKey } from "./derive-key.ts";
import { createHasher } from "./hashing.ts";
import { agreeFrom, agreeWith, createX25519Pair, x25519, x25519PublicKey } from "./x25519.ts";

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ""), "hex");

describe("AES-256-GCM", () => {
  // McGrew and Viega, The Galois/Counter Mode of Operation, appendix B, test cases 13 to 16.
  const K = hex("feffe9928665731c6d6a8f9467308308 feffe9928665731c6d6a8f9467308308");
  const IV = hex("cafebabefacedbaddecaf888");
  const P = hex(
    "d9313225f88406e5a55909c5aff5269a 86a7a9531534f7da2e4c303d8a318a72" +
      "1c3c0c95956809532fcf0e2449a6b525 b16aedf5aa0de657ba637b391aafd255",
  );
  const C = hex(
    "522dc1f099567d07f47f37a32a84427d 643a8cdcbfe5c0c97598a2bd2555d1aa" +
      "8cb08e48590dbb3da7b08b1056828838 c5f61e6393ba7a0abcc9f662898015ad",
  );
  const A = hex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
  const ZERO_KEY = Buffer.alloc(32);
  const ZERO_IV = Buffer.alloc(12);
  const NONE = Buffer.alloc(0);
  const cases = [
    ["13", ZERO_KEY, ZERO_IV, NONE, NONE, NONE, "530f8afbc74536b9a963b4f1c4cb738b"],
    [
      "14",
      ZERO_KEY,
      ZERO_IV,
      NONE,
      Buffer.alloc(16),
      hex("cea7403d4d606b6e074ec5d3baf39d18"),
      "d0d1c8a799996bf0265b98b5d48ab919",
    ],
    ["15", K, IV, NONE, P, C, "b094dac5d93471bdec1a502270e3cc6c"],
    ["16", K, IV, A, P.subarray(0, 60), C.subarray(0, 60), "76fc6ece0f4e1768cddf8853bb2d551b"],
  ] as const;
  for (const [name, key, iv, aad, plain, ciphertext, tag] of cases) {
    it(`is that of McGrew and Viega, test case ${name}`, () => {
      const cipher = createCipheriv("aes-256-gcm", key, iv).setAAD(aad);
      assert.deepEqual(Buffer.concat([cipher.update(plain), cipher.final()]), ciphertext);
      assert.equal(cipher.getAuthTag().toString("hex"), tag);
      const decipher = createDecipheriv("aes-256-gcm", key, iv).setAAD(aad).setAuthTag(hex(tag));
      assert.deepEqual(Buffer.concat([decipher.update(ciphertext), decipher.final()]), plain);
    });
  }
});

describe("HKDF-SHA256", () => {
  it("is that of RFC 5869, test case 3: without salt, as all our keys are derived", () => {
    assert.equal(
      deriveKey(Buffer.alloc(22, 0x0b), "", 42).toString("hex"),
      "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    );
  });

  it("takes its info as bytes or as text", () => {
    const key = Buffer.alloc(32, 1);
    assert.deepEqual(deriveKey(key, "ashlar"), deriveKey(key, Buffer.from("ashlar")));
    assert.notDeepEqual(deriveKey(key, "ashlar"), deriveKey(key, "ashlaR"));
  });
});

describe("HMAC-SHA-256", () => {
  // RFC 4231, test cases 1, 2 and 6.
  const cases = [
    [
      Buffer.alloc(20, 0x0b),
      "Hi There",
      "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
    ],
    [
      Buffer.from("Jefe"),
      "what do ya want for nothing?",
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
    ],
    [
      Buffer.alloc(131, 0xaa),
      "Test Using Larger Than Block-Size Key - Hash Key First",
      "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
    ],
  ] as const;
  it("is that of RFC 4231", () => {
    for (const [key, text, mac] of cases) {
      assert.equal(createHmac("sha256", key).update(text).digest("hex"), mac);
    }
  });

  it("gives block ids under the derived key", () => {
    const dedupKey = Buffer.alloc(32, 5);
    const id = createHasher({ dedupKey, hash: "hmac-sha256" }).hashBlock(Buffer.from("Hi There"));
    const key = deriveKey(dedupKey, "ashlar block id 1");
    assert.equal(id.toString("hex"), createHmac("sha256", key).update("Hi There").digest("hex"));
  });
});

describe("scrypt", () => {
  // RFC 7914, section 12. The fourth takes 1 GiB.
  it("is that of RFC 7914", () => {
    const known = (password: string, salt: string, N: number, r: number, p: number): string =>
      scryptSync(password, salt, 64, { N, r, p, maxmem: 256 * N * r }).toString("hex");
    assert.equal(
      known("", "", 16, 1, 1),
      "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906",
    );
    assert.equal(
      known("password", "NaCl", 1024, 8, 16),
      "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b3731622eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640",
    );
    assert.equal(
      known("pleaseletmein", "SodiumChloride", 16_384, 8, 1),
      "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887",
    );
  });

  it("makes access keys of passphrases with the parameters of the key object", async () => {
    const salt = Buffer.from("NaCl");
    const kdf = { N: 1024, r: 8, p: 16, salt };
    const { key } = await accessKeys(
      { type: "passphrase", passphrase: "password" },
      { type: "passphrase", kdf },
    );
    assert.equal(
      key.toString("hex"),
      "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162",
    );
  });
});

describe("X25519", () => {
  it("is that of RFC 7748, section 5.2", () => {
    const scalar = hex("a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4");
    const point = hex("e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c");
    assert.equal(
      x25519(scalar, point)?.toString("hex"),
      "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    );
  });

  it("is that of RFC 7748, section 6.1", () => {
    const alice = hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    const bob = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    const [alicePublic, bobPublic] = [x25519PublicKey(alice), x25519PublicKey(bob)];
    assert.equal(
      alicePublic.toString("hex"),
      "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
    );
    assert.equal(
      bobPublic.toString("hex"),
      "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
    );
    const shared = "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
    assert.equal(x25519(alice, bobPublic)?.toString("hex"), shared);
    assert.equal(x25519(bob, alicePublic)?.toString("hex"), shared);
  });

  it("refuses the public keys that give zeros, whatever the private one is", () => {
    // Points of small order: RFC 7748, section 6.1, and the points named in section 7.
    const points = [
      Buffer.alloc(32),
      hex(`01${"00".repeat(31)}`),
      hex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
      hex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
      hex(`ec${"ff".repeat(30)}7f`),
      hex(`ed${"ff".repeat(30)}7f`),
      hex(`ee${"ff".repeat(30)}7f`),
    ];
    for (const point of points) {
      const pair = createX25519Pair();
      assert.equal(x25519(pair.privateKey, point), undefined, point.toString("hex"));
      assert.equal(agreeFrom(point, pair, "test"), undefined);
    }
  });

  it("agrees with a recipient on a key, which is another one each time and for each purpose", () => {
    const pair = createX25519Pair();
    assert.deepEqual(x25519PublicKey(pair.privateKey), pair.publicKey);
    const [one, two] = [agreeWith(pair.publicKey, "a"), agreeWith(pair.publicKey, "a")];
    assert.notDeepEqual(one.key, two.key);
    assert.deepEqual(agreeFrom(one.ephemeral, pair, "a"), one.key);
    assert.notDeepEqual(agreeFrom(one.ephemeral, pair, "b"), one.key);
    assert.notDeepEqual(agreeFrom(one.ephemeral, createX25519Pair(), "a"), one.key);
    // What docs/format.md says, with nothing of ours.
    const shared = x25519(pair.privateKey, one.ephemeral) as Buffer;
    const info = Buffer.concat([Buffer.from("a"), one.ephemeral, pair.publicKey]);
    assert.deepEqual(Buffer.from(hkdfSync("sha256", shared, "", info, 32)), one.key);
  });
});

describe("BLAKE3", () => {
  // The vectors of the BLAKE3 team, test_vectors.json: the first 32 bytes of keyed_hash and of hash.
  const KEY = Buffer.from("whats the Elvish word for friend");
  const input = (length: number): Buffer =>
    Buffer.from(Array.from({ length }, (_, index) => index % 251));
  const cases = [
    [
      0,
      "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26",
      "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
    ],
    [
      1,
      "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b",
      "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
    ],
    [
      1025,
      "357dc55de0c7e382c900fd6e320acc04146be01db6a8ce7210b7189bd664ea69",
      "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
    ],
    [
      4096,
      "befc660aea2f1718884cd8deb9902811d332f4fc4a38cf7c7300d597a081bfc0",
      "015094013f57a5277b59d8475c0501042c0b642e531b0a1c8f58d2163229e969",
    ],
  ] as const;

  it("is that of its authors, keyed for ids and plain for checksums", () => {
    for (const [length, keyed, plain] of cases) {
      const bytes = input(length);
      assert.equal(
        Blake3Hasher.newKeyed(KEY).update(bytes).digest("hex"),
        keyed,
        `${length} bytes`,
      );
      assert.equal(new Blake3Hasher().update(bytes).digest("hex"), plain, `${length} bytes`);
    }
  });
});
