// The bus of a cluster, as the configuration tells how it is reached.
import { readFileSync } from "node:fs";
import type { NatsConnection } from "@nats-io/transport-node";
import type { AshlarError } from "#lib/core/errors.ts";
import { connectError, connectNats, requirePayload } from "#lib/drivers/nats/connect-nats.ts";
import { openNatsBus } from "#lib/drivers/nats/nats-bus.ts";
import { overheadBytes } from "#lib/drivers/nats/nats-message.ts";
import { startNatsService } from "#lib/drivers/nats/nats-service.ts";
import { clusterTopology, inboxName } from "#lib/drivers/nats/nats-topology.ts";
import type { Bus } from "#lib/ports/bus.ts";
import type { RunningService, ServiceEndpoint } from "#lib/ports/service.ts";
import type { Ports } from "#lib/repository/repository.ts";
import type { NatsConfig } from "./cluster-schema.ts";

/** How a process takes part in a cluster. */
export interface ClusterOptions {
  readonly nats: NatsConfig;
  /** This host's name: its inboxes bear it. */
  readonly host: string;
  readonly ports: Ports;
  /** The largest payload that this process sends, in bytes: a block, or as many small ones as travel together. */
  readonly payloadBytes: number;
  /** Whether it makes the streams. */
  readonly managesStreams: boolean;
}

/** Blocks that travel together have a body that grows with their number; this is room for 64 KiB of it. */
const BODY_BYTES_MAX = 64 * 1024;

/** A process' part in a cluster. */
export interface Cluster {
  readonly bus: Bus;
  /** Whether there is a connection now. */
  readonly isConnected: () => boolean;
  /** Resolves when the connection has ended for good though nobody closed it: its credentials are refused now. */
  readonly lost: Promise<AshlarError>;
  /** Offers a service whose subjects lie below this name. */
  serve(
    name: string,
    description: string,
    endpoints: readonly ServiceEndpoint[],
  ): Promise<RunningService>;
}

/** Connects; Unavailable, Refused or Config where the cluster is not as it must be. Closing the bus leaves the cluster. */
export async function joinCluster(options: ClusterOptions): Promise<Cluster> {
  const { nats, host, ports, payloadBytes, managesStreams } = options;
  const { streams, prefix, replicas } = nats;
  const messageBytes = payloadBytes + overheadBytes(BODY_BYTES_MAX);
  const topology = clusterTopology({
    prefix,
    replicas,
    claimBytes: streams.claims,
    // A stream that cannot hold one message would never take any.
    blockBytes: Math.max(streams.blocks, messageBytes * 2),
    requestBytes: streams.requests,
  });
  const connection = await connectNats(nats, {
    name: `ashlar ${host}`,
    inboxPrefix: `${topology.subjectPrefix}.${inboxName(host)}`,
    log: ports.log,
  });
  try {
    requirePayload(connection, messageBytes);
  } catch (error) {
    await connection.close();
    throw error;
  }
  const bus = await openNatsBus({ connection, client: host, topology, managesStreams, ...ports });
  return {
    bus,
    isConnected: followConnection(connection),
    lost: lostConnection(connection),
    serve: (name, description, endpoints) =>
      startNatsService({
        connection,
        log: ports.log,
        name: `${prefix}-${name}`,
        version: packageVersion(),
        description,
        subject: `${topology.subjectPrefix}.${name}`,
        endpoints,
      }),
  };
}

function followConnection(connection: NatsConnection): () => boolean {
  let isConnected = true;
  void (async () => {
    for await (const { type } of connection.status()) {
      if (type === "disconnect") isConnected = false;
      if (type === "reconnect") isConnected = true;
    }
    isConnected = false;
  })();
  return () => isConnected;
}

async function lostConnection(connection: NatsConnection): Promise<AshlarError> {
  const cause = await connection.closed();
  // Whoever closes it waits for nothing more.
  if (cause === undefined) return new Promise(() => undefined);
  return connectError(cause, connection.getServer());
}

function packageVersion(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { readonly version: string }).version;
}
