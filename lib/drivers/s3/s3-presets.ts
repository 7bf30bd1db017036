// What known services want, or cannot do: so that nobody has to find it out again. Whatever a preset says, an option of the URL
// overrules it.

/** What differs between services that speak S3. */
export interface S3Preset {
  /** In words, for the documentation and `storage check`. */
  readonly service: string;
  /** Where it answers, with `{region}` in it where regions have addresses of their own; undefined: it must be given. */
  readonly endpoint?: string;
  readonly region?: string;
  readonly addressing?: "path" | "virtual";
  /** It takes `If-None-Match: *`, and of several creators one wins. */
  readonly conditionalWrites?: boolean;
  /** So it does in a bucket that keeps versions; otherwise it does not look at the condition there. */
  readonly conditionalVersions?: boolean;
  /** It takes DeleteObjects. */
  readonly multiDelete?: boolean;
  /** What it holds the bytes of a put against. */
  readonly checksum?: S3Checksum;
  /** The same for what is put under a lock, for which Amazon wants one of those that S3 has had from the beginning. */
  readonly lockChecksum?: S3Checksum;
  /** A listing shows every object that was put before it began. */
  readonly consistentListing?: boolean;
}

/**
 * How the service makes sure that it got what was sent. `signature`: the SHA-256 of the bytes is part of what is signed, which
 * every service must look at; it is faster than MD5.
 */
export const S3_CHECKSUMS = ["signature", "crc32", "sha256", "md5", "none"] as const;
export type S3Checksum = (typeof S3_CHECKSUMS)[number];

/** The presets by name. The first is the default, unless an endpoint is given: then it is `compatible`. */
export const S3_PRESETS: Readonly<Record<string, S3Preset>> = {
  aws: { service: "Amazon S3", checksum: "crc32", conditionalWrites: true },
  compatible: {
    service: "another service that speaks S3",
    region: "us-east-1",
    addressing: "path",
    checksum: "signature",
    lockChecksum: "md5",
    conditionalWrites: true,
  },
  rgw: {
    service: "Ceph Object Gateway",
    conditionalVersions: false,
    region: "us-east-1",
    addressing: "path",
    // It takes the headers of CRC32 and SHA-256 and does not look at them.
    checksum: "signature",
    conditionalWrites: true,
  },
  minio: {
    service: "MinIO",
    region: "us-east-1",
    addressing: "path",
    checksum: "crc32",
    conditionalWrites: true,
  },
  garage: {
    service: "Garage",
    region: "garage",
    addressing: "path",
    checksum: "crc32",
    conditionalWrites: false,
  },
  wasabi: {
    service: "Wasabi",
    endpoint: "https://s3.{region}.wasabisys.com",
    region: "us-east-1",
    addressing: "virtual",
    checksum: "signature",
    lockChecksum: "md5",
    conditionalWrites: false,
  },
  r2: {
    service: "Cloudflare R2",
    region: "auto",
    addressing: "path",
    checksum: "signature",
    lockChecksum: "md5",
    conditionalWrites: true,
  },
  google: {
    service: "Google Cloud Storage, by its XML interface with HMAC keys",
    endpoint: "https://storage.googleapis.com",
    region: "auto",
    addressing: "path",
    checksum: "signature",
    lockChecksum: "md5",
    conditionalWrites: false,
    multiDelete: false,
  },
  b2: {
    service: "Backblaze B2, by its S3 interface",
    endpoint: "https://s3.{region}.backblazeb2.com",
    addressing: "virtual",
    checksum: "signature",
    lockChecksum: "md5",
    conditionalWrites: false,
  },
  storagegrid: {
    service: "NetApp StorageGRID",
    region: "us-east-1",
    addressing: "path",
    checksum: "signature",
    lockChecksum: "md5",
    conditionalWrites: true,
    // With its default consistency a listing may lag behind.
    consistentListing: false,
  },
  swift: {
    service: "OpenStack Swift, by its S3 interface",
    region: "us-east-1",
    addressing: "path",
    checksum: "signature",
    lockChecksum: "md5",
    conditionalWrites: false,
    consistentListing: false,
  },
};
