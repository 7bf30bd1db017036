/** One host's full backup of the same image: embedded in one process, through a local writer, and through a writer elsewhere. */
import path from "node:path";
import { TestCluster } from "#test/fixtures/test-cluster.ts";
import { startNats } from "#test/servers/nats-server.ts";
import type { AshlarContender } from "../ashlar.ts";
import type { StartUp } from "../contender.ts";
import { runMeasured } from "../measured-run.ts";
import { settle, warmFile, type Workspace } from "../workspace.ts";
import { watchCpu } from "./processes.ts";

/** What one backup took. */
export interface BackupRun {
  readonly wallSeconds: number;
  /** Of each of Ashlar's processes. */
  readonly cpu: Readonly<Record<string, number>>;
  /** Of nats-server. */
  readonly natsCpuSeconds: number;
  /** Blocks that were sent, in bytes. */
  readonly newBytes: number;
}

const BLOCK_BYTES = 4 * 1024 ** 2;

/** In one process, with the embedded database and bus; without start-up. */
export async function backupEmbedded(
  ashlar: AshlarContender,
  startUp: StartUp,
  workspace: Workspace,
  image: string,
): Promise<BackupRun> {
  const repository = workspace.newPath("embedded");
  try {
    await ashlar.create(repository);
    await warmFile(image);
    await settle();
    const run = await ashlar.backup(repository, image);
    return {
      wallSeconds: run.wallSeconds - startUp.backup.wallSeconds,
      cpu: { ashlar: run.cpuSeconds - startUp.backup.cpuSeconds },
      natsCpuSeconds: 0,
      newBytes: 0,
    };
  } finally {
    await ashlar.drop(repository);
  }
}

/**
 * With a reader on a hypervisor, and the other roles elsewhere; or with reader and writer in one process. Agents live for weeks:
 * like these, they have backed up something else before.
 */
export async function backupInCluster(
  kind: "local" | "pooled",
  image: string,
  other: string,
): Promise<BackupRun> {
  await using cluster = await TestCluster.make({ blockBytes: BLOCK_BYTES });
  const { repo, nats } = cluster;
  // The leases of the tests are short.
  await repo.configure([["sessions", "lease"], undefined]);
  const processes: Record<string, number> = {};
  processes["dedup + coordinator"] = (await cluster.startAgent("dedup,coordinator")).pid;
  if (kind === "local") {
    await repo.configure(
      [["agent", "localWriter"], true],
      [["agent", "sources"], [`${path.dirname(image)}/**`]],
    );
    processes["reader + writer"] = (await cluster.startAgent("reader,writer")).pid;
  } else {
    processes["reader"] = (await cluster.startAgent("reader", await enroll(cluster, image))).pid;
    processes["writer"] = (await cluster.startAgent("writer")).pid;
  }
  await cluster.done(await cluster.submit({ kind: "backup", volume: "other", source: other }));
  await warmFile(image);
  await settle();
  const cpu = watchCpu(processes);
  const natsCpu = watchCpu({ nats: nats.servers[0]?.pid as number });
  const startedAt = performance.now();
  const job = await cluster.submit({ kind: "backup", volume: "vm", source: image });
  const result = await cluster.done(job, 3_600_000);
  const wallSeconds = (performance.now() - startedAt) / 1000;
  const taken = { cpu: cpu(), natsCpuSeconds: natsCpu()["nats"] as number };
  const { bytesNew } = result["statistics"] as { readonly bytesNew: number };
  await cluster.stopAgents();
  return { wallSeconds, ...taken, newBytes: bytesNew };
}

async function enroll({ repo }: TestCluster, image: string): Promise<string> {
  const folder = repo.fresh("hv1");
  await repo.run(["enroll", "hv1", folder, "--source", `${path.dirname(image)}/**`]);
  return `${folder}/agent.yaml`;
}

/** CPU seconds of a bare publisher and a bare consumer of so many bytes, and of their server. */
export async function measureTransport(
  bytes: number,
  messageBytes: number,
): Promise<{ readonly cpuSeconds: number; readonly natsCpuSeconds: number }> {
  const nats = await startNats();
  try {
    const program = path.join(import.meta.dirname, "transport.ts");
    const url = nats.urls[0] as string;
    const count = Math.ceil(bytes / messageBytes);
    const run = async (role: string): Promise<number> => {
      const args = [program, role, url, String(count), String(messageBytes)];
      const { stdout } = await runMeasured({ program: process.execPath, args });
      return (JSON.parse(stdout) as { readonly cpuSeconds: number }).cpuSeconds;
    };
    await run("prepare");
    const natsCpu = watchCpu({ nats: nats.servers[0]?.pid as number });
    const [publisher, consumer] = await Promise.all([run("publish"), run("consume")]);
    return { cpuSeconds: publisher + consumer, natsCpuSeconds: natsCpu()["nats"] as number };
  } finally {
    await nats.stop();
  }
}
