import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { describe, it } from "node:test";
import { createLog, type LogOptions } from "./log.ts";

function logTo(options: Partial<LogOptions>) {
  const written: string[] = [];
  let cleared = 0;
  const to = new Writable({
    write(chunk: Buffer, _encoding, done) {
      written.push(chunk.toString());
      done();
    },
  });
  const log = createLog({
    level: "info",
    format: "text",
    color: false,
    to,
    beforeLine: () => (cleared += 1),
    ...options,
  });
  return { log, written, cleared: () => cleared };
}

describe("the log", () => {
  it("is text for people, with fields behind the message", () => {
    const { log, written, cleared } = logTo({});
    log.warn("storage two is away", { storage: "two" });
    assert.equal(written.length, 1);
    assert.match(
      written[0] ?? "",
      /^\[\d\d:\d\d:\d\d\] WARN: storage two is away \{"storage":"two"\}\n$/,
    );
    assert.equal(cleared(), 1, "a progress bar is taken away first");
  });

  it("is one JSON object a line, errors with their message", () => {
    const { log, written } = logTo({ format: "json" });
    log.error("reading failed", { error: new Error("EIO") });
    const line = JSON.parse(written[0] ?? "") as Record<string, unknown>;
    assert.deepEqual([line["level"], line["msg"]], ["error", "reading failed"]);
    assert.equal((line["error"] as { message: string }).message, "EIO");
    assert.ok(!Number.isNaN(Date.parse(String(line["time"]))));
  });

  it("leaves out what is below its level", () => {
    const { log, written } = logTo({ level: "warn" });
    log.info("a");
    log.debug("b");
    log.warn("c");
    log.error("d");
    assert.equal(written.length, 2);
  });
});
