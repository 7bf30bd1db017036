// Plants a bug: the source of one actor is changed as it is loaded. Checkers are never changed.
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { fileURLToPath } from "node:url";
import { PLANTED_BUGS } from "./planted-bugs.ts";

/** Makes this process load the actors with that bug; to be called before any of them is loaded. */
export function plantBug(name: string): void {
  const bug = PLANTED_BUGS.find((one) => one.name === name);
  if (bug === undefined) throw new Error(`there is no planted bug ${name}`);
  const url = new URL(`../../../${bug.file}`, import.meta.url).href;
  registerHooks({
    load(at, context, next) {
      if (at !== url) return next(at, context);
      const source = readFileSync(fileURLToPath(url), "utf8");
      const parts = source.split(bug.find);
      if (parts.length !== 2) throw new Error(`${name}: its place in ${bug.file} is not unique`);
      return { format: "module-typescript", source: parts.join(bug.replace), shortCircuit: true };
    },
  });
}
