// Real processes of the last release and of this one, together on one repository (docs/cluster.md, "Upgrading").
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { parseDocument } from "yaml";
import { MIB, noise, writeNoise } from "#test/fixtures/integration-image.ts";
import {
  ASHLAR,
  describeEnd,
  until,
  type RunningProcess,
} from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";
import { LAST_RELEASE, LastRelease, lastReleaseMissing } from "#test/fixtures/last-release.ts";
import { TestCluster } from "#test/fixtures/test-cluster.ts";
import { natsMissing } from "#test/servers/nats-server.ts";

const skip = natsMissing() ?? lastReleaseMissing() ?? false;
const CORE = "dedup,writer,coordinator";
const IMAGE_BYTES = 8 * MIB;
/** A backup takes long enough to be met in its midst. */
const READ_RATE = "3MiB";

/** Restores by one of the two programs, and compares. */
async function restores(
  { repo }: TestCluster,
  program: string,
  uid: string,
  bytes: Buffer,
): Promise<void> {
  const target = repo.fresh("restored");
  await repo.run(["restore", uid, target], { program });
  assert.ok((await readFile(target)).equals(bytes), `${uid} is what was backed up`);
}

async function isClean({ repo }: TestCluster, program: string): Promise<void> {
  const found = await repo.json<{ findings: object[]; counts: Record<string, number> }>(["fsck"], {
    program,
  });
  assert.deepEqual(found.findings, []);
}

async function slowDown(config: string): Promise<void> {
  const document = parseDocument(await readFile(config, "utf8"));
  document.setIn(["agent", "readRate"], READ_RATE);
  await writeFile(config, document.toString());
}

/** Waits until a job has read something, and has something left to read. */
async function inItsMidst(cluster: TestCluster, job: string): Promise<void> {
  const read: number[] = [];
  const subject = `ashlar.v1.jobs.events.${job}`;
  cluster.bare.subscribe(subject, (text) => {
    const { progress } = JSON.parse(text) as { progress?: { bytesDone: number } };
    if (progress !== undefined) read.push(progress.bytesDone);
  });
  await until(async () => {
    const { state } = await cluster.get(job);
    assert.ok(state === "queued" || state === "running", `the job is ${state} already`);
    return read.find((bytes) => bytes > 0);
  }, 50);
  assert.ok(read.every((bytes) => bytes < IMAGE_BYTES));
}

async function stop(agent: RunningProcess): Promise<void> {
  agent.signal("SIGTERM");
  const ended = await agent.ended;
  assert.equal(ended.code, 0, describeEnd(ended));
}

/** A backup of an image of its own, as a job on a host. */
async function submitBackup(cluster: TestCluster, host: string, volume: string, seed: string) {
  const source = cluster.repo.fresh("image");
  const bytes = await writeNoise(source, seed, IMAGE_BYTES);
  const job = await cluster.submit({ kind: "backup", volume, source, host, snapshot: seed });
  return { job, bytes, uid: async () => String((await cluster.done(job))["uid"]) };
}

async function restoreJob(cluster: TestCluster, host: string, uid: string, bytes: Buffer) {
  const target = cluster.repo.fresh("target");
  await cluster.done(await cluster.submit({ kind: "restore", version: uid, target, host }));
  assert.ok((await readFile(target)).equals(bytes), `${uid} is what was backed up`);
}

describe(
  `processes of ${LAST_RELEASE.release} and of this checkout`,
  // Both mostly wait: for processes that start, and for leases.
  { skip, timeout: TEST_TIMEOUT_MS, concurrency: 2 },
  () => {
    it("read what the other has written", async () => {
      await using last = await LastRelease.layOut();
      const { program } = last;
      await using cluster = await TestCluster.make({ storages: ["a", "b"], program });
      const { repo } = cluster;
      const image = repo.fresh("image");
      const first = await writeNoise(image, "first", MIB);
      const old = await repo.backup(image, "vol", [], { program });
      await restores(cluster, ASHLAR, old.uid, first);
      const second = Buffer.concat([first.subarray(0, MIB / 2), noise("second", MIB / 2)]);
      await writeFile(image, second);
      const young = await repo.backup(image);
      assert.equal(young.blocksKnown, old.blocksNew / 2, "what the last release stored is known");
      await restores(cluster, program, young.uid, second);
      await repo.run(["label", old.uid, "kept=yes"], { program });
      assert.equal((await repo.show(old.uid)).labels["kept"], "yes");
      // Each removes and collects what the other one has stored.
      await repo.run(["rm", old.uid]);
      await repo.run(["gc", "--sweep"], { program });
      await isClean(cluster, program);
      await repo.assertNoOrphans();
    });

    it("work together, and replace each other in the midst of backups", async () => {
      await using last = await LastRelease.layOut();
      const { program } = last;
      await using cluster = await TestCluster.make({ storages: ["a", "b"], program });
      const { repo } = cluster;
      const [hv1, hv2] = [await cluster.enroll("hv1"), await cluster.enroll("hv2", program)];
      await slowDown(hv2);
      const oldCore = await cluster.startAgent(CORE, repo.configFile, { program });
      const oldReader = await cluster.startAgent("reader", hv2, { program });
      await cluster.startAgent("reader", hv1);
      // The last release's core, and a reader of this one.
      const one = await submitBackup(cluster, "hv1", "vm1", "one");
      await restoreJob(cluster, "hv1", await one.uid(), one.bytes);
      // Its core is replaced under its reader's hands.
      const two = await submitBackup(cluster, "hv2", "vm2", "two");
      await inItsMidst(cluster, two.job);
      await stop(oldCore);
      await cluster.startAgent(CORE);
      await restoreJob(cluster, "hv2", await two.uid(), two.bytes);
      // This core, with readers of both; then that of the last release is replaced as well.
      const three = await submitBackup(cluster, "hv2", "vm2", "three");
      await inItsMidst(cluster, three.job);
      await stop(oldReader);
      await cluster.startAgent("reader", hv2);
      const uid = await three.uid();
      await restoreJob(cluster, "hv2", uid, three.bytes);
      await cluster.done(await cluster.submit({ kind: "remove", versions: [await two.uid()] }));
      await cluster.done(await cluster.submit({ kind: "gc", sweep: true, abandon: true }));
      await cluster.done(await cluster.submit({ kind: "fsck" }));
      await cluster.stopAgents();
      await restores(cluster, program, uid, three.bytes);
      await isClean(cluster, program);
      await repo.assertNoOrphans();
    });
  },
);
