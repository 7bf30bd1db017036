// A NATS that is somebody else's: two repositories of Ashlar, told apart by their prefixes, work in an account beside its own streams
// and users, with no more than the permissions that Ashlar gives; from another account jobs are submitted over what is exported.
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { jetstream, jetstreamManager } from "@nats-io/jetstream";
import { connect, nkeyAuthenticator, type NatsConnection } from "@nats-io/transport-node";
import { ErrorCode, type AshlarError } from "#lib/core/errors.ts";
import { MIB, writeNoise } from "#test/fixtures/integration-image.ts";
import { startAshlar, until } from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";
import { openTestBus, smallTopology } from "#test/fixtures/nats-bus.ts";
import type { JobDocument } from "#test/fixtures/test-cluster.ts";
import { natsMissing, startNats, type NatsCluster } from "#test/servers/nats-server.ts";

const skip = natsMissing() ?? false;

/** As somebody has written it into the list: a service of his own, and one who sees everything in the account. */
const OTHERS = `# Not Ashlar's.
  {user: orders, password: orders, permissions: {
    publish: ["orders.>", "$JS.API.>", "$JS.ACK.ORDERS.>"], subscribe: ["orders.>", "_INBOX_orders.>"]}}
  {user: auditor, password: auditor}`;

/** The least that docs/cluster.md asks for two repositories, beside the stream of the orders. */
const ACCOUNTS = (include: string): string => `accounts {
  SHARED {
    jetstream: { max_mem: 72MB, max_file: 64MB, max_streams: 13, max_consumers: 8 }
    exports: [ { service: "first.v1.jobs.submit" }, { service: "first.v1.jobs.get" } ]
    ${include}
  }
  TOOLS {
    users: [ { user: tool, password: tool } ]
    imports: [
      { service: { account: SHARED, subject: "first.v1.jobs.submit" }, to: "backup.submit" }
      { service: { account: SHARED, subject: "first.v1.jobs.get" }, to: "backup.get" }
    ]
  }
}`;

interface Client {
  ask<T>(subject: string, body: object): Promise<T>;
  readonly connection: NatsConnection;
}

/** A repository in the account, with a core process and the agent of a host, each with its own credentials. */
interface Member {
  readonly prefix: string;
  readonly repo: TestRepository;
  readonly client: string;
}

