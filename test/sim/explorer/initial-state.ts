// The first state of an exploration: storages in use, and the versions that are there before it begins.
import { assert } from "#lib/core/assert.ts";
import type { Kv } from "#lib/ports/kv.ts";
import { key } from "#lib/repository/keyspace.ts";
import { writeCounter } from "#lib/repository/ledger.ts";
import { addStorage } from "#lib/repository/transactions/storage.ts";
import { actorSteps } from "./actors.ts";
import type { Configuration } from "./configuration.ts";
import type { Budget, LocalState } from "./local-state.ts";
import type { Machine, State } from "./machine.ts";
import { viewOf } from "./metadata-view.ts";
import { storageRecord } from "./first-records.ts";
import { SnapshotKv } from "./snapshot-kv.ts";

/** Kinds of steps that a backup takes when nothing disturbs it, in the order of preference. */
const UNDISTURBED = ["receive", "put", "claim", "store", "commit", "finish", "settle"];

/** The first state. */
export async function initialState(machine: Machine): Promise<State> {
  const { universe } = machine;
  const { configuration } = universe;
  const kv = new SnapshotKv(machine.pool, machine.pool.snapshot([]));
  for (const [at, storage] of universe.storages.entries()) {
    await addStorage(kv, storage, storageRecord(at, "in-use"));
  }
  await writeFirstEpoch(kv);
  const local: LocalState = {
    turns: configuration.sessions.map(() => 0),
    readers: [],
    jobs: [],
    late: [],
    collector: { phase: "idle", horizon: 0 },
    deletion: undefined,
    lateDeletes: [],
    fills: [],
    judgement: undefined,
    sweep: undefined,
    objects: [],
    lost: [],
    budget: budgetOf({ name: "", storages: 0, items: [], sessions: [] }),
  };
  let state = machine.canonical({ snapshot: kv.snapshot, local });
  for (const [session, { before }] of configuration.sessions.entries()) {
    if (before !== undefined) state = await backUp(machine, state, session, before);
  }
  const begun = JSON.parse(state.text) as LocalState;
  begun.budget = budgetOf(configuration);
  return machine.canonical({ snapshot: state.snapshot, local: begun });
}

/** The epoch is always there, so that compressing epochs never moves the current one. */
function writeFirstEpoch(kv: Kv): Promise<void> {
  return kv.transact(async (tx) => {
    writeCounter(tx, key.epoch, 1);
  });
}

function budgetOf(configuration: Configuration): Budget {
  return {
    passes: configuration.passes ?? 0,
    deletionRuns: configuration.deletionRuns ?? 0,
    lateDeletes: configuration.lateDeletes ?? 0,
    deaths: configuration.deaths ?? 0,
    resumes: configuration.resumes ?? 0,
    removals: configuration.removals ?? 0,
    duplicates: configuration.duplicates ?? 0,
    impatientClaims: configuration.impatientClaims ?? 0,
    fills: configuration.fills ?? 0,
    losses: configuration.losses ?? 0,
    falseAlarms: configuration.falseAlarms ?? 0,
    scrubs: configuration.scrubs ?? 0,
    sweeps: configuration.sweeps ?? 0,
    storageChanges: configuration.storageChanges ?? 0,
  };
}

/** Runs a backup to its end, or until it has brought its first item and is abandoned. */
async function backUp(
  machine: Machine,
  first: State,
  session: number,
  end: "finished" | "abandoned",
): Promise<State> {
  let state = first;
  const { universe } = machine;
  for (let started = false; ; started = true) {
    const local = JSON.parse(state.text) as LocalState;
    if (end === "abandoned" && local.readers[0]?.items[0]?.phase === "ready") break;
    const steps = actorSteps({ universe, view: viewOf(state.snapshot), local });
    const step = started
      ? UNDISTURBED.map((kind) => steps.find((one) => one.kind === kind)).find(
          (one) => one !== undefined,
        )
      : steps.find(({ request }) => request?.type === "start" && request.session === session);
    if (step === undefined) {
      assert(local.readers.length === 0, "a backup that nothing disturbs comes to its end");
      return state;
    }
    state = machine.canonical(await machine.take(state, step));
  }
  return abandon(machine, state, session);
}

async function abandon(machine: Machine, first: State, session: number): Promise<State> {
  let { snapshot } = first;
  const settle = { type: "settle", session } as const;
  const requests = [
    { type: "markDead", session, turn: 1 },
    { type: "abandon", session },
    settle,
    settle,
  ] as const;
  for (const request of requests) snapshot = (await machine.run(snapshot, request)).snapshot;
  const local = JSON.parse(first.text) as LocalState;
  return machine.canonical({ snapshot, local: { ...local, readers: [] } });
}
