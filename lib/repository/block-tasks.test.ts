import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { InvariantError } from "#lib/core/assert.ts";
import { ErrorCode } from "#lib/core/errors.ts";
import { blockTaskSource, createTasks } from "./block-tasks.ts";
import { createHasher } from "./hashing.ts";
import { createRepositoryKeys } from "./keys.ts";
import { createSealer } from "./sealing.ts";

const KEYS = createRepositoryKeys({ hash: "hmac-sha256", compression: "lz4" });

describe("the tasks of a reader", () => {
  const { hash, dedupKey } = KEYS;
  const tasks = createTasks({ hash: { hash, dedupKey } });

  it("hash, and can do nothing else", () => {
    const plain = Buffer.from("block");
    const { ids } = tasks.hash(plain, 10);
    assert.deepEqual(ids, createHasher(KEYS).hashBlock(plain));
    assert.throws(() => tasks.seal([], Buffer.alloc(1)), InvariantError);
    assert.throws(() => tasks.open([], Buffer.alloc(1)), InvariantError);
  });

  it("carry no repository key to the worker", () => {
    const text = JSON.stringify(blockTaskSource({ hash: { hash, dedupKey } }));
    assert.ok(!text.includes(KEYS.activeKeyId));
    assert.match(text, /block-tasks\.ts/);
  });
});

describe("opening", () => {
  it("fails as a whole for an object of a newer Ashlar: no verdict on the copy", () => {
    const tasks = createTasks({ hash: KEYS, seal: { keys: KEYS, compression: "lz4" } });
    const plain = Buffer.alloc(100, 1);
    const id = createHasher(KEYS).hashBlock(plain).toString("hex");
    const sealed = createSealer(KEYS, { compression: "none" }).seal({ kind: "block", id, plain });
    const cut = sealed.subarray(0, -1);
    const out = Buffer.alloc(1000);
    assert.equal(tasks.open([{ kind: "block", id, sealed: cut }], out)[0]?.ok, false);
    const huge = tasks.open.bind(tasks, [{ kind: "block", id, sealed }], Buffer.alloc(99));
    assert.throws(huge, { code: ErrorCode.Internal });
  });
});
