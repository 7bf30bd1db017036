import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { openMemoryBlobStore } from "#lib/drivers/memory/memory-blob-store.ts";
import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import type { BlobStore, PutOptions } from "#lib/ports/blob-store.ts";
import { checkStorage, type CheckFinding } from "./storage-check.ts";

/** A good storage, but for what is given. */
function flawed(flaw: (good: BlobStore) => Partial<BlobStore>): BlobStore {
  const good = openMemoryBlobStore();
  const own = flaw(good);
  return new Proxy(good, {
    get: (target, name) => {
      const value: unknown = Reflect.get(own, name) ?? Reflect.get(target, name);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

async function troubled(store: BlobStore): Promise<string[]> {
  const findings = await checkStorage(store, seededRandom(1));
  return findings.filter(({ outcome }) => outcome !== "ok").map(({ check }) => check);
}

const outcomes = (findings: readonly CheckFinding[]): string[] => [
  ...new Set(findings.map(({ outcome }) => outcome)),
];

describe("checkStorage", () => {
  it("finds nothing wrong with a good storage, and leaves nothing there", async () => {
    const store = openMemoryBlobStore();
    await store.put("stamps/0011223344556677", Buffer.from("a stamp"), { mode: "create" });
    await store.put("stamps/probe.left-behind", Buffer.from("x"), { mode: "create" });
    const findings = await checkStorage(store, seededRandom(1));
    assert.deepEqual(outcomes(findings), ["ok"]);
    assert.ok(findings.length >= 10);
    assert.deepEqual([...store.objects.keys()], ["stamps/0011223344556677"]);
  });

  it("says what a storage cannot be relied on for", async () => {
    const away = new AshlarError(ErrorCode.Unavailable, "it is away");
    for (const [flaw, expected] of [
      [() => ({ check: () => Promise.reject(away) }), ["marker"]],
      [() => ({ put: () => Promise.reject(away) }), ["put"]],
      [
        (good) => ({
          put: (name: string, bytes: Uint8Array, options: PutOptions) =>
            good.put(name, bytes, { ...options, mode: "replace" }),
        }),
        ["create only"],
      ],
      [
        (good) => ({
          stat: async (name: string) => ({ ...(await good.stat(name)), sizeBytes: 7 }),
        }),
        ["size"],
      ],
      [
        (good) => ({
          get: (name: string) => good.get(name),
        }),
        ["read a part"],
      ],
      [
        () => ({
          async *list() {
            // It shows nothing.
          },
        }),
        ["listing"],
      ],
      [() => ({ delete: () => Promise.resolve(new Map()) }), ["delete"]],
      [
        (good) => ({
          get: async (...args: Parameters<BlobStore["get"]>) => {
            try {
              return await good.get(...args);
            } catch {
              throw away;
            }
          },
        }),
        ["what is absent", "delete"],
      ],
    ] as readonly [(good: BlobStore) => Partial<BlobStore>, string[]][]) {
      assert.deepEqual(await troubled(flawed(flaw)), expected);
    }
  });

  it("warns of what the storage is known not to do", async () => {
    const weak = flawed(() => ({ capabilities: { createOnly: false, consistentListing: false } }));
    const findings = await checkStorage(weak, seededRandom(1));
    const warnings = findings.filter(({ outcome }) => outcome === "warning");
    assert.deepEqual(
      warnings.map(({ check }) => check),
      ["create only", "listing"],
    );
  });
});
