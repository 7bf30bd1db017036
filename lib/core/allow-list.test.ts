import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isAllowed } from "./allow-list.ts";

describe("an allow-list", () => {
  const cases: [pattern: string, location: string, allowed: boolean][] = [
    ["/dev/vg0/*", "/dev/vg0/web", true],
    ["/dev/vg0/*", "file:/dev/vg0/web", true],
    ["file:/dev/vg0/*", "file:///dev/vg0/web", true],
    ["file:///dev/vg%200/*", "/dev/vg 0/web", true],
    ["/dev/vg0/*", "/dev/vg0/a/b", false],
    ["/dev/vg0/**", "/dev/vg0/a/b", true],
    ["/dev/vg0/*", "/dev/vg0/../sda", false],
    ["/dev/vg0/*", "/dev/vg0/x/../web", true],
    ["/dev/vg0/web-*", "/dev/vg0/web-1", true],
    ["/dev/vg0/web-*", "/dev/vg0/db", false],
    ["/**", "relative", false],
    ["/**", "-", false],
    ["**", "-", false],
    ["rbd:pool/*", "rbd:pool/vm1", true],
    ["rbd:pool/*", "rbd:pool/vm1@snap", true],
    ["rbd:pool/*", "rbd:other/vm1", false],
    ["rbd:pool/*", "rbd:pool/ns/vm1", false],
    ["rbd:p.ol/*", "rbd:pool/vm1", false],
    ["/**", "rbd:pool/vm1", false],
  ];
  for (const [pattern, location, allowed] of cases) {
    it(`${pattern} ${allowed ? "allows" : "does not allow"} ${location}`, () => {
      assert.equal(isAllowed([pattern], location), allowed);
    });
  }

  it("that is empty allows nothing", () => {
    assert.equal(isAllowed([], "/dev/vg0/web"), false);
  });
});
