import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { formatFields, formatTable, Output } from "./output.ts";
import { testSurroundings } from "#test/fakes/cli-surroundings.ts";

function outputTo(options: { json?: boolean; quiet?: boolean } = {}) {
  const world = testSurroundings();
  const output = new Output(world.stdout, world.stderr, {
    json: options.json === true,
    quiet: options.quiet === true,
    color: false,
  });
  return { output, written: world.written };
}

describe("output", () => {
  it("is text, or one document and nothing else", () => {
    const text = outputTo();
    text.output.note("note");
    text.output.result({ uid: "a" }, () => ["a"]);
    assert.equal(text.written.stdout, "note\na\n");
    const json = outputTo({ json: true });
    json.output.note("note");
    json.output.result({ uid: "a" }, () => ["a"]);
    assert.deepEqual(JSON.parse(json.written.stdout), { uid: "a" });
    assert.ok(json.output.hasDocument);
  });

  it("keeps results when it is quiet", () => {
    const { output, written } = outputTo({ quiet: true });
    output.note("note");
    output.result({}, () => ["result"]);
    assert.equal(written.stdout, "result\n");
  });

  it("that cannot be written is a failure, told at the end", async () => {
    const full = new Writable({
      write: (_chunk, _encoding, done) =>
        done(Object.assign(new Error("full"), { code: "ENOSPC" })),
    });
    const world = testSurroundings();
    const output = new Output(full, world.stderr, { json: false, quiet: false, color: false });
    output.write("a");
    await assert.rejects(output.finish(), (error) => isErrorCode(error, ErrorCode.Io));
  });

  it("goes on silently when the reader has seen enough", async () => {
    let writes = 0;
    const broken = new Writable({
      write(_chunk, _encoding, done) {
        writes += 1;
        done(Object.assign(new Error("broken pipe"), { code: "EPIPE" }));
      },
    });
    const world = testSurroundings();
    const output = new Output(broken, world.stderr, { json: false, quiet: false, color: false });
    output.write("a");
    await new Promise((resolve) => setImmediate(resolve));
    output.write("b");
    assert.equal(writes, 1);
    await output.finish();
    assert.equal(world.written.stderr, "");
  });
});

describe("tables", () => {
  it("align columns without frames", () => {
    assert.deepEqual(
      formatTable(
        [{ head: "uid" }, { head: "size", align: "right" }],
        [
          ["web-x3k2p9", "1.00 GiB"],
          ["db-0a9fq1", "12.50 GiB"],
        ],
      ),
      ["uid              size", "web-x3k2p9   1.00 GiB", "db-0a9fq1   12.50 GiB"],
    );
  });

  it("of fields align values", () => {
    assert.deepEqual(
      formatFields([
        ["uid", "a"],
        ["volume", ""],
      ]),
      ["uid:    a", "volume:"],
    );
  });
});
