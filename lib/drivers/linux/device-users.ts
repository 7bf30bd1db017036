// Who uses a block device or an image file at this moment: mounts, swap, and devices stacked on it (partitions, LVM, md,
// loop). From /proc and /sys; what cannot be read there is taken for unused.
import { readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";

/** One use. */
export interface DeviceUse {
  /**
   * "mounted"; "swap"; "held": a device is stacked on it; "attached": a loop device stands for it; "opened": a virtual
   * machine has it open.
   */
  readonly kind: "mounted" | "swap" | "held" | "attached" | "opened";
  /** For people, as the end of a sentence that begins with the device: "is mounted read-write at /srv". */
  readonly sentence: string;
  /** Whether it may be written to through this use. */
  readonly writable: boolean;
}

/** Where the kernel tells; tests have their own. */
export interface KernelFolders {
  readonly proc: string;
  readonly sys: string;
}

/** Where the kernel has them. */
export const KERNEL: KernelFolders = { proc: "/proc", sys: "/sys" };

/** A line of /proc/self/mountinfo. */
export interface Mount {
  /** "major:minor" */
  readonly device: string;
  readonly mountPoint: string;
  readonly source: string;
  readonly writable: boolean;
}

/** Uses of a block device. Those that are merely stacked on it are listed too: they hold it. */
export function usesOfBlockDevice(rdev: bigint, kernel: KernelFolders = KERNEL): DeviceUse[] {
  const device = deviceName(rdev);
  const uses = usesOfDevices(stackedDevices(device, kernel), kernel);
  const holders = listFolder(path.join(kernel.sys, "dev/block", device, "holders"));
  if (holders.length > 0) {
    uses.push({ kind: "held", sentence: `is held by ${holders.join(", ")}`, writable: true });
  }
  return uses;
}

/** Uses of an image file: as swap, or through loop devices. */
export function usesOfFile(file: string, kernel: KernelFolders = KERNEL): DeviceUse[] {
  const identity = identityOf(file);
  if (identity === undefined) return [];
  const loops = loopDevicesOf(identity, kernel);
  const stacked = loops.flatMap(({ device }) => stackedDevices(device, kernel));
  const uses = usesOfDevices(stacked, kernel);
  for (const { name, writable } of loops) {
    uses.push({ kind: "attached", sentence: `is attached to /dev/${name}`, writable });
  }
  for (const swap of swaps(kernel)) {
    if (identityOf(swap) === identity) uses.push(asSwap());
  }
  return uses;
}

/** Sectors ever written to or discarded on a device: what it counts between two looks was changed meanwhile. */
export function sectorsChanged(rdev: bigint, kernel: KernelFolders = KERNEL): number | undefined {
  const text = readText(path.join(kernel.sys, "dev/block", deviceName(rdev), "stat"));
  // Fields of Documentation/block/stat.rst: the seventh counts written sectors, the fourteenth discarded ones.
  const fields = text.trim().split(/\s+/).map(Number);
  const written = fields[6];
  return written === undefined ? undefined : written + (fields[13] ?? 0);
}

/** Parses /proc/self/mountinfo (proc(5)). */
export function parseMounts(text: string): Mount[] {
  const mounts: Mount[] = [];
  for (const line of text.split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    const [, , device, , mountPoint] = left.split(" ");
    const [, source, superOptions] = right.split(" ");
    if (device === undefined || mountPoint === undefined || source === undefined) continue;
    mounts.push({
      device,
      mountPoint: unescapeField(mountPoint),
      source: unescapeField(source),
      // Of the file system, not of this mount: mounted read-only here, it may be written to elsewhere.
      writable: superOptions?.split(",").includes("rw") ?? false,
    });
  }
  return mounts;
}

/** "major:minor" of a device number (makedev(3)). */
export function deviceName(rdev: bigint): string {
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n);
  return `${major}:${minor}`;
}

function usesOfDevices(
  devices: ReadonlySet<string> | readonly string[],
  kernel: KernelFolders,
): DeviceUse[] {
  const ours = new Set(devices);
  const isOurs = (device: string | undefined): boolean => device !== undefined && ours.has(device);
  const uses: DeviceUse[] = [];
  for (const mount of parseMounts(readText(path.join(kernel.proc, "self/mountinfo")))) {
    // Some file systems (btrfs) have device numbers of their own; their source still names the device.
    if (!isOurs(mount.device) && !isOurs(deviceAt(mount.source))) continue;
    const how = mount.writable ? "read-write" : "read-only";
    const sentence = `is mounted ${how} at ${mount.mountPoint}`;
    uses.push({ kind: "mounted", sentence, writable: mount.writable });
  }
  for (const swap of swaps(kernel)) if (isOurs(deviceAt(swap))) uses.push(asSwap());
  return uses;
}

function asSwap(): DeviceUse {
  return { kind: "swap", sentence: "is used as swap space", writable: true };
}

/** The device, its partitions and everything stacked on them. */
function stackedDevices(device: string, kernel: KernelFolders): string[] {
  const seen = new Set<string>();
  const visit = (name: string): void => {
    if (name === "" || seen.has(name)) return;
    seen.add(name);
    const folder = path.join(kernel.sys, "dev/block", name);
    for (const entry of listFolder(folder)) {
      if (readText(path.join(folder, entry, "partition")) === "") continue;
      visit(readText(path.join(folder, entry, "dev")).trim());
    }
    for (const holder of listFolder(path.join(folder, "holders"))) {
      visit(readText(path.join(folder, "holders", holder, "dev")).trim());
    }
  };
  visit(device);
  return [...seen];
}

interface LoopDevice {
  readonly name: string;
  readonly device: string;
  readonly writable: boolean;
}

/** Loop devices that stand for the file. */
function loopDevicesOf(identity: string, kernel: KernelFolders): LoopDevice[] {
  const folder = path.join(kernel.sys, "block");
  return listFolder(folder)
    .filter((name) => name.startsWith("loop"))
    .filter((name) => {
      const backing = readText(path.join(folder, name, "loop/backing_file")).trimEnd();
      return backing !== "" && identityOf(backing) === identity;
    })
    .map((name) => ({
      name,
      device: readText(path.join(folder, name, "dev")).trim(),
      writable: readText(path.join(folder, name, "ro")).trim() !== "1",
    }));
}

function swaps(kernel: KernelFolders): string[] {
  const [, ...lines] = readText(path.join(kernel.proc, "swaps")).split("\n");
  return lines
    .map((line) => unescapeField(line.split(/\s+/)[0] ?? ""))
    .filter((file) => file !== "");
}

/** Octal escapes of space, tab, newline and backslash. */
function unescapeField(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCodePoint(Number.parseInt(digits, 8)),
  );
}

function deviceAt(file: string): string | undefined {
  if (!file.startsWith("/")) return undefined;
  const stat = statSync(file, { bigint: true, throwIfNoEntry: false });
  return stat?.isBlockDevice() === true ? deviceName(stat.rdev) : undefined;
}

/** What tells a file from all others, whatever the path that leads to it. */
function identityOf(file: string): string | undefined {
  try {
    const stat = statSync(file, { bigint: true, throwIfNoEntry: false });
    return stat === undefined ? undefined : `${stat.dev}:${stat.ino}`;
  } catch {
    return undefined;
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

function listFolder(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
