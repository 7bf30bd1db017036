import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isObjectFolder, nameAt, placeOf } from "./storage-layout.ts";

describe("storage layout", () => {
  const places: [string, string, string[]][] = [
    ["blocks/abcdef.01", "blocks/abc/abcdef.01", ["blocks", "blocks/abc"]],
    ["nodes/0011.2", "nodes/001/0011.2", ["nodes", "nodes/001"]],
    ["blocks/xyz", "blocks/other/xyz", ["blocks", "blocks/other"]],
    ["blocks/ab", "blocks/other/ab", ["blocks", "blocks/other"]],
    ["heads/abcdef.1.2", "heads/abcdef.1.2", ["heads"]],
    ["keys/a/b", "keys/a/b", ["keys", "keys/a"]],
  ];
  for (const [name, file, folders] of places) {
    it(`places ${name}, and finds it again`, () => {
      assert.deepEqual(placeOf(name), { file, folders });
      const at = file.lastIndexOf("/");
      assert.equal(nameAt(file.slice(0, at), file.slice(at + 1)), name);
      for (const folder of folders.slice(1)) {
        const cut = folder.lastIndexOf("/");
        assert.ok(isObjectFolder(folder.slice(0, cut), folder.slice(cut + 1)));
      }
    });
  }

  it("knows what does not belong to it", () => {
    assert.equal(nameAt("blocks/abc", "README"), undefined);
    assert.equal(nameAt("blocks/abc", "abd00"), undefined);
    assert.equal(nameAt("blocks", "abcd00"), undefined);
    assert.equal(nameAt("blocks/other", "abcd00"), undefined);
    assert.equal(nameAt("keys", ".hidden"), undefined);
    assert.equal(nameAt("tmp", "x"), undefined);
    assert.equal(isObjectFolder("blocks", "zzz"), false);
    assert.equal(isObjectFolder("blocks/abc", "def"), false);
    assert.equal(isObjectFolder("blocks/other", "def"), false);
    assert.equal(isObjectFolder("keys", "lost+found"), false);
  });

  it("refuses names for which it has no place", () => {
    for (const name of ["tmp/x", "reserve", "blocks", "blocks/ab/abcd", "other/x"]) {
      assert.throws(() => placeOf(name), name);
    }
  });
});
