// Dates in filters: ISO 8601 by luxon, everything else ("1 week ago", "last friday") by chrono. What names no time zone is
// local time; what names no time of day is the start of the day; what names no year, or only a weekday, lies in the past,
// for a version's date always does.
import * as chrono from "chrono-node/en";
import type { Component, ParsedComponents } from "chrono-node";
import { DateTime } from "luxon";

/** Reads a date and answers ms since 1970, or undefined where `text` is not exactly one date. */
export function parseDateLiteral(text: string, nowMs: number, zone: string): number | undefined {
  const trimmed = text.trim();
  const iso = DateTime.fromISO(trimmed, { zone });
  // luxon takes "2024" for a year, but also "14:00" for today's 14:00, which may lie ahead: chrono handles that.
  if (iso.isValid && /^\d{4}/.test(trimmed)) return iso.toMillis();
  // chrono reads 2024-13-01 as the American 13 January.
  if (/^\d{4}-\d\d-\d\d/.test(trimmed) && !DateTime.fromISO(trimmed.slice(0, 10)).isValid)
    return undefined;
  const now = DateTime.fromMillis(nowMs, { zone });
  // chrono knows offsets only, so it reckons in the present one; the wall-clock time it finds is put into the zone below.
  const results = chrono.casual.parse(trimmed, {
    instant: now.toJSDate(),
    timezone: now.offset,
  });
  const [result] = results;
  // chrono finds dates inside prose: "1 week ago or so" is most likely not what the user meant.
  if (result === undefined || results.length > 1 || result.text.length !== trimmed.length)
    return undefined;
  if (result.end !== undefined && result.end !== null) return undefined;
  return resolve(result.start, now, /^(?:next|coming|this)\b/i.test(trimmed));
}

function resolve(components: ParsedComponents, now: DateTime, ahead: boolean): number | undefined {
  if (components.isCertain("timezoneOffset")) return components.date().getTime();
  const at = (component: Component): number => components.get(component) ?? 0;
  const tags = components.tags();
  const keepsClock =
    components.isCertain("hour") || tags.has("result/relativeDate") || namesTimeOfDay(tags);
  const found = DateTime.fromObject(
    {
      year: at("year"),
      month: at("month"),
      day: at("day"),
      ...(keepsClock
        ? {
            hour: at("hour"),
            minute: at("minute"),
            second: at("second"),
            millisecond: at("millisecond"),
          }
        : {}),
    },
    { zone: now.zone },
  );
  if (!found.isValid) return undefined;
  return (found > now && !ahead ? intoThePast(found, components) : found).toMillis();
}

function namesTimeOfDay(tags: ReadonlySet<string>): boolean {
  return ["noon", "midnight", "morning", "afternoon", "evening", "night"].some((time) =>
    tags.has(`casualReference/${time}`),
  );
}

/** Moves what was named incompletely back by a week, a year or a day; what says that it lies ahead stays there. */
function intoThePast(found: DateTime, components: ParsedComponents): DateTime {
  const certain = (component: Component): boolean => components.isCertain(component);
  if (certain("day") || certain("month")) {
    return certain("year") ? found : found.minus({ years: 1 });
  }
  if (certain("year") || components.tags().has("result/relativeDate")) return found;
  return certain("weekday") ? found.minus({ weeks: 1 }) : found.minus({ days: 1 });
}
