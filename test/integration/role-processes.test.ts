// services/*/main.ts: each role as a process of its own.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import path from "node:path";
import { describe, it } from "node:test";
import { writeNoise } from "#test/fixtures/integration-image.ts";
import { describeEnd, RunningProcess, until } from "#test/fixtures/integration-process.ts";
import { TemporaryFolder, TEST_TIMEOUT_MS } from "#test/fixtures/integration-repository.ts";
import { TestCluster } from "#test/fixtures/test-cluster.ts";
import { natsMissing } from "#test/servers/nats-server.ts";

const ROLES = ["coordinator", "reader", "dedup", "writer"] as const;
const MIB = 1024 * 1024;

function startRole(
  role: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): RunningProcess {
  const main = path.resolve(import.meta.dirname, "../../services", role, "main.ts");
  return new RunningProcess(process.execPath, [main, ...args], { env });
}

describe("a role as a process", { timeout: TEST_TIMEOUT_MS }, () => {
  for (const role of ROLES) {
    it(`${role} shows its help, and refuses a wrong configuration`, async () => {
      const help = await startRole(role, ["--help"]).ended;
      assert.equal(help.code, 0, describeEnd(help));
      assert.match(help.stdout.toString(), /Usage: ashlar agent/);
      await using folder = await TemporaryFolder.make();
      const none = await startRole(role, ["--config", folder.path]).ended;
      assert.equal(none.code, 78, describeEnd(none));
      assert.match(none.stderr, /there is no configuration/);
      const wrong = await startRole(role, ["--cofnig", folder.path]).ended;
      assert.equal(wrong.code, 64, describeEnd(wrong));
    });
  }

  it("has that role, whatever else is asked for", { skip: natsMissing() ?? false }, async () => {
    await using cluster = await TestCluster.make();
    const { repo } = cluster;
    const config = await cluster.enroll("hv1");
    // What a mere reader is refused is what another role would be.
    const refused = await startRole("writer", ["--config", config, "--roles", "dedup"]).ended;
    assert.equal(refused.code, 78, describeEnd(refused));
    assert.match(refused.stderr, /configuration of a reader, which cannot be writer as well/);
    const started = ROLES.map((role) =>
      startRole(role, ["--config", role === "reader" ? config : repo.configFile], repo.env),
    );
    try {
      for (const process of started) {
        await until(() => {
          assert.ok(!process.hasEnded, process.stderr);
          return process.stderr.includes(" is ready") || undefined;
        });
      }
      const image = repo.fresh("image");
      const target = repo.fresh("target");
      await writeNoise(image, "roles", MIB);
      await cluster.done(
        await cluster.submit({ kind: "backup", volume: "vm1", source: image, host: "hv1" }),
      );
      await cluster.done(
        await cluster.submit({ kind: "restore", version: "vm1@latest", target, host: "hv1" }),
      );
      assert.ok((await readFile(image)).equals(await readFile(target)), "it is what was backed up");
      for (const process of started) process.signal("SIGTERM");
      for (const process of started) {
        const ended = await process.ended;
        assert.equal(ended.code, 0, describeEnd(ended));
      }
    } finally {
      await Promise.all(started.map((process) => process.kill()));
    }
  });
});
