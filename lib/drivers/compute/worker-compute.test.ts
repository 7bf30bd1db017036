import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { InvariantError } from "#lib/core/assert.ts";
import type { Compute } from "#lib/ports/compute.ts";
import { createWorkerCompute } from "./worker-compute.ts";
import { fromWireError, toWireError } from "./worker-messages.ts";

/** Tasks that hash as told by the first byte of their input: for failures that real tasks do not have. */
const TASKS = `data:text/javascript,${encodeURIComponent(`
  export function createTasks(setup) {
    if (setup === "broken") throw new Error("cannot start");
    return {
      hash(bytes, blockBytes) {
        if (bytes[0] === 1) throw new TypeError("odd");
        if (bytes[0] === 2) process.exit(3);
        if (bytes[0] === 4) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
        if (bytes[0] === 3) queueMicrotask(() => { throw new Error('late'); });
        return { ids: Buffer.from([blockBytes]), zero: new Uint8Array(bytes) };
      },
      seal(requests, out) {
        out[0] = requests.length;
        return [{ offset: 0, length: 1 }];
      },
      open() { return [() => {}]; },
    };
  }
`)}`;

async function withCompute(
  setup: unknown,
  body: (compute: Compute) => Promise<void>,
  concurrency = 2,
): Promise<void> {
  const compute = createWorkerCompute({ tasks: { module: TASKS, setup }, concurrency });
  try {
    await body(compute);
  } finally {
    await compute.close();
  }
}

const isInternal = (error: unknown): boolean => isErrorCode(error, ErrorCode.Internal);

describe("compute on workers", () => {
  it("starts no thread before it is used, and closes without", async () => {
    await withCompute("broken", async (compute) => {
      assert.equal(compute.concurrency, 2);
      compute.pool(100, 2);
    });
  });

  it("passes on the error of a task, and goes on", async () => {
    await withCompute("", async (compute) => {
      await assert.rejects(compute.hash(Buffer.from([1]), 7), {
        code: ErrorCode.Internal,
        message: /odd/,
      });
      assert.deepEqual((await compute.hash(Buffer.from([9]), 7)).ids, Buffer.from([7]));
    });
  });

  it("passes on that a result could not be sent", async () => {
    await withCompute("", async (compute) => {
      await assert.rejects(compute.open([], Buffer.alloc(1)), { code: ErrorCode.Internal });
      assert.deepEqual((await compute.hash(Buffer.from([9]), 7)).ids, Buffer.from([7]));
    });
  });

  it("is unusable after a worker died, and every waiting call says so", async () => {
    for (const death of [2, 3]) {
      await withCompute(
        "",
        async (compute) => {
          const calls = [death, 9, 9, 9].map((first) => compute.hash(Buffer.from([first]), 7));
          const results = await Promise.allSettled(calls);
          const failures = results.filter((result) => result.status === "rejected");
          assert.ok(failures.length > 0 && failures.every(({ reason }) => isInternal(reason)));
          await assert.rejects(compute.hash(Buffer.from([9]), 7), isInternal);
        },
        1,
      );
    }
  });

  it("is unusable when its tasks cannot be set up", async () => {
    await withCompute("broken", async (compute) => {
      await assert.rejects(compute.hash(Buffer.from([9]), 7), {
        code: ErrorCode.Internal,
        message: /cannot start/,
      });
    });
  });

  it("copies memory that is not shared, in both directions", async () => {
    await withCompute("", async (compute) => {
      const out = Buffer.alloc(4, 0xaa);
      assert.deepEqual(await compute.seal([], out.subarray(1, 3)), [{ offset: 0, length: 1 }]);
      assert.equal(out.toString("hex"), "aa00aaaa");
      const input = Buffer.from([9, 8, 7]);
      assert.deepEqual([...(await compute.hash(input.subarray(1), 7)).zero], [8, 7]);
      assert.deepEqual([...input], [9, 8, 7]);
    });
  });

  it("works with pools that come and go", async () => {
    await withCompute("", async (compute) => {
      for (let round = 0; round < 30; round += 1) {
        const slot = await compute.pool(8, 1).acquire();
        slot.bytes[0] = 9;
        await compute.hash(slot.bytes, 7);
      }
    });
  });

  it("does not keep a process alive when it is idle, but while it works", () => {
    const script = `
      import(${JSON.stringify(new URL("worker-compute.ts", import.meta.url).href)}).then(({ createWorkerCompute }) => {
        const compute = createWorkerCompute({ tasks: { module: ${JSON.stringify(TASKS)}, setup: "" }, concurrency: 1 });
        const hash = (first) => compute.hash(Buffer.from([first]), 7);
        return hash(9).then(() => hash(4)).then(() => console.log("done"));
      });
    `;
    const { status, stdout, stderr } = spawnSync(process.execPath, ["-e", script], {
      encoding: "utf8",
      timeout: 60_000,
    });
    assert.deepEqual([status, stdout], [0, "done\n"], stderr);
  });
});

describe("an error on its way between threads", () => {
  const cross = (error: unknown): Error => fromWireError(structuredClone(toWireError(error)));

  it("keeps what an AshlarError says", () => {
    const error = new AshlarError(ErrorCode.Damaged, "block 1 is damaged", {
      remedy: "restore it",
      details: { check: "tag", offset: 5 },
      cause: new Error("bad tag"),
    });
    const crossed = cross(error);
    assert.ok(crossed instanceof AshlarError);
    assert.deepEqual(
      [crossed.code, crossed.message, crossed.remedy, crossed.details],
      [error.code, error.message, error.remedy, error.details],
    );
    assert.equal((crossed.cause as Error).message, "bad tag");
    assert.equal(cross(new AshlarError(ErrorCode.Io, "x")).cause, undefined);
  });

  it("keeps a broken invariant one, and calls the rest Internal", () => {
    assert.ok(cross(new InvariantError("broken")) instanceof InvariantError);
    for (const error of [new TypeError("odd"), "text", undefined])
      assert.ok(isInternal(cross(error)));
  });
});
