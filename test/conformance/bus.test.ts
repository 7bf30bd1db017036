import { openInprocBus } from "#lib/drivers/inproc/inproc-bus.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { describeBus } from "./bus.ts";

describeBus("in-process", {
  open: (test, queueBytes) => {
    const bus = openInprocBus({ clock: systemClock(), telemetry: noTelemetry(), queueBytes });
    test.after(() => bus.close());
    return Promise.resolve(bus);
  },
});
