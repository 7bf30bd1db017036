// Users of NATS as `ashlar enroll` makes them: a reader's credentials reach its own jobs, payloads and replies, and no others.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, it, type TestContext } from "node:test";
import { setTimeout } from "node:timers/promises";
import { connect, errors, nkeyAuthenticator, type NatsConnection } from "@nats-io/transport-node";
import { describeEnd, startAshlar } from "#test/fixtures/integration-process.ts";
import { writeNoise, MIB } from "#test/fixtures/integration-image.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";
import type { JobDocument } from "#test/fixtures/test-cluster.ts";
import { natsMissing, startNats, type NatsCluster } from "#test/servers/nats-server.ts";

const skip = natsMissing() ?? false;

interface Guarded extends AsyncDisposable {
  readonly repo: TestRepository;
  readonly nats: NatsCluster;
  readonly users: string;
  /** Connects with a key. */
  as(test: TestContext, keyFile: string, inboxPrefix: string): Promise<NatsConnection>;
}

/** A NATS that knows a core process, a client and the readers hv1 and hv2. */
async function guardedCluster(): Promise<Guarded> {
  const repo = await TestRepository.make();
  const users = repo.fresh("users.conf");
  await repo.configure([["nats", "servers"], ["nats://127.0.0.1:1"]], [["host"], "central"]);
  for (const [name, role] of [
    ["central", "core"],
    ["alice", "client"],
  ] as const) {
    await repo.run([
      "nats-user",
      name,
      repo.home.at(`${name}.nk`),
      "--role",
      role,
      "--nats-users",
      users,
    ]);
  }
  const nats = await startNats({ users });
  await repo.configure(
    [["nats", "servers"], nats.urls],
    [["nats", "nkeyFile"], repo.home.at("central.nk")],
    [["sessions", "lease"], "3s"],
  );
  const pattern = `${repo.home.path}/**`;
  for (const host of ["hv1", "hv2"]) {
    const folder = repo.home.at(host);
    const allowed = ["--source", pattern, "--target", pattern];
    await repo.run(["enroll", host, folder, ...allowed, "--nats-users", users]);
  }
  nats.servers[0]!.signal("SIGHUP");
  await setTimeout(300);
  return {
    repo,
    nats,
    users,
    as: async (test, keyFile, inboxPrefix) => {
      const seed = (await readFile(keyFile, "utf8")).trim();
      const connection = await connect({
        servers: [...nats.urls],
        authenticator: nkeyAuthenticator(Buffer.from(seed)),
        inboxPrefix,
      });
      test.after(() => connection.close());
      return connection;
    },
    [Symbol.asyncDispose]: async () => {
      await repo[Symbol.asyncDispose]();
      await nats.stop();
    },
  };
}

/** Whether the server lets it publish there. */
async function mayPublish(connection: NatsConnection, subject: string): Promise<boolean> {
  try {
    await connection.request(subject, "{}", { timeout: 300 });
    return true;
  } catch (error) {
    const cause = (error as Error).cause ?? error;
    return !(cause instanceof errors.PermissionViolationError);
  }
}

async function maySubscribe(connection: NatsConnection, subject: string): Promise<boolean> {
  let refused = false;
  const subscription = connection.subscribe(subject, {
    callback: (error) => {
      refused ||= error instanceof errors.PermissionViolationError;
    },
  });
  await connection.flush();
  await setTimeout(20);
  subscription.unsubscribe();
  return !refused;
}

