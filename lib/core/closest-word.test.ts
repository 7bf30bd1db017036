import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { closestWord } from "./closest-word.ts";

describe("closestWord", () => {
  const words = ["storages", "storage", "keyFile", "passphraseFile", "log"];

  it("finds typing errors", () => {
    assert.equal(closestWord("storags", words), "storages");
    assert.equal(closestWord("storgae", words), "storage");
    assert.equal(closestWord("keyfile", words), "keyFile");
    assert.equal(closestWord("lgo", words), "log");
    assert.equal(closestWord("passphrase", words), undefined);
  });

  it("suggests nothing far-fetched", () => {
    assert.equal(closestWord("colour", words), undefined);
    assert.equal(closestWord("x", words), undefined);
    assert.equal(closestWord("", words), undefined);
    assert.equal(closestWord("log", []), undefined);
  });
});
