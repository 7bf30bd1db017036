// Service: what people and their tools ask of the cluster, as plain JSON. Driver: nats, as its services framework has it
// (https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-32.md), so that `nats req` and `nats micro` work.

/** Something that can be asked. */
export interface ServiceEndpoint {
  /** Its name, which is the last part of its subject as well. */
  readonly name: string;
  readonly description: string;
  /** JSON schema of what is asked. */
  readonly schema: object;
  /** Answers a request; an AshlarError becomes an error of the service, with code and details. */
  readonly handle: (request: string) => Promise<object>;
}

/** A service that is offered. */
export interface RunningService {
  stop(): Promise<void>;
}
