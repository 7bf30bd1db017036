// What must hold whenever a storage changes (I3): no object that a record names as placed is deleted, or replaced by one that
// does not open to the same bytes.
import type { BlockId, Generation, StorageId, VersionUid } from "#lib/core/ids.ts";
import type { Copy } from "#lib/repository/block-record.ts";
import type { Sealer } from "#lib/repository/sealing.ts";
import { decodeHead } from "#proto/head.ts";
import { parseObjectName } from "#proto/object-names.ts";
import type { SimStorage, StorageWatcher } from "../engine/sim-storage.ts";
import type { Branches } from "./branches.ts";
import type { Mirror } from "./mirror.ts";
import { demand } from "./violation.ts";

/** Watches the storages of a world. */
export class StorageCheckers implements StorageWatcher {
  readonly #mirror: () => Mirror;
  readonly #sealer: Sealer;
  readonly #branches: Branches;
  /** Names that were deleted, by "storage/name". */
  readonly #deleted = new Set<string>();
  /** Two clusters are at work: what one of them may delete, the metadata of the other do not tell. */
  isOff = false;

  constructor(mirror: () => Mirror, sealer: Sealer, branches: Branches) {
    this.#mirror = mirror;
    this.#sealer = sealer;
    this.#branches = branches;
  }

  put(storage: SimStorage, name: string, bytes: Buffer, replaced: Buffer | undefined): void {
    const parsed = parseObjectName(name);
    if (parsed?.type === "head") this.#checkHead(storage, name, parsed.hash, bytes);
    if (parsed?.type !== "block" && parsed?.type !== "node") return;
    const copy = this.#copy(storage.id, parsed);
    if (replaced !== undefined) this.#branches.hit("object-found-and-replaced");
    if (copy === undefined) {
      if (this.#mirror().renewals.get(`${storage.id}/${parsed.id}`) === parsed.generation) return;
      this.#branches.hit(
        this.#deleted.has(`${storage.id}/${name}`) ? "put-after-trash-emptied" : "late-put-unnamed",
      );
      return;
    }
    if (this.isOff || copy.state !== "placed") return;
    const { type, id } = parsed;
    let isWhole = true;
    try {
      this.#sealer.open({ kind: type, id, sealed: bytes });
    } catch {
      isWhole = false;
    }
    demand(
      isWhole,
      "I3",
      () => `${name} at ${storage.name} is placed, and is replaced by something else`,
    );
  }

  /** I1: a head is put to a storage only after its root is placed there; one of a version that is gone by now hurts nobody. */
  #checkHead(storage: SimStorage, name: string, id: string, sealed: Buffer): void {
    const mirror = this.#mirror();
    if (this.isOff || mirror.heads.get(`${storage.id}/${name}`)?.state !== "putting") return;
    const { uid, root } = decodeHead(this.#sealer.open({ kind: "head", id, sealed }));
    const version = mirror.versions.get(uid as VersionUid);
    if (root === undefined || version === undefined || version.root !== root) return;
    if (version.state !== "valid" && version.state !== "invalid") return;
    const copies = mirror.blocks.get(root as BlockId)?.copies ?? [];
    demand(
      copies.some(
        (copy) => copy.storage === storage.id && (copy.state === "placed" || copy.state === "bad"),
      ),
      "I1",
      () => `the head of ${uid} is put to ${storage.name}, and its root is not placed there`,
    );
  }

  deleted(storage: SimStorage, name: string): void {
    this.#deleted.add(`${storage.id}/${name}`);
    if (this.isOff) return;
    const parsed = parseObjectName(name);
    if (parsed?.type === "block" || parsed?.type === "node") {
      const copy = this.#copy(storage.id, parsed);
      demand(
        copy?.state !== "placed",
        "I3",
        () => `${name} at ${storage.name} is placed, and is deleted`,
      );
    }
    if (parsed?.type === "head") {
      const head = this.#mirror().heads.get(`${storage.id}/${name}`);
      demand(
        head === undefined || head.state === "trash",
        "I3",
        () => `the head ${name} at ${storage.name} is not in trash, and is deleted`,
      );
    }
    demand(
      parsed?.type !== "stamp" && parsed?.type !== "key",
      "I3",
      () => `${name} at ${storage.name} is deleted`,
    );
  }

  #copy(
    storage: StorageId,
    { id, generation }: { readonly id: string; readonly generation: string },
  ): Copy | undefined {
    return this.#mirror()
      .blocks.get(id as BlockId)
      ?.copies.find(
        (copy) => copy.storage === storage && copy.generation === (generation as Generation),
      );
  }
}
