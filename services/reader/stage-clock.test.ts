import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { virtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import { StageClock } from "./stage-clock.ts";

function setUp() {
  const clock = virtualClock();
  const stages = new StageClock({ clock, telemetry: noTelemetry() });
  const hold = (stage: Parameters<StageClock["run"]>[0]) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const ended = stages.run(stage, () => promise);
    return async (): Promise<void> => {
      resolve();
      await ended;
    };
  };
  return { clock, stages, hold };
}

describe("the time of a job", () => {
  it("belongs to the stage that holds most, and adds up", async () => {
    const { clock, stages, hold } = setUp();
    await clock.advance(10);
    const read = hold("read");
    await clock.advance(100);
    const puts = [hold("put"), hold("put")];
    await clock.advance(300);
    for (const end of puts) await end();
    await clock.advance(50);
    await read();
    await clock.advance(5);
    assert.deepEqual(stages.totals(), { plan: 15, read: 150, put: 300 });
  });

  it("is the later stage's where two hold as many", async () => {
    const { clock, stages, hold } = setUp();
    const both = [hold("read"), hold("claim")];
    await clock.advance(40);
    for (const end of both) await end();
    assert.deepEqual(stages.totals(), { claim: 40 });
  });

  it("of puts is divided as the writers tell", async () => {
    const { clock, stages, hold } = setUp();
    const put = hold("put");
    await clock.advance(1000);
    stages.tellPut(100, { queue: 0, seal: 10, store: 5, storages: { near: 5, far: 60 } });
    await put();
    assert.deepEqual(stages.totals(), {
      "writer's queue": 0,
      seal: 100,
      "store transaction": 50,
      "put near": 50,
      "put far": 600,
      send: 200,
    });
  });

  it("is counted also of what fails", async () => {
    const { clock, stages } = setUp();
    const failing = stages.run("claim", async () => {
      await clock.sleep(30);
      throw new Error("no");
    });
    const failed = assert.rejects(failing);
    await clock.advance(30);
    await failed;
    await clock.advance(10);
    assert.deepEqual(stages.totals(), { plan: 10, claim: 30 });
  });
});
