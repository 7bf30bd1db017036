// System calls that Node has no function for, through koffi, loaded when the first of them is made (18 ms).
//
// Quick ones are called in place: handing a call to a worker thread costs ten times what it takes. What may wait for a
// disk runs on libuv's pool. errno belongs to a thread, so after a failed call on the pool it is not there to be read; the
// call is made again in place to learn it (all of them may be repeated).
//
// ioctl and fcntl take variable arguments in C; on Linux these travel in the same registers as fixed ones.
import { createRequire } from "node:module";
import { constants } from "node:os";
import { getSystemErrorName } from "node:util";
import type * as Koffi from "koffi";

const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const FALLOC_KEEP_SIZE = 0x01;
const FALLOC_PUNCH_HOLE = 0x02;
const FALLOC_ZERO_RANGE = 0x10;
const FADVISE_SEQUENTIAL = 2;
const BLKROGET = 0x125e;
const BLKSSZGET = 0x1268;
const BLKGETSIZE64 = 0x80081272;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;
const F_RDLCK = 0;
const F_WRLCK = 1;
const F_UNLCK = 2;
const RENAME_NOREPLACE = 1;
const AT_FDCWD = -100;

/** The functions of the C library as koffi hands them out. Sizes and offsets are plain numbers below 2^53. */
interface LibC {
  lseek(fd: number, offset: number, whence: number): number;
  fallocate: Async<[fd: number, mode: number, offset: number, length: number]>;
  syncfs: Async<[fd: number]>;
  posixFadvise(fd: number, offset: number, length: number, advice: number): number;
  ioctlInt(fd: number, request: number, out: number[]): number;
  ioctlLong(fd: number, request: number, out: number[]): number;
  fcntl(fd: number, command: number, argument: Buffer): number;
  renameat2(from: number, old: string, to: number, path: string, flags: number): number;
  fsetxattr(fd: number, name: string, value: Buffer, size: number, flags: number): number;
  fgetxattr(fd: number, name: string, value: Buffer, size: number): number;
  errno(): number;
  address(bytes: Uint8Array): bigint;
}

interface Async<Arguments extends unknown[]> {
  (...args: Arguments): number;
  async(...args: [...Arguments, (error: Error | null, result: number) => void]): void;
}

let loaded: LibC | undefined;

function libc(): LibC {
  return (loaded ??= load());
}

function load(): LibC {
  const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi;
  // The process itself: it is linked with the C library, whatever that is called here.
  const library = koffi.load(null);
  return {
    lseek: library.func("int64_t lseek(int fd, int64_t offset, int whence)"),
    fallocate: library.func("int fallocate(int fd, int mode, int64_t offset, int64_t length)"),
    syncfs: library.func("int syncfs(int fd)"),
    posixFadvise: library.func(
      "int posix_fadvise(int fd, int64_t offset, int64_t length, int advice)",
    ),
    ioctlInt: library.func("int ioctl(int fd, unsigned long request, _Out_ int *value)"),
    ioctlLong: library.func("int ioctl(int fd, unsigned long request, _Out_ uint64_t *value)"),
    fcntl: library.func("int fcntl(int fd, int command, void *argument)"),
    renameat2: library.func(
      "int renameat2(int from, const char *old, int to, const char *path, unsigned int flags)",
    ),
    fsetxattr: library.func(
      "int fsetxattr(int fd, const char *name, void *value, size_t size, int flags)",
    ),
    fgetxattr: library.func(
      "int64_t fgetxattr(int fd, const char *name, void *value, size_t size)",
    ),
    errno: () => koffi.errno(),
    address: (bytes) => koffi.address(bytes),
  };
}

/** An error of the shape that Node's own file functions throw. */
function systemError(syscall: string, errno: number): NodeJS.ErrnoException {
  const code = getSystemErrorName(-errno);
  return Object.assign(new Error(`${code}: ${syscall}`), { code, errno: -errno, syscall });
}

function fail(syscall: string): never {
  throw systemError(syscall, libc().errno());
}

/** Runs a call on the pool; when it fails, once more in place, for its errno. */
async function onPool<Arguments extends unknown[]>(
  syscall: string,
  call: Async<Arguments>,
  ...args: Arguments
): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  call.async(...args, (error, result) => (error === null ? resolve(result) : reject(error)));
  if ((await promise) === 0) return;
  if (call(...args) !== 0) fail(syscall);
  // A flush reports a failed write only once, so a second success takes nothing back.
  throw systemError(syscall, constants.errno.EIO);
}

function seek(fd: number, offset: number, whence: number): number | undefined {
  const found = libc().lseek(fd, offset, whence);
  if (found >= 0) return found;
  // ENXIO: nothing of that kind follows.
  if (libc().errno() === constants.errno.ENXIO) return undefined;
  return fail("lseek");
}

/** Where the next data at or after `offset` begins; undefined when only a hole follows. EINVAL where holes are unknown. */
export function seekData(fd: number, offset: number): number | undefined {
  return seek(fd, offset, SEEK_DATA);
}

