// Random histories over three storages that come and go, lose and damage objects, with killed backups, removals, collection,
// scrubs and fills. What must always hold is checked after every step, what must hold in the end after all is there again.
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { VersionUid } from "#lib/core/ids.ts";
import { changeVersion, removeVersion } from "#lib/repository/transactions/version.ts";
import { runFsck } from "#services/coordinator/fsck/fsck.ts";
import { collectGarbage } from "#services/coordinator/gc-job.ts";
import { assertClosed, assertExact, headsOn, restoreFrom } from "#test/fixtures/tiny-checks.ts";
import { openTiny, type TinyBlock, type TinyRepository } from "#test/fixtures/tiny-repository.ts";

const STORAGES = 3;
const STEPS = 30;

class History {
  readonly tiny: TinyRepository;
  readonly versions = new Map<VersionUid, readonly TinyBlock[]>();
  #blocks: TinyBlock[] = Array.from({ length: 300 }, (_, at) => (at < 6 ? `b${at}` : undefined));

  constructor(tiny: TinyRepository) {
    this.tiny = tiny;
  }

  below(limit: number): number {
    return this.tiny.shared.random.below(limit);
  }

  async step(): Promise<void> {
    const dice = this.below(12);
    if (dice < 4) await this.backup();
    else if (dice === 4) await this.remove();
    else if (dice === 5) await this.label();
    else if (dice === 6) this.comeOrGo();
    else if (dice === 7) this.hurt();
    else if (dice === 8) await this.tiny.context.upkeep.scrub({ deep: this.below(2) === 0 });
    else await this.collect();
  }

  async backup(): Promise<void> {
    this.#blocks = this.#blocks.map((block, at) => {
      if (at % 50 > 5 || this.below(4) > 0) return block;
      return this.below(4) === 0 ? undefined : `r${this.below(20)}`;
    });
    const storages = [0, 1, 2].filter(() => this.below(3) > 0);
    if (storages.length === 0) return;
    const quorum = 1 + this.below(storages.length);
    const session = await this.tiny.start({ storages, quorum, volume: `v${this.below(2)}` });
    const stop = this.below(3) === 0 ? this.below(this.#blocks.length) : this.#blocks.length;
    try {
      const tree = await session.bringTree(this.#blocks.slice(0, stop));
      if (stop < this.#blocks.length) throw new assert.AssertionError({ message: "killed" });
      const { uid } = await session.finish(tree, this.#blocks.length);
      this.versions.set(uid, this.#blocks);
      await this.tiny.context.upkeep.putHeads({ uid });
      await session.settle();
    } catch (error) {
      // Killed, or too few storages were there.
      if (!(error instanceof assert.AssertionError)) throw error;
      session.vanish();
    }
  }

  any(): VersionUid | undefined {
    return [...this.versions.keys()][this.below(Math.max(1, this.versions.size))];
  }

  async remove(): Promise<void> {
    const uid = this.any();
    if (uid === undefined) return;
    this.versions.delete(uid);
    await removeVersion(this.tiny.kv, uid);
    await this.tiny.context.upkeep.putHeads({ uid });
  }

  async label(): Promise<void> {
    const uid = this.any();
    if (uid === undefined) return;
    await changeVersion(this.tiny.kv, uid, { labels: { step: String(this.below(100)) } });
    await this.tiny.context.upkeep.putHeads({ uid });
  }

  comeOrGo(): void {
    const store = this.tiny.store(this.below(STORAGES));
    store.away = !store.away;
  }

  /** One object is damaged or lost, of content only: a head or a stamp that vanishes is another story. */
  hurt(): void {
    const index = this.below(STORAGES);
    const names = [...this.tiny.store(index).objects.keys()].filter((name) =>
      /^(?:blocks|nodes)\//.test(name),
    );
    const name = names[this.below(Math.max(1, names.length))];
    if (name === undefined) return;
    if (this.below(2) === 0) this.tiny.damage(index, name);
    else this.tiny.store(index).objects.delete(name);
  }

  async collect(): Promise<void> {
    const killAt = this.below(3) === 0 ? this.below(60) : Infinity;
    let calls = 0;
    this.tiny.kvFaults.beforeCommit = () => {
      calls += 1;
      if (calls === killAt) throw new Error("killed");
      return this.below(10) === 0 ? "unknown-committed" : "ok";
    };
    try {
      await collectGarbage(this.tiny.context, {
        abandon: this.below(2) === 0,
        sweep: this.below(2) === 0,
      });
    } catch (error) {
      assert.match((error as Error).message, /killed/);
    } finally {
      delete this.tiny.kvFaults.beforeCommit;
    }
  }

  /** All storages are there, everything is verified, healed as far as it goes, and collected. */
  async settle(): Promise<void> {
    for (let index = 0; index < STORAGES; index += 1) this.tiny.store(index).away = false;
    const options = { abandon: true, sweep: true };
    for (let round = 0; round < 3; round += 1) {
      await this.tiny.context.upkeep.scrub({ deep: true });
      const { storages } = await collectGarbage(this.tiny.context, options);
      for (const { refused } of storages) assert.equal(refused, undefined);
    }
    // What has no good copy anywhere can only be given up with its versions.
    for (const uid of this.versions.keys()) {
      if ((await this.tiny.version(uid))?.state === "valid") continue;
      this.versions.delete(uid);
      await removeVersion(this.tiny.kv, uid);
    }
    for (let round = 0; round < 2; round += 1) await collectGarbage(this.tiny.context, options);
  }
}

describe("upkeep, random histories", () => {
  it("leaves every storage complete, and nothing else on it", async () => {
    let restored = 0;
    for (let seed = 1; seed <= 4; seed += 1) {
      const history = new History(await openTiny({ seed, storages: STORAGES }));
      const { tiny } = history;
      for (let step = 0; step < STEPS; step += 1) {
        await history.step();
        await assertClosed(tiny);
      }
      await history.settle();
      await assertClosed(tiny);
      await assertExact(tiny);
      for (const [uid, blocks] of history.versions) {
        const version = await tiny.version(uid);
        for (const storage of version?.policy.storages ?? []) {
          const index = tiny.shared.ids.indexOf(storage);
          assert.deepEqual(
            restoreFrom(tiny, index, uid),
            blocks,
            `seed ${seed}: ${uid} at s${index}`,
          );
          restored += 1;
        }
      }
      for (let index = 0; index < STORAGES; index += 1) {
        const shown = [...headsOn(tiny, index).keys()];
        assert.deepEqual(
          shown.filter((uid) => !history.versions.has(uid as VersionUid)),
          [],
        );
      }
      const { findings } = await runFsck(tiny.repo, { storages: true });
      assert.deepEqual(findings, [], `seed ${seed}`);
    }
    assert.ok(restored > 10, `${restored}`);
  });
});
