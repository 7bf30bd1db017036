// A YAML file under a schema: what is wrong with it is told with file, line and column.
import { isAlias, isMap, isNode, isScalar, isSeq, LineCounter, parseDocument, visit } from "yaml";
import type { Document } from "yaml";
import type { z } from "zod";
import { closestWord } from "#lib/core/closest-word.ts";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";

/** Complaints about one file that are shown at a time. */
const COMPLAINTS_SHOWN = 5;

/** A file that was read and checked. */
export interface CheckedYaml<T> {
  readonly data: T;
  /** The error for something that the schema cannot know of, at the place of a value. */
  readonly complain: (path: readonly (string | number)[], message: string) => AshlarError;
}

/**
 * Reads a text under a schema; every error is Config and names file, line and column.
 * @param keysAt the keys that are allowed in a section, for what a misspelled one may have meant
 */
export function parseYaml<T>(
  text: string,
  file: string,
  schema: z.ZodType<T>,
  keysAt: (path: readonly PropertyKey[]) => readonly string[],
): CheckedYaml<T> {
  const lines = new LineCounter();
  const document = parseDocument(text, {
    lineCounter: lines,
    prettyErrors: false,
    logLevel: "error",
  });
  const [syntaxError] = document.errors;
  if (syntaxError !== undefined) {
    throw complaintsError(file, [
      { place: lines.linePos(syntaxError.pos[0]), message: syntaxError.message },
    ]);
  }
  const checked = schema.safeParse(toValue(document, file, lines));
  if (!checked.success) {
    throw complaintsError(
      file,
      checked.error.issues.flatMap((issue) => complaintsOf(issue, document, lines, keysAt)),
    );
  }
  return {
    data: checked.data,
    complain: (path, message) => {
      const place = placeOf(document, lines, path);
      return complaintsError(file, [{ place, message }]);
    },
  };
}

function toValue(document: Document, file: string, lines: LineCounter): unknown {
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    // An alias without its anchor, or a bomb of them.
    let offset = 0;
    visit(document, {
      Alias(_, alias) {
        if (alias.range) [offset] = alias.range;
        return alias.resolve(document) === undefined ? visit.BREAK : undefined;
      },
    });
    const place = lines.linePos(offset);
    throw complaintsError(file, [{ place, message: (error as Error).message }], error);
  }
}

interface Place {
  readonly line: number;
  readonly col: number;
}

interface Complaint {
  readonly place: Place;
  readonly message: string;
}

function complaintsError(
  file: string,
  complaints: readonly Complaint[],
  cause?: unknown,
): AshlarError {
  const sorted = [...complaints].sort(
    (a, b) => a.place.line - b.place.line || a.place.col - b.place.col,
  );
  const shown = sorted
    .slice(0, COMPLAINTS_SHOWN)
    .map(({ place, message }) => `${file}:${place.line}:${place.col}: ${message}`);
  const more = sorted.length - shown.length;
  if (more > 0) shown.push(`and ${more} more`);
  const [first] = sorted;
  return new AshlarError(ErrorCode.Config, shown.join("\n"), {
    cause,
    details: { file, line: first?.place.line, column: first?.place.col },
  });
}

function complaintsOf(
  issue: z.core.$ZodIssue,
  document: Document,
  lines: LineCounter,
  keysAt: (path: readonly PropertyKey[]) => readonly string[],
): readonly Complaint[] {
  if (issue.code !== "unrecognized_keys") {
    const place = placeOf(document, lines, issue.path);
    return [{ place, message: `${keyName(issue.path)}: ${issue.message}` }];
  }
  const allowed = keysAt(issue.path);
  return issue.keys.map((key) => {
    const similar = closestWord(key, allowed);
    return {
      place: placeOf(document, lines, [...issue.path, key], true),
      message:
        `${keyName([...issue.path, key])}: unknown key; ` +
        (similar === undefined ? "" : `did you mean ${similar}? `) +
        `Expected ${allowed.join(", ")}`,
    };
  });
}

/** `storages[1].url` for the path of a value. */
function keyName(path: readonly PropertyKey[]): string {
  let name = "";
  for (const part of path) {
    if (typeof part === "number") name += `[${part}]`;
    else name += name === "" ? String(part) : `.${String(part)}`;
  }
  return name === "" ? "the file" : name;
}

/** Where a value stands, or the key of a pair; for what is missing, the section that it is missing in. */
function placeOf(
  document: Document,
  lines: LineCounter,
  path: readonly PropertyKey[],
  wantsKey = false,
): Place {
  let node: unknown = document.contents;
  let offset = 0;
  for (const [depth, part] of path.entries()) {
    if (isAlias(node)) node = node.resolve(document);
    let child: unknown;
    if (isSeq(node)) {
      child = node.items[Number(part)];
    } else if (isMap(node)) {
      const pair = node.items.find(
        ({ key }) => isScalar(key) && String(key.value) === String(part),
      );
      child = wantsKey && depth === path.length - 1 ? pair?.key : pair?.value;
      // An empty value has no place of its own in some styles; its key has.
      if (isNode(pair?.key) && pair.key.range) [offset] = pair.key.range;
    }
    if (!isNode(child)) break;
    node = child;
    if (child.range) [offset] = child.range;
  }
  return lines.linePos(offset);
}
