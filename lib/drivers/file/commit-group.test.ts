import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { CommitGroup } from "./commit-group.ts";

/** A flusher that works when it is let, and writes down what it was asked for. */
function setUp(verify: () => Promise<void> = () => Promise.resolve()) {
  const asked: (readonly string[])[] = [];
  const bad = new Set<string>();
  const gates: PromiseWithResolvers<void>[] = [];
  const flusher = {
    files: () => Promise.resolve([]),
    folders: async (paths: readonly string[]) => {
      asked.push(paths);
      const gate = Promise.withResolvers<void>();
      gates.push(gate);
      await gate.promise;
      return paths.map((path) => (bad.has(path) ? new Error(`bad ${path}`) : undefined));
    },
  };
  const group = new CommitGroup(flusher, verify);
  const change = (folder: string) => ({ apply: () => Promise.resolve([folder]) });
  const open = async (): Promise<void> => {
    await new Promise((resolve) => setImmediate(resolve));
    for (const gate of gates.splice(0)) gate.resolve();
    await new Promise((resolve) => setImmediate(resolve));
  };
  return { group, asked, bad, change, open };
}

describe("commit group", () => {
  it("gathers what comes while others are under way", async () => {
    const { group, asked, change, open } = setUp();
    const changes = ["a", "b", "c", "d", "c"].map((folder) => group.commit(change(folder)));
    await open();
    await open();
    await Promise.all(changes);
    assert.deepEqual(asked, [["a"], ["b"], ["c", "d"]]);
  });

  it("resolves nothing before it is durable", async () => {
    const { group, change, open } = setUp();
    let done = false;
    const committing = group.commit(change("a")).then(() => {
      done = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(done, false);
    await open();
    await committing;
  });

  it("fails only what has failed", async () => {
    const { group, bad, change, open } = setUp();
    bad.add("bad");
    const first = [group.commit(change("x")), group.commit(change("y"))];
    const results = Promise.allSettled([
      group.commit(change("good")),
      group.commit(change("bad")),
      group.commit({ apply: () => Promise.reject(new Error("taken")) }),
    ]);
    await open();
    await open();
    await Promise.all(first);
    assert.deepEqual(
      (await results).map((result) =>
        result.status === "rejected" ? (result.reason as Error).message : "ok",
      ),
      ["ok", "bad bad", "taken"],
    );
  });

  it("acknowledges nothing when the storage is gone", async () => {
    const { group, change, open } = setUp(() => Promise.reject(new Error("gone")));
    const committing = assert.rejects(group.commit(change("a")), { message: "gone" });
    await open();
    await committing;
  });
});
