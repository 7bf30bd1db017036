// Transactions that are done wrongly: each runs the real one and spoils it, or does half of it. For planted bugs only.
import { key, parse, range } from "#lib/repository/keyspace.ts";
import {
  queueTrash,
  queueUnreferenced,
  readBlock,
  readSession,
  saveBlock,
  withCopy,
  withPlaced,
} from "#lib/repository/ledger.ts";
import { encodeRecord } from "#lib/repository/records.ts";
import { placeFilled } from "#lib/repository/transactions/fill.ts";
import { sweepNames } from "#lib/repository/transactions/storage.ts";
import { requireVersion } from "#lib/repository/transactions/version.ts";
import { SHORT_ID_BYTES, type BlockId } from "#lib/core/ids.ts";
import type { RunRequest } from "./machine.ts";
import { objectNameOf, nameOfObject } from "./object-names.ts";
import { runRequest, type Request } from "./requests.ts";
import { generationOf, tokenOf, type Name } from "./universe.ts";

/** Runs requests of one type in another way. */
function spoilt<T extends Request["type"]>(
  type: T,
  how: (
    request: Extract<Request, { type: T }>,
    ...rest: Parameters<RunRequest>
  ) => ReturnType<RunRequest>,
): RunRequest {
  return (universe, kv, random, request) =>
    request.type === type
      ? how(request as Extract<Request, { type: T }>, universe, kv, random, request)
      : runRequest(universe, kv, random, request);
}

/** Settling forgets to queue what lost its session. */
export const settleWithoutQueue = spoilt("settle", async (request, universe, kv, random) => {
  const outcome = await runRequest(universe, kv, random, request);
  await kv.transact(async (tx) => {
    const { start, end } = range.unreferenced();
    tx.clearRange(start, end);
  });
  return outcome;
});

/** A removed version goes on referring to its root. */
export const removeKeepingReference = spoilt(
  "removeVersion",
  async (request, universe, kv, random) => {
    const outcome = await runRequest(universe, kv, random, request);
    await kv.transact(async (tx) => {
      const root = universe.id(universe.root(request.session));
      const uid = universe.uid(request.session);
      tx.set(key.reference(root, { kind: "version", uid }), Buffer.alloc(0));
    });
    return outcome;
  },
);

/** The bad copy goes to trash before there is another one. */
export const trashBadCopyEarly = spoilt("markBad", async (request, universe, kv, random) => {
  const outcome = await runRequest(universe, kv, random, request);
  const [storage] = request.name;
  await kv.transact((tx) =>
    queueTrash(tx, universe.storage(storage), objectNameOf(universe, request.name)),
  );
  return outcome;
});

/** A re-check is taken off the queue, and nobody is told. */
export const recheckWithoutClimbing = spoilt("recheck", async (_request, _universe, kv) => {
  await kv.transact(async (tx) => {
    const [entry] = await tx.range({ ...range.rechecks(), limit: 1 });
    if (entry !== undefined) tx.clear(entry.key);
  });
  return { ok: true, value: true };
});

/** A commit places the node wherever its object is, whatever its children. */
export const commitWithoutChildren = spoilt("commit", async (request, universe, kv, random) => {
  const outcome = await runRequest(universe, kv, random, request);
  await kv.transact(async (tx) => {
    const id = universe.id(request.item);
    const before = await readBlock(tx, id);
    const isCommitted = outcome.ok && (outcome.value as { kind: string }).kind === "committed";
    if (before === undefined || !isCommitted) return;
    let after = before;
    for (const [storage, generation] of request.durable) {
      after = withPlaced(after, universe.storage(storage), generationOf(generation), 1);
    }
    await saveBlock(tx, id, before, after);
  });
  return outcome;
});

/** A version turns valid although its root was returned. */
export const finishAnyway = spoilt("finish", async (request, universe, kv, random) => {
  const outcome = await runRequest(universe, kv, random, request);
  if (!outcome.ok || (outcome.value as { kind: string }).kind === "valid") return outcome;
  const uid = universe.uid(request.session);
  const root = universe.id(universe.root(request.session));
  await kv.transact(async (tx) => {
    const version = await requireVersion(tx, uid);
    tx.set(key.version(uid), encodeRecord({ ...version, state: "valid", root }));
    tx.set(key.reference(root, { kind: "version", uid }), Buffer.alloc(0));
  });
  return { ok: true, value: { kind: "valid" } };
});

