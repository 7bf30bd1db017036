// Completion scripts for bash, zsh and fish, made from the commander program, so that a new verb or option is completed
// without anybody's doing. The scripts hold all they know: completing starts no Ashlar, which would want the key.
import type { Argument, Command, Option } from "commander";
import { bashCompletion } from "./completion-bash.ts";
import { fishCompletion } from "./completion-fish.ts";
import { zshCompletion } from "./completion-zsh.ts";

/** The shells that scripts can be made for. */
export const COMPLETION_SHELLS = ["bash", "zsh", "fish"] as const;
export type CompletionShell = (typeof COMPLETION_SHELLS)[number];

/** What may be completed in the place of an operand or of an option's value. */
export interface CompletionValue {
  readonly choices: readonly string[];
  readonly files: boolean;
  /** It and all that follow. */
  readonly variadic: boolean;
}

/** An option with all its spellings. */
export interface CompletionOption {
  readonly flags: readonly string[];
  readonly description: string;
  /** Of an option that takes a value. */
  readonly value: CompletionValue | undefined;
}

/** A command or group of commands. */
export interface CompletionCommand {
  /** The words that lead to it after the program's name, joined by blanks; empty for the program itself. */
  readonly route: string;
  readonly commands: readonly { readonly name: string; readonly description: string }[];
  /** Its own, and those of what it is a part of. */
  readonly options: readonly CompletionOption[];
  readonly operands: readonly CompletionValue[];
}

/** The whole program as the scripts see it. */
export interface CompletionModel {
  /** The program's name, as it is typed. */
  readonly name: string;
  readonly commands: readonly CompletionCommand[];
}

/** The completion script for a shell, to be sourced or put where the shell looks for such. */
export function completionScript(shell: CompletionShell, program: Command): string {
  const model: CompletionModel = { name: program.name(), commands: describe(program, [], []) };
  switch (shell) {
    case "bash":
      return bashCompletion(model);
    case "zsh":
      return zshCompletion(model);
    case "fish":
      return fishCompletion(model);
    default:
      return shell satisfies never;
  }
}

function describe(
  command: Command,
  route: readonly string[],
  inherited: readonly CompletionOption[],
): CompletionCommand[] {
  const help = command.createHelp();
  const own = help.visibleOptions(command).map(describeOption);
  const spelled = new Set(own.flatMap(({ flags }) => flags));
  const options = [
    ...own,
    ...inherited.filter(({ flags }) => !flags.some((flag) => spelled.has(flag))),
  ];
  const children = help.visibleCommands(command);
  return [
    {
      route: route.join(" "),
      commands: children.map((child) => ({
        name: child.name(),
        description: oneLine(help.subcommandDescription(child)),
      })),
      options,
      operands: command.registeredArguments.map(describeArgument),
    },
    ...children.flatMap((child) => describe(child, [...route, child.name()], options)),
  ];
}

function describeOption(option: Option): CompletionOption {
  const flags = [option.short, option.long].filter((flag) => flag !== undefined && flag !== null);
  const takesValue = option.required || option.optional;
  const placeholder = /[<[]([^>\]]*)[>\]]/.exec(option.flags)?.[1] ?? "";
  return {
    flags,
    description: oneLine(option.description),
    value: takesValue ? describeValue(placeholder, option.argChoices, false) : undefined,
  };
}

function describeArgument(argument: Argument): CompletionValue {
  return describeValue(argument.name(), argument.argChoices, argument.variadic);
}

/** What commander knows of a value is its placeholder: that must tell whether it is a path. */
function describeValue(
  placeholder: string,
  choices: readonly string[] | undefined,
  variadic: boolean,
): CompletionValue {
  const files =
    choices === undefined && /path|file|dir|folder|source|target|url/i.test(placeholder);
  return { choices: choices ?? [], files, variadic };
}

function oneLine(text: string): string {
  return (text.split("\n")[0] ?? "").trim();
}
