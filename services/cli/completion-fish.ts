// The completion script for fish.
import type {
  CompletionCommand,
  CompletionModel,
  CompletionOption,
  CompletionValue,
} from "./completion.ts";

/** Makes the script: sourced, or as a file in ~/.config/fish/completions. */
export function fishCompletion({ name, commands }: CompletionModel): string {
  const prefix = `__${name.replaceAll(/\W/g, "_")}`;
  return `# fish completion for ${name}, made by: ${name} completion fish

# Whether the words so far lead to the command $argv[1], with $argv[2] to $argv[3] operands after it.
function ${prefix}_at
    set -l route ''
    set -l operands 0
    set -l expects 0
    set -l words (commandline -opc)
    set -e words[1]
    for word in $words
        if test $expects -eq 1
            set expects 0
            continue
        end
        switch "$route:$word"
            case ${valuePatterns(commands)}
                set expects 1
${routeCases(commands)}
            case '*:-*'
            case '*'
                set operands (math $operands + 1)
        end
    end
    test "$route" = "$argv[1]"; or return 1
    test (count $argv) -eq 1; and return 0
    test $operands -ge $argv[2]; and test $operands -le $argv[3]
end

complete -c ${name} -f
${commands.flatMap((command) => lines(command, `complete -c ${name}`, prefix)).join("\n")}
`;
}

function valuePatterns(commands: readonly CompletionCommand[]): string {
  const patterns = commands.flatMap(({ route, options }) =>
    options
      .filter(({ value }) => value !== undefined)
      .flatMap(({ flags }) => flags.map((flag) => quote(`${route}:${flag}`))),
  );
  return patterns.length === 0 ? quote(":") : patterns.join(" ");
}

function routeCases(commands: readonly CompletionCommand[]): string {
  return commands
    .flatMap(({ route, commands: children }) =>
      children.flatMap((child) => [
        `            case ${quote(`${route}:${child.name}`)}`,
        `                set route ${quote(`${route} ${child.name}`.trim())}`,
      ]),
    )
    .join("\n");
}

function lines(command: CompletionCommand, complete: string, prefix: string): string[] {
  const { route } = command;
  const at = (...counts: readonly number[]): string =>
    `${complete} -n ${quote([`${prefix}_at`, quote(route), ...counts].join(" "))}`;
  return [
    ...command.commands.map(
      (child) => `${at(0, 0)} -a ${quote(child.name)} -d ${quote(child.description)}`,
    ),
    ...command.options.map((option) => `${at()} ${optionWords(option)}`),
    ...command.operands.flatMap((operand, index) => {
      const words = valueWords(operand);
      // fish has no word for "and all that follow"; nobody types a million.
      return words === undefined
        ? []
        : [`${at(index, operand.variadic ? 1_000_000 : index)} ${words}`];
    }),
  ];
}

function optionWords({ flags, description, value }: CompletionOption): string {
  const words = flags.map((flag) =>
    flag.startsWith("--") ? `-l ${flag.slice(2)}` : `-s ${flag.slice(1)}`,
  );
  if (value !== undefined) words.push("-r", valueWords(value) ?? "-f");
  return [...words, "-d", quote(description)].join(" ");
}

function valueWords({ choices, files }: CompletionValue): string | undefined {
  if (choices.length > 0) return `-f -a ${quote(choices.join(" "))}`;
  return files ? "-F" : undefined;
}

function quote(text: string): string {
  return `'${text.replaceAll(/[\\']/g, String.raw`\$&`)}'`;
}
