// The reference of the command line, docs/cli.md, made from the program itself.
import type { Argument, Command, Option } from "commander";
import { exitCodesMarkdown } from "#lib/process/exit-codes.ts";

const HEAD = `# The command line

Made from the program: \`ASHLAR_UPDATE_DOCS=1 npm run test:unit -- services/cli/reference.test.ts\` writes this
file anew, and a test fails while it differs.

A version is named by its uid, by a unique beginning of it, or by \`VOLUME@latest\`, the youngest valid
version of a volume. The configuration is looked for at \`--config PATH\` (a file, or a folder that has an
\`ashlar.yaml\`), \`$ASHLAR_CONFIG\`, \`./ashlar.yaml\` and \`/etc/ashlar/ashlar.yaml\`. Sizes are read as
\`512\`, \`64KiB\`, \`4MiB\` or \`1.5GiB\`, durations as \`30s\`, \`5m\`, \`2h\` or \`7d\`.

Results go to stdout, everything about the run goes to stderr. With \`--json\` stdout has exactly one document:
the result, or \`{"error": {code, exitCode, message, remedy}}\`. On a terminal, commands that remove or
overwrite something ask first, unless \`--yes\` is given; where standard input or stderr is no terminal, nobody
is asked, and the command does what it was told. SIGINT and SIGTERM stop cleanly; a second one stops at once.
\`NO_COLOR\` turns colours off.
`;

/** The text of docs/cli.md. */
export function referenceMarkdown(program: Command): string {
  const parts = [HEAD, "## Options of all commands\n", optionTable(program), ""];
  for (const command of commandsOf(program)) parts.push(section(program, command));
  parts.push("## Exit codes\n", exitCodesMarkdown(), "");
  return parts.join("\n");
}

function commandsOf(command: Command): Command[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .filter((child) => child.name() !== "help")
    .flatMap((child) => (child.commands.length === 0 ? [child] : commandsOf(child)));
}

function section(program: Command, command: Command): string {
  const names: string[] = [];
  for (let at: Command | null = command; at !== null; at = at.parent) names.unshift(at.name());
  const operands = command.registeredArguments.map(operandText);
  const options = optionsOf(command);
  const usage = [...names, ...(options.length > 0 ? ["[OPTIONS]"] : []), ...operands].join(" ");
  const parts = [
    `## ${names.slice(1).join(" ")}\n`,
    `\`${usage}\`\n`,
    `${command.description()}\n`,
  ];
  if (command !== program && options.length > 0) parts.push(`${optionTable(command)}\n`);
  const notes = helpNotes(command);
  if (notes !== "") parts.push(`\`\`\`text\n${notes}\n\`\`\`\n`);
  return parts.join("\n");
}

function operandText(argument: Argument): string {
  const name = argument.name().toUpperCase() + (argument.variadic ? "..." : "");
  return argument.required ? name : `[${name}]`;
}

function optionsOf(command: Command): Option[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .filter((option) => option.long !== "--help");
}

function optionTable(command: Command): string {
  const help = command.createHelp();
  return [
    "| option | meaning |",
    "|---|---|",
    ...optionsOf(command).map(
      (option) =>
        `| \`${option.flags}\` | ${help.optionDescription(option).replaceAll("|", "\\|")} |`,
    ),
  ].join("\n");
}

/** What stands below the options in the help text. */
function helpNotes(command: Command): string {
  let text = "";
  command.configureOutput({ writeOut: (part) => (text += part) });
  command.outputHelp();
  return text.slice(command.helpInformation().length).trim();
}