describe("an account of NATS that is shared", { skip, timeout: TEST_TIMEOUT_MS }, () => {
  const resources = new AsyncDisposableStack();
  let nats: NatsCluster;
  let users: string;
  let members: readonly Member[];
  after(() => resources.disposeAsync());

  async function open(options: Parameters<typeof connect>[0]): Promise<Client> {
    const connection = await connect({ servers: [...nats.urls], ...options });
    resources.defer(() => connection.close());
    return {
      connection,
      ask: async <T>(subject: string, body: object) =>
        (await connection.request(subject, JSON.stringify(body), { timeout: 20_000 })).json<T>(),
    };
  }

  async function withKey(keyFile: string, inboxPrefix: string): Promise<Client> {
    const seed = (await readFile(keyFile, "utf8")).trim();
    return open({ authenticator: nkeyAuthenticator(Buffer.from(seed)), inboxPrefix });
  }

  const withPassword = (user: string): Promise<Client> =>
    open({ user, pass: user, inboxPrefix: `_INBOX_${user}` });

  async function addUser(repo: TestRepository, name: string, role: string): Promise<void> {
    const key = repo.home.at(`${name}.nk`);
    await repo.run(["nats-user", name, key, "--role", role, "--nats-users", users]);
  }

  /** The names of hosts and processes are those of the other repository, too. */
  async function join(prefix: string, client: string): Promise<Member> {
    const repo = resources.use(await TestRepository.make());
    users ??= repo.home.at("users.conf");
    await repo.configure(
      [["nats", "servers"], ["nats://127.0.0.1:1"]],
      [["nats", "prefix"], prefix],
      [["nats", "streams"], { claims: "4MiB", blocks: "24MiB", requests: "2MiB" }],
      [["nats", "nkeyFile"], repo.home.at("central.nk")],
      [["host"], "central"],
    );
    await addUser(repo, "central", "core");
    await addUser(repo, client, "client");
    return { prefix, repo, client };
  }

  async function start({ repo }: Member): Promise<void> {
    await repo.configure([["nats", "servers"], nats.urls]);
    const pattern = `${repo.home.path}/**`;
    const allowed = ["--source", pattern, "--target", pattern, "--nats-users", users];
    await repo.run(["enroll", "hv1", repo.home.at("hv1"), ...allowed]);
    nats.servers[0]!.signal("SIGHUP");
    await setTimeout(300);
    for (const [config, roles] of [
      [repo.configFile, "dedup,writer,coordinator"],
      [repo.home.at("hv1", "agent.yaml"), "reader"],
    ] as const) {
      const agent = startAshlar(["--config", config, "agent", "--roles", roles], { env: repo.env });
      resources.defer(async () => void (await agent.kill()));
      await until(() => (agent.stderr.includes("is ready") || agent.hasEnded ? true : undefined));
      assert.ok(!agent.hasEnded, agent.stderr);
    }
  }

  async function backUp(client: Client, { prefix, repo }: Member, seed: string): Promise<void> {
    const source = repo.fresh("image");
    const bytes = await writeNoise(source, seed, 2 * MIB);
    const job = { kind: "backup", volume: `of-${prefix}`, source, host: "hv1" };
    const { uid } = await finished(client, `${prefix}.v1.jobs`, job);
    await repo.assertRestores(uid, bytes);
  }

  async function finished(client: Client, at: string, request: object): Promise<{ uid: string }> {
    const { job } = await client.ask<{ job: string }>(`${at}.submit`, request);
    for (;;) {
      const document = await client.ask<JobDocument>(`${at}.get`, { job });
      if (document.state === "done") return document.result as { uid: string };
      assert.ok(["queued", "running"].includes(document.state), JSON.stringify(document));
      await setTimeout(50);
    }
  }

  const clientOf = ({ repo, client }: Member): Promise<Client> =>
    withKey(repo.home.at(`${client}.nk`), `_INBOX_${client}`);

  before(async () => {
    members = [await join("first", "alice"), await join("second-1", "bob")];
    const text = await readFile(users, "utf8");
    await writeFile(users, text.replace(/^users: \[$/m, `users: [\n${OTHERS}`));
    nats = await startNats({ users, accounts: ACCOUNTS });
    resources.defer(() => nats.stop());
  });

  it("is worked in by two repositories beside its own streams and users, and nobody disturbs another", async () => {
    const orders = await withPassword("orders");
    const manager = await jetstreamManager(orders.connection);
    await manager.streams.add({ name: "ORDERS", subjects: ["orders.>"] });
    await manager.consumers.add("ORDERS", { durable_name: "billing" });
    for (let at = 0; at < 20; at += 1)
      await jetstream(orders.connection).publish("orders.new", "1");
    const look = async (): Promise<unknown> => {
      const { config, state, created } = await manager.streams.info("ORDERS");
      const {
        num_pending,
        delivered,
        config: its,
      } = await manager.consumers.info("ORDERS", "billing");
      return { config, state, created, num_pending, delivered, its };
    };
    const untouched = await look();
    const heard = new Set<string>();
    const { connection: auditor } = await withPassword("auditor");
    auditor.subscribe(">", { callback: (_, { subject }) => void heard.add(subject) });
    await auditor.flush();

    for (const member of members) await start(member);
    assert.ok((await readFile(users, "utf8")).includes(OTHERS), "users of others are kept");
    const [first, second] = members as [Member, Member];
    const [alice, bob] = [await clientOf(first), await clientOf(second)];
    // The same content: each repository stores it for itself.
    await Promise.all([backUp(alice, first, "same"), backUp(bob, second, "same")]);
    for (const [client, { prefix }] of [
      [alice, first],
      [bob, second],
    ] as const) {
      const { jobs } = await client.ask<{ jobs: { volume: string }[] }>(
        `${prefix}.v1.jobs.list`,
        {},
      );
      assert.deepEqual(new Set(jobs.map(({ volume }) => volume)), new Set([`of-${prefix}`]));
    }

    const tool = await withPassword("tool");
    const source = first.repo.fresh("image");
    await writeNoise(source, "of another account", MIB);
    const request = { kind: "backup", volume: "of-first", source, host: "hv1" };
    await finished(tool, "backup", request);
    await assert.rejects(tool.ask("first.v1.jobs.list", {}), /no responders/i);

    assert.deepEqual(await look(), untouched);
    const strangers = [...heard].filter(
      (subject) => !/^(first\.v1|second-1\.v1|\$JS|\$SRV|_INBOX_\w+|_R_|orders)\./.test(subject),
    );
    assert.deepEqual(strangers, [], "nothing is said elsewhere");
    assert.ok([...heard].some((subject) => subject.startsWith("second-1.v1.blocks.")));
  });

  it("lets the credentials of one repository reach nothing of the other, nor of the account's own", async () => {
    const [first] = members as [Member, Member];
    const core = await withKey(first.repo.home.at("central.nk"), "first.v1.inbox.test");
    const mayAsk = async (subject: string): Promise<boolean> => {
      try {
        await core.connection.request(subject, "{}", { timeout: 2000 });
        return true;
      } catch (error) {
        return !/permissions violation/i.test(String((error as Error).cause ?? error));
      }
    };
    assert.equal(await mayAsk("$JS.API.STREAM.INFO.first-blocks"), true);
    for (const subject of [
      "second-1.v1.claims.default",
      "second-1.v1.jobs.list",
      "orders.new",
      "$JS.API.STREAM.NAMES",
      "$JS.API.STREAM.LIST",
      "$JS.API.INFO",
      "$JS.API.STREAM.CREATE.mine",
      ...["second-1-blocks", "ORDERS"].flatMap((name) => [
        `$JS.API.STREAM.INFO.${name}`,
        `$JS.API.STREAM.UPDATE.${name}`,
        `$JS.API.STREAM.DELETE.${name}`,
        `$JS.API.STREAM.PURGE.${name}`,
        `$JS.API.STREAM.MSG.GET.${name}`,
        `$JS.API.CONSUMER.LIST.${name}`,
        `$JS.API.CONSUMER.CREATE.${name}.mine.x`,
        `$JS.API.CONSUMER.DELETE.${name}.billing`,
      ]),
    ]) {
      assert.equal(await mayAsk(subject), false, subject);
    }
    for (const subject of [">", "second-1.v1.>", "second-1.v1.blocks.default", "orders.>"]) {
      const refused = Promise.withResolvers<Error | null>();
      core.connection.subscribe(subject, { callback: (error) => refused.resolve(error) });
      const error = await Promise.race([refused.promise, setTimeout(2000)]);
      assert.match(String(error), /permissions violation/i, subject);
    }
  });

  it("keeps the users of the other repository and of others when one is revoked", async () => {
    const [first, second] = members as [Member, Member];
    await first.repo.run(["revoke", "hv1", "--nats-users", users]);
    nats.servers[0]!.signal("SIGHUP");
    await setTimeout(300);
    assert.ok((await readFile(users, "utf8")).includes(OTHERS));
    const key = (member: Member): Promise<Client> =>
      withKey(member.repo.home.at("hv1", "agent.nk"), `${member.prefix}.v1.inbox.hv1.test`);
    await assert.rejects(key(first), /authorization/i);
    await key(second);
    await backUp(await clientOf(second), second, "after");
    const file = first.repo.fresh("bob.nk");
    const again = ["nats-user", "bob", file, "--role", "client", "--nats-users", users];
    const { remedy } = await first.repo.fails(73, again);
    assert.match(remedy ?? "", /of the repository with the prefix second-1/);
  });
});

describe("an account of NATS with limits", { skip, timeout: TEST_TIMEOUT_MS }, () => {
  for (const [limits, message, remedy] of [
    ["max_streams: 5", /making the NATS stream tight-events: .* no further stream/, /max_streams/],
    [
      "max_mem: 12MB",
      /making the NATS stream tight-blocks: NATS has no 8\.00 MiB of memory/,
      /max_mem of the/,
    ],
    [
      "max_file: 12MB",
      /making the NATS stream tight-events: NATS has no 8\.00 MiB of file/,
      /max_file of the/,
    ],
  ] as const) {
    it(`tells which is too low: ${limits}`, async (test) => {
      const accounts = (): string =>
        `accounts { TIGHT { jetstream: { ${limits} }, users: [ { user: u } ] } }\nno_auth_user: u`;
      const nats = await startNats({ accounts });
      test.after(() => nats.stop());
      await assert.rejects(
        openTestBus(test, { urls: nats.urls, topology: smallTopology("tight") }),
        (error: AshlarError) => {
          assert.equal(error.code, ErrorCode.Config, error.message);
          assert.match(error.message, message);
          assert.match(error.remedy ?? "", remedy);
          return true;
        },
      );
    });
  }
});
