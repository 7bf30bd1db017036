/** A repository on S3, by the command line, on a real service: Ceph's object gateway. */
import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { MARKER_NAME } from "#lib/drivers/storage-marker.ts";
import { noiseBlocks, writeImage } from "#test/fixtures/integration-image.ts";
import { runAshlar } from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";
import { S3Service, type TestBucket } from "#test/fixtures/s3-service.ts";
import { rgwMissing } from "#test/servers/rgw.ts";

const EXIT_USAGE = 64;
const EXIT_UNAVAILABLE = 69;
const EXIT_EXISTS = 73;
const EXIT_REFUSED = 77;
const EXIT_CONFIG = 78;

const isBlock = (name: string): boolean => name.startsWith("blocks/");

describe("a repository on S3", { skip: rgwMissing() ?? false, timeout: TEST_TIMEOUT_MS }, () => {
  let service: S3Service;
  before(async () => {
    service = await S3Service.start();
  });
  after(() => service.stop());

  /** With storages in buckets of their own. */
  async function makeRepository(
    ...names: readonly string[]
  ): Promise<{ repo: TestRepository; buckets: readonly TestBucket[] }> {
    const buckets = await Promise.all(names.map(() => service.fresh()));
    const places = Object.fromEntries(
      names.map((name, index) => [name, (buckets[index] as TestBucket).url]),
    );
    return { repo: await TestRepository.make({ storages: names, places }), buckets };
  }

  it("backs up to two buckets at once, restores from either, removes, and leaves exactly what is needed", async () => {
    const { repo: made, buckets } = await makeRepository("a", "b");
    await using repo = made;
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("first", 24));
    const first = await repo.backup(image, "vol");
    assert.deepEqual(
      first.storages.map(({ complete }) => complete),
      [true, true],
    );
    await writeImage(image, [...noiseBlocks("first", 12), ...noiseBlocks("second", 12)]);
    const second = await repo.backup(image, "vol");
    for (const storage of ["a", "b"]) await repo.assertRestores(first.uid, bytes, storage);
    for (const { bucket } of buckets) {
      assert.equal((await service.names(bucket)).filter(isBlock).length, 36);
    }
    await repo.run(["rm", first.uid]);
    await repo.run(["gc", "--sweep"]);
    const { counts } = await repo.assertClean();
    assert.deepEqual([counts["blocks"], counts["orphans"]], [24, 0]);
    for (const { bucket } of buckets) {
      assert.equal((await service.names(bucket)).filter(isBlock).length, 24);
    }
    await repo.assertRestores(second.uid, await readFile(image));
  });

  it("finds and heals what is damaged in a bucket", async () => {
    const { repo: made, buckets } = await makeRepository("a", "b");
    await using repo = made;
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("x", 12));
    const { uid } = await repo.backup(image, "vol");
    const [{ bucket }] = buckets as [TestBucket, TestBucket];
    const [one, two, three, four] = (await service.names(bucket)).filter(isBlock) as [
      string,
      string,
      string,
      string,
    ];
    const whole = await service.read(bucket, one);
    await service.write(bucket, one, Buffer.from(whole).fill(0x55, 100, 101));
    await service.write(bucket, two, whole.subarray(0, 200));
    await service.write(bucket, three, whole);
    await service.remove(bucket, [four]);
    const scrubbed = await repo.run(["--json", "scrub", "--deep"], { code: 65 });
    for (const name of [one, two, three, four])
      assert.ok(
        scrubbed.stderr.includes(name.slice(7, 40)) || scrubbed.stdout.includes(name.slice(7, 40)),
        name,
      );
    await repo.run(["replicate"]);
    await repo.run(["gc"]);
    await repo.run(["scrub", "--deep"]);
    await repo.assertRestores(uid, bytes, "a");
    await repo.assertClean();
  });

  it("is rebuilt from a bucket and the key alone", async () => {
    const { repo: made, buckets } = await makeRepository("main");
    await using repo = made;
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("x", 12));
    const { uid } = await repo.backup(image, "vol");
    const folder = repo.home.at("again");
    const key = repo.home.at("key");
    await writeFile(key, await readFile(repo.keyFile));
    await rm(repo.folder, { recursive: true });
    const url = (buckets[0] as TestBucket).url;
    await runAshlar(["rebuild", folder, "--from", `main=${url}`, "--key-file", key], {
      env: repo.env,
    });
    const target = repo.home.at("target");
    await runAshlar(["--config", folder, "restore", uid, target], { env: repo.env });
    assert.ok((await readFile(target)).equals(bytes));
    await runAshlar(["--config", folder, "backup", image, "vol"], { env: repo.env });
    await runAshlar(["--config", folder, "gc", "--sweep"], { env: repo.env });
  });

  it("goes on while one of two services is away, and refuses two buckets that were swapped", async () => {
    const { repo: made, buckets } = await makeRepository("a", "b");
    await using repo = made;
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("x", 6));
    const [a, b] = buckets as [TestBucket, TestBucket];
    const away = service.url(a.bucket, { endpoint: "http://127.0.0.1:1" });
    await repo.configure([["storages", 0, "url"], away]);
    const { uid, storages } = await repo.backup(image, "vol");
    assert.deepEqual(
      storages.map(({ complete }) => complete),
      [false, true],
    );
    await repo.assertRestores(uid, bytes);
    await repo.configure([["storages", 0, "url"], a.url]);
    await repo.run(["replicate"]);
    await repo.assertRestores(uid, bytes, "a");

    await repo.configure([["storages", 0, "url"], b.url], [["storages", 1, "url"], a.url]);
    const swapped = await repo.fails(EXIT_REFUSED, ["backup", image, "vol"]);
    assert.match(swapped.message, /is storage [0-9a-f]{16}, which the metadata know as [ab]/);
    await repo.configure([["storages", 0, "url"], a.url], [["storages", 1, "url"], b.url]);
    await repo.assertClean();
  });

  it("takes a storage whose credentials allow too little for one that is away", async () => {
    const { repo: made, buckets } = await makeRepository("a", "b");
    await using repo = made;
    const image = repo.home.at("image");
    await writeImage(image, noiseBlocks("x", 6));
    const [a] = buckets as [TestBucket, TestBucket];
    await service.forbid(a.bucket, ["s3:GetObject", "s3:ListBucket", "s3:DeleteObject"]);
    const bytes = await writeImage(image, noiseBlocks("y", 6));
    const ended = await repo.run(["--json", "backup", image, "vol"]);
    assert.match(ended.stderr, /access is denied/);
    await service.forbid(a.bucket, []);
    await repo.run(["replicate"]);
    const { versions } = await repo.json<{ versions: { uid: string }[] }>(["ls"]);
    await repo.assertRestores(versions[0]?.uid as string, bytes, "a");
    // What may not be deleted stays in trash, and is told.
    await service.forbid(a.bucket, ["s3:DeleteObject"]);
    await repo.run(["rm", versions[0]?.uid as string]);
    const collected = await repo.start(["gc"]).ended;
    assert.match(collected.stderr + collected.stdout, /denied/);
    assert.ok((await service.names(a.bucket)).some(isBlock));
    await service.forbid(a.bucket, []);
    await repo.run(["gc"]);
    assert.ok(!(await service.names(a.bucket)).some(isBlock));
  });

  it("says what is wrong with a storage that is to be made, and leaves nothing", async () => {
    const { bucket, url } = await service.fresh();
    const init = async (code: number, place: string): Promise<string> => {
      await using repo = await TestRepository.plan({ places: { main: place } });
      const ended = await runAshlar(repo.initArguments(), { env: repo.env, code });
      return ended.stderr;
    };
    assert.match(
      await init(EXIT_USAGE, `${url}&regoin=x`),
      /no option "regoin"; did you mean region/,
    );
    assert.match(
      await init(EXIT_UNAVAILABLE, service.url("no-such-bucket")),
      /there is no such bucket/,
    );
    await service.writeCredentials("wrong", service.rgw.accessKeyId, "no");
    assert.match(await init(EXIT_REFUSED, service.url(bucket, {}, "wrong")), /secret key is wrong/);
    assert.match(await init(EXIT_CONFIG, service.url(bucket, {}, "missing")), /missing-id/);
    await service.write(bucket, "of-somebody-else", Buffer.of(1));
    assert.match(
      await init(EXIT_EXISTS, url),
      /is not empty: it holds some\/prefix\/of-somebody-else/,
    );
    await service.remove(bucket, ["of-somebody-else"]);
    // The second storage cannot be made: the first is taken back.
    await using repo = await TestRepository.plan({
      storages: ["a", "b"],
      places: { a: url, b: service.url("no-such-bucket") },
    });
    await runAshlar(repo.initArguments(), { env: repo.env, code: EXIT_UNAVAILABLE });
    assert.deepEqual(await service.names(bucket), []);
  });

  it("takes options from the configuration, with files relative to it", async () => {
    const { repo: made, buckets } = await makeRepository("main");
    await using repo = made;
    const [{ bucket }] = buckets as [TestBucket];
    await writeFile(`${repo.folder}/id`, service.rgw.accessKeyId);
    await writeFile(`${repo.folder}/secret`, service.rgw.secretAccessKey);
    const options = {
      endpoint: service.rgw.endpoint,
      accessKeyIdFile: "id",
      secretAccessKeyFile: "secret",
      attempts: 3,
    };
    const written = `s3://${bucket}/some/prefix`;
    await repo.configure([["storages", 0, "url"], written], [["storages", 0, "options"], options]);
    const image = repo.home.at("image");
    await writeImage(image, noiseBlocks("x", 4));
    await repo.backup(image, "vol");
    assert.ok((await service.names(bucket)).includes(MARKER_NAME));
    await repo.configure([["storages", 0, "options", "attempts"], 0]);
    const error = await repo.fails(EXIT_CONFIG, ["ls"]);
    assert.match(
      error.message,
      /ashlar\.yaml:\d+:\d+: storages\[0\]\.options: option attempts: expected a whole number/,
    );
  });

  it("finds credentials where the SDK does: in the environment, in a profile, or in none", async () => {
    const { repo: made, buckets } = await makeRepository("main");
    await using repo = made;
    const [{ bucket }] = buckets as [TestBucket];
    const { endpoint, accessKeyId, secretAccessKey } = service.rgw;
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("x", 4));
    const url = `s3://${bucket}/some/prefix`;
    const configure = (options: object): Promise<void> =>
      repo.configure([["storages", 0, "url"], url], [["storages", 0, "options"], options]);
    const nowhere = {
      AWS_EC2_METADATA_DISABLED: "true",
      AWS_SHARED_CREDENTIALS_FILE: repo.home.at("none"),
      AWS_CONFIG_FILE: repo.home.at("none"),
    };
    await configure({ endpoint, attempts: 2 });
    const keys = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey };
    await repo.run(["backup", image, "vol"], { env: { ...nowhere, ...keys } });
    const profiles = repo.home.at("credentials");
    const section = `aws_access_key_id = ${accessKeyId}\naws_secret_access_key = ${secretAccessKey}\n`;
    await writeFile(
      profiles,
      `[default]\naws_access_key_id = x\naws_secret_access_key = y\n[ours]\n${section}`,
    );
    const shared = { ...nowhere, AWS_SHARED_CREDENTIALS_FILE: profiles };
    await configure({ endpoint, attempts: 2, profile: "ours" });
    const target = repo.fresh("target");
    await repo.run(["restore", "vol@latest", target], { env: shared });
    assert.ok((await readFile(target)).equals(bytes));
    await configure({ endpoint, attempts: 2, profile: "default" });
    const wrong = await repo.fails(EXIT_UNAVAILABLE, ["backup", image, "vol"], { env: shared });
    assert.match(wrong.message + wrong.ended.stderr, /InvalidAccessKeyId|access key|denied/i);
    await configure({ endpoint, attempts: 2 });
    const none = await repo.fails(EXIT_UNAVAILABLE, ["backup", image, "vol"], { env: nowhere });
    assert.match(none.message + none.ended.stderr, /credentials/i);
  });
});
