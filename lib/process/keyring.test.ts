import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { ErrorCode } from "#lib/core/errors.ts";
import { createInlineCompute } from "#lib/drivers/compute/inline-compute.ts";
import { openMemoryBlobStore } from "#lib/drivers/memory/memory-blob-store.ts";
import { openMemoryKv } from "#lib/drivers/memory/memory-kv.ts";
import { virtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import { createTasks } from "#lib/repository/block-tasks.ts";
import { createHasher } from "#lib/repository/hashing.ts";
import { createKeyFile } from "#lib/repository/key-file.ts";
import { openKeyObject, openKeys, resealKeys, sealKeys } from "#lib/repository/key-objects.ts";
import { createRepositoryKeys, rotateKeys, type RepositoryKeys } from "#lib/repository/keys.ts";
import { createSealer, repositoryKeyOf } from "#lib/repository/sealing.ts";
import { adoptAccessKeys, changeAccessKeys } from "#lib/repository/transactions/access-keys.ts";
import { decodeKeyObject } from "#proto/key-object.ts";
import { memoryLog, type LoggedLine } from "#test/fakes/memory-log.ts";
import { KeyFolders } from "./key-folder.ts";
import { Keyring, LOOK_FOR_KEYS_EVERY_MS } from "./keyring.ts";
import { metadataPaths } from "./metadata-folder.ts";
import type { OpenRepository } from "./open-repository.ts";

const KEYS = createRepositoryKeys({ hash: "blake3", compression: "none" });
const [FILE, OTHER] = [createKeyFile().secret, createKeyFile().secret];
const PLAIN = Buffer.alloc(4096, "plain ");
const BLOCK = {
  kind: "block",
  id: createHasher(KEYS).hashBlock(PLAIN).toString("hex"),
  plain: PLAIN,
} as const;
const SETTINGS = { compression: "none" } as const;

/** A process with one access key, over metadata and a storage that others have, too. */
async function world() {
  const metadata = await mkdtemp(path.join(tmpdir(), "ashlar-keyring-"));
  const kv = openMemoryKv();
  const lines: LoggedLine[] = [];
  const log = memoryLog(lines);
  const clock = virtualClock();
  const records = await Promise.all(
    [FILE, OTHER].map(async (secret) => {
      const { accessId, bytes } = await sealKeys(KEYS, secret, { label: "", createdMs: 1 });
      const record = { object: Buffer.from(bytes), label: "", createdMs: 1 };
      return { accessId, record: { ...record, capability: "full" } as const };
    }),
  );
  await adoptAccessKeys(kv, records);
  const store = openMemoryBlobStore();
  const keyFolders = new KeyFolders(kv, log);
  const repository = { kv, keyFolders, ports: { log, clock }, config: { metadata } };
  const [own] = records.map(({ record }) => ({ name: "keys/own", bytes: record.object }));
  const keyring = new Keyring(repository as unknown as OpenRepository, {
    secret: FILE,
    opened: await openKeyObject(own === undefined ? [] : [own], FILE),
    version: 1,
    sealing: (keys) => ({
      sealer: createSealer(keys, SETTINGS),
      compute: createInlineCompute(createTasks({ hash: keys, seal: { keys, ...SETTINGS } })),
    }),
  });
  let reads = 0;
  const read = kv.read.bind(kv);
  kv.read = (body) => {
    reads += 1;
    return read(body);
  };
  return {
    kv,
    keyring,
    clock,
    lines,
    store,
    guarded: keyFolders.guard(store, "main"),
    metadata,
    records,
    countReads: () => reads,
    async rotate(): Promise<RepositoryKeys> {
      const rotated = rotateKeys(KEYS, "x25519");
      const changes = records.map(({ accessId, record }) => {
        const { bytes } = resealKeys(rotated, decodeKeyObject(record.object));
        return { accessId, before: record, after: { ...record, object: Buffer.from(bytes) } };
      });
      await changeAccessKeys(kv, changes, { complete: true });
      return rotated;
    },
    async removeOwn(): Promise<void> {
      const { accessId, record } = records[0] as (typeof records)[number];
      const after = { ...record, object: undefined, removedMs: 2 };
      await changeAccessKeys(kv, [{ accessId, before: record, after }]);
    },
    [Symbol.asyncDispose]: () => rm(metadata, { recursive: true }),
  };
}

const sealed = (keys: RepositoryKeys): Buffer => createSealer(keys, SETTINGS).seal(BLOCK);

describe("a process and the keys of its repository", () => {
  it("opens what somebody else sealed under a repository key that came later", async () => {
    await using at = await world();
    const { keyring } = at;
    const rotated = await at.rotate();
    const out = Buffer.alloc(PLAIN.length);
    const [opened] = await keyring.compute.open([{ ...BLOCK, sealed: sealed(rotated) }], out);
    assert.deepEqual([opened?.ok, out], [true, PLAIN]);
    assert.deepEqual(keyring.opened.keys, rotated);
    assert.equal(repositoryKeyOf(keyring.sealer.seal(BLOCK)), rotated.activeKeyId);
    assert.deepEqual(keyring.sealer.open({ ...BLOCK, sealed: sealed(KEYS) }), PLAIN);
  });

  it("puts the key objects before the first object under the new key, wherever it learned of it", async () => {
    await using at = await world();
    const { keyring, guarded, store } = at;
    const put = async (name: string): Promise<void> => {
      await guarded.put(name, keyring.sealer.seal(BLOCK), { mode: "create" });
    };
    await put("blocks/a");
    const rotated = await at.rotate();
    // Not told of it yet: it seals under the old key, which harms nobody.
    await put("blocks/b");
    assert.equal(repositoryKeyOf(store.objects.get("blocks/b") as Buffer), KEYS.activeKeyId);
    assert.equal(await keyring.refresh(), true);
    await put("blocks/c");
    const names = [...store.objects.keys()];
    const keyNames = names.filter((name) => name.startsWith("keys/"));
    const objects = keyNames.map((name) => ({ name, bytes: store.objects.get(name) as Buffer }));
    assert.equal(repositoryKeyOf(store.objects.get("blocks/c") as Buffer), rotated.activeKeyId);
    for (const secret of [FILE, OTHER]) assert.deepEqual(await openKeys(objects, secret), rotated);
    for (const name of keyNames) {
      const copy = path.join(metadataPaths(at.metadata).keys, path.basename(name));
      assert.deepEqual(await readFile(copy), store.objects.get(name));
    }
  });

  it("looks for new keys from time to time, with one small read", async () => {
    await using at = await world();
    const ended = new AbortController();
    const watching = at.keyring.watch(ended.signal);
    const before = at.countReads();
    await at.clock.advance(LOOK_FOR_KEYS_EVERY_MS);
    assert.equal(at.countReads(), before + 1);
    const rotated = await at.rotate();
    assert.equal(repositoryKeyOf(at.keyring.sealer.seal(BLOCK)), KEYS.activeKeyId);
    await at.clock.advance(LOOK_FOR_KEYS_EVERY_MS);
    while (at.keyring.version === 1) await new Promise((resolve) => setTimeout(resolve, 5));
    assert.equal(repositoryKeyOf(at.keyring.sealer.seal(BLOCK)), rotated.activeKeyId);
    ended.abort();
    await watching;
  });

  it("goes on with what it has when its access key is removed, and judges nothing that it cannot open", async () => {
    await using at = await world();
    await at.removeOwn();
    await assert.rejects(at.keyring.refresh(), {
      code: ErrorCode.Refused,
      message: /was removed from the repository/,
    });
    assert.equal(repositoryKeyOf(at.keyring.sealer.seal(BLOCK)), KEYS.activeKeyId);
    const out = Buffer.alloc(PLAIN.length);
    const under = (keys: RepositoryKeys) =>
      at.keyring.compute.open([{ ...BLOCK, sealed: sealed(keys) }], out);
    assert.equal((await under(KEYS))[0]?.ok, true);
    await assert.rejects(under(rotateKeys(KEYS)), { code: ErrorCode.Refused });
    const ended = new AbortController();
    const watching = at.keyring.watch(ended.signal);
    await at.clock.advance(LOOK_FOR_KEYS_EVERY_MS);
    while (!at.lines.some(({ level }) => level === "warn"))
      await new Promise((resolve) => setTimeout(resolve, 5));
    ended.abort();
    await watching;
  });

  it("opens its keys again once, however many ask", async () => {
    await using at = await world();
    await at.rotate();
    const answers = await Promise.all([1, 2, 3].map(() => at.keyring.refresh()));
    assert.deepEqual(answers, [true, true, true]);
    assert.equal(await at.keyring.refresh(), false);
  });
});
