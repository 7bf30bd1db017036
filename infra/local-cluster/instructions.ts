// What one can do with a cluster that runs, as commands to be copied.
import path from "node:path";
import type { LocalCluster } from "./local-cluster.ts";
import { natsUrls } from "./nats.ts";
import { ASHLAR, ROOT } from "./place.ts";
import { inboxPrefix, sampleDisk } from "./repository.ts";

/** The text that `start` ends with. */
export function instructions({ place, state }: LocalCluster): string {
  const [server = ""] = natsUrls(state.ports);
  const source = sampleDisk(place.disks("hv1"));
  const target = path.join(place.disks("hv2"), "restored.img");
  const job = JSON.stringify({ kind: "backup", volume: "vm1", source, host: "hv1" });
  const client = `${quote(ASHLAR)} --config ${quote(place.clientConfig)}`;
  const nats = `nats --server ${server} --nkey ${quote(place.clientKey)} --inbox-prefix ${inboxPrefix()}`;
  const command = quote(path.join(ROOT, "infra/dev-cluster"));
  return `
The cluster is ready: NATS at ${natsUrls(state.ports).join(" ")}

Submit a job, with any client of NATS or with ashlar:
  ${nats} req ashlar.v1.jobs.submit ${quote(job)}
  ${client} submit --wait backup volume=vm1 ${quote(`source=${source}`)} host=hv1
  ${client} submit --wait restore version=vm1@latest ${quote(`target=${target}`)} host=hv2
See what is there:
  ${client} jobs
  ${quote(ASHLAR)} --config ${quote(place.repository)} ls
Logs: ${place.at("logs")}
Stop: ${command} stop ${quote(place.folder)}`;
}

/** As a shell reads it back. */
function quote(text: string): string {
  return /^[-\w@%+=:,./]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
