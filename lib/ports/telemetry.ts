// Telemetry: spans, counters, gauges. Drivers: none, memory (tests); opentelemetry in the cluster.

/** Values attached to spans and measurements. */
export type Attributes = Readonly<Record<string, string | number | boolean>>;

/** A piece of work with a beginning and an end. */
export interface Span {
  set(attributes: Attributes): void;
  /** Ends it, once; further calls do nothing. `error` marks it as failed. */
  end(error?: unknown): void;
}

/** Where actors report what they do. Never throws, never blocks. */
export interface Telemetry {
  span(name: string, attributes?: Attributes, parent?: Span): Span;
  /** Adds to a monotonic counter. */
  count(name: string, delta: number, attributes?: Attributes): void;
  /** Sets a gauge. */
  gauge(name: string, value: number, attributes?: Attributes): void;
  /** Records one value of a distribution, e.g. a latency in ms. */
  record(name: string, value: number, attributes?: Attributes): void;
  flush(): Promise<void>;
}
