// A cluster of real processes: a mere reader with the dedup key alone, dedup and writers, coordinators, over a real NATS, with
// jobs from a client that knows nothing but NATS's protocol.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { noise, writeNoise, MIB } from "#test/fixtures/integration-image.ts";
import { describeEnd, startAshlar } from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";
import {
  TestCluster,
  type JobDocument,
  type ServiceErrorDocument,
} from "#test/fixtures/test-cluster.ts";
import { freePort, natsMissing } from "#test/servers/nats-server.ts";

const skip = natsMissing() ?? false;
const SUBMIT = "ashlar.v1.jobs.submit";

describe("a cluster", { skip, timeout: TEST_TIMEOUT_MS }, () => {
  it("backs up and restores the devices of hosts whose agents have nothing but the dedup key", async () => {
    await using cluster = await TestCluster.make({ storages: ["a", "b"] });
    const { repo, bare } = cluster;
    const image = repo.fresh("image");
    const bytes = await writeNoise(image, "one", 4 * MIB);
    const events: { state: string }[] = [];
    bare.subscribe("ashlar.v1.jobs.events.*", (text) => void events.push(JSON.parse(text)));
    await cluster.startAgent("dedup,writer");
    await cluster.startAgent("coordinator");
    const job = await cluster.submit({ kind: "backup", volume: "vm1", source: `file:${image}` });
    // Nobody can read it yet.
    const waiting = await cluster.get(job);
    assert.equal(waiting.state, "queued");
    assert.match(waiting.waitsFor ?? "", /an agent that may use/);
    await cluster.startAgent("reader", await cluster.enroll("hv1"));
    const { uid, storages } = (await cluster.done(job)) as { uid: string; storages: object[] };
    assert.equal(storages.length, 2);
    await repo.assertRestores(uid, bytes);
    const target = repo.fresh("target");
    await cluster.done(
      await cluster.submit({ kind: "restore", version: "vm1@latest", target, host: "hv1" }),
    );
    assert.ok((await readFile(target)).equals(bytes));
    await cluster.stopAgents();
    await repo.assertNoOrphans();
    assert.deepEqual([...new Set(events.map(({ state }) => state))], ["running", "done"]);
  });

  it("stores a block that two hosts have once", async () => {
    await using cluster = await TestCluster.make();
    const { repo } = cluster;
    await cluster.startAgent("dedup,writer,coordinator");
    const images = [repo.fresh("image"), repo.fresh("image")];
    for (const image of images) await writeNoise(image, "the same", 8 * MIB);
    for (const host of ["hv1", "hv2"]) {
      await cluster.startAgent("reader", await cluster.enroll(host));
    }
    const jobs = await Promise.all(
      images.map((source, index) =>
        cluster.submit({ kind: "backup", volume: `vm${index}`, source, host: `hv${index + 1}` }),
      ),
    );
    const results = await Promise.all(jobs.map((job) => cluster.done(job)));
    const sent = results.map(({ statistics }) => (statistics as { blocksNew: number }).blocksNew);
    assert.equal(
      sent.reduce((sum, each) => sum + each, 0),
      await repo.blockCount(),
    );
    await cluster.stopAgents();
    await repo.assertNoOrphans();
  });

  it("keeps blocks in the process where the writer is local", async () => {
    await using cluster = await TestCluster.make();
    const { repo } = cluster;
    const pattern = `${repo.home.path}/**`;
    await repo.configure(
      [["agent", "localWriter"], true],
      [["agent", "sources"], [pattern]],
      [["agent", "targets"], [pattern]],
    );
    await cluster.startAgent("reader,writer,dedup,coordinator");
    const image = repo.fresh("image");
    const bytes = await writeNoise(image, "local", 4 * MIB);
    const { uid } = await cluster.done(
      await cluster.submit({ kind: "backup", volume: "vm1", source: image }),
    );
    await repo.assertRestores(String(uid), bytes);
  });

  it("runs removals, retention, collection, replication, fsck and scrub as jobs", async () => {
    await using cluster = await TestCluster.make();
    const { repo } = cluster;
    await cluster.startAgent("coordinator");
    const image = repo.fresh("image");
    const uids: string[] = [];
    for (const round of [1, 2, 3]) {
      await writeNoise(image, `round ${round}`, MIB);
      uids.push((await repo.backup(image)).uid);
    }
    const removal = { kind: "remove", versions: [uids[0]] };
    const { removed } = await cluster.done(await cluster.submit(removal));
    assert.deepEqual(removed, [uids[0]]);
    // As a try after one that had come to its end unseen.
    assert.deepEqual((await cluster.done(await cluster.submit(removal)))["removed"], []);
    const enforced = await cluster.done(
      await cluster.submit({ kind: "enforce", rules: "latest1", filter: 'volume == "vol"' }),
    );
    assert.deepEqual(enforced["removed"], [uids[1]]);
    await cluster.done(await cluster.submit({ kind: "gc", sweep: true }));
    await cluster.done(await cluster.submit({ kind: "replicate" }));
    await cluster.done(await cluster.submit({ kind: "fsck" }));
    const deep = { kind: "scrub", deep: true, budgetTime: "1h", storages: ["main"] };
    await cluster.done(await cluster.submit(deep));
    const [object] = await repo.objects("main", "blocks");
    await writeFile(object!.file, "rot");
    const { error } = await cluster.finished(await cluster.submit(deep));
    assert.equal(error?.code, "DAMAGED");
    assert.match(error?.message ?? "", /1 damaged objects were found, 0 of them healed/);
    await repo.backup(image);
    await cluster.done(await cluster.submit({ kind: "gc" }));
    assert.equal((await repo.versions()).filter(({ uid }) => uid === uids[2]).length, 1);
    assert.equal((await repo.versions()).length, 2);
    await cluster.stopAgents();
    await repo.assertNoOrphans();
  });

  it("says what is wrong with a job, and where", async () => {
    await using cluster = await TestCluster.make();
    const { bare, repo } = cluster;
    await cluster.startAgent("dedup,coordinator");
    const complaints: [string | object, string, string | undefined, RegExp][] = [
      ["{", "USAGE", undefined, /not JSON/],
      [{ kind: "backpu" }, "USAGE", "kind", /did you mean backup/],
      [{ kind: "backup", volume: "v" }, "USAGE", "source", /^source: it is missing/],
      [{ kind: "backup", volume: "v", source: "/x", qourum: 1 }, "USAGE", "qourum", /mean quorum/],
      [{ kind: "backup", volume: "v", source: "-" }, "USAGE", "source", /standard input/],
      [{ kind: "enforce", rules: "oldest3" }, "USAGE", undefined, /unknown category "oldest"/],
    ];
    for (const [body, code, field, message] of complaints) {
      const { error } = await bare.ask<ServiceErrorDocument>(SUBMIT, body);
      assert.equal(error.code, code, JSON.stringify(error));
      assert.equal(error.details?.["field"], field);
      assert.match(error.message, message);
    }
    const { error } = await bare.ask<ServiceErrorDocument>("ashlar.v1.jobs.get", {
      job: "0123456789abcdef0123",
    });
    assert.equal(error.code, "NOT_FOUND");
    // What only the host can say comes as the job's end.
    const image = repo.fresh("image");
    await writeFile(image, noise("x", MIB));
    await cluster.startAgent("reader", await cluster.enroll("hv1"));
    const outside = { kind: "backup", volume: "v", source: "/etc/passwd", host: "hv1" };
    const refused = await cluster.finished(await cluster.submit(outside));
    assert.equal(refused.error?.code, "REFUSED");
    assert.match(refused.error?.message ?? "", /host hv1 does not give \/etc\/passwd to jobs/);
    const missing = { kind: "backup", volume: "v", source: `${image}.gone`, host: "hv1" };
    const failed = await cluster.finished(await cluster.submit(missing));
    assert.equal(failed.state, "failed");
    assert.equal(failed.error?.code, "NOT_FOUND");
  });

  it("takes jobs without an answer, once for each key, lists and cancels them", async () => {
    await using cluster = await TestCluster.make();
    const { bare } = cluster;
    await cluster.startAgent("coordinator");
    const job = { kind: "backup", volume: "vm1", source: "/nobody/has/this", key: "nightly" };
    bare.publish("ashlar.v1.jobs.queue.default", JSON.stringify(job));
    const list = async () =>
      (await bare.ask<{ jobs: JobDocument[] }>("ashlar.v1.jobs.list", { open: true })).jobs;
    while ((await list()).length === 0) await setTimeout(20);
    const id = await cluster.submit(job);
    const jobs = await list();
    assert.deepEqual(
      jobs.map((each) => each.job),
      [id],
    );
    await bare.ask("ashlar.v1.jobs.cancel", { job: id });
    assert.equal((await cluster.finished(id)).state, "cancelled");
    assert.deepEqual(await list(), []);
  });

  it("is used from the command line, with nothing but NATS's address", async () => {
    await using cluster = await TestCluster.make();
    const { repo, nats } = cluster;
    const client = repo.fresh("client.yaml");
    await writeFile(client, `version: 1\nnats: { servers: ${JSON.stringify(nats.urls)} }\n`);
    const run = async (code: number, ...args: string[]) => {
      const ended = await startAshlar(["--json", "--config", client, ...args]).ended;
      assert.equal(ended.code, code, describeEnd(ended));
      return JSON.parse(ended.stdout.toString()) as JobDocument &
        ServiceErrorDocument & { jobs: JobDocument[] };
    };
    const nobody = await run(69, "submit", "gc");
    assert.match(nobody.error.message, /no coordinator answers/);
    await cluster.startAgent("dedup,writer,coordinator");
    await cluster.startAgent("reader", await cluster.enroll("hv1"));
    const image = repo.fresh("image");
    await writeNoise(image, "command line", MIB);
    const fields = ["volume=vm1", `source=${image}`, "quorum=1", "storages=main", "labels.a=b"];
    const done = await run(0, "submit", "--wait", "backup", ...fields);
    assert.equal(done.state, "done");
    const { job } = await run(
      0,
      "submit",
      `{"kind":"backup","volume":"x","source":"/none","host":"no"}`,
    );
    const open = await run(0, "jobs", "--open");
    assert.deepEqual(
      open.jobs.map((each) => each.waitsFor),
      ["the agent of host no"],
    );
    await run(0, "cancel", job);
    assert.equal((await run(0, "jobs", job)).state, "cancelled");
    const cancelled = await run(130, "watch", job);
    assert.equal(cancelled.error.code, "CANCELLED");
    const missing = ["volume=x", `source=${image}.gone`];
    assert.equal((await run(66, "submit", "--wait", "backup", ...missing)).error.code, "NOT_FOUND");
    const wrong = await run(64, "submit", "backup", "volume=x", "soruce=/dev/sda");
    assert.match(wrong.error.message, /no field "soruce"; did you mean source/);
    assert.equal((await run(0, "jobs", "--limit", "2")).jobs.length, 2);
  });

  it("shows its services to `nats micro`", async () => {
    await using cluster = await TestCluster.make();
    await cluster.startAgent("coordinator");
    const info = await cluster.bare.ask<{ endpoints: { subject: string; metadata: object }[] }>(
      "$SRV.INFO.ashlar-jobs",
    );
    assert.deepEqual(info.endpoints.map(({ subject }) => subject).toSorted(), [
      "ashlar.v1.jobs.cancel",
      "ashlar.v1.jobs.get",
      "ashlar.v1.jobs.list",
      "ashlar.v1.jobs.schedule",
      "ashlar.v1.jobs.schedules",
      SUBMIT,
      "ashlar.v1.jobs.unschedule",
    ]);
    for (const { metadata } of info.endpoints) assert.ok("schema" in metadata);
  });

  it("submits scheduled jobs once, and tells of those that fail", async () => {
    await using cluster = await TestCluster.make();
    const { repo } = cluster;
    const told = repo.fresh("told");
    const hook = repo.fresh("hook");
    await writeFile(hook, `#!/bin/sh\n(cat; echo) >>${told}\n`, { mode: 0o755 });
    await repo.configure([["jobs", "failureHook"], hook]);
    await cluster.startAgent("coordinator");
    await cluster.startAgent("coordinator");
    const { schedules: none } = await repo.json<{ schedules: object[] }>(["schedule", "ls"]);
    assert.deepEqual(none, []);
    const job = ["enforce", "rules=latest1", "filter=size >"];
    await repo.run(["schedule", "add", "every-minute", "* * * * *", ...job]);
    const wrong = await repo.fails(64, ["schedule", "add", "x", "61 * * * *", "gc"]);
    assert.match(wrong.message, /^cron: "61 /);
    // Within a minute it is due, and each coordinator sees it.
    const untilMs = Date.now() + 75_000;
    let jobs: { job: string; state: string }[] = [];
    while (jobs[0]?.state !== "failed" && Date.now() < untilMs) {
      await setTimeout(250);
      ({ jobs } = await repo.json<{ jobs: typeof jobs }>(["jobs"]));
    }
    assert.equal(jobs.length, 1, JSON.stringify(jobs));
    await repo.run(["schedule", "rm", "every-minute"]);
    let text = "";
    while (text === "" && Date.now() < untilMs + 10_000) {
      await setTimeout(100);
      text = await readFile(told, "utf8").catch(() => "");
    }
    assert.equal((JSON.parse(text) as { job: string }).job, jobs[0]?.job);
    await repo.fails(66, ["schedule", "rm", "every-minute"]);
    await cluster.stopAgents();
  });

  it("tells those who watch over it whether it is ready", async () => {
    await using cluster = await TestCluster.make();
    const { repo, nats } = cluster;
    const port = await freePort();
    await repo.configure([["agent", "health"], `127.0.0.1:${port}`]);
    await cluster.startAgent("dedup");
    const status = async (path: string) => (await fetch(`http://127.0.0.1:${port}${path}`)).status;
    assert.deepEqual([await status("/healthz"), await status("/readyz")], [200, 200]);
    assert.equal(await status("/"), 404);
    await nats.servers[0]!.kill();
    while ((await status("/readyz")) === 200) await setTimeout(20);
    assert.deepEqual([await status("/healthz"), await status("/readyz")], [200, 503]);
    await nats.servers[0]!.start();
    while ((await status("/readyz")) === 503) await setTimeout(20);
    const taken = startAshlar(["--config", repo.configFile, "agent", "--roles", "dedup"], {
      env: repo.env,
    });
    const ended = await taken.ended;
    assert.equal(ended.code, 78, describeEnd(ended));
    assert.match(ended.stderr, new RegExp(`listening at 127\\.0\\.0\\.1:${port}`));
  });

  it("refuses to start what cannot work", async () => {
    await using cluster = await TestCluster.make();
    const { repo } = cluster;
    const reader = await cluster.enroll("hv1");
    const run = async (config: string, roles: string) => {
      const args = ["--config", config, "agent", "--roles", roles];
      return startAshlar(args, { env: repo.env }).ended;
    };
    const more = await run(reader, "reader,writer");
    assert.equal(more.code, 78, describeEnd(more));
    assert.match(more.stderr, /configuration of a reader, which cannot be writer as well/);
    const unknown = await run(reader, "raeder");
    assert.equal(unknown.code, 64, describeEnd(unknown));
    assert.match(unknown.stderr, /did you mean reader/);
    const first = await cluster.startAgent("reader", reader);
    const second = await run(reader, "reader");
    assert.equal(second.code, 77, describeEnd(second));
    assert.match(second.stderr, /host hv1 has an agent already/);
    await first.kill();
    await cluster.startAgent("reader", reader);
    await cluster.nats.servers[0]!.kill();
    const away = await run(reader, "reader");
    assert.equal(away.code, 69, describeEnd(away));
    assert.match(away.stderr, /no NATS server answers at nats:/);
  });
});
