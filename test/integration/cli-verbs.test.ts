// Every verb as a user gives it: what it prints, and what it does.
import assert from "node:assert/strict";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { decodeSealed } from "#proto/sealed-object.ts";
import { BLOCK, imageBytes, noise, type BlockContent } from "#test/fixtures/integration-image.ts";
import { TestRepository, TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";

const EXIT_USAGE = 64;
const options = { timeout: TEST_TIMEOUT_MS };

/** A source with these blocks; later calls change it. */
async function write(file: string, ...blocks: readonly string[]): Promise<Buffer> {
  const bytes = imageBytes(
    blocks.map((name): BlockContent => (name === "" ? "zero" : { noise: name })),
  );
  await writeFile(file, bytes);
  return bytes;
}

function lastLine(text: Buffer): string {
  return text.toString().trimEnd().split("\n").at(-1) ?? "";
}

describe("verbs", options, () => {
  it("backup prints the uid as its last line, and all figures with --json", async () => {
    await using repository = await TestRepository.make({ storages: ["one", "two"] });
    const source = repository.fresh("disk");
    await write(source, "a", "b", "", "a", "c");
    const text = await repository.run(["backup", source, "web", "--label", "env=prod"]);
    const uid = lastLine(text.stdout);
    assert.match(uid, /^web-[a-z0-9]{6}$/);
    const quiet = await repository.run(["backup", source, "web", "--quiet"]);
    assert.match(quiet.stdout.toString(), /^web-[a-z0-9]{6}\n$/);
    await write(source, "a", "x", "", "a", "c");
    const document = await repository.backup(source, "web", ["--snapshot", "nightly"]);
    const { uid: third, bytesStored, stages, ...figures } = document;
    assert.ok(bytesStored > 0);
    assert.ok(Object.values(stages).some((ms) => ms > 0));
    assert.deepEqual(
      { ...figures, durationMs: 0 },
      {
        volume: "web",
        sizeBytes: 5 * BLOCK,
        bytesRead: 5 * BLOCK,
        blocksRead: 5,
        bytesNew: BLOCK,
        blocksNew: 1,
        bytesKnown: 3 * BLOCK,
        blocksKnown: 3,
        bytesSparse: BLOCK,
        blocksSparse: 1,
        bytesUnchanged: 0,
        blocksUnchanged: 0,
        durationMs: 0,
        warnings: [],
        storages: [
          { name: "one", complete: true },
          { name: "two", complete: true },
        ],
        resumed: false,
      },
    );
    const shown = await repository.json<Record<string, unknown>>(["show", third]);
    assert.equal(shown["snapshot"], "nightly");
    assert.equal(shown["restorable"], true);
    assert.deepEqual(shown["completeAt"], ["one", "two"]);
  });

  it("backup compresses as it is told, and show tells how", async () => {
    await using repository = await TestRepository.make();
    const source = repository.fresh("disk");
    const known = new Set<string>();
    for (const [args, text, found] of [
      [[], "zstd, level 1", "zstd"],
      [["--compression", "zstd", "--compression-level", "7"], "zstd, level 7", "zstd"],
      [["--compression", "lz4"], "lz4", "lz4"],
      [["--compression", "none"], "none", "none"],
    ] as const) {
      await writeFile(source, Buffer.alloc(3 * BLOCK, `${text} is easily made smaller `));
      const { uid } = await repository.backup(source, "web", args);
      const shown = await repository.run(["show", uid]);
      assert.match(String(shown.stdout), new RegExp(`^compression: ${text}$`, "m"));
      const added = (await repository.objects(undefined, "blocks")).filter(
        ({ name }) => !known.has(name),
      );
      assert.equal(added.length, 3);
      for (const { name, file } of added) {
        known.add(name);
        assert.equal(decodeSealed(await readFile(file)).header.compression, found);
      }
      await repository.assertRestores(uid, await readFile(source));
    }
    for (const args of [
      ["--compression", "zip"],
      ["--compression", "lz4", "--compression-level", "3"],
      ["--compression-level", "20"],
    ]) {
      await repository.fails(EXIT_USAGE, ["backup", source, "web", ...args]);
    }
  });

  it("ls, show and diff tell what there is and what differs", async () => {
    await using repository = await TestRepository.make();
    const source = repository.fresh("disk");
    await write(source, "a", "b", "c", "d");
    const first = await repository.backup(source, "web");
    await write(source, "a", "x", "y", "");
    const second = await repository.backup(source, "web");
    await repository.backup(source, "db");
    const uids = async (...filter: string[]) => {
      const { versions } = await repository.json<{ versions: { uid: string }[] }>([
        "ls",
        ...filter,
      ]);
      return versions.map(({ uid }) => uid);
    };
    assert.equal((await uids()).length, 3);
    assert.deepEqual(await uids('volume == "web"'), [first.uid, second.uid]);
    assert.deepEqual(await uids('volume == "web" and date > "1 hour ago" and not protected'), [
      first.uid,
      second.uid,
    ]);
    assert.deepEqual(await uids('storage == "elsewhere"'), []);
    const table = (await repository.run(["ls", "--labels", "--stats"])).stdout.toString();
    assert.match(table, new RegExp(`${first.uid} +web .*256\\.00 KiB +64KiB +valid +yes +main`));
    const show = (await repository.run(["show", "web@latest"])).stdout.toString();
    assert.match(show, new RegExp(`^uid: +${second.uid}$`, "m"));
    const diff = await repository.json<{ changedBytes: number; extents: object[] }>([
      "diff",
      first.uid,
      "web@latest",
    ]);
    assert.deepEqual(diff.extents, [
      { offset: BLOCK, length: 2 * BLOCK, exists: true },
      { offset: 3 * BLOCK, length: BLOCK, exists: false },
    ]);
    assert.equal(diff.changedBytes, 3 * BLOCK);
    const text = (await repository.run(["diff", first.uid, first.uid])).stdout.toString();
    assert.match(text, /^0 B in 0 extents differ$/m);
  });

  it("restore writes files, parts, stdout, and only what differs", async () => {
    await using repository = await TestRepository.make();
    const source = repository.fresh("disk");
    const bytes = await write(source, "a", "", "c", "d");
    const { uid } = await repository.backup(source);
    await repository.assertRestores(uid, bytes);
    const target = repository.fresh("target");
    await writeFile(target, noise("old", bytes.length));
    await repository.fails(73, ["restore", uid, target]);
    const result = await repository.json<Record<string, unknown>>([
      "restore",
      uid,
      target,
      "--force",
      "--differential",
    ]);
    assert.equal(result["uid"], uid);
    const part = await repository.run(["restore", uid, "-", "--range", `${BLOCK - 10}:20`]);
    assert.deepEqual(part.stdout, bytes.subarray(BLOCK - 10, BLOCK + 10));
    assert.match(part.stderr, /restored .* to - in/);
    assert.deepEqual((await repository.run(["restore", uid, "-", "-q"])).stdout, bytes);
    await repository.fails(64, ["restore", uid, "-"]);
  });

  it("rm, protect, enforce and gc remove what they say, and dry runs nothing", async () => {
    await using repository = await TestRepository.make();
    const source = repository.fresh("disk");
    const made: string[] = [];
    for (const name of ["a", "b", "c", "d"]) {
      await write(source, "shared", name);
      made.push((await repository.backup(source, "web")).uid);
    }
    const [a, b, c, d] = made as [string, string, string, string];
    await repository.run(["protect", a]);
    await repository.fails(77, ["rm", b, a]);
    assert.equal((await repository.versions()).length, 4, "nothing went");
    await repository.run(["unprotect", a]);
    const plan = await repository.json<{ frees: Record<string, number> }>([
      "rm",
      "--dry-run",
      a,
      b,
    ]);
    assert.equal(plan.frees["blocks"], 2);
    assert.equal(plan.frees["blockBytes"], 2 * BLOCK);
    assert.equal((await repository.versions()).length, 4);
    assert.deepEqual((await repository.json<{ removed: string[] }>(["rm", a, b])).removed, [a, b]);
    const would = await repository.json<{ total: Record<string, number> }>(["gc", "--dry-run"]);
    assert.equal(would.total["storedBytes"], plan.frees["storedBytes"]);
    const before = await repository.blockCount();
    const done = await repository.json<Record<string, number>>(["gc"]);
    assert.equal(done["bytesFreed"], plan.frees["storedBytes"]);
    assert.equal(before - (await repository.blockCount()), 2);
    type Decisions = { versions: { uid: string; keep: boolean; reason: string }[] };
    const dry = await repository.json<Decisions>(["enforce", "latest1", "--dry-run"]);
    assert.deepEqual(
      dry.versions.map(({ uid, keep }) => [uid, keep]),
      [
        [d, true],
        [c, false],
      ],
    );
    for (const { reason } of dry.versions) assert.ok(reason.length > 0);
    await repository.json<Decisions>(["enforce", "latest1", 'volume == "other"']);
    assert.equal((await repository.versions()).length, 2, "the filter leaves them out");
    await repository.run(["enforce", "latest1"]);
    assert.deepEqual(
      (await repository.versions()).map(({ uid }) => uid),
      [d],
    );
    await repository.run(["gc", "--sweep"]);
    await repository.assertNoOrphans();
  });

  it("find tells which versions need an object", async () => {
    await using repository = await TestRepository.make();
    const image = repository.fresh("disk");
    await write(image, "shared", "one", "1");
    const first = await repository.backup(image, "one");
    await write(image, "2", "3", "two", "shared");
    const second = await repository.backup(image, "two");
    interface Found {
      readonly id: string;
      readonly type: string;
      readonly named: boolean;
      readonly copies: readonly { readonly state: string }[];
      readonly versions: readonly { readonly uid: string; readonly offsets: readonly number[] }[];
    }
    const find = (text: string): Promise<Found> => repository.json<Found>(["find", text]);
    const folder = repository.storageFolder();
    const files = (await readdir(folder, { recursive: true, withFileTypes: true }))
      .filter((entry) => entry.isFile())
      .map((entry) => `${entry.parentPath}/${entry.name}`);
    const some = (kind: string): string[] => files.filter((file) => file.includes(`/${kind}/`));
    const found = await Promise.all(some("blocks").map(find));
    assert.equal(found.length, 6);
    const shared = found.find(({ versions }) => versions.length === 2);
    assert.deepEqual(
      shared?.versions.toSorted((a, b) => a.offsets[0]! - b.offsets[0]!),
      [
        { uid: first.uid, offsets: [0], length: BLOCK, more: false },
        { uid: second.uid, offsets: [3 * BLOCK], length: BLOCK, more: false },
      ],
    );
    const { id } = shared;
    for (const text of [id.slice(0, 9), id.slice(0, 10), id]) {
      assert.deepEqual((await find(text)).versions, shared.versions);
    }
    const old = await find(`blocks/${id}.${"0".repeat(16)}`);
    assert.deepEqual([old.named, old.copies[0]?.state], [false, "good"]);
    const node = await find(some("nodes")[0]!);
    assert.deepEqual([node.type, node.versions.length], ["node", 1]);
    const named = await repository.json<{ uid: string }>(["find", some("heads")[0]!]);
    assert.ok([first.uid, second.uid].includes(named.uid));
    await repository.run(["rm", second.uid, first.uid]);
    assert.deepEqual((await find(id)).versions, []);
    await repository.fails(66, ["find", "f".repeat(64)]);
    await repository.fails(64, ["find", "image"]);
    await repository.fails(64, ["find", id.slice(0, 3)]);
  });

  it("label sets and removes labels, and they reach the storages", async () => {
    await using repository = await TestRepository.make();
    const source = repository.fresh("disk");
    await write(source, "a");
    const { uid } = await repository.backup(source, "vol", ["--label", "a=1", "--label", "b=2"]);
    await repository.run(["label", uid, "c=3", "b=4", "a-"]);
    assert.deepEqual((await repository.show(uid)).labels, { b: "4", c: "3" });
    const rebuilt = repository.fresh("rebuilt");
    const from = ["--from", repository.storageFolder(), "--key-file", repository.keyFile];
    await repository.run(["rebuild", rebuilt, ...from]);
    const shown = await repository.json<{ labels: object }>(["-c", rebuilt, "show", uid]);
    assert.deepEqual(shown.labels, { b: "4", c: "3" });
  });

  it("usage, status, storage and scrub measure and verify", async () => {
    await using repository = await TestRepository.make();
    const source = repository.fresh("disk");
    await write(source, "a", "b", "");
    const { uid } = await repository.backup(source, "web");
    await write(source, "a", "c", "");
    await repository.backup(source, "web");
    type Usage = { volumes: Record<string, unknown>[]; versions: Record<string, unknown>[] };
    const usage = await repository.json<Usage>(["usage"]);
    assert.deepEqual(
      usage.versions.map((each) => [each["dataBytes"], each["uniqueBytes"], each["sharedBytes"]]),
      [
        [2 * BLOCK, BLOCK, BLOCK],
        [2 * BLOCK, BLOCK, BLOCK],
      ],
    );
    assert.equal(usage.volumes[0]?.["uniqueBytes"], 3 * BLOCK);
    const status = await repository.json<{ sessions: object[]; storages: object[] }>(["status"]);
    assert.deepEqual(status.sessions, []);
    assert.equal(status.storages.length, 1);
    interface Stats {
      readonly storages: readonly {
        readonly verifiedSince: string;
        readonly folders: Record<string, { objects: number }>;
      }[];
    }
    const stats = await repository.json<Stats>(["storage", "stats"]);
    assert.equal(stats.storages[0]?.folders["blocks"]?.objects, 3);
    const scrubbedMs = Date.now();
    assert.ok(Date.parse(stats.storages[0].verifiedSince) < scrubbedMs);
    await repository.json(["scrub", "--deep"]);
    const scrubbed = await repository.json<Stats>(["storage", "stats"]);
    assert.ok(Date.parse(scrubbed.storages[0]?.verifiedSince ?? "") >= scrubbedMs);
    for (const args of [
      ["scrub"],
      ["scrub", "--deep"],
      ["scrub", "--deep", uid],
      ["scrub", "--deep", "--sample", "50%"],
    ]) {
      await repository.json(args);
    }
    const same = await repository.json<{ source: { differing: object[] } }>([
      "scrub",
      "web@latest",
      "--source",
      source,
    ]);
    assert.deepEqual(same.source.differing, []);
    const other = await repository.fails(65, ["scrub", uid, "--source", source]);
    const printed = JSON.parse(other.ended.stdout.toString()) as typeof same;
    assert.deepEqual(printed.source.differing, [{ offset: BLOCK, length: BLOCK }]);
    await repository.fails(64, ["scrub", "--source", source]);
    await repository.json(["replicate"]);
    await repository.json(["fsck"]);
  });

  it("storage add makes a storage, and replicate and the next backup fill it", async () => {
    await using repository = await TestRepository.make();
    const source = repository.fresh("disk");
    const bytes = await write(source, "a", "b");
    await repository.backup(source);
    const folder = repository.fresh("second");
    const added = await repository.json<{ id: string }>(["storage", "add", `second=${folder}`]);
    assert.match(added.id, /^[0-9a-f]{16}$/);
    await repository.fails(73, ["storage", "add", `second=${folder}`]);
    await repository.fails(66, ["storage", "add", "third"]);
    const listed = await repository.json<{ storages: { name: string; available: boolean }[] }>([
      "storage",
      "ls",
    ]);
    assert.deepEqual(
      new Map(listed.storages.map(({ name, available }) => [name, available])),
      new Map([
        ["main", true],
        ["second", true],
      ]),
    );
    const { uid } = await repository.backup(source);
    await repository.json(["replicate"]);
    await repository.assertRestores(uid, bytes, "second");
  });
});
