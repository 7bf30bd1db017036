// Calls of B2's native API (https://www.backblaze.com/apidocs/introduction-to-the-b2-native-api): authorized, bounded, tried again.
import { createHash } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { Semaphore } from "#lib/core/semaphore.ts";
import { API_PATH, B2Account, type Authorization } from "./b2-account.ts";
import { b2Error, keyUnfit, noBucket } from "./b2-errors.ts";
import { isTokenExpired, type B2Failure } from "./b2-failure.ts";
import { B2Http } from "./b2-http.ts";
import { pauseFor, trying, type Pause, type Trying } from "./b2-retry.ts";
import type { B2Settings } from "./b2-settings.ts";
import { UploadUrls, type UploadUrl } from "./upload-urls.ts";

/** A bucket, as far as anybody looks at it (https://www.backblaze.com/apidocs/b2-list-buckets). */
export interface B2Bucket {
  readonly bucketId: string;
  readonly bucketName: string;
  readonly bucketType: string;
  readonly lifecycleRules?: readonly {
    readonly fileNamePrefix: string;
    readonly daysFromUploadingToHiding?: number | null;
    readonly daysFromHidingToDeleting?: number | null;
  }[];
  readonly defaultServerSideEncryption?: {
    readonly isClientAuthorizedToRead: boolean;
    readonly value?: { readonly mode?: string | null; readonly algorithm?: string | null } | null;
  };
  readonly fileLockConfiguration?: {
    readonly isClientAuthorizedToRead: boolean;
    readonly value?: {
      readonly isFileLockEnabled: boolean;
      readonly defaultRetention?: {
        readonly mode?: string | null;
        readonly period?: { readonly duration: number; readonly unit: string } | null;
      } | null;
    } | null;
  };
}

/** A put that B2 has confirmed. */
export interface Uploaded {
  readonly fileId: string;
  /** It took several tries: an earlier one whose answer was lost may have made a version as well. */
  readonly isRepeated: boolean;
}

interface Upload {
  readonly fileName: string;
  readonly bytes: Uint8Array;
  readonly sha1: string;
  readonly signal: AbortSignal | undefined;
}

/** What is downloaded. */
export interface Download {
  readonly method: "GET" | "HEAD";
  readonly fileName: string;
  readonly range?: { readonly offset: number; readonly length: number } | undefined;
  readonly signal: AbortSignal | undefined;
}

/** One bucket of one account. */
export class B2Client {
  readonly settings: B2Settings;
  readonly #http: B2Http;
  readonly #account: B2Account;
  readonly #pause: Pause;
  /** What B2 is asked at once. */
  readonly #turns: Semaphore;
  readonly #uploadUrls: UploadUrls;
  #bucketId = "";

  private constructor(settings: B2Settings, pause: Pause) {
    this.settings = settings;
    this.#http = new B2Http(settings);
    this.#account = new B2Account(this.#http, settings);
    this.#pause = pause;
    this.#turns = new Semaphore(settings.connections);
    this.#uploadUrls = new UploadUrls(settings.connections);
  }

  /** Authorizes the key and finds the bucket; Unavailable where there is none, Refused where the key is not for it. */
  static async open(settings: B2Settings, pause: Pause = pauseFor): Promise<B2Client> {
    const client = new B2Client(settings, pause);
    try {
      client.#bucketId = await client.#findBucket();
      return client;
    } catch (error) {
      client.close();
      throw b2Error(error, settings.location, "opening it");
    }
  }

  get bucketId(): string {
    return this.#bucketId;
  }

  /** What the key may do. */
  async capabilities(): Promise<readonly string[]> {
    return (await this.#account.authorization(undefined)).capabilities;
  }

  async #findBucket(): Promise<string> {
    const { bucket: name, prefix, location } = this.settings;
    const { namePrefix, buckets } = await trying(this.#trial(undefined), () =>
      this.#account.authorization(undefined),
    );
    if (!prefix.startsWith(namePrefix)) {
      const problem = `the key is for names that begin with ${JSON.stringify(namePrefix)} only`;
      throw keyUnfit(location, problem);
    }
    if (buckets === undefined) return (await this.bucket()).bucketId;
    const own = buckets.find((bucket) => bucket.name === name);
    if (own === undefined) throw keyUnfit(location, "the key is for other buckets only");
    return own.id;
  }

  /** How the bucket is set up; Unavailable where there is none. The key needs `listBuckets`. */
  async bucket(): Promise<B2Bucket> {
    const { accountId } = await this.#account.authorization(undefined);
    const bucketName = this.settings.bucket;
    const body = { accountId, bucketName };
    const { buckets } = await this.call<{ readonly buckets: readonly B2Bucket[] }>(
      "b2_list_buckets",
      body,
      undefined,
    );
    const [bucket] = buckets;
    if (bucket === undefined) throw noBucket(this.settings.location);
    return bucket;
  }

  /** Makes a call that may be repeated. */
  call<T>(operation: string, body: object, signal: AbortSignal | undefined): Promise<T> {
    const once = (): Promise<T> => this.#callOnce<T>(operation, body, signal);
    return this.#turns.run(() => trying(this.#trial(signal), once), signal);
  }

