/** A repository on a bucket with object lock, by the command line, on a real service: Ceph's object gateway. */
import assert from "node:assert/strict";
import {
  DeleteObjectsCommand,
  HeadObjectCommand,
  PutObjectRetentionCommand,
} from "@aws-sdk/client-s3";
import { readFile, rm, writeFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { MARKER_NAME } from "#lib/drivers/storage-marker.ts";
import { noiseBlocks, writeImage } from "#test/fixtures/integration-image.ts";
import { runAshlar } from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";
import { PREFIX, S3Service } from "#test/fixtures/s3-service.ts";
import { rgwMissing } from "#test/servers/rgw.ts";

/** Long enough for two backups on a machine that is busy. */
const LOCK_MS = 45_000;
const EXIT_CONFIG = 78;

interface Collected {
  readonly storages: readonly {
    readonly deleted: number;
    readonly deleteFailed: number;
    readonly extended?: number;
    readonly waiting: { readonly objects: number; readonly bytes: number; last: string } | null;
  }[];
}

const isBlock = (name: string): boolean => name.startsWith("blocks/");

describe(
  "a repository on a bucket with object lock",
  {
    skip: rgwMissing() ?? false,
    timeout: 2 * TEST_TIMEOUT_MS,
  },
  () => {
    let service: S3Service;
    before(async () => {
      service = await S3Service.start();
    });
    after(() => service.stop());

    async function makeRepository(options: Readonly<Record<string, string>> = {}) {
      const period = { objectLockPeriod: `${LOCK_MS}ms` };
      const { bucket, url } = await service.freshLocked({ ...period, ...options });
      const repo = await TestRepository.make({ places: { main: url } });
      const gc = async (): Promise<Collected["storages"][number]> => {
        const { storages } = await repo.json<Collected>(["gc", "--sweep"]);
        return storages[0] ?? assert.fail("there is a storage");
      };
      return { bucket, url, repo, gc };
    }

    /** Until when the current version of an object is locked, in ms since 1970; 0 where it is not. */
    async function lockedUntil(bucket: string, name: string): Promise<number> {
      const head = await service.client.send(
        new HeadObjectCommand({ Bucket: bucket, Key: PREFIX + name }),
      );
      return head.ObjectLockRetainUntilDate?.getTime() ?? 0;
    }

    it("keeps what is needed locked, waits for what is not, and deletes it then", async () => {
      const { repo: made, bucket, gc } = await makeRepository();
      await using repo = made;
      const image = repo.home.at("image");
      const bytes = await writeImage(image, noiseBlocks("first", 6));
      const kept = await repo.backup(image, "vol");
      await writeImage(image, [...noiseBlocks("first", 3), ...noiseBlocks("second", 3)]);
      const { uid } = await repo.backup(image, "vol");
      const names = await service.names(bucket);
      for (const name of names) {
        const isLocked = (await lockedUntil(bucket, name)) > Date.now();
        // After the first backup keys and marker are locked as well.
        assert.equal(isLocked, !name.startsWith("stamps/"), name);
      }
      const block = names.find(isBlock) ?? "";
      const firstMs = await lockedUntil(bucket, block);
      await repo.run(["rm", uid]);
      const first = await gc();
      assert.deepEqual([first.deleted, first.deleteFailed], [0, 0]);
      // Three blocks, the leaf and the heads of the removed version.
      assert.ok((first.waiting?.objects ?? 0) >= 6, JSON.stringify(first));
      assert.equal((await service.names(bucket)).filter(isBlock).length, 9);
      const table = await repo.run(["gc"]);
      assert.match(String(table.stdout), /main: \d+ objects, .* wait for their locks until/);
      const usage = await repo.json<{ storages: { blocks: number; waiting: object | null }[] }>([
        "usage",
      ]);
      assert.deepEqual([usage.storages[0]?.blocks, usage.storages[0]?.waiting !== null], [6, true]);
      await repo.assertClean();

      let extended = 0;
      const untilMs = Date.now() + LOCK_MS;
      for (let last = first; last.waiting !== null || Date.now() < untilMs;) {
        assert.ok(Date.now() < untilMs + 2 * LOCK_MS, "it is deleted in the end");
        await setTimeout(LOCK_MS / 8);
        last = await gc();
        extended += last.extended ?? 0;
        assert.equal(last.deleteFailed, 0);
      }
      assert.ok(extended > 0);
      const left = await service.versions(bucket);
      assert.equal(left.filter(({ name }) => isBlock(name)).length, 6);
      assert.ok(left.every(({ isMarker }) => !isMarker));
      const blocks = left.filter(({ name }) => isBlock(name)).map(({ name }) => name);
      for (const name of blocks) assert.ok((await lockedUntil(bucket, name)) > Date.now(), name);
      assert.ok((await lockedUntil(bucket, blocks[0] ?? "")) > firstMs + LOCK_MS / 4);
      assert.ok((await lockedUntil(bucket, MARKER_NAME)) > Date.now());
      await repo.assertClean();
      await repo.assertRestores(kept.uid, bytes);
    });

    it("loses nothing to whoever has stolen its credentials", async () => {
      const { repo: made, bucket, url } = await makeRepository({ objectLockPeriod: "2m" });
      await using repo = made;
      const image = repo.home.at("image");
      const bytes = await writeImage(image, noiseBlocks("x", 6));
      const { uid } = await repo.backup(image, "vol");
      const stolen = (await service.versions(bucket)).filter(
        ({ name }) => !name.startsWith("stamps/"),
      );
      assert.ok(stolen.length >= 10);
      // By version, all of them; then without, which puts delete markers; and shortening the locks.
      const Objects = stolen.map(({ name, id }) => ({ Key: PREFIX + name, VersionId: id }));
      const { Errors = [], Deleted = [] } = await service.client.send(
        new DeleteObjectsCommand({ Bucket: bucket, Delete: { Objects } }),
      );
      assert.deepEqual([Errors.length, Deleted.length], [stolen.length, 0]);
      for (const { name } of stolen.slice(0, 3)) {
        const shorten = new PutObjectRetentionCommand({
          Bucket: bucket,
          Key: PREFIX + name,
          Retention: { Mode: "GOVERNANCE", RetainUntilDate: new Date(Date.now() + 1000) },
        });
        await assert.rejects(service.client.send(shorten), { name: "AccessDenied" });
      }
      await service.remove(
        bucket,
        stolen.map(({ name }) => name),
      );
      assert.deepEqual(
        (await service.names(bucket)).filter((name) => !name.startsWith("stamps/")),
        [],
      );
      // Ashlar does not even notice.
      await repo.assertRestores(uid, bytes);
      await repo.run(["scrub", "--deep"]);
      await repo.run(["gc", "--sweep"]);
      await repo.assertClean();
      // And the bucket with the key is all that it takes.
      const folder = repo.home.at("again");
      const key = repo.home.at("key");
      await writeFile(key, await readFile(repo.keyFile));
      await rm(repo.folder, { recursive: true });
      await runAshlar(["rebuild", folder, "--from", `main=${url}`, "--key-file", key], {
        env: repo.env,
      });
      const target = repo.home.at("target");
      await runAshlar(["--config", folder, "restore", uid, target], { env: repo.env });
      assert.ok((await readFile(target)).equals(bytes));
    });

    it("locks what lay there before it was told to, and deletes by version when it is told no more", async () => {
      const {
        repo: made,
        bucket,
        url,
        gc,
      } = await makeRepository({
        objectLockMode: "none",
        objectLockPeriod: "20s",
      });
      await using repo = made;
      const image = repo.home.at("image");
      await writeImage(image, noiseBlocks("x", 4));
      const { uid } = await repo.backup(image, "vol");
      const block = (await service.names(bucket)).find(isBlock) ?? "";
      assert.equal(await lockedUntil(bucket, block), 0);
      await repo.configure([["storages", 0, "url"], url.replace("none", "governance")]);
      assert.ok(((await gc()).extended ?? 0) >= 6);
      assert.ok((await lockedUntil(bucket, block)) > Date.now());
      // A configuration that says nothing of locks goes by the repository.
      const silent = url.replace("&objectLockMode=none", "").replace("&objectLockPeriod=20s", "");
      assert.ok(!silent.includes("objectLock"));
      await repo.configure([["storages", 0, "url"], silent]);
      const known = new Set(await service.names(bucket));
      await writeImage(image, noiseBlocks("y", 1));
      const other = await repo.backup(image, "vol");
      const added = (await service.names(bucket)).find((name) => isBlock(name) && !known.has(name));
      assert.ok((await lockedUntil(bucket, added ?? "")) > Date.now());
      await repo.run(["rm", other.uid]);
      await repo.configure([["storages", 0, "url"], url]);
      await repo.run(["rm", uid]);
      assert.ok((await gc()).waiting !== null);
      await setTimeout(22_000);
      assert.equal((await gc()).waiting, null);
      assert.deepEqual(
        (await service.versions(bucket)).filter(({ name }) => isBlock(name)),
        [],
      );
      await repo.assertClean();
    });

    it("is refused on a bucket without, and leaves nothing in one with that could not be introduced", async () => {
      const { bucket, url } = await service.fresh({ objectLockMode: "governance" });
      await using repo = await TestRepository.plan({ places: { main: url } });
      const ended = await runAshlar(repo.initArguments(), { env: repo.env, code: EXIT_CONFIG });
      assert.match(ended.stderr, /needs a bucket with object lock/);
      assert.deepEqual(await service.names(bucket), []);
      // The second storage cannot be made: the first is taken back.
      const locked = await service.freshLocked({ objectLockPeriod: "30d" });
      await using other = await TestRepository.plan({
        storages: ["a", "b"],
        places: { a: locked.url, b: service.url("no-such-bucket") },
      });
      await runAshlar(other.initArguments(), { env: other.env, code: 69 });
      assert.deepEqual(await service.versions(locked.bucket), []);
    });
  },
);
