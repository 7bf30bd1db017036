// What the command line asks of a cluster: the same service that any client of NATS can ask.
import { errors, type NatsConnection } from "@nats-io/transport-node";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { connectNats } from "#lib/drivers/nats/connect-nats.ts";
import { inboxName, subjectPrefixOf } from "#lib/drivers/nats/nats-topology.ts";
import type { Log } from "#lib/ports/log.ts";
import { jobEventSubject } from "#proto/subjects.ts";
import type { NatsConfig } from "./cluster-schema.ts";

/** What can be asked about jobs. */
export type JobVerb =
  | "submit"
  | "get"
  | "list"
  | "cancel"
  | "schedule"
  | "schedules"
  | "unschedule";

const ANSWER_MS = 10_000;

/** Connects as a client of the jobs service. */
export async function connectJobs(
  nats: NatsConfig,
  options: { readonly host: string; readonly log: Log },
): Promise<JobClient> {
  const subjectPrefix = subjectPrefixOf(nats.prefix);
  const connection = await connectNats(nats, {
    name: `ashlar command on ${options.host}`,
    inboxPrefix: nats.inboxPrefix ?? `${subjectPrefix}.${inboxName(options.host)}`,
    log: options.log,
  });
  return new JobClient(connection, subjectPrefix);
}

/** A client of the jobs service. */
export class JobClient {
  readonly #connection: NatsConnection;
  readonly #subjectPrefix: string;

  constructor(connection: NatsConnection, subjectPrefix: string) {
    this.#connection = connection;
    this.#subjectPrefix = subjectPrefix;
  }

  /** Asks; Unavailable where no coordinator is there, and the service's own errors as they are. */
  async ask<T>(verb: JobVerb, body: object): Promise<T> {
    const subject = `${this.#subjectPrefix}.jobs.${verb}`;
    try {
      const options = { timeout: ANSWER_MS };
      const answer = await this.#connection.request(subject, JSON.stringify(body), options);
      return readAnswer<T>(answer.json<ServiceAnswer<T>>());
    } catch (error) {
      throw asAskError(error, subject);
    }
  }

  /** Hears what becomes of a job, from now on. */
  watch(job: string, onEvent: (event: JobEvent) => void): { stop(): void } {
    const subject = `${this.#subjectPrefix}.${jobEventSubject(job)}`;
    const subscription = this.#connection.subscribe(subject, {
      callback: (error, message) => {
        if (error === null) onEvent(message.json<JobEvent>());
      },
    });
    return { stop: () => subscription.unsubscribe() };
  }

  close(): Promise<void> {
    return this.#connection.close();
  }
}

/** An event of a job. */
export interface JobEvent {
  readonly state: string;
  readonly progress?: {
    readonly phase: string;
    readonly bytesDone: number;
    readonly bytesTotal?: number;
    readonly bytesNew: number;
    readonly bytesKnown: number;
    readonly bytesSparse: number;
  };
}

interface ErrorAnswer {
  readonly error: {
    readonly code: string;
    readonly message: string;
    readonly remedy?: string;
    readonly details?: Readonly<Record<string, unknown>>;
  };
}

type ServiceAnswer<T> = T | ErrorAnswer;

function readAnswer<T>(answer: ServiceAnswer<T>): T {
  // A failed job has an error as well; the service's own has nothing beside it.
  const isError = Object.keys(answer as object).join() === "error";
  if (isError) throw remoteError((answer as ErrorAnswer).error);
  return answer as T;
}

/** An error that another process has told. */
export function remoteError({ code, message, remedy, details }: ErrorAnswer["error"]): AshlarError {
  const known = Object.values(ErrorCode).find((each) => each === code) ?? ErrorCode.Internal;
  return new AshlarError(known, message, {
    ...(remedy === undefined ? {} : { remedy }),
    ...(details === undefined ? {} : { details }),
  });
}

function asAskError(error: unknown, subject: string): AshlarError {
  if (error instanceof AshlarError) return error;
  const cause = error instanceof Error ? (error.cause ?? error) : error;
  if (cause instanceof errors.PermissionViolationError) {
    return new AshlarError(ErrorCode.Refused, `NATS does not permit asking ${subject}`, {
      cause: error,
      remedy: "use the key of a client: `ashlar nats-user` makes one",
    });
  }
  return new AshlarError(ErrorCode.Unavailable, "no coordinator answers", {
    cause: error,
    remedy: "start one: `ashlar agent --roles coordinator`; and see that nats.prefix is the same",
  });
}