/** Where the next hole at or after `offset` begins (the end of the file counts as one). */
export function seekHole(fd: number, offset: number): number | undefined {
  return seek(fd, offset, SEEK_HOLE);
}

/**
 * Gives the space of a range back; it reads as zero afterwards. On a block device the kernel does so only where the device
 * promises zeros (unlike BLKDISCARD, which promises nothing), and refuses with EOPNOTSUPP elsewhere.
 */
export function punchHole(fd: number, offset: number, length: number): Promise<void> {
  const mode = FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE;
  return onPool("fallocate", libc().fallocate, fd, mode, offset, length);
}

/** Makes a range read as zero and keeps its space; on a block device the kernel writes the zeros where it must. */
export function zeroRange(fd: number, offset: number, length: number): Promise<void> {
  const mode = FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE;
  return onPool("fallocate", libc().fallocate, fd, mode, offset, length);
}

/** Writes everything of the file system that `fd` lies on to its disk. */
export function syncFileSystem(fd: number): Promise<void> {
  return onPool("syncfs", libc().syncfs, fd);
}

/** Tells the kernel that the file is read from front to back, so that it reads further ahead. */
export function adviseSequential(fd: number): void {
  // A wish: where it cannot be granted, reading works all the same.
  libc().posixFadvise(fd, 0, 0, FADVISE_SEQUENTIAL);
}

/** The size of a block device in bytes. */
export function blockDeviceSize(fd: number): number {
  const out = [0];
  if (libc().ioctlLong(fd, BLKGETSIZE64, out) !== 0) fail("ioctl BLKGETSIZE64");
  return Number(out[0]);
}

/** The logical sector size of a block device in bytes: what zeroing must be aligned to. */
export function sectorSize(fd: number): number {
  const out = [0];
  if (libc().ioctlInt(fd, BLKSSZGET, out) !== 0) fail("ioctl BLKSSZGET");
  return Number(out[0]);
}

/** Whether a block device is set read-only. */
export function isReadOnlyDevice(fd: number): boolean {
  const out = [0];
  if (libc().ioctlInt(fd, BLKROGET, out) !== 0) fail("ioctl BLKROGET");
  return out[0] !== 0;
}

/** `struct flock` of one range (little-endian, as every machine that Ashlar runs on); OFD locks want process id 0. */
function lockRange(type: number, start: number, length: number): Buffer {
  const range = Buffer.alloc(32);
  range.writeInt16LE(type, 0);
  range.writeBigInt64LE(BigInt(start), 8);
  range.writeBigInt64LE(BigInt(length), 16);
  return range;
}

/**
 * Locks a file for this open file; false when another one holds it. The kernel drops the lock with the last descriptor of
 * this open file, however the process ends.
 */
export function lockFile(fd: number): boolean {
  if (libc().fcntl(fd, F_OFD_SETLK, lockRange(F_WRLCK, 0, 0)) === 0) return true;
  const { EAGAIN, EACCES } = constants.errno;
  if ([EAGAIN, EACCES].includes(libc().errno())) return false;
  return fail("fcntl F_OFD_SETLK");
}

/** Locks some bytes together with others who do so: what QEMU does to say what it has an image open for. */
export function lockBytesShared(fd: number, start: number, length: number): boolean {
  return libc().fcntl(fd, F_OFD_SETLK, lockRange(F_RDLCK, start, length)) === 0;
}

/** Whether someone else holds a lock in a range; nothing is locked by asking, so askers never disturb takers. */
export function isLocked(fd: number, start = 0, length = 0): boolean {
  const range = lockRange(F_WRLCK, start, length);
  if (libc().fcntl(fd, F_OFD_GETLK, range) !== 0) fail("fcntl F_OFD_GETLK");
  return range.readInt16LE(0) !== F_UNLCK;
}

/** Renames unless the new name is taken (EEXIST): for file systems without hard links. */
export function renameExclusive(from: string, to: string): void {
  if (libc().renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) !== 0) fail("renameat2");
}

/** Where in memory the bytes begin: direct I/O takes only aligned memory. */
export function addressOf(bytes: Uint8Array): bigint {
  return libc().address(bytes);
}

const ATTRIBUTE_BYTES_MAX = 1024;

/** Sets an extended attribute (xattr(7)) of an open file; false where the file system has none, or no room for it. */
export function setAttribute(fd: number, name: string, value: string): boolean {
  const bytes = Buffer.from(value, "utf8");
  return libc().fsetxattr(fd, name, bytes, bytes.length, 0) === 0;
}

/** An extended attribute of an open file; undefined where there is none. */
export function getAttribute(fd: number, name: string): string | undefined {
  const bytes = Buffer.alloc(ATTRIBUTE_BYTES_MAX);
  const length = libc().fgetxattr(fd, name, bytes, bytes.length);
  return length < 0 ? undefined : bytes.toString("utf8", 0, length);
}
