import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { parseConfig } from "#lib/process/config-file.ts";
import type { Config } from "#lib/process/config-file.ts";
import { renderConfig } from "./render-config.ts";

const MINIMAL = "version: 1\nmetadata: ./metadata\nstorages: [{ name: here, url: ./storage }]\n";

function read(text: string): Config {
  return parseConfig(text, "/etc/ashlar/ashlar.yaml", { env: {}, cwd: "/", hostname: "box" });
}

describe("what init writes", () => {
  it("reads back as what was chosen", () => {
    const text = renderConfig({
      metadata: "./metadata",
      keyFile: "./ashlar.key",
      blockBytes: 1024 * 1024,
      compression: "zstd",
      quorum: 1,
      storages: [
        { name: "here", url: "./storage" },
        { name: "off", url: 'file:///mnt/a b#"c', site: "cellar" },
      ],
    });
    const config = read(text);
    assert.equal(config.keyFile, "/etc/ashlar/ashlar.key");
    assert.equal(config.defaults.blockBytes, 1024 * 1024);
    assert.deepEqual(
      config.storages.map(({ name, site }) => [name, site]),
      [
        ["here", "here"],
        ["off", "cellar"],
      ],
    );
    assert.deepEqual(config.sessions, read(MINIMAL).sessions);
  });

  it("has every setting, commented out with its default", () => {
    const text = renderConfig({
      metadata: "./metadata",
      blockBytes: 4 * 1024 * 1024,
      compression: "zstd",
      quorum: 1,
      storages: [{ name: "here", url: "./storage" }],
    });
    const all = text
      .replaceAll(/^( *)#(?=[a-zA-Z]+:)/gm, "$1")
      .replace("storages: [name, name]", "storages: [here]")
      .replace("passphraseFile: /etc/ashlar/passphrase", "");
    const config = read(all);
    assert.equal(config.memory.budgetBytes, 256 * 1024 * 1024);
    assert.deepEqual({ ...config, host: "box", memory: { budgetBytes: undefined } }, read(MINIMAL));
  });

  it("quotes what YAML would take for something else", () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ minLength: 1 }),
          fc.constantFrom("true", "1", "~", "a: b", "- a", "#x", "no", "1e3", "a:b"),
        ),
        (path) => {
          const text = renderConfig({
            metadata: "/m",
            keyFile: path,
            blockBytes: 65_536,
            compression: "none",
            quorum: 1,
            storages: [{ name: "true", url: `/${path}` }],
          });
          const config = read(text);
          assert.equal(config.storages[0]?.name, "true");
          assert.equal(typeof config.keyFile, "string");
        },
      ),
    );
  });
});
