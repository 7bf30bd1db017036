// Records the messages of this release: `node test/recorded/record.ts`, or with another release's name behind it. What is recorded
// already is never written again, for processes of a release that is out there send what they send: a kind of message that is new, or a
// field, goes into the folder of the next release.
import { readFileSync } from "node:fs";
import { MESSAGE_KINDS } from "./message-kinds.ts";
import { shapesOfToday, writeRecording } from "./recordings.ts";
import { recordScenario } from "./scenario.ts";

const manifest = new URL("../../package.json", import.meta.url);
const { version } = JSON.parse(readFileSync(manifest, "utf8")) as { readonly version: string };
const [release = version] = process.argv.slice(2);
const messages = (await recordScenario()).kinds;
const missing = MESSAGE_KINDS.filter((kind) => !messages.has(kind));
const { written, kept } = writeRecording(import.meta.dirname, {
  release,
  messages,
  shapes: shapesOfToday(),
});
for (const name of written) console.log(`${release}/${name} is recorded`);
for (const name of kept) console.error(`${release}/${name} is there already, and stays as it is`);
for (const kind of missing) {
  console.error(
    `no message of the kind "${kind}" was sent: let test/recorded/scenario.ts send one`,
  );
}
if (kept.length > 0 || missing.length > 0) process.exitCode = 1;
