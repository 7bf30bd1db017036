// A small run of the production actors in which every kind of message is sent. Time, keys and randomness are fixed, so that the
// messages are the same each time.
import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import type { Requester } from "#lib/actor/requester.ts";
import { traceBus } from "#lib/actor/traced-bus.ts";
import { isErrorCode, ErrorCode } from "#lib/core/errors.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { virtualClock, type VirtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import type { JobId } from "#lib/core/ids.ts";
import { queues, type Requests, type RequestType } from "#proto/messages.ts";
import { runBackup } from "#services/coordinator/backup-job.ts";
import { JobRunner } from "#services/coordinator/jobs/job-runner.ts";
import { consumeJobs, jobEndpoints } from "#services/coordinator/jobs/job-service.ts";
import { announceAgent, claimHost } from "#services/reader/announce.ts";
import { BLOCK_BYTES as B, openOneProcess, type OneProcess } from "#test/fixtures/one-process.ts";
import { KEYS } from "#test/golden/content.ts";
import { Recording } from "./recording-bus.ts";

const TRACE = { traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" };
const AGENT = { host: "here", sources: ["/**"], targets: ["/**"] };

/** Turns of the event loop after which nothing happens any more unless time passes. */
const TURNS = 20;

/** What the scenario works with. */
interface Stage {
  readonly process: OneProcess;
  readonly clock: VirtualClock;
  readonly recording: Recording;
  /** Asks an endpoint of the jobs service. */
  readonly ask: (endpoint: string, body: object) => Promise<Record<string, unknown>>;
  /** Publishes a job and waits for its end. */
  readonly job: (job: object) => Promise<Record<string, unknown>>;
}

/** Runs it; what was sent. */
export async function recordScenario(): Promise<Recording> {
  const clock = virtualClock();
  const recording = new Recording();
  const telemetry = { ...noTelemetry(), headers: () => TRACE };
  const process = await openOneProcess({
    clock,
    keys: KEYS,
    slotBytes: 4 * B,
    wrapBus: (bus) => traceBus(recording.over(bus), telemetry),
  });
  const run = async (): Promise<void> => {
    const { context, bus, repo } = process;
    const claimed = await claimHost(bus, repo, AGENT.host);
    const announced = announceAgent(bus, clock, AGENT);
    const runner = new JobRunner(context, {
      atOnce: 4,
      perHost: 4,
      perStorage: 4,
      storages: context.settings.storages,
      historyMs: 1e9,
    });
    const published = consumeJobs(context);
    const ask = asker(process, runner, recording);
    await play({ process, clock, recording, ask, job: jobs(process, clock, ask) });
    await runner.stop();
    await published.stop();
    await announced.stop();
    await claimed.stop();
    await process.close();
  };
  await pump(clock, run());
  return recording;
}

/** Lets time pass whenever nothing else happens. */
async function pump(clock: VirtualClock, work: Promise<void>): Promise<void> {
  const state = { isOver: false };
  const over = work.finally(() => (state.isOver = true));
  over.catch(() => undefined);
  while (!state.isOver) {
    for (let turn = 0; turn < TURNS; turn += 1) await setImmediate();
    if (!state.isOver) await clock.advanceToNext();
  }
  await over;
}

function asker({ context }: OneProcess, runner: JobRunner, recording: Recording): Stage["ask"] {
  const endpoints = jobEndpoints(context, runner.agents);
  return async (name, body) => {
    const text = JSON.stringify(body);
    recording.service(`asked ${name}`, name, text);
    const endpoint = endpoints.find((each) => each.name === name);
    assert.ok(endpoint !== undefined, name);
    const answer = (await endpoint.handle(text)) as Record<string, unknown>;
    recording.service(`answered ${name}`, name, JSON.stringify(answer));
    return answer;
  };
}

function jobs({ bus }: OneProcess, clock: VirtualClock, ask: Stage["ask"]): Stage["job"] {
  return async (job) => {
    const key = `${JSON.stringify(job)} at ${clock.now()}`;
    await bus.publish(queues.jobs, { body: Buffer.from(JSON.stringify({ ...job, key })) });
    const { job: id } = await ask("submit", { ...job, key });
    for (;;) {
      const document = await ask("get", { job: id });
      if (!["queued", "running"].includes(String(document["state"]))) return document;
      await clock.sleep(250);
    }
  };
}

async function play(stage: Stage): Promise<void> {
  await backups(stage);
  await restores(stage);
  await upkeep(stage);
  await slowStorages(stage);
  await stops(stage);
  await mistakes(stage);
  await schedules(stage);
}

const result = (document: Record<string, unknown>): Record<string, unknown> => {
  assert.equal(document["state"], "done", JSON.stringify(document));
  return document["result"] as Record<string, unknown>;
};

async function backups({ process, job, clock }: Stage): Promise<void> {
  const data = seededRandom(7).bytes(9 * B);
  process.device("/disk", Buffer.concat([data, Buffer.alloc(3 * B), data.subarray(0, 100)]));
  const whole = { kind: "backup", volume: "vm1", source: "/disk" };
  const { uid } = result(await job({ ...whole, submitter: "alice", labels: { site: "a" } }));
  // Nothing of it is new.
  await job({ ...whole, volume: "vm2", storages: ["s0", "s1"], quorum: 2, requireComplete: true });
  process.device("/hints", Buffer.from(JSON.stringify([{ offset: 0, length: B, exists: "true" }])));
  const incremental = { base: uid, hints: "/hints", snapshot: "second", uid: "vm1-second" };
  process.devices.get("/disk")!.data.fill(1, 0, B);
  const cut = { strictHints: true, blockSize: B, host: "here", compression: "lz4" };
  result(await job({ ...whole, ...incremental, ...cut }));
  // Of two levels: the second time a whole leaf is known.
  process.device("/large", seededRandom(11).bytes(258 * B));
  for (const volume of ["large", "again"]) {
    result(await job({ kind: "backup", volume, source: "/large", snapshot: "frozen" }));
  }
  // Slow enough for signs of life, and for others that want the same blocks.
  const slow = seededRandom(8).bytes(6 * B);
  for (const name of ["/slow1", "/slow2"]) {
    process.device(name, slow).onRead = () => clock.sleep(name === "/slow1" ? 9000 : 9500);
  }
  delayPuts(process, () => clock.sleep(3000));
  await Promise.all(
    ["/slow1", "/slow2"].map((source) => job({ kind: "backup", volume: source.slice(1), source })),
  );
  delayPuts(process, () => undefined);
}

function delayPuts({ stores }: OneProcess, delay: (name: string, store: number) => unknown): void {
  for (const [index, store] of stores.entries()) {
    store.faults = {
      before: async ({ kind, name }) => {
        if (kind === "put" && name.startsWith("blocks/")) await delay(name, index);
        return "none" as const;
      },
    };
  }
}

async function restores({ process, job }: Stage): Promise<void> {
  const whole = { kind: "restore", version: "vm1-second", target: "/t1", host: "here" };
  result(await job(whole));
  result(
    await job({ ...whole, force: true, differential: true, storage: "s1", offset: 0, length: B }),
  );
  // It is there.
  assert.equal((await job(whole))["state"], "failed");
  for (const { objects } of process.stores) {
    const [name = ""] = [...objects.keys()].filter((each) => each.startsWith("blocks/")).sort();
    objects.delete(name);
    const other = [...objects.keys()].filter((each) => each.startsWith("blocks/")).sort()[1];
    objects.delete(other ?? "");
  }
  await job({ ...whole, version: "vm2@latest", target: "/t2", sparse: true, keepGoing: true });
}

async function upkeep({ job, ask }: Stage): Promise<void> {
  await job({ kind: "remove", versions: ["vm1-second"] });
  await job({ kind: "enforce", rules: "latest1", filter: 'volume == "vm1"' });
  await job({ kind: "gc", sweep: true, abandon: true });
  await job({
    kind: "scrub",
    deep: true,
    samplePercent: 50,
    budgetTime: "1h",
    budgetBytes: "1GiB",
  });
  await job({ kind: "replicate", storages: ["s0"] });
  await job({ kind: "fsck", repair: false, storages: true });
  await ask("list", { open: true });
  await ask("list", { limit: 3 });
}

/** A commit is sent back, and waits for puts that are late; a finish asks for the root once more. */
async function slowStorages({ process, clock }: Stage): Promise<void> {
  const { context } = process;
  process.device("/turns", seededRandom(9).bytes(16 * B));
  const slow: string[] = [];
  delayPuts(process, (name, store) => {
    const block = name.split(".")[0]!;
    if (slow[store] === undefined && !slow.includes(block)) slow[store] = block;
    return slow[store] === block ? clock.sleep(1500) : undefined;
  });
  const asked = Promise.withResolvers<Requests["backup"]["request"]>();
  const request: Requester["request"] = (queue, type, body, options) => {
    if (type === "backup") asked.resolve(body as Requests["backup"]["request"]);
    return context.requester.request(queue, type, body, options);
  };
  const requester = Object.assign(Object.create(context.requester) as Requester, { request });
  const backup = runBackup({ ...context, requester }, { source: "/turns", volume: "turns" });
  const { session, token, policy } = await asked.promise;
  await context.requester.request(queues.reader("here"), "ensureRoot", { session, token, policy });
  await backup;
  delayPuts(process, () => undefined);
}

async function stops({ process, ask, clock }: Stage): Promise<void> {
  process.device("/endless", seededRandom(10).bytes(20 * B)).onRead = () => clock.sleep(5000);
  const { job } = await ask("submit", { kind: "backup", volume: "endless", source: "/endless" });
  await clock.sleep(9000);
  await ask("cancel", { job });
  while ((await ask("get", { job }))["state"] !== "cancelled") await clock.sleep(500);
}

async function mistakes({ process, ask, recording }: Stage): Promise<void> {
  const { context, repo, bus } = process;
  const failing = async (queue: string, type: string, body: object): Promise<void> => {
    await assert.rejects(
      context.requester.request(queue, type as RequestType, body as never),
      (error) => error instanceof Error,
    );
  };
  await failing(queues.dedup, "alive", {
    session: "0000000000000001",
    token: "0000000000000002",
    horizon: null,
    reading: null,
  });
  // A second agent of this host.
  await assert.rejects(claimHost(bus, repo, AGENT.host), (error) =>
    isErrorCode(error, ErrorCode.Refused),
  );
  const error = { code: ErrorCode.NotFound, message: "there is no job", details: { job: "" } };
  await assert.rejects(ask("get", { job: "00000000000000000000" as JobId }));
  recording.service("answered error", "get", JSON.stringify({ error }));
}

async function schedules({ ask }: Stage): Promise<void> {
  const job = { kind: "gc", sweep: true };
  await ask("schedule", { name: "weekly", cron: "0 6 * * 0", timezone: "UTC", job });
  await ask("schedules", {});
  await ask("unschedule", { name: "weekly" });
}
