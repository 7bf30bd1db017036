import { openMemoryTelemetry } from "#lib/drivers/memory/memory-telemetry.ts";
import { noTelemetry } from "#lib/drivers/system/no-telemetry.ts";
import { describeTelemetry } from "./telemetry.ts";

describeTelemetry("none", noTelemetry);

describeTelemetry("memory", openMemoryTelemetry);
