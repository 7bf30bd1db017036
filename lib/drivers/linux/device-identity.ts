// What tells that a source opened later still has the content that it had.
import type { BigIntStats } from "node:fs";
import { readFileSync } from "node:fs";
import path from "node:path";
import { deviceName, KERNEL, sectorsChanged, type KernelFolders } from "./device-users.ts";

/** Of an image file: which file it is, and when it was written to last. */
export function fileIdentity(stat: BigIntStats): string {
  const { dev, ino, size, mtimeNs, ctimeNs } = stat;
  return ["file", dev, ino, size, mtimeNs, ctimeNs].join(":");
}

/**
 * Of a block device: which one of all since the machine started, and how much was written to it; undefined where the kernel
 * does not tell. A snapshot that was made anew under the same name, with the same numbers, is another one.
 */
export function deviceIdentity(
  stat: BigIntStats,
  sizeBytes: number,
  kernel: KernelFolders = KERNEL,
): string | undefined {
  const folder = path.join(kernel.sys, "dev/block", deviceName(stat.rdev));
  // The sequence number is given to every disk that appears (Documentation/ABI/stable/sysfs-block, Linux 5.15).
  const sequence = readOr(path.join(folder, "diskseq"));
  const uuid = readOr(path.join(folder, "dm/uuid"));
  const boot = readOr(path.join(kernel.proc, "sys/kernel/random/boot_id"));
  const written = sectorsChanged(stat.rdev, kernel);
  if (boot === "" || written === undefined || (sequence === "" && uuid === "")) return undefined;
  return ["device", boot, deviceName(stat.rdev), sequence, uuid, sizeBytes, written].join(":");
}

function readOr(file: string): string {
  try {
    return readFileSync(file, "utf8").trim();
  } catch {
    return "";
  }
}
