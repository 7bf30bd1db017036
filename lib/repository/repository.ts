// What the roles that know the metadata share: ports, keys and storages of one repository.
import type { SessionId, StorageId, Token } from "#lib/core/ids.ts";
import { SHORT_ID_BYTES } from "#lib/core/ids.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Compute } from "#lib/ports/compute.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { Log } from "#lib/ports/log.ts";
import type { Random } from "#lib/ports/random.ts";
import type { Telemetry } from "#lib/ports/telemetry.ts";
import type { RepositoryKeys } from "./keys.ts";
import type { RepositoryRecord } from "./records.ts";
import type { Sealer } from "./sealing.ts";
import type { StorageSet } from "./storages.ts";

/** Ports that every role gets. */
export interface Ports {
  readonly clock: Clock;
  readonly random: Random;
  readonly telemetry: Telemetry;
  readonly log: Log;
}

/** An open repository, as dedup, writer and coordinator see it. */
export interface Repository extends Ports {
  readonly kv: Kv;
  readonly config: RepositoryRecord;
  readonly keys: RepositoryKeys;
  /** Seals and opens small objects (heads, stamps) on the main thread. */
  readonly sealer: Sealer;
  readonly compute: Compute;
  readonly storages: StorageSet;
}

/** A new random session id. */
export function newSessionId(random: Random): SessionId {
  return random.bytes(SHORT_ID_BYTES).toString("hex") as SessionId;
}

/** A new random token. */
export function newToken(random: Random): Token {
  return random.bytes(SHORT_ID_BYTES).toString("hex") as Token;
}

/** A new random storage identity. */
export function newStorageId(random: Random): StorageId {
  return random.bytes(SHORT_ID_BYTES).toString("hex") as StorageId;
}
