// A double of Backblaze B2's native API, version 4, in this process. It was written from Backblaze's documentation:
//   https://www.backblaze.com/apidocs/b2-authorize-account and the pages beside it for b2_list_buckets, b2_get_upload_url,
//   b2_upload_file, b2_list_file_names, b2_list_file_versions, b2_hide_file, b2_delete_file_version, b2_download_file_by_name,
//   https://www.backblaze.com/docs/cloud-storage-native-api-error-handling-and-status-codes, -string-encoding, -versions,
//   https://www.backblaze.com/docs/cloud-storage-files, -file-versions, -upload-files-with-the-native-api, -integration-checklist,
// and where those leave something open from Backblaze's own b2-sdk-python (exception.py, raw_simulator.py). It has not been held
// against the real service.
// It is stricter than the service: whatever the documentation does not promise to take is refused, and told in `complaints`.
import { createHash, randomBytes, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { checkFileName, encodeFileName } from "./b2-names.ts";

/** One version of a name. */
export interface DoubleVersion {
  readonly fileId: string;
  readonly fileName: string;
  readonly action: "upload" | "hide";
  readonly bytes: Buffer;
  readonly uploadTimestamp: number;
}

/** A bucket; versions of a name stand in the order in which they were made. */
export interface DoubleBucket {
  readonly bucketId: string;
  readonly bucketName: string;
  bucketType: string;
  lifecycleRules: object[];
  encryption: object | null;
  fileLock: object | null;
  readonly versions: DoubleVersion[];
}

/** An application key. */
export interface DoubleKey {
  readonly id: string;
  readonly key: string;
  readonly capabilities: readonly string[];
  readonly buckets: readonly string[] | null;
  readonly namePrefix: string | null;
}

/** What goes wrong, and how often. Operations are named as B2 names them; `head` is a download without its body. */
export interface DoubleFault {
  readonly operation: string;
  /** Infinity: until it is taken off. */
  times: number;
  /** As often it goes well before. */
  skip?: number;
  /** Of one file alone. */
  readonly fileName?: string;
  readonly act:
    | {
        readonly status: number;
        readonly code: string;
        readonly message?: string;
        readonly retryAfterSeconds?: number;
      }
    /** Done, but the answer never comes. */
    | "lost answer"
    /** The connection breaks before anything is done. */
    | "broken"
    /** Half of a body. */
    | "truncated"
    /** Nothing comes, ever. */
    | "silence"
    /** Somebody who stands in between answers, with a page of his own. */
    | "portal";
}

/** One request that was served, or refused. */
export interface DoubleRequest {
  readonly operation: string;
  readonly fileName: string | undefined;
  readonly status: number;
}

interface Token {
  readonly key: DoubleKey;
  usesLeft: number;
}

interface UploadTarget {
  readonly token: string;
  readonly bucket: DoubleBucket;
  readonly key: DoubleKey;
  isBusy: boolean;
  /** An upload has failed there: it must never be used again. */
  hasFailed: boolean;
  usesLeft: number;
}

class Refusal extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

const ACCOUNT = "acc0123456789";
const ALL_CAPABILITIES = [
  "listBuckets",
  "readBuckets",
  "listFiles",
  "readFiles",
  "writeFiles",
  "deleteFiles",
  "readBucketEncryption",
  "readBucketRetentions",
] as const;

type Field = "string" | "number";
type Fields = Readonly<Record<string, Field | "string?" | "number?">>;

/** What each call may be told; `?` may be left out. */
const FIELDS: Readonly<Record<string, Fields>> = {
  b2_list_buckets: { accountId: "string", bucketId: "string?", bucketName: "string?" },
  b2_get_upload_url: { bucketId: "string" },
  b2_list_file_names: {
    bucketId: "string",
    startFileName: "string?",
    maxFileCount: "number?",
    prefix: "string?",
  },
  b2_list_file_versions: {
    bucketId: "string",
    startFileName: "string?",
    startFileId: "string?",
    maxFileCount: "number?",
    prefix: "string?",
  },
  b2_hide_file: { bucketId: "string", fileName: "string" },
  b2_delete_file_version: { fileName: "string", fileId: "string" },
};
const CAPABILITY: Readonly<Record<string, string>> = {
  b2_list_buckets: "listBuckets",
  b2_get_upload_url: "writeFiles",
  b2_list_file_names: "listFiles",
  b2_list_file_versions: "listFiles",
  b2_hide_file: "writeFiles",
  b2_delete_file_version: "deleteFiles",
};

/** Headers that b2_upload_file knows; the rest of them is of HTTP. */
const UPLOAD_HEADERS = [
  "authorization",
  "content-length",
  "content-type",
  "x-bz-file-name",
  "x-bz-content-sha1",
  "user-agent",
  "host",
  "connection",
];

/** The double. */
export class B2Double {
  readonly buckets = new Map<string, DoubleBucket>();
  readonly keys = new Map<string, DoubleKey>();
  readonly requests: DoubleRequest[] = [];
  /** What no client should have done. */
  readonly complaints: string[] = [];
  faults: DoubleFault[] = [];
  /** Calls that a new token is good for. */
  tokenUses = Number.POSITIVE_INFINITY;
  /** Uploads that a new upload URL is good for. */
  uploadUrlUses = Number.POSITIVE_INFINITY;
  /** Listings have no more than this, whatever was asked for. */
  pageMost = 10_000;
  /** Whether SHA-1 is looked at; no real one does otherwise. */
  looksAtSha1 = true;
  readonly #tokens = new Map<string, Token>();
  readonly #targets = new Map<string, UploadTarget>();
  readonly #server: Server;
  #port = 0;
  #timestamp = 1_700_000_000_000;

  private constructor() {
    this.#server = createServer((request, response) => void this.#serve(request, response));
  }

  static async start(): Promise<B2Double> {
    const double = new B2Double();
    await double.resume();
    return double;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** Nothing answers any more, until {@link resume}. */
  async stop(): Promise<void> {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  /** At the same port as before. */
  async resume(): Promise<void> {
    this.#server.listen(this.#port, "127.0.0.1");
    await once(this.#server, "listening");
    this.#port = (this.#server.address() as AddressInfo).port;
  }

  addBucket(bucketName: string): DoubleBucket {
    const bucket: DoubleBucket = {
      bucketId: randomBytes(12).toString("hex"),
      bucketName,
      bucketType: "allPrivate",
      lifecycleRules: [],
      encryption: { mode: "SSE-B2", algorithm: "AES256" },
      fileLock: { isFileLockEnabled: false, defaultRetention: { mode: null, period: null } },
      versions: [],
    };
    this.buckets.set(bucketName, bucket);
    return bucket;
  }

  addKey(key: Partial<DoubleKey> = {}): DoubleKey {
    const added: DoubleKey = {
      id: `0${randomBytes(12).toString("hex")}`,
      key: `K${randomBytes(15).toString("base64")}`,
      capabilities: ALL_CAPABILITIES,
      buckets: null,
      namePrefix: null,
      ...key,
    };
    this.keys.set(added.id, added);
    return added;
  }

  /** A version as somebody else would make it. */
  addVersion(
    bucket: DoubleBucket,
    fileName: string,
    bytes: Uint8Array,
    action: DoubleVersion["action"] = "upload",
  ): DoubleVersion {
    const fileId = `4_z${bucket.bucketId}_f${randomBytes(8).toString("hex")}`;
    this.#timestamp += 1;
    const version = { fileId, fileName, action, bytes: Buffer.from(bytes) };
    const added: DoubleVersion = { ...version, uploadTimestamp: this.#timestamp };
    bucket.versions.push(added);
    return added;
  }

  /** All tokens and upload URLs that were given so far are good for nothing any more. */
  expireAll(): void {
    for (const token of this.#tokens.values()) token.usesLeft = 0;
    for (const target of this.#targets.values()) target.usesLeft = 0;
  }

  expireUploadUrls(): void {
    for (const target of this.#targets.values()) target.usesLeft = 0;
  }

  count(operation: string): number {
    return this.requests.filter((request) => request.operation === operation).length;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let operation = "?";
    let fileName: string | undefined;
    try {
      const url = new URL(request.url ?? "", this.url);
      operation = operationOf(request.method ?? "", url.pathname);
      fileName = fileNameOf(request, url.pathname);
      const isMethod = request.method === methodOf(operation);
      if (!isMethod) throw this.#complaint(405, "method_not_allowed", `${request.method} there`);
      if (request.headers["user-agent"] === undefined)
        throw this.#complaint(400, "bad_request", "no User-Agent");
      if (url.search !== "") throw this.#complaint(400, "bad_request", `query ${url.search}`);
      const fault = this.#takeFault(operation, fileName);
      const target = this.#targets.get(url.pathname);
      if (target !== undefined && typeof fault === "string") target.hasFailed = true;
      if (fault === "silence") return;
      if (fault === "portal") {
        request.resume();
        response.writeHead(200, { "content-type": "text/html" });
        response.end("<html>Sign in to this network</html>");
        return;
      }
      if (fault === "broken") {
        request.socket.destroy();
        return;
      }
      const isUpload = operation === "b2_upload_file";
      const answer = isUpload
        ? await this.#uploadAlone(request, target, fault)
        : await this.#answer(operation, request, url.pathname, fault);
      if (fault === "lost answer") request.socket.destroy();
      else this.#send(response, operation, fileName, answer, fault === "truncated");
    } catch (error) {
      if (response.headersSent || request.socket.destroyed) return;
      this.#refuse(response, operation, fileName, error);
    }
  }

  #takeFault(operation: string, fileName: string | undefined): DoubleFault["act"] | undefined {
    const fault = this.faults.find(
      (each) =>
        each.operation === operation &&
        each.times > 0 &&
        (each.fileName === undefined || each.fileName === fileName),
    );
    if (fault === undefined) return undefined;
    if ((fault.skip ?? 0) > 0) {
      fault.skip = (fault.skip ?? 0) - 1;
      return undefined;
    }
    fault.times -= 1;
    return fault.act;
  }

  #send(
    response: ServerResponse,
    operation: string,
    fileName: string | undefined,
    { status, headers, body }: Answer,
    isTruncated: boolean,
  ): void {
    this.requests.push({ operation, fileName, status });
    response.writeHead(status, { ...headers, "content-length": body.length });
    if (operation === "head") response.end();
    else if (!isTruncated) response.end(body);
    else {
      response.write(body.subarray(0, Math.ceil(body.length / 2)), () => response.destroy());
    }
  }

  #refuse(
    response: ServerResponse,
    operation: string,
    fileName: string | undefined,
    error: unknown,
  ): void {
    const known = error instanceof Refusal ? error : undefined;
    if (known === undefined) this.complaints.push(`${operation}: ${String(error)}`);
    const { status, code } = known ?? { status: 400, code: "bad_request" };
    this.requests.push({ operation, fileName, status });
    const message = (error as Error).message;
    const seconds = (error as { retryAfterSeconds?: number }).retryAfterSeconds;
    response.writeHead(status, {
      "content-type": "application/json",
      ...(seconds === undefined ? {} : { "retry-after": String(seconds) }),
    });
    response.end(operation === "head" ? undefined : JSON.stringify({ status, code, message }));
  }

  #complaint(status: number, code: string, message: string): Refusal {
    this.complaints.push(message);
    return new Refusal(status, code, message);
  }

  async #answer(
    operation: string,
    request: IncomingMessage,
    pathname: string,
    fault: DoubleFault["act"] | undefined,
  ): Promise<Answer> {
    const body = await readAll(request);
    throwFault(fault);
    if (operation === "b2_authorize_account") return json(this.#authorize(request));
    const key = this.#keyOf(request);
    if (operation === "b2_download_file_by_name" || operation === "head") {
      if (body.length > 0) throw this.#complaint(400, "bad_request", "a download with a body");
      return this.#download(request, pathname, key);
    }
    const fields = this.#fieldsOf(operation, request, body);
    const capability = CAPABILITY[operation] ?? "";
    if (!key.capabilities.includes(capability)) throw unauthorized(`it lacks ${capability}`);
    return json(this.#call(operation, fields, key));
  }

  #authorize(request: IncomingMessage): object {
    const [scheme = "", credentials = ""] = (request.headers.authorization ?? "").split(" ");
    if (scheme !== "Basic") throw this.#complaint(401, "unauthorized", "not by Basic");
    const [id = "", ...rest] = Buffer.from(credentials, "base64").toString("utf8").split(":");
    const key = this.keys.get(id);
    if (key === undefined || key.key !== rest.join(":")) {
      throw new Refusal(401, "bad_auth_token", "");
    }
    const token = `4_${randomUUID()}_acct`;
    this.#tokens.set(token, { key, usesLeft: this.tokenUses });
    const buckets =
      key.buckets?.map((name) => ({ id: this.buckets.get(name)?.bucketId ?? "gone", name })) ??
      null;
    const { capabilities, namePrefix } = key;
    return {
      accountId: ACCOUNT,
      authorizationToken: token,
      applicationKeyExpirationTimestamp: null,
      apiInfo: {
        storageApi: {
          absoluteMinimumPartSize: 5_000_000,
          recommendedPartSize: 100_000_000,
          apiUrl: this.url,
          downloadUrl: this.url,
          s3ApiUrl: this.url,
          allowed: { buckets, capabilities, namePrefix },
        },
      },
    };
  }

  #keyOf(request: IncomingMessage): DoubleKey {
    const { authorization } = request.headers;
    const token = this.#tokens.get(authorization ?? "");
    if (token === undefined) throw this.#complaint(401, "bad_auth_token", "a token that is none");
    if (token.usesLeft <= 0) throw new Refusal(401, "expired_auth_token", "");
    token.usesLeft -= 1;
    return token.key;
  }

  #fieldsOf(operation: string, request: IncomingMessage, body: Buffer): Record<string, unknown> {
    if (request.headers["content-type"] !== "application/json") {
      throw this.#complaint(400, "bad_request", `${operation}: not application/json`);
    }
    const fields = JSON.parse(body.toString("utf8")) as Record<string, unknown>;
    const known = FIELDS[operation] ?? {};
    for (const [name, value] of Object.entries(fields)) {
      if (known[name]?.replace("?", "") !== typeof value) {
        throw this.#complaint(400, "bad_request", `${operation}: field ${name}`);
      }
    }
    for (const [name, type] of Object.entries(known)) {
      if (!type.endsWith("?") && fields[name] === undefined) {
        throw this.#complaint(400, "bad_request", `${operation}: no field ${name}`);
      }
    }
    return fields;
  }

  #call(operation: string, fields: Record<string, unknown>, key: DoubleKey): object {
    switch (operation) {
      case "b2_list_buckets":
        return this.#listBuckets(fields, key);
      case "b2_get_upload_url":
        return this.#getUploadUrl(this.#bucketOf(fields, key), key);
      case "b2_list_file_names":
        return this.#list(fields, key, true);
      case "b2_list_file_versions":
        return this.#list(fields, key, false);
      case "b2_hide_file": {
        const fileName = this.#nameFor(fields["fileName"] as string, key);
        const bucket = this.#bucketOf(fields, key);
        return describeVersion(this.addVersion(bucket, fileName, new Uint8Array(), "hide"));
      }
      default:
        return this.#deleteVersion(fields, key);
    }
  }

  #listBuckets(fields: Record<string, unknown>, key: DoubleKey): object {
    if (fields["accountId"] !== ACCOUNT) throw this.#complaint(400, "bad_request", "accountId");
    const { bucketName, bucketId } = fields;
    const matching = [...this.buckets.values()].filter(
      (bucket) =>
        (bucketName === undefined || bucket.bucketName === bucketName) &&
        (bucketId === undefined || bucket.bucketId === bucketId),
    );
    const isOwn = matching.every(({ bucketName: name }) => key.buckets?.includes(name) ?? true);
    if (key.buckets !== null && (!isOwn || matching.length === 0))
      throw unauthorized("other bucket");
    return { buckets: matching.map((bucket) => describeBucket(bucket, key)) };
  }

  #bucketOf({ bucketId }: Record<string, unknown>, key: DoubleKey): DoubleBucket {
    const bucket = [...this.buckets.values()].find((each) => each.bucketId === bucketId);
    if (bucket === undefined) throw new Refusal(400, "bad_bucket_id", `Invalid bucketId`);
    if (key.buckets?.includes(bucket.bucketName) === false) throw unauthorized("other bucket");
    return bucket;
  }

  #nameFor(name: string, key: DoubleKey): string {
    checkFileName(name);
    if (!name.startsWith(key.namePrefix ?? "")) throw unauthorized("other prefix");
    return name;
  }

  #getUploadUrl(bucket: DoubleBucket, key: DoubleKey): object {
    const path = `/b2api/v4/b2_upload_file/${bucket.bucketId}/c${randomBytes(6).toString("hex")}`;
    const token = `4_${randomUUID()}_upld`;
    const target = {
      token,
      bucket,
      key,
      isBusy: false,
      hasFailed: false,
      usesLeft: this.uploadUrlUses,
    };
    this.#targets.set(path, target);
    const { bucketId } = bucket;
    return { bucketId, uploadUrl: this.url + path, authorizationToken: token };
  }

  #list(fields: Record<string, unknown>, key: DoubleKey, isNames: boolean): object {
    const bucket = this.#bucketOf(fields, key);
    const {
      prefix = "",
      startFileName: start = "",
      startFileId,
    } = fields as Record<string, string>;
    const { maxFileCount = 100 } = fields as { maxFileCount?: number };
    if (!prefix.startsWith(key.namePrefix ?? "")) throw unauthorized("other prefix");
    if (start !== "" && !start.startsWith(prefix))
      throw this.#complaint(400, "bad_request", "start");
    if (startFileId !== undefined && start === "") throw this.#complaint(400, "bad_request", "id");
    const isCount = Number.isInteger(maxFileCount) && maxFileCount >= 1 && maxFileCount <= 10_000;
    if (!isCount) throw this.#complaint(400, "out_of_range", "maxFileCount out of range");
    const all = inOrder(bucket).filter(({ fileName }) => fileName.startsWith(prefix));
    const shown = isNames ? newestVisible(all) : all;
    const exact = shown.findIndex((each) => each.fileName === start && each.fileId === startFileId);
    if (startFileId !== undefined && exact < 0) throw new Refusal(400, "invalid_file_id", "");
    const from =
      exact >= 0 ? shown.slice(exact) : shown.filter(({ fileName }) => fileName >= start);
    const most = Math.min(maxFileCount, this.pageMost);
    const next = from[most];
    return {
      files: from.slice(0, most).map(describeVersion),
      nextFileName: next?.fileName ?? null,
      ...(isNames ? {} : { nextFileId: next?.fileId ?? null }),
    };
  }

  #deleteVersion(fields: Record<string, unknown>, key: DoubleKey): object {
    const { fileName, fileId } = fields as Record<string, string>;
    this.#nameFor(fileName as string, key);
    for (const { bucketName, versions } of this.buckets.values()) {
      const at = versions.findIndex((each) => each.fileId === fileId && each.fileName === fileName);
      if (at < 0) continue;
      if (key.buckets?.includes(bucketName) === false) throw unauthorized("other bucket");
      versions.splice(at, 1);
      return { fileName, fileId };
    }
    throw new Refusal(400, "file_not_present", `${fileName} is not present`);
  }

  #download(request: IncomingMessage, pathname: string, key: DoubleKey): Answer {
    if (!key.capabilities.includes("readFiles")) throw unauthorized("it lacks readFiles");
    const [, , bucketName = "", ...rest] = pathname.split("/");
    const written = rest.join("/");
    const fileName = decodeURIComponent(written);
    if (encodeFileName(fileName) !== written) throw this.#complaint(400, "bad_request", written);
    this.#nameFor(fileName, key);
    const bucket = this.buckets.get(bucketName);
    if (key.buckets?.includes(bucketName) === false) throw unauthorized("other bucket");
    const newest = bucket?.versions.findLast((each) => each.fileName === fileName);
    if (newest === undefined || newest.action === "hide") throw new Refusal(404, "not_found", "");
    const headers = {
      "content-type": "application/octet-stream",
      "x-bz-file-id": newest.fileId,
      "x-bz-file-name": written,
      "x-bz-content-sha1": sha1Of(newest.bytes),
      "x-bz-upload-timestamp": String(newest.uploadTimestamp),
    };
    const { range } = request.headers;
    if (range === undefined) return { status: 200, headers, body: newest.bytes };
    const [, first = "", last = ""] = /^bytes=(\d+)-(\d+)$/.exec(range) ?? [];
    if (first === "" || Number(last) < Number(first))
      throw this.#complaint(400, "bad_request", range);
    if (Number(first) >= newest.bytes.length)
      throw new Refusal(416, "range_not_satisfiable", range);
    const body = newest.bytes.subarray(Number(first), Number(last) + 1);
    const end = Number(first) + body.length - 1;
    const contentRange = `bytes ${first}-${end}/${newest.bytes.length}`;
    return { status: 206, headers: { ...headers, "content-range": contentRange }, body };
  }

  async #uploadAlone(
    request: IncomingMessage,
    target: UploadTarget | undefined,
    fault: DoubleFault["act"] | undefined,
  ): Promise<Answer> {
    if (target === undefined) throw this.#complaint(401, "bad_auth_token", "no such upload URL");
    if (request.headers.authorization !== target.token) {
      throw this.#complaint(401, "bad_auth_token", "another upload URL's token");
    }
    if (target.isBusy) {
      const message = `More than one concurrent upload using auth token ${target.token}`;
      throw this.#complaint(400, "auth_token_limit", message);
    }
    if (target.hasFailed && fault === undefined) {
      throw this.#complaint(401, "bad_auth_token", "an upload URL that has failed");
    }
    if (target.usesLeft <= 0) {
      target.hasFailed = true;
      throw new Refusal(401, "expired_auth_token", "");
    }
    target.usesLeft -= 1;
    target.isBusy = true;
    try {
      return json(await this.#upload(request, target, fault));
    } catch (error) {
      target.hasFailed = true;
      throw error;
    } finally {
      target.isBusy = false;
    }
  }

  async #upload(
    request: IncomingMessage,
    { bucket, key }: UploadTarget,
    fault: DoubleFault["act"] | undefined,
  ): Promise<object> {
    const { headers } = request;
    for (const name of Object.keys(headers)) {
      if (!UPLOAD_HEADERS.includes(name))
        throw this.#complaint(400, "bad_request", `header ${name}`);
    }
    for (const name of UPLOAD_HEADERS) {
      if (headers[name] === undefined) throw this.#complaint(400, "bad_request", `no ${name}`);
    }
    const written = headers["x-bz-file-name"] as string;
    const fileName = this.#nameFor(decodeURIComponent(written), key);
    if (encodeFileName(fileName) !== written) throw this.#complaint(400, "bad_request", written);
    const sha1 = headers["x-bz-content-sha1"] as string;
    if (!/^[0-9a-f]{40}$/.test(sha1)) throw this.#complaint(400, "bad_request", `SHA-1 ${sha1}`);
    const bytes = await readAll(request);
    throwFault(fault);
    if (this.looksAtSha1 && sha1Of(bytes) !== sha1) {
      throw new Refusal(400, "bad_request", "Sha1 did not match data received");
    }
    // As long as an upload takes, others may try to use its URL.
    await new Promise(setImmediate);
    if (!this.buckets.has(bucket.bucketName)) throw new Refusal(400, "bad_bucket_id", "it is gone");
    return describeVersion(this.addVersion(bucket, fileName, bytes));
  }
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

