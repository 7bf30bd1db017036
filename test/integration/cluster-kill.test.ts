// Any process of a cluster, any server of NATS and FoundationDB (where there is one) may be killed, or stopped for longer than the
// lease and woken, at any moment: every job ends without a hand, every version restores bit-exactly, fsck is clean, and the storages hold what is referenced and nothing else.
// ASHLAR_IT_SEED chooses other moments, ASHLAR_IT_ROUNDS=10 has ten times as many of them.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { jetstreamManager } from "@nats-io/jetstream";
import { connect } from "@nats-io/transport-node";
import {
  imageBytes,
  seededRandom,
  writeImage,
  type BlockContent,
} from "#test/fixtures/integration-image.ts";
import { SEED } from "#test/fixtures/integration-kill.ts";
import type { RunningProcess } from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";
import { TestCluster } from "#test/fixtures/test-cluster.ts";
import { FdbServer, fdbServerMissing } from "#test/servers/fdb.ts";
import { natsMissing, type NatsServer } from "#test/servers/nats-server.ts";

const skip = natsMissing() ?? false;
const ROUNDS = 6 * Number(process.env["ASHLAR_IT_ROUNDS"] ?? 1);
const HOSTS = ["hv1", "hv2"];
const JOB_MS = 180_000;

/** What may be killed, and is started again. */
interface Victim {
  kill(): Promise<void>;
  pause(ms: number): Promise<void>;
}

/** An agent that is started again whenever it is killed, as systemd does. */
class Supervised implements Victim {
  readonly #cluster: TestCluster;
  readonly #roles: string;
  readonly #config: string | undefined;
  process!: RunningProcess;

  constructor(cluster: TestCluster, roles: string, config?: string) {
    this.#cluster = cluster;
    this.#roles = roles;
    this.#config = config;
  }

  async start(): Promise<this> {
    this.process = await this.#cluster.startAgent(this.#roles, this.#config);
    return this;
  }

  async kill(): Promise<void> {
    await this.process.kill();
    await this.start();
  }

  /** Stands still for longer than the lease. */
  async pause(ms: number): Promise<void> {
    this.process.signal("SIGSTOP");
    await setTimeout(ms);
    this.process.signal("SIGCONT");
  }
}

function natsVictim(server: NatsServer): Victim {
  return {
    kill: async () => {
      await server.kill();
      await setTimeout(500);
      await server.start();
    },
    pause: async (ms) => {
      server.signal("SIGSTOP");
      await setTimeout(ms);
      server.signal("SIGCONT");
    },
  };
}

function fdbVictim(server: FdbServer): Victim {
  return {
    kill: async () => {
      await server.kill();
      await setTimeout(500);
      server.start();
    },
    pause: (ms) => server.pause(ms),
  };
}

/** In an order of chance, each once before one comes again. */
function takeTurns<T>(items: readonly T[], random: () => number): () => T {
  let left: T[] = [];
  return () => {
    if (left.length === 0) left = [...items];
    return left.splice(Math.floor(random() * left.length), 1)[0] as T;
  };
}

async function startAll(cluster: TestCluster): Promise<Supervised[]> {
  const agents = [
    new Supervised(cluster, "dedup,writer"),
    new Supervised(cluster, "dedup,writer"),
    new Supervised(cluster, "coordinator"),
    new Supervised(cluster, "coordinator"),
  ];
  for (const host of HOSTS)
    agents.push(new Supervised(cluster, "reader", await cluster.enroll(host)));
  return Promise.all(agents.map((agent) => agent.start()));
}

/** Blocks of which the images of all hosts have some. */
function content(seed: string): BlockContent[] {
  const random = seededRandom(seed);
  return Array.from({ length: 160 }, (_, at): BlockContent => {
    if (random() < 0.1) return "hole";
    return { noise: random() < 0.5 ? `common/${at}` : `${seed}/${at}` };
  });
}

