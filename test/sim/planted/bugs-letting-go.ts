// Planted bugs of letting go: delete, collect, session end (DESIGN §4.4–4.6). What catches each was found by trying; the seeds leave
// room for a workload that changes somewhat.
import type { PlantedBug } from "./planted-bug.ts";

/** Planted bugs of letting go: delete, collect, session end (DESIGN §4.4–4.6). */
export const BUGS_OF_LETTING_GO: readonly PlantedBug[] = [
  {
    name: "a removed version keeps its reference",
    step: "4 Delete",
    breaks: ["I2"],
    scenario: "basic",
    seeds: { from: 2, count: 20 },
    file: "lib/repository/transactions/version.ts",
    find: `        tx.clear(key.reference(present.root, { kind: "version", uid }));
`,
    replace: "",
  },
  {
    name: "a removed version's root is not queued",
    step: "4 Delete",
    breaks: ["I2"],
    scenario: "basic",
    seeds: { from: 3, count: 20 },
    file: "lib/repository/transactions/version.ts",
    find: `        queueUnreferenced(tx, present.root);
`,
    replace: "",
  },
  {
    name: "a removal owes no last revision",
    step: "4 Delete",
    breaks: ["I2"],
    scenario: "basic",
    seeds: { from: 2, count: 20 },
    file: "lib/repository/transactions/version.ts",
    find: `      oweHeads(tx, removed);
`,
    replace: "",
  },
  {
    name: "a removed node keeps its references",
    step: "4 Delete",
    breaks: ["I2"],
    scenario: "basic",
    seeds: { from: 2, count: 20 },
    file: "lib/repository/transactions/collect.ts",
    find: `    tx.clear(key.reference(child, { kind: "node", id }));
`,
    replace: "",
  },
  {
    name: "removal ignores horizons",
    step: "5 Collect",
    breaks: ["I8"],
    scenario: "collection",
    seeds: { from: 1, count: 20 },
    file: "lib/repository/transactions/collect.ts",
    find: "lowest = Math.min(lowest, await readCounter(tx, key.horizon(parse.session(entry.key)), 0));",
    replace: "",
  },
  {
    name: "the lowest horizon is one too high",
    step: "5 Collect",
    breaks: ["I8"],
    scenario: "collection",
    seeds: { from: 11, count: 20 },
    file: "lib/repository/transactions/collect.ts",
    find: "return lowest;",
    replace: "return lowest + 1;",
  },
  {
    name: "the epoch does not rise",
    step: "5 Collect",
    breaks: ["progress"],
    scenario: "collection",
    seeds: { from: 2, count: 20 },
    file: "lib/repository/transactions/collect.ts",
    find: "const epoch = (await readEpoch(tx)) + 1;",
    replace: "const epoch = await readEpoch(tx);",
  },
  {
    name: "a settled hold leaves its reference",
    step: "6 Session end",
    breaks: ["I2"],
    scenario: "collection",
    seeds: { from: 1, count: 20 },
    file: "lib/repository/transactions/session.ts",
    find: `        tx.clear(key.reference(id, { kind: "hold", session, position }));
        queueUnreferenced(tx, id);`,
    replace: "        queueUnreferenced(tx, id);",
  },
  {
    name: "a resumed session keeps its token",
    step: "6 Session end",
    breaks: ["progress"],
    scenario: "faults",
    seeds: { from: 2, count: 10 },
    file: "lib/repository/transactions/session.ts",
    find: `      token: owner.token,
`,
    replace: "",
  },
  {
    name: "a restore does not ask whether its session is live",
    step: "6 Session end",
    breaks: ["I6"],
    scenario: "full",
    seeds: { from: 6, count: 6 },
    file: "services/reader/reader-actor.ts",
    find: "await job.requireLive().catch(async",
    replace: "await Promise.resolve().catch(async",
  },
  {
    name: "coming copies of an ended session stay",
    step: "6 Session end",
    breaks: ["progress"],
    scenario: "faults",
    seeds: { from: 1, count: 10 },
    file: "lib/repository/transactions/session.ts",
    find: `        await settleClaim(tx, random, session, parse.claim(entry.key).id);
`,
    replace: "",
  },
  {
    name: "a tombstone is not left",
    step: "4 Delete",
    breaks: ["progress"],
    scenario: "basic",
    seeds: { from: 2, count: 20 },
    file: "lib/repository/transactions/version.ts",
    find: `      tx.set(key.version(uid), encodeRecord(removed));
`,
    replace: `      tx.clear(key.version(uid));
`,
  },
];
