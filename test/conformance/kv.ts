// The Kv port's contract as tests; every driver runs them.
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, it } from "node:test";
import type { Kv, KvEntry, KvReader, KvTransaction } from "#lib/ports/kv.ts";

/** How a driver takes part. */
export interface KvSuite {
  /** Opens an empty store. */
  open(): Promise<Kv>;
}

const ALL = { start: Buffer.alloc(0), end: Buffer.alloc(1, 0xff), limit: 10_000 };

const bytes = (text: string): Buffer => Buffer.from(text, "latin1");
const texts = (entries: readonly KvEntry[]): string[] =>
  entries.map(({ key, value }) => `${key.toString("latin1")}=${value.toString("latin1")}`);

/** Reads what is committed, as text. */
const committed = (kv: Kv): Promise<string[]> =>
  kv.read(async (reader) => texts(await reader.range(ALL)));

const put = (kv: Kv, ...pairs: string[]): Promise<void> =>
  kv.transact(
    async (tx) => {
      for (const pair of pairs) {
        const [key = "", value = ""] = pair.split("=");
        tx.set(bytes(key), bytes(value));
      }
    },
    { durable: false },
  );

/** Lets everything else that is ready run. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** A place where several bodies wait until a test lets them on. */
function gate(): { open: () => void; passed: Promise<void> } {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { open: resolve, passed: promise };
}

/** Runs the suite on a driver. */
export function describeKv(name: string, suite: KvSuite): void {
  describe(`Kv: ${name}`, () => {
    let kv: Kv;
    before(async () => {
      kv = await suite.open();
    });
    after(() => kv.close());
    beforeEach(() =>
      kv.transact(async (tx) => tx.clearRange(ALL.start, ALL.end), { durable: false }),
    );

    describe("reads and writes", () => readsAndWrites(() => kv));
    describe("ranges", () => ranges(() => kv));
    describe("own writes", () => ownWrites(() => kv));
    describe("isolation", () => isolation(() => kv));
    describe("conflicts", () => conflicts(() => kv));
    describe("counters", () => counters(() => kv));
    describe("ends", () => ends(() => kv));
  });
}

