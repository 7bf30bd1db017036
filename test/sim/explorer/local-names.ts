// Walks over the generations, epochs and runs in what actors know, in a fixed order, and replaces each.
import type { LocalState, PutJob } from "./local-state.ts";
import type { Copy, Name } from "./universe.ts";

/** The new name for an old one. */
export type Rename = (old: number) => number;

/** Replaces the generations of everything but the objects. */
export function renameGenerations(local: LocalState, rename: Rename): void {
  const copies = (list: Copy[]): void => {
    for (const copy of list) copy[1] = rename(copy[1]);
  };
  const name = (one: Name): void => {
    one[2] = rename(one[2]);
  };
  const job = ({ puts }: PutJob): void => {
    for (const put of puts) put.generation = rename(put.generation);
  };
  for (const reader of local.readers) {
    for (const item of reader.items) {
      if (item.answer?.kind === "send") copies(item.answer.copies);
      if (item.job !== undefined) job(item.job);
    }
  }
  local.jobs.forEach(job);
  for (const request of local.late) {
    if (request.type === "store") {
      copies(request.done);
      copies(request.pending);
    }
    if (request.type === "commit") copies(request.durable);
    if ("name" in request) name(request.name);
    if ("names" in request) request.names.forEach(name);
  }
  for (const fill of local.fills) name(fill.name);
  if (local.judgement !== undefined) name(local.judgement.name);
  local.deletion?.names.forEach(name);
  local.lateDeletes.forEach(name);
  local.sweep?.names.forEach(name);
}

/** Replaces the epochs. 0 means that there is none. */
export function renameEpochs(local: LocalState, rename: Rename): void {
  const of = (epoch: number): number => (epoch === 0 ? 0 : rename(epoch));
  for (const reader of local.readers) {
    reader.latest = of(reader.latest);
    reader.announced = of(reader.announced);
    for (const item of reader.items) {
      item.held = of(item.held);
      item.working = of(item.working);
      item.asking = of(item.asking);
      item.epoch = of(item.epoch);
    }
  }
  local.collector.horizon = of(local.collector.horizon);
  for (const request of local.late) {
    if (request.type === "alive" || request.type === "remove")
      request.horizon = of(request.horizon);
  }
}

/** Replaces the runs. */
export function renameRuns(local: LocalState, rename: Rename): void {
  if (local.deletion !== undefined) local.deletion.run = rename(local.deletion.run);
  for (const request of local.late) {
    if (request.type === "clearTrash") request.run = rename(request.run);
  }
}
