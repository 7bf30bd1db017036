// Commit (DESIGN §4.3): a node becomes *placed*, together with its references, where its object is durable and all that
// it names is placed.
import { assert } from "#lib/core/assert.ts";
import type { BlockId, SessionId, StorageId, Token } from "#lib/core/ids.ts";
import type { Kv, KvTransaction } from "#lib/ports/kv.ts";
import { decodeNode } from "#proto/node.ts";
import { currentAt, placedAt, type BlockRecord } from "../block-record.ts";
import { key, objectName, type HoldPosition } from "../keyspace.ts";
import {
  queueTrash,
  queueUnreferenced,
  readBlock,
  readBlocks,
  readPolicyStorages,
  rely,
  requireSession,
  revive,
  saveBlock,
  withCopy,
  withPlaced,
  type PolicyStorages,
} from "../ledger.ts";
import type { Policy } from "../records.ts";
import type { NamedCopy } from "./claim.ts";
import { evaluateMark } from "./recheck.ts";

const EMPTY = Buffer.alloc(0);

/** A node to commit. */
export interface CommitNodeRequest {
  readonly session: SessionId;
  readonly token: Token;
  readonly id: BlockId;
  /** Its plaintext (proto/node.ts). */
  readonly plain: Buffer;
  /** Where its object is durable, under which names. */
  readonly durable: readonly NamedCopy[];
  /** Sealed bytes, 0 when no object was put. */
  readonly storedBytes: number;
  readonly policy: Policy;
  /** Its place in the tree under construction: the session holds it there until its parent is committed. */
  readonly position: HoldPosition;
}

/** What a commit answers. */
export type CommitNodeResult =
  | { readonly kind: "committed" }
  /**
   * Not yet: these children (indices into the node), or the node itself, are in the way. They are to be claimed for exactly
   * `storages`, all of them (DESIGN §4.3).
   */
  | {
      readonly kind: "returned";
      readonly children: readonly number[];
      readonly self: boolean;
      readonly storages: readonly StorageId[];
    };

/** The distinct children of a node in order, each with one index at which it stands. */
function distinctChildren(plain: Buffer): { level: number; ids: BlockId[]; indices: number[] } {
  const { level, children } = decodeNode(plain);
  const seen = new Set<BlockId>();
  const ids: BlockId[] = [];
  const indices: number[] = [];
  for (const [index, child] of children.entries()) {
    const id = child as BlockId | undefined;
    if (id === undefined || seen.has(id)) continue;
    seen.add(id);
    ids.push(id);
    indices.push(index);
  }
  return { level, ids, indices };
}

/** Commits a node; Fenced when the session is not live under this token. Lands twice without harm. */
export function commitNode(
  kv: Kv,
  nowMs: number,
  request: CommitNodeRequest,
): Promise<CommitNodeResult> {
  const node = distinctChildren(request.plain);
  return kv.transact(
    async (tx) => {
      await requireSession(tx, request.session, request.token);
      const storages = await readPolicyStorages(tx, request.policy);
      const children = await readBlocks(tx, node.ids);
      const before = await readBlock(tx, request.id);
      const full = fullStorages(children, storages.counting);
      const after = placeNode(before, request, full, nowMs);
      const inTheWay = obstacles(after, children, storages);
      if (inTheWay !== undefined) {
        return {
          kind: "returned",
          children: inTheWay.children.map((at) => node.indices[at] as number),
          self: inTheWay.self,
          storages: inTheWay.storages,
        };
      }
      assert(after !== undefined, "a node placed at a quorum has a record");
      await trashUnnamed(tx, before, request);
      await saveChildren(tx, request.session, node.ids, children, storages.counting);
      await saveNode(tx, request, node.ids, before, rely(after, storages.counting));
      await moveHold(tx, request, node.level);
      return { kind: "committed" };
    },
    { durable: false, label: "commit" },
  );
}

/** The storages at which every child is placed. */
function fullStorages(
  children: readonly (BlockRecord | undefined)[],
  candidates: readonly StorageId[],
): ReadonlySet<StorageId> {
  return new Set(
    candidates.filter((storage) =>
      children.every((child) => child !== undefined && placedAt(child, storage) !== undefined),
    ),
  );
}

/** The node's record with its durable copies placed where all children are, and everything else of mine owed. */
function placeNode(
  before: BlockRecord | undefined,
  request: CommitNodeRequest,
  full: ReadonlySet<StorageId>,
  nowMs: number,
): BlockRecord | undefined {
  if (before === undefined) return undefined;
  let after: BlockRecord = before;
  for (const { storage, generation } of request.durable) {
    const copy = currentAt(after, storage);
    if (copy?.generation !== generation || copy.state === "placed") continue;
    if (full.has(storage)) after = withPlaced(after, storage, generation, nowMs);
  }
  for (const copy of after.copies) {
    if (copy.state === "coming" && copy.session === request.session) {
      after = withCopy(after, {
        state: "owed",
        storage: copy.storage,
        generation: copy.generation,
      });
    }
  }
  return request.storedBytes > 0 ? { ...after, storedBytes: request.storedBytes } : after;
}

interface Obstacles {
  readonly children: readonly number[];
  readonly self: boolean;
  readonly storages: readonly StorageId[];
}

