// Splits a filter expression into tokens. Every token knows its column, so that every later complaint can point at it.
import { AshlarError, ErrorCode } from "../errors.ts";

/** Longest filter that is looked at: a person's filter has a hundred characters, and what parses it recurses. */
export const FILTER_LENGTH_MAX = 10_000;

/** What kinds of token there are. `end` stands after the last one. */
export type TokenKind = "word" | "number" | "string" | "operator" | "(" | ")" | "[" | "]" | "end";

/** One token of a filter. */
export interface Token {
  readonly kind: TokenKind;
  /** As written, but for strings: their content. */
  readonly text: string;
  /** 1 for the first character. */
  readonly column: number;
}

/** The error of everything that is wrong with a filter: Usage, with the column in message and details. */
export function filterError(column: number, message: string, cause?: unknown): AshlarError {
  return new AshlarError(ErrorCode.Usage, `filter, column ${column}: ${message}`, {
    cause,
    details: { column },
  });
}

/** Names a token in an error message. */
export function describeToken(token: Token): string {
  if (token.kind === "end") return "the end of the filter";
  if (token.kind === "string") return `the text ${JSON.stringify(token.text)}`;
  return JSON.stringify(token.text);
}

// Words and numbers are taken whole, so `notprotected` is one (unknown) word, not `not protected`.
const WORD = /[A-Za-z_][A-Za-z0-9_]*/y;
const NUMBER = /[+-]?\d+(?:\.\d+)?[A-Za-z0-9_.]*/y;
const OPERATOR = /==|!=|<=|>=|<|>/y;
const BLANK = /\s+/y;
const BRACKETS = "()[]";

function matchAt(pattern: RegExp, text: string, at: number): string | undefined {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0];
}

/** Splits `text` into tokens, the last of which is `end`. */
export function tokenize(text: string): Token[] {
  if (text.length > FILTER_LENGTH_MAX) {
    throw filterError(
      FILTER_LENGTH_MAX + 1,
      `a filter has at most ${FILTER_LENGTH_MAX} characters, this one has ${text.length}`,
    );
  }
  const tokens: Token[] = [];
  let at = 0;
  while (at < text.length) {
    const blank = matchAt(BLANK, text, at);
    if (blank !== undefined) {
      at += blank.length;
      continue;
    }
    const [token, length] = readToken(text, at);
    tokens.push(token);
    at += length;
  }
  tokens.push({ kind: "end", text: "", column: text.length + 1 });
  return tokens;
}

function readToken(text: string, at: number): readonly [Token, number] {
  const column = at + 1;
  const first = text.charAt(at);
  if (BRACKETS.includes(first)) return [{ kind: first as TokenKind, text: first, column }, 1];
  if (first === '"' || first === "'") return readString(text, at);
  for (const [kind, pattern] of [
    ["word", WORD],
    ["number", NUMBER],
    ["operator", OPERATOR],
  ] as const) {
    const found = matchAt(pattern, text, at);
    if (found !== undefined) return [{ kind, text: found, column }, found.length];
  }
  const hint = first === "=" ? '; equality is written "=="' : "";
  throw filterError(column, `unexpected ${JSON.stringify(first)}${hint}`);
}

/**
 * Reads a quoted string. A backslash takes away the meaning of a quote or of another backslash; before anything else it
 * stands for itself, so that the pattern `vm\_1` reaches `like` as written.
 */
function readString(text: string, start: number): readonly [Token, number] {
  const quote = text.charAt(start);
  let content = "";
  for (let at = start + 1; at < text.length; at += 1) {
    const character = text.charAt(at);
    if (character === quote) {
      return [{ kind: "string", text: content, column: start + 1 }, at + 1 - start];
    }
    const next = text.charAt(at + 1);
    if (character === "\\" && (next === '"' || next === "'" || next === "\\")) {
      content += next;
      at += 1;
    } else {
      content += character;
    }
  }
  throw filterError(start + 1, `the text that begins here has no closing ${quote}`);
}
