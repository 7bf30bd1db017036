// Telemetry that a test looks into.
import type { Attributes, Span, Telemetry } from "#lib/ports/telemetry.ts";

/** A span as it was reported. */
export interface RecordedSpan {
  readonly name: string;
  readonly parent: RecordedSpan | undefined;
  readonly attributes: Readonly<Record<string, string | number | boolean>>;
  readonly ended: boolean;
  readonly error: unknown;
}

/** A Telemetry that keeps everything it is told. */
export interface MemoryTelemetry extends Telemetry {
  readonly spans: readonly RecordedSpan[];
  /** The sum of a counter over all measurements that have at least these attributes. */
  counted(name: string, attributes?: Attributes): number;
  /** The last value of a gauge with at least these attributes. */
  gauged(name: string, attributes?: Attributes): number | undefined;
  /** The values of a distribution with at least these attributes, in order. */
  recorded(name: string, attributes?: Attributes): number[];
}

interface Measurement {
  readonly name: string;
  readonly value: number;
  readonly attributes: Attributes;
}

/** Opens an empty {@link MemoryTelemetry}. */
export function openMemoryTelemetry(): MemoryTelemetry {
  return new Recorder();
}

class Recorder implements MemoryTelemetry {
  readonly spans: RecordingSpan[] = [];
  readonly #counts: Measurement[] = [];
  readonly #gauges: Measurement[] = [];
  readonly #values: Measurement[] = [];

  span(name: string, attributes: Attributes = {}, parent?: Span): Span {
    const span = new RecordingSpan(name, parent instanceof RecordingSpan ? parent : undefined);
    span.set(attributes);
    this.spans.push(span);
    return span;
  }

  within<T>(_: Span, work: () => T): T {
    return work();
  }

  headers(): Readonly<Record<string, string>> {
    return {};
  }

  spanFrom(
    _: Readonly<Record<string, string>> | undefined,
    name: string,
    attributes?: Attributes,
  ): Span {
    return this.span(name, attributes);
  }

  count(name: string, delta: number, attributes: Attributes = {}): void {
    this.#counts.push({ name, value: delta, attributes: { ...attributes } });
  }

  gauge(name: string, value: number, attributes: Attributes = {}): void {
    this.#gauges.push({ name, value, attributes: { ...attributes } });
  }

  record(name: string, value: number, attributes: Attributes = {}): void {
    this.#values.push({ name, value, attributes: { ...attributes } });
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  counted(name: string, attributes?: Attributes): number {
    return valuesOf(this.#counts, name, attributes).reduce((sum, value) => sum + value, 0);
  }

  gauged(name: string, attributes?: Attributes): number | undefined {
    return valuesOf(this.#gauges, name, attributes).at(-1);
  }

  recorded(name: string, attributes?: Attributes): number[] {
    return valuesOf(this.#values, name, attributes);
  }
}

function valuesOf(
  all: readonly Measurement[],
  name: string,
  attributes: Attributes = {},
): number[] {
  const wanted = Object.entries(attributes);
  return all
    .filter(
      (one) => one.name === name && wanted.every(([key, value]) => one.attributes[key] === value),
    )
    .map(({ value }) => value);
}

class RecordingSpan implements Span, RecordedSpan {
  readonly name: string;
  readonly parent: RecordedSpan | undefined;
  attributes: Attributes = {};
  ended = false;
  error: unknown;

  constructor(name: string, parent: RecordedSpan | undefined) {
    this.name = name;
    this.parent = parent;
  }

  set(attributes: Attributes): void {
    if (!this.ended) this.attributes = { ...this.attributes, ...attributes };
  }

  end(error?: unknown): void {
    if (this.ended) return;
    this.ended = true;
    this.error = error;
  }
}
