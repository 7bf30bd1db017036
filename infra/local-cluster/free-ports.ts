// Ports for the servers of a local cluster.
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";

/** Below those that the kernel gives to outgoing connections: one of them might take a port while its server is stopped. */
const FIRST = 20_000;
const LAST = 31_999;
const TRIES_MAX = 1000;

/** Keeps the ports that are given and free, and chooses others for the rest. */
export async function choosePorts(
  names: readonly string[],
  given: Readonly<Record<string, number>>,
): Promise<Record<string, number>> {
  const ports: Record<string, number> = {};
  const taken = new Set<number>();
  for (const name of names) {
    const before = given[name];
    const isKept = before !== undefined && !taken.has(before) && (await isFree(before));
    const port = isKept ? before : await freePort(taken);
    ports[name] = port;
    taken.add(port);
  }
  return ports;
}

/** A port that nobody has now, and none of those that are taken; Unavailable where there is none. */
export async function freePort(taken: ReadonlySet<number>): Promise<number> {
  for (let tries = 0; tries < TRIES_MAX; tries += 1) {
    const port = randomInt(FIRST, LAST + 1);
    if (!taken.has(port) && (await isFree(port))) return port;
  }
  throw new AshlarError(ErrorCode.Unavailable, `no port between ${FIRST} and ${LAST} is free`);
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
  } catch {
    return false;
  }
  server.close();
  await once(server, "close");
  return true;
}