function json(value: object): Answer {
  const body = Buffer.from(JSON.stringify(value));
  return { status: 200, headers: { "content-type": "application/json;charset=UTF-8" }, body };
}

function unauthorized(message: string): Refusal {
  return new Refusal(401, "unauthorized", message);
}

function throwFault(fault: DoubleFault["act"] | undefined): void {
  if (typeof fault !== "object") return;
  const { status, code, message = "as the test wants it", retryAfterSeconds } = fault;
  throw Object.assign(new Refusal(status, code, message), { retryAfterSeconds });
}

async function readAll(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

function sha1Of(bytes: Uint8Array): string {
  return createHash("sha1").update(bytes).digest("hex");
}

function operationOf(method: string, pathname: string): string {
  if (pathname.startsWith("/file/")) return method === "HEAD" ? "head" : "b2_download_file_by_name";
  const [, api, version, operation = ""] = pathname.split("/");
  const isKnown =
    operation in FIELDS || ["b2_authorize_account", "b2_upload_file"].includes(operation);
  if (api !== "b2api" || version !== "v4" || !isKnown) {
    throw new Error(`there is nothing at ${pathname}`);
  }
  return operation;
}

function methodOf(operation: string): string {
  if (operation === "head") return "HEAD";
  return ["b2_authorize_account", "b2_download_file_by_name"].includes(operation) ? "GET" : "POST";
}

function fileNameOf({ headers }: IncomingMessage, pathname: string): string | undefined {
  const written = headers["x-bz-file-name"] ?? /^\/file\/[^/]+\/(.*)$/.exec(pathname)?.[1];
  return typeof written === "string" ? decodeURIComponent(written) : undefined;
}

/** By name, and newest first within a name. */
function inOrder({ versions }: DoubleBucket): DoubleVersion[] {
  return versions
    .toReversed()
    .sort((one, other) =>
      one.fileName < other.fileName ? -1 : one.fileName > other.fileName ? 1 : 0,
    );
}

function newestVisible(ordered: readonly DoubleVersion[]): DoubleVersion[] {
  return ordered.filter(
    ({ fileName, action }, at) => ordered[at - 1]?.fileName !== fileName && action === "upload",
  );
}

function describeVersion(version: DoubleVersion): object {
  const { fileId, fileName, action, bytes, uploadTimestamp } = version;
  return {
    fileId,
    fileName,
    action,
    uploadTimestamp,
    contentLength: bytes.length,
    contentSha1: action === "upload" ? sha1Of(bytes) : null,
    contentType: action === "upload" ? "application/octet-stream" : null,
    fileInfo: {},
  };
}

function describeBucket(bucket: DoubleBucket, { capabilities }: DoubleKey): object {
  const { bucketId, bucketName, bucketType, lifecycleRules, encryption, fileLock } = bucket;
  const readable = (capability: string, value: object | null): object => {
    const isClientAuthorizedToRead = capabilities.includes(capability);
    return { isClientAuthorizedToRead, value: isClientAuthorizedToRead ? value : null };
  };
  return {
    accountId: ACCOUNT,
    bucketId,
    bucketName,
    bucketType,
    bucketInfo: {},
    corsRules: [],
    lifecycleRules,
    revision: 1,
    options: [],
    defaultServerSideEncryption: readable("readBucketEncryption", encryption),
    fileLockConfiguration: readable("readBucketRetentions", fileLock),
  };
}
