// Reading a version back from one storage and the keys alone, with the metadata and all actors gone, and with none of their code
// but the codecs.
import type { RepositoryKeys } from "#lib/repository/keys.ts";
import { createSealer } from "#lib/repository/sealing.ts";
import { decodeHead, type Head } from "#proto/head.ts";
import { decodeNode } from "#proto/node.ts";
import { parseObjectName } from "#proto/object-names.ts";
import type { SimStorage } from "../engine/sim-storage.ts";

/** Blocks or nodes that a node names. */
const FAN_OUT = 256;

/** Reads versions from one storage, as it is now. */
export class LonelyReader {
  readonly #storage: SimStorage;
  readonly #sealer: ReturnType<typeof createSealer>;
  /** Names by kind and id. */
  readonly #names = new Map<string, string[]>();
  /** The highest revision of each head, by uid. */
  readonly #heads = new Map<string, Head>();
  readonly #opened = new Map<string, Buffer>();

  constructor(storage: SimStorage, keys: RepositoryKeys) {
    this.#storage = storage;
    this.#sealer = createSealer(keys, { compression: keys.compression });
    for (const [name, sealed] of storage.objects) {
      const parsed = parseObjectName(name);
      if (parsed?.type === "head") this.#addHead(parsed.hash, sealed);
      if (parsed?.type !== "block" && parsed?.type !== "node") continue;
      const at = `${parsed.type} ${parsed.id}`;
      this.#names.set(at, [...(this.#names.get(at) ?? []), name]);
    }
  }

  #addHead(id: string, sealed: Buffer): void {
    const head = decodeHead(this.#sealer.open({ kind: "head", id, sealed }));
    const other = this.#heads.get(head.uid);
    if (other === undefined || other.revision < head.revision) this.#heads.set(head.uid, head);
  }

  /** The image of a version; or, as a sentence, why it cannot be had. */
  read(uid: string): Buffer | string {
    try {
      const head = this.#heads.get(uid);
      if (head?.root === undefined) return "its head is not there";
      const image = Buffer.alloc(head.sizeBytes);
      this.#walk(image, head.blockBytes, head.root, head.levels - 1, 0);
      return image;
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
  }

  #walk(image: Buffer, blockBytes: number, id: string, level: number, first: number): void {
    for (const [position, child] of decodeNode(this.#open("node", id)).children.entries()) {
      if (child === undefined) continue;
      const at = first + position * FAN_OUT ** level;
      if (level > 0) this.#walk(image, blockBytes, child, level - 1, at);
      else image.set(this.#open("block", child), at * blockBytes);
    }
  }

  #open(kind: "block" | "node", id: string): Buffer {
    const at = `${kind} ${id}`;
    const opened = this.#opened.get(at) ?? this.#openAny(kind, id);
    this.#opened.set(at, opened);
    return opened;
  }

  #openAny(kind: "block" | "node", id: string): Buffer {
    let problem = `${kind} ${id} is not there`;
    for (const name of this.#names.get(`${kind} ${id}`) ?? []) {
      try {
        const sealed = this.#storage.objects.get(name) as Buffer;
        return this.#sealer.open({ kind, id, sealed });
      } catch (error) {
        problem = error instanceof Error ? error.message : String(error);
      }
    }
    throw new Error(problem);
  }
}
