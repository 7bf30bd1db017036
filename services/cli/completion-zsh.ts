// The completion script for zsh.
import type { CompletionCommand, CompletionModel, CompletionValue } from "./completion.ts";

/** Makes the script: as a file `_NAME` in a folder of $fpath, or sourced after compinit. */
export function zshCompletion({ name, commands }: CompletionModel): string {
  const functionName = `_${name.replaceAll(/\W/g, "_")}`;
  return `#compdef ${name}
# zsh completion for ${name}, made by: ${name} completion zsh
${functionName}() {
  local route="" word option="" index
  local -i operands=0
  local -a candidates
  for ((index = 2; index < CURRENT; index++)); do
    word="\${words[index]}"
    if [[ -n $option ]]; then
      option=""
      continue
    fi
    case "$route:$word" in
      ${valuePatterns(commands)}) option="$word" ;;
${routeCases(commands)}
      (*:-*) ;;
      (*) operands+=1 ;;
    esac
  done
  if [[ -z $option && "\${words[CURRENT]}" == --*=* ]]; then
    option="\${words[CURRENT]%%=*}"
    compset -P '*='
  fi
  if [[ -n $option ]]; then
    case "$route:$option" in
${commands.flatMap(optionCases).join("\n")}
    esac
    return
  fi
  if [[ "\${words[CURRENT]}" == -* ]]; then
    case "$route" in
${commands.map(flagCase).join("\n")}
    esac
    _describe -o option candidates
    return
  fi
  case "$route:$operands" in
${commands.flatMap(operandCases).join("\n")}
  esac
}
if [[ "$funcstack[1]" == "${functionName}" ]]; then
  ${functionName} "$@"
else
  compdef ${functionName} ${name}
fi
`;
}

function valuePatterns(commands: readonly CompletionCommand[]): string {
  const patterns = commands.flatMap(({ route, options }) =>
    options
      .filter(({ value }) => value !== undefined)
      .flatMap(({ flags }) => flags.map((flag) => `"${route}:${flag}"`)),
  );
  return `(${patterns.length === 0 ? '":"' : patterns.join("|\\\n      ")}`;
}

function routeCases(commands: readonly CompletionCommand[]): string {
  return commands
    .flatMap(({ route, commands: children }) =>
      children.map(
        (child) => `      ("${route}:${child.name}") route="${`${route} ${child.name}`.trim()}" ;;`,
      ),
    )
    .join("\n");
}

function optionCases({ route, options }: CompletionCommand): string[] {
  return options.flatMap(({ flags, value }) => {
    const action = value === undefined ? undefined : reply(value);
    if (action === undefined) return [];
    return [`      (${flags.map((flag) => `"${route}:${flag}"`).join("|")}) ${action} ;;`];
  });
}

function flagCase({ route, options }: CompletionCommand): string {
  const candidates = options.flatMap(({ flags, description }) =>
    flags.map((flag) => candidate(flag, description)),
  );
  return `      ("${route}") candidates=(${candidates.join(" ")}) ;;`;
}

function operandCases({ route, commands, operands }: CompletionCommand): string[] {
  if (commands.length > 0) {
    const candidates = commands.map(({ name, description }) => candidate(name, description));
    return [
      `    ("${route}":0) candidates=(${candidates.join(" ")}); _describe command candidates ;;`,
    ];
  }
  // The cases are tried in order, so a variadic operand takes what those before it have left.
  return operands.map(
    (operand, index) =>
      `    ("${route}":${operand.variadic ? "*" : index}) ${reply(operand) ?? ""} ;;`,
  );
}

function reply({ choices, files }: CompletionValue): string | undefined {
  if (choices.length > 0) return `candidates=(${choices.join(" ")}); _describe value candidates`;
  return files ? "_files" : undefined;
}

/** `name:description` as one quoted word. */
function candidate(name: string, description: string): string {
  const text = `${name.replaceAll(":", String.raw`\:`)}:${description}`;
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}
