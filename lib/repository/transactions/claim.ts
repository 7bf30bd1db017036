// Claim (DESIGN §4.1): who has these blocks or nodes, and who brings those that nobody has?
import { assert } from "#lib/core/assert.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { BlockId, Generation, SessionId, StorageId, Token } from "#lib/core/ids.ts";
import type { Kv, KvTransaction } from "#lib/ports/kv.ts";
import type { Random } from "#lib/ports/random.ts";
import type { BlockRecord, Copy } from "../block-record.ts";
import { key } from "../keyspace.ts";
import {
  BATCH_MAX,
  newGeneration,
  queueUnreferenced,
  readBlocks,
  readEpoch,
  readPolicyStorages,
  readSession,
  rely,
  requireSession,
  revive,
  saveBlock,
  saveNewBlock,
  withCopy,
  type PolicyStorages,
} from "../ledger.ts";
import { encodeRecord, type ClaimRecord, type Policy } from "../records.ts";

/** A batch of claims. */
export interface ClaimRequest {
  readonly session: SessionId;
  readonly token: Token;
  readonly kind: "block" | "node";
  /** Distinct; at most {@link BATCH_MAX}. */
  readonly ids: readonly BlockId[];
  /** Plaintext bytes of each. */
  readonly plainBytes: readonly number[];
  readonly policy: Policy;
  /** Other sessions that were to bring these blocks are too slow: do not wait for them any longer. */
  readonly impatient: boolean;
}

/** A copy that the claimer is to bring. */
export interface NamedCopy {
  readonly storage: StorageId;
  readonly generation: Generation;
}

/** What a claim answers for one id. */
export type ClaimAnswer =
  | { readonly kind: "known" }
  /** Another live session is bringing it: ask again. */
  | { readonly kind: "wait" }
  /** Bring these copies; `need` of them make the quorum with what is placed. */
  | { readonly kind: "send"; readonly copies: readonly NamedCopy[]; readonly need: number };

/** What a batch of claims answers. `epoch`: the one that the answers belong to. */
export interface ClaimResult {
  readonly epoch: number;
  readonly answers: readonly ClaimAnswer[];
}

interface Context {
  readonly tx: KvTransaction;
  readonly request: ClaimRequest;
  readonly random: Random;
  readonly storages: PolicyStorages;
  readonly live: Map<SessionId, boolean>;
}

const CLAIM_VALUES = {
  block: encodeRecord({ kind: "block" } satisfies ClaimRecord),
  node: encodeRecord({ kind: "node" } satisfies ClaimRecord),
};

/** Claims a batch; see {@link ClaimAnswer}. Fenced when the session is not live under this token. */
export function claim(kv: Kv, random: Random, request: ClaimRequest): Promise<ClaimResult> {
  assert(request.ids.length <= BATCH_MAX, "a batch of claims is bounded");
  assert(new Set(request.ids).size === request.ids.length, "the ids of a batch are distinct");
  return kv.transact(
    async (tx) => {
      await requireSession(tx, request.session, request.token);
      const epoch = await readEpoch(tx.snapshot);
      const storages = await readPolicyStorages(tx, request.policy);
      const records = await readBlocks(tx, request.ids);
      const context: Context = { tx, request, random, storages, live: new Map() };
      const answers: ClaimAnswer[] = [];
      for (const [index, id] of request.ids.entries()) {
        const record = records[index];
        const quick =
          record === undefined ? bringNew(context, index, id) : quickAnswer(context, record);
        answers.push(quick ?? (await decide(context, index, id, record)));
      }
      return { epoch, answers };
    },
    { durable: false, label: "claim" },
  );
}

/** The second common case, without an await: nobody knows it, and all storages of the policy get it. */
function bringNew(context: Context, index: number, id: BlockId): ClaimAnswer | undefined {
  const { tx, request, storages, random } = context;
  const need = storages.quorum;
  // What this comes to, `decide` tells.
  if (storages.taking.length < need) return undefined;
  const { session, kind } = request;
  const generation = newGeneration(random);
  const copies = storages.taking.map((storage) => ({ storage, generation }));
  saveNewBlock(tx, id, {
    kind,
    plainBytes: request.plainBytes[index] as number,
    storedBytes: 0,
    condemnedEpoch: undefined,
    damaged: false,
    copies: copies.map((copy) => ({ ...copy, state: "coming", session })),
  });
  tx.set(key.claim(session, id), CLAIM_VALUES[kind]);
  return { kind: "send", copies, need };
}

/** The most common case, without an await: known, and nothing to write. */
function quickAnswer(context: Context, record: BlockRecord): ClaimAnswer | undefined {
  if (record.condemnedEpoch !== undefined || record.damaged) return undefined;
  let placed = 0;
  if (record.leavingEpoch !== undefined) return undefined;
  for (const copy of record.copies) {
    if (copy.state === "coming" && copy.session === context.request.session) return undefined;
    if (copy.state === "placed" && context.storages.counting.includes(copy.storage)) placed += 1;
  }
  return placed >= context.storages.quorum ? { kind: "known" } : undefined;
}