function readsAndWrites(kv: () => Kv): void {
  it("returns what was set, and undefined for what was not", async () => {
    await put(kv(), "a=1", "b=");
    const found = await kv().read(async (reader) => [
      await reader.get(bytes("a")),
      await reader.get(bytes("b")),
      await reader.get(bytes("c")),
    ]);
    assert.deepEqual(found, [bytes("1"), Buffer.alloc(0), undefined]);
    assert.ok(Buffer.isBuffer(found[0]));
  });

  it("returns many values in the order of their keys", async () => {
    await put(kv(), "a=1", "b=2", "c=3");
    const keys = ["c", "x", "a", "c"].map(bytes);
    const read = (reader: KvReader): Promise<(Buffer | undefined)[]> => reader.getMany(keys);
    const expected = [bytes("3"), undefined, bytes("1"), bytes("3")];
    assert.deepEqual(await kv().read(read), expected);
    assert.deepEqual(await kv().transact(read), expected);
    assert.deepEqual(await kv().read((reader) => reader.getMany([])), []);
  });

  it("replaces and removes", async () => {
    await put(kv(), "a=1", "b=2");
    await kv().transact(async (tx) => {
      tx.set(bytes("a"), bytes("3"));
      tx.clear(bytes("b"));
      tx.clear(bytes("absent"));
    });
    assert.deepEqual(await committed(kv()), ["a=3"]);
  });

  it("takes binary keys and values of any bytes", async () => {
    const key = Buffer.from([0, 255, 0, 128, 10, 0]);
    const value = Buffer.from(Array.from({ length: 256 }, (_, index) => index));
    await kv().transact(async (tx) => tx.set(key, value));
    assert.deepEqual(await kv().read((reader) => reader.get(key)), value);
    assert.deepEqual(await kv().read((reader) => reader.range(ALL)), [{ key, value }]);
  });

  it("takes keys of 1 KiB and values of 90 kB, and no longer ones", async () => {
    const key = Buffer.alloc(1024, 7);
    const value = Buffer.alloc(90_000, 9);
    await kv().transact(async (tx) => tx.set(key, value));
    assert.deepEqual(await kv().read((reader) => reader.get(key)), value);
    const [entry] = await kv().read((reader) => reader.range(ALL));
    assert.deepEqual(entry, { key, value });
    const refused = [
      (tx: KvTransaction) => tx.set(Buffer.alloc(1025), value),
      (tx: KvTransaction) => tx.set(Buffer.alloc(0), value),
      (tx: KvTransaction) => tx.set(key, Buffer.alloc(90_001)),
    ];
    for (const action of refused) {
      await assert.rejects(
        kv().transact(async (tx) => action(tx)),
        { name: "InvariantError" },
      );
    }
  });

  it("owns what it keeps, and gives away what it returns", async () => {
    const [key, value] = [bytes("key"), bytes("value")];
    await kv().transact(async (tx) => {
      tx.set(key, value);
      key.fill(0);
      value.fill(0);
      const own = await tx.get(bytes("key"));
      own?.fill(0);
    });
    assert.deepEqual(await committed(kv()), ["key=value"]);
    await kv().read(async (reader) => {
      for (const entry of await reader.range(ALL)) entry.value.fill(0);
      for (const entry of await reader.getMany([bytes("key")])) entry?.fill(0);
    });
    assert.deepEqual(await committed(kv()), ["key=value"]);
  });

  it("commits large batches", async () => {
    const count = 20_000;
    const keyOf = (index: number): Buffer => bytes(`key-${String(index).padStart(6, "0")}`);
    await kv().transact(async (tx) => {
      for (let index = 0; index < count; index++) tx.set(keyOf(index), Buffer.alloc(80, index));
    });
    const entries = await kv().read((reader) => reader.range({ ...ALL, limit: count + 1 }));
    assert.equal(entries.length, count);
    assert.ok(
      entries.every(({ key, value }, at) => key.equals(keyOf(at)) && value[0] === at % 256),
    );
    await kv().transact(async (tx) => tx.clearRange(keyOf(10), keyOf(count - 10)));
    assert.equal((await committed(kv())).length, 20);
  });
}

function ranges(kv: () => Kv): void {
  it("orders keys by their unsigned bytes", async () => {
    const keys = [[0], [0, 0], [0, 1], [1], [127], [128], [128, 0], [254, 255], [255]].map((key) =>
      Buffer.from(key),
    );
    await kv().transact(async (tx) => {
      for (const key of keys.toReversed()) tx.set(key, key);
    });
    const end = Buffer.from([255, 255]);
    const found = await kv().read((reader) => reader.range({ ...ALL, end }));
    assert.deepEqual(
      found.map(({ key }) => key),
      keys,
    );
  });

  it("takes the start in and leaves the end out, in both directions", async () => {
    await put(kv(), "a=1", "b=2", "c=3", "d=4");
    const read = (start: string, end: string, reverse: boolean, limit = 10): Promise<string[]> =>
      kv().read(async (reader) =>
        texts(await reader.range({ start: bytes(start), end: bytes(end), limit, reverse })),
      );
    assert.deepEqual(await read("b", "d", false), ["b=2", "c=3"]);
    assert.deepEqual(await read("b", "d", true), ["c=3", "b=2"]);
    assert.deepEqual(await read("aa", "cc", false), ["b=2", "c=3"]);
    assert.deepEqual(await read("aa", "cc", true), ["c=3", "b=2"]);
    assert.deepEqual(await read("", "z", true), ["d=4", "c=3", "b=2", "a=1"]);
    assert.deepEqual(await read("", "a", true), []);
    assert.deepEqual(await read("e", "z", true), []);
    assert.deepEqual(await read("", "z", false, 2), ["a=1", "b=2"]);
    assert.deepEqual(await read("", "z", true, 2), ["d=4", "c=3"]);
  });

  it("finds nothing between equal or crossed bounds", async () => {
    await put(kv(), "a=1", "b=2");
    for (const [start, end] of [
      ["a", "a"],
      ["b", "a"],
      ["a", ""],
    ]) {
      for (const reverse of [false, true]) {
        const range = { start: bytes(start!), end: bytes(end!), limit: 10, reverse };
        assert.deepEqual(await kv().read((reader) => reader.range(range)), []);
        assert.deepEqual(await kv().transact((tx) => tx.range(range)), []);
      }
    }
  });

  it("insists on a limit", async () => {
    for (const limit of [0, -1, 1.5, Number.POSITIVE_INFINITY]) {
      await assert.rejects(
        kv().read((reader) => reader.range({ ...ALL, limit })),
        { name: "InvariantError" },
      );
    }
  });
}

