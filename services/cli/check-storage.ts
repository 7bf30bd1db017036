// `ashlar storage check`: is it the storage that the metadata know, and does everything work there that Ashlar needs?
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { CheckFinding } from "#lib/drivers/storage-check.ts";
import { identifyStorage } from "#lib/process/attach-storages.ts";
import type { StorageConfig } from "#lib/process/config-file.ts";
import { systemPorts } from "#lib/process/open-repository.ts";
import type { CommandContext } from "./context.ts";
import { formatTable } from "./output.ts";
import { readConfig, withEngine } from "./with-engine.ts";

/** What was found at one storage. */
export interface CheckedStorage {
  /** Its name in the configuration, or its URL. */
  readonly name: string;
  readonly findings: readonly CheckFinding[];
}

/**
 * Checks the storages of the configuration, one of them, or what a URL leads to.
 * @throws NotFound for a name that the configuration does not have, Usage for what is no URL of a storage
 */
export async function checkStorages(
  context: CommandContext,
  name: string | undefined,
): Promise<CheckedStorage[]> {
  if (name !== undefined && /^[a-z0-9]+:/.test(name)) {
    return [{ name, findings: await tryOut(context, name) }];
  }
  const { storages } = await readConfig(context);
  const chosen = storages.filter((storage) => name === undefined || storage.name === name);
  if (chosen.length === 0) {
    throw new AshlarError(ErrorCode.NotFound, `there is no storage ${name}`, {
      remedy: `the configuration has: ${storages.map((storage) => storage.name).join(", ")}`,
    });
  }
  const identities = await compareIdentities(context, chosen);
  const checked: CheckedStorage[] = [];
  for (const storage of chosen) {
    const identity = identities.get(storage.name) ?? [];
    // Nothing is put to what is another's.
    const isOther = identity.some(({ outcome }) => outcome === "failed");
    const findings = isOther ? [] : await tryOut(context, storage.url);
    checked.push({ name: storage.name, findings: [...identity, ...findings] });
  }
  return checked;
}

async function tryOut(context: CommandContext, url: string): Promise<readonly CheckFinding[]> {
  const { tryStorage } = await import("#lib/drivers/storages.ts");
  try {
    return await tryStorage(url, systemPorts(context));
  } catch (error) {
    if (!(error instanceof AshlarError) || error.code === ErrorCode.Usage) throw error;
    return [{ check: "open", outcome: "failed", detail: error.message }];
  }
}

const finding = (outcome: CheckFinding["outcome"], detail: string): CheckFinding[] => [
  { check: "identity", outcome, detail },
];

/** Holds what the storages say of themselves against the metadata. What cannot be reached is for the other checks to say. */
async function compareIdentities(
  context: CommandContext,
  storages: readonly StorageConfig[],
): Promise<ReadonlyMap<string, CheckFinding[]>> {
  const { readStorageMarker } = await import("#lib/drivers/storages.ts");
  const found = new Map<string, CheckFinding[]>();
  try {
    await withEngine(context, async (engine) => {
      for (const storage of storages) {
        const marker = await readStorageMarker(storage.url).catch(asError);
        if (marker instanceof AshlarError) continue;
        try {
          const { state } = identifyStorage(engine, storage, marker);
          found.set(storage.name, judge(state, marker.identity));
        } catch (error) {
          found.set(storage.name, finding("failed", asError(error).message));
        }
      }
    });
  } catch (error) {
    const detail = `not compared with the metadata: ${asError(error).message}`;
    for (const { name } of storages) found.set(name, finding("warning", detail));
  }
  return found;
}

function judge(state: "known" | "unknown" | "retired", identity: string): CheckFinding[] {
  switch (state) {
    case "known":
      return finding("ok", `${identity}, which the metadata know`);
    case "unknown":
      return finding("warning", `${identity}, which was not added to the repository yet`);
    case "retired":
      return finding("failed", `${identity}, which was removed from the repository`);
  }
}

function asError(error: unknown): AshlarError {
  if (error instanceof AshlarError) return error;
  throw error;
}

/** For people. */
export function checkTable(storages: readonly CheckedStorage[]): string[] {
  return formatTable(
    [{ head: "storage" }, { head: "check" }, { head: "outcome" }, { head: "" }],
    storages.flatMap(({ name, findings }) =>
      findings.map(({ check, outcome, detail }) => [name, check, outcome, detail]),
    ),
  );
}
