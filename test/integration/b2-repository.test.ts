/** A repository at Backblaze B2, by the command line, on a double of the service. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { MARKER_NAME } from "#lib/drivers/storage-marker.ts";
import { B2Service } from "#test/fixtures/b2-service.ts";
import { noiseBlocks, writeImage } from "#test/fixtures/integration-image.ts";
import { runAshlar } from "#test/fixtures/integration-process.ts";
import { TEST_TIMEOUT_MS, TestRepository } from "#test/fixtures/integration-repository.ts";
import type { DoubleBucket } from "#test/servers/b2-double.ts";

const EXIT_REFUSED = 77;

describe("a repository at B2", { timeout: TEST_TIMEOUT_MS }, () => {
  let service: B2Service;
  before(async () => {
    service = await B2Service.start();
  });
  after(() => service.stop());

  /** That the bucket has what the metadata name, once each, and nothing else. */
  async function assertExact(repo: TestRepository, bucket: DoubleBucket): Promise<void> {
    const { counts } = await repo.assertClean();
    const names = service.names(bucket);
    const count = (kind: string): number =>
      names.filter((name) => name.startsWith(`${kind}/`)).length;
    assert.deepEqual(
      [count("blocks"), count("nodes"), counts["orphans"]],
      [counts["blocks"], counts["nodes"], 0],
    );
    const rest = names.filter((name) => !/^(?:blocks|nodes|heads|stamps|keys)\//.test(name));
    assert.deepEqual(rest, [MARKER_NAME]);
  }

  it("backs up, restores, removes, and leaves exactly what is needed, whatever the service does", async () => {
    const bucket = service.fresh();
    const { double } = service;
    // Much of what goes wrong in a year, in a minute.
    double.tokenUses = 40;
    double.uploadUrlUses = 7;
    double.pageMost = 5;
    await using repo = await TestRepository.make({
      storages: ["main"],
      places: { main: service.url(bucket.bucketName, { attempts: "5" }) },
    });
    const image = repo.home.at("image");
    const bytes = await writeImage(image, noiseBlocks("first", 24));
    double.faults = [
      { operation: "b2_upload_file", times: 3, skip: 4, act: "lost answer" },
      { operation: "b2_upload_file", times: 2, act: { status: 503, code: "service_unavailable" } },
    ];
    const first = await repo.backup(image, "vol");
    await writeImage(image, [...noiseBlocks("first", 12), ...noiseBlocks("second", 12)]);
    double.faults = [{ operation: "b2_upload_file", times: 2, skip: 2, act: "broken" }];
    const second = await repo.backup(image, "vol");
    await assertExact(repo, bucket);
    double.faults = [
      { operation: "b2_download_file_by_name", times: 2, skip: 9, act: "truncated" },
    ];
    await repo.assertRestores(first.uid, bytes);
    double.faults = [
      { operation: "b2_delete_file_version", times: 2, skip: 2, act: "lost answer" },
    ];
    await repo.run(["rm", first.uid]);
    await repo.run(["gc", "--sweep"]);
    double.faults = [];
    await assertExact(repo, bucket);
    assert.equal(service.names(bucket).filter((name) => name.startsWith("blocks/")).length, 24);
    await repo.assertRestores(second.uid, await readFile(image));
    assert.deepEqual(double.complaints, []);
  });

  it("takes back a storage whose key turns out to allow too little", async () => {
    const bucket = service.fresh();
    const capabilities = ["listBuckets", "listFiles", "readFiles"];
    await service.writeKey("weak", service.double.addKey({ capabilities }));
    await using repo = await TestRepository.plan({
      places: { main: service.url(bucket.bucketName, {}, "weak") },
    });
    const ended = await runAshlar(repo.initArguments(), { env: repo.env, code: EXIT_REFUSED });
    assert.match(ended.stderr, /the key does not allow it.*\n.*writeFiles/s);
    assert.deepEqual(bucket.versions, []);
  });
});
