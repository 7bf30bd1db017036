// The ashlar.yaml that `init` writes: what was chosen, and everything else as a comment with its default, so that the file
// is its own manual.
import { formatSizeExact } from "#lib/core/size.ts";
import type { Compression } from "#proto/sealed-object.ts";

/** What `init` decided. Paths and URLs are written as they are. */
export interface ConfigChoices {
  readonly metadata: string;
  readonly keyFile?: string | undefined;
  readonly passphraseFile?: string | undefined;
  readonly blockBytes: number;
  readonly compression: Compression;
  readonly quorum: number;
  readonly storages: readonly {
    readonly name: string;
    readonly url: string;
    readonly site?: string | undefined;
  }[];
}

/** The text of an ashlar.yaml. */
export function renderConfig(choices: ConfigChoices): string {
  return [
    "# Configuration of an Ashlar repository. Paths are relative to this file.",
    "version: 1",
    "",
    "# The folder of the metadata. It can be made again from any storage and the key: ashlar rebuild.",
    `metadata: ${quote(choices.metadata)}`,
    "",
    ...access(choices),
    "",
    "# The name of this machine in sessions and messages; its host name unless given.",
    "#host: hypervisor-1",
    "",
    ...storages(choices),
    "",
    ...defaults(choices),
    "",
    "sessions:",
    "  # How long a process may be silent before others take it for dead. On one machine a dead process is noticed at once.",
    "  #lease: 30s",
    "  # How long a backup that failed can be resumed.",
    "  #resumeWindow: 24h",
    "  # How long to wait for a block that another backup is sending before sending it again.",
    "  #patience: 30s",
    "",
    "memory:",
    "  # For blocks in flight; chosen from block size and number of processors unless given.",
    "  #budget: 256MiB",
    "",
    "log:",
    "  # error, warn, info or debug; --log-level overrides it.",
    "  #level: info",
    "  # text or json; --log-format overrides it.",
    "  #format: text",
    "",
  ].join("\n");
}

function access({ keyFile, passphraseFile }: ConfigChoices): string[] {
  const lines = [
    "# What opens the repository: a key file or a file with a passphrase. Without either, ASHLAR_PASSPHRASE_FILE and",
    "# ASHLAR_PASSPHRASE are looked at, and then a terminal asks. Keep a copy of it off this machine: without it, nobody",
    "# can read the backups.",
  ];
  if (keyFile !== undefined) lines.push(`keyFile: ${quote(keyFile)}`);
  if (passphraseFile !== undefined) lines.push(`passphraseFile: ${quote(passphraseFile)}`);
  if (keyFile === undefined && passphraseFile === undefined)
    lines.push("#passphraseFile: /etc/ashlar/passphrase");
  return lines;
}

function storages(choices: ConfigChoices): string[] {
  const lines = [
    "# Where backups go: any number of places, each a path, file:///PATH, s3://BUCKET/PREFIX or",
    "# b2://BUCKET/PREFIX. Beside name and url each may have:",
    "#   site: cellar              which of them can be lost together; its own name unless given",
    "#   readOrder: 1              storages with a lower one are read first; of equal ones, all at once",
    "#   simultaneousReads: 8      the requests of a process that are under way",
    "#   simultaneousWrites: 8",
    "#   simultaneousRemovals: 4   batches of objects that are deleted at once",
    "#   bandwidthRead: 50MiB      bytes per second of a process; without a limit unless given",
    "#   bandwidthWrite: 20MiB",
    "#   cache: { path: /var/cache/ashlar, size: 20GiB }   keeps what restores have read; none unless given",
    "storages:",
  ];
  for (const { name, url, site } of choices.storages) {
    lines.push(`  - name: ${quote(name)}`, `    url: ${quote(url)}`);
    if (site !== undefined) lines.push(`    site: ${quote(site)}`);
  }
  return lines;
}

function defaults(choices: ConfigChoices): string[] {
  return [
    "defaults:",
    "  # Of new versions: a power of two between 64KiB and 16MiB.",
    `  blockSize: ${formatSizeExact(choices.blockBytes)}`,
    "  # zstd, lz4 or none; the level is zstd's, 1 to 19.",
    `  compression: ${choices.compression}`,
    "  #compressionLevel: 1",
    "  # How many storages must have a version whole before it counts.",
    `  quorum: ${choices.quorum}`,
    "  # The storages that a version goes to: all unless given.",
    "  #storages: [name, name]",
    "  # The share of blocks that hints call unchanged and that are checked nonetheless, others in each run.",
    "  #hintSample: 0.1%",
  ];
}

/** Plain where YAML reads it back as the same text, quoted otherwise. */
function quote(text: string): string {
  const plain = /^[./a-zA-Z][-./a-zA-Z0-9_]*(?::\/\/[-./a-zA-Z0-9_%@]*)?$/.test(text);
  return plain && !/^(?:true|false|null|yes|no|on|off)$/i.test(text) ? text : JSON.stringify(text);
}
