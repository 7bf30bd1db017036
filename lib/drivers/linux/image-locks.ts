// Whether QEMU has an image open. It says so by locks on single bytes of the file (block/file-posix.c): byte 100 and those
// after it stand for what the image is used for.
import type { DeviceUse } from "./device-users.ts";
import { isLocked } from "./system-calls.ts";

const USE_BYTES_BEGIN = 100;
const USE_BYTES_COUNT = 4;
/** The second of them: writing. */
const WRITE_BYTE = 101;

/** The use that a virtual machine makes of an open image file, if any. */
export function usesByQemu(fd: number): DeviceUse[] {
  try {
    if (isLocked(fd, WRITE_BYTE, 1)) {
      const sentence = "is opened for writing by QEMU (a running virtual machine?)";
      return [{ kind: "opened", sentence, writable: true }];
    }
    if (!isLocked(fd, USE_BYTES_BEGIN, USE_BYTES_COUNT)) return [];
    return [{ kind: "opened", sentence: "is opened for reading by QEMU", writable: false }];
  } catch {
    // A file system without locks tells nothing.
    return [];
  }
}
