// Everything that has to do with the metadata, on a real FoundationDB: the port's contract, the protocol, whole jobs, moving a
// repository there and back, and a cluster whose hosts share nothing else.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { openFoundationDbKv } from "#lib/drivers/foundationdb/foundationdb-kv.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import { exitCodeOf } from "#lib/process/exit-codes.ts";
import { describeKv } from "#test/conformance/kv.ts";
import { imageBytes, writeImage, type BlockContent } from "#test/fixtures/integration-image.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";
import { TestCluster } from "#test/fixtures/test-cluster.ts";
import {
  emptyKv,
  fdbClusterFile,
  fdbMissing,
  FdbServer,
  fdbServerMissing,
  freshFdbPrefix,
  openFdb,
  openFreshFdb,
} from "#test/servers/fdb.ts";

const skip = fdbMissing() ?? false;
const EXIT_REFUSED = exitCodeOf(new AshlarError(ErrorCode.Refused, ""));
const KEY = Buffer.from("key");

if (skip === false) describeKv("foundationdb", { open: openFreshFdb });

describe("Kv on FoundationDB", { skip, timeout: TEST_TIMEOUT_MS }, () => {
  it("keeps repositories apart by their prefixes", async () => {
    // One prefix begins with the other.
    const prefix = freshFdbPrefix();
    const one = await openFdb(prefix);
    const two = await openFdb(`${prefix}-2`);
    await one.transact(async (tx) => tx.set(KEY, Buffer.from("1")));
    await two.transact(async (tx) => tx.set(KEY, Buffer.from("2")));
    await emptyKv(one);
    assert.equal(await one.read((reader) => reader.get(KEY)), undefined);
    assert.deepEqual(await two.read((reader) => reader.get(KEY)), Buffer.from("2"));
    await emptyKv(two);
    await Promise.all([one.close(), two.close()]);
  });

  it("counts hot keys without conflicts", async () => {
    const kv = await openFreshFdb();
    let runs = 0;
    const bump = () =>
      kv.transact(async (tx) => {
        runs += 1;
        tx.add(KEY, 1n);
      });
    await Promise.all(Array.from({ length: 200 }, bump));
    const value = await kv.read((reader) => reader.get(KEY));
    assert.equal(value?.readBigInt64LE(0), 200n);
    assert.equal(runs, 200);
    await kv.close();
  });

  it("lets all of many through that want to change one key", async () => {
    const kv = await openFreshFdb();
    const raise = () =>
      kv.transact(async (tx) => {
        const value = await tx.get(KEY);
        tx.set(KEY, Buffer.from(String(Number(value ?? "0") + 1)));
      });
    await Promise.all(Array.from({ length: 60 }, raise));
    assert.equal(String(await kv.read((reader) => reader.get(KEY))), "60");
    await kv.close();
  });

  it("runs a body again that took longer than a snapshot lasts, and gives up in time", async () => {
    const kv = await openFreshFdb();
    let runs = 0;
    const value = await kv.transact(async (tx) => {
      runs += 1;
      await tx.get(KEY);
      if (runs === 1) await setTimeout(6500);
      await tx.get(Buffer.from("another"));
      return runs;
    });
    assert.equal(value, 2);
    await kv.close();
  });

  it("does not let a body make light of a read that failed", async () => {
    const kv = await openFdb(freshFdbPrefix(), { timeoutMs: 12_000 });
    let runs = 0;
    await kv.transact(async (tx) => {
      runs += 1;
      await tx.get(KEY);
      if (runs === 1) await setTimeout(6500);
      await tx.get(Buffer.from("another")).catch(() => undefined);
      tx.set(KEY, Buffer.from(String(runs)));
    });
    assert.equal(String(await kv.read((reader) => reader.get(KEY))), "2");
    await emptyKv(kv);
    await kv.close();
  });

  it("says what is wrong with its configuration", async () => {
    const ports = { clock: systemClock(), random: systemRandom(), prefix: Buffer.from("p/") };
    await assert.rejects(
      openFoundationDbKv({ ...ports, clusterFile: "/nowhere/fdb.cluster" }),
      (error) => isErrorCode(error, ErrorCode.Config) && /no cluster file/.test(error.message),
    );
    await using repo = await TestRepository.make();
    const file = repo.home.at("wrong.cluster");
    await writeFile(file, "this is none\n");
    await assert.rejects(openFoundationDbKv({ ...ports, clusterFile: file }), (error) =>
      isErrorCode(error, ErrorCode.Config),
    );
    // Nobody listens there.
    await writeFile(file, "a:a@127.0.0.1:1\n");
    await assert.rejects(openFoundationDbKv({ ...ports, clusterFile: file }), (error) =>
      isErrorCode(error, ErrorCode.Unavailable),
    );
  });
});

