// I8, watched on the wire: what a live session was told is known, or has sent, stays until it has committed it or ended. A
// removal of such a block shows at once where the session's horizon has not passed the answer (it may use it yet), and, whatever
// the horizon says, when the session uses the old answer: when it commits a node over it.
import { unpackBlockIds, type BlockId, type SessionId } from "#lib/core/ids.ts";
import type { BusMessage } from "#lib/ports/bus.ts";
import { isLeaving, type BlockRecord } from "#lib/repository/block-record.ts";
import { decodeNode } from "#proto/node.ts";
import { decodeReply, decodeRequest } from "#proto/message-codec.ts";
import { queues, type Envelope, type ReplyEnvelope, type Requests } from "#proto/messages.ts";
import type { Branches } from "./branches.ts";
import type { Change, Mirror } from "./mirror.ts";
import { demand } from "./violation.ts";

/** What a session was last told about a block. */
interface Told {
  /** The epoch of the answer. */
  readonly epoch: number;
  /** Its record was removed after that. */
  removed: boolean;
}

/** Watches claims, their answers, and commits. */
export class AnswerCheckers {
  readonly #mirror: Mirror;
  readonly #branches: Branches;
  /** Claims without an answer, and commits, by request. */
  readonly #asked = new Map<
    string,
    { readonly session: string; readonly ids: readonly BlockId[] }
  >();
  readonly #commits = new Set<string>();
  /** By session and token, then by id. */
  readonly #told = new Map<string, Map<BlockId, Told>>();

  constructor(mirror: Mirror, branches: Branches) {
    this.#mirror = mirror;
    this.#branches = branches;
  }

  /** A message was accepted. */
  watch(where: string, message: BusMessage): void {
    if (where === queues.dedup) this.#request(decodeRequest(message.body));
    else if (where === queues.upkeep) this.#branches.hit("commit-waits-for-puts");
    else if (where.startsWith("reader.")) this.#job(decodeRequest(message.body));
    else if (where.startsWith("inbox.")) this.#reply(decodeReply(message.body));
  }

  #job({ type }: Envelope): void {
    if (type === "ensureRoot") this.#branches.hit("finish-returned");
  }

  /** A commit has changed these records. */
  changed(blocks: ReadonlyMap<BlockId, Change<BlockRecord>>): void {
    for (const [id, { before, after }] of blocks) {
      if (after !== undefined) {
        this.#checkLeft(id, before, after);
        continue;
      }
      for (const [asker, told] of this.#told) {
        const about = told.get(id);
        if (about === undefined) continue;
        about.removed = true;
        this.#branches.hit("known-removed-under-way");
        this.#checkHorizon(asker, id, about);
      }
    }
  }

  /**
   * What was removed had been condemned after it was answered, or the claim would have revived it; and it was condemned before
   * every live horizon. So the horizon of a session that was told of it has passed the answer: the answer is used, or void.
   */
  #checkHorizon(asker: string, id: BlockId, { epoch }: Told): void {
    const [session = "", token] = asker.split("/");
    const record = this.#mirror.sessions.get(session as SessionId);
    if (record?.state !== "live" || record.token !== token) return;
    const horizon = this.#mirror.horizons.get(session as SessionId) ?? 0;
    demand(
      epoch < horizon,
      "I8",
      () =>
        `${id} was removed, and session ${session}, of horizon ${horizon}, was told of it in epoch ${epoch}`,
    );
  }

  /** A copy that has left a storage: the same for whoever was told of it and goes there. */
  #checkLeft(id: BlockId, before: BlockRecord | undefined, after: BlockRecord): void {
    for (const { storage } of before?.copies.filter(isLeaving) ?? []) {
      if (after.copies.some((copy) => copy.storage === storage)) continue;
      for (const [asker, told] of this.#told) {
        const about = told.get(id);
        const [session = ""] = asker.split("/");
        const record = this.#mirror.sessions.get(session as SessionId);
        if (about === undefined || record?.policy?.storages.includes(storage) !== true) continue;
        this.#checkHorizon(asker, id, about);
      }
    }
  }

  #request({ type, id, body }: Envelope): void {
    if (type === "claim") {
      const { session, token, ids } = body as Requests["claim"]["request"];
      this.#asked.set(id, { session: `${session}/${token}`, ids: unpackBlockIds(ids) });
    } else if (type === "commit" && !this.#commits.has(id)) {
      this.#commits.add(id);
      this.#checkCommit(body as Requests["commit"]["request"]);
    }
  }

  /** A commit over what was removed since it was answered: the session went on with something that was gone. */
  #checkCommit({ session, token, plain }: Requests["commit"]["request"]): void {
    const record = this.#mirror.sessions.get(session as SessionId);
    if (record?.state !== "live" || record.token !== token) return;
    const told = this.#told.get(`${session}/${token}`);
    for (const child of decodeNode<BlockId>(plain).children) {
      if (child === undefined) continue;
      demand(
        told?.get(child)?.removed !== true,
        "I8",
        () => `session ${session} commits a node over ${child}, which was removed under it`,
      );
    }
  }

  #reply({ id, body, error }: ReplyEnvelope): void {
    if (error?.code === "FENCED") this.#branches.hit("session-fenced");
    const asked = this.#asked.get(id);
    if (asked !== undefined && body !== undefined) this.#answered(asked, body);
    else if (isReturned(body)) this.#branches.hit("commit-returned");
    else if (hasUnnamed(body)) this.#branches.hit("store-unnamed");
  }

  /** A request that was repeated is answered several times; the session may use any of the answers. */
  #answered(
    { session, ids }: { readonly session: string; readonly ids: readonly BlockId[] },
    body: unknown,
  ): void {
    const told = this.#told.get(session) ?? new Map<BlockId, Told>();
    this.#told.set(session, told);
    const { answers, epoch } = body as Requests["claim"]["reply"];
    for (const [index, id] of ids.entries()) {
      const kind = answers[index]?.kind;
      if (kind === "wait") this.#branches.hit("claim-waits");
      else told.set(id, { epoch, removed: !this.#mirror.blocks.has(id) });
    }
  }
}

function isReturned(body: unknown): boolean {
  return (body as { kind?: unknown } | undefined)?.kind === "returned";
}

function hasUnnamed(body: unknown): boolean {
  const outcomes = (body as { outcomes?: readonly { named?: boolean }[] } | undefined)?.outcomes;
  return outcomes?.some(({ named }) => named === false) === true;
}
