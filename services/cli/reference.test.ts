// docs/cli.md is what the program says.
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { describe, it } from "node:test";
import { EXIT_CODES } from "#lib/process/exit-codes.ts";
import { describeProgram } from "./program.ts";
import { referenceMarkdown } from "./reference.ts";
import { testSurroundings } from "#test/fakes/cli-surroundings.ts";

const FILE = new URL("../../docs/cli.md", import.meta.url);
const program = await describeProgram(testSurroundings());

describe("docs/cli.md", () => {
  const text = referenceMarkdown(program);

  it("is what the program says", () => {
    if (process.env["ASHLAR_UPDATE_DOCS"] === "1") writeFileSync(FILE, text);
    assert.ok(existsSync(FILE), "docs/cli.md is there");
    assert.equal(readFileSync(FILE, "utf8"), text);
  });

  it("has every verb with examples, and every exit code", () => {
    for (const command of program.commands) {
      if (command.name() === "help") continue;
      assert.match(text, new RegExp(`^## ${command.name()}`, "m"));
    }
    const sections = text.split(/^## /m).slice(2, -1);
    for (const section of sections) {
      assert.match(section, /Examples:\n {2}\S/, `${section.split("\n")[0]} has examples`);
    }
    for (const { exit } of EXIT_CODES) assert.match(text, new RegExp(`^\\| ${exit} \\|`, "m"));
  });
});