function ownWrites(kv: () => Kv): void {
  it("shows them in point reads", async () => {
    await put(kv(), "a=1", "b=2");
    await kv().transact(async (tx) => {
      tx.set(bytes("a"), bytes("9"));
      tx.clear(bytes("b"));
      tx.set(bytes("c"), bytes("3"));
      assert.deepEqual(await tx.getMany(["a", "b", "c"].map(bytes)), [
        bytes("9"),
        undefined,
        bytes("3"),
      ]);
    });
  });

  it("shows them in ranges, in both directions and within limits", async () => {
    await put(kv(), "a=1", "b=2", "c=3", "d=4", "e=5");
    await kv().transact(async (tx) => {
      tx.clear(bytes("b"));
      tx.clear(bytes("c"));
      tx.set(bytes("cc"), bytes("x"));
      tx.set(bytes("e"), bytes("y"));
      tx.set(bytes("f"), bytes("z"));
      const read = async (limit: number, reverse: boolean): Promise<string[]> =>
        texts(await tx.range({ start: bytes("a"), end: bytes("g"), limit, reverse }));
      const all = ["a=1", "cc=x", "d=4", "e=y", "f=z"];
      for (let limit = 1; limit <= 6; limit++) {
        assert.deepEqual(await read(limit, false), all.slice(0, limit));
        assert.deepEqual(await read(limit, true), all.toReversed().slice(0, limit));
      }
    });
    assert.deepEqual(await committed(kv()), ["a=1", "cc=x", "d=4", "e=y", "f=z"]);
  });

  it("clears ranges, and what was written before but not after", async () => {
    await put(kv(), "a=1", "b=2", "c=3", "d=4", "e=5");
    const expected = ["a=1", "bb=7", "e=5"];
    await kv().transact(async (tx) => {
      tx.set(bytes("cc"), bytes("6"));
      tx.clearRange(bytes("b"), bytes("cz"));
      tx.clearRange(bytes("c"), bytes("e"));
      tx.clearRange(bytes("x"), bytes("b"));
      tx.set(bytes("bb"), bytes("7"));
      assert.equal(await tx.get(bytes("c")), undefined);
      assert.equal(await tx.get(bytes("cc")), undefined);
      assert.deepEqual(texts(await tx.range(ALL)), expected);
      assert.deepEqual(texts(await tx.range({ ...ALL, reverse: true })), expected.toReversed());
      assert.deepEqual(texts(await tx.range({ ...ALL, limit: 2 })), expected.slice(0, 2));
    });
    assert.deepEqual(await committed(kv()), expected);
  });

  it("leaves them out of snapshot reads", async () => {
    await put(kv(), "a=1");
    await kv().transact(async (tx) => {
      tx.set(bytes("a"), bytes("2"));
      tx.set(bytes("b"), bytes("3"));
      assert.deepEqual(await tx.snapshot.get(bytes("a")), bytes("1"));
      assert.deepEqual(texts(await tx.snapshot.range(ALL)), ["a=1"]);
    });
  });
}

