import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { openMemoryKv } from "#lib/drivers/memory/memory-kv.ts";
import { decodeKeyObject, encodeKeyObject } from "#proto/key-object.ts";
import { createKeyFile } from "./key-file.ts";
import { openKeys, resealKeys, sealKeys } from "./key-objects.ts";
import { createRepositoryKeys, rotateKeys, type RepositoryKeys } from "./keys.ts";
import { mergeAccessKeys } from "./merge-access-keys.ts";
import {
  ACCESS_KEYS_MAX,
  adoptAccessKeys,
  type AccessKeyEntry,
} from "./transactions/access-keys.ts";

const KEYS = createRepositoryKeys({ hash: "blake3", compression: "none" });
const ROTATED = rotateKeys(KEYS);
const [FILE, OTHER] = [createKeyFile().secret, createKeyFile().secret];

async function entryFor(secret = FILE, keys: RepositoryKeys = KEYS): Promise<AccessKeyEntry> {
  const { accessId, bytes } = await sealKeys(keys, secret, { label: "", createdMs: 1 });
  return withObject({ accessId, record: { ...EMPTY, object: undefined } }, bytes);
}

const NOBODY = "";
const EMPTY = { label: "", capability: "full", createdMs: 1 } as const;
const withObject = ({ accessId, record }: AccessKeyEntry, bytes: Uint8Array): AccessKeyEntry => ({
  accessId,
  record: { ...record, object: Buffer.from(bytes) },
});
const objectOf = ({ record }: AccessKeyEntry) => decodeKeyObject(record.object as Buffer);
const rotated = (entry: AccessKeyEntry): AccessKeyEntry =>
  withObject(entry, resealKeys(ROTATED, objectOf(entry)).bytes);
const withoutFacts = (entry: AccessKeyEntry): AccessKeyEntry =>
  withObject(entry, encodeKeyObject({ ...objectOf(entry), facts: undefined }));

describe("access keys out of storages", () => {
  it("fill new metadata, each with the newest that a full holder vouches for, in whatever order", async () => {
    const [one, two] = [await entryFor(), await entryFor(OTHER)];
    const found = [one, rotated(one), withoutFacts(one), rotated(two), two];
    for (const order of [found, found.toReversed()]) {
      const { set, forged } = await mergeAccessKeys(openMemoryKv(), ROTATED, order, NOBODY);
      assert.deepEqual(forged, []);
      assert.equal(set.entries.length, 2);
      for (const secret of [FILE, OTHER]) {
        const objects = set.entries.map(({ accessId, record }) => ({
          name: accessId,
          bytes: record.object as Buffer,
        }));
        assert.deepEqual(await openKeys(objects, secret), ROTATED);
      }
    }
  });

  it("mend metadata that are older, and leave those that are not", async () => {
    const [one, two] = [await entryFor(), await entryFor(OTHER)];
    const older = openMemoryKv();
    await adoptAccessKeys(older, [one]);
    const mended = await mergeAccessKeys(older, ROTATED, [rotated(one), two], NOBODY);
    assert.equal(mended.set.version, 2);
    assert.equal(mended.set.entries.length, 2);
    assert.notDeepEqual(
      mended.set.entries.find(({ accessId }) => accessId === one.accessId),
      one,
    );
    const newer = openMemoryKv();
    const there = rotated(one);
    await adoptAccessKeys(newer, [there]);
    const same = await mergeAccessKeys(newer, ROTATED, [one, withoutFacts(one)], NOBODY);
    assert.deepEqual(same.set, { version: 1, entries: [there] });
  });

  it("do not bring back what was removed, or let in what nobody vouches for", async () => {
    const [one, two] = [await entryFor(), await entryFor(OTHER)];
    const kv = openMemoryKv();
    const tombstone = { ...two.record, object: undefined, removedMs: 5 };
    await adoptAccessKeys(kv, [one, { accessId: two.accessId, record: tombstone }]);
    const stranger = createRepositoryKeys({ hash: "blake3", compression: "none" });
    const smuggled = await entryFor(createKeyFile().secret, {
      ...stranger,
      repository: KEYS.repository,
    });
    const foreign = await entryFor(createKeyFile().secret, stranger);
    const broken = { accessId: "00000000000000ff", record: { ...EMPTY, object: Buffer.from("{") } };
    const facts = objectOf(one).facts;
    assert.ok(facts !== undefined);
    const edited = withObject(
      one,
      encodeKeyObject({ ...objectOf(one), facts: { ...facts, publicKey: Buffer.alloc(32, 9) } }),
    );
    const merged = await mergeAccessKeys(
      kv,
      KEYS,
      [two, smuggled, foreign, broken, edited],
      NOBODY,
    );
    assert.equal(merged.set.version, 1);
    assert.deepEqual(
      [...merged.forged].toSorted(),
      [smuggled, foreign, broken, edited].map(({ accessId }) => accessId).toSorted(),
    );
  });

  it("never leave out the one that has opened, however much junk lies beside it", async () => {
    const own = withoutFacts(await entryFor());
    const junk = Array.from({ length: ACCESS_KEYS_MAX + 5 }, (_, at): AccessKeyEntry => {
      const accessId = at.toString(16).padStart(16, "0");
      const object = encodeKeyObject({ ...objectOf(own), accessId });
      return withObject({ ...own, accessId }, object);
    });
    for (const found of [
      [...junk, own],
      [own, ...junk],
    ]) {
      const { set, forged } = await mergeAccessKeys(openMemoryKv(), KEYS, found, own.accessId);
      assert.equal(set.entries.length, ACCESS_KEYS_MAX);
      assert.ok(set.entries.some(({ accessId }) => accessId === own.accessId));
      assert.equal(forged.length, 6);
      assert.ok(!forged.includes(own.accessId));
    }
  });
});
