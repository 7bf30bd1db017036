// infra/Dockerfile and infra/compose.yaml. Containers do not run here; what can be checked without them is: the form of both files,
// what they name, and the commands that they run, each in this machine's own folders.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import { parse } from "yaml";
import { describeEnd, RunningProcess, until } from "#test/fixtures/integration-process.ts";
import { TemporaryFolder, TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";
import { freePort, natsMissing, startConfigured } from "#test/servers/nats-server.ts";

const ROOT = path.resolve(import.meta.dirname, "../..");
const INFRA = path.join(ROOT, "infra");
/** Where the image has the program. */
const INSTALLED = "/opt/ashlar/";
/** Where the containers have their files. */
const HOME = "/var/lib/ashlar";

interface Instruction {
  readonly name: string;
  readonly text: string;
}

interface Service {
  readonly image?: string;
  readonly build?: { readonly context: string; readonly dockerfile: string };
  readonly command?: readonly string[];
  readonly entrypoint?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly volumes?: readonly string[];
  readonly depends_on?: Readonly<Record<string, { readonly condition: string }>>;
  readonly healthcheck?: { readonly test: readonly string[] };
  readonly networks?: Readonly<Record<string, { readonly ipv4_address?: string }>>;
  readonly privileged?: boolean;
}

interface Compose {
  readonly services: Readonly<Record<string, Service>>;
  readonly volumes: Readonly<Record<string, unknown>>;
  readonly networks: Readonly<
    Record<string, { readonly ipam: { readonly config: readonly { readonly subnet: string }[] } }>
  >;
}

/** The instructions of a Dockerfile; lines that are continued are one. */
async function readDockerfile(): Promise<Instruction[]> {
  const text = await readFile(path.join(INFRA, "Dockerfile"), "utf8");
  const lines = text
    .replaceAll(/^\s*#.*\n/gm, "")
    .replaceAll(/\\\n\s*/g, "")
    .split("\n")
    .filter((line) => line.trim() !== "");
  return lines.map((line) => {
    const [, name = "", rest = ""] = /^(\S+)\s+(.*)$/.exec(line) ?? [];
    return { name, text: rest };
  });
}

async function readCompose(): Promise<Compose> {
  return parse(await readFile(path.join(INFRA, "compose.yaml"), "utf8"), {
    merge: true,
  }) as Compose;
}

function only(instructions: readonly Instruction[], name: string): string[] {
  return instructions.filter((each) => each.name === name).map(({ text }) => text);
}

/** What a JSON array of an instruction says. */
function words(text: string | undefined): string[] {
  return JSON.parse(text ?? "") as string[];
}

describe("infra/Dockerfile", () => {
  it("has instructions that Docker knows, and stages that there are", async () => {
    const instructions = await readDockerfile();
    const known =
      /^(?:ARG|FROM|WORKDIR|COPY|RUN|USER|ENV|HEALTHCHECK|ENTRYPOINT|CMD|LABEL|EXPOSE)$/;
    assert.deepEqual(
      instructions.filter(({ name }) => !known.test(name)),
      [],
    );
    const first = instructions.findIndex(({ name }) => name === "FROM");
    assert.ok(instructions.slice(0, first).every(({ name }) => name === "ARG"));
    const stages = new Set<string>();
    for (const { name, text } of instructions) {
      if (name === "FROM") {
        const [, image = "", stage] = /^(\S+)(?: AS (\S+))?$/.exec(text) ?? [];
        assert.match(image, /^[a-z0-9./-]+:\S+$/, `${text}: an image with a version`);
        assert.doesNotMatch(image, /:latest$/);
        if (stage !== undefined) stages.add(stage);
      }
      const from = /--from=(\S+)/.exec(text)?.[1];
      if (from !== undefined) assert.ok(stages.has(from), `${text}: there is no stage ${from}`);
    }
    assert.match(only(instructions, "FROM").at(-1) ?? "", /^debian:12-slim$/);
  });

  it("copies what the repository has, and what is not kept out of it", async () => {
    const ignored = (await readFile(path.join(ROOT, ".dockerignore"), "utf8")).split("\n");
    const isLetIn = (file: string): boolean =>
      ignored.some((line) => line.startsWith("!") && `${file}/`.startsWith(`${line.slice(1)}/`));
    const sources = only(await readDockerfile(), "COPY")
      .filter((text) => !text.includes("--from="))
      .flatMap((text) => text.split(/\s+/).slice(0, -1));
    assert.ok(sources.includes("services/") && sources.includes("package-lock.json"));
    for (const source of sources) {
      assert.ok(existsSync(path.join(ROOT, source)), `${source} is there`);
      assert.ok(isLetIn(source.replace(/\/$/, "")), `.dockerignore lets ${source} in`);
    }
    // The build reads these, and nobody names them.
    const pack = await readFile(path.join(INFRA, "tsconfig.pack.json"), "utf8");
    const { extends: base } = JSON.parse(pack) as { extends: string };
    assert.ok(sources.includes(path.relative(ROOT, path.join(INFRA, base))));
  });

  it("has what bin/ashlar looks for, no secret, and another user than root", async () => {
    const instructions = await readDockerfile();
    const manifest = await readFile(path.join(ROOT, "package.json"), "utf8");
    const { bin, files } = JSON.parse(manifest) as {
      bin: Record<string, string>;
      files: readonly string[];
    };
    const copied = only(instructions, "COPY").map((text) => text.split(/\s+/).at(-1));
    for (const name of [...files, "node_modules", "package.json"])
      assert.ok(copied.includes(path.join(INSTALLED, name).replace(/\/$/, "")), name);
    const link = `ln -s ${INSTALLED}${bin["ashlar"]} /usr/local/bin/ashlar`;
    assert.ok(only(instructions, "RUN").includes(link));
    assert.deepEqual(only(instructions, "USER"), ["ashlar"]);
    assert.deepEqual(words(only(instructions, "ENTRYPOINT")[0]), ["ashlar"]);
    const settings = [...only(instructions, "ENV"), ...only(instructions, "ARG")].join("\n");
    assert.doesNotMatch(settings, /pass|secret|token|key|seed/i);
  });
});

describe("infra/compose.yaml", () => {
  it("has services that are complete, and names only what there is", async () => {
    const { services, volumes } = await readCompose();
    const used = new Set<string>();
    for (const [name, service] of Object.entries(services)) {
      assert.ok(service.image !== undefined, `${name} has an image`);
      if (service.build !== undefined) {
        const context = path.resolve(INFRA, service.build.context);
        assert.ok(existsSync(path.join(context, service.build.dockerfile)), `${name}: its build`);
      } else assert.match(service.image, /:\S+$/, `${name}: an image with a version`);
      for (const [other, { condition }] of Object.entries(service.depends_on ?? {})) {
        assert.ok(other in services, `${name} depends on ${other}`);
        assert.match(condition, /^service_(?:started|healthy|completed_successfully)$/);
        if (condition === "service_healthy")
          assert.ok(services[other]?.healthcheck !== undefined, `${other} tells its health`);
      }
      for (const volume of service.volumes ?? []) {
        const [source = "", target = ""] = volume.split(":");
        assert.ok(path.isAbsolute(target), `${name}: ${volume}`);
        if (source.startsWith(".")) assert.ok(existsSync(path.resolve(INFRA, source)), source);
        else if (!path.isAbsolute(source)) used.add(source);
      }
    }
    assert.deepEqual([...used].sort(), Object.keys(volumes).sort());
  });

  it("starts one after the other, without a circle", async () => {
    const { services } = await readCompose();
    const visit = (name: string, above: readonly string[]): void => {
      assert.ok(!above.includes(name), [...above, name].join(" needs "));
      const needed = Object.keys(services[name]?.depends_on ?? {});
      for (const other of needed) visit(other, [...above, name]);
    };
    for (const name of Object.keys(services)) visit(name, []);
  });

  it("has each role, and three NATS servers that the agents are told of", async () => {
    const { services, networks } = await readCompose();
    for (const role of ["dedup", "writer", "coordinator", "reader"])
      assert.deepEqual(services[role]?.command, ["agent", "--roles", role]);
    const servers = Object.keys(services).filter((name) => name.startsWith("nats-"));
    assert.equal(servers.length, 3);
    const setup = await readFile(path.join(INFRA, "compose-setup.sh"), "utf8");
    const conf = await readFile(path.join(INFRA, "nats/compose.conf"), "utf8");
    for (const name of servers) {
      assert.equal(services[name]?.environment?.["NATS_NAME"], name);
      assert.ok(setup.includes(`nats://${name}:4222`) && conf.includes(`nats://${name}:6222`));
    }
    // The reader is the only one that reaches the host, and has neither metadata nor keys.
    const { reader, foundationdb } = services;
    assert.ok(reader?.privileged === true);
    const mounted = reader.volumes ?? [];
    assert.ok(mounted.includes("/dev:/dev"));
    assert.ok(!mounted.some((volume) => volume.startsWith("repository")));
    const others = Object.entries(services).filter(([name]) => name !== "reader");
    assert.ok(others.every(([, service]) => service.privileged !== true));
    // Clients find FoundationDB by its address.
    const address = foundationdb?.networks?.["default"]?.ipv4_address ?? "none";
    assert.ok(
      foundationdb?.environment?.["FDB_CLUSTER_FILE_CONTENTS"]?.endsWith(`@${address}:4500`),
    );
    const [network] = networks["default"]?.ipam.config ?? [];
    assert.equal(network?.subnet, address.replace(/\.\d+$/, ".0/24"));
  });

  const hasCompose = spawnSync("docker", ["compose", "version"]).status === 0;
  const skip = hasCompose ? false : "docker compose is not installed";
  it("is what docker compose takes", { skip }, () => {
    const args = ["compose", "-f", path.join(INFRA, "compose.yaml"), "config", "-q"];
    const { status, stderr } = spawnSync("docker", args, { encoding: "utf8" });
    assert.equal(status, 0, stderr);
  });
});

describe("what the containers run", { timeout: TEST_TIMEOUT_MS }, () => {
  const skip = natsMissing() ?? false;

  it(
    "sets a cluster up, once, and each role gets ready and tells its health",
    { skip },
    async () => {
      await using home = await TemporaryFolder.make();
      const ports = [];
      for (let index = 0; index < 3; index += 1)
        ports.push({ client: await freePort(), route: await freePort() });
      const health = `127.0.0.1:${await freePort()}`;
      const surroundings = {
        PATH: `${path.join(ROOT, "bin")}:${process.env["PATH"] ?? ""}`,
        ASHLAR_HOME: home.path,
        ASHLAR_HEALTH: health,
        NATS_SERVERS: ports.map(({ client }) => `nats://127.0.0.1:${client}`).join(", "),
      };
      await setUp(surroundings);
      const modes = await Promise.all(
        ["repository/central.nk", "hv1/agent.nk", "client/client.nk"].map(async (name) => {
          return (await stat(home.at(name))).mode & 0o777;
        }),
      );
      assert.deepEqual(modes, [0o600, 0o600, 0o600]);
      const users = await readFile(home.at("nats-users/ashlar-users.conf"), "utf8");
      await setUp(surroundings);
      assert.equal(await readFile(home.at("nats-users/ashlar-users.conf"), "utf8"), users);

      const nats = await startConfigured(await natsConfigurations(home, ports));
      try {
        const { services } = await readCompose();
        for (const role of ["dedup", "writer", "coordinator", "reader"])
          await runs(services[role] as Service, home, health);
      } finally {
        await nats.stop();
      }
    },
  );

  // A stand-in for ashlar, as there may be no FoundationDB: what is tested is which commands are given, and how often.
  it("moves the metadata to FoundationDB, once", async () => {
    await using home = await TemporaryFolder.make();
    await mkdir(home.at("bin"));
    const script = `#!/bin/sh
      echo "$@" >> ${home.at("told")}
      case "$*" in
        init*) mkdir -p "$2" && echo "version: 1" > "$2/ashlar.yaml" ;;
        *" nats-user "*) echo seed > "$5" ;;
        *" enroll "*) echo seed > "$5/agent.nk" && printf 'agent:\\n  sources: []\\n' > "$5/agent.yaml" ;;
      esac
    `;
    await writeFile(home.at("bin/ashlar"), script, { mode: 0o755 });
    const cluster = "ashlar:ashlar@127.0.0.1:4500";
    const PATH = `${home.at("bin")}:${process.env["PATH"] ?? ""}`;
    const surroundings = { PATH, ASHLAR_HOME: home.path, FDB_CLUSTER: cluster };
    await setUp(surroundings);
    await setUp(surroundings);
    const told = (await readFile(home.at("told"), "utf8")).trim().split("\n");
    const file = home.at("repository/fdb.cluster");
    const moves = told.filter((line) => line.includes("kv copy"));
    assert.equal(moves.length, 1, told.join("\n"));
    assert.match(moves[0] ?? "", / kv copy foundationdb --cluster-file \S+ --prefix ashlar$/);
    assert.equal(await readFile(file, "utf8"), `${cluster}\n`);
    const config = await readFile(home.at("repository/ashlar.yaml"), "utf8");
    const { foundationdb } = parse(config) as { foundationdb: unknown };
    assert.deepEqual(foundationdb, { clusterFile: "fdb.cluster", prefix: "ashlar" });
    const agent = parse(await readFile(home.at("hv1/agent.yaml"), "utf8")) as {
      agent: { health: string };
    };
    assert.equal(agent.agent.health, "127.0.0.1:9101");
  });
});

async function setUp(env: Readonly<Record<string, string>>): Promise<void> {
  const script = path.join(INFRA, "compose-setup.sh");
  const ended = await new RunningProcess("/bin/sh", [script], { env }).ended;
  assert.equal(ended.code, 0, describeEnd(ended));
}

async function natsConfigurations(
  home: TemporaryFolder,
  ports: readonly { readonly client: number; readonly route: number }[],
): Promise<{ readonly file: string; readonly port: number }[]> {
  const text = await readFile(path.join(INFRA, "nats/compose.conf"), "utf8");
  const servers = [];
  await mkdir(home.at("users"));
  const users = await readFile(home.at("nats-users/ashlar-users.conf"));
  await writeFile(home.at("users/ashlar-users.conf"), users);
  for (const [index, port] of ports.entries()) {
    const file = home.at(`nats-${index}.conf`);
    const own = text
      .replace("$NATS_NAME", `nats-${index}`)
      .replace("/var/lib/nats", home.at(`store-${index}`))
      .replace("0.0.0.0:4222", `127.0.0.1:${port.client}`)
      .replace("0.0.0.0:8222", `127.0.0.1:${await freePort()}`)
      .replace("0.0.0.0:6222", `127.0.0.1:${port.route}`)
      .replaceAll(/nats-(\d):6222/g, (_, at) => `127.0.0.1:${ports[Number(at) - 1]?.route}`);
    await writeFile(file, own);
    servers.push({ file, port: port.client });
  }
  return servers;
}

/** Starts what a service's container would run; asks for its health as Docker would. */
async function runs(service: Service, home: TemporaryFolder, health: string): Promise<void> {
  const config = service.environment?.["ASHLAR_CONFIG"]?.replace(HOME, home.path) ?? "";
  const start = (): RunningProcess =>
    new RunningProcess(path.join(ROOT, "bin/ashlar"), service.command ?? [], {
      env: { ASHLAR_CONFIG: config },
    });
  let agent = start();
  await until(() => {
    // Servers that have just begun do not answer yet, and Docker starts it again.
    if (agent.hasEnded) agent = start();
    return agent.stderr.includes(" is ready") || undefined;
  });
  const [check = ""] = only(await readDockerfile(), "HEALTHCHECK");
  const command = check.slice(check.indexOf("CMD ") + 4).replaceAll(INSTALLED, `${ROOT}/`);
  const ask = async (where: string): Promise<number | null> => {
    const env = { ASHLAR_HEALTH: where };
    return (await new RunningProcess("/bin/sh", ["-c", command], { env }).ended).code;
  };
  assert.equal(await ask(health), 0);
  agent.signal("SIGTERM");
  const ended = await agent.ended;
  assert.equal(ended.code, 0, describeEnd(ended));
  assert.equal(await ask(health), 1);
  assert.equal(await ask(""), 0);
}
