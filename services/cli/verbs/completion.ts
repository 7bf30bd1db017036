// ashlar completion: scripts that let shells complete commands and options.
import { Argument, type Command } from "commander";
import { COMPLETION_SHELLS, completionScript, type CompletionShell } from "../completion.ts";
import type { Act } from "../program.ts";

const HELP = `
Examples:
  ashlar completion bash > /etc/bash_completion.d/ashlar
  source <(ashlar completion bash)
  ashlar completion zsh > "\${fpath[1]}/_ashlar"
  ashlar completion fish > ~/.config/fish/completions/ashlar.fish`;

/** Adds the verb. */
export function addCompletion(program: Command, act: Act): void {
  program
    .command("completion")
    .summary("print a completion script")
    .description("Prints a script that lets a shell complete commands and options.")
    .addArgument(new Argument("<shell>", "which shell").choices(COMPLETION_SHELLS))
    .addHelpText("after", HELP)
    .action(
      act((context, shell: CompletionShell) => {
        const script = completionScript(shell, program);
        context.output.result({ shell, script }, () => [script.trimEnd()]);
        return Promise.resolve();
      }),
    );
}
