// Telling systemd that a service is ready (sd_notify(3)): one datagram to the socket that it names. Node has no datagrams of this
// kind, so it goes through koffi.
import { createRequire } from "node:module";
import type * as Koffi from "koffi";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
/** Of the path in a sockaddr_un, unix(7). */
const PATH_BYTES_MAX = 108;

/** Sends a datagram to a Unix socket: a path, or with @ before it an abstract name. False where nobody is there. */
export function sendDatagram(socketPath: string, message: string): boolean {
  const path = Buffer.from(socketPath.replace(/^@/, "\0"), "utf8");
  if (path.length === 0 || path.length >= PATH_BYTES_MAX) return false;
  const koffi = createRequire(import.meta.url)("koffi") as typeof Koffi;
  const library = koffi.load(null);
  const socket = library.func("int socket(int domain, int type, int protocol)");
  const sendto = library.func(
    "int64_t sendto(int fd, void *bytes, size_t length, int flags, void *address, uint32_t size)",
  );
  const close = library.func("int close(int fd)");
  const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0) as number;
  if (fd < 0) return false;
  try {
    // A path ends with a zero byte; an abstract name is as long as it is.
    const isAbstract = path[0] === 0;
    const address = Buffer.alloc(2 + path.length + (isAbstract ? 0 : 1));
    address.writeUInt16LE(AF_UNIX, 0);
    path.copy(address, 2);
    const bytes = Buffer.from(message, "utf8");
    return Number(sendto(fd, bytes, bytes.length, 0, address, address.length)) === bytes.length;
  } finally {
    close(fd);
  }
}
