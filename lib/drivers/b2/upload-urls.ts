// URLs to upload to. Each leads to one place at B2, is good for 24 hours or until an upload fails there, and takes one upload at a
// time (https://www.backblaze.com/apidocs/b2-get-upload-url, https://www.backblaze.com/docs/cloud-storage-upload-files-with-the-native-api).

/** An URL with the token for it alone. */
export interface UploadUrl {
  readonly uploadUrl: string;
  readonly authorizationToken: string;
}

/** Those that nobody uses now. Whoever takes one has it alone until it is given back; after a failure it is not. */
export class UploadUrls {
  readonly #idle: UploadUrl[] = [];
  readonly #most: number;

  constructor(most: number) {
    this.#most = most;
  }

  /** The one that was used last: it is the least likely to have expired. */
  take(): UploadUrl | undefined {
    return this.#idle.pop();
  }

  giveBack(url: UploadUrl): void {
    if (this.#idle.length < this.#most) this.#idle.push(url);
  }
}