describe("the users of NATS", { skip, timeout: TEST_TIMEOUT_MS }, () => {
  it("of a reader reach nothing of other hosts, and no administration", async (test) => {
    await using guarded = await guardedCluster();
    const { repo } = guarded;
    const hv1 = await guarded.as(test, repo.home.at("hv1", "agent.nk"), "ashlar.v1.inbox.hv1.t");
    for (const subject of [
      "ashlar.v1.inbox.hv1.>",
      "ashlar.v1.hosts.hv1.cancel.*",
      "ashlar.v1.streams.made",
    ]) {
      assert.equal(await maySubscribe(hv1, subject), true, subject);
    }
    for (const subject of [
      ">",
      "ashlar.v1.>",
      "ashlar.v1.inbox.>",
      "ashlar.v1.inbox.hv2.>",
      "ashlar.v1.hosts.hv2.cancel.*",
      "ashlar.v1.hosts.*.progress.*",
      "ashlar.v1.blocks.>",
      "ashlar.v1.claims.>",
      "ashlar.v1.readers.>",
      "ashlar.v1.jobs.events.*",
      "ashlar.v1.agents",
      "_INBOX.>",
      "$JS.EVENT.>",
      "$SYS.>",
    ]) {
      assert.equal(await maySubscribe(hv1, subject), false, subject);
    }
    assert.equal(await mayPublish(hv1, "ashlar.v1.claims.default"), true);
    for (const subject of [
      "ashlar.v1.jobs.submit",
      "ashlar.v1.jobs.cancel",
      "ashlar.v1.jobs.queue.default",
      "ashlar.v1.jobs.stop",
      "ashlar.v1.readers.hv2",
      "ashlar.v1.readers.hv1",
      "ashlar.v1.hosts.hv2.cancel.0123",
      "ashlar.v1.hosts.hv2.progress.0123",
      "$JS.API.STREAM.DELETE.ashlar-blocks",
      "$JS.API.STREAM.PURGE.ashlar-blocks",
      "$JS.API.STREAM.MSG.GET.ashlar-blocks",
      "$JS.API.STREAM.INFO.ashlar-blocks",
      "$JS.API.STREAM.CREATE.ashlar-mine",
      "$JS.API.DIRECT.GET.ashlar-blocks",
      "$JS.API.CONSUMER.MSG.NEXT.ashlar-readers.hv2",
      "$JS.API.CONSUMER.MSG.NEXT.ashlar-blocks.default",
      "$JS.API.CONSUMER.CREATE.ashlar-readers.hv1.ashlar.v1.readers.hv2",
      "$JS.API.CONSUMER.CREATE.ashlar-readers.hv1",
      "$JS.API.CONSUMER.CREATE.ashlar-blocks.hv1.ashlar.v1.readers.hv1",
      "$JS.API.CONSUMER.DURABLE.CREATE.ashlar-readers.hv1",
      "$JS.API.CONSUMER.DELETE.ashlar-readers.hv2",
      "$JS.API.CONSUMER.NAMES.ashlar-readers",
    ]) {
      assert.equal(await mayPublish(hv1, subject), false, subject);
    }
  });

  it("of a reader cannot have a consumer of its name with another filter", async (test) => {
    await using guarded = await guardedCluster();
    const { repo } = guarded;
    const core = startAshlar(
      ["--config", repo.configFile, "agent", "--roles", "dedup,writer,coordinator"],
      { env: repo.env },
    );
    test.after(() => core.kill());
    while (!core.stderr.includes("is ready")) await setTimeout(20);
    const hv1 = await guarded.as(test, repo.home.at("hv1", "agent.nk"), "ashlar.v1.inbox.hv1.t");
    for (const filter of ["ashlar.v1.readers.hv2", "ashlar.v1.readers.>", ""]) {
      const config = {
        durable_name: "hv1",
        name: "hv1",
        ack_policy: "explicit",
        filter_subject: filter,
      };
      const subject = "$JS.API.CONSUMER.CREATE.ashlar-readers.hv1.ashlar.v1.readers.hv1";
      const request = JSON.stringify({ stream_name: "ashlar-readers", config });
      const answer = (await hv1.request(subject, request)).json<{ error?: { code: number } }>();
      assert.ok(answer.error !== undefined, `filter ${JSON.stringify(filter)} is refused`);
    }
  });

  it("let a cluster work, until one is revoked", async (test) => {
    await using guarded = await guardedCluster();
    const { repo, users, nats } = guarded;
    const start = async (config: string, roles: string) => {
      const agent = startAshlar(["--config", config, "agent", "--roles", roles], { env: repo.env });
      test.after(() => agent.kill());
      while (!agent.stderr.includes("is ready") && !agent.hasEnded) await setTimeout(20);
      return agent;
    };
    await start(repo.configFile, "dedup,writer,coordinator");
    const readers = [];
    for (const host of ["hv1", "hv2"]) {
      readers.push(await start(repo.home.at(host, "agent.yaml"), "reader"));
    }
    const alice = await guarded.as(test, repo.home.at("alice.nk"), "_INBOX_alice");
    const ask = async <T>(verb: string, body: object): Promise<T> =>
      (await alice.request(`ashlar.v1.jobs.${verb}`, JSON.stringify(body))).json<T>();
    const events: string[] = [];
    alice.subscribe("ashlar.v1.jobs.events.*", {
      callback: (_, message) => void events.push(message.subject),
    });
    const finish = async (job: string): Promise<JobDocument> => {
      for (;;) {
        const document = await ask<JobDocument>("get", { job });
        if (!["queued", "running"].includes(document.state)) return document;
        await setTimeout(50);
      }
    };
    const image = repo.fresh("image");
    const bytes = await writeNoise(image, "guarded", 2 * MIB);
    for (const host of ["hv1", "hv2"]) {
      const { job } = await ask<{ job: string }>("submit", {
        kind: "backup",
        volume: host,
        source: image,
        host,
      });
      const done = await finish(job);
      assert.equal(done.state, "done", JSON.stringify(done));
      await repo.assertRestores(String(done.result?.["uid"]), bytes);
    }
    assert.ok(events.length > 0);
    await repo.run(["revoke", "hv2", "--nats-users", users]);
    nats.servers[0]!.signal("SIGHUP");
    await setTimeout(300);
    // Its connection is cut, and nothing takes its credentials any more.
    const again = await start(repo.home.at("hv2", "agent.yaml"), "reader");
    const ended = await again.ended;
    assert.equal(ended.code, 77, describeEnd(ended));
    assert.match(ended.stderr, /refuses the credentials/);
    assert.equal(readers[0]!.hasEnded, false);
    const revoked = await readers[1]!.ended;
    assert.equal(revoked.code, 77, describeEnd(revoked));
  });
});