function isolation(kv: () => Kv): void {
  it("reads one point in time, whatever is committed meanwhile", async () => {
    await put(kv(), "a=1", "b=1");
    const read = async (reader: KvReader): Promise<string[]> => {
      const first = texts(await reader.range(ALL));
      await put(kv(), "a=2", "c=2");
      await kv().transact(async (tx) => tx.clear(bytes("b")));
      assert.deepEqual(texts(await reader.range(ALL)), first);
      assert.deepEqual(await reader.get(bytes("a")), bytes("1"));
      return first;
    };
    assert.deepEqual(await kv().read(read), ["a=1", "b=1"]);
    assert.deepEqual(await committed(kv()), ["a=2", "c=2"]);
  });

  it("begins at the newest commit", async () => {
    for (let round = 0; round < 50; round++) {
      await put(kv(), `a=${round}`);
      assert.deepEqual(await kv().read((reader) => reader.get(bytes("a"))), bytes(String(round)));
    }
  });

  it("commits a body that only read, at its point in time, without running it again", async () => {
    await put(kv(), "a=1");
    let runs = 0;
    const seen = await kv().transact(async (tx) => {
      runs++;
      const value = await tx.get(bytes("a"));
      await put(kv(), "a=2");
      return value;
    });
    assert.deepEqual([seen, runs], [bytes("1"), 1]);
  });

  it("shows nothing of a transaction before its commit", async () => {
    const [written, looked] = [gate(), gate()];
    const running = kv().transact(async (tx) => {
      tx.set(bytes("a"), bytes("1"));
      written.open();
      await looked.passed;
    });
    await written.passed;
    assert.deepEqual(await committed(kv()), []);
    looked.open();
    await running;
    assert.deepEqual(await committed(kv()), ["a=1"]);
  });
}

/** Runs `body`, with `meanwhile` committed between its reads and its end on its first run. Returns the runs. */
async function interrupted(
  kv: Kv,
  body: (tx: KvTransaction) => Promise<void>,
  meanwhile: () => Promise<void>,
): Promise<number> {
  let runs = 0;
  await kv.transact(async (tx) => {
    await body(tx);
    if (++runs === 1) await meanwhile();
  });
  return runs;
}

