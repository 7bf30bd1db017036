// Dedup: stateless; one transaction per batch of claims or node (DESIGN §2, §4.1, §4.3). It answers readers, which have no
// access to the metadata themselves.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { serve, type Handlers } from "#lib/actor/serve.ts";
import {
  asBlockId,
  asShortId,
  unpackBlockIds,
  type Generation,
  type SessionId,
  type StorageId,
  type Token,
} from "#lib/core/ids.ts";
import type { Bus, Subscription } from "#lib/ports/bus.ts";
import type { Clock } from "#lib/ports/clock.ts";
import type { Kv } from "#lib/ports/kv.ts";
import type { Log } from "#lib/ports/log.ts";
import type { Random } from "#lib/ports/random.ts";
import { key } from "#lib/repository/keyspace.ts";
import { BATCH_MAX, requireSession } from "#lib/repository/ledger.ts";
import type { Policy } from "#lib/repository/records.ts";
import { claim } from "#lib/repository/transactions/claim.ts";
import { commitNode, holdNode } from "#lib/repository/transactions/commit-node.ts";
import { keepAlive } from "#lib/repository/transactions/session.ts";
import type { CopyMessage, PolicyMessage } from "#proto/message-parts.ts";
import { queues } from "#proto/messages.ts";

/** What dedup needs. */
export interface DedupPorts {
  readonly kv: Kv;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Requests handled at once: transactions are short, and their reads overlap. */
const CONCURRENCY = 8;

const policyFrom = (message: PolicyMessage): Policy => ({
  storages: message.storages.map((storage) => asShortId<StorageId>(storage)),
  quorum: message.quorum,
});

const copyFrom = (message: CopyMessage): { storage: StorageId; generation: Generation } => ({
  storage: asShortId<StorageId>(message.storage),
  generation: asShortId<Generation>(message.generation),
});

function sessionFrom(message: { readonly session: string; readonly token: string }): {
  session: SessionId;
  token: Token;
} {
  return {
    session: asShortId<SessionId>(message.session),
    token: asShortId<Token>(message.token),
  };
}

/** Starts a dedup actor; any number of them may run. */
export function startDedup(ports: DedupPorts, bus: Bus): Subscription {
  const { kv, clock, random } = ports;
  const handlers: Handlers = {
    claim: async (request) => {
      const ids = unpackBlockIds(request.ids);
      if (ids.length > BATCH_MAX) {
        throw new AshlarError(ErrorCode.Internal, `a batch of ${ids.length} claims is too large`);
      }
      const body = await claim(kv, random, {
        ...sessionFrom(request),
        kind: request.kind,
        ids,
        plainBytes: request.plainBytes,
        policy: policyFrom(request.policy),
        impatient: request.impatient,
      });
      return { body };
    },
    commit: async (request) => ({
      body: await commitNode(kv, clock.now(), {
        ...sessionFrom(request),
        id: asBlockId(request.id),
        plain: request.plain,
        durable: request.durable.map(copyFrom),
        storedBytes: request.storedBytes,
        policy: policyFrom(request.policy),
        position: { level: request.level, index: request.index },
      }),
    }),
    hold: async (request) => {
      const { session, token } = sessionFrom(request);
      const position = { level: request.level, index: request.index };
      return {
        body: { held: await holdNode(kv, session, token, position, asBlockId(request.id)) },
      };
    },
    nodes: async (request) => {
      const { session, token } = sessionFrom(request);
      const ids = unpackBlockIds(request.ids);
      const plains = await kv.read(async (reader) => {
        await requireSession(reader, session, token);
        return reader.getMany(ids.map((id) => key.node(id)));
      });
      return { body: { plains: plains.map((plain) => plain ?? null) } };
    },
    alive: async (request) => {
      const { session, token } = sessionFrom(request);
      const { horizon, reading } = request;
      await keepAlive(kv, session, token, clock.now(), horizon ?? undefined, reading ?? undefined);
      return { body: {} };
    },
  };
  return serve(bus, queues.dedup, CONCURRENCY, handlers, (error) =>
    ports.log.error("dedup failed", { error }),
  );
}
