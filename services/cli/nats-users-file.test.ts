import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { parseUsers } from "#lib/drivers/nats/nats-users.ts";
import { addNatsUser, removeNatsUser } from "./nats-users-file.ts";

async function inFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(path.join(tmpdir(), "ashlar-users-"));
  try {
    await body(folder);
  } finally {
    await rm(folder, { recursive: true });
  }
}

const namesIn = async (file: string): Promise<string[]> =>
  parseUsers(await readFile(file, "utf8"), file).users.map(({ name }) => name);

describe("the users of NATS on disk", () => {
  it("lose nobody, and nobody comes back, where several commands change them at once", async () => {
    await inFolder(async (folder) => {
      const file = path.join(folder, "users.conf");
      const names = Array.from({ length: 12 }, (_, index) => `hv${index}`);
      await addNatsUser(file, "ashlar", { role: "reader", name: "gone" });
      await Promise.all([
        ...names.map((name) => addNatsUser(file, "ashlar", { role: "reader", name })),
        removeNatsUser(file, "ashlar", "gone"),
      ]);
      assert.deepEqual((await namesIn(file)).toSorted(), names.toSorted());
      assert.deepEqual(await readdir(folder), ["users.conf"]);
    });
  });

  it("are changed where a link leads", async () => {
    await inFolder(async (folder) => {
      const file = path.join(folder, "users.conf");
      await addNatsUser(file, "ashlar", { role: "reader", name: "hv1" });
      const link = path.join(folder, "link.conf");
      await symlink(file, link);
      await addNatsUser(link, "ashlar", { role: "reader", name: "hv2" });
      assert.deepEqual(await namesIn(file), ["hv1", "hv2"]);
      await assert.rejects(addNatsUser(link, "ashlar", { role: "reader", name: "hv2" }), (error) =>
        isErrorCode(error, ErrorCode.AlreadyExists),
      );
    });
  });
});
