import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Requester } from "#lib/actor/requester.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { virtualClock } from "#lib/drivers/memory/virtual-clock.ts";
import { passedOn, refusedToWriters } from "#lib/repository/key-wrap.ts";
import { askWriters } from "./ask-writers.ts";

const WANTED = { session: "s", token: "t", blocks: [], storage: null };
const REPLY = { body: { outcomes: [] }, payload: undefined };

/** Writers that answer in turn as the list says, and then for ever as its last. */
function writers(...answers: readonly unknown[]) {
  const clock = virtualClock();
  const asked: string[] = [];
  const request = async (queue: string): Promise<unknown> => {
    asked.push(queue);
    const answer = answers[Math.min(asked.length, answers.length) - 1];
    if (answer instanceof Error) throw answer;
    return answer;
  };
  const ports = { requester: { request } as unknown as Pick<Requester, "request">, clock };
  return { ports, clock, asked };
}

describe("a reader that asks for blocks", () => {
  it("asks again while writers pass it on, and nobody else's error", async () => {
    const { ports, clock, asked } = writers(passedOn(), passedOn(), REPLY);
    const answer = askWriters(ports, "writer", WANTED, new AbortController().signal);
    await clock.advance(1000);
    assert.equal(await answer, REPLY);
    assert.deepEqual(asked, ["writer", "writer", "writer"]);
    for (const error of [
      new AshlarError(ErrorCode.TryAgain, "something else"),
      refusedToWriters("nothing was given back"),
    ]) {
      const failing = writers(error);
      await assert.rejects(
        askWriters(failing.ports, "writer", WANTED, new AbortController().signal),
        error,
      );
      assert.equal(failing.asked.length, 1);
    }
  });

  it("says in the end what is missing, and stops when it is told to", async () => {
    const { ports, clock, asked } = writers(passedOn());
    const answer = askWriters(ports, "writer", WANTED, new AbortController().signal);
    answer.catch(() => undefined);
    await clock.advance(60_000);
    await assert.rejects(answer, { code: ErrorCode.Refused, remedy: /full access key/ });
    assert.ok(asked.length > 100);
    const stopped = new AbortController();
    const other = writers(passedOn());
    const waiting = askWriters(other.ports, "writer", WANTED, stopped.signal);
    waiting.catch(() => undefined);
    await other.clock.advance(100);
    stopped.abort(new Error("stopped"));
    await assert.rejects(waiting, /stopped/);
  });
});
