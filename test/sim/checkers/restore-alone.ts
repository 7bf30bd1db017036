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

/** The image of a version; or, as a sentence, why it cannot be had. */
export function restoreAlone(
  storage: SimStorage,
  keys: RepositoryKeys,
  uid: string,
): Buffer | string {
  try {
    return new LonelyReader(storage, keys).read(uid);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

class LonelyReader {
  readonly #storage: SimStorage;
  readonly #sealer: ReturnType<typeof createSealer>;
  /** Names by kind and id. */
  readonly #names = new Map<string, string[]>();

  constructor(storage: SimStorage, keys: RepositoryKeys) {
    this.#storage = storage;
    this.#sealer = createSealer(keys, { compression: keys.compression });
    for (const name of storage.objects.keys()) {
      const parsed = parseObjectName(name);
      if (parsed?.type !== "block" && parsed?.type !== "node") continue;
      const at = `${parsed.type} ${parsed.id}`;
      this.#names.set(at, [...(this.#names.get(at) ?? []), name]);
    }
  }

  read(uid: string): Buffer {
    const head = this.#head(uid);
    if (head?.root === undefined) throw new Error("its head is not there");
    const image = Buffer.alloc(head.sizeBytes);
    this.#walk(image, head.blockBytes, head.root, head.levels - 1, 0);
    return image;
  }

  #head(uid: string): Head | undefined {
    let highest: Head | undefined;
    for (const [name, sealed] of this.#storage.objects) {
      const parsed = parseObjectName(name);
      if (parsed?.type !== "head") continue;
      const head = decodeHead(this.#sealer.open({ kind: "head", id: parsed.hash, sealed }));
      if (head.uid === uid && (highest === undefined || head.revision > highest.revision))
        highest = head;
    }
    return highest;
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
