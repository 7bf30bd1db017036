import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { key } from "#lib/repository/keyspace.ts";
import { encodeRecord } from "#lib/repository/records.ts";
import { readHeadsAt } from "#lib/repository/transactions/heads.ts";
import { changeVersion, removeVersion } from "#lib/repository/transactions/version.ts";
import { headsOn, restoreFrom } from "#test/fixtures/tiny-checks.ts";
import type { BlobFault } from "#lib/drivers/memory/memory-blob-store.ts";
import { openTiny } from "#test/fixtures/tiny-repository.ts";
import { putOwedHeads } from "./heads.ts";

const headNames = (names: Iterable<string>): string[] =>
  [...names].filter((name) => name.startsWith("heads/")).toSorted();

describe("putOwedHeads", () => {
  it("puts a head wherever the root is placed, and pays the debt", async () => {
    const tiny = await openTiny();
    const { uid } = await tiny.backup(["a", "b"]);
    for (const index of [0, 1]) {
      const head = headsOn(tiny, index).get(uid);
      assert.equal(head?.revision, 1);
      assert.deepEqual(restoreFrom(tiny, index, uid), ["a", "b"]);
      assert.deepEqual(
        [...(await readHeadsAt(tiny.kv, tiny.id(index))).values()],
        [
          {
            uid,
            revision: 1,
            removed: false,
            state: "confirmed",
            keyId: tiny.repo.keys.activeKeyId,
          },
        ],
      );
    }
    assert.deepEqual(
      (await putOwedHeads(tiny.repo)).map(({ put, owed, reason }) => ({ put, owed, reason })),
      [0, 1].map(() => ({ put: 0, owed: 0, reason: undefined })),
    );
  });

  it("records the name before it puts: a head on a storage is never unknown", async () => {
    const tiny = await openTiny({ storages: 1 });
    let known: boolean | undefined;
    tiny.store(0).faults = {
      before: async ({ kind, name }): Promise<BlobFault> => {
        if (kind === "put" && name.startsWith("heads/")) {
          known = (await readHeadsAt(tiny.kv, tiny.id(0))).has(name);
        }
        return "none";
      },
    };
    await tiny.backup(["a"]);
    assert.equal(known, true);
  });

  it("leaves owed what cannot be put, and says why", async () => {
    const tiny = await openTiny();
    tiny.store(1).away = true;
    const { uid } = await tiny.backup(["a"]);
    const outcomes = await putOwedHeads(tiny.repo, { uid });
    assert.deepEqual(
      outcomes.map(({ owed }) => owed),
      [0, 1],
    );
    assert.match(outcomes[1]?.reason ?? "", /away/);
    tiny.store(1).away = false;
    // It is there again, but its root is not.
    const [, again] = await putOwedHeads(tiny.repo, { uid });
    assert.equal(again?.owed, 1);
    assert.equal(again?.failed, false);
    assert.deepEqual(headNames(tiny.store(1).objects.keys()), []);
  });

  it("replaces a head by one of a higher revision, and the old one goes to trash", async () => {
    const tiny = await openTiny();
    const { uid } = await tiny.backup(["a"]);
    await changeVersion(tiny.kv, uid, { labels: { keep: "yes" } });
    await putOwedHeads(tiny.repo);
    assert.equal(headsOn(tiny, 0).get(uid)?.labels["keep"], "yes");
    const states = [...(await readHeadsAt(tiny.kv, tiny.id(0))).values()];
    assert.deepEqual(states.map(({ revision, state }) => `${revision} ${state}`).toSorted(), [
      "1 trash",
      "2 confirmed",
    ]);
  });

  it("keeps a last revision until every storage of the policy has it", async () => {
    const tiny = await openTiny();
    const { uid } = await tiny.backup(["a"]);
    tiny.store(1).away = true;
    await removeVersion(tiny.kv, uid);
    await putOwedHeads(tiny.repo);
    assert.equal(headsOn(tiny, 0).get(uid)?.removed, true);
    const at0 = async (): Promise<string[]> =>
      [...(await readHeadsAt(tiny.kv, tiny.id(0))).values()].map(({ state }) => state).toSorted();
    assert.deepEqual(await at0(), ["confirmed", "trash"]);
    tiny.store(1).away = false;
    await putOwedHeads(tiny.repo);
    assert.deepEqual(await at0(), ["trash", "trash"]);
  });

  it("finds the older head among any number of those in trash", async () => {
    const tiny = await openTiny({ storages: 1 });
    const { uid } = await tiny.backup(["a"]);
    const prefix = `heads/${tiny.hasher.headName(uid)}.1.`;
    const head = { uid, revision: 1, removed: false, state: "trash" };
    for (let from = 0; from < 1200; from += 200) {
      await tiny.kv.transact(async (tx) => {
        for (let at = from; at < from + 200; at += 1) {
          const name = `${prefix}${String(at).padStart(16, "0")}`;
          tx.set(key.headAt(tiny.id(0), name), encodeRecord(head));
        }
        await Promise.resolve();
      });
    }
    await changeVersion(tiny.kv, uid, { protected: true });
    await putOwedHeads(tiny.repo);
    const states = [...(await readHeadsAt(tiny.kv, tiny.id(0))).values()];
    assert.deepEqual(
      states.filter(({ state }) => state !== "trash").map(({ revision }) => revision),
      [2],
    );
  });

  it("may stop between name, put and confirmation, and be run again", async () => {
    for (const stop of ["before put", "after put"] as const) {
      const tiny = await openTiny({ storages: 1 });
      const session = await tiny.start();
      const tree = await session.bringTree(["a"]);
      const { uid } = await session.finish(tree, 1);
      const crash = ({ name }: { name: string }): never | "none" => {
        if (name.startsWith("heads/")) throw new Error("killed");
        return "none";
      };
      tiny.store(0).faults =
        stop === "before put"
          ? { before: (operation) => (operation.kind === "put" ? crash(operation) : "none") }
          : { after: (operation) => void (operation.kind === "put" && crash(operation)) };
      await assert.rejects(putOwedHeads(tiny.repo, { uid }), /killed/);
      tiny.store(0).faults = {};
      const [outcome] = await putOwedHeads(tiny.reopen().repo, { uid });
      assert.equal(outcome?.owed, 0);
      const confirmed = [...(await readHeadsAt(tiny.kv, tiny.id(0)))].filter(
        ([, { state }]) => state === "confirmed",
      );
      assert.equal(confirmed.length, 1);
      assert.ok(tiny.store(0).objects.has(confirmed[0]?.[0] ?? ""));
    }
  });
});
