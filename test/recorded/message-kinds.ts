// Every kind of message that processes send each other: how it is told apart on the wire, and what this code makes of it. The
// records of proto/ say which kinds there must be, so that a new one shows here, and then has to be recorded.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { JOB_KINDS, parseJobRequest, parseObject } from "#services/coordinator/jobs/job-spec.ts";
import { readJob } from "#services/coordinator/jobs/job-kinds.ts";
import { parseSchedule } from "#services/coordinator/jobs/schedules.ts";
import { jobEndpoints } from "#services/coordinator/jobs/job-service.ts";
import type { BusMessage } from "#lib/ports/bus.ts";
import {
  decodeAgent,
  decodePresence,
  decodeProgress,
  decodeReply,
  decodeRequest,
  readReply,
  readRequest,
} from "#proto/message-codec.ts";
import { REPLY_SHAPES, REQUEST_SHAPES } from "#proto/message-shapes.ts";
import type { RequestType } from "#proto/messages.ts";
import * as subjects from "#proto/subjects.ts";

const REQUEST_TYPES = Object.keys(REQUEST_SHAPES) as RequestType[];

/** Names of the endpoints of the jobs service; nothing of a coordinator is needed to tell them. */
const ENDPOINTS = jobEndpoints({} as never, {} as never).map(({ name }) => name);

/** What is sent by subject, by its exported name in proto/subjects.ts: which kind of message it carries. */
const SENT: Readonly<Record<string, string>> = {
  progressSubject: "progress",
  cancelSubject: "cancel",
  attendSubject: "attend",
  presenceSubject: "presence",
  jobEventSubject: "job event",
  agentSubject: "agent",
  JOBS_WAKE_SUBJECT: "jobs wake",
  JOBS_CANCEL_SUBJECT: "jobs stop",
  SCRUB_OVER_SUBJECT: "scrub over",
};

/** No message has these. */
const NO_SUBJECTS = new Set(["subjectToken", "AGENTS_SUBJECT"]);

/** Subjects of today, with what is theirs alone in capitals, and the kind that each carries. */
const PATTERNS = Object.entries(subjects)
  .filter(([name]) => !NO_SUBJECTS.has(name))
  .map(([name, subject]): readonly [RegExp, string] => {
    const kind = SENT[name];
    assert.ok(kind !== undefined, `test/recorded/ knows which kind of message ${name} has`);
    const example = typeof subject === "string" ? subject : subject("A", "B");
    return [
      new RegExp(`^${example.replaceAll(".", "\\.").replaceAll(/\b[AB]\b/g, "[^.]+")}$`),
      kind,
    ];
  });

/** All kinds. */
export const MESSAGE_KINDS: readonly string[] = [
  ...REQUEST_TYPES.map((type) => `request ${type}`),
  ...(Object.keys(REPLY_SHAPES) as RequestType[]).map((type) => `reply ${type}`),
  "error",
  ...PATTERNS.map(([, kind]) => kind),
  ...JOB_KINDS.map((kind) => `job ${kind}`),
  ...ENDPOINTS.flatMap((name) => [`asked ${name}`, `answered ${name}`]),
  "answered error",
];

/** The kind of what is sent by a subject other than an inbox; undefined for none of ours. */
export function kindOfSubject(subject: string): string | undefined {
  return PATTERNS.find(([pattern]) => pattern.test(subject))?.[1];
}

/** What this code makes of a message of a kind; throws where it does not understand it. */
export function meaningOf(kind: string, { body, payload, headers }: BusMessage): unknown {
  const beside = {
    ...(headers === undefined ? {} : { headers }),
    ...(payload === undefined ? {} : { payload: digest(payload.bytes) }),
  };
  const [what = "", name = ""] = kind.split(" ");
  const text = Buffer.from(body).toString("utf8");
  if (what === "request") {
    const envelope = decodeRequest(body);
    assert.equal(envelope.type, name);
    return { ...envelope, body: readRequest(envelope), ...beside };
  }
  if (what === "reply") {
    const reply = decodeReply(body);
    return { ...reply, body: readReply(name as RequestType, reply), ...beside };
  }
  if (what === "job" && name !== "event") {
    const request = parseJobRequest(text);
    readJob(request.kind, request.spec);
    return { ...request, ...beside };
  }
  if (what === "answered" || kind === "job event") return JSON.parse(text);
  switch (kind) {
    case "asked submit":
      return parseJobRequest(text);
    case "asked schedule":
      return parseSchedule(text);
    case "error":
      return decodeReply(body);
    case "progress":
      return decodeProgress(body);
    case "agent":
      return decodeAgent(body);
    case "presence":
      return decodePresence(body);
    default:
      return what === "asked" ? parseObject(text) : text;
  }
}

function digest(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** A meaning as JSON. */
export function asJson(value: unknown): unknown {
  const text = JSON.stringify(value, (_, each: unknown) => {
    const bytes = each as { readonly type?: unknown; readonly data?: readonly number[] } | null;
    if (typeof each === "object" && bytes?.type === "Buffer" && Array.isArray(bytes.data)) {
      return { bytes: Buffer.from(bytes.data).toString("base64") };
    }
    return each;
  });
  return text === undefined ? null : (JSON.parse(text) as unknown);
}
