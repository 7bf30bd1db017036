import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FormatError, FormatFault } from "./format-error.ts";
import { decodeKeyContent, encodeKeyContent, type KeyContent } from "./key-content.ts";
import { decodeRecord, encodeRecord } from "./record.ts";
import { assertFailsWell } from "#test/fixtures/flipped-bytes.ts";

const CONTENT: KeyContent = {
  dedupKey: Buffer.alloc(32, 1),
  hash: "blake3",
  repositoryKeys: [
    {
      id: "0000000000000001",
      scheme: "aes",
      key: Buffer.alloc(32, 2),
      publicKey: undefined,
      state: "retired",
    },
    {
      id: "0000000000000002",
      scheme: "aes",
      key: Buffer.alloc(32, 3),
      publicKey: undefined,
      state: "active",
    },
  ],
  revision: 0,
  compression: "zstd",
};
const [RETIRED, ACTIVE] = CONTENT.repositoryKeys as [
  KeyContent["repositoryKeys"][number],
  KeyContent["repositoryKeys"][number],
];
const X25519 = { ...ACTIVE, scheme: "x25519", publicKey: Buffer.alloc(32, 4) } as const;

describe("the content of a key object", () => {
  it("comes back as it was", () => {
    const contents: KeyContent[] = [
      CONTENT,
      { ...CONTENT, revision: 3 },
      { ...CONTENT, repositoryKeys: [RETIRED, X25519] },
      {
        ...CONTENT,
        repositoryKeys: [
          { ...RETIRED, key: undefined },
          { ...X25519, key: undefined },
        ],
      },
    ];
    for (const content of contents) {
      assert.deepEqual(decodeKeyContent(encodeKeyContent(content)), content);
    }
  });

  it("has the lowest format that says all of it", () => {
    const formatOf = (content: KeyContent): unknown =>
      decodeRecord(encodeKeyContent(content))["format"];
    assert.equal(formatOf(CONTENT), 1);
    assert.equal(formatOf({ ...CONTENT, revision: 1 }), 1);
    assert.equal(formatOf({ ...CONTENT, repositoryKeys: [RETIRED, X25519] }), 2);
    const pair = [{ ...RETIRED, key: undefined }, X25519];
    assert.equal(formatOf({ ...CONTENT, repositoryKeys: pair }), 2);
  });

  it("has exactly one active repository key, and has that of a symmetric one", () => {
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
    const repositoryKeys = [{ ...ACTIVE, key: undefined }];
    assert.throws(() => encodeKeyContent({ ...CONTENT, repositoryKeys }), FormatError);
  });

  it("is refused with a field that makes no sense, and the error names it", () => {
    const map = decodeRecord(encodeKeyContent(CONTENT));
    const wrong = {
      dedupKey: Buffer.alloc(31),
      hash: "md5",
      compression: "brotli",
      repositoryKeys: [1],
      revision: -1,
    };
    for (const [name, value] of Object.entries(wrong)) {
      assert.throws(() => decodeKeyContent(encodeRecord({ ...map, [name]: value })), {
        fault: FormatFault.Malformed,
        message: new RegExp(`"${name}`),
      });
    }
    const id = "0000000000000001";
    const keys = [
      { id, state: "active", scheme: "x25519", key: Buffer.alloc(32) },
      { id, state: "active", scheme: "rot13", key: Buffer.alloc(32) },
      { id, state: "active", key: Buffer.alloc(31) },
    ];
    for (const key of keys) {
      assert.throws(() => decodeKeyContent(encodeRecord({ ...map, repositoryKeys: [key] })), {
        fault: FormatFault.Malformed,
      });
    }
    assert.throws(() => decodeKeyContent(encodeRecord({ ...map, format: 3 })), {
      fault: FormatFault.Newer,
    });
  });

  it("never fails otherwise, whatever is changed in it", () => {
    const valid = encodeKeyContent({ ...CONTENT, repositoryKeys: [RETIRED, X25519], revision: 7 });
    assertFailsWell(valid, decodeKeyContent);
  });
});
