// Renewing (DESIGN §5): a copy gets another object, such as one that is wrapped under the repository's active key. The old one counts
// until the new one is durable and takes its place, in one transaction; so the copy is never less than placed. The name of the new
// one stands in a record of its own before it is put, `renewal/<storage>/<id>`, which names it for sweeps.
import { assert } from "#lib/core/assert.ts";
import {
  shortIdFrom,
  SHORT_ID_BYTES,
  type BlockId,
  type Generation,
  type StorageId,
} from "#lib/core/ids.ts";
import type { Kv, KvReader, KvTransaction } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import type { BlockRecord, Copy } from "../block-record.ts";
import { key, keyAfter, objectName, parse, range } from "../keyspace.ts";
import {
  BATCH_MAX,
  newGeneration,
  queueTrash,
  readBlock,
  readPolicyStorages,
  saveBlock,
} from "../ledger.ts";
import type { JudgedCopy } from "./verify.ts";

/** An object that is to take another's place. */
interface Renewal {
  readonly from: Generation;
  readonly to: Generation;
}

function encodeRenewal({ from, to }: Renewal): Buffer {
  return Buffer.from(`${from}${to}`, "hex");
}

function decodeRenewal(value: Buffer): Renewal {
  assert(value.length === SHORT_ID_BYTES * 2, "a renewal names two generations");
  return {
    from: shortIdFrom<Generation>(value),
    to: shortIdFrom<Generation>(value, SHORT_ID_BYTES),
  };
}

/** Whether a renewal names the object there. */
export async function isRenewal(
  reader: KvReader,
  storage: StorageId,
  id: BlockId,
  generation: Generation,
): Promise<boolean> {
  const value = await reader.get(key.renewal(storage, id));
  return value !== undefined && decodeRenewal(value).to === generation;
}

function placedCopy(
  record: BlockRecord | undefined,
  { storage, generation }: JudgedCopy,
): Copy | undefined {
  return record?.copies.find(
    (copy) => copy.state === "placed" && copy.storage === storage && copy.generation === generation,
  );
}

/**
 * Names the object that is to take the place of a copy's, before it is put. An earlier try for the same copy is gone on with, under
 * its name. Undefined where the copy is not placed any more, nobody needs it, or its storage takes nothing.
 */
export function beginRenewal(
  kv: Kv,
  random: Random,
  copy: JudgedCopy,
): Promise<Generation | undefined> {
  const { id, storage, generation } = copy;
  return kv.transact(
    async (tx) => {
      const record = await readBlock(tx, id);
      if (placedCopy(record, copy) === undefined) return undefined;
      if (record?.condemnedEpoch !== undefined) return undefined;
      const { taking } = await readPolicyStorages(tx, { storages: [storage], quorum: 1 });
      if (taking.length === 0) return undefined;
      const before = await tx.get(key.renewal(storage, id));
      const earlier = before === undefined ? undefined : decodeRenewal(before);
      if (earlier?.from === generation) return earlier.to;
      if (earlier !== undefined) await dropOne(tx, storage, id, record as BlockRecord, earlier);
      const to = newGeneration(random);
      tx.set(key.renewal(storage, id), encodeRenewal({ from: generation, to }));
      return to;
    },
    { label: "renew" },
  );
}

/** A copy whose new object is durable. */
export interface RenewedCopy extends JudgedCopy {
  readonly kind: "block" | "node";
  /** Of the new object. */
  readonly to: Generation;
  readonly storedBytes: number;
}

/**
 * Puts the new object in the old one's place; the old one goes to trash. Where the copy is another one by now the new one does. Lands
 * twice without harm. Whether the new one counts.
 */
export function finishRenewal(kv: Kv, nowMs: number, renewed: RenewedCopy): Promise<boolean> {
  const { id, kind, storage, to, storedBytes } = renewed;
  return kv.transact(
    async (tx) => {
      const record = await readBlock(tx, id);
      // Done before; it may have been found bad since, and what a record names is nobody's to trash.
      const done = record?.copies.find(
        (copy) => copy.storage === storage && copy.generation === to,
      );
      if (done !== undefined) return done.state === "placed";
      const old = placedCopy(record, renewed);
      const at = key.renewal(storage, id);
      const value = await tx.get(at);
      // Under another name than the one that was recorded nothing may count.
      const isNamed = value !== undefined && decodeRenewal(value).to === to;
      if (isNamed) tx.clear(at);
      if (!isNamed || old === undefined || record === undefined) {
        await queueTrash(tx, storage, objectName(kind, id, to));
        return false;
      }
      const copies = record.copies.map((copy): Copy =>
        copy === old && copy.state === "placed"
          ? { ...copy, generation: to, verifiedMs: nowMs }
          : copy,
      );
      await saveBlock(tx, id, record, { ...record, copies, storedBytes });
      return true;
    },
    { durable: false, label: "renewed" },
  );
}

/** What the record names by now is nobody's to trash: a rebuild may have taken it in. */
async function dropOne(
  tx: KvTransaction,
  storage: StorageId,
  id: BlockId,
  { kind, copies = [] }: Pick<BlockRecord, "kind"> & Partial<Pick<BlockRecord, "copies">>,
  { to }: Renewal,
): Promise<void> {
  tx.clear(key.renewal(storage, id));
  if (copies.some((copy) => copy.storage === storage && copy.generation === to)) return;
  await queueTrash(tx, storage, objectName(kind, id, to));
}

/** Drops some renewals of copies that are not there any more, whoever began them; where to go on, or undefined. */
export function dropRenewals(kv: Kv, from: Buffer | undefined): Promise<Buffer | undefined> {
  const { start, end } = range.renewals();
  const limit = BATCH_MAX / 4;
  return kv.transact(
    async (tx) => {
      const entries = await tx.range({ start: from ?? start, end, limit });
      for (const entry of entries) {
        const { storage, id } = parse.renewal(entry.key);
        const renewal = decodeRenewal(entry.value);
        const record = await readBlock(tx, id);
        const copy = { id, storage, generation: renewal.from };
        if (placedCopy(record, copy) !== undefined) continue;
        if (record !== undefined) await dropOne(tx, storage, id, record, renewal);
        // Of what kind it was nobody knows any more.
        else for (const kind of KINDS) await dropOne(tx, storage, id, { kind }, renewal);
      }
      const last = entries.at(-1);
      return last === undefined || entries.length < limit ? undefined : keyAfter(last.key);
    },
    { durable: false, label: "free:renewals" },
  );
}

const KINDS = ["block", "node"] as const;
