// Three NATS servers with JetStream, as infra/nats/cluster.conf has them, on loopback and without TLS.
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { answersWell, type LocalCluster } from "./local-cluster.ts";
import { NATS_NAMES } from "./place.ts";

/** Where a server tells whether it takes part in JetStream; with `js-server-only` not whether each stream is well at the moment. */
export const NATS_HEALTH = "/healthz?js-server-only=true";
const NATS_HEALTH_OF_ALL = "/healthz";

/** The addresses that agents and clients connect to. */
export function natsUrls(ports: Readonly<Record<string, number>>): string[] {
  return NATS_NAMES.map((name) => `nats://127.0.0.1:${ports[name]}`);
}

/** Starts those servers that do not run, and waits until all know their leader. */
export async function startNats(cluster: LocalCluster): Promise<void> {
  const { place, tools } = cluster;
  for (const name of NATS_NAMES) {
    const store = place.at("nats", name);
    await mkdir(store, { recursive: true });
    const file = place.at("nats", `${name}.conf`);
    await writeFile(file, configuration(cluster, name, store), { mode: 0o600 });
    await cluster.launch(name, [tools.natsServer, "-c", file]);
  }
  for (const name of NATS_NAMES) {
    const port = cluster.port(`${name}-monitor`);
    // What agents ask for before the servers have a leader is lost.
    await cluster.untilReady(name, () => answersWell(port, NATS_HEALTH_OF_ALL));
  }
}

function configuration(cluster: LocalCluster, name: string, store: string): string {
  const { place, state } = cluster;
  const own = NATS_NAMES.map((each) => {
    return `"nats://route:${state.routePassword}@127.0.0.1:${cluster.port(`${each}-route`)}"`;
  });
  // Included files are looked for below the configuration's folder.
  const users = path.relative(place.at("nats"), place.natsUsers);
  return `# Made by dev-cluster at every start.
server_name: ${name}
listen: "127.0.0.1:${cluster.port(name)}"
http: "127.0.0.1:${cluster.port(`${name}-monitor`)}"
# A block travels whole.
max_payload: 24MB
max_pending: 96MB
jetstream {
  store_dir: ${JSON.stringify(store)}
  max_memory_store: 1GB
  max_file_store: 1GB
}
cluster {
  name: ashlar-dev
  listen: "127.0.0.1:${cluster.port(`${name}-route`)}"
  authorization { user: route, password: "${state.routePassword}", timeout: 5 }
  routes: [${own.join(", ")}]
}
authorization { include ${JSON.stringify(users)} }
`;
}
