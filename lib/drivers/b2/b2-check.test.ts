import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { tryStorage } from "#lib/drivers/storages.ts";
import type { CheckFinding } from "#lib/drivers/storage-check.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import { B2Service } from "#test/fixtures/b2-service.ts";

const PORTS = { clock: systemClock(), random: systemRandom() };

describe("checkB2", () => {
  let service: B2Service;
  before(async () => {
    service = await B2Service.start();
  });
  after(() => service.stop());

  async function check(url: string): Promise<Map<string, CheckFinding>> {
    const findings = await tryStorage(url, PORTS);
    return new Map(findings.map((finding) => [finding.check, finding]));
  }

  it("is content with a bucket of its own, and leaves nothing", async () => {
    const bucket = service.fresh();
    const findings = await check(service.url(bucket.bucketName, { attempts: "1" }));
    for (const { outcome, check: name, detail } of findings.values()) {
      assert.equal(outcome, name === "create only" ? "warning" : "ok", `${name}: ${detail}`);
    }
    assert.equal(findings.get("default encryption")?.detail, "SSE-B2 AES256");
    assert.equal(findings.get("file lock")?.detail, "off");
    assert.equal(findings.get("checksum")?.detail, "SHA-1");
    assert.deepEqual(bucket.versions, []);
  });

  it("tells of a bucket that everybody can read, of a lock, and of no encryption", async () => {
    const bucket = service.fresh();
    bucket.bucketType = "allPublic";
    bucket.encryption = { mode: null, algorithm: null };
    bucket.fileLock = {
      isFileLockEnabled: true,
      defaultRetention: { mode: "governance", period: { duration: 7, unit: "days" } },
    };
    const url = service.url(bucket.bucketName, { attempts: "1" });
    const findings = await check(url);
    assert.equal(findings.get("bucket type")?.outcome, "warning");
    assert.match(findings.get("bucket type")?.detail ?? "", /everybody can read/);
    assert.equal(findings.get("default encryption")?.detail, "none");
    assert.equal(findings.get("file lock")?.outcome, "warning");
    assert.match(findings.get("file lock")?.detail ?? "", /kept for 7 days \(governance\)/);
    bucket.fileLock = { isFileLockEnabled: true, defaultRetention: { mode: null, period: null } };
    assert.match((await check(url)).get("file lock")?.detail ?? "", /possible/);
  });

  it("refuses rules that would hide what is in use, and is content with others", async () => {
    const bucket = service.fresh();
    const url = service.url(bucket.bucketName, { attempts: "1" });
    const rule = (fileNamePrefix: string, hide: number | null, days: number | null = 1) => ({
      fileNamePrefix,
      daysFromUploadingToHiding: hide,
      daysFromHidingToDeleting: days,
    });
    for (const [rules, outcome, detail] of [
      [[rule("", 30)], "failed", /"" after 30 days/],
      [[rule("some/prefix/blocks/", 1, null)], "failed", /"some\/prefix\/blocks\/" after 1 day:/],
      [[rule("elsewhere/", 30), rule("", null)], "ok", /none that touches/],
      [[], "ok", /^none$/],
    ] as const) {
      bucket.lifecycleRules = [...rules];
      const found = (await check(url)).get("lifecycle rules");
      assert.equal(found?.outcome, outcome);
      assert.match(found?.detail ?? "", detail);
    }
  });

  it("says what a key lacks", async () => {
    const bucket = service.fresh();
    const capabilities = ["listFiles", "readFiles", "writeFiles"];
    const key = service.double.addKey({ capabilities, buckets: [bucket.bucketName] });
    await service.writeKey("weak", key);
    const findings = await check(service.url(bucket.bucketName, { attempts: "1" }, "weak"));
    const found = findings.get("capabilities");
    assert.equal(found?.outcome, "failed");
    assert.match(found?.detail ?? "", /lacks listBuckets, deleteFiles: make one that has them/);
    assert.equal(findings.get("bucket")?.outcome, "unknown");
    assert.equal(findings.get("delete")?.outcome, "failed");
    assert.equal(findings.get("clean up")?.outcome, "failed");
    const reader = service.double.addKey({
      capabilities: [...capabilities, "listBuckets", "deleteFiles"],
    });
    await service.writeKey("reader", reader);
    const readable = await check(service.url(service.fresh().bucketName, {}, "reader"));
    assert.equal(readable.get("file lock")?.outcome, "unknown");
    assert.match(readable.get("default encryption")?.detail ?? "", /lacks readBucketEncryption/);
  });

  it("tells of a service that does not look at SHA-1", async (test) => {
    service.double.looksAtSha1 = false;
    test.after(() => (service.double.looksAtSha1 = true));
    const bucket = service.fresh();
    const findings = await check(service.url(bucket.bucketName));
    assert.equal(findings.get("checksum")?.outcome, "warning");
    assert.deepEqual(bucket.versions, []);
  });
});
