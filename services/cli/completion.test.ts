import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { Argument, Command, Option } from "commander";
import { COMPLETION_SHELLS, completionScript } from "./completion.ts";
import type { CompletionShell } from "./completion.ts";

function createProgram(): Command {
  const program = new Command("ashlar");
  program
    .option("-c, --config <path>", "configuration: a file or folder")
    .option("--json", "it's JSON");
  program
    .command("backup")
    .description("back up a source\nat length")
    .argument("<source>")
    .argument("<volume>")
    .option("--snapshot <name>", "name of the snapshot")
    .addOption(new Option("--compression <how>").choices(["zstd", "lz4"]))
    .option("--hints <file>");
  program
    .command("rm")
    .description("remove versions")
    .argument("<uid...>")
    .option("--dry-run", "show only");
  program.command("cat").argument("<uid>").argument("<file...>");
  const storage = program.command("storage").description("storages");
  storage.command("ls").description("list them").option("--long", "all");
  storage.command("stats");
  program
    .command("completion")
    .addArgument(new Argument("<shell>").choices(["bash", "zsh", "fish"]));
  program.command("secret", { hidden: true });
  return program;
}

/** What is typed, the last word being the one to complete, and what must be offered ("files": names of files). */
const CASES: readonly (readonly [
  typed: string,
  offered: readonly string[] | "files" | "nothing",
])[] = [
  ["", ["backup", "cat", "completion", "help", "rm", "storage"]],
  ["ba", ["backup"]],
  ["s", ["storage"]],
  ["--json --config x storage ", ["help", "ls", "stats"]],
  ["-c x storage l", ["ls"]],
  ["--config ", "files"],
  ["backup ", "files"],
  ["backup --js", ["--json"]],
  ["backup --sn", ["--snapshot"]],
  ["rm --sn", "nothing"],
  ["rm --dry", ["--dry-run"]],
  ["rm ", "nothing"],
  ["backup disk ", "nothing"],
  ["backup --snapshot x ", "files"],
  ["backup --snapshot ", "nothing"],
  ["backup --compression ", ["lz4", "zstd"]],
  ["backup --compression l", ["lz4"]],
  ["backup --hints ", "files"],
  ["cat ", "nothing"],
  ["cat uid ", "files"],
  ["cat uid a b ", "files"],
  ["storage ls --l", ["--long"]],
  ["completion ", ["bash", "fish", "zsh"]],
  ["completion z", ["zsh"]],
];

const SEPARATOR = "\u001F";

/**
 * What each shell runs: for every command line (its words, each with a separator after it) it prints what the script
 * offers, and a line with two hyphens.
 */
const RUNNERS: Readonly<Record<CompletionShell, readonly string[]>> = {
  bash: [
    "--norc",
    "-c",
    String.raw`source "$1"; shift
for typed; do
  mapfile -d $'\x1f' -t COMP_WORDS < <(printf '%s' "$typed")
  COMP_CWORD=$((${"${#COMP_WORDS[@]}"} - 1))
  _ashlar
  printf '%s\n' "${"${COMPREPLY[@]}"}" --
done`,
    "bash",
  ],
  // zsh's own functions need a terminal: these stand for them.
  zsh: [
    "-f",
    "-c",
    String.raw`compdef() { : }
compset() { words[CURRENT]="${"${words[CURRENT]#*=}"}" }
offer() { for each; do [[ $each == ${"${words[CURRENT]}"}* ]] && print -r -- "$each"; done }
_describe() { local name=$@[-1]; offer "${"${(@)${(@P)name}%%:*}"}" }
_files() { offer * }
source "$1"; shift
for typed; do
  words=("${"${(@ps:\\x1f:)typed}"}")
  words[-1]=()
  CURRENT=${"${#words}"}
  _ashlar
  print -- --
done`,
    "zsh",
  ],
  fish: [
    "-N",
    "-c",
    String.raw`source $argv[1]
for typed in $argv[2..-1]
  set -l words (string split -- \x1f $typed)
  complete -C (string join ' ' -- $words[1..-2])
  printf '%s\n' --
end`,
  ],
};

/** Completes the last word of each line; answers what was offered, sorted. */
function completeAll(
  shell: CompletionShell,
  script: string,
  cwd: string,
  typed: readonly string[],
): string[][] {
  const lines = typed.map((line) => ["ashlar", ...line.split(" "), ""].join(SEPARATOR));
  const result = spawnSync(shell, [...RUNNERS[shell], script, ...lines], { cwd, encoding: "utf8" });
  assert.equal(result.stderr, "");
  const answers = result.stdout.split(/^--\n/m).slice(0, -1);
  assert.equal(answers.length, typed.length);
  return answers.map((answer) =>
    answer
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => (line.split("\t")[0] ?? "").replaceAll("\\ ", " "))
      .sort(),
  );
}

describe("completion scripts", () => {
  let scripts = "";
  let folder = "";
  before(() => {
    scripts = mkdtempSync(join(tmpdir(), "ashlar-completion-"));
    folder = join(scripts, "folder");
    mkdirSync(folder);
    writeFileSync(join(folder, "one file"), "");
    writeFileSync(join(folder, "two"), "");
  });
  after(() => {
    rmSync(scripts, { recursive: true });
  });

  function scriptFor(shell: CompletionShell): string {
    const path = join(scripts, shell);
    writeFileSync(path, completionScript(shell, createProgram()));
    return path;
  }

  for (const shell of COMPLETION_SHELLS) {
    const missing = spawnSync(shell, ["-c", "true"]).error !== undefined;
    it(`completes in ${shell}`, { skip: missing && `there is no ${shell}` }, () => {
      const answers = completeAll(
        shell,
        scriptFor(shell),
        folder,
        CASES.map(([typed]) => typed),
      );
      for (const [index, [typed, offered]] of CASES.entries()) {
        const expected = { files: ["one file", "two"], nothing: [] }[String(offered)] ?? offered;
        assert.deepEqual(answers[index], expected, typed);
      }
    });
  }

  it("completes a value after = in bash, which makes three words of it", () => {
    assert.deepEqual(
      completeAll("bash", scriptFor("bash"), folder, [
        "backup --compression = l",
        "backup --compression =",
        "backup --snapshot = x disk --sn",
      ]),
      [["lz4"], ["lz4", "zstd"], ["--snapshot"]],
    );
  });

  it("hides what is hidden, and quotes what shells would read", () => {
    for (const shell of COMPLETION_SHELLS) {
      const script = completionScript(shell, createProgram());
      assert.doesNotMatch(script, /secret|at length/);
      assert.match(script, /made by: ashlar completion/);
    }
    assert.match(completionScript("fish", createProgram()), /-d 'it\\'s JSON'/);
    assert.match(completionScript("zsh", createProgram()), /'--json:it'\\''s JSON'/);
  });
});
