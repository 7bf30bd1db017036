// Hosts of a cluster whose writers can only write: they back up, and restores are served by others.
import assert from "node:assert/strict";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import { parseDocument } from "yaml";
import { MIB, writeNoise } from "#test/fixtures/integration-image.ts";
import { TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";
import { TestCluster } from "#test/fixtures/test-cluster.ts";
import { natsMissing } from "#test/servers/nats-server.ts";

const skip = natsMissing() ?? false;

describe("writers with write-only access keys", { skip, timeout: TEST_TIMEOUT_MS }, () => {
  it("take blocks of their own host and of others, and leave restores to who can read", async () => {
    await using cluster = await TestCluster.make({ init: ["--repository-key", "x25519"] });
    const { repo } = cluster;
    const keyFile = repo.home.at("web.key");
    await repo.run(["key", "add", "--write-only", "--key-file", keyFile, "--label", "web"]);
    /** The configuration of another host, with the write-only key. */
    const configFor = async (host: string, agent: object): Promise<string> => {
      const document = parseDocument(await readFile(repo.configFile, "utf8"));
      const own = { host, keyFile, metadata: repo.metadata, agent };
      for (const [key, value] of Object.entries(own)) document.set(key, document.createNode(value));
      const file = repo.home.at(host, "ashlar.yaml");
      await mkdir(path.dirname(file));
      await writeFile(file, document.toString());
      return file;
    };
    const pattern = `${repo.home.path}/**`;
    const local = { localWriter: true, sources: [pattern], targets: [pattern] };
    await cluster.startAgent("dedup,coordinator");
    const web1 = await cluster.startAgent("writer", await configFor("web1", {}));
    await cluster.startAgent("reader,writer", await configFor("web2", local));
    await cluster.startAgent("reader", await cluster.enroll("hv1"));

    const images = new Map<string, Buffer>();
    for (const host of ["hv1", "web2"]) {
      const image = repo.home.at(`image-${host}`);
      images.set(host, await writeNoise(image, host, 2 * MIB));
      await cluster.done(
        await cluster.submit({ kind: "backup", volume: host, source: image, host }),
      );
    }
    // Nobody is there who can read.
    const inVain = await cluster.submit({
      kind: "restore",
      version: "hv1@latest",
      target: repo.home.at("in-vain"),
      host: "hv1",
    });
    const { state, error } = await cluster.finished(inVain);
    assert.equal(state, "failed");
    assert.match(error?.message ?? "", /write-only access key gives nothing back/);

    await cluster.startAgent("writer");
    for (const [volume, bytes] of images) {
      for (const host of ["hv1", "web2"]) {
        const target = repo.home.at(`restored-${volume}-${host}`);
        const job = { kind: "restore", version: `${volume}@latest`, target, host };
        await cluster.done(await cluster.submit(job));
        assert.ok((await readFile(target)).equals(bytes), `${volume} at ${host}`);
      }
    }
    // Both kinds of writers took blocks and questions.
    assert.ok(!web1.hasEnded);
    await cluster.done(await cluster.submit({ kind: "scrub", deep: true }));
    await cluster.stopAgents();
    await repo.assertNoOrphans();
  });
});
