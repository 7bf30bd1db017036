// Telemetry that goes nowhere.
import type { Span, Telemetry } from "#lib/ports/telemetry.ts";

const NO_HEADERS = {};
const NO_SPAN: Span = { set: () => undefined, end: () => undefined };

/** Opens a Telemetry that keeps nothing. */
export function noTelemetry(): Telemetry {
  return {
    span: () => NO_SPAN,
    within: (_, work) => work(),
    headers: () => NO_HEADERS,
    spanFrom: () => NO_SPAN,
    count: () => undefined,
    gauge: () => undefined,
    record: () => undefined,
    flush: () => Promise.resolve(),
  };
}
