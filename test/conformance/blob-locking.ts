// What every BlobStore must do that locks its objects (BlobLocking of lib/ports/blob-store.ts).
import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { lockOf, type BlobLocking, type BlobStore } from "#lib/ports/blob-store.ts";

/** A store under test that locks what is put for some seconds. */
export interface LockedFixture {
  readonly store: BlobStore;
  /** Now, in ms since 1970, by the storage's clock. */
  readonly now: () => number;
  readonly wait: (ms: number) => Promise<void>;
  /** Puts a delete marker over an object, as whoever has stolen the credentials can; undefined where there is no such thing. */
  readonly hide?: (name: string) => Promise<void>;
}

/** How a driver is tested. */
export interface BlobLockingOptions {
  /** Opens an empty store; what it needs is cleaned up through the test's `after`. */
  readonly open: (test: TestContext) => Promise<LockedFixture>;
}

const NAME = `blocks/${"ab".repeat(32)}.${"01".repeat(8)}`;
const OTHER = `blocks/${"ab".repeat(32)}.${"02".repeat(8)}`;
/** Clocks and whole seconds. */
const SLACK_MS = 1500;

const text = async (store: BlobStore, name: string): Promise<string> =>
  Buffer.from(await store.get(name)).toString();

async function listed(store: BlobStore): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of store.list("")) names.push(name);
  return names.toSorted();
}

function lockingOf(store: BlobStore): BlobLocking {
  assert.ok(store.locking !== undefined, "it locks");
  return store.locking;
}

/** @param slackMs a put takes its time, and the lock counts from its beginning */
async function assertLocked(
  store: BlobStore,
  name: string,
  untilMs: number,
  slackMs = SLACK_MS,
): Promise<void> {
  const failures = await store.delete([name]);
  const locked = lockOf(failures.get(name));
  assert.ok(locked !== undefined, `it is locked: ${String(failures.get(name))}`);
  const offMs = Math.abs(locked.untilMs - untilMs);
  assert.ok(offMs <= slackMs, `locked until ${locked.untilMs}, not ${untilMs}`);
}

async function assertDeletes(store: BlobStore, names: readonly string[]): Promise<void> {
  assert.deepEqual([...(await store.delete(names))], []);
  for (const name of names) {
    await assert.rejects(store.get(name), (error) => isErrorCode(error, ErrorCode.NotFound));
    await assert.rejects(store.stat(name), (error) => isErrorCode(error, ErrorCode.NotFound));
  }
  assert.deepEqual(await listed(store), []);
}

/** Runs the suite against one driver. */
export function describeBlobLocking(driver: string, options: BlobLockingOptions): void {
  // They wait most of the time.
  describe(`BlobStore that locks: ${driver}`, { concurrency: true }, () => {
    const opened = (title: string, body: (fixture: LockedFixture) => Promise<void>): void => {
      void it(title, async (test) => body(await options.open(test)));
    };
    describePuts(opened);
    describeExtensions(opened);
  });
}

type Opened = (title: string, body: (fixture: LockedFixture) => Promise<void>) => void;

