// What must not be restored onto: what the repository lives in, what is in use, what is too small.
import { realpathSync, statSync } from "node:fs";
import path from "node:path";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { formatSize } from "#lib/core/size.ts";
import type { DeviceUse } from "#lib/drivers/linux/device-users.ts";

/**
 * Refuses a target that is one of `forbid`, or lies within one. Files and folders are compared by what they are, not by
 * their names: neither links nor bind mounts lead around it.
 */
export function refuseOwn(file: string, forbid: readonly string[]): void {
  const own = new Map<string, string>();
  for (const one of forbid) {
    const identity = identityOf(one);
    if (identity !== undefined) own.set(identity, one);
  }
  for (const around of pathsAround(file)) {
    const found = own.get(identityOf(around) ?? "");
    if (found === undefined) continue;
    throw new AshlarError(
      ErrorCode.Refused,
      `the target ${file} belongs to the repository itself (${found})`,
      { remedy: "restore somewhere else" },
    );
  }
}

/** Refuses a target that somebody uses. */
export function refuseUsed(file: string, uses: readonly DeviceUse[]): void {
  const [use] = uses;
  if (use === undefined) return;
  throw new AshlarError(ErrorCode.Refused, `the target ${file} ${use.sentence}`, {
    remedy: REMEDIES[use.kind],
  });
}

const REMEDIES: Readonly<Record<DeviceUse["kind"], string>> = {
  mounted: "unmount it first",
  swap: "take it out of use with swapoff first",
  held: "take it out of its volume group, array or mapping first",
  attached: "detach the loop device with losetup -d first",
  opened: "stop what has it open first",
};

/** Refuses a device that is smaller than what is to be restored. */
export function refuseTooSmall(file: string, targetBytes: number, neededBytes: number): void {
  if (targetBytes >= neededBytes) return;
  throw new AshlarError(
    ErrorCode.Refused,
    `the target ${file} has ${formatSize(targetBytes)} (${targetBytes} bytes), but ` +
      `${formatSize(neededBytes)} (${neededBytes} bytes) are to be restored`,
    { remedy: "restore onto a larger device", details: { targetBytes, neededBytes } },
  );
}

/** Refuses a new file among the devices: that is a device's name with a mistake in it, and would fill the memory. */
export function refuseAmongDevices(file: string): void {
  const folder = realPath(path.dirname(path.resolve(file)));
  const isAmongDevices = `${folder}/`.startsWith("/dev/") && !`${folder}/`.startsWith("/dev/shm/");
  if (!isAmongDevices) return;
  throw new AshlarError(ErrorCode.NotFound, `there is no device ${file}`, {
    remedy: "make the device first, or correct its name",
  });
}

/** The file itself, then every folder around it, links resolved. */
function* pathsAround(file: string): Generator<string> {
  let current = realPath(path.resolve(file));
  for (;;) {
    yield current;
    const parent = path.dirname(current);
    if (parent === current) return;
    current = parent;
  }
}

/** The path with its links resolved, also when its last part does not exist yet. */
function realPath(file: string): string {
  try {
    return realpathSync(file);
  } catch {
    const parent = path.dirname(file);
    return parent === file ? file : path.join(realPath(parent), path.basename(file));
  }
}

function identityOf(file: string): string | undefined {
  try {
    const stat = statSync(file, { bigint: true, throwIfNoEntry: false });
    return stat === undefined ? undefined : `${stat.dev}:${stat.ino}`;
  } catch {
    return undefined;
  }
}
