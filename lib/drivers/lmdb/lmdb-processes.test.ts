// Several processes on one store, and what is left of it when they die.
import assert from "node:assert/strict";
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import fs from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { FlushRecord } from "#lib/drivers/lmdb/lmdb-flush-record.ts";
import type { Kv } from "#lib/ports/kv.ts";
import {
  ACCOUNT_COUNT,
  accountKey,
  COUNT_KEY,
  decodeNumber,
  encodeNumber,
  OPENING_BALANCE,
  openTestKv,
  roundKey,
} from "#test/fakes/lmdb-child.ts";
import { checkPages } from "#test/fakes/lmdb-pages.ts";

const CHILD = join(import.meta.dirname, "../../../test/fakes/lmdb-child.ts");
const root = fs.mkdtempSync(join(tmpdir(), "ashlar-lmdb-"));
let counter = 0;

const newPath = (): string => join(root, `store-${counter++}`);

after(() => fs.rmSync(root, { recursive: true }));

interface Child {
  readonly process: ChildProcess;
  /** What it has printed so far. */
  lines: string[];
  errors: string;
  readonly ended: Promise<{ code: number | null; signal: string | null }>;
}

function start(command: string[], ...args: string[]): Child {
  const [file = "", ...before] = command;
  const process = spawn(file, [...before, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  const { promise, resolve } = Promise.withResolvers<Awaited<Child["ended"]>>();
  const child: Child = { process, lines: [], errors: "", ended: promise };
  process.stdout.on("data", (data: Buffer) =>
    child.lines.push(...data.toString().trim().split("\n")),
  );
  process.stderr.on("data", (data: Buffer) => (child.errors += data.toString()));
  process.on("close", (code, signal) => resolve({ code, signal }));
  return child;
}

const child = (...args: string[]): Child => start([process.execPath, CHILD], ...args);

async function ends(...children: Child[]): Promise<void> {
  for (const each of children) {
    const { code, signal } = await each.ended;
    assert.deepEqual([code, signal], [0, null], each.errors);
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (let waited = 0; !condition(); waited++) {
    assert.ok(waited < 6000, "it does not happen");
    await sleep(10);
  }
}

async function reading<T>(path: string, body: (kv: Kv) => Promise<T>): Promise<T> {
  const kv = await openTestKv(path);
  try {
    return await body(kv);
  } finally {
    await kv.close();
  }
}

const countIn = (path: string): Promise<number> =>
  reading(path, (kv) => kv.read(async (reader) => decodeNumber(await reader.get(COUNT_KEY))));

const assertSound = (path: string): void =>
  assert.deepEqual(checkPages(fs.readFileSync(join(path, "data.mdb"))).problems, []);

/** What a power failure would leave is all there. Returns the number of the transaction that it goes back to. */
function assertFlushedRootWhole(path: string): number {
  const record = FlushRecord.open(join(path, "flushed"), false);
  const flushed = record.read();
  record.close();
  assert.ok(flushed !== undefined);
  const report = checkPages(fs.readFileSync(join(path, "data.mdb")), flushed.bytes);
  assert.deepEqual(report.problems, []);
  return flushed.txnId;
}

describe("LMDB: several processes", () => {
  it("lose no update", async () => {
    const path = newPath();
    const children = [1, 2, 3].map(() => child(path, "increment", "150"));
    const kv = await openTestKv(path);
    for (let index = 0; index < 50; index++) {
      await kv.transact(async (tx) =>
        tx.set(COUNT_KEY, encodeNumber(decodeNumber(await tx.get(COUNT_KEY)) + 1)),
      );
    }
    await ends(...children);
    const count = await kv.read(async (reader) => decodeNumber(await reader.get(COUNT_KEY)));
    await kv.close();
    assert.equal(count, 500);
    assertSound(path);
  });

  it("see each other's commits at once, and not before", async () => {
    const path = newPath();
    const kv = await openTestKv(path);
    await ends(child(path, "increment", "10"));
    assert.equal(await kv.read(async (reader) => decodeNumber(await reader.get(COUNT_KEY))), 10);
    await kv.close();
  });

  it("keep all that is durable, and every invariant, when they are killed at any moment", async () => {
    const path = newPath();
    await reading(path, (kv) =>
      kv.transact(async (tx) => {
        for (let index = 0; index < ACCOUNT_COUNT; index++) {
          tx.set(accountKey(index), encodeNumber(OPENING_BALANCE));
        }
      }),
    );
    let durableRounds = 0;
    for (let turn = 0; turn < 5; turn++) {
      const names = [0, 1, 2].map((index) => `${turn}-${index}`);
      const children = names.map((name) => child(path, "transfer", name));
      await until(() => children.some(({ lines }) => lines.length > 2));
      for (const each of children) {
        await sleep(Math.random() * 200);
        each.process.kill("SIGKILL");
      }
      for (const each of children) {
        assert.equal((await each.ended).signal, "SIGKILL", each.errors);
      }
      assertSound(path);
      await reading(path, (kv) =>
        kv.read(async (reader) => {
          let sum = 0;
          for (let index = 0; index < ACCOUNT_COUNT; index++) {
            sum += decodeNumber(await reader.get(accountKey(index)));
          }
          assert.equal(sum, ACCOUNT_COUNT * OPENING_BALANCE);
          for (const [index, name] of names.entries()) {
            const durable = Number(children[index]?.lines.at(-1) ?? 0);
            assert.ok(decodeNumber(await reader.get(roundKey(name))) >= durable);
            durableRounds += durable;
          }
        }),
      );
    }
    assert.ok(durableRounds > 0);
  });

  it("never overwrite what was flushed last, whichever of them dies", async () => {
    const path = newPath();
    await (await openTestKv(path)).close();
    const names = [0, 1, 2];
    const children = names.map((name) => child(path, "transfer", `c${name}`));
    const signal = (name: NodeJS.Signals): void => {
      for (const each of children) each.process.kill(name);
    };
    await until(() => children.every(({ lines }) => lines.length > 2));
    let states = new Set<number>();
    for (let look = 0; look < 40; look++) {
      await sleep(10 + Math.random() * 60);
      signal("SIGSTOP");
      await sleep(5);
      states = states.add(assertFlushedRootWhole(path));
      if (look % 10 === 9) {
        const victim = look % children.length;
        children[victim]?.process.kill("SIGKILL");
        children[victim] = child(path, "transfer", `c${victim}-${look}`);
      }
      signal("SIGCONT");
    }
    signal("SIGKILL");
    await Promise.all(children.map(({ ended }) => ended));
    assert.ok(states.size > 10, `${states.size} flushes were seen`);
  });

  it("flush what a dead one has left behind before they write", async () => {
    const path = newPath();
    const dead = child(path, "orphan");
    assert.equal((await dead.ended).signal, "SIGKILL", dead.errors);
    const before = assertFlushedRootWhole(path);
    const kv = await openTestKv(path);
    for (let round = 0; round < 30; round++) {
      await kv.transact(
        async (tx) => {
          for (let each = 0; each < 20; each++)
            tx.set(Buffer.from(`churn/${each}`), Buffer.alloc(3000));
        },
        { durable: false },
      );
      assert.ok(assertFlushedRootWhole(path) > before);
    }
    await kv.close();
  });

  for (const [when, opensBefore] of [
    ["while others go on", true],
    ["before the next one opens the store", false],
  ] as const) {
    it(`do not hold back pages when they are killed ${when}`, async () => {
      const path = newPath();
      const before = opensBefore ? await openTestKv(path) : undefined;
      const victim = child(path, "transfer", "victim");
      await until(() => victim.lines.length > 2);
      victim.process.kill("SIGKILL");
      await victim.ended;
      const kv = before ?? (await openTestKv(path));
      const churn = async (rounds: number): Promise<number> => {
        for (let round = 0; round < rounds; round++) {
          await kv.transact(
            async (tx) => tx.set(Buffer.from(`x-${round % 20}`), Buffer.alloc(3500)),
            { durable: round % 50 === 0 },
          );
        }
        return fs.statSync(join(path, "data.mdb")).size;
      };
      // A process that writes looks for dead ones now and then.
      for (let round = 0; round < 15; round++) {
        await churn(20);
        await sleep(100);
      }
      const size = await churn(400);
      const grown = (await churn(400)) - size;
      await kv.close();
      assert.ok(grown < 2 ** 20, `it grew by ${grown} bytes`);
    });
  }
});

describe("LMDB: opening while others write", () => {
  const reason = straceProblem();

  /** A child that stops for so long at a system call on one of the store's files, while it opens the store. */
  function delayed(path: string, file: string, injection: string): Child {
    const strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-P", join(path, file)];
    const call = injection.slice(0, injection.indexOf(":"));
    const options = ["-e", `trace=${call}`, "-e", `inject=${injection}`];
    return start([...strace, ...options, process.execPath, CHILD], path, "increment", "10");
  }

  it("undoes no commit", { skip: reason }, async () => {
    const path = newPath();
    const kv = await openTestKv(path);
    // It has read the number of the last transaction from the second meta page, and will tell it to all the others.
    const opener = delayed(path, "data.mdb", "pread64:delay_exit=400000:when=2");
    let [commits, opened] = [0, false];
    const ended = opener.ended.finally(() => (opened = true));
    // oxlint-disable-next-line no-unmodified-loop-condition -- set by another task meanwhile
    while (!opened) {
      await kv.transact(
        async (tx) => tx.set(Buffer.from(`mine-${commits}`), encodeNumber(++commits)),
        {
          durable: false,
        },
      );
      await sleep(1);
    }
    assert.equal((await ended).code, 0, opener.errors);
    const entries = await kv.read((reader) =>
      reader.range({ start: Buffer.from("mine"), end: Buffer.from("minf"), limit: 100_000 }),
    );
    assert.equal(entries.length, commits);
    await kv.close();
    assert.equal(await countIn(path), 10);
    assertSound(path);
  });
});

/** Why strace cannot be used here; undefined when it can. */
function straceProblem(): string | undefined {
  try {
    execFileSync("strace", ["-f", "-o", "/dev/null", "-e", "trace=none", "true"], {
      stdio: "ignore",
    });
    return undefined;
  } catch {
    return "strace is not installed or must not trace here";
  }
}