/** Runs other tests with their stores in FoundationDB; how many passed, and none failed or was left out. */
async function passedOnFdb(
  suite: "unit" | "integration",
  files: readonly string[],
): Promise<number> {
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const child = spawn(process.execPath, ["infra/test.ts", suite, ...files], {
    env: { ...env, ASHLAR_TEST_KV: "foundationdb" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let text = "";
  child.stdout.on("data", (data: Buffer) => (text += data.toString()));
  const [code] = (await once(child, "close")) as [number];
  const last = text.trimEnd().split("\n").at(-1) ?? "";
  assert.equal(code, 0, text.slice(-8000));
  const [, passed] = /^(\d+) passed, 0 failed, 0 skipped/.exec(last) ?? [];
  assert.ok(passed !== undefined, last);
  return Number(passed);
}

describe("on FoundationDB", { skip, timeout: TEST_TIMEOUT_MS }, () => {
  it("the protocol passes its suites: transactions, jobs, coordinators, writers, readers", async () => {
    const files = [
      "lib/repository/transactions/*.test.ts",
      "services/{coordinator,writer,reader}/**/*.test.ts",
    ];
    assert.ok((await passedOnFdb("unit", files)) > 200);
  });

  it("a cluster passes its suites, killed and stopped at random moments", async () => {
    const files = ["cluster", "cluster-kill"].map((name) => `test/integration/${name}.test.ts`);
    assert.ok((await passedOnFdb("integration", files)) > 10);
  });
});

const BLOCKS = Array.from({ length: 80 }, (_, at): BlockContent =>
  at % 7 === 0 ? "hole" : { noise: `fdb/${at % 30}` },
);

describe("a repository on FoundationDB", { skip, timeout: TEST_TIMEOUT_MS }, () => {
  it("is moved there and back, and works in both places", async () => {
    await using repo = await TestRepository.make({ storages: ["a", "b"] });
    const prefix = freshFdbPrefix();
    const place = ["--cluster-file", fdbClusterFile(), "--prefix", prefix];
    const source = repo.fresh("image");
    await writeImage(source, BLOCKS);
    const bytes = imageBytes(BLOCKS);
    const { uid } = await repo.backup(source);
    await repo.run(["kv", "copy", "foundationdb", ...place]);
    const refused = await repo.fails(EXIT_REFUSED, ["ls"]);
    assert.match(refused.message, /were moved to foundationdb:/);
    await repo.configure([["foundationdb"], { clusterFile: fdbClusterFile(), prefix }]);
    try {
      await repo.assertRestores(uid, bytes);
      const second = await repo.backup(source);
      assert.equal(second.blocksNew, 0);
      await repo.run(["rm", "--yes", uid]);
      await repo.run(["gc", "--sweep"]);
      await repo.assertNoOrphans();
      await repo.run(["kv", "copy", "lmdb"]);
      await repo.configure([["foundationdb"], undefined]);
      await repo.assertRestores(second.uid, bytes);
      await repo.assertNoOrphans();
    } finally {
      const kv = await openFdb(prefix);
      await emptyKv(kv);
      await kv.close();
    }
  });
});

describe("a FoundationDB that dies", { skip: fdbServerMissing() ?? false }, () => {
  it("or stands still costs time only: backups end, and are right", async () => {
    await using server = await FdbServer.start();
    await using cluster = await TestCluster.make({ fdb: server.clusterFile });
    const { repo } = cluster;
    await cluster.startAgent("dedup,writer");
    await cluster.startAgent("coordinator");
    await cluster.startAgent("reader", await cluster.enroll("hv1"));
    const sizes = [900, 700];
    const kept: { readonly uid: string; readonly bytes: Buffer }[] = [];
    for (const [round, count] of sizes.entries()) {
      const blocks = Array.from({ length: count }, (_, at): BlockContent => ({
        noise: `dies/${round}/${at}`,
      }));
      const source = repo.fresh("image");
      await writeImage(source, blocks);
      const job = await cluster.submit({
        kind: "backup",
        volume: "vm",
        source,
        snapshot: `${round}`,
      });
      await setTimeout(900);
      if (round === 0) {
        await server.kill();
        await setTimeout(3000);
        server.start();
      } else {
        await server.pause(6000);
      }
      const { uid } = (await cluster.done(job, 240_000)) as { readonly uid: string };
      kept.push({ uid, bytes: imageBytes(blocks) });
    }
    for (const { uid, bytes } of kept) await repo.assertRestores(uid, bytes);
    await cluster.stopAgents();
    await repo.run(["gc", "--abandon", "--sweep"]);
    await repo.assertNoOrphans();
  });
});
