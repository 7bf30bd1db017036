import assert from "node:assert/strict";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import * as fc from "fast-check";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { findConfig, loadConfig, parseConfig, parseReaderConfig } from "./config-file.ts";
import type { Config } from "./config-file.ts";
import { parseBlockSize } from "./config-schema.ts";

const SURROUNDINGS = { env: {}, cwd: "/work", hostname: "box" };

const MINIMAL = `version: 1
metadata: ./metadata
storages:
  - name: here
    url: ./storage
`;

function read(text: string, env: Record<string, string> = {}): Config {
  return parseConfig(text, "/etc/ashlar/ashlar.yaml", { ...SURROUNDINGS, env });
}

function complaint(text: string, env: Record<string, string> = {}): string {
  try {
    read(text, env);
  } catch (error) {
    assert.ok(error instanceof AshlarError, String(error));
    assert.equal(error.code, ErrorCode.Config);
    return error.message;
  }
  throw new Error(`accepted: ${text}`);
}

describe("a configuration", () => {
  it("has defaults for everything but its version, metadata and storages", () => {
    assert.deepEqual(read(MINIMAL), {
      file: "/etc/ashlar/ashlar.yaml",
      metadata: "/etc/ashlar/metadata",
      foundationdb: undefined,
      keyFile: undefined,
      passphraseFile: undefined,
      host: "box",
      defaults: {
        blockBytes: 4 * 1024 * 1024,
        compression: "zstd",
        compressionLevel: 1,
        quorum: 1,
        storages: ["here"],
        hintSample: 0.001,
      },
      storages: [
        {
          name: "here",
          url: "file:///etc/ashlar/storage",
          site: "here",
          readOrder: 1,
          simultaneousReads: 8,
          simultaneousWrites: 8,
          simultaneousRemovals: 4,
        },
      ],
      sessions: { leaseMs: 30_000, resumeWindowMs: 86_400_000, patienceMs: 30_000 },
      memory: { budgetBytes: undefined },
      log: { level: "info", format: "text" },
      nats: undefined,
      agent: { sources: [], targets: [], pool: "default", localWriter: false },
      jobs: { perHost: 4, perCoordinator: 16, perStorage: 64, history: 90 * 86_400_000 },
      telemetry: { sampling: 1 },
    } satisfies Config);
  });

  it("can say everything", () => {
    const config = read(`
version: 1
metadata: /var/lib/ashlar
keyFile: key
host: hv-1
defaults:
  { blockSize: 65536, compression: lz4, compressionLevel: 3, quorum: 2, storages: [a, b], hintSample: 5% }
storages:
  - { name: a, url: "file:///backup", site: x, simultaneousReads: 1, simultaneousWrites: 256 }
  - { name: b, url: "file:../b c" }
  - { name: c, url: /c%20d }
  - { name: d, url: "s3://bucket/prefix" }
sessions: { lease: 10s, resumeWindow: 0, patience: 1m30s }
memory: { budget: 1GiB }
log: { level: debug, format: json }
`);
    assert.equal(config.keyFile, "/etc/ashlar/key");
    assert.equal(config.host, "hv-1");
    assert.deepEqual(config.defaults, {
      blockBytes: 65_536,
      compression: "lz4",
      compressionLevel: 3,
      quorum: 2,
      storages: ["a", "b"],
      hintSample: 0.05,
    });
    assert.deepEqual(
      config.storages.map(({ url }) => url),
      ["file:///backup", "file:///etc/b%20c", "file:///c%2520d", "s3://bucket/prefix"],
    );
    assert.deepEqual(config.storages[0], {
      name: "a",
      url: "file:///backup",
      site: "x",
      readOrder: 1,
      simultaneousReads: 1,
      simultaneousWrites: 256,
      simultaneousRemovals: 4,
    });
    assert.deepEqual(config.sessions, { leaseMs: 10_000, resumeWindowMs: 0, patienceMs: 90_000 });
    assert.equal(config.memory.budgetBytes, 1024 ** 3);
    assert.deepEqual(config.log, { level: "debug", format: "json" });
  });

  it("may have sections in which everything is commented out", () => {
    assert.deepEqual(read(`${MINIMAL}defaults:\nsessions: ~\nlog:\n  # level: x\n`), read(MINIMAL));
  });

  it("permits small blocks in tests only", () => {
    const small = `${MINIMAL}defaults: { blockSize: 512 }\n`;
    assert.equal(read(small, { ASHLAR_TEST_SMALL_BLOCKS: "1" }).defaults.blockBytes, 512);
    assert.match(
      complaint(small),
      /defaults\.blockSize: expected a power of two between 64KiB and 16MiB, found 512$/,
    );
    assert.match(
      complaint(small.replace("512", "256"), { ASHLAR_TEST_SMALL_BLOCKS: "1" }),
      /between 512 and 16MiB, found 256$/,
    );
    assert.equal(parseBlockSize("1MiB", false), 1024 * 1024);
    assert.throws(
      () => parseBlockSize("32KiB", false),
      /"32KiB" is not allowed; expected a power of two between 64KiB/,
    );
    assert.throws(() => parseBlockSize("32XB", false), /is not a size/);
  });
});

