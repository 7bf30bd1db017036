// What NATS says, as what it means for whoever asked. Codes: https://github.com/nats-io/nats-server/blob/main/server/errors.json
import { JetStreamApiCodes, JetStreamApiError } from "@nats-io/jetstream";
import { errors } from "@nats-io/transport-node";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";

/** JSStreamStoreFailedF: the stream holds its bound. */
const STORE_FAILED = 10077;
/** JSInsufficientResourcesErr, JSMemoryResourcesExceededErr, JSStorageResourcesExceededErr. */
const RESOURCES_EXCEEDED: ReadonlySet<number> = new Set([10023, 10028, 10047]);
/** JSNotEnabledErr, JSNotEnabledForAccountErr. */
const NOT_ENABLED: ReadonlySet<number> = new Set([10076, 10039]);

/** The stream, or the server, holds as much as it may: there is room again when something was consumed. */
export function isFull(error: unknown): boolean {
  if (!(error instanceof JetStreamApiError)) return false;
  return error.code === STORE_FAILED || RESOURCES_EXCEEDED.has(error.code);
}

/** There is no such stream or consumer. */
export function isMissing(error: unknown): boolean {
  return (
    error instanceof JetStreamApiError &&
    (error.code === JetStreamApiCodes.StreamNotFound ||
      error.code === JetStreamApiCodes.ConsumerNotFound)
  );
}

/** JetStream is off: at the server, or for the account. */
export function isOff(error: unknown): boolean {
  if (error instanceof JetStreamApiError) return NOT_ENABLED.has(error.code);
  // Nobody listens to the API.
  if (error instanceof errors.RequestError) return error.isNoResponders();
  // The client hides both behind an error of its own, which it does not export.
  return error instanceof Error && error.cause !== undefined && isOff(error.cause);
}

/**
 * What no further try mends, as an AshlarError; undefined for what passes: a stream that is being made, a leader that is being
 * elected, a server that is away.
 */
export function lastingError(error: unknown, what: string): AshlarError | undefined {
  if (error instanceof AshlarError) return error;
  if (error instanceof errors.PermissionViolationError) {
    return new AshlarError(
      ErrorCode.Refused,
      `${what}: NATS does not permit ${error.operation === "publish" ? "publishing to" : "subscribing to"} ${error.subject}`,
      {
        cause: error,
        remedy: "use the credentials of this role, or give its user the permissions in infra/nats",
        details: { subject: error.subject },
      },
    );
  }
  if (error instanceof errors.InvalidArgumentError) {
    const isSize = error.message.includes("max_payload");
    return new AshlarError(
      isSize ? ErrorCode.Config : ErrorCode.Internal,
      `${what}: ${isSize ? "the message is larger than the NATS server takes" : error.message}`,
      {
        cause: error,
        ...(isSize ? { remedy: "raise max_payload in the configuration of the NATS server" } : {}),
      },
    );
  }
  if (
    error instanceof errors.ClosedConnectionError ||
    error instanceof errors.DrainingConnectionError
  ) {
    return new AshlarError(ErrorCode.Cancelled, "the bus is closed", { cause: error });
  }
  return undefined;
}
