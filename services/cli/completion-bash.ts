// The completion script for bash.
import type { CompletionCommand, CompletionModel, CompletionValue } from "./completion.ts";

/** Makes the script. It works without the bash-completion package. */
export function bashCompletion({ name, commands }: CompletionModel): string {
  const functionName = `_${name.replaceAll(/\W/g, "_")}`;
  return `# bash completion for ${name}, made by: ${name} completion bash
${functionName}() {
  local current="\${COMP_WORDS[COMP_CWORD]}" route="" word option="" operands=0 index
  COMPREPLY=()
  for ((index = 1; index < COMP_CWORD; index++)); do
    word="\${COMP_WORDS[index]}"
    if [[ -n $option ]]; then
      # bash makes three words of --option=value.
      [[ $word == "=" ]] || option=""
      continue
    fi
    case "$route:$word" in
${valuePatterns(commands)}) option="$word" ;;
${routeCases(commands)}
      *:-*) ;;
      *) ((operands += 1)) ;;
    esac
  done
  [[ $current == "=" ]] && current=""
  if [[ -n $option ]]; then
    case "$route:$option" in
${commands.flatMap(optionCases).join("\n")}
    esac
    return
  fi
  if [[ $current == -* ]]; then
    case "$route" in
${commands.map(flagCase).join("\n")}
    esac
    return
  fi
  case "$route:$operands" in
${commands.flatMap(operandCases).join("\n")}
  esac
}
complete -F ${functionName} ${name}
`;
}

function valuePatterns(commands: readonly CompletionCommand[]): string {
  const patterns = commands.flatMap(({ route, options }) =>
    options
      .filter(({ value }) => value !== undefined)
      .flatMap(({ flags }) => flags.map((flag) => `"${route}:${flag}"`)),
  );
  return patterns.length === 0 ? '      ":"' : `      ${patterns.join("|\\\n      ")}`;
}

function routeCases(commands: readonly CompletionCommand[]): string {
  return commands
    .flatMap(({ route, commands: children }) =>
      children.map(
        (child) => `      "${route}:${child.name}") route="${`${route} ${child.name}`.trim()}" ;;`,
      ),
    )
    .join("\n");
}

function optionCases({ route, options }: CompletionCommand): string[] {
  return options.flatMap(({ flags, value }) => {
    const action = value === undefined ? undefined : reply(value);
    if (action === undefined) return [];
    return [`      ${flags.map((flag) => `"${route}:${flag}"`).join("|")}) ${action} ;;`];
  });
}

function flagCase({ route, options }: CompletionCommand): string {
  const flags = options.flatMap((option) => option.flags);
  return `      "${route}") ${replyWords(flags)} ;;`;
}

function operandCases({ route, commands, operands }: CompletionCommand): string[] {
  if (commands.length > 0)
    return [`    "${route}":0) ${replyWords(commands.map((child) => child.name))} ;;`];
  // The cases are tried in order, so a variadic operand takes what those before it have left.
  return operands.map(
    (operand, index) =>
      `    "${route}":${operand.variadic ? "*" : index}) ${reply(operand) ?? ""} ;;`,
  );
}

function reply({ choices, files }: CompletionValue): string | undefined {
  if (choices.length > 0) return replyWords(choices);
  // A blank in a file's name must not make two of it.
  return files
    ? `compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$current")`
    : undefined;
}

function replyWords(words: readonly string[]): string {
  return `mapfile -t COMPREPLY < <(compgen -W "${words.join(" ")}" -- "$current")`;
}
