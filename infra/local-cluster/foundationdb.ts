// Metadata in FoundationDB, where that is installed.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { parse } from "yaml";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { editYaml } from "./edit-yaml.ts";
import type { LocalCluster } from "./local-cluster.ts";
import { AGENTS, FOUNDATIONDB } from "./place.ts";
import { run } from "./tools.ts";

/** Keys of this repository begin with it. */
const PREFIX = "ashlar-dev";

const WITHOUT = `FoundationDB is not installed: the metadata are in LMDB.
Without FoundationDB all KV roles run on one host and open the same LMDB from several processes.
To have them in FoundationDB, stop the cluster, install fdbserver and fdbcli, and start it again.`;

/** Starts FoundationDB and moves the metadata there, once; says so where it is not installed. */
export async function startFoundationDb(cluster: LocalCluster): Promise<void> {
  const { place, state, tools, signal } = cluster;
  const isMoved = await hasSection(place.repositoryConfig);
  if (tools.foundationDb === undefined) {
    if (isMoved) {
      throw new AshlarError(
        ErrorCode.Unavailable,
        "the metadata of this cluster are in FoundationDB, which is not installed",
        { remedy: "install fdbserver and fdbcli, or choose another folder" },
      );
    }
    cluster.say(warning(WITHOUT));
    return;
  }
  const { fdbserver, fdbcli } = tools.foundationDb;
  await startServer(cluster, fdbserver);
  const cli = (command: string): Promise<string> =>
    run([fdbcli, "-C", place.foundationDbFile, "--timeout", "60", "--exec", command], signal);
  if (!state.hasDatabase) {
    await cli("configure new single ssd").catch((error: unknown) => {
      // A start that was cut off here has made it.
      if (!/already exists/i.test(String(error))) throw error;
    });
    state.hasDatabase = true;
    await cluster.save();
  }
  await cluster.untilReady(FOUNDATIONDB, async () =>
    /database is available/i.test(await cli("status minimal").catch(() => "")),
  );
  if (isMoved) return;
  if (AGENTS.some(({ name }) => cluster.isRunning(name))) {
    cluster.say(warning("The metadata stay in LMDB until all agents have been stopped."));
    return;
  }
  const where = ["--cluster-file", place.foundationDbFile, "--prefix", PREFIX];
  await cluster.onRepository("kv", "copy", "foundationdb", ...where);
  const section = { clusterFile: place.foundationDbFile, prefix: PREFIX };
  await editYaml(place.repositoryConfig, [[["foundationdb"], section]]);
}

async function startServer(cluster: LocalCluster, fdbserver: string): Promise<void> {
  const { place } = cluster;
  const address = `127.0.0.1:${cluster.port(FOUNDATIONDB)}`;
  const data = place.at("foundationdb", "data");
  const logs = place.at("logs", "foundationdb");
  for (const folder of [data, logs]) await mkdir(folder, { recursive: true });
  const before = await readFile(place.foundationDbFile, "utf8").catch(() => "");
  // The address of a single process may change while it is stopped; its description and id may not.
  const id = /^(ashlar:[0-9a-f]+)@/.exec(before)?.[1] ?? `ashlar:${randomBytes(4).toString("hex")}`;
  // It writes to the file itself.
  if (!cluster.isRunning(FOUNDATIONDB)) {
    await writeFile(place.foundationDbFile, `${id}@${address}\n`);
  }
  const network = ["--public-address", address, "--listen-address", "public"];
  const files = ["--cluster-file", place.foundationDbFile, "--datadir", data, "--logdir", logs];
  await cluster.launch(FOUNDATIONDB, [fdbserver, ...network, ...files]);
}

async function hasSection(file: string): Promise<boolean> {
  const config = parse(await readFile(file, "utf8")) as { readonly foundationdb?: unknown };
  return (config.foundationdb ?? undefined) !== undefined;
}

/** Nobody overlooks it. */
function warning(text: string): string {
  const lines = text.split("\n").map((line) => `!! ${line}`);
  return ["", ...lines, ""].join("\n");
}