/** What is appended to the minimal configuration (or stands for it, where it has a version), the place, the message. */
const WRONG: readonly (readonly [text: string, place: string, message: RegExp])[] = [
  ["", "1:1", /^the file: expected a section with version, metadata and storages, found nothing$/],
  ["- a", "1:1", /found a list$/],
  [
    "version: 2\nmetadata: m\nstorages: [{name: a, url: b}]",
    "1:10",
    /^version: expected 1, .* found 2$/,
  ],
  [
    "version: 1\nstorages: [{name: a, url: b}]",
    "1:1",
    /^metadata: expected a path, but it is missing$/,
  ],
  [
    "version: 1\nmetadata: m\n",
    "1:1",
    /^storages: expected a list of storages, but it is missing$/,
  ],
  ["version: 1\nmetadata: m\nstorages: []", "3:11", /^storages: expected at least one storage$/],
  [
    "version: 1\nmetadata: m\nstorages: x",
    "3:11",
    /^storages: expected a list of storages, found "x"$/,
  ],
  [
    "version: 1\nmetadata: m\nstorages:\n  - x",
    "4:5",
    /^storages\[0\]: expected a section with name and url, found "x"$/,
  ],
  [
    "version: 1\nmetadata: m\nstorages:\n  - name: a",
    "4:5",
    /^storages\[0\]\.url: expected a URL .* missing$/,
  ],
  [
    "version: 1\nmetadata: m\nstorages:\n  - {name: a b, url: c}",
    "4:12",
    /^storages\[0\]\.name: expected a name: .* found "a b"$/,
  ],
  [
    "version: 1\nmetadata: m\nstorages:\n  - {name: a, url: b}\n  - {name: a, url: c}",
    "5:12",
    /the name "a" is taken/,
  ],
  [
    "version: 1\nmetadata: m\nstorages:\n  - {name: a, url: b}\n  - {name: b, url: ./x/../b}",
    "5:20",
    /^storages\[1\]\.url: storage a is there already/,
  ],
  [
    "version: 1\nmetadata: m\nstorages:\n  - {name: a, url: 'file://host/x'}",
    "4:20",
    /not a file URL; expected file:\/\/\/PATH/,
  ],
  [
    "version: 1\nmetadata: m\nstorages:\n  - {name: a, url: 'http://'}",
    "4:20",
    /"http:\/\/" is not a URL/,
  ],
  [
    "storage: []\n",
    "6:1",
    /^storage: unknown key; did you mean storages\? Expected version, metadata/,
  ],
  ["nonsense: 1\n", "6:1", /^nonsense: unknown key; Expected version/],
  [
    "defaults:\n  blocksize: 4MiB\n",
    "7:3",
    /^defaults\.blocksize: unknown key; did you mean blockSize\? Expected blockSize, /,
  ],
  ["defaults:\n  blockSize: 5MiB\n", "7:14", /^defaults\.blockSize: .* found "5MiB"$/],
  ["defaults:\n  blockSize:\n", "7:13", /^defaults\.blockSize: .* found nothing$/],
  ["defaults: 5\n", "6:11", /^defaults: expected a section, found 5$/],
  [
    "defaults:\n  compression: gzip\n",
    "7:16",
    /^defaults\.compression: expected one of zstd, lz4, none, found "gzip"$/,
  ],
  ["defaults:\n  quorum: 2\n", "7:11", /^defaults\.quorum: expected at most 1/],
  [
    "defaults:\n  quorum: 0\n",
    "7:11",
    /^defaults\.quorum: expected a whole number between 1 and 16, found 0$/,
  ],
  [
    "defaults:\n  storages: [here, hree]\n",
    "7:20",
    /^defaults\.storages\[1\]: there is no storage "hree"; did you mean here\?$/,
  ],
  ["defaults:\n  storages: [here, here]\n", "7:20", /here is listed twice$/],
  [
    "defaults:\n  hintSample: 101%\n",
    "7:15",
    /^defaults\.hintSample: expected a percentage such as 0.1%, found "101%"$/,
  ],
  [
    "sessions:\n  lease: 30\n",
    "7:10",
    /^sessions\.lease: expected a duration such as 30s, .* found 30$/,
  ],
  ["sessions:\n  lease: 1d\n", "7:10", /between 100ms and 1h, found "1d"$/],
  [
    "memory:\n  budget: 1MiB\n",
    "7:11",
    /^memory\.budget: expected a size between 32MiB and 1TiB, found "1MiB"$/,
  ],
  [
    "log:\n  level: loud\n",
    "7:10",
    /^log\.level: expected one of error, warn, info, debug, found "loud"$/,
  ],
  ["keyFile: a\npassphraseFile: b\n", "7:17", /found both$/],
  ["host: [a]\n", "6:7", /^host: expected a host name, found a list$/],
  ["metadata: x\n", "6:1", /unique/],
  ["keyFile: 'x\n", "7:1", /^Missing closing 'quote$/],
  ["log: *nowhere\n", "6:6", /nowhere/],
  ["log: &a {level: loud}\nmemory: *a\n", "6:10", /^memory\.level: unknown key; Expected budget$/],
];

describe("a wrong configuration", () => {
  it("is answered with file, line, column, the key and what is allowed", () => {
    for (const [text, place, message] of WRONG) {
      const whole = /^(version|-|$)/.test(text) ? text : MINIMAL + text;
      const [first = ""] = complaint(whole).split("\n");
      const prefix = `/etc/ashlar/ashlar.yaml:${place}: `;
      assert.ok(first.startsWith(prefix), `${JSON.stringify(text)}: ${first}`);
      assert.match(first.slice(prefix.length), message, text);
    }
  });

  it("shows several complaints, in order", () => {
    const lines = complaint(
      `${MINIMAL}log: {level: x, format: y}\nhost: 5\nfoo: 1\nbar: 1\nquux: 1\n`,
    ).split("\n");
    assert.deepEqual(lines.map((line) => line.split(":").slice(1, 3).join(":")).slice(0, 5), [
      "6:14",
      "6:25",
      "7:7",
      "8:1",
      "9:1",
    ]);
    assert.equal(lines[5], "and 1 more");
  });

  it("never fails in another way", () => {
    const keys =
      "version metadata storages defaults sessions log keyFile name url ? - & * ! | : # { } [ ] , ' \" a 1 ~ <<";
    const token = fc.constantFrom(...keys.split(" "), "\n", "\n  ", ": ", "- ", "&a ", "*a");
    fc.assert(
      fc.property(fc.array(token, { maxLength: 20 }), fc.boolean(), (tokens, appended) => {
        try {
          read((appended ? MINIMAL : "") + tokens.join(""));
        } catch (error) {
          assert.ok(error instanceof AshlarError && error.code === ErrorCode.Config, String(error));
        }
      }),
      { numRuns: 2000 },
    );
  });
});

describe("finding the configuration", () => {
  let folder = "";
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "ashlar-config-"));
    await mkdir(join(folder, "repo"));
    await mkdir(join(folder, "empty"));
    await writeFile(join(folder, "repo", "ashlar.yaml"), MINIMAL);
    await writeFile(join(folder, "other.yaml"), MINIMAL.replace("here", "there"));
  });
  after(async () => {
    await rm(folder, { recursive: true });
  });

  it("looks at --config, ASHLAR_CONFIG and the working folder, in this order", async () => {
    const find = (
      option: string | undefined,
      env: Record<string, string>,
      cwd: string,
    ): Promise<string> => findConfig(option, { env, cwd: join(folder, cwd), hostname: "box" });
    const repo = join(folder, "repo", "ashlar.yaml");
    const other = join(folder, "other.yaml");
    assert.equal(await find("repo", {}, "."), repo);
    assert.equal(await find("repo/ashlar.yaml", {}, "."), repo);
    assert.equal(await find("../other.yaml", { ASHLAR_CONFIG: "/nowhere" }, "repo"), other);
    assert.equal(await find(undefined, { ASHLAR_CONFIG: other }, "repo"), other);
    assert.equal(await find(undefined, { ASHLAR_CONFIG: "../repo" }, "empty"), repo);
    assert.equal(await find(undefined, { ASHLAR_CONFIG: "" }, "repo"), repo);
  });

  it("never goes on from what is named, and tells where it looked", async () => {
    const surroundings = { env: {}, cwd: join(folder, "repo"), hostname: "box" };
    const failsWith = (pattern: RegExp) => (error: unknown) =>
      error instanceof AshlarError &&
      error.code === ErrorCode.Config &&
      pattern.test(error.message) &&
      /ashlar init DIR/.test(error.remedy ?? "");
    await assert.rejects(
      findConfig("../empty", surroundings),
      failsWith(/at .*empty\/ashlar\.yaml, which --config names/),
    );
    await assert.rejects(
      findConfig("none", surroundings),
      failsWith(/at .*repo\/none, which --config names/),
    );
    await assert.rejects(
      findConfig(undefined, { ...surroundings, env: { ASHLAR_CONFIG: "x/y" } }),
      failsWith(/which ASHLAR_CONFIG names/),
    );
    await assert.rejects(
      findConfig(undefined, { ...surroundings, cwd: join(folder, "empty") }),
      failsWith(
        /--config and ASHLAR_CONFIG are not given, .*empty\/ashlar\.yaml nor \/etc\/ashlar\/ashlar\.yaml/,
      ),
    );
  });

  it("reads it", async () => {
    const config = await loadConfig(undefined, {
      env: {},
      cwd: join(folder, "repo"),
      hostname: "box",
    });
    assert.equal(config.metadata, join(folder, "repo", "metadata"));
  });
});

