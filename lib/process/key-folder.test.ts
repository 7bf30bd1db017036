import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode } from "#lib/core/errors.ts";
import { openMemoryBlobStore, type BlobFault } from "#lib/drivers/memory/memory-blob-store.ts";
import { virtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import { openMemoryKv } from "#lib/drivers/memory/memory-kv.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { createKeyFile } from "#lib/repository/key-file.ts";
import { openKeys, resealKeys, sealKeys } from "#lib/repository/key-objects.ts";
import { createRepositoryKeys, rotateKeys } from "#lib/repository/keys.ts";
import type { AccessKeyRecord } from "#lib/repository/records.ts";
import {
  adoptAccessKeys,
  changeAccessKeys,
  readAccessKeys,
} from "#lib/repository/transactions/access-keys.ts";
import { decodeKeyObject } from "#proto/key-object.ts";
import { memoryLog, type LoggedLine } from "#test/fakes/memory-log.ts";
import { bringInLine, KeyFolders } from "./key-folder.ts";

const KEYS = createRepositoryKeys({ hash: "blake3", compression: "none" });
const [FILE, OTHER] = [createKeyFile().secret, createKeyFile().secret];
const PLAN = { label: "", createdMs: 1 };

interface Made {
  readonly name: string;
  readonly accessId: string;
  readonly record: AccessKeyRecord & { readonly object: Buffer };
}

async function make(secret = FILE, keys = KEYS): Promise<Made> {
  const { accessId, name, bytes } = await sealKeys(keys, secret, PLAN);
  return {
    accessId,
    name,
    record: { object: Buffer.from(bytes), ...PLAN, capability: "full" },
  };
}

function rotated({ accessId, name, record }: Made, keys = rotateKeys(KEYS)): Made {
  const { bytes } = resealKeys(keys, decodeKeyObject(record.object));
  return { accessId, name, record: { ...record, object: Buffer.from(bytes) } };
}

async function world(...made: Made[]) {
  const kv = openMemoryKv();
  await adoptAccessKeys(kv, made);
  const lines: LoggedLine[] = [];
  const store = openMemoryBlobStore();
  const folders = new KeyFolders(kv, memoryLog(lines));
  return { kv, lines, store, folders, guarded: folders.guard(store, "main") };
}

function remove(kv: Kv, { accessId, record }: Made) {
  const after = { ...record, object: undefined, removedMs: 2 };
  return changeAccessKeys(kv, [{ accessId, before: record, after }]);
}

const replace = (kv: Kv, before: Made, after: Made) =>
  changeAccessKeys(kv, [{ accessId: before.accessId, before: before.record, after: after.record }]);

const CREATE = { mode: "create" } as const;

describe("the folder keys/ of a storage", () => {
  it("gets what it lacks or has otherwise, loses what was removed, and keeps what nobody knows", async () => {
    const [one, two] = [await make(), await make(OTHER)];
    const { kv, store } = await world(one, two);
    store.objects.set("keys/00000000000000ff", Buffer.from("whatever"));
    store.objects.set("keys/no-name-of-ours", Buffer.from("whatever"));
    store.objects.set(two.name, Buffer.from("damaged"));
    const first = await bringInLine(store, await readAccessKeys(kv));
    assert.deepEqual(first.put.toSorted(), [one.name, two.name].toSorted());
    assert.deepEqual(first.unknown, ["keys/00000000000000ff"]);
    assert.deepEqual(store.objects.get(two.name), two.record.object);
    const set = await remove(kv, two);
    const second = await bringInLine(store, set);
    assert.deepEqual(second, {
      put: [],
      deleted: [two.name],
      unknown: ["keys/00000000000000ff"],
    });
    assert.deepEqual(
      [...store.objects.keys()].toSorted(),
      [one.name, "keys/00000000000000ff", "keys/no-name-of-ours"].toSorted(),
    );
    assert.deepEqual((await bringInLine(store, set)).deleted, []);
  });

  it("keeps what was removed for as long as it is locked there", async () => {
    const [one, two] = [await make(), await make(OTHER)];
    const { kv, folders } = await world(one, two);
    const clock = virtualClock();
    const store = openMemoryBlobStore({ lock: { periodMs: 1000, clock } });
    await bringInLine(store, await readAccessKeys(kv));
    const { locking } = folders.guard(store, "main");
    assert.ok(locking !== undefined, "what guards it hides nothing of it");
    assert.equal((await locking.extend([one.name, two.name], clock.now() + 1000)).size, 0);
    const set = await remove(kv, two);
    assert.deepEqual((await bringInLine(store, set)).deleted, []);
    assert.ok(store.objects.has(two.name));
    await clock.advance(1000);
    assert.deepEqual((await bringInLine(store, set)).deleted, [two.name]);
  });

  it("is never put back to older keys: metadata from a backup are refused, and nothing is changed", async () => {
    const one = await make();
    const newer = rotated(one);
    const { kv, store } = await world(one);
    store.objects.set(newer.name, newer.record.object);
    const set = await readAccessKeys(kv);
    await assert.rejects(bringInLine(store, set), { code: ErrorCode.Refused, remedy: /rebuild/ });
    const strange = openMemoryBlobStore();
    const stranger = rotated(await make(OTHER));
    strange.objects.set(stranger.name, stranger.record.object);
    await assert.rejects(bringInLine(strange, set), { code: ErrorCode.Refused });
    const future = openMemoryBlobStore();
    future.objects.set(one.name, Buffer.from('{"format": 99}'));
    await assert.rejects(bringInLine(future, set), { code: ErrorCode.Refused });
    for (const each of [store, strange, future]) assert.equal(each.objects.size, 1);
    const after = await replace(kv, one, newer);
    assert.deepEqual((await bringInLine(store, after)).put, []);
    store.objects.set(one.name, one.record.object);
    assert.deepEqual((await bringInLine(store, after)).put, [newer.name]);
  });
});

describe("a storage that is written to", () => {
  it("has the key objects before the first other object, however many come at once", async () => {
    const one = await make();
    const { store, folders, guarded } = await world(one);
    folders.require(1);
    const order: string[] = [];
    store.faults = {
      before: ({ kind, name }) => {
        if (kind === "put" || kind === "list") order.push(name);
        return "none";
      },
    };
    await Promise.all(
      ["blocks/a", "blocks/b", "heads/c"].map((name) => guarded.put(name, Buffer.of(1), CREATE)),
    );
    assert.deepEqual(order.slice(0, 2), ["keys/", one.name]);
    assert.deepEqual(order.slice(2).toSorted(), ["blocks/a", "blocks/b", "heads/c"]);
    await guarded.put("blocks/d", Buffer.of(1), CREATE);
    assert.equal(order.length, 6);
  });

  it("gets nothing while its key objects cannot be put, and all once they can", async () => {
    const one = await make();
    const { store, folders, guarded } = await world(one);
    folders.require(1);
    for (const failing of ["list", "put"] as const) {
      store.faults = {
        before: ({ kind, name }) => {
          if (kind === failing && name.startsWith("keys/")) throw new Error(`no ${failing}`);
          return "none";
        },
      };
      await assert.rejects(guarded.put("blocks/a", Buffer.of(1), CREATE), /no (list|put)/);
      assert.equal(store.objects.size, 0);
    }
    store.faults = {};
    await guarded.put("blocks/a", Buffer.of(1), CREATE);
    assert.deepEqual([...store.objects.keys()], [one.name, "blocks/a"]);
  });

  it("has new key objects before anything that is put after they are required", async () => {
    const one = await make();
    const { kv, store, folders, guarded } = await world(one);
    folders.require(1);
    await guarded.put("blocks/a", Buffer.of(1), CREATE);
    const keys = rotateKeys(KEYS);
    const { version } = await replace(kv, one, rotated(one, keys));
    await guarded.put("blocks/b", Buffer.of(1), CREATE);
    assert.deepEqual(store.objects.get(one.name), one.record.object);
    folders.require(version);
    await guarded.put("blocks/c", Buffer.of(1), CREATE);
    const bytes = store.objects.get(one.name) as Buffer;
    assert.deepEqual(await openKeys([{ name: one.name, bytes }], FILE), keys);
  });

  it("is looked at again where access keys were changed while it was brought in line", async () => {
    const [one, two] = [await make(), await make(OTHER)];
    const { kv, store, folders } = await world(one, two);
    store.faults = {
      // Slow: meanwhile somebody else removes the key and finds nothing to delete yet.
      before: async ({ kind, name }): Promise<BlobFault> => {
        if (kind === "put" && name === two.name) await remove(kv, two).catch(() => undefined);
        return "none";
      },
    };
    assert.equal(await folders.bringInLine(store, "main"), 2);
    assert.deepEqual([...store.objects.keys()], [one.name]);
  });

  it("gets nothing from metadata that were put back while the process ran", async () => {
    const one = await make();
    const { kv, store, folders, guarded } = await world(one);
    const before = kv.snapshot();
    const { version } = await replace(kv, one, rotated(one));
    folders.require(version);
    kv.restore(before);
    const late = guarded.put("blocks/a", Buffer.of(1), CREATE);
    await assert.rejects(late, { code: ErrorCode.Refused, message: /put back while/ });
    assert.ok(!store.objects.has("blocks/a"));
  });

  it("is left alone by metadata that have no access keys yet", async () => {
    const { store, folders, guarded } = await world();
    assert.equal(await folders.bringInLine(store, "main"), 0);
    await guarded.put("blocks/a", Buffer.of(1), CREATE);
    assert.deepEqual([...store.objects.keys()], ["blocks/a"]);
  });

  it("tells of key objects that nobody knows", async () => {
    const { store, folders, lines } = await world(await make());
    store.objects.set("keys/00000000000000ff", Buffer.from("whatever"));
    await folders.bringInLine(store, "main");
    assert.match(lines.find(({ level }) => level === "warn")?.message ?? "", /00000000000000ff/);
  });
});
