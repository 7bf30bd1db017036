// Messages of every release, as they were on the wire, are understood by this one; and shapes change only as they may.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, it } from "node:test";
import { MsgHdrsImpl } from "@nats-io/transport-node";
import { ErrorCode } from "#lib/core/errors.ts";
import type { JobId } from "#lib/core/ids.ts";
import { decodeMessage } from "#lib/drivers/nats/nats-message.ts";
import type { JobRecord } from "#lib/repository/job-record.ts";
import {
  fields,
  list,
  nullable,
  number,
  optional,
  text,
  word,
  type ShapeData,
} from "#proto/shape.ts";
import { describeJob } from "#services/coordinator/jobs/job-service.ts";
import type { JobRequest } from "#services/coordinator/jobs/job-spec.ts";
import { asJson, kindOfSubject, meaningOf, MESSAGE_KINDS } from "./message-kinds.ts";
import { TOPOLOGY, type RecordedMessage } from "./recording-bus.ts";
import { readRecordings, shapesOfToday, writeRecording } from "./recordings.ts";
import { forbiddenChanges } from "./shape-changes.ts";

const RELEASES = readRecordings(import.meta.dirname);

function received({ headers, data }: RecordedMessage) {
  const wire = Buffer.from(headers, "base64");
  const message = decodeMessage({
    data: Buffer.from(data, "base64"),
    ...(wire.length === 0 ? {} : { headers: MsgHdrsImpl.decode(wire) }),
  });
  assert.ok(message !== "damaged", "its checksum is right");
  return message;
}

describe("recorded messages", () => {
  for (const { release, messages } of RELEASES) {
    it(`of ${release} are understood as they were then`, () => {
      for (const [kind, samples] of messages) {
        for (const sample of samples) {
          const means = asJson(meaningOf(kind, received(sample)));
          assert.deepEqual(means, sample.means, `${kind} of ${release}`);
        }
      }
    });

    it(`of ${release} come by subjects that are heard`, () => {
      const prefix = `${TOPOLOGY.subjectPrefix}.`;
      for (const [kind, samples] of messages) {
        for (const { queue, subject } of samples) {
          if (queue !== undefined) assert.equal(TOPOLOGY.queue(queue).subject, subject);
          assert.ok(subject.startsWith(prefix), subject);
          if (queue !== undefined || /^(?:reply|error|asked|answered)/.test(kind)) continue;
          assert.equal(kindOfSubject(subject.slice(prefix.length)), kind);
        }
      }
    });

    it(`of ${release} have shapes that were changed as they may be`, async (test) => {
      const now = shapesOfToday();
      const { shapes } = RELEASES.find((each) => each.release === release)!;
      for (const [kind, shape] of Object.entries(shapes)) {
        await test.test(kind, () => {
          assert.ok(now[kind] !== undefined, `${kind} is still understood`);
          assert.deepEqual(forbiddenChanges(shape, now[kind], kind), []);
        });
      }
    });
  }

  it("of jobs, as people get them, have no field that is not told any more", () => {
    const record: JobRecord = {
      kind: "gc",
      spec: {},
      state: "running",
      submitter: "alice",
      submittedMs: 0,
      key: undefined,
      startedMs: 0,
      endedMs: 0,
      attempts: 1,
      owner: undefined,
      token: undefined,
      isCancelled: true,
      notBeforeMs: 0,
      locks: [],
      result: {},
      error: { code: ErrorCode.Internal, message: "" },
    };
    const told = Object.keys(describeJob("00000000000000000000" as JobId, record));
    for (const { messages } of RELEASES) {
      // What a job was submitted with is told as well, and what it waits for while it does.
      const submitted = [...messages]
        .filter(([kind]) => kind.startsWith("job ") && kind !== "job event")
        .flatMap(([, samples]) => samples.map(({ means }) => (means as JobRequest).spec));
      const known = new Set([
        ...told,
        ...submitted.flatMap((spec) => Object.keys(spec)),
        "waitsFor",
      ]);
      const documents = (messages.get("answered get") ?? []).map(({ means }) => means as object);
      const gone = documents
        .flatMap((each) => Object.keys(each))
        .filter((name) => !known.has(name));
      assert.deepEqual(gone, []);
    }
  });

  it("are there of every kind", () => {
    const recorded = new Set(RELEASES.flatMap(({ messages }) => [...messages.keys()]));
    const missing = MESSAGE_KINDS.filter((kind) => !recorded.has(kind));
    assert.deepEqual(missing, [], "run: node test/recorded/record.ts NEXT-RELEASE");
  });

  it("of payloads have them beside the body", () => {
    for (const { messages } of RELEASES) {
      for (const kind of ["request put", "reply read"]) {
        const samples = messages.get(kind) ?? [];
        assert.ok(
          samples.some((sample) => received(sample).payload !== undefined),
          kind,
        );
      }
    }
  });

  it("are never written again", () => {
    const folder = mkdtempSync(path.join(tmpdir(), "ashlar-recorded-"));
    try {
      const [first] = RELEASES;
      assert.ok(first !== undefined);
      const { written } = writeRecording(folder, first);
      assert.equal(written.length, first.messages.size + 1);
      const other = {
        ...first,
        messages: new Map([
          ["error", []],
          ["new kind", []],
        ]),
      };
      const again = writeRecording(folder, other);
      assert.deepEqual(again.written, ["new-kind.json"]);
      assert.deepEqual(again.kept, ["error.json", "shapes.json"]);
      const [read] = readRecordings(folder);
      assert.deepEqual(read?.messages.get("error"), first.messages.get("error"));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe("a shape", () => {
  interface Before {
    readonly id: string;
    readonly sizes: readonly (number | null)[];
    readonly kind: "a" | "b";
    readonly note?: string;
  }
  const parts = {
    id: text,
    sizes: list(nullable(number)),
    kind: word("a", "b"),
    note: optional(text),
  };
  const before = fields<Before>(parts);
  const changed = (change: object): string[] =>
    forbiddenChanges(before, fields<object>({ ...parts, ...change }), "kind");

  it("may get optional fields, and words that it understands", () => {
    assert.deepEqual(changed({}), []);
    assert.deepEqual(changed({ more: optional(number), kind: word("a", "b", "c") }), []);
  });

  it("may change in no other way", () => {
    const { id: _, ...without } = parts;
    const renamed: ShapeData = fields<object>({ ...without, uid: text });
    assert.deepEqual(forbiddenChanges(before, renamed, "kind"), [
      "kind.id: the field is gone",
      "kind.uid: the field is new, and has to be there",
    ]);
    const forbidden: readonly [object, RegExp][] = [
      [{ more: number }, /more: the field is new, and has to be there/],
      [{ note: text }, /note: it has to be there now/],
      [{ id: optional(text) }, /id: it may be absent now/],
      [{ id: number }, /id: it was text and is number/],
      [{ sizes: list(number) }, /sizes\[\]: it was nullable and is number/],
      [{ kind: word("a") }, /kind: the word b is not understood any more/],
    ];
    for (const [change, said] of forbidden) {
      const [first = "", ...more] = changed(change);
      assert.match(first, said);
      assert.deepEqual(more, []);
    }
  });
});