function conflicts(kv: () => Kv): void {
  const write = (tx: KvTransaction): void => tx.set(bytes("written"), bytes("1"));
  const readKey = async (tx: KvTransaction): Promise<void> => {
    await tx.get(bytes("m"));
    write(tx);
  };
  const readRange = async (tx: KvTransaction): Promise<void> => {
    await tx.range({ start: bytes("k"), end: bytes("p"), limit: 100 });
    write(tx);
  };

  it("runs the body again when a key that it read has changed, come or gone", async () => {
    await put(kv(), "m=1");
    assert.equal(await interrupted(kv(), readKey, () => put(kv(), "m=2")), 2);
    const clear = (): Promise<void> => kv().transact(async (tx) => tx.clear(bytes("m")));
    assert.equal(await interrupted(kv(), readKey, clear), 2);
    assert.equal(await interrupted(kv(), readKey, () => put(kv(), "m=3")), 2);
  });

  it("does not when others have changed", async () => {
    await put(kv(), "m=1");
    assert.equal(await interrupted(kv(), readKey, () => put(kv(), "n=2")), 1);
    assert.equal(await interrupted(kv(), readRange, () => put(kv(), "j=2", "p=2", "q=2")), 1);
  });

  it("finds phantoms in ranges, empty ones too", async () => {
    assert.equal(await interrupted(kv(), readRange, () => put(kv(), "m=1")), 2);
    assert.equal(await interrupted(kv(), readRange, () => put(kv(), "o=1")), 2);
    const clear = (): Promise<void> => kv().transact(async (tx) => tx.clear(bytes("m")));
    assert.equal(await interrupted(kv(), readRange, clear), 2);
  });

  it("checks a limited range as far as it was read", async () => {
    await put(kv(), "k=1", "l=1", "m=1", "n=1");
    const readTwo =
      (reverse: boolean) =>
      async (tx: KvTransaction): Promise<void> => {
        await tx.range({ start: bytes("k"), end: bytes("p"), limit: 2, reverse });
        write(tx);
      };
    assert.equal(await interrupted(kv(), readTwo(false), () => put(kv(), "kk=1")), 2);
    assert.equal(await interrupted(kv(), readTwo(false), () => put(kv(), "n=2")), 1);
    assert.equal(await interrupted(kv(), readTwo(true), () => put(kv(), "nn=1")), 2);
    assert.equal(await interrupted(kv(), readTwo(true), () => put(kv(), "k=2")), 1);
  });

  it("checks what own writes did not hide", async () => {
    await put(kv(), "k=1", "m=1");
    const body = async (tx: KvTransaction): Promise<void> => {
      tx.clear(bytes("k"));
      await tx.range({ start: bytes("k"), end: bytes("p"), limit: 1 });
    };
    assert.equal(await interrupted(kv(), body, () => put(kv(), "l=1")), 2);
  });

  it("does not check snapshot reads, nor own writes that were read back", async () => {
    await put(kv(), "m=1");
    const snapshot = async (tx: KvTransaction): Promise<void> => {
      await tx.snapshot.get(bytes("m"));
      await tx.snapshot.range(ALL);
      write(tx);
    };
    assert.equal(await interrupted(kv(), snapshot, () => put(kv(), "m=2")), 1);
    const own = async (tx: KvTransaction): Promise<void> => {
      tx.set(bytes("m"), bytes("own"));
      await tx.get(bytes("m"));
    };
    assert.equal(await interrupted(kv(), own, () => put(kv(), "m=3")), 1);
    assert.deepEqual(await kv().read((reader) => reader.get(bytes("m"))), bytes("own"));
  });

  it("prevents write skew", async () => {
    await put(kv(), "x=1", "y=1");
    const both = [gate(), gate()];
    const takeOne = async (mine: string, index: number): Promise<void> => {
      let first = true;
      await kv().transact(async (tx) => {
        const [x, y] = await tx.getMany([bytes("x"), bytes("y")]);
        if (first) {
          first = false;
          both[index]!.open();
          await Promise.all(both.map(({ passed }) => passed));
        }
        // Each may go to 0 only while the other is 1.
        if (x?.toString() === "1" && y?.toString() === "1") tx.set(bytes(mine), bytes("0"));
      });
    };
    await Promise.all([takeOne("x", 0), takeOne("y", 1)]);
    const sum = (await committed(kv())).filter((entry) => entry.endsWith("=1"));
    assert.equal(sum.length, 1);
  });

  it("loses no update of many at once", async () => {
    const increments = Array.from({ length: 60 }, () =>
      kv().transact(
        async (tx) => {
          const value = Number((await tx.get(bytes("count")))?.toString() ?? "0");
          tx.set(bytes("count"), bytes(String(value + 1)));
        },
        { durable: false },
      ),
    );
    await Promise.all(increments);
    assert.deepEqual(await committed(kv()), ["count=60"]);
  });

  it("lets a long body through that keeps losing", async () => {
    let stop = false;
    const busy = async (): Promise<void> => {
      // oxlint-disable-next-line no-unmodified-loop-condition -- set by another task meanwhile
      for (let round = 0; !stop; round++) {
        await put(kv(), `hot=${round}`);
        await turn();
      }
    };
    const others = [busy(), busy()];
    await kv().transact(async (tx) => {
      await tx.get(bytes("hot"));
      for (let pause = 0; pause < 5; pause++) await turn();
      tx.set(bytes("slow"), bytes("done"));
    });
    stop = true;
    await Promise.all(others);
    assert.deepEqual(await kv().read((reader) => reader.get(bytes("slow"))), bytes("done"));
  });
}