describe("the configuration of a cluster", () => {
  const nats =
    'nats:\n  servers: ["nats://a:4222"]\n  tls: { caFile: ca.pem }\n  nkeyFile: me.nk\n';

  it("is a section of a repository's, with absolute paths", () => {
    const config = parseConfig(`${MINIMAL}${nats}`, "/etc/a/ashlar.yaml", SURROUNDINGS);
    assert.equal(config.nats?.prefix, "ashlar");
    assert.equal(config.nats.nkeyFile, "/etc/a/me.nk");
    assert.deepEqual(config.nats.tls, { caFile: "/etc/a/ca.pem" });
    assert.equal(config.nats.streams.blocks, 256 * 1024 * 1024);
  });

  it("is an agent's alone where there is a dedup key", () => {
    const agent = "agent: { sources: [/dev/vg0/*] }\n";
    const text = `version: 1\ndedupKeyFile: dedup.key\n${nats}${agent}`;
    const config = parseReaderConfig(text, "/etc/a/agent.yaml", SURROUNDINGS);
    assert.equal(config.dedupKeyFile, "/etc/a/dedup.key");
    assert.equal(config.host, SURROUNDINGS.hostname);
    assert.deepEqual(config.agent.sources, ["/dev/vg0/*"]);
    assert.throws(
      () => parseReaderConfig(`${text}metadata: m\n`, "/etc/a/agent.yaml", SURROUNDINGS),
      /agent\.yaml:8:1: metadata: unknown key; Expected version, host, dedupKeyFile/,
    );
  });

  it("names what is wrong in it", () => {
    const problems: [string, RegExp][] = [
      ["nats: { servers: [a:4222] }\n", /nats\.servers\[0\]: expected a URL such as nats:\/\/host/],
      ["nats: {}\n", /nats\.servers: expected a list of URLs of NATS servers, but it is missing/],
      [
        'nats: { servers: ["nats://a"], tls: { cafile: x } }\n',
        /nats\.tls\.cafile: unknown key; did you mean caFile/,
      ],
      [
        'nats: { servers: ["nats://a"], user: u, nkeyFile: n }\n',
        /nats: expected one of credentialsFile/,
      ],
      ["agent: { localWriter: 1 }\n", /agent\.localWriter: expected true or false, found 1/],
    ];
    for (const [text, message] of problems) {
      assert.throws(() => parseConfig(`${MINIMAL}${text}`, "f.yaml", SURROUNDINGS), message);
    }
  });
});
