import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { AshlarError, ErrorCode } from "./errors.ts";
import {
  asVersionUid,
  checkSnapshotName,
  checkVolumeName,
  createVersionUid,
  parseLabel,
  parseVersionReference,
  resolveVersionReference,
} from "./uid.ts";
import type { ReferableVersion } from "./uid.ts";

function failsWith(code: ErrorCode, pattern: RegExp): (error: unknown) => boolean {
  return (error) =>
    error instanceof AshlarError && error.code === code && pattern.test(error.message);
}

describe("names", () => {
  it("may have letters, digits and a few signs", () => {
    for (const name of [
      "vm-1",
      "a",
      "rbd/pool/image@snap",
      "x:y+z.1_2",
      "9",
      "/dev/vg/lv",
      "a--b",
    ]) {
      assert.equal(checkVolumeName(name), name);
    }
    assert.equal(checkSnapshotName(""), "");
    assert.equal(checkSnapshotName("b-1"), "b-1");
  });

  it("may have nothing else", () => {
    for (const name of ["", "-a", "a-", "-", "a b", "a%", "ä", "a\n", "a\nb", "'a'", "a*", "a=b"]) {
      assert.throws(
        () => checkVolumeName(name),
        failsWith(ErrorCode.Usage, /^volume name .* not allowed/),
        name,
      );
    }
    assert.throws(() => checkSnapshotName("a b"), failsWith(ErrorCode.Usage, /^snapshot name/));
    assert.throws(() => asVersionUid("a b"), failsWith(ErrorCode.Usage, /^version uid/));
    assert.throws(
      () => checkVolumeName("a".repeat(256)),
      failsWith(ErrorCode.Usage, /has 256 characters/),
    );
  });
});

describe("version uids", () => {
  const names = fc.stringMatching(/^[a-z0-9_.:/@+]{1,255}$/);

  it("begin with the volume, end with 6 random characters, and are names themselves", () => {
    fc.assert(
      fc.property(names, fc.infiniteStream(fc.nat(35)), (volume, numbers) => {
        const random = {
          below(limit: number): number {
            assert.equal(limit, 36);
            return numbers.next().value ?? 0;
          },
        };
        const uid = createVersionUid(volume, random);
        assert.match(uid, /-[a-z0-9]{6}$/);
        assert.equal(uid.slice(0, -7), volume.slice(0, 248));
        assert.ok(uid.length <= 255);
        assert.equal(asVersionUid(uid), uid);
      }),
    );
  });

  it("use every character", () => {
    let next = 0;
    const random = { below: (limit: number): number => next++ % limit };
    const seen = new Set(
      Array.from({ length: 6 }, () => createVersionUid("v", random).slice(2)).join(""),
    );
    assert.equal(seen.size, 36);
  });
});

describe("labels", () => {
  it("are set and removed", () => {
    const set = (name: string, value: string): object => ({ kind: "set", name, value });
    assert.deepEqual(parseLabel("host=hv1"), set("host", "hv1"));
    assert.deepEqual(
      parseLabel("example.com/host=a-b_c.d:e/f@g+h"),
      set("example.com/host", "a-b_c.d:e/f@g+h"),
    );
    assert.deepEqual(parseLabel("host="), set("host", ""));
    assert.throws(() => parseLabel("host"), failsWith(ErrorCode.Usage, /expected NAME=VALUE/));
    assert.deepEqual(parseLabel("host=x-"), set("host", "x-"));
    assert.deepEqual(parseLabel("host-"), { kind: "remove", name: "host" });
    assert.deepEqual(parseLabel("a-b-"), { kind: "remove", name: "a-b" });
  });

  it("are refused where they break Kubernetes' rules", () => {
    const table = [
      ..." = =x - -a=x a-=x .a=x a/b/c=x /a=x A/b=x a..b/c=x a=b=c ä=x a--".split(" "),
      "a b=x",
      "a=b c",
      `${"a".repeat(64)}=x`,
      `a=${"x".repeat(256)}`,
      `${"a".repeat(254)}/b=x`,
    ];
    for (const text of table) {
      assert.throws(() => parseLabel(text), failsWith(ErrorCode.Usage, /^label "/), text);
    }
  });

  it("are read in linear time", () => {
    assert.throws(
      () => parseLabel(`${"a-".repeat(50_000)}/b=x`),
      failsWith(ErrorCode.Usage, /DNS name/),
    );
  });
});

describe("references to versions", () => {
  function candidate(
    uid: string,
    date: number,
    more: Partial<ReferableVersion> = {},
  ): ReferableVersion {
    return { uid: asVersionUid(uid), volume: uid.slice(0, -7), date, status: "valid", ...more };
  }

  const versions = [
    candidate("vm-abc123", 1),
    candidate("vm-abd456", 2),
    candidate("vm-zzz999", 3, { status: "invalid" }),
    candidate("vm-yyy888", 4, { status: "incomplete" }),
    candidate("disk@1-aaaaaa", 5, { status: "incomplete" }),
    candidate("vm-abc123-bbbbbb", 6),
  ];

  function resolve(text: string): string {
    return resolveVersionReference(parseVersionReference(text), versions);
  }

  it("are a uid or a unique beginning", () => {
    assert.equal(resolve("vm-abc123"), "vm-abc123");
    assert.equal(resolve("vm-abc123-"), "vm-abc123-bbbbbb");
    assert.equal(resolve("vm-z"), "vm-zzz999");
    assert.equal(resolve("disk"), "disk@1-aaaaaa");
    assert.throws(
      () => resolve("vm-a"),
      failsWith(ErrorCode.Usage, /beginning of 3 versions: vm-abc123, vm-abc123-bb/),
    );
    assert.throws(() => resolve("vm-x"), failsWith(ErrorCode.NotFound, /no version vm-x/));
    assert.throws(() => resolve(""), failsWith(ErrorCode.Usage, /not allowed/));
    assert.throws(() => resolve("--"), failsWith(ErrorCode.Usage, /not allowed/));
  });

  it("are the latest valid version of a volume", () => {
    assert.equal(resolve("vm@latest"), "vm-abd456");
    assert.equal(resolve("vm-abc123@latest"), "vm-abc123-bbbbbb");
    assert.throws(
      () => resolve("no@latest"),
      failsWith(ErrorCode.NotFound, /no version of volume no/),
    );
    assert.throws(
      () => resolve("disk@1@latest"),
      failsWith(ErrorCode.NotFound, /no valid version of volume disk@1; one is/),
    );
    assert.throws(() => resolve("@latest"), failsWith(ErrorCode.Usage, /volume name/));
  });
});
