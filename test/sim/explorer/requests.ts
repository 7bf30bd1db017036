// Every transaction of the protocol as plain data, so that it can be kept, and land again later; and how it is run.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { NO_STATISTICS } from "#lib/repository/records.ts";
import { claim, type NamedCopy } from "#lib/repository/transactions/claim.ts";
import {
  condemnStep,
  lowestHorizon,
  raiseEpoch,
  removeStep,
} from "#lib/repository/transactions/collect.ts";
import { commitNode, holdNode } from "#lib/repository/transactions/commit-node.ts";
import { oweChildren, placeFilled } from "#lib/repository/transactions/fill.ts";
import { recheckStep } from "#lib/repository/transactions/recheck.ts";
import {
  endSession,
  keepAlive,
  markDead,
  resumeSession,
  settleStep,
} from "#lib/repository/transactions/session.ts";
import { storeBlocks } from "#lib/repository/transactions/store.ts";
import { markBad, markVerified } from "#lib/repository/transactions/verify.ts";
import { finishVersion, removeVersion } from "#lib/repository/transactions/version.ts";
import {
  addStorage,
  beginRun,
  clearTrash,
  listTrash,
} from "#lib/repository/transactions/storage.ts";
import { startBackup, storageRecord } from "./first-records.ts";
import { sweepListing } from "./sweep-listing.ts";
import { objectNameOf, nameOfObject } from "./object-names.ts";
import { generationNumber, generationOf, tokenOf, type Copy, type Name } from "./universe.ts";
import type { Universe } from "./universe.ts";

/** A transaction's input. */
export type Request =
  | { readonly type: "start"; readonly session: number }
  | { readonly type: "resume"; readonly session: number; readonly turn: number }
  | { readonly type: "markDead"; readonly session: number; readonly turn: number }
  | { readonly type: "abandon"; readonly session: number }
  | { readonly type: "settle"; readonly session: number }
  | {
      readonly type: "claim";
      readonly session: number;
      readonly turn: number;
      readonly item: number;
      readonly storages: readonly number[];
      readonly quorum: number;
      readonly impatient: boolean;
    }
  | { readonly type: "store"; readonly item: number; done: Copy[]; pending: Copy[] }
  | {
      readonly type: "commit";
      readonly session: number;
      readonly turn: number;
      readonly item: number;
      durable: Copy[];
      readonly storages: readonly number[];
      readonly quorum: number;
    }
  | {
      readonly type: "hold";
      readonly session: number;
      readonly turn: number;
      readonly item: number;
    }
  | { readonly type: "finish"; readonly session: number; readonly turn: number }
  | {
      readonly type: "alive";
      readonly session: number;
      readonly turn: number;
      horizon: number;
    }
  | { readonly type: "removeVersion"; readonly session: number }
  | {
      readonly type: "setStorage";
      readonly storage: number;
      readonly state: "in-use" | "disabled";
    }
  | { readonly type: "condemn" }
  | { readonly type: "raise" }
  | { readonly type: "lowest" }
  | { readonly type: "remove"; horizon: number }
  | { readonly type: "oweChildren"; readonly item: number; readonly storage: number }
  | { readonly type: "placeFilled"; name: Name }
  | { readonly type: "markBad"; name: Name }
  | { readonly type: "markVerified"; name: Name }
  | { readonly type: "recheck" }
  | { readonly type: "beginRun"; readonly storage: number }
  | { readonly type: "clearTrash"; readonly storage: number; run: number; names: Name[] }
  | { readonly type: "sweep"; readonly storage: number; names: Name[] };

/** What a transaction came to. `value` depends on the request's type. */
export type Outcome =
  | { readonly ok: true; readonly value: unknown }
  | { readonly ok: false; readonly code: ErrorCode };

/** Time does not pass: what is safe does not depend on it. */
const NOW_MS = 1;

/** Runs a request on a store. Expected refusals are outcomes; anything else that is thrown is a defect. */
export async function runRequest(
  universe: Universe,
  kv: Kv,
  random: Random,
  request: Request,
): Promise<Outcome> {
  try {
    return { ok: true, value: await dispatch(universe, kv, random, request) };
  } catch (error) {
    if (!(error instanceof AshlarError) || error.code === ErrorCode.Internal) throw error;
    return { ok: false, code: error.code };
  }
}

function dispatch(
  universe: Universe,
  kv: Kv,
  random: Random,
  request: Request,
): Promise<unknown> | undefined {
  return (
    dispatchSession(universe, kv, random, request) ??
    dispatchReader(universe, kv, random, request) ??
    dispatchUpkeep(universe, kv, random, request)
  );
}

function dispatchSession(
  universe: Universe,
  kv: Kv,
  random: Random,
  request: Request,
): Promise<unknown> | undefined {
  switch (request.type) {
    case "start":
      return startBackup(universe, kv, request.session);
    case "resume": {
      const token = tokenOf(request.session, request.turn);
      const owner = { host: "h", lock: "l", token, nowMs: NOW_MS };
      return resumeSession(kv, universe.session(request.session), owner);
    }
    case "markDead": {
      const token = tokenOf(request.session, request.turn);
      return markDead(kv, universe.session(request.session), token, NOW_MS);
    }
    case "abandon":
      return endSession(kv, universe.session(request.session), undefined, NOW_MS);
    case "settle":
      return settleStep(kv, random, universe.session(request.session));
    case "removeVersion":
      return removeVersion(kv, universe.uid(request.session));
    default:
      return undefined;
  }
}

