import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { after, before, describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { isLockHeld, takeProcessLock } from "./process-lock.ts";

describe("process lock", () => {
  let folder = "";
  before(() => {
    folder = mkdtempSync(path.join(tmpdir(), "ashlar-lock-"));
  });
  after(() => rmSync(folder, { recursive: true }));

  it("is held by one, and seen by all", () => {
    const file = path.join(folder, "locks", "a");
    assert.equal(isLockHeld(file), false);
    const lock = takeProcessLock(file);
    assert.equal(isLockHeld(file), true);
    assert.throws(
      () => takeProcessLock(file),
      (error) => isErrorCode(error, ErrorCode.TryAgain),
    );
    lock.release();
    lock.release();
    assert.equal(isLockHeld(file), false);
    assert.equal(existsSync(file), false);
    takeProcessLock(file).release();
  });

  it("is free where only its file is left", () => {
    const file = path.join(folder, "left");
    writeFileSync(file, "");
    assert.equal(isLockHeld(file), false);
    takeProcessLock(file).release();
  });

  it("does not make folders around its own", () => {
    assert.throws(() => takeProcessLock(path.join(folder, "no", "such", "lock")), {
      code: ErrorCode.NotFound,
    });
  });

  it("ends with its process, even when that is killed", async () => {
    const file = path.join(folder, "killed");
    const script = `
      import { takeProcessLock } from ${JSON.stringify(path.join(import.meta.dirname, "process-lock.ts"))};
      takeProcessLock(${JSON.stringify(file)});
      process.stdout.write("held");
      setInterval(() => undefined, 1000);
    `;
    const child = spawn(process.execPath, ["--input-type=module", "--eval", script], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    await once(child.stdout, "data");
    assert.equal(isLockHeld(file), true);
    child.kill("SIGKILL");
    await once(child, "exit");
    assert.equal(isLockHeld(file), false);
  });
});
