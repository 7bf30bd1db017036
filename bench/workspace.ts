/** The benchmark's folder and whatever else has to be undone at its end, also when it is interrupted. */
import { mkdir, mkdtemp, open, readdir, rm, stat, statfs } from "node:fs/promises";
import path from "node:path";
import { runPlain } from "./measured-run.ts";

const READ_BYTES = 4 * 1024 * 1024;

/** A temporary folder, and what is to be undone before it goes. */
export class Workspace {
  readonly folder: string;
  readonly #undo: (() => Promise<void>)[] = [];
  #closing: Promise<void> | undefined;
  #serial = 0;

  private constructor(folder: string) {
    this.folder = folder;
  }

  static async create(directory: string): Promise<Workspace> {
    await mkdir(directory, { recursive: true });
    return new Workspace(await mkdtemp(path.join(directory, "ashlar-bench-")));
  }

  /** A new path in the folder; nothing is made there. */
  newPath(name: string): string {
    this.#serial += 1;
    return path.join(this.folder, `${name}-${this.#serial}`);
  }

  /** Registers what `close` does, last first. */
  atEnd(undo: () => Promise<void>): void {
    this.#undo.push(undo);
  }

  /** Undoes everything, once; what fails is reported and does not stop the rest. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    for (;;) {
      const undo = this.#undo.pop();
      if (undo === undefined) break;
      try {
        await undo();
      } catch (error) {
        console.error(`cleaning up: ${(error as Error).message}`);
      }
    }
    // Retries, for an interrupted program may still be writing its last file.
    await rm(this.folder, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
  }
}

/** Bytes that the file system has free for us. */
export async function freeBytes(folder: string): Promise<number> {
  const { bavail, bsize } = await statfs(folder);
  return bavail * bsize;
}

async function filesBelow(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name));
}

/** The lengths of all files below a folder, added up: what is stored, without the file system's rounding. */
export async function folderBytes(folder: string): Promise<number> {
  let bytes = 0;
  for (const file of await filesBelow(folder)) bytes += (await stat(file)).size;
  return bytes;
}

/** Reads a file through, so that it is in the page cache. */
export async function warmFile(file: string): Promise<void> {
  const handle = await open(file);
  const buffer = Buffer.alloc(READ_BYTES);
  try {
    while ((await handle.read(buffer, 0, buffer.length)).bytesRead > 0);
  } finally {
    await handle.close();
  }
}

/** Reads all files below a folder through. */
export async function warmFolder(folder: string): Promise<void> {
  for (const file of await filesBelow(folder)) await warmFile(file);
}

/** Waits until nothing is left to be written, so that one run does not pay for the one before. */
export async function settle(): Promise<void> {
  await runPlain({ program: "sync", args: [] });
}

/** Seconds until a file that was just written is on the disk. */
export async function flushSeconds(file: string): Promise<number> {
  const startedAt = process.hrtime.bigint();
  const handle = await open(file, "r+");
  try {
    await handle.datasync();
  } finally {
    await handle.close();
  }
  return Number(process.hrtime.bigint() - startedAt) / 1e9;
}

/** Throws where two files differ. */
export async function assertSame(left: string, right: string): Promise<void> {
  const differs = new Error(`${path.basename(right)} differs from what was backed up`);
  if ((await stat(left)).size !== (await stat(right)).size) throw differs;
  const handles = [await open(left), await open(right)] as const;
  const buffers = [Buffer.alloc(READ_BYTES), Buffer.alloc(READ_BYTES)] as const;
  try {
    for (let position = 0; ; position += READ_BYTES) {
      const [one, other] = await Promise.all([
        handles[0].read(buffers[0], 0, READ_BYTES, position),
        handles[1].read(buffers[1], 0, READ_BYTES, position),
      ]);
      if (one.bytesRead !== other.bytesRead) throw differs;
      if (one.bytesRead === 0) return;
      if (buffers[0].compare(buffers[1], 0, one.bytesRead, 0, one.bytesRead) !== 0) throw differs;
    }
  } finally {
    for (const handle of handles) await handle.close();
  }
}