function dispatchReader(
  universe: Universe,
  kv: Kv,
  random: Random,
  request: Request,
): Promise<unknown> | undefined {
  switch (request.type) {
    case "claim":
      return claimItem(universe, kv, random, request);
    case "store": {
      const done = copiesOf(universe, request.done);
      const pending = copiesOf(universe, request.pending);
      const id = universe.id(request.item);
      return storeBlocks(kv, NOW_MS, [{ id, storedBytes: 1, done, pending }]);
    }
    case "commit":
      return commit(universe, kv, request);
    case "hold": {
      const token = tokenOf(request.session, request.turn);
      const session = universe.session(request.session);
      const position = { level: universe.item(request.item).level, index: 0 };
      return holdNode(kv, session, token, position, universe.id(request.item));
    }
    case "finish":
      return finish(universe, kv, random, request.session, request.turn);
    case "alive": {
      const token = tokenOf(request.session, request.turn);
      const session = universe.session(request.session);
      return keepAlive(kv, session, token, NOW_MS, request.horizon);
    }
    default:
      return undefined;
  }
}

function dispatchUpkeep(
  universe: Universe,
  kv: Kv,
  random: Random,
  request: Request,
): Promise<unknown> | undefined {
  switch (request.type) {
    case "setStorage": {
      const { storage, state } = request;
      return addStorage(kv, universe.storage(storage), storageRecord(storage, state));
    }
    case "condemn":
      return condemnStep(kv, undefined);
    case "raise":
      return raiseEpoch(kv);
    case "lowest":
      return lowestHorizon(kv);
    case "remove":
      return removeStep(kv, request.horizon, undefined);
    case "oweChildren":
      return oweChildren(kv, random, universe.id(request.item), universe.storage(request.storage));
    case "placeFilled": {
      const { kind } = universe.item(request.name[1]);
      return placeFilled(kv, NOW_MS, { ...judged(universe, request.name), kind, storedBytes: 1 });
    }
    case "markBad":
      return markBad(kv, random, judged(universe, request.name));
    case "markVerified":
      return markVerified(kv, NOW_MS, judged(universe, request.name));
    case "recheck":
      return recheckStep(kv);
    case "beginRun":
      return beginAndList(universe, kv, request.storage);
    case "clearTrash": {
      const names = request.names.map((name) => objectNameOf(universe, name));
      return clearTrash(kv, universe.storage(request.storage), request.run, names);
    }
    case "sweep":
      return sweepListing(universe, kv, request.storage, request.names);
    default:
      return undefined;
  }
}

function judged(universe: Universe, [storage, item, generation]: Readonly<Name>) {
  return {
    id: universe.id(item),
    storage: universe.storage(storage),
    generation: generationOf(generation),
  };
}

function copiesOf(universe: Universe, copies: readonly Copy[]): NamedCopy[] {
  return copies.map(([storage, generation]) => ({
    storage: universe.storage(storage),
    generation: generationOf(generation),
  }));
}

async function claimItem(
  universe: Universe,
  kv: Kv,
  random: Random,
  request: Extract<Request, { type: "claim" }>,
): Promise<unknown> {
  const { session, turn, item, storages, quorum, impatient } = request;
  const { epoch, answers } = await claim(kv, random, {
    session: universe.session(session),
    token: tokenOf(session, turn),
    kind: universe.item(item).kind,
    ids: [universe.id(item)],
    plainBytes: [1],
    policy: universe.policy(storages, quorum),
    impatient,
  });
  const [answer] = answers;
  if (answer?.kind !== "send") return { epoch, answer };
  const copies = answer.copies.map(({ storage, generation }) => [
    universe.storageOf(storage),
    generationNumber(generation),
  ]);
  return { epoch, answer: { ...answer, copies } };
}

async function commit(
  universe: Universe,
  kv: Kv,
  request: Extract<Request, { type: "commit" }>,
): Promise<unknown> {
  const { session, turn, item, durable, storages, quorum } = request;
  const { children, level } = universe.item(item);
  const result = await commitNode(kv, NOW_MS, {
    session: universe.session(session),
    token: tokenOf(session, turn),
    id: universe.id(item),
    plain: universe.plains[item] as Buffer,
    durable: copiesOf(universe, durable),
    storedBytes: durable.length,
    policy: universe.policy(storages, quorum),
    position: { level, index: 0 },
  });
  if (result.kind === "committed") return result;
  return {
    ...result,
    children: result.children.map((at) => children[at]),
    storages: storageNumbers(universe, result.storages),
  };
}

function storageNumbers(universe: Universe, storages: readonly StorageId[]): number[] {
  return storages.map((storage) => universe.storageOf(storage));
}

async function finish(
  universe: Universe,
  kv: Kv,
  random: Random,
  session: number,
  turn: number,
): Promise<unknown> {
  const result = await finishVersion(kv, random, {
    session: universe.session(session),
    token: tokenOf(session, turn),
    nowMs: NOW_MS,
    root: universe.id(universe.root(session)),
    sizeBytes: 1,
    levels: 1,
    statistics: NO_STATISTICS,
    labels: {},
    warnings: [],
    requireComplete: false,
  });
  if (result.kind === "valid") return { kind: "valid" };
  return { kind: "returned", storages: storageNumbers(universe, result.storages) };
}

/**
 * The beginning of a run with its listing: an entry of an earlier run can be written anew meanwhile, and is not listed then,
 * but none can be added, so listing at once shows all that a later listing may show.
 */
async function beginAndList(universe: Universe, kv: Kv, storage: number): Promise<unknown> {
  const id = universe.storage(storage);
  const run = await beginRun(kv, id, "stamps/s");
  const page = await listTrash(kv, id, run, { prefix: "", from: undefined, limit: 1000 });
  const names = page.names
    .map((name) => nameOfObject(universe, storage, name))
    .filter((name) => name !== undefined);
  return { run, names };
}
