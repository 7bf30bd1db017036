// Bugs planted where versions go to more storages, and leave others.
import type { PlantedBug } from "./planted-bug.ts";

const sites = { scenario: "sites", seeds: { from: 1, count: 40 } } as const;

/** Planted bugs. */
export const BUGS_OF_MOVING: readonly PlantedBug[] = [
  {
    name: "a storage that a version is to be at, too, is not owed its root",
    step: "7 Replicate",
    breaks: ["progress", "I2"],
    scenario: "sites",
    seeds: { from: 1, count: 40 },
    file: "lib/repository/transactions/policy.ts",
    find: `        if (after !== root) await saveBlock(tx, version.root, root, after);
`,
    replace: "",
  },
  {
    name: "a version that goes to more storages owes them no head",
    step: "7 Replicate",
    breaks: ["I6"],
    scenario: "sites",
    seeds: { from: 1, count: 25 },
    file: "lib/repository/transactions/policy.ts",
    find: `      oweHeads(tx, widened);
`,
    replace: "",
  },
  {
    name: "what a node names leaves a storage before the node",
    step: "5 Collect",
    breaks: ["I1"],
    ...sites,
    file: "lib/repository/transactions/leave.ts",
    find: `return record?.copies.some((copy) => copy.storage === storage) === true ? "needed" : "none";`,
    replace: `return record === undefined ? "needed" : "none";`,
  },
  {
    name: "a copy leaves while somebody may still rely on it",
    step: "5 Collect",
    breaks: ["I8"],
    ...sites,
    file: "lib/repository/transactions/leave.ts",
    find: `  if (isMarked && (record.leavingEpoch ?? horizon) >= horizon) return nothing;
`,
    replace: "",
  },
  {
    name: "what a storage had that was given up stays named",
    step: "10 Storages know their KV",
    breaks: ["I4"],
    ...sites,
    seeds: { from: 5, count: 25 },
    file: "lib/repository/transactions/retire.ts",
    find: "    const copies = record.copies.filter((copy) => copy.storage !== storage);\n",
    replace: "    const { copies } = record;\n    if (copies.length > 0) return false;\n",
  },
];
