import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { absoluteDevice } from "./paths.ts";

describe("devices", () => {
  it("do not depend on the working folder", () => {
    const table: readonly (readonly [string, string])[] = [
      ["-", "-"],
      ["disk.img", "/work/disk.img"],
      ["./a:b", "/work/a:b"],
      ["/dev/vg0/web", "/dev/vg0/web"],
      ["file:disk.img", "file:/work/disk.img"],
      ["file:/disk.img", "file:/disk.img"],
      ["file:///disk.img", "file:///disk.img"],
      ["rbd:pool/image@snap", "rbd:pool/image@snap"],
    ];
    for (const [text, expected] of table) assert.equal(absoluteDevice(text, "/work"), expected);
  });
});