/** A version turns valid, and its root is owed to no storage that lacks it. */
export const finishOwingNothing = spoilt("finish", async (request, universe, kv, random) => {
  const outcome = await runRequest(universe, kv, random, request);
  await kv.transact(async (tx) => {
    const root = universe.id(universe.root(request.session));
    const record = await readBlock(tx, root);
    if (record === undefined) return;
    const copies = record.copies.filter(({ state }) => state !== "owed");
    if (copies.length < record.copies.length) {
      await saveBlock(tx, root, record, { ...record, copies });
    }
  });
  return outcome;
});

/** A node is filled as if it were a block: whatever it names. */
export const fillNodeAsBlock = spoilt("placeFilled", async (request, universe, kv) => {
  const [storage, item, generation] = request.name;
  const copy = { id: universe.id(item), kind: "block", storedBytes: 1 } as const;
  const where = { storage: universe.storage(storage), generation: generationOf(generation) };
  return { ok: true, value: await placeFilled(kv, 1, { ...copy, ...where }) };
});

/** A block's generation is always the same one: it is named again when it is brought again. */
export const claimWithOldGeneration = spoilt("claim", async (request, universe, kv, random) => {
  const trash = await kv.read((reader) => reader.range({ ...range.trash(), limit: 100 }));
  const old = trash
    .map((entry) => nameOfObject(universe, 0, parse.trash(entry.key).name))
    .find((name) => name?.[1] === request.item);
  if (old === undefined) return runRequest(universe, kv, random, request);
  const bytes = Buffer.from(generationOf(old[2]), "hex").subarray(0, SHORT_ID_BYTES);
  return runRequest(universe, kv, { ...random, bytes: () => bytes }, request);
});

/** A condemned record that is claimed stays condemned. */
export const claimWithoutRevival = spoilt("claim", async (request, universe, kv, random) => {
  const id = universe.id(request.item);
  const before = await kv.read((reader) => readBlock(reader, id));
  const outcome = await runRequest(universe, kv, random, request);
  await kv.transact(async (tx) => {
    const record = await readBlock(tx, id);
    if (record === undefined || before?.condemnedEpoch === undefined) return;
    await saveBlock(tx, id, record, { ...record, condemnedEpoch: before.condemnedEpoch });
  });
  return outcome;
});

/** A claim does not look whether its session is live under its token. */
export const claimWithoutFence = spoilt("claim", async (request, universe, kv, random) => {
  const session = universe.session(request.session);
  const token = tokenOf(request.session, request.turn);
  const at = key.session(session);
  const record = await kv.read((reader) => readSession(reader, session));
  const value = await kv.read((reader) => reader.get(at));
  await kv.transact(async (tx) => {
    tx.set(at, encodeRecord({ kind: "backup", ...record, state: "live", token }));
  });
  const outcome = await runRequest(universe, kv, random, request);
  await kv.transact(async (tx) => (value === undefined ? tx.clear(at) : tx.set(at, value)));
  return outcome;
});

/** A copy is placed although the record does not name it any more. */
export const storeUnnamed = spoilt("store", async (request, universe, kv, random) => {
  const outcome = await runRequest(universe, kv, random, request);
  const [result] = (outcome.ok ? outcome.value : []) as { named: boolean }[];
  if (result?.named !== false) return outcome;
  await kv.transact(async (tx) => {
    const id = universe.id(request.item);
    const before = await readBlock(tx, id);
    if (before === undefined) return;
    let after = before;
    for (const [storage, generation] of request.done) {
      const name = objectNameOf(universe, [storage, request.item, generation]);
      tx.clear(key.trash(universe.storage(storage), name));
      const copy = { storage: universe.storage(storage), generation: generationOf(generation) };
      after = withCopy(after, { state: "placed", verifiedMs: 1, ...copy });
    }
    await saveBlock(tx, id, before, after);
  });
  return outcome;
});

/** A session that is taken for dead loses its holds. */
export const dieWithoutHolds = spoilt("markDead", async (request, universe, kv, random) => {
  const outcome = await runRequest(universe, kv, random, request);
  await kv.transact(async (tx) => {
    const session = universe.session(request.session);
    for (const entry of await tx.range({ ...range.holds(session), limit: 100 })) {
      const { position } = parse.hold(entry.key);
      const id = entry.value.toString("hex") as BlockId;
      tx.clear(entry.key);
      tx.clear(key.reference(id, { kind: "hold", session, position }));
      queueUnreferenced(tx, id);
    }
  });
  return outcome;
});

/** A sweep writes trash for all that it was given, without a look at the records. */
export const sweepUnseen = spoilt("sweep", async (request, universe, kv) => {
  const objects = request.names.map((name: Name) => ({
    name: objectNameOf(universe, name),
    isNamed: () => Promise.resolve(false),
  }));
  const value = await sweepNames(kv, universe.storage(request.storage), objects);
  return { ok: true, value };
});
