import { setTimeout } from "node:timers/promises";
import { virtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { describeClock } from "./clock.ts";

describeClock("system", () => ({
  clock: systemClock(),
  pass: async (ms) => {
    await setTimeout(ms);
  },
}));

describeClock("virtual", () => {
  const clock = virtualClock();
  return { clock, pass: (ms) => clock.advance(ms) };
});
