// The sweep's transaction with the judgement that the writer makes in it (services/writer/sweep.ts): the record is read
// after the listing, in the transaction that writes the trash.
import type { Kv } from "#lib/ports/kv.ts";
import { key } from "#lib/repository/keyspace.ts";
import { readBlock } from "#lib/repository/ledger.ts";
import { sweepNames } from "#lib/repository/transactions/storage.ts";
import { objectNameOf } from "./object-names.ts";
import { generationOf, type Name, type Universe } from "./universe.ts";

/** Writes trash for those of the listed objects that no record names. */
export function sweepListing(
  universe: Universe,
  kv: Kv,
  storage: number,
  names: readonly Name[],
): Promise<number> {
  const id = universe.storage(storage);
  const objects = names.map((listed) => {
    const name = objectNameOf(universe, listed);
    const [, item, generation] = listed;
    return {
      name,
      isNamed: async (reader: Parameters<typeof readBlock>[0]): Promise<boolean> => {
        if ((await reader.get(key.trash(id, name))) !== undefined) return true;
        const record = await readBlock(reader, universe.id(item));
        return (
          record?.copies.some(
            (copy) => copy.storage === id && copy.generation === generationOf(generation),
          ) === true
        );
      },
    };
  });
  return sweepNames(kv, id, objects);
}
