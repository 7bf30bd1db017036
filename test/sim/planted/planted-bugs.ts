// Bugs that the simulation must catch: each changes one place of one actor or transaction, as somebody might do by mistake.
import { BUGS_OF_BRINGING } from "./bugs-bringing.ts";
import { BUGS_OF_KEEPING } from "./bugs-keeping.ts";
import { BUGS_OF_LETTING_GO } from "./bugs-letting-go.ts";
import { BUGS_OF_MOVING } from "./bugs-moving.ts";
import type { PlantedBug } from "./planted-bug.ts";

/** All planted bugs. */
export const PLANTED_BUGS: readonly PlantedBug[] = [
  ...BUGS_OF_BRINGING,
  ...BUGS_OF_LETTING_GO,
  ...BUGS_OF_KEEPING,
  ...BUGS_OF_MOVING,
];
