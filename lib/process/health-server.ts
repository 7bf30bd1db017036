// Whether a process lives and is ready, for those who watch over it: /healthz and /readyz, as Kubernetes has them.
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";

/** What is told. */
export interface Health {
  /** It can do its work now; what keeps it from that stands in the facts. */
  readonly ready: boolean;
  readonly facts: Readonly<Record<string, unknown>>;
  /** Answers /metrics, as Prometheus has them. */
  readonly metrics?: (request: IncomingMessage, response: ServerResponse) => void;
}

/** Serves both at `HOST:PORT`. */
export async function serveHealth(
  listen: string,
  health: () => Health,
): Promise<{ readonly port: number; stop(): Promise<void> }> {
  const server = createServer((request, response) => {
    const { ready, facts, metrics } = health();
    if (request.url === "/metrics" && metrics !== undefined) {
      metrics(request, response);
      return;
    }
    const known = request.url === "/healthz" || request.url === "/readyz";
    const isGood = known && (ready || request.url === "/healthz");
    const status = known ? (isGood ? 200 : 503) : 404;
    response.writeHead(status, { "content-type": "application/json" });
    response.end(`${JSON.stringify(known ? { ready, ...facts } : { error: "not found" })}\n`);
  });
  const at = listen.lastIndexOf(":");
  const port = Number(listen.slice(at + 1));
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, listen.slice(0, at).replace(/^\[(.*)\]$/, "$1"), resolve);
    });
  } catch (error) {
    const failure = fromSystemError(error, `listening at ${listen}`);
    throw new AshlarError(ErrorCode.Config, failure.message, {
      cause: error,
      remedy: "choose another agent.health in the configuration",
    });
  }
  // Nobody's question keeps a process alive.
  server.unref();
  const address = server.address();
  return {
    port: typeof address === "object" && address !== null ? address.port : port,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
