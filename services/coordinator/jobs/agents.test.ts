import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { openInprocBus, type BusFault } from "#lib/drivers/inproc/inproc-bus.ts";
import { virtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import { announceAgent } from "#services/reader/announce.ts";
import { encodeAgent } from "#proto/message-codec.ts";
import { agentSubject } from "#proto/subjects.ts";
import { AgentDirectory } from "./agents.ts";

const WISH = { use: "source", url: "/dev/vg0/vm1", host: undefined } as const;
const nobodyIsBusy = (): number => 0;

function setUp() {
  const clock = virtualClock();
  const state = { isCut: false };
  const fault = (): BusFault => (state.isCut ? "lose" : "none");
  const bus = openInprocBus({ clock, telemetry: noTelemetry(), fault });
  let arrivals = 0;
  const agents = new AgentDirectory(bus, clock, () => (arrivals += 1));
  const announce = (host: string, sources: readonly string[] = ["/dev/vg0/*"]) =>
    announceAgent(bus, clock, { host, sources, targets: [] });
  return { clock, bus, agents, announce, state, arrivals: () => arrivals };
}

describe("the agents that are there", () => {
  it("are those that say so, until they leave", async () => {
    const { clock, agents, announce, arrivals } = setUp();
    assert.deepEqual(agents.find(WISH, nobodyIsBusy), {
      waitsFor: "an agent that may use /dev/vg0/vm1",
    });
    announce("hv0", ["/dev/vg1/*"]);
    const hv1 = announce("hv1");
    announce("hv2");
    await clock.advance(10);
    assert.equal(arrivals(), 3);
    assert.equal(agents.find(WISH, nobodyIsBusy), "hv1");
    assert.equal(
      agents.find(WISH, (host) => (host === "hv1" ? 1 : 0)),
      "hv2",
    );
    // What it may touch it says itself, when it is asked.
    assert.equal(agents.find({ ...WISH, host: "hv0" }, nobodyIsBusy), "hv0");
    const left = hv1.stop();
    await clock.advance(10);
    await left;
    assert.ok(agents.isGone("hv1") && !agents.isGone("hv2"));
    assert.deepEqual(agents.find({ ...WISH, host: "hv1" }, nobodyIsBusy), {
      waitsFor: "the agent of host hv1",
    });
  });

  it("are given no job after fifteen silent seconds, and lose theirs after thirty", async () => {
    const { clock, bus, agents } = setUp();
    const body = encodeAgent({ host: "hv1", sources: ["/dev/**"], targets: [], leaves: false });
    bus.send(agentSubject("hv1"), { body });
    await clock.advance(14_000);
    assert.equal(agents.find(WISH, nobodyIsBusy), "hv1");
    await clock.advance(6000);
    assert.notEqual(agents.find(WISH, nobodyIsBusy), "hv1");
    assert.equal(agents.isGone("hv1"), false);
    await clock.advance(20_000);
    assert.equal(agents.isGone("hv1"), true);
  });

  it("are not gone because this process hears nobody, itself neither", async () => {
    const { clock, agents, announce, state } = setUp();
    announce("hv1");
    await clock.advance(10);
    state.isCut = true;
    await clock.advance(600_000);
    assert.equal(agents.isGone("hv1"), false);
    state.isCut = false;
    await clock.advance(6000);
    assert.equal(agents.isGone("hv1"), false);
    assert.equal(agents.find(WISH, nobodyIsBusy), "hv1");
  });

  it("speak for their own hosts only", async () => {
    const { clock, bus, agents } = setUp();
    const body = encodeAgent({ host: "hv2", sources: ["/dev/**"], targets: [], leaves: false });
    bus.send(agentSubject("hv1"), { body });
    await clock.advance(10);
    assert.notEqual(agents.find(WISH, nobodyIsBusy), "hv2");
    assert.ok(agents.isGone("hv2") && agents.isGone("hv1"));
  });
});
