// A connection to NATS that comes back by itself.
import { readFile } from "node:fs/promises";
import {
  credsAuthenticator,
  errors,
  nkeyAuthenticator,
  type NatsConnection,
  type NodeConnectionOptions,
} from "@nats-io/transport-node";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { formatSize } from "#lib/core/size.ts";
import type { Log } from "#lib/ports/log.ts";
import { connectFramed } from "./framed-transport.ts";

/** Files of certificates: of the authority, and the client's own. */
export interface NatsTls {
  readonly caFile?: string | undefined;
  readonly certFile?: string | undefined;
  readonly keyFile?: string | undefined;
}

/** How NATS is reached. Files hold the secrets. */
export interface NatsSettings {
  /** `nats://host:port` or `tls://host:port`, of some servers of the cluster. */
  readonly servers: readonly string[];
  /** A .creds file (user JWT and seed). */
  readonly credentialsFile?: string | undefined;
  /** A file with the seed of an nkey. */
  readonly nkeyFile?: string | undefined;
  readonly user?: string | undefined;
  readonly passwordFile?: string | undefined;
  readonly tls?: NatsTls | undefined;
}

/** Options of {@link connectNats}. */
export interface ConnectOptions {
  /** Shown by `nats server report connections`. */
  readonly name: string;
  /** What the client's own inboxes begin with. */
  readonly inboxPrefix: string;
  readonly log: Log;
  /** Wait for the servers instead of failing when none is there at first. */
  readonly waits?: boolean;
}

/** The oldest server that is known to do: 2.9 has the consumer API with the filter in its subject. */
const VERSION_MIN = [2, 9] as const;
/** A dead peer is noticed within three of these, in ms. */
const PING_EVERY_MS = 5000;
const CONNECT_MS = 5000;
const RECONNECT_MS = 250;

/** Connects; Unavailable where no server answers, Refused where none takes the credentials, Config where it is too old. */
export async function connectNats(
  settings: NatsSettings,
  options: ConnectOptions,
): Promise<NatsConnection> {
  const names = settings.servers.join(", ");
  let connection: NatsConnection;
  try {
    connection = await connectFramed({
      servers: [...settings.servers],
      name: options.name,
      inboxPrefix: options.inboxPrefix,
      maxReconnectAttempts: -1,
      reconnectTimeWait: RECONNECT_MS,
      pingInterval: PING_EVERY_MS,
      maxPingOut: 2,
      timeout: CONNECT_MS,
      waitOnFirstConnect: options.waits ?? false,
      ...(await credentialsOf(settings)),
      ...(settings.tls === undefined ? {} : { tls: tlsOf(settings.tls) }),
    });
  } catch (error) {
    throw connectError(error, names);
  }
  try {
    requireVersion(connection);
  } catch (error) {
    await connection.close();
    throw error;
  }
  void tellStatus(connection, options.log);
  return connection;
}

async function credentialsOf(settings: NatsSettings): Promise<NodeConnectionOptions> {
  const { credentialsFile, nkeyFile, user, passwordFile } = settings;
  if (credentialsFile !== undefined) {
    return { authenticator: credsAuthenticator(await readSecret(credentialsFile)) };
  }
  if (nkeyFile !== undefined) {
    const seed = (await readSecret(nkeyFile)).toString("utf8").trim();
    return { authenticator: nkeyAuthenticator(Buffer.from(seed)) };
  }
  if (user === undefined) return {};
  const pass =
    passwordFile === undefined
      ? undefined
      : (await readSecret(passwordFile)).toString("utf8").replace(/\r?\n$/, "");
  return { user, ...(pass === undefined ? {} : { pass }) };
}

async function readSecret(file: string): Promise<Buffer> {
  try {
    return await readFile(file);
  } catch (error) {
    throw fromSystemError(error, `reading the NATS credentials ${file}`);
  }
}

function tlsOf({ caFile, certFile, keyFile }: NatsTls): NonNullable<NodeConnectionOptions["tls"]> {
  return {
    ...(caFile === undefined ? {} : { caFile }),
    ...(certFile === undefined ? {} : { certFile }),
    ...(keyFile === undefined ? {} : { keyFile }),
  };
}

/** Why there is no connection to these servers. */
export function connectError(error: unknown, names: string): AshlarError {
  if (error instanceof AshlarError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  if (
    error instanceof errors.AuthorizationError ||
    error instanceof errors.UserAuthenticationExpiredError
  ) {
    return new AshlarError(
      ErrorCode.Refused,
      `NATS (${names}) refuses the credentials: ${reason}`,
      {
        cause: error,
        remedy: "name the credentials of an enrolled agent or role in the nats section",
      },
    );
  }
  return new AshlarError(ErrorCode.Unavailable, `no NATS server answers at ${names}: ${reason}`, {
    cause: error,
    remedy: "start it, or correct nats.servers in the configuration",
  });
}

function requireVersion(connection: NatsConnection): void {
  const { version = "0.0", headers = false } = connection.info ?? {};
  const [major = 0, minor = 0] = version.split(".").map(Number);
  const [leastMajor, leastMinor] = VERSION_MIN;
  if ((major > leastMajor || (major === leastMajor && minor >= leastMinor)) && headers) return;
  throw new AshlarError(
    ErrorCode.Config,
    headers
      ? `the NATS server ${connection.getServer()} is version ${version}; Ashlar needs ${VERSION_MIN.join(".")} or newer`
      : `the NATS server ${connection.getServer()} has headers turned off`,
    { remedy: headers ? "upgrade it" : "remove no_header_support from its configuration" },
  );
}

/**
 * Refuses a server that does not take messages of so many bytes.
 * @param bytes the largest block with what travels beside it
 */
export function requirePayload(connection: NatsConnection, bytes: number): void {
  const most = connection.info?.max_payload ?? 0;
  if (most >= bytes) return;
  throw new AshlarError(
    ErrorCode.Config,
    `the NATS server takes messages of ${formatSize(most)} at most, and blocks need ${formatSize(bytes)}`,
    { remedy: `set max_payload: ${bytes} in the configuration of every NATS server` },
  );
}

async function tellStatus(connection: NatsConnection, log: Log): Promise<void> {
  for await (const status of connection.status()) {
    switch (status.type) {
      case "disconnect":
        log.warn(`the connection to NATS at ${status.server} is lost; connecting again`);
        break;
      case "reconnect":
        log.info(`connected to NATS at ${status.server} again`);
        break;
      case "error":
        log.error("NATS reports an error", { error: status.error });
        break;
      default:
    }
  }
}
