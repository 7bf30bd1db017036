import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { AshlarError, ErrorCode } from "#lib/core/errors.ts";
import { readJob } from "./job-kinds.ts";
import { JOB_KINDS, parseJobRequest, parseJobWords, submissionSchema } from "./job-spec.ts";

function complaint(work: () => unknown): string {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof AshlarError, String(error));
    assert.equal(error.code, ErrorCode.Usage);
    return `${String(error.details["field"])}: ${error.message}`;
  }
  throw new Error("accepted");
}

describe("a submission", () => {
  it("is kept as it was written, without what is not its kind's", () => {
    const text =
      '{"kind":"backup","volume":"v","source":"/s","blockSize":"1MiB","key":"k","submitter":"me"}';
    assert.deepEqual(parseJobRequest(text), {
      kind: "backup",
      spec: { volume: "v", source: "/s", blockSize: "1MiB" },
      key: "k",
      submitter: "me",
    });
  });

  it("names the field at fault", () => {
    const cases: [string, RegExp][] = [
      ["[]", /undefined: expected a JSON object/],
      ["{}", /kind: kind: it is missing/],
      ['{"kind":7}', /kind: kind: Invalid input: expected string/],
      ['{"kind":"gc","sweep":"yes"}', /sweep: sweep: Invalid input: expected boolean/],
      ['{"kind":"remove","versions":[]}', /versions: versions: Too small/],
      ['{"kind":"remove","versions":["a",1]}', /versions\.1: /],
      ['{"kind":"backup","volume":"v","source":"/s","blockSize":"huge"}', /blockSize: blockSize: /],
      ['{"kind":"backup","volume":"v","source":"/s","labels":{"a":1}}', /labels\.a: /],
      ['{"kind":"gc","key":""}', /key: key: /],
      ['{"kind":"backup","volume":"v","source":"/s","compression":"zip"}', /^compression: /],
      ['{"kind":"backup","volume":"v","source":"/s","compressionLevel":20}', /^compressionLevel: /],
    ];
    for (const [text, message] of cases)
      assert.match(
        complaint(() => parseJobRequest(text)),
        message,
      );
  });

  it("fits what is recorded of it", () => {
    const versions = Array.from({ length: 2000 }, (_, index) => `volume-with-a-name-${index}`);
    const text = JSON.stringify({ kind: "remove", versions });
    assert.match(
      complaint(() => parseJobRequest(text)),
      /24576 are the most/,
    );
  });

  it("has what no field alone can tell checked, too", () => {
    assert.match(
      complaint(() => readJob("backup", { volume: "", source: "/s" })),
      /volume: /,
    );
    const backup = { volume: "v", source: "/s", compression: "lz4", compressionLevel: 3 };
    assert.match(
      complaint(() => readJob("backup", backup)),
      /compressionLevel: compression lz4 has no levels/,
    );
    assert.match(
      complaint(() => readJob("restore", { version: "v", target: "-" })),
      /target: /,
    );
  });

  it("of a kind that a newer coordinator has recorded is refused by its name", () => {
    for (const kind of ["reencrypt", "toString"]) {
      assert.match(
        complaint(() => readJob(kind, {})),
        new RegExp(`kind: there is no kind of job "${kind}"`),
      );
    }
  });

  it("of a removal names whole uids, for it may be begun again", () => {
    assert.match(
      complaint(() => readJob("remove", { versions: ["vm1-abc123", "vm1@latest"] })),
      /versions: versions: "vm1@latest" is no uid/,
    );
  });

  it("has a schema that names every kind", () => {
    const text = JSON.stringify(submissionSchema());
    for (const kind of JOB_KINDS) assert.ok(text.includes(`"${kind}"`), kind);
  });
});

describe("a job on a command line", () => {
  it("has values of the kinds that its fields are of", () => {
    const words = ["backup", "volume=12", "source=/dev/a=b", "quorum=2", "requireComplete=true"];
    assert.deepEqual(parseJobWords([...words, "storages=a,b", "labels.env=prod"]), {
      kind: "backup",
      volume: "12",
      source: "/dev/a=b",
      quorum: 2,
      requireComplete: true,
      storages: ["a", "b"],
      labels: { env: "prod" },
    });
  });

  it("may be JSON, in one word or several", () => {
    assert.deepEqual(parseJobWords(['{"kind":', '"gc"}']), { kind: "gc" });
    assert.match(
      complaint(() => parseJobWords(["gc", "sweep"])),
      /expected FIELD=VALUE/,
    );
  });
});
