// Turns the tokens of a filter into a tree. Comparison binds tightest, then `not`, `and`, `or`:
//
//   or    := and { "or" and }
//   and   := not { "and" not }
//   not   := "not" not | comparison
//   comparison := operand [ ( "==" | "!=" | "<" | "<=" | ">" | ">=" | "like" ) operand ]
//   operand    := identifier | labels["name"] | literal | "(" or ")"
import { describeToken, filterError, tokenize } from "./lexer.ts";
import type { Token, TokenKind } from "./lexer.ts";

/** How two operands are compared. */
export type Operator = "==" | "!=" | "<" | "<=" | ">" | ">=" | "like";

/** What stands on either side of a comparison, or alone. */
export type Operand =
  | { readonly kind: "identifier"; readonly name: string; readonly column: number }
  | { readonly kind: "label"; readonly name: string; readonly column: number }
  | {
      readonly kind: "literal";
      readonly type: "text" | "number" | "boolean";
      readonly text: string;
      readonly column: number;
    };

/** A filter as a tree. */
export type Expression =
  | { readonly kind: "or" | "and"; readonly operands: readonly Expression[] }
  | { readonly kind: "not"; readonly operand: Expression }
  | {
      readonly kind: "comparison";
      readonly operator: Operator;
      readonly left: Operand;
      readonly right: Operand;
      readonly column: number;
    }
  | { readonly kind: "bare"; readonly operand: Operand };

/** Nesting of parentheses and `not`s beyond which a filter is refused instead of overflowing the stack. */
const DEPTH_MAX = 100;

/** Parses a filter; anything that is not one is a Usage error that names the column and what was expected there. */
export function parseFilter(text: string): Expression {
  return new FilterParser(tokenize(text)).parse();
}

/** A parenthesis or operand that was read, before it is known whether a comparison follows. */
interface Primary {
  readonly expression: Expression;
  readonly column: number;
}

class FilterParser {
  readonly #tokens: readonly Token[];
  #at = 0;
  #depth = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  parse(): Expression {
    const token = this.#peek();
    // A script whose variable came out empty must not select every version there is.
    if (token.kind === "end") throw filterError(1, "the filter is empty; expected an expression");
    const expression = this.#chain("or");
    const rest = this.#peek();
    if (rest.kind !== "end") {
      throw filterError(
        rest.column,
        `expected "and", "or" or the end, found ${describeToken(rest)}`,
      );
    }
    return expression;
  }

  /** `or` over `and` over `not`: the two chains differ in nothing but their word. */
  #chain(word: "or" | "and"): Expression {
    const operands = [word === "or" ? this.#chain("and") : this.#not()];
    while (this.#takeWord(word)) {
      operands.push(word === "or" ? this.#chain("and") : this.#not());
    }
    const [only] = operands;
    return operands.length === 1 && only !== undefined ? only : { kind: word, operands };
  }

  #not(): Expression {
    const { column } = this.#peek();
    if (!this.#takeWord("not")) return this.#comparison();
    return this.#deeper(column, () => ({ kind: "not", operand: this.#not() }));
  }

  #comparison(): Expression {
    const left = this.#primary();
    const operator = this.#takeOperator();
    if (operator === undefined) return left.expression;
    const right = this.#primary();
    const chained = this.#peek();
    if (this.#takeOperator() !== undefined) {
      throw filterError(
        chained.column,
        `a comparison cannot be compared again; join two comparisons with "and"`,
      );
    }
    return {
      kind: "comparison",
      operator: operator.operator,
      left: asOperand(left),
      right: asOperand(right),
      column: operator.column,
    };
  }

  #primary(): Primary {
    const token = this.#peek();
    const { column } = token;
    switch (token.kind) {
      case "(": {
        this.#at += 1;
        const expression = this.#deeper(column, () => this.#chain("or"));
        this.#expect(")", 'expected ")", "and" or "or"');
        return { expression, column };
      }
      case "string":
        return this.#literal(token, "text");
      case "number":
        return this.#literal(token, "number");
      case "word":
        return this.#word(token);
      default:
        throw filterError(
          column,
          `expected an identifier, a value, "not" or "(", found ${describeToken(token)}`,
        );
    }
  }

  #word(token: Token): Primary {
    const { text, column } = token;
    const lower = text.toLowerCase();
    if (lower === "true" || lower === "false") return this.#literal(token, "boolean");
    if (["and", "or", "not", "like"].includes(lower)) {
      throw filterError(
        column,
        `expected an identifier, a value, "not" or "(", found ${describeToken(token)}`,
      );
    }
    this.#at += 1;
    if (text !== "labels") {
      return {
        expression: { kind: "bare", operand: { kind: "identifier", name: text, column } },
        column,
      };
    }
    this.#expect("[", 'expected "[" after labels, as in labels["name"]');
    const name = this.#expect("string", "expected the label's name in quotes");
    this.#expect("]", 'expected "]" after the label\'s name');
    return {
      expression: { kind: "bare", operand: { kind: "label", name: name.text, column } },
      column,
    };
  }

  #literal(token: Token, type: "text" | "number" | "boolean"): Primary {
    this.#at += 1;
    const { text, column } = token;
    return {
      expression: { kind: "bare", operand: { kind: "literal", type, text, column } },
      column,
    };
  }

  #deeper<T>(column: number, read: () => T): T {
    if (this.#depth >= DEPTH_MAX) throw filterError(column, `nested more than ${DEPTH_MAX} deep`);
    this.#depth += 1;
    const result = read();
    this.#depth -= 1;
    return result;
  }

  #peek(): Token {
    // The list ends with `end`, which is never passed.
    return this.#tokens[this.#at] as Token;
  }

  #takeWord(word: string): boolean {
    const token = this.#peek();
    if (token.kind !== "word" || token.text.toLowerCase() !== word) return false;
    this.#at += 1;
    return true;
  }

  #takeOperator(): { readonly operator: Operator; readonly column: number } | undefined {
    const { kind, text, column } = this.#peek();
    const isLike = kind === "word" && text.toLowerCase() === "like";
    if (kind !== "operator" && !isLike) return undefined;
    this.#at += 1;
    return { operator: isLike ? "like" : (text as Operator), column };
  }

  #expect(kind: TokenKind, message: string): Token {
    const token = this.#peek();
    if (token.kind !== kind)
      throw filterError(token.column, `${message}, found ${describeToken(token)}`);
    this.#at += 1;
    return token;
  }
}

function asOperand(primary: Primary): Operand {
  if (primary.expression.kind === "bare") return primary.expression.operand;
  throw filterError(
    primary.column,
    "expected an identifier or a value to compare, found an expression in parentheses",
  );
}
