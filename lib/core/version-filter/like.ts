// SQL's LIKE: `%` stands for any text, `_` for one character, a backslash takes their meaning away. Case-sensitive.

const ANY_TEXT = 0;
const ANY_CHARACTER = 1;
type Piece = string | typeof ANY_TEXT | typeof ANY_CHARACTER;

/**
 * Whether the whole of `text` matches `pattern`.
 *
 * Not by a regular expression: one made of a user's `%a%a%a%a…` takes time exponential in the pattern's length.
 */
export function matchesLike(text: string, pattern: string): boolean {
  const pieces = piecesOf(pattern);
  const characters = Array.from(text);
  let piece = 0;
  let character = 0;
  // Where to go on when a later piece fails: after the last `%`, which then takes one character more.
  let retryPiece = -1;
  let retryCharacter = 0;
  while (character < characters.length) {
    const expected = pieces[piece];
    if (expected === ANY_TEXT) {
      piece += 1;
      retryPiece = piece;
      retryCharacter = character;
    } else if (expected === ANY_CHARACTER || expected === characters[character]) {
      piece += 1;
      character += 1;
    } else if (retryPiece >= 0) {
      piece = retryPiece;
      retryCharacter += 1;
      character = retryCharacter;
    } else {
      return false;
    }
  }
  return pieces.slice(piece).every((rest) => rest === ANY_TEXT);
}

function piecesOf(pattern: string): Piece[] {
  const pieces: Piece[] = [];
  const characters = Array.from(pattern);
  for (let at = 0; at < characters.length; at += 1) {
    const character = characters[at] ?? "";
    const next = characters[at + 1];
    if (character === "\\" && (next === "%" || next === "_" || next === "\\")) {
      pieces.push(next);
      at += 1;
    } else if (character === "%") {
      pieces.push(ANY_TEXT);
    } else {
      pieces.push(character === "_" ? ANY_CHARACTER : character);
    }
  }
  return pieces;
}
