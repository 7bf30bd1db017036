/**
 * Finds a file system that takes a file of 16 TiB. ext4 does not; tmpfs does, and so does xfs, which
 * is made in a file and mounted through a loop device. Both mounts need root; an existing tmpfs does not.
 */
import { mkdir, mkdtemp, open, rm, statfs, truncate, writeFile } from "node:fs/promises";
import path from "node:path";
import { runPlain } from "./measured-run.ts";
import { freeBytes, type Workspace } from "./workspace.ts";
import { SPARSE_BYTES } from "./data.ts";

const SHARED_MEMORY = "/dev/shm";
const TMPFS_MAGIC = 0x0102_1994;

/** Where the sparse image goes, and on what it lies. */
export interface SparsePlace {
  readonly folder: string;
  readonly kind: "tmpfs" | "xfs";
}

function isRoot(): boolean {
  return process.getuid?.() === 0;
}

async function existingTmpfs(workspace: Workspace, bytes: number): Promise<string | undefined> {
  try {
    if ((await statfs(SHARED_MEMORY)).type !== TMPFS_MAGIC) return undefined;
    if ((await freeBytes(SHARED_MEMORY)) < bytes) return undefined;
    const folder = await mkdtemp(path.join(SHARED_MEMORY, "ashlar-bench-"));
    workspace.atEnd(() => rm(folder, { recursive: true, force: true }));
    return folder;
  } catch {
    return undefined;
  }
}

async function mountAt(workspace: Workspace, args: readonly string[]): Promise<string> {
  const folder = workspace.newPath("mount");
  await mkdir(folder);
  await runPlain({ program: "mount", args: [...args, folder] });
  workspace.atEnd(async () => {
    // Lazy, for a program that was just killed may still hold a file there.
    await runPlain({ program: "umount", args: ["--lazy", folder] });
  });
  return folder;
}

async function mountXfs(workspace: Workspace, bytes: number): Promise<string> {
  const image = workspace.newPath("xfs");
  await writeFile(image, "");
  await truncate(image, bytes);
  // mkfs lies outside of many users' PATH.
  const env = { PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/sbin` };
  await runPlain({ program: "mkfs.xfs", args: ["-q", image], env });
  return await mountAt(workspace, ["-o", "loop", image]);
}

/** True where the file system really takes a file of that size. */
async function takesSparse(folder: string): Promise<boolean> {
  const file = path.join(folder, "probe");
  const handle = await open(file, "w");
  try {
    await handle.truncate(SPARSE_BYTES);
    return true;
  } catch {
    return false;
  } finally {
    await handle.close();
    await rm(file, { force: true });
  }
}

/** Finds or makes the place; throws with the reason where there is none. */
export async function findSparsePlace(
  workspace: Workspace,
  dataBytes: number,
  wanted: "tmpfs" | "xfs" | undefined,
): Promise<SparsePlace> {
  const bytes = Math.ceil(dataBytes * 1.25) + 64 * 1024 ** 2;
  const tmpfs = wanted === "xfs" ? undefined : await existingTmpfs(workspace, bytes);
  let place: SparsePlace | undefined =
    tmpfs === undefined ? undefined : { folder: tmpfs, kind: "tmpfs" };
  if (place === undefined && !isRoot())
    throw new Error(
      `a file of 16 TiB needs a tmpfs with ${bytes} free bytes, or root to mount one`,
    );
  if (place === undefined && wanted !== "xfs") {
    const args = ["-t", "tmpfs", "-o", `size=${bytes},mode=0700`, "tmpfs"];
    place = { folder: await mountAt(workspace, args), kind: "tmpfs" };
  }
  place ??= { folder: await mountXfs(workspace, bytes * 2), kind: "xfs" };
  if (!(await takesSparse(place.folder)))
    throw new Error(`the ${place.kind} at hand does not take a file of 16 TiB`);
  return place;
}
