/** `ashlar storage check` on a real S3 service: Ceph's object gateway. */
import assert from "node:assert/strict";
import {
  PutBucketLifecycleConfigurationCommand,
  PutBucketVersioningCommand,
  PutObjectLockConfigurationCommand,
} from "@aws-sdk/client-s3";
import { after, before, describe, it } from "node:test";
import { checkS3 } from "#lib/drivers/s3/s3-check.ts";
import { parseS3Url } from "#lib/drivers/s3/s3-settings.ts";
import type { CheckFinding } from "#lib/drivers/storage-check.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import { runAshlar } from "#test/fixtures/integration-process.ts";
import {
  parseJson,
  TEST_TIMEOUT_MS,
  TestRepository,
} from "#test/fixtures/integration-repository.ts";
import { S3Service } from "#test/fixtures/s3-service.ts";
import { rgwMissing } from "#test/servers/rgw.ts";

const EXIT_UNAVAILABLE = 69;

interface Checked {
  readonly storages: readonly {
    readonly name: string;
    readonly findings: readonly CheckFinding[];
  }[];
}

describe("storage check", { skip: rgwMissing() ?? false, timeout: TEST_TIMEOUT_MS }, () => {
  let service: S3Service;
  before(async () => {
    service = await S3Service.start();
  });
  after(() => service.stop());

  /** What is found at the URL, by its check. */
  async function check(url: string, code = 0): Promise<Map<string, CheckFinding>> {
    const ended = await runAshlar(["--json", "storage", "check", url], { code });
    const [storage] = parseJson<Checked>(ended).storages;
    return new Map(storage?.findings.map((finding) => [finding.check, finding]));
  }

  it("is content with a bucket of its own, before and after it is a storage, and leaves nothing", async () => {
    const { bucket, url } = await service.fresh({ preset: "rgw" });
    const first = await check(url);
    for (const { outcome, check: name, detail } of first.values())
      assert.equal(outcome, "ok", `${name}: ${detail}`);
    assert.ok(first.has("create only") && first.has("listing") && first.has("versioning"));
    assert.deepEqual(await service.names(bucket), []);

    await using repo = await TestRepository.make({ places: { main: url } });
    const names = await service.names(bucket);
    const { storages } = await repo.json<Checked>(["storage", "check"]);
    assert.deepEqual(
      storages[0]?.findings.map(({ check: name, outcome }) => `${name}: ${outcome}`),
      ["identity: ok", ...[...first.keys()].map((name) => `${name}: ok`)],
    );
    assert.deepEqual(await service.names(bucket), names);
    await repo.assertClean();
    const table = await repo.run(["storage", "check", "main"]);
    assert.match(String(table.stdout), /main +create only +ok/);
  });

  it("tells of a checksum that the service does not look at, and of weaker options", async () => {
    const { url } = await service.fresh({ checksum: "crc32", conditionalWrites: "false" });
    const findings = await check(url);
    assert.equal(findings.get("checksum")?.outcome, "warning");
    assert.match(findings.get("checksum")?.detail ?? "", /does not look at crc32/);
    assert.equal(findings.get("create only")?.outcome, "warning");
  });

  it("tells of versioning and of object lock", async () => {
    const { bucket, url } = await service.fresh();
    await service.client.send(
      new PutBucketVersioningCommand({
        Bucket: bucket,
        VersioningConfiguration: { Status: "Enabled" },
      }),
    );
    const findings = await check(url);
    assert.equal(findings.get("versioning")?.outcome, "warning");
    // This gateway does not keep its word there; nothing depends on it, but it is told.
    assert.equal(findings.get("create only")?.outcome, "warning");
    const locked = await service.freshLocked();
    const unused = (await check(service.url(locked.bucket))).get("object lock");
    assert.deepEqual([unused?.outcome, /not used/.test(unused?.detail ?? "")], ["warning", true]);
  });

  it("tries object lock out with locks that do not last, and leaves nothing", async () => {
    const { bucket, url } = await service.freshLocked({ objectLockPeriod: "30d" });
    for (const each of [url, url.replace("governance", "compliance")]) {
      const findings = await check(each);
      for (const name of [
        "object lock",
        "retention at put",
        "early delete",
        "extension",
        "late delete",
      ])
        assert.deepEqual([name, findings.get(name)?.outcome], [name, "ok"]);
      for (const { outcome, check: name, detail } of findings.values())
        assert.ok(outcome === "ok" || name === "create only", `${name}: ${detail}`);
      // Not even a delete marker.
      assert.deepEqual(await service.versions(bucket), []);
    }
  });

  it("tells of a lock that is too short, of the bucket's own, and of what is not allowed", async () => {
    const { bucket, url } = await service.freshLocked();
    const tell = async (name: string, code = 0): Promise<string> => {
      const finding = (await check(url, code)).get(name);
      return `${finding?.outcome}: ${finding?.detail}`;
    };
    assert.match(await tell("object lock"), /^warning: governance, for 3s: less than a day/);
    // What may not be deleted at all is not taken for what is still locked.
    await service.forbid(bucket, ["s3:DeleteObjectVersion"]);
    assert.match(await tell("late delete", EXIT_UNAVAILABLE), /^failed: .*denied/);
    await service.forbid(bucket, []);
    const DefaultRetention = { Mode: "GOVERNANCE", Days: 1 } as const;
    const ObjectLockConfiguration = {
      ObjectLockEnabled: "Enabled",
      Rule: { DefaultRetention },
    } as const;
    await service.client.send(
      new PutObjectLockConfigurationCommand({ Bucket: bucket, ObjectLockConfiguration }),
    );
    // Its marker, too: that place cannot be cleaned up.
    assert.match(
      await tell("default retention", EXIT_UNAVAILABLE),
      /^warning: .*for 1 days \(GOVERNANCE\)/,
    );
    assert.match(
      await tell("delete", EXIT_UNAVAILABLE),
      /^warning: the bucket itself locks everything/,
    );
  });

  it("says that a bucket without object lock cannot lock", async () => {
    const { url } = await service.fresh({ objectLockMode: "governance" });
    const { stdout } = await runAshlar(["storage", "check", url], { code: EXIT_UNAVAILABLE });
    assert.match(String(stdout), /needs a bucket with object lock/);
  });

  it("refuses a bucket whose rules would delete backups, and is content with other rules", async () => {
    const { bucket, url } = await service.fresh();
    const setRule = (prefix: string, days: number): Promise<unknown> =>
      service.client.send(
        new PutBucketLifecycleConfigurationCommand({
          Bucket: bucket,
          LifecycleConfiguration: {
            Rules: [
              {
                ID: "tidy",
                Status: "Enabled",
                Filter: { Prefix: prefix },
                Expiration: { Days: days },
              },
            ],
          },
        }),
      );
    await setRule("", 30);
    const found = (await check(url, EXIT_UNAVAILABLE)).get("lifecycle rules");
    assert.deepEqual([found?.outcome, /tidy/.test(found?.detail ?? "")], ["failed", true]);
    await setRule("elsewhere/", 30);
    assert.equal((await check(url)).get("lifecycle rules")?.outcome, "ok");
  });

  it("says what is wrong with a place that is no bucket, and with credentials", async () => {
    const { bucket, url } = await service.fresh();
    const none = await runAshlar(["--json", "storage", "check", service.url("no-such-bucket")], {
      code: EXIT_UNAVAILABLE,
    });
    assert.match(String(none.stdout), /there is no such bucket/);
    await service.forbid(bucket, ["s3:PutObject"]);
    const findings = await check(url, EXIT_UNAVAILABLE);
    assert.match([...findings.values()].map(({ detail }) => detail).join(), /access is denied/);
  });

  it("tells of a clock that is off", async () => {
    const { url } = await service.fresh({ preset: "rgw" });
    const random = systemRandom();
    for (const [offMs, outcome, detail] of [
      [0, "ok", /^$/],
      [-5 * 60_000, "warning", /differs by (?:5m|4m\d+s|5m\d+s); from 15 minutes on/],
      [3600_000, "warning", /differs by (?:1h|59m\d+s)/],
    ] as const) {
      const system = systemClock();
      const clock = { ...system, now: () => system.now() + offMs };
      const found = await checkS3(parseS3Url(url), { clock, random });
      const told = found.find(({ check: name }) => name === "clock");
      assert.equal(told?.outcome, outcome, `${offMs} ms`);
      assert.match(told.detail, detail);
    }
  });
});