  async #callOnce<T>(operation: string, body: object, signal: AbortSignal | undefined): Promise<T> {
    return this.#authorized(signal, ({ apiUrl, token }) =>
      this.#http.sendForJson<T>({
        method: "POST",
        url: `${apiUrl}${API_PATH}/${operation}`,
        headers: { authorization: token, "content-type": "application/json" },
        body: Buffer.from(JSON.stringify(body)),
        signal,
      }),
    );
  }

  /** Sends something with the account's token, and once more with a new one where it has expired. */
  async #authorized<T>(
    signal: AbortSignal | undefined,
    send: (authorization: Authorization) => Promise<T>,
  ): Promise<T> {
    const authorization = await this.#account.authorization(signal);
    try {
      return await send(authorization);
    } catch (error) {
      if (!isTokenExpired(error)) throw error;
      this.#account.expire(authorization);
      return send(await this.#account.authorization(signal));
    }
  }

  /**
   * Downloads a file by its name, as b2_download_file_by_name does: its newest version, unless that hides it.
   * @param use reads the body, or leaves it; it is called again where the body breaks off
   */
  download<T>(wanted: Download, use: (response: IncomingMessage) => Promise<T>): Promise<T> {
    const { signal } = wanted;
    const once = async (): Promise<T> =>
      use(await this.#authorized(signal, (authorization) => this.#get(wanted, authorization)));
    return this.#turns.run(() => trying(this.#trial(signal), once), signal);
  }

  async #get(
    { method, fileName, range, signal }: Download,
    { downloadUrl, token }: Authorization,
  ): Promise<IncomingMessage> {
    const response = await this.#http.send({
      method,
      url: `${downloadUrl}/file/${encodeName(this.settings.bucket)}/${encodeName(fileName)}`,
      headers: {
        authorization: token,
        ...(range === undefined
          ? {}
          : { range: `bytes=${range.offset}-${range.offset + range.length - 1}` }),
      },
      signal,
    });
    if (response.headers["x-bz-file-id"] !== undefined) return response;
    // A portal's, a balancer's: it says nothing about the file.
    response.destroy();
    throw Object.assign(new Error("the answer names no file: that is no answer of B2"), {
      code: "EPROTO",
    });
  }

  /** Uploads a file: a new version of its name. B2 holds its bytes against their SHA-1. */
  async upload(
    fileName: string,
    bytes: Uint8Array,
    signal: AbortSignal | undefined,
    sha1 = createHash("sha1").update(bytes).digest("hex"),
  ): Promise<Uploaded> {
    const trial = { ...this.#trial(signal), isPassing: isPassingUpload, isElsewhere: true };
    const upload = { fileName, bytes, sha1, signal };
    const once = async (attempt: number): Promise<Uploaded> => {
      // What has failed is not used again. Others may have expired with it, so that only a new URL is worth another try.
      const idle = attempt === 1 ? this.#uploadUrls.take() : undefined;
      const fileId = (await this.#postToIdle(idle, upload)) ?? (await this.#postToNew(upload));
      return { fileId, isRepeated: attempt > 1 };
    };
    return this.#turns.run(() => trying(trial, once), signal);
  }

  /** Undefined where there is none, or it has expired. */
  async #postToIdle(idle: UploadUrl | undefined, upload: Upload): Promise<string | undefined> {
    try {
      return idle === undefined ? undefined : await this.#post(idle, upload);
    } catch (error) {
      if (isTokenExpired(error)) return undefined;
      throw error;
    }
  }

  async #postToNew(upload: Upload): Promise<string> {
    const body = { bucketId: this.#bucketId };
    const url = await this.#callOnce<UploadUrl>("b2_get_upload_url", body, upload.signal);
    return this.#post(url, upload);
  }

  /** Gives the id of the new version. The URL is given back unless it fails. */
  async #post(url: UploadUrl, { fileName, bytes, sha1, signal }: Upload): Promise<string> {
    const { fileId } = await this.#http.sendForJson<{ readonly fileId: string }>({
      method: "POST",
      url: url.uploadUrl,
      headers: {
        authorization: url.authorizationToken,
        "x-bz-file-name": encodeName(fileName),
        "content-type": "application/octet-stream",
        "x-bz-content-sha1": sha1,
      },
      body: bytes,
      signal,
    });
    this.#uploadUrls.giveBack(url);
    return fileId;
  }

  #trial(signal: AbortSignal | undefined): Trying {
    return { attempts: this.settings.attempts, signal, pause: this.#pause };
  }

  close(): void {
    this.#http.close();
  }
}

/**
 * An upload is tried again, elsewhere, where its token has expired or is in use, and where the bytes arrived changed. B2 calls the
 * last two `bad_request`, which its documentation uses for much else; whatever that is, it costs some tries. A gateway has no word.
 */
function isPassingUpload(failure: B2Failure): boolean {
  const isPassing = ["bad_request", "auth_token_limit", ""].includes(failure.code);
  return isTokenExpired(failure) || (failure.status === 400 && isPassing);
}

/** As https://www.backblaze.com/docs/cloud-storage-native-api-string-encoding wants it; slashes stay. */
function encodeName(name: string): string {
  return name.split("/").map(encodeURIComponent).join("/");
}
