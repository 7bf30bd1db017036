import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { PutHolder, PutTurns } from "./put-turns.ts";

const AT = "s0" as StorageId;
const ELSEWHERE = "s1" as StorageId;

/** A put that ends when it is told to. */
interface TestPut {
  begun: boolean;
  outcome: unknown;
  end(): Promise<void>;
}

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

async function put(turns: PutTurns, holder: PutHolder, storage = AT): Promise<TestPut> {
  const gate = Promise.withResolvers<void>();
  const test: TestPut = {
    begun: false,
    outcome: undefined,
    end: () => {
      gate.resolve();
      return settle();
    },
  };
  const run = turns.run(storage, holder, () => {
    test.begun = true;
    return gate.promise;
  });
  void run.then(
    () => (test.outcome = "done"),
    (error: unknown) => (test.outcome = error),
  );
  await settle();
  return test;
}

describe("turns to put", () => {
  it("leave a quarter of the slots, and two, to those that are not late", () => {
    const lateSlotsMax = [1, 2, 3, 4, 8, 16].map((count) => new PutTurns(count).lateSlotsMax);
    assert.deepEqual(lateSlotsMax, [1, 1, 1, 2, 6, 12]);
    const turns = new PutTurns(16);
    const requestsMax = [0, 1, 2, 5, 20].map((spare) => new PutHolder(turns, spare).requestsMax);
    assert.deepEqual(requestsMax, [Infinity, 12, 6, 2, 1]);
  });

  it("are given to the puts of a bounded number of requests, to the others in order", async () => {
    const turns = new PutTurns(4);
    const holders = Array.from({ length: 4 }, () => new PutHolder(turns, 1));
    const puts: TestPut[] = [];
    for (const holder of holders) puts.push(await put(turns, holder));
    const begun = (): boolean[] => puts.map((each) => each.begun);
    assert.deepEqual(begun(), [true, true, false, false]);
    const another = await put(turns, holders[0]!);
    assert.equal(another.begun, true, "a request that has begun goes on");
    assert.equal((await put(turns, holders[3]!, ELSEWHERE)).begun, true);
    await puts[0]!.end();
    assert.deepEqual(begun(), [true, true, false, false]);
    await another.end();
    assert.deepEqual(begun(), [true, true, true, false]);
    assert.equal(puts[0]!.outcome, "done");
    await puts[1]!.end();
    assert.deepEqual(begun(), [true, true, true, true]);
  });

  it("are not waited for any more once the request was answered", async () => {
    const turns = new PutTurns(4);
    const [first, second, third] = Array.from({ length: 3 }, () => new PutHolder(turns, 1));
    const puts = [await put(turns, first!), await put(turns, second!), await put(turns, third!)];
    assert.equal(turns.isBehind(AT), false);
    turns.leave(first!);
    assert.equal(turns.isBehind(AT), false);
    turns.leave(second!);
    assert.equal(turns.isBehind(AT), true);
    turns.leave(third!);
    await settle();
    assert.ok(isErrorCode(puts[2]!.outcome, "UNAVAILABLE"));
    await puts[0]!.end();
    await puts[1]!.end();
    assert.deepEqual(
      puts.map(({ begun }) => begun),
      [true, true, false],
    );
    assert.equal(turns.isBehind(AT), false);
    assert.equal((await put(turns, new PutHolder(turns, 1))).begun, true);
  });

  it("are free where the quorum needs every storage", async () => {
    const turns = new PutTurns(4);
    for (let count = 0; count < 8; count += 1) {
      assert.equal((await put(turns, new PutHolder(turns, 0))).begun, true);
    }
  });
});
