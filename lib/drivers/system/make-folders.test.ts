import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { makeFolders } from "./make-folders.ts";

function temporary(): { readonly root: string; [Symbol.dispose](): void } {
  const root = mkdtempSync(path.join(tmpdir(), "ashlar-folders-"));
  return { root, [Symbol.dispose]: () => rmSync(root, { recursive: true }) };
}

describe("making folders", () => {
  it("makes all that is missing, and answers the topmost", () => {
    using at = temporary();
    assert.equal(makeFolders(path.join(at.root, "a/b/c"), 0o700), path.join(at.root, "a"));
    assert.equal(statSync(path.join(at.root, "a/b/c")).mode & 0o777, 0o700);
    assert.equal(makeFolders(path.join(at.root, "a/b/c"), 0o700), undefined);
    assert.equal(makeFolders(path.join(at.root, "a/b/d"), 0o700), path.join(at.root, "a/b/d"));
  });

  it("goes through symbolic links to folders", () => {
    using at = temporary();
    symlinkSync(".", path.join(at.root, "here"));
    assert.equal(makeFolders(path.join(at.root, "here/x"), 0o700), path.join(at.root, "here/x"));
    assert.ok(statSync(path.join(at.root, "x")).isDirectory());
  });

  it("says what is in the way", () => {
    using at = temporary();
    writeFileSync(path.join(at.root, "file"), "");
    assert.throws(() => makeFolders(path.join(at.root, "file"), 0o700), { code: "EEXIST" });
    assert.throws(() => makeFolders(path.join(at.root, "file/x"), 0o700), { code: "ENOTDIR" });
    symlinkSync("nowhere", path.join(at.root, "dangling"));
    assert.throws(() => makeFolders(path.join(at.root, "dangling"), 0o700), { code: "EEXIST" });
  });

  it("comes to an end where nothing can be made", () => {
    assert.throws(() => makeFolders("/proc/ashlar/b", 0o700), { code: "ENOENT" });
  });
});
