// The configurations in infra/nats: they are what a stranger starts with, so real servers run them, with TLS and users.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { connectNats } from "#lib/drivers/nats/connect-nats.ts";
import { openNatsBus } from "#lib/drivers/nats/nats-bus.ts";
import { clusterTopology } from "#lib/drivers/nats/nats-topology.ts";
import { createNatsKey, renderUsers } from "#lib/drivers/nats/nats-users.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import { memoryLog } from "#test/fakes/memory-log.ts";
import { TemporaryFolder } from "#test/fixtures/integration-repository.ts";
import { freePort, natsMissing, startConfigured } from "#test/servers/nats-server.ts";

const ROOT = path.resolve(import.meta.dirname, "../..");
const MIB = 1024 * 1024;

function missing(): string | undefined {
  const isThere = spawnSync("openssl", ["version"]).error === undefined;
  return (
    natsMissing() ?? (isThere ? undefined : "openssl is not installed (apt-get install openssl)")
  );
}

/** An authority, and a certificate of it for this machine. */
function makeCertificates(folder: string): void {
  const run = (...args: string[]): void =>
    void execFileSync("openssl", args, { cwd: folder, stdio: "ignore" });
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
  run(
    "req",
    "-x509",
    ...key,
    "-keyout",
    "ca.key",
    "-out",
    "ca.pem",
    "-subj",
    "/CN=test",
    "-days",
    "2",
  );
  const name = ["-subj", "/CN=nats", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"];
  run("req", ...key, "-keyout", "server.key", "-out", "server.csr", ...name);
  const authority = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"];
  const out = ["-out", "server.pem", "-days", "2", "-copy_extensions", "copy"];
  run("x509", "-req", "-in", "server.csr", ...authority, ...out);
}

/** Runs a configuration of infra/nats on so many servers, and opens a bus with so many replicas over TLS. */
async function runs(name: string, count: 1 | 3): Promise<void> {
  await using home = await TemporaryFolder.make();
  makeCertificates(home.path);
  const { nkey, seed } = createNatsKey();
  await writeFile(home.at("me.nk"), `${seed}\n`);
  const user = { role: "core" as const, name: "me", nkey, prefix: "ashlar" };
  await writeFile(home.at("ashlar-users.conf"), renderUsers({ users: [user], others: [] }));
  const text = await readFile(path.join(ROOT, "infra/nats", name), "utf8");
  const ports: { readonly client: number; readonly route: number }[] = [];
  for (let index = 0; index < count; index += 1) {
    ports.push({ client: await freePort(), route: await freePort() });
  }
  const servers = [];
  for (const [index, port] of ports.entries()) {
    const file = home.at(`server-${index}.conf`);
    const own = text
      .replaceAll("/etc/nats/", `${home.path}/`)
      .replace("/var/lib/nats", home.at(`store-${index}`))
      .replace("ashlar-1", `ashlar-${index}`)
      .replace("0.0.0.0:4222", `127.0.0.1:${port.client}`)
      .replace("0.0.0.0:6222", `127.0.0.1:${port.route}`)
      .replaceAll(
        /nats-(\d)\.example\.org:6222/g,
        (_, at) => `127.0.0.1:${ports[Number(at) - 1]?.route}`,
      );
    assert.ok(!/\/etc|\/var|example/.test(own.replaceAll(/^ *#.*$/gm, "")), own);
    await writeFile(file, own);
    servers.push({ file, port: port.client });
  }
  const running = await startConfigured(servers);
  try {
    await carriesBlocks(
      home,
      servers.map(({ port }) => `tls://127.0.0.1:${port}`),
      count,
    );
  } finally {
    await running.stop();
  }
}

async function carriesBlocks(
  home: TemporaryFolder,
  urls: readonly string[],
  replicas: number,
): Promise<void> {
  const log = memoryLog();
  const topology = clusterTopology({
    prefix: "ashlar",
    replicas,
    claimBytes: 64 * MIB,
    blockBytes: 256 * MIB,
    requestBytes: 32 * MIB,
  });
  const open = async () => {
    const connection = await connectNats(
      { servers: urls, nkeyFile: home.at("me.nk"), tls: { caFile: home.at("ca.pem") } },
      { name: "test", inboxPrefix: "ashlar.v1.inbox.me", log },
    );
    const ports = { clock: systemClock(), random: systemRandom(), telemetry: noTelemetry(), log };
    return openNatsBus({ connection, client: "me", topology, managesStreams: true, ...ports });
  };
  let bus: Awaited<ReturnType<typeof open>> | undefined;
  // A cluster has to choose its leaders first.
  for (let tries = 0; bus === undefined; tries += 1) {
    try {
      bus = await open();
    } catch (error) {
      if (tries === 60) throw error;
      await setTimeout(500);
    }
  }
  const bytes = Buffer.alloc(16 * MIB, 5);
  const arrived = Promise.withResolvers<boolean>();
  bus.consume("writer", { concurrency: 1 }, async ({ payload }) =>
    arrived.resolve(payload !== undefined && bytes.equals(payload.bytes)),
  );
  const payload = { bytes, retain: () => undefined, release: () => undefined };
  await bus.publish("writer", { body: Buffer.alloc(1000), payload });
  assert.equal(await arrived.promise, true);
  await bus.close();
}

describe("the NATS configurations in infra", { skip: missing() ?? false }, () => {
  it("server.conf runs, with TLS and users, and takes the largest blocks", () =>
    runs("server.conf", 1));

  it("cluster.conf runs on three servers, with three replicas", () => runs("cluster.conf", 3));
});
