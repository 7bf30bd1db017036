import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Undo } from "./undo.ts";

describe("undo", () => {
  it("takes back the last first, goes on after a failure, and keeps the reason", async () => {
    const taken: string[] = [];
    const note = (name: string) => () => {
      taken.push(name);
      return name === "b" ? Promise.reject(new Error("cannot")) : Promise.resolve();
    };
    const work = Undo.during(async (undo) => {
      for (const name of ["a", "b", "c"]) undo.add(note(name));
      await Promise.resolve();
      throw new Error("the reason");
    });
    await assert.rejects(work, /the reason/);
    assert.deepEqual(taken, ["c", "b", "a"]);
  });

  it("takes nothing back after a success", async () => {
    let taken = 0;
    const result = await Undo.during((undo) => {
      undo.add(() => Promise.resolve((taken += 1)));
      return Promise.resolve("done");
    });
    assert.deepEqual([result, taken], ["done", 0]);
  });
});
