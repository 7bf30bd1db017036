import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { parseConfig, type StorageConfig } from "./config-file.ts";

const MIB = 1024 * 1024;

/** The one storage of a configuration, of which this is said beside its name and URL. */
function storageWith(keys: string): StorageConfig {
  const text = `version: 1\nmetadata: m\nstorages:\n  - { name: a, url: ./a, ${keys} }\n`;
  const surroundings = { env: {}, cwd: "/work", hostname: "box" };
  const [storage] = parseConfig(text, "/etc/ashlar/ashlar.yaml", surroundings).storages;
  assert.ok(storage);
  return storage;
}

function complaint(keys: string): string {
  try {
    storageWith(keys);
  } catch (error) {
    assert.ok(error instanceof AshlarError && error.code === ErrorCode.Config, String(error));
    return error.message;
  }
  throw new Error(`accepted: ${keys}`);
}

describe("what a configuration says of a storage", () => {
  it("may limit its bandwidth by direction", () => {
    const { bandwidthRead, bandwidthWrite } = storageWith("bandwidthRead: 50MiB");
    assert.equal(bandwidthRead, 50 * MIB);
    assert.equal(bandwidthWrite, undefined);
    assert.equal(storageWith("bandwidthWrite: 64KiB").bandwidthWrite, 65_536);
  });

  it("may have a cache, at a path from the folder of the file", () => {
    const { cache } = storageWith("cache: { path: ../cache, size: 10GiB }");
    assert.deepEqual(cache, { path: "/etc/cache", sizeBytes: 10 * 1024 * MIB });
    assert.equal("cache" in storageWith("site: b"), false);
  });

  it("is answered with what is allowed where it is wrong", () => {
    const wrong: readonly (readonly [keys: string, message: RegExp])[] = [
      [
        "bandwidthRead: 1KiB",
        /:4:\d+: storages\[0\]\.bandwidthRead: expected a size between 64KiB and 1TiB, found "1KiB"$/,
      ],
      ["bandwidthWrite: fast", /bandwidthWrite: expected a size .*, found "fast"$/],
      ["cache: /var/cache", /cache: expected a section with path and size, found "\/var\/cache"$/],
      [
        "cache: { path: c }",
        /cache\.size: expected a size between 64MiB and 1PiB, but it is missing$/,
      ],
      ["cache: { path: c, size: 63MiB }", /cache\.size: expected a size .*, found "63MiB"$/],
      ["cache: { paht: c, size: 1GiB }", /cache\.paht: unknown key; did you mean path\?/],
      [
        "simultaneousRemovals: 0",
        /simultaneousRemovals: expected a whole number between 1 and 256/,
      ],
      ["bandwidth: 1MiB", /storages\[0\]\.bandwidth: unknown key; .*bandwidthRead/],
    ];
    for (const [keys, message] of wrong) assert.match(complaint(keys), message);
  });
});
