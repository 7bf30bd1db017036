// Nothing secret shows: a whole cluster works with marked secrets and marked plaintext, keys are added, rotated and removed, things
// fail; then everything is searched for each secret in each form.
import assert from "node:assert/strict";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import { setTimeout } from "node:timers/promises";
import { parseDocument } from "yaml";
import { parseKeyFile } from "#lib/repository/key-file.ts";
import { passphraseSecret, type AccessSecret } from "#lib/repository/access-key.ts";
import { openKeyObject, type StoredKeyObject } from "#lib/repository/key-objects.ts";
import { secretOf } from "#lib/repository/keys.ts";
import { B2Service } from "#test/fixtures/b2-service.ts";
import {
  hitsBelow,
  hitsIn,
  needlesOf,
  ProcessWatch,
  TelemetryTap,
  WireTap,
  type Needle,
} from "#test/fixtures/canary.ts";
import { BLOCK, MIB, noise } from "#test/fixtures/integration-image.ts";
import {
  describeEnd,
  startAshlar,
  type Ended,
  type RunningProcess,
} from "#test/fixtures/integration-process.ts";
import {
  TemporaryFolder,
  TEST_TIMEOUT_MS,
  TestRepository,
} from "#test/fixtures/integration-repository.ts";
import { S3Service } from "#test/fixtures/s3-service.ts";
import { natsMissing, startNats } from "#test/servers/nats-server.ts";
import { rgwMissing } from "#test/servers/rgw.ts";

const EXIT_REFUSED = 77;
const PASSPHRASE = "Canary passphrase: b\u00f6hmische D\u00f6rfer 9d41f7";
const NEW_PASSPHRASE = "Canary passphrase that is added: 5be20c77ab";
const PLAINTEXT = "Canary-Plaintext-7f3a9c51d2e8";
const VOLUME = "canary-volume-41c8e0";

/** An image full of a text that would show wherever it lies in the clear. */
function canaryImage(seed: string): Buffer {
  const text = Buffer.alloc(6 * BLOCK, `${PLAINTEXT} ${seed} `);
  // Each block is another one.
  for (let block = 0; block < 6; block += 1) text.writeUInt32LE(block + 1, block * BLOCK);
  return Buffer.concat([text, noise(seed, MIB)]);
}

/** A cluster of processes whose every word is kept. */
class Canary implements AsyncDisposable {
  readonly stack: AsyncDisposableStack;
  readonly repo: TestRepository;
  readonly tap: WireTap;
  readonly telemetry: TelemetryTap;
  readonly b2: B2Service;
  readonly s3: S3Service;
  readonly bucket: string;
  readonly natsStore: string;
  readonly outputs: Ended[] = [];
  readonly #agents: RunningProcess[] = [];

  private constructor(
    stack: AsyncDisposableStack,
    parts: Pick<Canary, "repo" | "tap" | "telemetry" | "b2" | "s3" | "bucket" | "natsStore">,
  ) {
    this.stack = stack;
    this.repo = parts.repo;
    this.tap = parts.tap;
    this.telemetry = parts.telemetry;
    this.b2 = parts.b2;
    this.s3 = parts.s3;
    this.bucket = parts.bucket;
    this.natsStore = parts.natsStore;
  }

