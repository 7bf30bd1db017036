// Opening the configured storages, and making sure that each is the one that the metadata know. A storage that is away stays
// listed with the reason; one that is there and is another one, or another repository's, is refused.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import type { BlobLocking } from "#lib/ports/blob-store.ts";
import type { StorageMarker } from "#lib/drivers/storage-marker.ts";
import { openStorage, readStorageMarker } from "#lib/drivers/storages.ts";
import { StorageSet, type AttachedStorage } from "#lib/repository/storages.ts";
import type { KnownStorage, OpenRepository } from "./open-repository.ts";
import type { StorageConfig } from "./config-file.ts";
import { decorateStorage } from "./decorate-storage.ts";

/** A storage of the configuration that the metadata do not have. */
export interface UnknownStorage {
  readonly name: string;
  readonly url: string;
  /** Why it could not be opened; undefined where it could, or is yet to be made. */
  readonly reason: AshlarError | undefined;
  /** The repository had it, and it was removed. */
  readonly wasRemoved: boolean;
}

/** The storages of a process. */
export interface Attachment {
  readonly set: StorageSet;
  readonly unknown: readonly UnknownStorage[];
}

type Outcome = { readonly attached: AttachedStorage } | { readonly unknown: UnknownStorage };

/** Opens all configured storages at once. */
export async function attachStorages(repository: OpenRepository): Promise<Attachment> {
  const results = await Promise.allSettled(
    repository.config.storages.map((config) => attachOne(repository, config)),
  );
  const outcomes = results.flatMap((result) =>
    result.status === "fulfilled" ? [result.value] : [],
  );
  const attached = outcomes.flatMap((outcome) => ("attached" in outcome ? [outcome.attached] : []));
  const set = new StorageSet(attached);
  try {
    for (const result of results) if (result.status === "rejected") throw result.reason;
    refuseTwins(attached);
    for (const { name, store } of attached) {
      const isThere = store instanceof AshlarError ? 0 : 1;
      repository.ports.telemetry.gauge("ashlar.storage.attached", isThere, { storage: name });
    }
  } catch (error) {
    await set.close();
    throw error;
  }
  const unknown = outcomes.flatMap((outcome) => ("unknown" in outcome ? [outcome.unknown] : []));
  return { set, unknown };
}

/** Which of the repository's storages it is: by what it says of itself, or, while it is away, by its name. */
async function attachOne(repository: OpenRepository, config: StorageConfig): Promise<Outcome> {
  const { name, url } = config;
  const byName = namedInUse(repository, name);
  let identity: StorageId | undefined;
  try {
    const marker = await readStorageMarker(url);
    const { state } = identifyStorage(repository, config, marker);
    if (state === "unknown") return { unknown: unknownStorage(config, undefined) };
    if (state === "retired") return { unknown: removedStorage(config) };
    ({ identity } = marker);
    const { clock, random } = repository.ports;
    const lock = lockOnRecord(repository, identity);
    const store = await openStorage(url, { identity, clock, random, lock });
    repository.context.log.debug("storage opened", { storage: name, url, identity });
    const decorated = decorateStorage(store, config, identity, repository.ports);
    const guarded = repository.keyFolders.guard(decorated, name);
    return { attached: attach(config, identity, guarded) };
  } catch (error) {
    if (!(error instanceof AshlarError) || isFinal(error)) throw error;
    const id = identity ?? byName?.storage;
    // Of one that was lost and removed nothing may be there that says which one it was.
    if (id === undefined && wasRemoved(repository, name))
      return { unknown: removedStorage(config) };
    if (id === undefined) return { unknown: unknownStorage(config, error) };
    return { attached: attach(config, id, error) };
  }
}

/** A wrong storage, or a wrong configuration, is no storage that is away; a folder that cannot be read is. */
function isFinal({ code, details }: AshlarError): boolean {
  return (
    (code === ErrorCode.Refused && details["errno"] === undefined) || code === ErrorCode.Config
  );
}

