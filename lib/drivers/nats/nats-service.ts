// JSON services on NATS: any number of processes offer the same, and each request is answered by one of them.
import { Svcm, type ServiceMsg } from "@nats-io/services";
import type { NatsConnection } from "@nats-io/transport-node";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { Log } from "#lib/ports/log.ts";
import type { RunningService, ServiceEndpoint } from "#lib/ports/service.ts";

/** A service to offer. */
export interface NatsServiceOptions {
  readonly connection: NatsConnection;
  readonly log: Log;
  /** Shown by `nats micro ls`. */
  readonly name: string;
  readonly version: string;
  readonly description: string;
  /** What the subjects begin with: `ashlar.v1.jobs`. */
  readonly subject: string;
  readonly endpoints: readonly ServiceEndpoint[];
}

/** Errors of services have numbers, as HTTP has. */
const STATUS: Partial<Readonly<Record<ErrorCode, number>>> = {
  [ErrorCode.Usage]: 400,
  [ErrorCode.Config]: 400,
  [ErrorCode.Refused]: 403,
  [ErrorCode.NotFound]: 404,
  [ErrorCode.AlreadyExists]: 409,
  [ErrorCode.Unavailable]: 503,
  [ErrorCode.TryAgain]: 503,
};
const STATUS_OTHER = 500;

/** Offers a service. */
export async function startNatsService(options: NatsServiceOptions): Promise<RunningService> {
  const { connection, name, version, description, subject, endpoints } = options;
  const service = await new Svcm(connection).add({ name, version, description });
  const group = service.addGroup(subject);
  for (const endpoint of endpoints) {
    group.addEndpoint(endpoint.name, {
      handler: (error, message) => {
        if (error === null) void answer(endpoint, message, options.log);
      },
      metadata: {
        description: endpoint.description,
        schema: JSON.stringify(endpoint.schema),
      },
    });
  }
  return {
    stop: async () => {
      await service.stop();
    },
  };
}

async function answer(endpoint: ServiceEndpoint, message: ServiceMsg, log: Log): Promise<void> {
  try {
    message.respond(JSON.stringify(await endpoint.handle(message.string())));
  } catch (thrown) {
    if (!(thrown instanceof AshlarError)) log.error(`${endpoint.name} failed`, { error: thrown });
    const error =
      thrown instanceof AshlarError
        ? thrown
        : new AshlarError(ErrorCode.Internal, "a defect of Ashlar; its log tells more");
    const { code, remedy, details } = error;
    const body = {
      error: { code, message: error.message, ...(remedy === undefined ? {} : { remedy }), details },
    };
    // A header has one line.
    const line = error.message.replaceAll(/\s+/g, " ");
    message.respondError(STATUS[code] ?? STATUS_OTHER, line, JSON.stringify(body));
  }
}
