import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import {
  chmod,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  stat,
  symlink,
  utimes,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, it, type TestContext } from "node:test";
import { type AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import type { StorageId } from "#lib/core/ids.ts";
import { virtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import type { StorageMarker } from "#lib/drivers/storage-marker.ts";
import { createFileBlobStore } from "./create-file-storage.ts";
import {
  type FileBlobStore,
  type FileBlobStoreOptions,
  openFileBlobStore,
} from "./file-blob-store.ts";

const isRoot = process.getuid?.() === 0;
const noMount = isRoot ? false : "mounting needs root";
const noRefusal = isRoot ? "root may write everywhere" : false;
const CREATE = { mode: "create" } as const;
const KIB = 1024;
const MIB = 1024 * KIB;

const MARKER: StorageMarker = {
  format: 1,
  identity: "00112233445566aa" as StorageId,
  repository: "bb".repeat(16),
  created: "2026-01-01T00:00:00.000Z",
};

describe("file blob store", () => {
  let folder = "";
  let count = 0;
  before(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "ashlar-file-"));
  });
  after(() => rm(folder, { recursive: true }));

  async function openAt(
    test: TestContext,
    root: string,
    options: Partial<FileBlobStoreOptions> = {},
  ): Promise<FileBlobStore> {
    const store = await openFileBlobStore({ path: root, ...options });
    test.after(() => store.close());
    return store;
  }

  async function newRoot(): Promise<string> {
    count += 1;
    const root = path.join(folder, `s${count}`);
    await createFileBlobStore({ path: root, marker: MARKER });
    return root;
  }

  async function rejectsWith(
    promise: Promise<unknown>,
    code: ErrorCode,
    message: RegExp,
  ): Promise<AshlarError> {
    let caught: unknown;
    await assert.rejects(promise, (error) => {
      caught = error;
      assert.ok(isErrorCode(error, code), String(error));
      assert.match(error.message, message);
      return true;
    });
    return caught as AshlarError;
  }

  async function namesIn(store: FileBlobStore): Promise<string[]> {
    const names: string[] = [];
    for await (const { name } of store.list("")) names.push(name);
    return names.toSorted();
  }

  it("lays objects out in small folders, for its owner alone", async (test) => {
    const root = await newRoot();
    const store = await openAt(test, root);
    await store.put("blocks/abcdef.1", Buffer.from("x"), CREATE);
    await store.put("heads/h.1.r", Buffer.from("y"), CREATE);
    assert.equal(await readFile(path.join(root, "blocks/abc/abcdef.1"), "utf8"), "x");
    assert.equal(await readFile(path.join(root, "heads/h.1.r"), "utf8"), "y");
    assert.equal((await stat(root)).mode & 0o777, 0o700);
    assert.equal((await stat(path.join(root, "blocks/abc/abcdef.1"))).mode & 0o777, 0o600);
    assert.deepEqual(store.marker, MARKER);
    assert.equal(store.location, `file:${root}`);
  });

  it("leaves what belongs to others alone", async (test) => {
    const root = await newRoot();
    const store = await openAt(test, root);
    await store.put("blocks/abcdef.1", Buffer.from("x"), CREATE);
    await writeFile(path.join(root, "blocks/abc/README"), "foreign");
    await writeFile(path.join(root, "blocks/abc/fedcba.1"), "misplaced");
    await writeFile(path.join(root, "notes.txt"), "foreign");
    await mkdir(path.join(root, "photos"));
    await writeFile(path.join(root, "photos/a.jpg"), "foreign");
    await symlink(path.join(root, "notes.txt"), path.join(root, "keys/link"));
    await mkdir(path.join(root, "heads/folder"));
    assert.deepEqual(await namesIn(store), ["blocks/abcdef.1"]);
  });

  describe("making one", () => {
    it("refuses what is there already", async () => {
      const root = await newRoot();
      await createFileBlobStore({ path: root, marker: MARKER });
      const other = { ...MARKER, identity: "00112233445566bb" as StorageId };
      await rejectsWith(
        createFileBlobStore({ path: root, marker: other }),
        ErrorCode.AlreadyExists,
        /holds the storage 00112233445566aa already/,
      );
      const full = path.join(folder, "full");
      await mkdir(full);
      await writeFile(path.join(full, "photo.jpg"), "x");
      await rejectsWith(
        createFileBlobStore({ path: full, marker: MARKER }),
        ErrorCode.AlreadyExists,
        /is not empty: it holds photo\.jpg/,
      );
      assert.deepEqual(await readdir(full), ["photo.jpg"]);
    });

    it("goes on where it was cut short", async (test) => {
      const root = path.join(folder, "deep", "er", "storage");
      await mkdir(path.join(root, "lost+found"), { recursive: true });
      await writeFile(path.join(root, "ashlar-storage.json.new-1"), "{");
      await createFileBlobStore({ path: root, marker: MARKER });
      assert.deepEqual((await openAt(test, root)).marker, MARKER);
    });

    it("lets one of several makers win", async (test) => {
      const root = path.join(folder, "contested");
      const identities = ["a", "b", "c"].map((digit) => digit.repeat(16) as StorageId);
      const results = await Promise.allSettled(
        identities.map((identity) =>
          createFileBlobStore({ path: root, marker: { ...MARKER, identity } }),
        ),
      );
      const winners = identities.filter((_, index) => results[index]?.status === "fulfilled");
      assert.deepEqual(winners, [(await openAt(test, root)).marker.identity]);
    });
  });

  describe("opening one", () => {
    it("wants the marker, and the right one", async () => {
      const root = await newRoot();
      const missing = await rejectsWith(
        openFileBlobStore({ path: path.join(folder, "none") }),
        ErrorCode.Unavailable,
        /there is no storage at .*marker/,
      );
      assert.match(missing.remedy ?? "", /mount/);
      const expectIdentity = "ffffffffffffffff" as StorageId;
      await rejectsWith(
        openFileBlobStore({ path: root, expectIdentity }),
        ErrorCode.Refused,
        /holds the storage 00112233445566aa, not ffff/,
      );
      await rm(path.join(root, "ashlar-storage.json"));
      await rejectsWith(openFileBlobStore({ path: root }), ErrorCode.Unavailable, /marker/);
    });

    it("reads no marker that it does not understand", async () => {
      const root = await newRoot();
      const file = path.join(root, "ashlar-storage.json");
      for (const [text, code, message] of [
        ["{", ErrorCode.Damaged, /is not the marker/],
        ["[]", ErrorCode.Damaged, /is not the marker/],
        [JSON.stringify({ ...MARKER, identity: "short" }), ErrorCode.Damaged, /is not the marker/],
        [
          JSON.stringify({ ...MARKER, format: 2 }),
          ErrorCode.Refused,
          /of format 2; this version of Ashlar knows 1/,
        ],
      ] as const) {
        await writeFile(file, text);
        await rejectsWith(openFileBlobStore({ path: root }), code, message);
      }
    });

    it("leaves nothing in the folder on which its file system is not mounted", async (test) => {
      const root = await newRoot();
      const store = await openAt(test, root);
      await store.delete(["keys/none"]);
      await rm(root, { recursive: true });
      await mkdir(root);
      for (const name of ["keys/a", "blocks/abcd"]) {
        await rejectsWith(
          store.put(name, Buffer.from("x"), CREATE),
          ErrorCode.Unavailable,
          /marker/,
        );
      }
      assert.deepEqual(await readdir(root), []);
    });

    it("notices another storage at its place", async (test) => {
      const root = await newRoot();
      const store = await openAt(test, root);
      await store.put("keys/a", Buffer.from("x"), CREATE);
      await rm(root, { recursive: true });
      await createFileBlobStore({
        path: root,
        marker: { ...MARKER, identity: "ffffffffffffffff" as StorageId },
      });
      await rejectsWith(
        store.get("keys/a"),
        ErrorCode.Unavailable,
        /ffffffffffffffff is there instead/,
      );
      await rejectsWith(
        store.put("keys/b", Buffer.from("x"), CREATE),
        ErrorCode.Unavailable,
        /is there instead/,
      );
    });

    it("changes nothing when it is only for reading", async (test) => {
      const root = await newRoot();
      const entries = await readdir(root, { recursive: true });
      const store = await openAt(test, root, { readOnly: true });
      await rejectsWith(
        store.put("keys/a", Buffer.from("x"), CREATE),
        ErrorCode.Refused,
        /for reading only/,
      );
      await rejectsWith(store.delete(["keys/a"]), ErrorCode.Refused, /for reading only/);
      assert.deepEqual(await readdir(root, { recursive: true }), entries);
    });

    it("makes folders again that somebody has cleared away", async (test) => {
      const root = await newRoot();
      for (const name of ["blocks", "nodes", "heads", "keys", "stamps", "tmp"]) {
        await rm(path.join(root, name), { recursive: true });
      }
      const store = await openAt(test, root);
      assert.deepEqual(await namesIn(store), []);
      await store.put("heads/a", Buffer.from("x"), CREATE);
      await store.put("blocks/abcd", Buffer.from("x"), CREATE);
      assert.deepEqual(await namesIn(store), ["blocks/abcd", "heads/a"]);
    });
  });

  describe("leftovers", () => {
    const word = "0123456789abcdef";

    it("removes those of dead processes, and none of live ones", async (test) => {
      const root = await newRoot();
      const live = await openAt(test, root);
      await live.put("keys/a", Buffer.from("x"), CREATE);
      const [lock = ""] = await readdir(path.join(root, "tmp"));
      const [liveWord = ""] = lock.split(".");
      await writeFile(path.join(root, "tmp", `${liveWord}.99`), "unfinished");
      await writeFile(path.join(root, "tmp", `${word}.1`), "abandoned");
      await writeFile(path.join(root, "tmp", `${word}.lock`), "");
      await writeFile(path.join(root, "tmp", "foreign"), "x");
      await openAt(test, root);
      assert.deepEqual(
        (await readdir(path.join(root, "tmp"))).toSorted(),
        [`${liveWord}.99`, lock, "foreign"].toSorted(),
      );
    });

    it("survives being killed while it puts: all or nothing, and nothing is left", async (test) => {
      const root = await newRoot();
      const module = (name: string): string => JSON.stringify(path.join(import.meta.dirname, name));
      const script = `
        import { openFileBlobStore } from ${module("file-blob-store.ts")};
        const store = await openFileBlobStore({ path: ${JSON.stringify(root)} });
        const put = async (worker) => {
          for (let index = 0; ; index++) {
            const name = \`blocks/\${worker}\${String(index).padStart(5, "0")}\`;
            await store.put(name, Buffer.alloc(index % 5 === 0 ? 2_000_003 : 50_000, index), { mode: "create" });
            process.stdout.write(name + "\\n");
          }
        };
        for (const worker of ["a", "b", "c", "d", "e", "f"]) void put(worker);
      `;
      const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      let output = "";
      child.stdout.on("data", (chunk: Buffer) => {
        output += chunk.toString();
        if (output.split("\n").length > 30) child.kill("SIGKILL");
      });
      await once(child, "close");
      assert.ok((await readdir(path.join(root, "tmp"))).length > 0, "something was under way");
      const store = await openAt(test, root);
      assert.deepEqual(await readdir(path.join(root, "tmp")), []);
      const found = await namesIn(store);
      for (const name of output.split("\n").slice(0, -1))
        assert.ok(found.includes(name), `${name} was acknowledged`);
      for (const name of found) {
        const index = Number(name.slice(-5));
        const bytes = await store.get(name);
        assert.equal(bytes.length, index % 5 === 0 ? 2_000_003 : 50_000);
        assert.ok(bytes.every((byte) => byte === index % 256));
      }
    });

    it("waits an hour where locks may not reach other hosts", async (test) => {
      // A file system of one host decides at once; what is old is removed everywhere.
      const root = await newRoot();
      const file = path.join(root, "tmp", `${word}.1`);
      await writeFile(file, "abandoned");
      await utimes(file, 1, 1);
      await openAt(test, root, { clock: virtualClock() });
      assert.equal(existsSync(file), false);
    });
  });

  it("says who may not write", { skip: noRefusal }, async (test) => {
    const root = await newRoot();
    const store = await openAt(test, root);
    await chmod(path.join(root, "tmp"), 0o500);
    test.after(() => chmod(path.join(root, "tmp"), 0o700));
    const error = await rejectsWith(
      store.put("keys/a", Buffer.from("x"), CREATE),
      ErrorCode.Refused,
      /permission denied/,
    );
    assert.match(error.remedy ?? "", /user/);
  });

  describe("on a file system of its own", { skip: noMount }, () => {
    async function mounted(test: TestContext, sizeBytes: number): Promise<string> {
      count += 1;
      const root = path.join(folder, `m${count}`);
      await mkdir(root);
      execFileSync("mount", ["-t", "tmpfs", "-o", `size=${sizeBytes},mode=0700`, "tmpfs", root]);
      test.after(() => execFileSync("umount", ["--lazy", root]));
      await createFileBlobStore({ path: root, marker: MARKER });
      return root;
    }

    async function fill(store: FileBlobStore, sizeBytes: number): Promise<AshlarError> {
      for (let index = 0; ; index++) {
        try {
          await store.put(
            `blocks/${String(index).padStart(8, "0")}`,
            Buffer.alloc(sizeBytes, 1),
            CREATE,
          );
        } catch (error) {
          return error as AshlarError;
        }
      }
    }

    it("keeps room for stamps and heads when it is full, and is usable again afterwards", async (test) => {
      const root = await mounted(test, 8 * MIB);
      const clock = virtualClock();
      const store = await openAt(test, root, { clock });
      const full = await fill(store, 64 * KIB);
      assert.ok(isErrorCode(full, ErrorCode.Io), String(full));
      assert.equal(full.details["errno"], "ENOSPC");
      assert.match(full.message, /no space left/);
      assert.match(full.remedy ?? "", /ashlar gc/);
      assert.deepEqual(
        await readdir(path.join(root, "tmp")).then((names) => names.length),
        1,
        "only its lock",
      );
      // Even the last page is taken by somebody else.
      await writeFile(path.join(root, "foreign"), Buffer.alloc(MIB)).catch(() => undefined);
      for (let index = 0; index < 5; index++) {
        await store.put(`heads/${index}`, Buffer.alloc(3000), { ...CREATE, reserve: true });
      }
      await rejectsWith(
        store
          .put("blocks/ffff", Buffer.alloc(64 * KIB), CREATE)
          .then(() => fill(store, 64 * KIB))
          .then((error) => Promise.reject(error)),
        ErrorCode.Io,
        /no space/,
      );
      const reserved = (await stat(path.join(root, "reserve"))).size;
      assert.ok(reserved < MIB && reserved > 0, `${reserved}`);
      const names = await namesIn(store);
      assert.equal(
        (await store.delete(names.filter((name) => name.startsWith("blocks/")))).size,
        0,
      );
      await clock.advance(60_000);
      await store.put("blocks/ffff", Buffer.alloc(64 * KIB), CREATE);
      await store.close();
      assert.equal(
        (await stat(path.join(root, "reserve"))).size,
        MIB,
        "the reserve is whole again",
      );
      assert.equal((await store.get("heads/4")).length, 3000);
    });

    it("can be read when it is mounted read-only", async (test) => {
      const root = await mounted(test, 8 * MIB);
      const first = await openAt(test, root);
      await first.put("keys/a", Buffer.from("x"), CREATE);
      await first.close();
      execFileSync("mount", ["-o", "remount,ro", root]);
      const store = await openAt(test, root);
      assert.equal(Buffer.from(await store.get("keys/a")).toString(), "x");
      const error = await rejectsWith(
        store.put("keys/b", Buffer.from("x"), CREATE),
        ErrorCode.Refused,
        /read-only/,
      );
      assert.match(error.remedy ?? "", /writable/);
      execFileSync("mount", ["-o", "remount,rw", root]);
      await store.put("keys/b", Buffer.from("x"), CREATE);
    });

    it("is away when it is unmounted, and there again when it is back", async (test) => {
      const root = await mounted(test, 8 * MIB);
      const store = await openAt(test, root);
      await store.put("keys/a", Buffer.from("x"), CREATE);
      const aside = `${root}-aside`;
      await mkdir(aside);
      execFileSync("mount", ["--bind", root, aside]);
      test.after(() => execFileSync("umount", ["--lazy", aside]));
      execFileSync("umount", ["--lazy", root]);
      await rejectsWith(store.get("keys/a"), ErrorCode.Unavailable, /marker/);
      await rejectsWith(
        store.put("keys/b", Buffer.from("x"), CREATE),
        ErrorCode.Unavailable,
        /marker/,
      );
      execFileSync("mount", ["--bind", aside, root]);
      assert.equal(Buffer.from(await store.get("keys/a")).toString(), "x");
      await store.put("keys/b", Buffer.from("x"), CREATE);
    });
  });
});
