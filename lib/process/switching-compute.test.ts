import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createInlineCompute } from "#lib/drivers/compute/inline-compute.ts";
import { createWorkerCompute } from "#lib/drivers/compute/worker-compute.ts";
import type { Compute, OpenRequest } from "#lib/ports/compute.ts";
import { blockTaskSource, createTasks } from "#lib/repository/block-tasks.ts";
import { createHasher } from "#lib/repository/hashing.ts";
import { createRepositoryKeys, rotateKeys, type RepositoryKeys } from "#lib/repository/keys.ts";
import { createSealer, repositoryKeyOf } from "#lib/repository/sealing.ts";
import { memoryLog } from "#test/fakes/memory-log.ts";
import { createSwitchingCompute } from "./switching-compute.ts";

const KEYS = createRepositoryKeys({ hash: "blake3", compression: "none" });
const ROTATED = rotateKeys(KEYS, "x25519");
const PLAIN = Buffer.alloc(4096, "plain ");
const ID = createHasher(KEYS).hashBlock(PLAIN).toString("hex");

const setup = (keys: RepositoryKeys) =>
  ({ hash: keys, seal: { keys, compression: "none" } }) as const;
const inline = (keys: RepositoryKeys): Compute => createInlineCompute(createTasks(setup(keys)));
const threads = (keys: RepositoryKeys): Compute =>
  createWorkerCompute({ tasks: blockTaskSource(setup(keys)), concurrency: 1 });

function sealedUnder(keys: RepositoryKeys): OpenRequest {
  const object = { kind: "block", id: ID } as const;
  return {
    ...object,
    sealed: createSealer(keys, { compression: "none" }).seal({ ...object, plain: PLAIN }),
  };
}

for (const [name, make] of Object.entries({ inline, threads })) {
  describe(`compute whose keys change: ${name}`, () => {
    it("opens what is sealed under a key that came later, and what was before", async () => {
      let asked = 0;
      const compute = createSwitchingCompute(
        make(KEYS),
        async () => {
          asked += 1;
          compute.switchTo(make(ROTATED));
          return true;
        },
        memoryLog(),
      );
      const out = Buffer.alloc(3 * PLAIN.length);
      const requests = [sealedUnder(KEYS), sealedUnder(ROTATED), sealedUnder(KEYS)];
      const opened = await compute.open(requests, out);
      assert.deepEqual(
        opened.map(({ ok }) => ok),
        [true, true, true],
      );
      assert.deepEqual(out, Buffer.concat([PLAIN, PLAIN, PLAIN]));
      assert.equal(asked, 1);
      await compute.open(requests, out);
      assert.equal(asked, 1);
      await compute.close();
    });

    it("opens again what began under the old keys while somebody else changed over", async () => {
      const compute = createSwitchingCompute(make(KEYS), async () => false, memoryLog());
      const out = Buffer.alloc(PLAIN.length);
      const begun = compute.open([sealedUnder(ROTATED)], out);
      compute.switchTo(make(ROTATED));
      assert.equal((await begun)[0]?.ok, true);
      await compute.close();
    });

    it("lets what has begun end under the keys that it began with", async () => {
      const compute = createSwitchingCompute(make(KEYS), async () => false, memoryLog());
      const room = (): Buffer => Buffer.alloc(PLAIN.length + 300);
      const [first, second] = [room(), room()];
      const request = { kind: "block", id: ID, plain: PLAIN } as const;
      const begun = compute.seal([request], first);
      compute.switchTo(make(ROTATED));
      const [[one], [two]] = await Promise.all([begun, compute.seal([request], second)]);
      assert.equal(repositoryKeyOf(first.subarray(0, one?.length)), KEYS.activeKeyId);
      assert.equal(repositoryKeyOf(second.subarray(0, two?.length)), ROTATED.activeKeyId);
      await compute.close();
    });

    it("finds an object damaged where nobody has its key, and nothing where nobody could be asked", async () => {
      const stranger = {
        ...createRepositoryKeys({ hash: "blake3", compression: "none" }),
        dedupKey: KEYS.dedupKey,
      };
      const out = Buffer.alloc(PLAIN.length);
      let refresh = async (): Promise<boolean> => false;
      const compute = createSwitchingCompute(make(KEYS), () => refresh(), memoryLog());
      const [opened] = await compute.open([sealedUnder(stranger)], out);
      assert.deepEqual([opened?.ok, opened?.ok === false && opened.isKeyUnknown], [false, true]);
      refresh = () => Promise.reject(new Error("the metadata are away"));
      await assert.rejects(compute.open([sealedUnder(stranger)], out), /are away/);
      // Other damage asks nobody.
      const request = sealedUnder(KEYS);
      request.sealed[200] = (request.sealed[200] as number) ^ 1;
      assert.equal((await compute.open([request], out))[0]?.ok, false);
      await compute.close();
    });
  });
}