  static async make(): Promise<Canary> {
    const stack = new AsyncDisposableStack();
    const b2 = await B2Service.start();
    stack.defer(() => b2.stop());
    const s3 = await S3Service.start();
    stack.defer(() => s3.stop());
    const { bucket, url } = await s3.fresh();
    const repo = stack.use(
      await TestRepository.make({
        storages: ["main", "off", "cloud"],
        places: { off: b2.url(b2.fresh().bucketName), cloud: url },
        init: ["--compression", "none", "--repository-key", "x25519"],
      }),
    );
    const telemetry = stack.use(await TelemetryTap.start());
    const users = repo.home.at("users.conf");
    await repo.configure(
      [["nats", "servers"], ["nats://127.0.0.1:1"]],
      [["host"], "central"],
      [["sessions", "lease"], "3s"],
      [["log", "level"], "debug"],
      [["telemetry", "otlp"], telemetry.url],
    );
    for (const [name, role] of [
      ["central", "core"],
      ["alice", "client"],
    ] as const) {
      const nk = repo.home.at(`${name}.nk`);
      await repo.run(["nats-user", name, nk, "--role", role, "--nats-users", users]);
    }
    const nats = await startNats({ users });
    stack.defer(() => nats.stop());
    const [server] = nats.servers;
    assert.ok(server !== undefined);
    const tap = stack.use(await WireTap.before(server.port));
    await repo.configure(
      [["nats", "servers"], [`nats://127.0.0.1:${tap.port}`]],
      [["nats", "nkeyFile"], repo.home.at("central.nk")],
    );
    const pattern = `${repo.home.path}/**`;
    const allowed = ["--source", pattern, "--target", pattern, "--nats-users", users];
    await repo.run(["enroll", "hv1", repo.home.at("hv1"), ...allowed]);
    server.signal("SIGHUP");
    await setTimeout(300);
    const commandLine = await readFile(`/proc/${server.pid}/cmdline`, "latin1");
    const conf = commandLine.split("\0").find((word) => word.endsWith("nats.conf")) ?? "";
    const natsStore = path.join(path.dirname(conf), "store");
    return new Canary(stack, { repo, tap, telemetry, b2, s3, bucket, natsStore });
  }

  /** Changes a configuration file, or makes another one of it. */
  async configure(from: string, to: string, change: Record<string, unknown>): Promise<string> {
    const document = parseDocument(await readFile(from, "utf8"));
    for (const [key, value] of Object.entries(change)) {
      if (value === undefined) document.delete(key);
      else document.set(key, document.createNode(value));
    }
    await mkdir(path.dirname(to), { recursive: true });
    await writeFile(to, document.toString());
    return to;
  }

  async startAgent(config: string, roles: string): Promise<RunningProcess> {
    const args = ["--config", config, "--log-format", "json", "agent", "--roles", roles];
    const agent = startAshlar(args, { env: this.repo.env });
    this.#agents.push(agent);
    const untilMs = Date.now() + 60_000;
    while (!agent.stderr.includes(" is ready") && Date.now() < untilMs) await setTimeout(20);
    assert.ok(agent.stderr.includes(" is ready"), `${roles}: ${agent.stderr}`);
    return agent;
  }

  async run(
    args: readonly string[],
    options: { readonly config?: string; readonly code?: number; readonly env?: object } = {},
  ): Promise<Ended> {
    const { config = this.repo.folder, code = 0, env = {} } = options;
    const all = ["--config", config, "--yes", "--log-level", "debug", ...args];
    const ended = await startAshlar(all, { env: { ...this.repo.env, ...env } }).ended;
    this.outputs.push(ended);
    assert.equal(ended.code, code, describeEnd(ended));
    return ended;
  }

