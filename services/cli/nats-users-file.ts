// The file of NATS users that the servers include: changed as a whole, so that a server never reads a half of it, and by one command
// at a time, so that none brings back who was revoked meanwhile.
import { open, readFile, realpath, rename } from "node:fs/promises";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { AshlarError, ErrorCode, fromSystemError, isErrorCode } from "#lib/core/errors.ts";
import {
  createNatsKey,
  parseUsers,
  renderUsers,
  type NatsRole,
  type NatsUser,
  type NatsUsers,
} from "#lib/drivers/nats/nats-users.ts";
import { takeProcessLock, type ProcessLock } from "#lib/drivers/system/process-lock.ts";

/** Another command is through in milliseconds. */
const LOCK_MS = 10_000;
const LOCK_POLL_MS = 20;
const NAME = /^[-a-zA-Z0-9_.]{1,253}$/;

/** Adds a user; gives the seed of its key. AlreadyExists where there is one of that name. */
export async function addNatsUser(
  file: string,
  prefix: string,
  user: { readonly role: NatsRole; readonly name: string },
): Promise<string> {
  if (!NAME.test(user.name)) {
    throw new AshlarError(ErrorCode.Usage, `${JSON.stringify(user.name)} is no user's name`, {
      remedy: "use up to 253 letters, digits and - _ .",
    });
  }
  const { nkey, seed } = createNatsKey();
  await change(file, ({ users, others }) => {
    requireFree(users, file, prefix, user);
    return { users: [...users, { ...user, nkey, prefix }], others };
  });
  return seed;
}

function requireFree(
  users: readonly NatsUser[],
  file: string,
  prefix: string,
  user: { readonly role: NatsRole; readonly name: string },
): void {
  // Those of another repository have names of their own; but the inboxes of clients are named after them alone.
  const taken = users.find(
    ({ name, role, ...its }) =>
      name === user.name && role === user.role && (role === "client" || its.prefix === prefix),
  );
  if (taken !== undefined) {
    throw new AshlarError(
      ErrorCode.AlreadyExists,
      `${file} has a ${user.role} ${user.name} already`,
      {
        remedy:
          taken.prefix === prefix
            ? `\`ashlar revoke ${user.name}\` takes the old one away`
            : `choose another name: that one is of the repository with the prefix ${taken.prefix}`,
      },
    );
  }
}

/** Takes a user away, whatever its role; NotFound where there is none. */
export function removeNatsUser(file: string, prefix: string, name: string): Promise<void> {
  return change(file, ({ users, others }) => ({
    users: without(users, file, prefix, name),
    others,
  }));
}

function without(
  users: readonly NatsUser[],
  file: string,
  prefix: string,
  name: string,
): readonly NatsUser[] {
  const own = users.filter((user) => user.prefix === prefix);
  const left = users.filter((user) => user.prefix !== prefix || user.name !== name);
  if (left.length === users.length) {
    throw new AshlarError(ErrorCode.NotFound, `${file} has no user ${name}`, {
      remedy:
        own.length === 0
          ? "name the file that the NATS servers include"
          : `it has ${own.map((user) => user.name).join(", ")}`,
    });
  }
  return left;
}

async function change(file: string, edit: (before: NatsUsers) => NatsUsers): Promise<void> {
  // What a link stands for is replaced, not the link.
  const target = await realpath(file).catch(() => file);
  const lock = await takeLock(`${target}.lock`);
  try {
    await writeUsers(target, edit(await readUsers(target)));
  } finally {
    lock.release();
  }
}

async function takeLock(file: string): Promise<ProcessLock> {
  for (const untilMs = Date.now() + LOCK_MS; ; await setTimeout(LOCK_POLL_MS)) {
    try {
      return takeProcessLock(file);
    } catch (error) {
      if (!isErrorCode(error, ErrorCode.TryAgain) || Date.now() > untilMs) throw error;
    }
  }
}

async function readUsers(file: string): Promise<NatsUsers> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    const failure = fromSystemError(error, `reading the NATS users ${file}`);
    if (failure.code === ErrorCode.NotFound) return { users: [], others: [] };
    throw failure;
  }
  return parseUsers(text, file);
}

async function writeUsers(file: string, users: NatsUsers): Promise<void> {
  const temporary = `${file}.new`;
  try {
    const handle = await open(temporary, "w", 0o644);
    try {
      await handle.writeFile(renderUsers(users));
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, file);
    const folder = await open(path.dirname(file));
    try {
      await folder.sync();
    } finally {
      await folder.close();
    }
  } catch (error) {
    throw fromSystemError(error, `writing the NATS users ${file}`);
  }
}
