// Names of objects as the explorer and as the storages have them.
import { objectName } from "#lib/repository/keyspace.ts";
import type { BlockId, Generation } from "#lib/core/ids.ts";
import { parseObjectName } from "#proto/object-names.ts";
import { generationNumber, generationOf, type Name, type Universe } from "./universe.ts";

/** The name on its storage. */
export function objectNameOf(universe: Universe, [, item, generation]: Readonly<Name>): string {
  return objectName(universe.item(item).kind, universe.id(item), generationOf(generation));
}

/** The inverse of {@link objectNameOf}; undefined for heads and the like. */
export function nameOfObject(universe: Universe, storage: number, name: string): Name | undefined {
  const parsed = parseObjectName(name);
  if (parsed?.type !== "block" && parsed?.type !== "node") return undefined;
  const item = universe.itemOf(parsed.id as BlockId);
  return [storage, item, generationNumber(parsed.generation as Generation)];
}
