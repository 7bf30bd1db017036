// Adding a storage to a repository that is there: in the configuration where it is new, and then on the storage itself.
import { readFile, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import path from "node:path";
import { isSeq, parseDocument } from "yaml";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { listStorages } from "#lib/repository/transactions/storage.ts";
import { openEngine } from "./compose.ts";
import { absoluteUrl, parseConfig, type Config } from "#lib/process/config-file.ts";
import { STORAGE_NAME, STORAGE_NAME_RULE } from "#lib/process/schema-values.ts";
import type { CommandContext } from "./context.ts";
import { introduceStorage } from "./introduce-storage.ts";
import { makeStorage } from "./make-repository.ts";
import { urlWithin } from "./paths.ts";
import { Undo } from "./undo.ts";
import { readConfig } from "./with-engine.ts";

/** A storage that was added. */
export interface AddedStorage {
  readonly name: string;
  readonly id: StorageId;
  readonly url: string;
}

/** Adds the storage that `text` names: `NAME`, of the configuration, or `NAME=URL`, a new one. */
export function addToRepository(context: CommandContext, text: string): Promise<AddedStorage> {
  return Undo.during(async (undo) => {
    const [, name = text, url] = /^([^=]+)=(.+)$/.exec(text) ?? [];
    const before = await readConfig(context);
    const config =
      url === undefined ? before : await extendConfig(context, before, { name, url }, undo);
    return await addConfigured(context, config, name, undo);
  });
}

/** Writes the storage into the configuration, leaving its comments as they are. */
async function extendConfig(
  context: CommandContext,
  config: Config,
  storage: { readonly name: string; readonly url: string },
  undo: Undo,
): Promise<Config> {
  if (config.storages.some(({ name }) => name === storage.name)) {
    throw new AshlarError(
      ErrorCode.AlreadyExists,
      `the configuration has a storage ${storage.name} already`,
      { remedy: `\`ashlar storage add ${storage.name}\` adds that one; or choose another name` },
    );
  }
  if (!STORAGE_NAME.test(storage.name)) {
    throw new AshlarError(
      ErrorCode.Usage,
      `storage ${JSON.stringify(storage.name)}: expected ${STORAGE_NAME_RULE}`,
    );
  }
  const { env, cwd } = context;
  const { file } = config;
  const url = absoluteUrl(storage.url, cwd, (message) => new AshlarError(ErrorCode.Usage, message));
  try {
    const old = await readFile(file, "utf8");
    const document = parseDocument(old);
    const storages: unknown = document.get("storages");
    if (!isSeq(storages)) throw new AshlarError(ErrorCode.Config, `${file}: storages is no list`);
    const short = urlWithin(url, path.dirname(file));
    storages.add(document.createNode({ name: storage.name, url: short }));
    const text = document.toString({ lineWidth: 0 });
    const extended = parseConfig(text, file, { env, cwd, hostname: hostname() });
    undo.add(() => writeFile(file, old));
    await writeFile(file, text);
    return extended;
  } catch (error) {
    throw fromSystemError(error, `changing ${file}`);
  }
}

async function addConfigured(
  context: CommandContext,
  config: Config,
  name: string,
  undo: Undo,
): Promise<AddedStorage> {
  const storage = config.storages.find((each) => each.name === name);
  if (storage === undefined) {
    throw new AshlarError(ErrorCode.NotFound, `there is no storage ${name} in the configuration`, {
      remedy: `\`ashlar storage add ${name}=URL\` adds it there, too`,
    });
  }
  const engine = await openEngine(config, context);
  try {
    const known = engine.knownStorages.find(
      ({ record }) => record.name === name && record.state !== "retired",
    );
    if (known !== undefined) {
      throw new AshlarError(
        ErrorCode.AlreadyExists,
        `the repository has a storage ${name} already`,
        {
          details: { storage: known.storage },
        },
      );
    }
    const repo = await engine.repository();
    // Its record may be there though the transaction failed; where that cannot be asked, it is left: what is there harms nobody.
    const mayCount = async (made: StorageId): Promise<boolean> =>
      (await listStorages(repo.kv).catch(() => undefined))?.some(
        ({ storage: recorded }) => recorded === made,
      ) ?? true;
    let id: StorageId | undefined;
    let counts = false;
    await makeStorage(
      storage,
      engine.record.repository,
      engine.ports,
      undo,
      async (made) => {
        ({ id } = made);
        try {
          await introduceStorage({ ...repo, repository: engine.record.repository }, made);
          counts = true;
        } catch (error) {
          counts = await mayCount(made.id);
          throw error;
        }
      },
      () => Promise.resolve(counts),
    );
    return { name, id: id as StorageId, url: storage.url };
  } finally {
    await engine.close();
  }
}
