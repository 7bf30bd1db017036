import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { describe, it } from "node:test";
import { createKeyFile, formatKeyDigits, parseKeyFile } from "#lib/repository/key-file.ts";
import { formatKit, KIT_COLUMNS_MAX, KIT_LINES_MAX, type KitContent } from "./emergency-kit.ts";

const { secret } = createKeyFile();
assert.ok(secret.type === "keyfile");
const DIGITS = formatKeyDigits(secret.key);
const KIT: KitContent = {
  repository: "0011223344556677",
  createdAt: new Date(Date.UTC(2030, 1, 3, 4, 5)),
  storages: [{ name: "main", url: "file:///srv/backup" }],
  accessKey: { id: "8899aabbccddeeff", label: "office", type: "keyfile", digits: DIGITS },
  repositoryKey: "ffeeddccbbaa9988",
};

/** What a shell makes of the command that begins with these words. */
function argumentsOf(lines: readonly string[], begin: string): string[] {
  const at = lines.findIndex((line) => line.trim().startsWith(begin));
  assert.ok(at >= 0, begin);
  const end = lines.findIndex((line, index) => index >= at && !line.endsWith("\\"));
  const command = lines
    .slice(at, end + 1)
    .join("\n")
    .trim();
  const script = `ashlar() { printf '%s\\0' "$@"; }; ${command}`;
  return execFileSync("sh", ["-c", script], { encoding: "utf8" }).split("\0").slice(0, -1);
}

function assertFits(lines: readonly string[]): void {
  assert.ok(lines.length <= KIT_LINES_MAX, `${lines.length} lines`);
  for (const line of lines) assert.ok(line.length <= KIT_COLUMNS_MAX, line);
}

describe("the emergency kit", () => {
  it("is one page with everything that a restore needs, the key so that it can be typed", () => {
    const lines = formatKit(KIT);
    assertFits(lines);
    const text = lines.join("\n");
    for (const part of ["0011 2233 4455 6677", "8899 aabb ccdd eeff", "office", "2030-02-03 04:05"])
      assert.ok(text.includes(part), part);
    const typed = lines.find((line) => line.includes(DIGITS))?.trim() ?? "";
    assert.deepEqual(parseKeyFile(`ASHLAR-KEY-1:${typed}`), secret);
    assert.deepEqual(argumentsOf(lines, "ashlar rebuild"), [
      "rebuild",
      "/srv/ashlar",
      "--key-file",
      "/root/ashlar.key",
      "--from",
      "file:///srv/backup",
    ]);
    assert.ok(lines.at(-1)?.includes("cannot be made again"));
  });

  it("has no key unless it is given one, and a line for what is written by hand", () => {
    const without = formatKit({ ...KIT, accessKey: { ...KIT.accessKey, digits: undefined } });
    assertFits(without);
    assert.ok(without.some((line) => line.includes("____-____")));
    const phrase = { ...KIT.accessKey, type: "passphrase", digits: undefined } as const;
    const lines = formatKit({ ...KIT, accessKey: phrase });
    assertFits(lines);
    assert.deepEqual(argumentsOf(lines, "ashlar rebuild").slice(0, 2), ["rebuild", "/srv/ashlar"]);
    assert.ok(!lines.join("\n").includes("--key-file"));
  });

  it("stays one page whatever the storages are, and its commands stay commands", () => {
    const urls = [
      `s3://bucket/${"prefix".repeat(30)}?region=eu-central-1&endpoint=https://s3.example.org`,
      'file:///mnt/o\'hara/"quoted"/$HOME/`id`/back\\slash',
      `file:///${'\\"$'.repeat(60)}`,
    ];
    for (const url of urls) {
      const storages = Array.from({ length: 40 }, (_, index) => ({ name: `storage${index}`, url }));
      const lines = formatKit({ ...KIT, storages });
      assertFits(lines);
      assert.equal(argumentsOf(lines, "ashlar rebuild").at(-1), url);
      assert.ok(lines.at(-1)?.includes("cannot be made again"));
      assert.ok(lines.some((line) => /and \d+ more/.test(line)));
    }
  });
});
