/**
 * Losses of whole sites, as exercises: two buckets of a real S3 service and a folder, each of which must be enough. What lies in the
 * buckets is looked at, and harmed, without Ashlar.
 */
import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { noiseBlocks, writeImage } from "#test/fixtures/integration-image.ts";
import { runAshlar } from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";
import { S3Service } from "#test/fixtures/s3-service.ts";
import { rgwMissing } from "#test/servers/rgw.ts";

const EXIT_DAMAGED = 65;
const UNREACHABLE = "http://127.0.0.1:1";
const isData = (name: string): boolean => /^(?:blocks|nodes)\//.test(name);

describe("loss of a site", { skip: rgwMissing() ?? false, timeout: TEST_TIMEOUT_MS }, () => {
  let service: S3Service;
  before(async () => {
    service = await S3Service.start();
  });
  after(() => service.stop());

  interface Sites {
    readonly repo: TestRepository;
    /** Of sites a and b; c is a folder. */
    readonly buckets: readonly [string, string];
    readonly urls: readonly [string, string];
  }

  async function makeSites(): Promise<Sites> {
    const [a, b] = [await service.fresh(), await service.fresh()];
    const repo = await TestRepository.make({
      storages: ["a", "b", "c"],
      places: { a: a.url, b: b.url },
      init: ["--quorum", "2"],
    });
    return { repo, buckets: [a.bucket, b.bucket], urls: [a.url, b.url] };
  }

  it("a site is gone for good: another one takes its place, and has everything", async () => {
    const { repo: made, buckets } = await makeSites();
    await using repo = made;
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("x", 16));
    const { uid } = await repo.backup(image, "vol");
    await service.remove(buckets[0], await service.names(buckets[0]));
    await repo.assertRestores(uid, bytes);
    const later = await writeImage(image, noiseBlocks("y", 16));
    const second = await repo.backup(image, "vol");
    assert.deepEqual(
      second.storages.map(({ complete }) => complete),
      [false, true, true],
    );
    await repo.run(["storage", "disable", "a"]);
    const fresh = await service.fresh();
    await repo.run(["storage", "add", `d=${fresh.url}`]);
    await repo.run(["replicate", "--to", "d", "--all"]);
    await repo.assertRestores(uid, bytes, "d");
    await repo.assertRestores(second.uid, later, "d");
    assert.deepEqual((await repo.show(uid)).completeAt, ["b", "c", "d"]);
    assert.equal((await repo.show(uid)).restorable, true);
  });

  it("one object in a hundred rots silently at a site: all are found, named and healed", async () => {
    const { repo: made, buckets } = await makeSites();
    await using repo = made;
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("x", 400));
    const { uid } = await repo.backup(image, "vol");
    const [, bucket] = buckets;
    const random = seededRandom(7);
    const names = (await service.names(bucket)).filter(isData);
    const harmed = new Set<string>();
    while (harmed.size < names.length / 100) harmed.add(random.pick(names));
    for (const [index, name] of [...harmed].entries()) {
      const whole = await service.read(bucket, name);
      if (index % 4 === 0) whole.writeUInt8((whole.at(-100) as number) ^ 1, whole.length - 100);
      const other = names.find(
        (each) => !harmed.has(each) && each.slice(0, 6) === name.slice(0, 6),
      );
      if (index % 4 === 3) await service.remove(bucket, [name]);
      else if (index % 4 === 2) {
        await service.write(bucket, name, await service.read(bucket, other as string));
      } else await service.write(bucket, name, index % 4 === 1 ? whole.subarray(0, -1) : whole);
    }
    const scrubbed = await repo.run(["--json", "scrub", "--deep"], { code: EXIT_DAMAGED });
    const told = scrubbed.stdout.toString() + scrubbed.stderr;
    for (const name of harmed)
      assert.ok(told.includes(name.slice(name.indexOf("/") + 1, 71)), name);
    await repo.run(["gc"]);
    await repo.run(["scrub", "--deep"]);
    await repo.assertRestores(uid, bytes, "b");
    assert.equal((await service.names(bucket)).filter(isData).length, names.length);
    await repo.assertClean();
  });

  it("a site is back after versions were removed: it gets what is new, and loses what is gone", async () => {
    const { repo: made, buckets, urls } = await makeSites();
    await using repo = made;
    const image = repo.home.at("image");
    await writeImage(image, noiseBlocks("gone", 12));
    const gone = await repo.backup(image, "vol");
    const kept = await writeImage(image, noiseBlocks("kept", 12));
    const first = await repo.backup(image, "vol");
    const away = new URL(urls[0]);
    away.searchParams.set("endpoint", UNREACHABLE);
    await repo.configure([["storages", 0, "url"], away.href]);
    await repo.run(["rm", gone.uid]);
    const later = await writeImage(image, [...noiseBlocks("kept", 6), ...noiseBlocks("new", 6)]);
    const second = await repo.backup(image, "vol");
    await repo.run(["gc"]);
    assert.equal(
      (await service.names(buckets[0])).filter((name) => name.startsWith("blocks/")).length,
      24,
    );
    await repo.configure([["storages", 0, "url"], urls[0]]);
    await repo.run(["replicate"]);
    await repo.run(["gc", "--sweep"]);
    const { counts } = await repo.assertClean();
    assert.equal(counts["blocks"], 18);
    for (const bucket of buckets) {
      const blocks = (await service.names(bucket)).filter((name) => name.startsWith("blocks/"));
      assert.equal(blocks.length, 18, bucket);
    }
    await repo.assertRestores(first.uid, kept, "a");
    await repo.assertRestores(second.uid, later, "a");
  });

  it("the metadata are gone: each site alone brings everything back, and goes on from there", async () => {
    const { repo: made, urls } = await makeSites();
    await using repo = made;
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("x", 12));
    const { uid } = await repo.backup(image, "vol");
    await repo.run(["label", uid, "kind=golden"]);
    const key = repo.home.at("key");
    await writeFile(key, await readFile(repo.keyFile));
    await rm(repo.folder, { recursive: true });
    for (const [index, url] of [urls[0], urls[1], repo.storageFolder("c")].entries()) {
      // Each time the metadata made last are gone, too: this site knows nothing of them.
      const folder = repo.home.at(`again-${index}`);
      const run = (args: readonly string[]) =>
        runAshlar(["--config", folder, "--yes", ...args], { env: repo.env });
      await runAshlar(["rebuild", folder, "--from", `site=${url}`, "--key-file", key], {
        env: repo.env,
      });
      const target = repo.home.at(`target-${index}`);
      await run(["restore", uid, target]);
      assert.ok((await readFile(target)).equals(bytes), url);
      // Nothing that a site holds may be written over: what is new has names of its own.
      const other = repo.home.at(`other-${index}`);
      const otherBytes = await writeImage(other, [
        ...noiseBlocks("x", 4),
        ...noiseBlocks(`o${index}`, 4),
      ]);
      const backedUp = await run(["--json", "backup", other, "other"]);
      const second = (JSON.parse(backedUp.stdout.toString()) as { uid: string }).uid;
      await run(["gc", "--sweep"]);
      await run(["scrub", "--deep"]);
      await rm(target);
      await run(["restore", uid, target]);
      assert.ok((await readFile(target)).equals(bytes), url);
      await rm(target);
      await run(["restore", second, target]);
      assert.ok((await readFile(target)).equals(otherBytes), url);
      await run(["fsck"]);
    }
  });
});
