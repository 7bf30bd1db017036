// The command line's entry: one process that has all roles in it.
import process from "node:process";
import { runProcess } from "./run-process.ts";

await runProcess(process.argv.slice(2));
