// Whether shapes have changed only as they may while processes of two releases work together (proto/message-shapes.ts).
import type { ShapeData } from "#proto/shape.ts";

/** What has changed, and may not have; one line for each. `path` names the place, beginning with the kind. */
export function forbiddenChanges(before: ShapeData, now: ShapeData, path: string): string[] {
  if (before.is !== now.is) return [`${path}: it was ${before.is} and is ${now.is}`];
  switch (before.is) {
    case "nullable":
    case "list":
    case "map":
      return forbiddenChanges(before.of, (now as typeof before).of, `${path}[]`);
    case "word": {
      const { words } = now as typeof before;
      return before.words
        .filter((word) => !words.includes(word))
        .map((word) => `${path}: the word ${word} is not understood any more`);
    }
    case "choice": {
      const { by, of } = now as typeof before;
      if (by !== before.by) return [`${path}: it is told by ${by} and not by ${before.by}`];
      return Object.entries(before.of).flatMap(([word, shape]) => {
        const other = of[word];
        if (other === undefined) return [`${path}: ${word} is not understood any more`];
        return forbiddenChanges(shape, other, `${path}(${word})`);
      });
    }
    case "fields":
      return changedFields(before, now as typeof before, path);
    default:
      return [];
  }
}

type Fields = Extract<ShapeData, { readonly is: "fields" }>;

function changedFields(before: Fields, now: Fields, path: string): string[] {
  const changes: string[] = [];
  for (const [name, field] of Object.entries(before.fields)) {
    const other = now.fields[name];
    const at = `${path}.${name}`;
    if (other === undefined) changes.push(`${at}: the field is gone`);
    else if (field.optional && !other.optional) changes.push(`${at}: it has to be there now`);
    else if (!field.optional && other.optional) changes.push(`${at}: it may be absent now`);
    else changes.push(...forbiddenChanges(field.shape, other.shape, at));
  }
  for (const [name, { optional }] of Object.entries(now.fields)) {
    if (before.fields[name] === undefined && !optional) {
      changes.push(`${path}.${name}: the field is new, and has to be there`);
    }
  }
  return changes;
}