async function decide(
  context: Context,
  index: number,
  id: BlockId,
  before: BlockRecord | undefined,
): Promise<ClaimAnswer> {
  const { tx, request, storages } = context;
  const plainBytes = request.plainBytes[index] as number;
  const record: BlockRecord =
    before === undefined
      ? {
          kind: request.kind,
          plainBytes,
          storedBytes: 0,
          condemnedEpoch: undefined,
          damaged: false,
          copies: [],
        }
      : rely(revive(tx, id, before), storages.counting);
  assert(record.kind === request.kind, `${id} is a ${record.kind}`);
  const placed = placedStorages(record, storages);
  if (placed.length >= storages.quorum) {
    return answerPlaced(context, id, before, record);
  }
  const need = storages.quorum - placed.length;
  const mine = comingFrom(record, storages, (copy) => copy.session === request.session);
  // What is mine is sent, also when it makes the quorum only together with what another session brings.
  const others = request.impatient ? [] : await comingFromLive(context, record);
  if (mine.length >= need || (mine.length > 0 && mine.length + others.length >= need)) {
    if (record !== before) await saveBlock(tx, id, before, record);
    return { kind: "send", copies: mine.map(named), need: Math.min(need, mine.length) };
  }
  if (mine.length === 0 && others.length >= need) {
    if (record !== before) await saveBlock(tx, id, before, record);
    return { kind: "wait" };
  }
  return bring(context, id, before, record, { placed, mine, others, need });
}

function placedStorages(record: BlockRecord, storages: PolicyStorages): StorageId[] {
  return record.copies
    .filter((copy) => copy.state === "placed" && storages.counting.includes(copy.storage))
    .map((copy) => copy.storage);
}

type Coming = Extract<Copy, { state: "coming" }>;

function comingFrom(
  record: BlockRecord,
  storages: PolicyStorages,
  which: (copy: Coming) => boolean,
): Coming[] {
  return record.copies.filter(
    (copy): copy is Coming =>
      copy.state === "coming" && storages.taking.includes(copy.storage) && which(copy),
  );
}

async function comingFromLive(context: Context, record: BlockRecord): Promise<Coming[]> {
  const out: Coming[] = [];
  const { request, storages, tx, live } = context;
  for (const copy of comingFrom(record, storages, (other) => other.session !== request.session)) {
    if (!live.has(copy.session)) {
      live.set(copy.session, (await readSession(tx, copy.session))?.state === "live");
    }
    if (live.get(copy.session) === true) out.push(copy);
  }
  return out;
}

const named = (copy: Copy): NamedCopy => ({ storage: copy.storage, generation: copy.generation });

/** Known; or, for a node that is marked through its children only, to be committed again without copies. */
async function answerPlaced(
  context: Context,
  id: BlockId,
  before: BlockRecord | undefined,
  record: BlockRecord,
): Promise<ClaimAnswer> {
  const { tx, request } = context;
  let after = record;
  for (const copy of record.copies) {
    if (copy.state === "coming" && copy.session === request.session) {
      after = withCopy(after, {
        state: "owed",
        storage: copy.storage,
        generation: copy.generation,
      });
      tx.clear(key.claim(request.session, id));
      // Without its claim, settling the session would not look at it any more: nothing may refer to it yet.
      queueUnreferenced(tx, id);
    }
  }
  if (after !== before) await saveBlock(tx, id, before, after);
  return record.kind === "node" && record.damaged
    ? { kind: "send", copies: [], need: 0 }
    : { kind: "known" };
}

/** Names new copies at the storages that have neither a good one nor one that is coming in time. */
async function bring(
  context: Context,
  id: BlockId,
  before: BlockRecord | undefined,
  record: BlockRecord,
  have: {
    readonly placed: readonly StorageId[];
    readonly mine: readonly Coming[];
    readonly others: readonly Coming[];
    readonly need: number;
  },
): Promise<ClaimAnswer> {
  const { tx, request, storages, random } = context;
  const covered = new Set([
    ...have.placed,
    ...have.mine.map((copy) => copy.storage),
    ...have.others.map((copy) => copy.storage),
  ]);
  const generation = newGeneration(random);
  const fresh = storages.taking.filter((storage) => !covered.has(storage));
  if (have.mine.length + have.others.length + fresh.length < have.need) {
    throw new AshlarError(
      ErrorCode.Unavailable,
      `the policy wants ${storages.quorum} storages, but only ${storages.taking.length} of its storages are in use`,
      { remedy: "put a storage in use again, or lower the quorum" },
    );
  }
  let after = record;
  for (const storage of fresh) {
    after = withCopy(after, { state: "coming", storage, generation, session: request.session });
  }
  await saveBlock(tx, id, before, after);
  tx.set(key.claim(request.session, id), CLAIM_VALUES[request.kind]);
  const copies = [...have.mine.map(named), ...fresh.map((storage) => ({ storage, generation }))];
  return { kind: "send", copies, need: Math.min(have.need, copies.length) };
}