describe(
  `SIGKILL and SIGSTOP in a cluster (seed ${SEED})`,
  { skip, timeout: TEST_TIMEOUT_MS },
  () => {
    it("of any process, during backups, restores, removals and collection", async () => {
      await using fdb = fdbServerMissing() === undefined ? await FdbServer.start() : undefined;
      await using cluster = await TestCluster.make({
        storages: ["a", "b"],
        nats: { count: 3 },
        ...(fdb === undefined ? {} : { fdb: fdb.clusterFile }),
      });
      const { repo, nats } = cluster;
      await repo.configure([["nats", "replicas"], 3]);
      const random = seededRandom(`cluster-kill/${SEED}`);
      const kinds: (() => Victim)[] = [
        takeTurns<Victim>(await startAll(cluster), random),
        takeTurns(nats.servers.map(natsVictim), random),
        ...(fdb === undefined ? [] : [() => fdbVictim(fdb)]),
      ];
      const nextKind = takeTurns(kinds, random);
      const kept: { readonly uid: string; readonly bytes: Buffer }[] = [];
      for (let round = 0; round < ROUNDS; round += 1) {
        const images = new Map<string, Buffer>();
        const backups: { readonly volume: string; readonly job: string }[] = [];
        for (const [index, volume] of ["one", "two", "three"].entries()) {
          const source = repo.home.at(`${volume}-${round}`);
          images.set(volume, await writeImage(source, content(`${volume}/${round}`)));
          const host = HOSTS[index % HOSTS.length];
          backups.push({
            volume,
            job: await cluster.submit({
              kind: "backup",
              volume,
              source,
              host,
              snapshot: `r${round}`,
            }),
          });
        }
        const others = [await cluster.submit({ kind: "gc", sweep: true })];
        const [first] = kept.splice(0, kept.length > 4 ? 1 : 0);
        if (first !== undefined) {
          others.push(await cluster.submit({ kind: "remove", versions: [first.uid] }));
        }
        const [restored] = kept;
        const target = repo.fresh("target");
        const restore =
          restored === undefined
            ? undefined
            : await cluster.submit({ kind: "restore", version: restored.uid, target, host: "hv1" });
        await setTimeout(random() * 1500);
        const victim = nextKind()();
        await (random() < 0.6 ? victim.kill() : victim.pause(5000));
        await cluster.reconnect();
        for (const { volume, job } of backups) {
          const { uid } = (await cluster.done(job, JOB_MS)) as { readonly uid: string };
          kept.push({ uid, bytes: images.get(volume) as Buffer });
        }
        for (const job of others) await cluster.done(job, JOB_MS);
        if (restore !== undefined && restored !== undefined) {
          await cluster.done(restore, JOB_MS);
          assert.ok((await readFile(target)).equals(restored.bytes), "what was restored is right");
        }
      }
      for (const { uid, bytes } of kept) await repo.assertRestores(uid, bytes);
      await cluster.done(await cluster.submit({ kind: "gc", sweep: true, abandon: true }), JOB_MS);
      await cluster.stopAgents();
      await repo.run(["gc", "--abandon", "--sweep"]);
      await repo.assertNoOrphans();
    });

    it("of the NATS server, and the loss of all its streams", async () => {
      await using cluster = await TestCluster.make();
      const { repo, nats } = cluster;
      await startAll(cluster);
      const source = repo.fresh("image");
      const blocks = Array.from({ length: 1200 }, (_, at): BlockContent => ({
        noise: `nats/${at}`,
      }));
      const bytes = imageBytes(blocks);
      await writeImage(source, blocks);
      const job = await cluster.submit({ kind: "backup", volume: "vm", source, host: "hv1" });
      await setTimeout(700);
      await nats.servers[0]!.kill();
      await setTimeout(1000);
      await nats.servers[0]!.start();
      const connection = await connect({ servers: [...nats.urls] });
      const manager = await jetstreamManager(connection);
      await setTimeout(500);
      for await (const { config } of manager.streams.list())
        await manager.streams.delete(config.name);
      await connection.close();
      await cluster.reconnect();
      const { uid } = await cluster.done(job, JOB_MS);
      await repo.assertRestores(String(uid), bytes);
      await cluster.stopAgents();
      await repo.assertNoOrphans();
    });
  },
);
