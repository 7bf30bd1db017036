// The writer as a process of its own: the same as `ashlar agent --roles writer`, with the same options.
import process from "node:process";
import { runProcess } from "#services/cli/run-process.ts";

// The role comes last: it is this one whatever is given.
await runProcess(["agent", ...process.argv.slice(2), "--roles", "writer"]);