/** What keeps the node from counting, or undefined when it is placed at a quorum and no child is marked. */
function obstacles(
  after: BlockRecord | undefined,
  children: readonly (BlockRecord | undefined)[],
  storages: PolicyStorages,
): Obstacles | undefined {
  const marked = children.flatMap((child, at) => (child?.damaged === true ? [at] : []));
  const placed = storages.counting.filter(
    (storage) => after !== undefined && placedAt(after, storage) !== undefined,
  );
  if (marked.length === 0 && placed.length >= storages.quorum) return undefined;
  const wanted = chooseStorages(children, placed, storages);
  const missing = children.flatMap((child, at) =>
    child === undefined ||
    child.damaged ||
    wanted.some((storage) => placedAt(child, storage) === undefined)
      ? [at]
      : [],
  );
  return { children: missing, self: missing.length === 0, storages: wanted };
}

/** Enough storages for the quorum: those where the node is placed first, then those where most children are. */
function chooseStorages(
  children: readonly (BlockRecord | undefined)[],
  placed: readonly StorageId[],
  storages: PolicyStorages,
): StorageId[] {
  const childrenAt = (storage: StorageId): number =>
    children.filter((child) => child !== undefined && placedAt(child, storage) !== undefined)
      .length;
  const rest = storages.taking
    .filter((storage) => !placed.includes(storage))
    .toSorted((a, b) => childrenAt(b) - childrenAt(a));
  return [...placed, ...rest].slice(0, storages.quorum);
}

/** What was put for the node but is not named by its record any more goes to trash. */
async function trashUnnamed(
  tx: KvTransaction,
  before: BlockRecord | undefined,
  request: CommitNodeRequest,
): Promise<void> {
  for (const { storage, generation } of request.durable) {
    const isNamed = before?.copies.some(
      (copy) => copy.storage === storage && copy.generation === generation,
    );
    if (isNamed !== true) await queueTrash(tx, storage, objectName("node", request.id, generation));
  }
}

/** Revives condemned children, keeps their copies where the node counts on them, turns what else was coming from me into *owed*, and removes my claims. */
async function saveChildren(
  tx: KvTransaction,
  session: SessionId,
  ids: readonly BlockId[],
  children: readonly (BlockRecord | undefined)[],
  counting: readonly StorageId[],
): Promise<void> {
  for (const [index, id] of ids.entries()) {
    const before = children[index];
    assert(before !== undefined, "a committed child has a record");
    let after = rely(revive(tx, id, before), counting);
    for (const copy of before.copies) {
      if (copy.state !== "coming" || copy.session !== session) continue;
      after = withCopy(after, {
        state: "owed",
        storage: copy.storage,
        generation: copy.generation,
      });
    }
    if (after !== before) await saveBlock(tx, id, before, after);
    tx.clear(key.claim(session, id));
  }
}

async function saveNode(
  tx: KvTransaction,
  request: CommitNodeRequest,
  children: readonly BlockId[],
  before: BlockRecord | undefined,
  placed: BlockRecord,
): Promise<void> {
  const exists = (await tx.get(key.node(request.id))) !== undefined;
  if (!exists) {
    tx.set(key.node(request.id), request.plain);
    for (const child of children) {
      tx.set(key.reference(child, { kind: "node", id: request.id }), EMPTY);
    }
  }
  const revived = revive(tx, request.id, placed);
  // No child is marked, or the commit would have been refused: only its own copies decide.
  const after = await evaluateMark(tx, request.id, revived, undefined);
  if (after !== before) await saveBlock(tx, request.id, before, after);
  tx.clear(key.claim(request.session, request.id));
}

/** The session holds the node at its place, and no longer its children, which the node references now. */
async function moveHold(
  tx: KvTransaction,
  request: CommitNodeRequest,
  level: number,
): Promise<void> {
  const { session, position, id } = request;
  await setHold(tx, session, position, id);
  if (level === 0) return;
  const first = position.index * 256;
  const start = key.hold(session, { level: level - 1, index: first });
  const end = key.hold(session, { level: level - 1, index: first + 256 });
  for (const entry of await tx.range({ start, end, limit: 256 })) {
    const index = Number(entry.key.readBigUInt64BE(entry.key.length - 8));
    const child = entry.value.toString("hex") as BlockId;
    tx.clear(entry.key);
    tx.clear(
      key.reference(child, { kind: "hold", session, position: { level: level - 1, index } }),
    );
    queueUnreferenced(tx, child);
  }
}

/** Sets a session's hold at a position; one on another node at that position is let go. */
export async function setHold(
  tx: KvTransaction,
  session: SessionId,
  position: HoldPosition,
  id: BlockId,
): Promise<void> {
  const at = key.hold(session, position);
  const current = await tx.get(at);
  const held = current?.toString("hex") as BlockId | undefined;
  if (held === id) return;
  if (held !== undefined) {
    tx.clear(key.reference(held, { kind: "hold", session, position }));
    queueUnreferenced(tx, held);
  }
  tx.set(at, Buffer.from(id, "hex"));
  tx.set(key.reference(id, { kind: "hold", session, position }), EMPTY);
}

/** Holds a known node at its place without committing it (a frozen source that is resumed is not read again there). */
export function holdNode(
  kv: Kv,
  session: SessionId,
  token: Token,
  position: HoldPosition,
  id: BlockId,
): Promise<boolean> {
  return kv.transact(
    async (tx) => {
      const { policy } = await requireSession(tx, session, token);
      const record = await readBlock(tx, id);
      if (record === undefined || (await tx.get(key.node(id))) === undefined) return false;
      const revived = rely(revive(tx, id, record), policy?.storages ?? []);
      if (revived !== record) await saveBlock(tx, id, record, revived);
      await setHold(tx, session, position, id);
      return true;
    },
    { durable: false, label: "hold" },
  );
}
