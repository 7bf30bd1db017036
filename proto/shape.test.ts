import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  bytes,
  checkShape,
  choice,
  fields,
  flag,
  list,
  map,
  nullable,
  number,
  optional,
  text,
  word,
} from "./shape.ts";

type Part =
  | { readonly ok: true; readonly at: number }
  | { readonly ok: false; readonly why: string };

interface Whole {
  readonly name: string;
  readonly seal: Buffer;
  readonly isNew?: boolean;
  readonly parts: readonly Part[];
  readonly sizes: Readonly<Record<string, number>>;
  readonly kind: "block" | "node" | null;
}

const WHOLE = fields<Whole>({
  name: text,
  seal: bytes,
  isNew: optional(flag),
  parts: list(
    choice<Part, "ok">("ok", {
      true: fields<Extract<Part, { readonly ok: true }>>({ ok: word(true), at: number }),
      false: fields<Extract<Part, { readonly ok: false }>>({ ok: word(false), why: text }),
    }),
  ),
  sizes: map(number),
  kind: nullable(word("block", "node")),
});

const whole: Whole = {
  name: "a",
  seal: Buffer.alloc(1),
  parts: [
    { ok: true, at: 1 },
    { ok: false, why: "gone" },
  ],
  sizes: { "any name": 1 },
  kind: null,
};

describe("a shape", () => {
  it("takes what is of it, with or without what is optional, and what it does not name", () => {
    checkShape(WHOLE, whole);
    checkShape(WHOLE, { ...whole, isNew: false, kind: "node" });
    checkShape(WHOLE, { ...whole, isNew: undefined });
    checkShape(WHOLE, { ...whole, later: [1], parts: [{ ok: true, at: 1, later: {} }] });
  });

  it("names the place of what is not", () => {
    const wrong: readonly [object, string][] = [
      [{ name: undefined }, '"name" (text expected)'],
      [{ seal: "AA==" }, '"seal" (bytes expected)'],
      [{ isNew: null }, '"isNew" (true or false expected)'],
      [{ parts: {} }, '"parts" (a list expected)'],
      [{ parts: [whole.parts[0], { ok: "true" }] }, '"parts[1].ok" (one of true expected)'],
      [{ parts: [{ ok: true }] }, '"parts[0].at" (a number expected)'],
      [{ parts: [{ ok: "perhaps" }] }, '"parts[0].ok" (one of true, false expected)'],
      [{ parts: [{ ok: "toString" }] }, '"parts[0].ok"'],
      [{ parts: [null] }, '"parts[0]" (a map expected)'],
      [{ sizes: { a: Number.NaN } }, '"sizes.a" (a number expected)'],
      [{ sizes: [] }, '"sizes" (a map expected)'],
      [{ kind: "head" }, '"kind" (one of block, node expected)'],
    ];
    for (const [change, said] of wrong) {
      assert.throws(
        () => checkShape(WHOLE, { ...whole, ...change }),
        (error: Error) => error.name === "FormatError" && error.message.includes(said),
        said,
      );
    }
    assert.throws(() => checkShape(WHOLE, [whole]), /"" \(a map expected\)/);
  });

  it("is held against its type by the compiler", () => {
    interface Small {
      readonly id: string;
      readonly at?: number;
    }
    fields<Small>({ id: text, at: optional(number) });
    // @ts-expect-error a field is missing
    fields<Small>({ id: text });
    // @ts-expect-error what is optional must be so here
    fields<Small>({ id: text, at: number });
    // @ts-expect-error what is not optional must not be so here
    fields<Small>({ id: optional(text), at: optional(number) });
    // @ts-expect-error another type
    fields<Small>({ id: number, at: optional(number) });
    // @ts-expect-error there is no such field
    fields<Small>({ id: text, at: optional(number), more: text });
  });
});
