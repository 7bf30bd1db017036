// What the golden files contain. Fixed for ever, like them; a new format gets constants of its own.
import type { RepositoryKeys } from "#lib/repository/keys.ts";
import type { Head } from "#proto/head.ts";
import type { TreeNode } from "#proto/node.ts";
import type { Stamp } from "#proto/stamp.ts";

const counting = (length: number, first: number): Buffer =>
  Buffer.from(Array.from({ length }, (_, index) => (first + index) & 0xff));

/** Keys that everybody knows. */
export const KEYS: RepositoryKeys = {
  repository: "5265706f7369746f",
  dedupKey: counting(32, 0x10),
  hash: "blake3",
  activeKeyId: "0000000000000002",
  repositoryKeys: new Map([
    ["0000000000000001", { scheme: "aes", key: counting(32, 0x40) }],
    ["0000000000000002", { scheme: "aes", key: counting(32, 0x60) }],
  ]),
  revision: 0,
  compression: "zstd",
};

/** The same repository with an X25519 key on top. */
export const X25519_KEYS: RepositoryKeys = {
  ...KEYS,
  activeKeyId: "0000000000000003",
  repositoryKeys: new Map([
    ...KEYS.repositoryKeys,
    [
      "0000000000000003",
      {
        scheme: "x25519",
        publicKey: Buffer.from(
          "dc2cca31e8e43bbd91dff7e475cca3347eb478107d5bd765aba4ae4a30c35d44",
          "hex",
        ),
        privateKey: counting(32, 0xc0),
      },
    ],
  ]),
  revision: 1,
};

/** What the objects of access keys say that have more than the first ones had. */
export const ACCESS_PLAN = { label: "G\u00e4ste \u201chost\u201d", createdMs: 1_764_000_000_789 };

/** The key in the key file. */
export const KEY_FILE_KEY = counting(32, 0x80);

/** With letters outside ASCII, composed. */
export const PASSPHRASE = "Gr\u00fc\u00dfe aus dem Steinbruch";

/** Bytes without a pattern that a compression finds: a linear congruential generator's high bytes. */
function noise(length: number): Buffer {
  let state = 1;
  return Buffer.from(
    Array.from({ length }, () => {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      return state >>> 24;
    }),
  );
}

/** One block for each compression; that of lz4 has two pieces. */
export const BLOCKS = {
  none: noise(500),
  zstd: Buffer.concat([noise(100), Buffer.alloc(4000, "golden ")]),
  lz4: Buffer.concat([noise(100), Buffer.alloc(300_000, "golden ")]),
} as const;

/** A leaf with its first, second and last child. */
export const NODE: TreeNode = {
  level: 0,
  children: Array.from({ length: 256 }, (_, index) =>
    [0, 1, 255].includes(index) ? counting(32, index).toString("hex") : undefined,
  ),
};

/** A head with every field. */
export const HEAD: Head = {
  uid: "web-k3v9qa",
  revision: 1,
  removed: false,
  volume: "web",
  snapshot: "nightly",
  createdMs: 1_764_000_000_123,
  sizeBytes: 5 * 2 ** 40 + 1,
  blockBytes: 4 * 2 ** 20,
  levels: 3,
  root: counting(32, 0xa0).toString("hex"),
  labels: { site: "north", "\u00fcber": "\u{1f9f1}" },
  protected: true,
  statistics: { blocksNew: 7, bytesRead: 5 * 2 ** 40 + 1, durationMs: 12_345 },
  policy: { storages: ["0123456789abcdef", "fedcba9876543210"], quorum: 1 },
  source: "file:/dev/vg/web",
  warnings: ["the source is mounted"],
};

/** The last revision of the same version. */
export const REMOVED_HEAD: Head = {
  ...HEAD,
  revision: 2,
  removed: true,
  root: undefined,
  protected: false,
};

/** A stamp. */
export const STAMP: Stamp = {
  repository: KEYS.repository,
  storage: "0123456789abcdef",
  run: 7,
  random: "7374616d70206964",
  createdMs: 1_764_000_000_456,
};
