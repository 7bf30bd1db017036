import assert from "node:assert/strict";
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PassThrough } from "node:stream";
import { after, before, describe, it } from "node:test";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { createKeyFile } from "#lib/repository/key-file.ts";
import { loadNewPassphrase, loadSecret } from "./secrets.ts";
import type { SecretSources } from "./secrets.ts";

const NO_TERMINAL = { input: new PassThrough(), output: { write() {} } };

function typing(text: string): SecretSources["terminal"] {
  const input = new PassThrough();
  input.write(text);
  return {
    input: Object.assign(input, { isTTY: true, setRawMode() {} }),
    output: { isTTY: true, write() {} },
  };
}

describe("the secret", () => {
  let folder = "";
  const warnings: string[] = [];

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "ashlar-secrets-"));
  });
  after(async () => {
    await rm(folder, { recursive: true });
  });

  async function file(name: string, content: string, mode = 0o600): Promise<string> {
    const path = join(folder, name);
    await writeFile(path, content, { mode });
    return path;
  }

  function sources(more: Partial<SecretSources>): SecretSources {
    warnings.length = 0;
    return {
      keyFile: undefined,
      passphraseFile: undefined,
      env: {},
      terminal: NO_TERMINAL,
      warn: (message) => warnings.push(message),
      ...more,
    };
  }

  const passphrase = (text: string): object => ({ type: "passphrase", passphrase: text });

  it("comes from the first place that has one", async () => {
    const { secret, text } = createKeyFile();
    const keyFile = await file("key", text);
    const configured = await file("configured", "from configuration\n");
    const ASHLAR_PASSPHRASE_FILE = await file("environment", "from file\n");
    const ASHLAR_PASSPHRASE = "from environment";
    assert.deepEqual(await loadSecret(sources({ keyFile, env: { ASHLAR_PASSPHRASE } })), secret);
    assert.deepEqual(
      await loadSecret(sources({ passphraseFile: configured, env: { ASHLAR_PASSPHRASE } })),
      passphrase("from configuration"),
    );
    assert.deepEqual(
      await loadSecret(sources({ env: { ASHLAR_PASSPHRASE_FILE } })),
      passphrase("from file"),
    );
    assert.deepEqual(
      await loadSecret(sources({ env: { ASHLAR_PASSPHRASE }, terminal: typing("typed\n") })),
      passphrase("from environment"),
    );
    assert.deepEqual(
      await loadSecret(sources({ env: { ASHLAR_PASSPHRASE: "" }, terminal: typing("typed\n") })),
      passphrase("typed"),
    );
    assert.deepEqual(warnings, []);
  });

  it("is refused where two places of the environment have one, or none has", async () => {
    await assert.rejects(
      loadSecret(sources({ env: { ASHLAR_PASSPHRASE: "x", ASHLAR_PASSPHRASE_FILE: "y" } })),
      (error) => error instanceof AshlarError && error.code === ErrorCode.Usage,
    );
    await assert.rejects(
      loadSecret(sources({})),
      (error) => error instanceof AshlarError && error.code === ErrorCode.Refused,
    );
  });

  it("is warned about where others can read it", async () => {
    const passphraseFile = await file("open", "x\n");
    await chmod(passphraseFile, 0o640);
    await loadSecret(sources({ passphraseFile }));
    assert.equal(warnings.length, 1);
    assert.match(
      warnings[0] ?? "",
      /passphrase file .*open can be read or written by others \(mode 0640\)/,
    );
  });

  it("names the file that is missing, empty, too large or none at all", async () => {
    const expectError = async (
      more: Partial<SecretSources>,
      code: ErrorCode,
      pattern: RegExp,
    ): Promise<void> => {
      await assert.rejects(loadSecret(sources(more)), (error) => {
        assert.ok(error instanceof AshlarError, String(error));
        assert.match(error.message, pattern);
        assert.doesNotMatch(error.message, /hunter2/);
        return error.code === code;
      });
    };
    const missing = join(folder, "missing");
    await expectError(
      { keyFile: missing },
      ErrorCode.NotFound,
      /reading the key file .*missing: no such file/,
    );
    await expectError(
      { keyFile: folder },
      ErrorCode.Io,
      /reading the key file .*: it is a directory/,
    );
    const empty = await file("empty", "\n");
    await expectError({ passphraseFile: empty }, ErrorCode.Usage, /empty: the passphrase is empty/);
    const large = await file("large", "x".repeat(65 * 1024));
    await expectError(
      { passphraseFile: large },
      ErrorCode.Refused,
      /large is no passphrase file: it has more than/,
    );
    const other = await file("other", "hunter2\n");
    await expectError({ keyFile: other }, ErrorCode.Refused, /other: not a key file/);
  });

  it("of a new repository is asked for twice", async () => {
    assert.deepEqual(
      await loadNewPassphrase(sources({ terminal: typing("a b\na b\n") })),
      passphrase("a b"),
    );
    await assert.rejects(
      loadNewPassphrase(sources({ terminal: typing("a\nb\n") })),
      /the two passphrases differ/,
    );
    assert.deepEqual(
      await loadNewPassphrase(sources({ env: { ASHLAR_PASSPHRASE: "x" } })),
      passphrase("x"),
    );
  });
});
