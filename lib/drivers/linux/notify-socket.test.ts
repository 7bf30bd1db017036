import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { after, describe, it } from "node:test";
import { sendDatagram } from "./notify-socket.ts";

const LISTEN = `
import socket, sys
name = sys.argv[1]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(name.replace("@", "\\0", 1) if name.startswith("@") else name)
print("bound", flush=True)
print(s.recv(4096).decode(), flush=True)
`;
const skip =
  spawnSync("python3", ["--version"]).error === undefined ? false : "there is no python3";

describe("the notification socket", () => {
  const folder = mkdtempSync(path.join(tmpdir(), "ashlar-notify-"));
  after(() => rmSync(folder, { recursive: true }));

  for (const name of [path.join(folder, "socket"), `@ashlar-test-${process.pid}`]) {
    it(
      `gets what is sent: ${name.startsWith("@") ? "an abstract name" : "a path"}`,
      { skip },
      async () => {
        const listener = spawn("python3", ["-c", LISTEN, name], {
          stdio: ["ignore", "pipe", "inherit"],
        });
        const lines = createInterface({ input: listener.stdout })[Symbol.asyncIterator]();
        assert.equal((await lines.next()).value, "bound");
        assert.equal(sendDatagram(name, "READY=1"), true);
        assert.equal((await lines.next()).value, "READY=1");
        if (listener.exitCode === null) await once(listener, "exit");
      },
    );
  }

  it("may be gone, or no name at all", () => {
    assert.equal(sendDatagram(path.join(folder, "nobody"), "READY=1"), false);
    assert.equal(sendDatagram("", "READY=1"), false);
    assert.equal(sendDatagram(`/${"x".repeat(200)}`, "READY=1"), false);
  });
});