/**
 * Whether a storage of the configuration is one of the repository's, by what it says of itself.
 * @throws Refused for one of another repository, for another one than the metadata know by that name, and for two that were mixed up
 */
export function identifyStorage(
  repository: OpenRepository,
  config: StorageConfig,
  { identity, repository: owner }: StorageMarker,
): { readonly state: "known" | "unknown" | "retired" } {
  if (owner !== repository.record.repository) {
    throw refused(config, `belongs to another repository (${owner})`);
  }
  const known = repository.knownStorages.find(({ storage }) => storage === identity);
  if (known !== undefined) {
    refuseSwapped(repository, config, known);
    return { state: known.record.state === "retired" ? "retired" : "known" };
  }
  const byName = namedInUse(repository, config.name);
  if (byName === undefined) return { state: "unknown" };
  throw refused(config, `is storage ${identity}, but the metadata know it as ${byName.storage}`);
}

/**
 * A storage may have another name here than where it was added; but not one that another storage of the configuration has:
 * then two of them were mixed up, and what is to go to one site would go to the other.
 */
function refuseSwapped(
  { config: { storages } }: OpenRepository,
  config: StorageConfig,
  { storage, record }: KnownStorage,
): void {
  if (record.name === config.name || record.state === "retired") return;
  if (!storages.some(({ name }) => name === record.name)) return;
  throw refused(config, `is storage ${storage}, which the metadata know as ${record.name}`);
}

/** How the repository has a storage's objects locked: what a configuration that does not say so goes by. */
function lockOnRecord(
  { knownStorages }: OpenRepository,
  identity: StorageId,
): Pick<BlobLocking, "mode" | "periodMs"> | undefined {
  const known = knownStorages.find(({ storage }) => storage === identity);
  const { lockMs: periodMs, lockMode: mode = "governance" } = known?.record ?? {};
  return periodMs === undefined ? undefined : { mode, periodMs };
}

function wasRemoved({ knownStorages }: OpenRepository, name: string): boolean {
  return knownStorages.some(({ record }) => record.name === name && record.state === "retired");
}

function unknownStorage(
  { name, url }: StorageConfig,
  reason: AshlarError | undefined,
): UnknownStorage {
  return { name, url, reason, wasRemoved: false };
}

/** Not an error of the command's: whatever it does it does without this storage. */
function removedStorage({ name, url }: StorageConfig): UnknownStorage {
  const message = `storage ${name} was removed from the repository`;
  const remedy = "take it out of the configuration";
  const reason = new AshlarError(ErrorCode.Refused, message, { remedy });
  return { name, url, reason, wasRemoved: true };
}

function namedInUse({ knownStorages }: OpenRepository, name: string): KnownStorage | undefined {
  return knownStorages.find(({ record }) => record.name === name && record.state !== "retired");
}

function attach(
  config: StorageConfig,
  id: StorageId,
  store: AttachedStorage["store"],
): AttachedStorage {
  return {
    id,
    name: config.name,
    site: config.site,
    store,
    writesMax: config.simultaneousWrites,
    readsMax: config.simultaneousReads,
    removalsMax: config.simultaneousRemovals,
    readOrder: config.readOrder,
  };
}

function refused(config: StorageConfig, what: string): AshlarError {
  return new AshlarError(ErrorCode.Refused, `storage ${config.name} at ${config.url} ${what}`, {
    remedy:
      "correct its URL in the configuration, or mount the right one there; `ashlar rebuild --from URL` takes a storage over that this metadata does not know",
    details: { storage: config.name },
  });
}

/** Two names for one place would count one copy twice. */
function refuseTwins(attached: readonly AttachedStorage[]): void {
  for (const [index, { id, name }] of attached.entries()) {
    const twin = attached.slice(0, index).find((other) => other.id === id);
    if (twin === undefined) continue;
    throw new AshlarError(
      ErrorCode.Config,
      `storages ${twin.name} and ${name} are the same place`,
      {
        remedy: "take one of them out of the configuration",
      },
    );
  }
}
