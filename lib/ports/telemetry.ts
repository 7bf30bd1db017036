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
  /** @param parent the current span unless given */
  span(name: string, attributes?: Attributes, parent?: Span): Span;
  /** Runs work in which the span is the current one. */
  within<T>(span: Span, work: () => T): T;
  /** By which another process finds the current span (W3C trace context); none where there is no trace. */
  headers(): Readonly<Record<string, string>>;
  /** A span for what another process asked for with such headers. */
  spanFrom(
    headers: Readonly<Record<string, string>> | undefined,
    name: string,
    attributes?: Attributes,
  ): Span;
  /** Adds to a monotonic counter. */
  count(name: string, delta: number, attributes?: Attributes): void;
  /** Sets a gauge. */
  gauge(name: string, value: number, attributes?: Attributes): void;
  /** Records one value of a distribution, e.g. a latency in ms. */
  record(name: string, value: number, attributes?: Attributes): void;
  flush(): Promise<void>;
}
