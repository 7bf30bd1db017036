import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode } from "#lib/core/errors.ts";
import { openMemoryKv, type CommitFault } from "#lib/drivers/memory/memory-kv.ts";
import type { AccessKeyRecord } from "../records.ts";
import {
  ACCESS_KEYS_MAX,
  adoptAccessKeys,
  changeAccessKeys,
  readAccessKeys,
  readAccessKeysVersion,
  type AccessKeyChange,
  type AccessKeyEntry,
} from "./access-keys.ts";

const ID = (index: number): string => index.toString(16).padStart(16, "0");

function live(text: string, change: Partial<AccessKeyRecord> = {}): AccessKeyRecord {
  const object = Buffer.from(text);
  return { object, label: text, capability: "full", createdMs: 7, ...change };
}

const removed = (label: string, removedMs = 9): AccessKeyRecord => ({
  object: undefined,
  label,
  capability: "full",
  createdMs: 7,
  removedMs,
});

const entry = (index: number, record: AccessKeyRecord): AccessKeyEntry => ({
  accessId: ID(index),
  record,
});

const change = (
  index: number,
  before: AccessKeyRecord | undefined,
  after: AccessKeyRecord,
): AccessKeyChange => ({ accessId: ID(index), before, after });

/** A store whose next commit goes as the list says, and all later ones well. */
function faulty(...faults: CommitFault[]) {
  return openMemoryKv({ faults: { beforeCommit: () => faults.shift() ?? "ok" } });
}

describe("access keys in the metadata", () => {
  it("are adopted once, and never over those that there are", async () => {
    const kv = openMemoryKv();
    assert.deepEqual(await readAccessKeys(kv), { version: 0, entries: [] });
    assert.equal((await adoptAccessKeys(kv, [])).version, 0);
    const first = await adoptAccessKeys(kv, [entry(1, live("one"))]);
    assert.deepEqual(first, { version: 1, entries: [entry(1, live("one"))] });
    const again = await adoptAccessKeys(kv, [entry(1, live("two")), entry(2, live("three"))]);
    assert.deepEqual(again, first);
    assert.deepEqual(await readAccessKeys(kv), first);
  });

  it("change all together, and the version with them", async () => {
    const kv = openMemoryKv();
    await adoptAccessKeys(kv, [entry(1, live("one")), entry(2, live("two"))]);
    const set = await changeAccessKeys(kv, [
      change(1, live("one"), live("one anew")),
      change(2, live("two"), removed("two")),
      change(3, undefined, live("three", { capability: "write-only" })),
    ]);
    assert.equal(set.version, 2);
    assert.deepEqual(await readAccessKeys(kv), set);
    assert.equal(await readAccessKeysVersion(kv), 2);
    assert.deepEqual(
      set.entries.map(({ record }) => [record.label, record.object?.toString()]),
      [
        ["one anew", "one anew"],
        ["two", undefined],
        ["three", "three"],
      ],
    );
  });

  for (const fault of ["unknown-committed", "unknown-not-committed", "unknown-late"] as const) {
    it(`change once where the result of the commit is ${fault}`, async () => {
      const kv = faulty("ok", fault);
      await adoptAccessKeys(kv, [entry(1, live("one"))]);
      await changeAccessKeys(kv, [change(2, undefined, live("two"))]);
      assert.equal(await readAccessKeysVersion(kv), 2);
      const third = await changeAccessKeys(kv, [change(2, live("two"), removed("two"))]);
      assert.equal(third.version, 3);
      assert.equal((await readAccessKeys(kv)).entries[1]?.record.object, undefined);
    });
  }

  it("are not changed on what is not true any more: a late try brings back nothing that was removed", async () => {
    const kv = openMemoryKv();
    await adoptAccessKeys(kv, [entry(1, live("one"))]);
    const add = [change(2, undefined, live("two"))];
    await changeAccessKeys(kv, add);
    assert.equal((await changeAccessKeys(kv, add)).version, 2);
    await changeAccessKeys(kv, [change(2, live("two"), removed("two"))]);
    for (const before of [undefined, live("two"), removed("two", 8)]) {
      const late = changeAccessKeys(kv, [change(2, before, live("two"))]);
      await assert.rejects(late, { code: ErrorCode.TryAgain });
    }
    for (const part of [
      { label: "other" },
      { createdMs: 8 },
      { capability: "write-only" },
    ] as const) {
      const wrong = changeAccessKeys(kv, [change(1, live("one", part), live("x"))]);
      await assert.rejects(wrong, { code: ErrorCode.TryAgain });
    }
    assert.equal(await readAccessKeysVersion(kv), 3);
    // By somebody who knows that it was removed it can be added once more.
    const back = await changeAccessKeys(kv, [change(2, removed("two"), live("two"))]);
    assert.equal(back.version, 4);
  });

  it("are all among the changes where that is asked for, but for removed ones", async () => {
    const kv = openMemoryKv();
    const entries = [entry(1, live("one")), entry(2, live("two")), entry(3, live("three"))];
    await adoptAccessKeys(kv, entries);
    await changeAccessKeys(kv, [change(3, live("three"), removed("three"))]);
    const one = change(1, live("one"), live("one anew"));
    const two = change(2, live("two"), live("two anew"));
    const complete = { complete: true };
    await assert.rejects(changeAccessKeys(kv, [one], complete), { code: ErrorCode.TryAgain });
    assert.equal((await changeAccessKeys(kv, [one, two], complete)).version, 3);
  });

  it("are not changed on another set than the one that was seen, where that is asked for", async () => {
    const kv = openMemoryKv();
    await adoptAccessKeys(kv, [entry(1, live("one"))]);
    await changeAccessKeys(kv, [change(1, live("one"), live("rotated"))]);
    const add = [change(2, undefined, live("two"))];
    await assert.rejects(changeAccessKeys(kv, add, { version: 1 }), { code: ErrorCode.TryAgain });
    assert.equal((await changeAccessKeys(kv, add, { version: 2 })).version, 3);
    // A second try of what has landed.
    assert.equal((await changeAccessKeys(kv, add, { version: 2 })).version, 3);
  });

  it("keep one that is full, and are bounded", async () => {
    const kv = openMemoryKv();
    await adoptAccessKeys(kv, [
      entry(1, live("one")),
      entry(2, live("two", { capability: "write-only" })),
    ]);
    const last = changeAccessKeys(kv, [change(1, live("one"), removed("one"))]);
    await assert.rejects(last, { code: ErrorCode.Refused, message: /last full/ });
    for (let index = 3; index <= ACCESS_KEYS_MAX; index += 1) {
      await changeAccessKeys(kv, [change(index, undefined, live(String(index)))]);
    }
    const more = changeAccessKeys(kv, [change(ACCESS_KEYS_MAX + 1, undefined, live("more"))]);
    await assert.rejects(more, { code: ErrorCode.Refused, message: /at most 100/ });
    assert.equal((await readAccessKeys(kv)).entries.length, ACCESS_KEYS_MAX);
  });
});