  async stopAgents(): Promise<void> {
    for (const agent of this.#agents) agent.signal("SIGTERM");
    for (const agent of this.#agents) {
      const ended = await agent.ended;
      this.outputs.push(ended);
      assert.equal(ended.code, 0, describeEnd(ended));
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#agents.map((agent) => agent.kill()));
    await this.stack.disposeAsync();
  }
}

/** What opens with an access key: the needles of all that is inside, and of what is derived on the way. */
async function needlesBehind(
  name: string,
  secret: AccessSecret,
  objects: readonly StoredKeyObject[],
): Promise<Needle[]> {
  const { keys, access } = await openKeyObject(objects, secret);
  const needles = [
    ...needlesOf(`${name}: derived key`, access.key),
    ...needlesOf(`${name}: private key of its pair`, access.pair.privateKey),
    ...needlesOf("the dedup key", keys.dedupKey),
  ];
  for (const [id, key] of keys.repositoryKeys) {
    const half = secretOf(key);
    if (half !== undefined) needles.push(...needlesOf(`repository key ${id}`, half));
  }
  if (secret.type === "keyfile") needles.push(...needlesOf(`${name}: the key`, secret.key));
  return needles;
}

async function keyObjects(repo: TestRepository): Promise<StoredKeyObject[]> {
  const files = await repo.objects("main", "keys");
  return Promise.all(files.map(async ({ name, file }) => ({ name, bytes: await readFile(file) })));
}

describe("canaries", { timeout: TEST_TIMEOUT_MS }, () => {
  it("are found in every form in which they are looked for", async () => {
    await using home = await TemporaryFolder.make();
    const secret = noise("secret", 32);
    const needles = needlesOf("x", secret);
    assert.ok(needles.length >= 14);
    for (const [index, { bytes }] of needles.entries()) {
      const file = home.at(`planted-${index}`);
      await writeFile(file, Buffer.concat([Buffer.from("before "), bytes, Buffer.from(" after")]));
      const hits = await hitsBelow(home.path, needles);
      assert.ok(hits.some((hit) => hit.startsWith(needles[index]?.name ?? "")));
      assert.deepEqual(await hitsBelow(home.path, needles, [file]), []);
      await rm(file);
    }
    // As they stand in longer texts, wherever those begin.
    for (let before = 0; before < 6; before += 1) {
      const longer = Buffer.concat([Buffer.alloc(before, 1), secret, Buffer.from("more")]);
      for (const form of ["base64", "base64url", "hex"] as const) {
        const text = Buffer.from(longer.toString(form));
        assert.ok(hitsIn("a text", text, needles).length > 0, `${form} from ${before}`);
      }
    }
    assert.deepEqual(hitsIn("noise", noise("other", MIB), needles), []);
  });

  it(
    "show nowhere: not in logs, traces, metrics, processes, NATS, metadata or storages",
    { skip: natsMissing() ?? rgwMissing() ?? false },
    async () => {
      await using canary = await Canary.make();
      const { repo } = canary;
      const { folder, home, configFile } = repo;
      // Secrets: files of their own, each.
      const [phraseFile, writerKey, addedKey] = ["phrase", "writer.key", "added.key"].map((name) =>
        home.at(name),
      ) as [string, string, string];
      await writeFile(phraseFile, `${PASSPHRASE}\n`, { mode: 0o600 });
      const text = await readFile(repo.keyFile, "utf8");
      const keyFile = parseKeyFile(text);
      assert.ok(keyFile.type === "keyfile");
      const seeds = await Promise.all(
        [home.at("central.nk"), home.at("alice.nk"), home.at("hv1", "agent.nk")].map(async (file) =>
          Buffer.from((await readFile(file, "utf8")).trim()),
        ),
      );
      const b2Key = new URL(await urlOf(configFile, "off")).searchParams.get("applicationKeyFile");
      const early = [
        ...needlesOf("the passphrase", Buffer.from(PASSPHRASE)),
        ...needlesOf("the added passphrase", Buffer.from(NEW_PASSPHRASE)),
        ...needlesOf("the key in use", keyFile.key),
        ...seeds.flatMap((seed, index) => needlesOf(`NATS seed ${index}`, seed)),
        ...needlesOf("S3 secret key", Buffer.from(canary.s3.rgw.secretAccessKey)),
        ...needlesOf("B2 key", Buffer.from((await readFile(b2Key ?? "", "utf8")).trim())),
        ...(await needlesBehind("key file", keyFile, await keyObjects(repo))),
      ];
      await using watch = new ProcessWatch(early);

      await canary.run(["key", "add", "--passphrase-file", phraseFile, "--label", "office"]);
      await canary.run(["key", "add", "--write-only", "--key-file", writerKey, "--label", "web"]);
      const office = await canary.configure(configFile, home.at("office", "ashlar.yaml"), {
        keyFile: undefined,
        passphraseFile: phraseFile,
        metadata: repo.metadata,
      });
      const web = await canary.configure(configFile, home.at("web", "ashlar.yaml"), {
        keyFile: writerKey,
        metadata: repo.metadata,
      });
      const hv1 = await canary.configure(
        home.at("hv1", "agent.yaml"),
        home.at("hv1", "agent.yaml"),
        {
          log: { level: "debug" },
          telemetry: { otlp: canary.telemetry.url },
        },
      );
      const client = home.at("client.yaml");
      await writeFile(
        client,
        `version: 1\nnats: { servers: ["nats://127.0.0.1:${canary.tap.port}"], nkeyFile: ${home.at("alice.nk")}, inboxPrefix: _INBOX_alice }\n`,
      );
      await canary.startAgent(configFile, "dedup,writer,coordinator");
      await canary.startAgent(office, "writer");
      await canary.startAgent(hv1, "reader");

      const submit = (args: readonly string[], code = 0): Promise<Ended> =>
        canary.run(["submit", "--wait", ...args], { config: client, code });
      const images: Buffer[] = [];
      const backup = async (): Promise<void> => {
        const bytes = canaryImage(`image ${images.length}`);
        const image = home.at(`image-${images.length}`);
        images.push(bytes);
        await writeFile(image, bytes);
        await submit(["backup", `volume=${VOLUME}`, `source=${image}`, "host=hv1"]);
      };
      await backup();
      await canary.run(["key", "rotate"]);
      await backup();
      const restored = home.at("image-restored");
      const restore = ["restore", `version=${VOLUME}@latest`, "host=hv1"];
      await submit([...restore, `target=${restored}`]);
      assert.ok((await readFile(restored)).equals(images.at(-1) as Buffer));
      await submit(["scrub", "deep=true"]);
      // By hosts with other access keys, with errors, with secrets that are wrong.
      await canary.run(["backup", home.at("image-0"), VOLUME], { config: web });
      await canary.run(["restore", `${VOLUME}@latest`, home.at("x")], {
        config: web,
        code: EXIT_REFUSED,
      });
      await canary.run(["key", "add", "--passphrase", "--label", "added"], {
        env: { ASHLAR_NEW_PASSPHRASE: NEW_PASSPHRASE },
      });
      const wrong = await canary.configure(office, home.at("wrong", "ashlar.yaml"), {
        passphraseFile: configFile,
      });
      await canary.run(["scrub"], { config: wrong, code: EXIT_REFUSED });
      const swapped = await canary.configure(configFile, home.at("swapped", "ashlar.yaml"), {
        keyFile: phraseFile,
        metadata: repo.metadata,
      });
      await canary.run(["scrub"], { config: swapped, code: EXIT_REFUSED });
      await submit([...restore, "target=/no/such/place"], EXIT_REFUSED);
      await canary.run(["key", "remove", "added"]);
      await canary.run(["key", "rotate"]);
      await canary.run(["key", "kit"]);
      await canary.run(["key", "kit", "--with-key", "--output", home.at("kit.txt")]);
      await canary.run(["key", "add", "--key-file", addedKey, "--label", "last"]);
      await canary.run(["key", "ls"]);
      await canary.run(["--json", "status"]);
      await canary.run(["rm", `${VOLUME}@latest`]);
      await canary.run(["gc", "--sweep"]);
      await canary.run(["fsck"]);
      await canary.stopAgents();
      const processes = await watch.stop();

      const objects = await keyObjects(repo);
      const secrets = [
        ...early,
        ...(await needlesBehind("key file", keyFile, objects)),
        ...(await needlesBehind("passphrase", passphraseSecret(PASSPHRASE), objects)),
        ...(await needlesBehind(
          "writer",
          parseKeyFile(await readFile(writerKey, "utf8")),
          objects,
        )),
        ...(await needlesBehind("added", parseKeyFile(await readFile(addedKey, "utf8")), objects)),
      ];
      const plaintext = needlesOf("plaintext", Buffer.from(PLAINTEXT));
      const volume = needlesOf("the volume's name", Buffer.from(VOLUME));

      // Each place has what it must have: else it was not looked at.
      const said = canary.outputs.map(({ args, stdout, stderr }): [string, Buffer] => [
        args.join(" "),
        Buffer.concat([stdout, Buffer.from(stderr)]),
      ]);
      assert.ok(said.some(([, bytes]) => hitsIn("", bytes, volume).length > 0));
      assert.ok(said.every(([, bytes]) => bytes.length > 0));
      for (const at of ["/v1/traces", "/v1/metrics"]) {
        assert.ok(canary.telemetry.sent(at).includes("ashlar"), `${at} was sent`);
      }
      assert.ok(canary.tap.hits(plaintext).length > 0, "blocks of a remote reader cross NATS");
      assert.ok(processes.commandLines.some((line) => line.includes("dedup,writer,coordinator")));
      assert.ok((await hitsBelow(repo.metadata, volume)).length > 0);
      assert.ok((await hitsBelow(home.path, secrets)).length > 0);

      const shown = said.flatMap(([args, bytes]) =>
        hitsIn(`what ${args} said`, bytes, [...secrets, ...plaintext]),
      );
      assert.deepEqual(shown, []);
      for (const at of ["/v1/traces", "/v1/metrics"]) {
        const found = hitsIn(at, canary.telemetry.sent(at), [...secrets, ...plaintext]);
        assert.deepEqual(found, []);
      }
      // One command was given a passphrase by its environment, by us.
      assert.deepEqual(
        processes.hits.filter((hit) => !/^the added passphrase, raw: .*environ$/.test(hit)),
        [],
      );
      assert.deepEqual(canary.tap.hits(secrets), []);
      assert.deepEqual(await hitsBelow(canary.natsStore, [...secrets, ...plaintext]), []);
      assert.deepEqual(await hitsBelow(repo.metadata, [...secrets, ...plaintext]), []);
      const stored = [...secrets, ...plaintext, ...volume];
      assert.deepEqual(await hitsBelow(repo.storageFolder("main"), stored), []);
      const buckets = [...canary.b2.double.buckets.values()];
      assert.ok(buckets.some(({ versions }) => versions.length > 10));
      for (const { versions } of buckets) {
        for (const { fileName, bytes } of versions) {
          assert.deepEqual(
            hitsIn(fileName, Buffer.concat([Buffer.from(fileName), bytes]), stored),
            [],
          );
        }
      }
      const names = await canary.s3.names(canary.bucket);
      assert.ok(names.length > 10);
      for (const name of names) {
        const bytes = await canary.s3.read(canary.bucket, name);
        assert.deepEqual(hitsIn(name, Buffer.concat([Buffer.from(name), bytes]), stored), []);
      }
      // What is left below the test's folder are the secrets' own files, and the images.
      const own = [repo.keyFile, phraseFile, writerKey, addedKey, home.at("kit.txt")];
      const nats = ["central.nk", "alice.nk", "hv1/agent.nk", "hv1/dedup.key"];
      const except = [...own, ...nats.map((name) => home.at(name))];
      assert.deepEqual(await hitsBelow(home.path, secrets, except), []);
      assert.ok(folder.startsWith(home.path));
    },
  );
});

/** The URL of a storage of a configuration. */
async function urlOf(file: string, name: string): Promise<string> {
  const document = parseDocument(await readFile(file, "utf8")).toJS() as {
    storages: { name: string; url: string }[];
  };
  return document.storages.find((storage) => storage.name === name)?.url ?? "";
}