function counters(kv: () => Kv): void {
  const key = bytes("counter");
  const value = async (): Promise<bigint | undefined> =>
    (await kv().read((reader) => reader.get(key)))?.readBigInt64LE(0);

  it("adds to signed 64-bit little-endian numbers", async () => {
    await kv().transact(async (tx) => tx.add(key, 258n));
    assert.deepEqual(
      await kv().read((reader) => reader.get(key)),
      Buffer.from([2, 1, 0, 0, 0, 0, 0, 0]),
    );
    await kv().transact(async (tx) => tx.add(key, -259n));
    assert.equal(await value(), -1n);
    await kv().transact(async (tx) => tx.add(key, 1n));
    assert.deepEqual(await kv().read((reader) => reader.get(key)), Buffer.alloc(8));
  });

  it("never conflicts", async () => {
    const runs = await interrupted(
      kv(),
      async (tx) => tx.add(key, 1n),
      () => kv().transact(async (tx) => tx.add(key, 10n)),
    );
    assert.deepEqual([runs, await value()], [1, 11n]);
    await Promise.all(
      Array.from({ length: 50 }, () =>
        kv().transact(async (tx) => tx.add(key, 1n), { durable: false }),
      ),
    );
    assert.equal(await value(), 61n);
  });

  it("mixes with other writes of the transaction", async () => {
    await kv().transact(async (tx) => tx.add(key, 5n));
    await kv().transact(async (tx) => {
      tx.add(key, 1n);
      tx.add(key, 1n);
      assert.equal((await tx.get(key))?.readBigInt64LE(0), 7n);
      const [entry] = await tx.range(ALL);
      assert.equal(entry?.value.readBigInt64LE(0), 7n);
    });
    assert.equal(await value(), 7n);
    await kv().transact(async (tx) => {
      tx.clear(key);
      tx.add(key, 3n);
    });
    assert.equal(await value(), 3n);
    await kv().transact(async (tx) => {
      tx.clearRange(ALL.start, ALL.end);
      tx.add(key, 4n);
      assert.equal((await tx.get(key))?.readBigInt64LE(0), 4n);
    });
    assert.equal(await value(), 4n);
  });
}

function ends(kv: () => Kv): void {
  it("aborts when the body throws, and passes the error through", async () => {
    const error = new Error("enough");
    let runs = 0;
    const failing = kv().transact(async (tx) => {
      runs++;
      tx.set(bytes("a"), bytes("1"));
      throw error;
    });
    await assert.rejects(failing, (thrown) => thrown === error);
    assert.deepEqual([runs, await committed(kv())], [1, []]);
    await assert.rejects(
      kv().read(async () => {
        throw error;
      }),
      (thrown) => thrown === error,
    );
  });

  it("returns what the body returned on its last run", async () => {
    await put(kv(), "a=1");
    let runs = 0;
    const result = await kv().transact(async (tx) => {
      const value = await tx.get(bytes("a"));
      tx.set(bytes("b"), bytes("x"));
      if (++runs === 1) await put(kv(), "a=2");
      return value?.toString();
    });
    assert.equal(result, "2");
  });

  it("refuses a transaction that is used after its body", async () => {
    let leaked: KvTransaction | undefined;
    await kv().transact(async (tx) => {
      leaked = tx;
    });
    assert.throws(() => leaked?.set(bytes("a"), bytes("1")), { name: "InvariantError" });
    await assert.rejects(leaked!.get(bytes("a")), { name: "InvariantError" });
    await assert.rejects(leaked!.snapshot.get(bytes("a")), { name: "InvariantError" });
  });

  it("flushes", async () => {
    await put(kv(), "a=1");
    await kv().flush();
    assert.deepEqual(await committed(kv()), ["a=1"]);
  });
}
