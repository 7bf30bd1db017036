// The URL of a storage in a bucket: SCHEME://BUCKET/PREFIX?option=value. Everything but secrets stands in it.
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import type { WrongUrl } from "./url-options.ts";

/** Such a URL, taken apart. */
export interface BucketUrl {
  readonly bucket: string;
  /** What the names of all objects begin with: empty, or with a slash at its end. */
  readonly prefix: string;
  readonly params: URLSearchParams;
  /** Makes the error for what else is wrong with it. */
  readonly wrong: WrongUrl;
}

/**
 * Takes the URL of a storage in a bucket apart; Usage where something of it is wrong.
 * @param isBucket whether something may be the name of a bucket
 */
export function parseBucketUrl(
  url: string,
  scheme: string,
  isBucket: (name: string) => boolean,
): BucketUrl {
  const form = `${scheme}://BUCKET/PREFIX`;
  const wrong: WrongUrl = (problem) =>
    new AshlarError(ErrorCode.Usage, `storage ${withoutSecrets(url)}: ${problem}`, {
      remedy: `write ${form}?option=value, with options as docs/storages.md lists them`,
    });
  if (!URL.canParse(url)) throw wrong("that is not a URL");
  const { hostname, host, username, password, pathname, searchParams, hash } = new URL(url);
  if (username !== "" || password !== "") {
    throw wrong("credentials do not belong into a URL, where everybody sees them");
  }
  if (hash !== "" || host !== hostname) throw wrong(`expected ${form}`);
  if (!isBucket(hostname)) {
    throw wrong(`${JSON.stringify(hostname)} is not the name of a bucket`);
  }
  const path = pathname.replace(/^\/+|\/+$/g, "");
  if (path !== "" && !/^[-a-zA-Z0-9._~]+(?:\/[-a-zA-Z0-9._~]+)*$/.test(path)) {
    throw wrong(`the prefix ${JSON.stringify(path)} has characters that make trouble in keys`);
  }
  return { bucket: hostname, prefix: path === "" ? "" : `${path}/`, params: searchParams, wrong };
}

/** A place below the prefix of another one. A place is what the URL has after the scheme. */
export function innerBucketPlace(scheme: string, place: string, name: string): string {
  const url = new URL(`${scheme}:${place}`);
  url.pathname = `${url.pathname.replace(/\/$/, "")}/${name}`;
  return url.href.slice(scheme.length + 1);
}

/** For messages: secrets that somebody has put there by mistake are not repeated. They may hold slashes and question marks. */
export function withoutSecrets(url: string): string {
  const place = url.replace(/\/\/.*@/s, "//…@");
  return place.split("?", 1)[0] ?? place;
}
