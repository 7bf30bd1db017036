// The application key, and what B2 gives for it: a token for 24 hours, where to call, and what is allowed.
import { readFile } from "node:fs/promises";
import { AshlarError, ErrorCode, fromSystemError } from "#lib/core/errors.ts";
import { untilAborted } from "#lib/core/until-aborted.ts";
import { keyMissing, keyRefused } from "./b2-errors.ts";
import { B2Failure } from "./b2-failure.ts";
import type { B2Http } from "./b2-http.ts";
import type { B2Settings } from "./b2-settings.ts";

/** What a key gives. */
export interface Authorization {
  readonly accountId: string;
  readonly token: string;
  /** Where to call. */
  readonly apiUrl: string;
  /** Where to download. */
  readonly downloadUrl: string;
  readonly capabilities: readonly string[];
  /** The only buckets that it is for; undefined: all. A bucket that is gone has no name. */
  readonly buckets: readonly { readonly id: string; readonly name: string | null }[] | undefined;
  /** What all names must begin with. */
  readonly namePrefix: string;
}

/** https://www.backblaze.com/apidocs/b2-authorize-account, version 4. */
interface AuthorizeAccountAnswer {
  readonly accountId: string;
  readonly authorizationToken: string;
  readonly apiInfo: {
    readonly storageApi?: {
      readonly apiUrl: string;
      readonly downloadUrl: string;
      readonly allowed: {
        readonly capabilities: readonly string[];
        readonly buckets?: Exclude<Authorization["buckets"], undefined> | null;
        readonly namePrefix?: string | null;
      };
    };
  };
}

/** The version of the API: all calls have it in their path (https://www.backblaze.com/docs/cloud-storage-native-api-versions). */
export const API_PATH = "/b2api/v4";

/** The account of a storage's key. */
export class B2Account {
  readonly #http: B2Http;
  readonly #settings: B2Settings;
  #known: Authorization | undefined;
  #asking: Promise<Authorization> | undefined;

  constructor(http: B2Http, settings: B2Settings) {
    this.#http = http;
    this.#settings = settings;
  }

  /** The authorization as it is now; of many who need one at once one gets it. Refused where there is no key, or B2 does not take it. */
  async authorization(signal: AbortSignal | undefined): Promise<Authorization> {
    if (this.#known !== undefined) return this.#known;
    this.#asking ??= this.#ask().finally(() => (this.#asking = undefined));
    // Who aborts leaves the others theirs.
    return untilAborted(this.#asking, signal);
  }

  /** This one is no longer valid: the next who asks gets a new one. */
  expire(authorization: Authorization): void {
    if (this.#known === authorization) this.#known = undefined;
  }

  async #ask(): Promise<Authorization> {
    this.#known = await this.#authorize();
    return this.#known;
  }

  async #authorize(): Promise<Authorization> {
    const { id, key } = await readKey(this.#settings);
    const credentials = Buffer.from(`${id}:${key}`).toString("base64");
    let answer: AuthorizeAccountAnswer;
    try {
      answer = await this.#http.sendForJson<AuthorizeAccountAnswer>({
        method: "GET",
        url: `${this.#settings.apiUrl}${API_PATH}/b2_authorize_account`,
        headers: { authorization: `Basic ${credentials}` },
        signal: undefined,
      });
    } catch (error) {
      const isRefused = error instanceof B2Failure && error.status === 401;
      throw isRefused ? keyRefused(this.#settings.location, error) : error;
    }
    const { storageApi } = answer.apiInfo;
    if (storageApi === undefined) {
      throw new AshlarError(
        ErrorCode.Refused,
        `${this.#settings.location}: the account has no B2 storage`,
        { details: { errno: "EACCES" }, remedy: "enable B2 Cloud Storage for the account" },
      );
    }
    const { capabilities, buckets, namePrefix } = storageApi.allowed;
    return {
      accountId: answer.accountId,
      token: answer.authorizationToken,
      apiUrl: storageApi.apiUrl,
      downloadUrl: storageApi.downloadUrl,
      capabilities,
      buckets: buckets ?? undefined,
      namePrefix: namePrefix ?? "",
    };
  }
}

/** Read each time, so that keys can be replaced while a process runs. */
async function readKey({
  applicationKeyIdFile,
  applicationKeyFile,
  location,
}: B2Settings): Promise<{ readonly id: string; readonly key: string }> {
  if (applicationKeyIdFile !== undefined && applicationKeyFile !== undefined) {
    return {
      id: await readKeyFile(applicationKeyIdFile),
      key: await readKeyFile(applicationKeyFile),
    };
  }
  const { B2_APPLICATION_KEY_ID: id = "", B2_APPLICATION_KEY: key = "" } = process.env;
  if (id === "" || key === "") throw keyMissing(location);
  return { id, key };
}

async function readKeyFile(file: string): Promise<string> {
  try {
    return (await readFile(file, "utf8")).trim();
  } catch (error) {
    const { message } = fromSystemError(error, `reading ${file}`);
    throw new AshlarError(ErrorCode.Config, message, { cause: error });
  }
}