function describePuts(opened: Opened): void {
  opened("deletes nothing before its lock runs out", async ({ store, now, wait }) => {
    const { periodMs } = lockingOf(store);
    await store.put(NAME, Buffer.from("kept"), { mode: "create" });
    await assertLocked(store, NAME, now() + periodMs);
    assert.equal(lockOf((await store.delete([NAME])).get(NAME))?.sizeBytes, 4);
    assert.equal(await text(store, NAME), "kept");
    assert.deepEqual(await listed(store), [NAME]);
    await wait(periodMs + SLACK_MS);
    await assertDeletes(store, [NAME]);
  });

  opened("deletes what may be deleted beside what is locked", async ({ store, now, wait }) => {
    const { periodMs } = lockingOf(store);
    await store.put(NAME, Buffer.from("kept"), { mode: "create" });
    await store.put("stamps/a", Buffer.from("free"), { mode: "create", unlocked: true });
    const untilMs = now() + periodMs;
    const failures = await store.delete(["stamps/a", NAME, "heads/none"]);
    assert.deepEqual([...failures.keys()], [NAME]);
    assert.deepEqual(await listed(store), [NAME]);
    await assertLocked(store, NAME, untilMs);
    await wait(periodMs + SLACK_MS);
    await assertDeletes(store, [NAME]);
  });

  opened("keeps what is put again, and deletes all of it", async ({ store, now, wait }) => {
    const { periodMs } = lockingOf(store);
    await store.put(NAME, Buffer.from("first"), { mode: "create" });
    const firstUntilMs = now() + periodMs;
    await wait(periodMs / 2);
    const askedMs = now();
    await store.put(NAME, Buffer.from("second"), { mode: "replace" });
    const untilMs = now() + periodMs;
    const slackMs = SLACK_MS + now() - askedMs;
    assert.equal(await text(store, NAME), "second");
    assert.deepEqual(await store.stat(NAME), { name: NAME, sizeBytes: 6 });
    assert.deepEqual(await listed(store), [NAME]);
    await assertLocked(store, NAME, untilMs, slackMs);
    // The first one's lock has run out.
    await wait(Math.max(0, firstUntilMs + 300 - now()));
    await assertLocked(store, NAME, untilMs, slackMs);
    await wait(Math.max(0, untilMs + SLACK_MS - now()));
    await assertDeletes(store, [NAME]);
  });

  opened("shows what somebody has put a delete marker over", async (fixture) => {
    const { store, hide, wait } = fixture;
    if (hide === undefined) return;
    await store.put(NAME, Buffer.from("kept"), { mode: "create" });
    await hide(NAME);
    assert.equal(await text(store, NAME), "kept");
    assert.deepEqual(await store.stat(NAME), { name: NAME, sizeBytes: 4 });
    assert.deepEqual(await listed(store), [NAME]);
    const locking = lockingOf(store);
    const { periodMs } = locking;
    const untilMs = fixture.now() + 2 * periodMs;
    assert.deepEqual([...(await locking.extend([NAME], untilMs))], []);
    await assertLocked(store, NAME, untilMs);
    await wait(2 * periodMs + SLACK_MS);
    await assertDeletes(store, [NAME]);
  });
}

function describeExtensions(opened: Opened): void {
  opened("extends locks and never shortens them", async ({ store, now, wait }) => {
    const locking = lockingOf(store);
    const { periodMs } = locking;
    for (const name of [NAME, OTHER]) {
      await store.put(name, Buffer.from("kept"), { mode: "create" });
    }
    const untilMs = now() + 2 * periodMs;
    assert.deepEqual([...(await locking.extend([NAME, OTHER], untilMs))], []);
    // A request that arrives late, and one that arrives twice.
    assert.deepEqual([...(await locking.extend([NAME], untilMs - periodMs / 2))], []);
    assert.deepEqual([...(await locking.extend([NAME], untilMs))], []);
    for (const name of [NAME, OTHER]) await assertLocked(store, name, untilMs);
    await wait(periodMs + SLACK_MS);
    for (const name of [NAME, OTHER]) await assertLocked(store, name, untilMs);
    await wait(periodMs + SLACK_MS);
    await assertDeletes(store, [NAME, OTHER]);
  });

  opened("locks what was not locked, and what was locked once", async ({ store, now, wait }) => {
    const locking = lockingOf(store);
    const { periodMs } = locking;
    await store.put("keys/0123456789abcdef", Buffer.from("key"), {
      mode: "create",
      unlocked: true,
    });
    await store.put(NAME, Buffer.from("kept"), { mode: "create" });
    await wait(periodMs + SLACK_MS);
    const untilMs = now() + periodMs;
    const names = [NAME, "keys/0123456789abcdef"];
    assert.deepEqual([...(await locking.extend(names, untilMs))], []);
    for (const name of names) await assertLocked(store, name, untilMs);
    await wait(periodMs + SLACK_MS);
    await assertDeletes(store, names);
  });

  opened("tells which are not there", async ({ store, now }) => {
    const locking = lockingOf(store);
    const { periodMs } = locking;
    await store.put(NAME, Buffer.from("kept"), { mode: "create" });
    const failures = await locking.extend([OTHER, NAME, "heads/none"], now() + periodMs);
    assert.deepEqual([...failures.keys()].toSorted(), [OTHER, "heads/none"].toSorted());
    for (const error of failures.values()) assert.ok(isErrorCode(error, ErrorCode.NotFound));
    assert.equal((await locking.extend([], now() + periodMs)).size, 0);
  });

  opened("locks its marker", async ({ store, now }) => {
    const locking = lockingOf(store);
    const { periodMs } = locking;
    await locking.extendMarker(now() + periodMs);
    await locking.extendMarker(now() + periodMs);
    await store.check();
  });
}
