// The repository of a local cluster, the users of NATS, and the hosts with their disks: made once, by ashlar's own commands.
import { randomBytes } from "node:crypto";
import { mkdir, open, rename, rm, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { stringify } from "yaml";
import { editYaml } from "./edit-yaml.ts";
import type { LocalCluster } from "./local-cluster.ts";
import { natsUrls } from "./nats.ts";
import { CLIENT, HOSTS } from "./place.ts";

const MIB = 1024 * 1024;
/** Small, so that small disks have many blocks. */
const BLOCK_SIZE = "256KiB";

/** Makes what is not there yet, and writes the ports into the configurations. */
export async function prepareRepository(cluster: LocalCluster): Promise<void> {
  await makeRepository(cluster);
  const { place, state } = cluster;
  const servers = natsUrls(state.ports);
  await editYaml(place.repositoryConfig, [
    [["host"], "central"],
    [["nats", "servers"], servers],
    [["nats", "nkeyFile"], "central.nk"],
    [["nats", "replicas"], servers.length],
  ]);
  await makeUser(cluster, "central", "core", place.at("repository", "central.nk"));
  await mkdir(path.dirname(place.clientConfig), { recursive: true });
  await makeUser(cluster, CLIENT, "client", place.clientKey);
  const nats = { servers, nkeyFile: path.basename(place.clientKey), inboxPrefix: inboxPrefix() };
  await writeFile(place.clientConfig, stringify({ version: 1, nats }));
  for (const host of HOSTS) {
    await makeDisks(cluster, host);
    await enroll(cluster, host);
  }
}

/** Of the user that submits jobs. */
export function inboxPrefix(): string {
  return `_INBOX_${CLIENT}`;
}

async function makeRepository(cluster: LocalCluster): Promise<void> {
  const { place, state } = cluster;
  if (state.hasRepository) return;
  const storages = ["here", "there"].map((name) => [name, place.at("storages", name)] as const);
  // What a start left that was cut off here; nothing was ever stored in it.
  await rm(place.repository, { recursive: true, force: true });
  await rm(place.at("storages"), { recursive: true, force: true });
  for (const [, folder] of storages) await mkdir(folder, { recursive: true });
  const options = storages.flatMap(([name, folder]) => ["--storage", `${name}=${folder}`]);
  await cluster.ashlar("init", place.repository, "--block-size", BLOCK_SIZE, ...options);
  state.hasRepository = true;
  await cluster.save();
}

async function makeUser(
  cluster: LocalCluster,
  name: string,
  role: string,
  keyFile: string,
): Promise<void> {
  if (await hasContent(keyFile)) return;
  await forgetUser(cluster, name);
  await rm(keyFile, { force: true });
  await cluster.onRepository("nats-user", name, keyFile, "--role", role, ...users(cluster));
}

async function enroll(cluster: LocalCluster, host: string): Promise<void> {
  const { place } = cluster;
  const folder = place.hostFolder(host);
  // The key is the last thing that is written.
  if (await hasContent(path.join(folder, "agent.nk"))) return;
  await forgetUser(cluster, host);
  await rm(folder, { recursive: true, force: true });
  const pattern = `${place.disks(host)}/**`;
  const allowed = ["--source", pattern, "--target", pattern];
  await cluster.onRepository("enroll", host, folder, ...allowed, ...users(cluster));
}

/** A start that was cut off may have made a user without its key. */
async function forgetUser(cluster: LocalCluster, name: string): Promise<void> {
  await cluster.onRepository("revoke", name, ...users(cluster)).catch(() => undefined);
}

function users({ place }: LocalCluster): string[] {
  return ["--nats-users", place.natsUsers];
}

async function hasContent(file: string): Promise<boolean> {
  return stat(file).then(
    ({ size }) => size > 0,
    () => false,
  );
}

/** A disk of 64 MiB that is mostly a hole. The disks of the hosts have a half of their content in common. */
async function makeDisks({ place }: LocalCluster, host: string): Promise<void> {
  await mkdir(place.disks(host), { recursive: true });
  const common = place.at("disks", "common");
  if (!(await hasContent(common))) await writeFile(common, randomBytes(8 * MIB));
  const file = sampleDisk(place.disks(host));
  if (await hasContent(file)) return;
  await using source = await open(common);
  await using disk = await open(`${file}.new`, "w", 0o600);
  await disk.write(await source.readFile(), 0, 8 * MIB, 4 * MIB);
  await disk.write(randomBytes(8 * MIB), 0, 8 * MIB, 32 * MIB);
  await disk.truncate(64 * MIB);
  await disk.sync();
  await rename(`${file}.new`, file);
}

/** The disk to try backups with. */
export function sampleDisk(folder: string): string {
  return path.join(folder, "sample.img");
}
