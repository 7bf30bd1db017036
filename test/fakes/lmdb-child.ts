// A process that writes to an LMDB store until it is killed, or so many times.
//
//   node lmdb-child.ts PATH increment COUNT     adds COUNT times 1 to one number, by reading and setting it
//   node lmdb-child.ts PATH transfer NAME       moves sums between accounts and churns keys of its own, for ever;
//                                               prints the number of each round that is durable
//   node lmdb-child.ts PATH orphan              commits much that is not flushed, and kills itself
import { openLmdbKv } from "#lib/drivers/lmdb/lmdb-kv.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import type { Kv, KvTransaction } from "#lib/ports/kv.ts";

/** The number that `increment` works on. */
export const COUNT_KEY = Buffer.from("count");
/** How many accounts `transfer` uses; each begins with {@link OPENING_BALANCE}. */
export const ACCOUNT_COUNT = 40;
/** What an account holds at first. */
export const OPENING_BALANCE = 1000;

/** Key of an account. */
export function accountKey(index: number): Buffer {
  return Buffer.from(`account/${String(index).padStart(4, "0")}`);
}

/** Key of the last round that a child has committed. */
export function roundKey(name: string): Buffer {
  return Buffer.from(`round/${name}`);
}

/** Encodes a small number. */
export function encodeNumber(value: number): Buffer {
  return Buffer.from(String(value));
}

/** Decodes what {@link encodeNumber} made; 0 when absent. */
export function decodeNumber(value: Buffer | undefined): number {
  return Number(value?.toString() ?? "0");
}

/** Opens a store with small reserves. */
export async function openTestKv(path: string): Promise<Kv> {
  const [clock, random] = [systemClock(), systemRandom()];
  return openLmdbKv({ path, reserveBytes: 2 ** 16, clock, random });
}

async function increment(kv: Kv, count: number): Promise<void> {
  const once = (): Promise<void> =>
    kv.transact(
      async (tx) => tx.set(COUNT_KEY, encodeNumber(decodeNumber(await tx.get(COUNT_KEY)) + 1)),
      { durable: false },
    );
  for (let done = 0; done < count; done += 10) await Promise.all(Array.from({ length: 10 }, once));
}

const random = systemRandom();

async function transfer(tx: KvTransaction, name: string, round: number): Promise<void> {
  const [from, to] = [
    accountKey(random.below(ACCOUNT_COUNT)),
    accountKey(random.below(ACCOUNT_COUNT)),
  ];
  if (!from.equals(to)) {
    const [source, target] = await tx.getMany([from, to]);
    const sum = random.below(10);
    tx.set(from, encodeNumber(decodeNumber(source) - sum));
    tx.set(to, encodeNumber(decodeNumber(target) + sum));
  }
  tx.set(roundKey(name), encodeNumber(round));
  // Keys come and go in many places, so that pages are freed and used again.
  for (let churn = 0; churn < 20; churn++) {
    const key = Buffer.from(`churn/${random.below(4000)}`);
    if (random.below(2) === 0) tx.clear(key);
    else tx.set(key, Buffer.alloc(random.below(6000), round));
  }
}

async function orphan(kv: Kv): Promise<never> {
  for (let round = 1; round <= 40; round++) {
    await kv.transact((tx) => transfer(tx, "orphan", round), { durable: round === 10 });
  }
  process.kill(process.pid, "SIGKILL");
  return new Promise(() => {});
}

async function transferForEver(kv: Kv, name: string): Promise<void> {
  for (let round = 1; ; round++) {
    const durable = round % 20 === 0;
    await kv.transact((tx) => transfer(tx, name, round), { durable, label: `round ${round}` });
    if (durable) process.stdout.write(`${round}\n`);
  }
}

if (import.meta.main) {
  const [path = "", action, argument = ""] = process.argv.slice(2);
  const kv = await openTestKv(path);
  if (action === "increment") await increment(kv, Number(argument));
  else if (action === "orphan") await orphan(kv);
  else await transferForEver(kv, argument);
  await kv.close();
}
