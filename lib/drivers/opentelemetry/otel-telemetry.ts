// Telemetry by OpenTelemetry: one trace for each job across all processes, exported by OTLP; metrics by OTLP and for Prometheus.
import type { IncomingMessage, ServerResponse } from "node:http";
import {
  context,
  defaultTextMapGetter,
  defaultTextMapSetter,
  ROOT_CONTEXT,
  SpanStatusCode,
  trace,
  type Context,
  type Counter,
  type Gauge,
  type Histogram,
  type Meter,
  type Span as OtelSpan,
  type Tracer,
} from "@opentelemetry/api";
import { AsyncLocalStorageContextManager } from "@opentelemetry/context-async-hooks";
import { W3CTraceContextPropagator } from "@opentelemetry/core";
import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-http";
import { PrometheusExporter } from "@opentelemetry/exporter-prometheus";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { resourceFromAttributes } from "@opentelemetry/resources";
import { MeterProvider, PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics";
import {
  BasicTracerProvider,
  BatchSpanProcessor,
  ParentBasedSampler,
  TraceIdRatioBasedSampler,
  type SpanExporter,
} from "@opentelemetry/sdk-trace-base";
import type { Attributes, Span, Telemetry } from "#lib/ports/telemetry.ts";

/** Options of {@link openOtelTelemetry}. */
export interface OtelOptions {
  /** Name of the service, and of this host. */
  readonly service: string;
  readonly host: string;
  /** Base URL of an OTLP receiver over HTTP, as http://127.0.0.1:4318; nothing is exported without. */
  readonly otlp: string | undefined;
  /** Share of the jobs that are traced, 0 to 1: decided where a job begins. */
  readonly sampling: number;
  /** In the place of the one for `otlp`. */
  readonly spanExporter?: SpanExporter;
}

/** Telemetry that a process exports. */
export interface OtelTelemetry extends Telemetry {
  /** Answers a request of Prometheus. */
  metrics(request: IncomingMessage, response: ServerResponse): void;
  /** Exports what is left, and ends. */
  close(): Promise<void>;
}

const SCOPE = "ashlar";
/** What cannot be exported within this is lost, in ms: nobody waits for a collector. */
const CLOSE_MS = 3000;

/** Opens it; once in a process, because what is the current span is the process'. */
export function openOtelTelemetry(options: OtelOptions): OtelTelemetry {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  const resource = resourceFromAttributes({
    "service.name": options.service,
    "host.name": options.host,
  });
  const { otlp } = options;
  const exporter =
    options.spanExporter ??
    (otlp === undefined ? undefined : new OTLPTraceExporter({ url: urlBelow(otlp, "v1/traces") }));
  const tracers = new BasicTracerProvider({
    resource,
    sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(options.sampling) }),
    spanProcessors: exporter === undefined ? [] : [new BatchSpanProcessor(exporter)],
  });
  const prometheus = new PrometheusExporter({ preventServerStart: true });
  const meters = new MeterProvider({
    resource,
    readers: [
      prometheus,
      ...(otlp === undefined
        ? []
        : [
            new PeriodicExportingMetricReader({
              exporter: new OTLPMetricExporter({ url: urlBelow(otlp, "v1/metrics") }),
            }),
          ]),
    ],
  });
  return new OpenTelemetryTelemetry(tracers, meters, prometheus);
}

function urlBelow(base: string, path: string): string {
  return `${base.replace(/\/+$/, "")}/${path}`;
}

class OpenTelemetryTelemetry implements OtelTelemetry {
  readonly #tracers: BasicTracerProvider;
  readonly #meters: MeterProvider;
  readonly #prometheus: PrometheusExporter;
  readonly #tracer: Tracer;
  readonly #meter: Meter;
  readonly #propagator = new W3CTraceContextPropagator();
  readonly #counters = new Map<string, Counter>();
  readonly #gauges = new Map<string, Gauge>();
  readonly #histograms = new Map<string, Histogram>();

  constructor(tracers: BasicTracerProvider, meters: MeterProvider, prometheus: PrometheusExporter) {
    this.#tracers = tracers;
    this.#meters = meters;
    this.#prometheus = prometheus;
    this.#tracer = tracers.getTracer(SCOPE);
    this.#meter = meters.getMeter(SCOPE);
  }

  span(name: string, attributes: Attributes = {}, parent?: Span): Span {
    const active = context.active();
    const within = parent instanceof RunningSpan ? trace.setSpan(active, parent.span) : active;
    return this.#start(name, attributes, within);
  }

  within<T>(span: Span, work: () => T): T {
    if (!(span instanceof RunningSpan)) return work();
    return context.with(trace.setSpan(context.active(), span.span), work);
  }

  headers(): Readonly<Record<string, string>> {
    const carrier: Record<string, string> = {};
    this.#propagator.inject(context.active(), carrier, defaultTextMapSetter);
    return carrier;
  }

  spanFrom(
    headers: Readonly<Record<string, string>> | undefined,
    name: string,
    attributes: Attributes = {},
  ): Span {
    const from = this.#propagator.extract(ROOT_CONTEXT, headers ?? {}, defaultTextMapGetter);
    return this.#start(name, attributes, from);
  }

  #start(name: string, attributes: Attributes, within: Context): Span {
    return new RunningSpan(this.#tracer.startSpan(name, { attributes: { ...attributes } }, within));
  }

  count(name: string, delta: number, attributes: Attributes = {}): void {
    let counter = this.#counters.get(name);
    if (counter === undefined)
      this.#counters.set(name, (counter = this.#meter.createCounter(name)));
    counter.add(delta, attributes);
  }

  gauge(name: string, value: number, attributes: Attributes = {}): void {
    let gauge = this.#gauges.get(name);
    if (gauge === undefined) this.#gauges.set(name, (gauge = this.#meter.createGauge(name)));
    gauge.record(value, attributes);
  }

  record(name: string, value: number, attributes: Attributes = {}): void {
    let histogram = this.#histograms.get(name);
    if (histogram === undefined) {
      histogram = this.#meter.createHistogram(name, { unit: "ms" });
      this.#histograms.set(name, histogram);
    }
    // A negative value is no duration, and the library complains about it for ever.
    if (value >= 0) histogram.record(value, attributes);
  }

  async flush(): Promise<void> {
    await Promise.allSettled([this.#tracers.forceFlush(), this.#meters.forceFlush()]);
  }

  metrics(request: IncomingMessage, response: ServerResponse): void {
    this.#prometheus.getMetricsRequestHandler(request, response);
  }

  async close(): Promise<void> {
    const ended = Promise.allSettled([this.#tracers.shutdown(), this.#meters.shutdown()]);
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, CLOSE_MS);
    await Promise.race([ended, promise]);
    clearTimeout(timer);
  }
}

class RunningSpan implements Span {
  readonly span: OtelSpan;
  #hasEnded = false;

  constructor(span: OtelSpan) {
    this.span = span;
  }

  set(attributes: Attributes): void {
    if (!this.#hasEnded) this.span.setAttributes({ ...attributes });
  }

  end(error?: unknown): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    if (error !== undefined) {
      const message = error instanceof Error ? error.message : "failed";
      this.span.setStatus({ code: SpanStatusCode.ERROR, message });
    }
    this.span.end();
  }
}
