import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as fc from "fast-check";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { subjectToken } from "#proto/subjects.ts";
import { clusterTopology, inboxName } from "./nats-topology.ts";

const BOUNDS = { replicas: 3, claimBytes: 1, blockBytes: 2, requestBytes: 3 };

describe("names on NATS", () => {
  it("are one token each, and different for different names", () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, unit: "grapheme" }), (name) => {
        const token = subjectToken(name);
        assert.match(token, /^[-A-Za-z0-9_=]+$/);
        const back = token.replaceAll(/(=[0-9a-f]{2})+/g, (bytes) =>
          Buffer.from(bytes.replaceAll("=", ""), "hex").toString(),
        );
        assert.equal(back, Buffer.from(name).toString());
      }),
    );
  });

  it("keep hosts with dots apart from subjects", () => {
    assert.equal(inboxName("hv1.example.org"), "inbox.hv1=2eexample=2eorg");
  });
});

describe("the streams of a cluster", () => {
  const topology = clusterTopology({ prefix: "ashlar", ...BOUNDS });

  it("carry each queue, with one consumer", () => {
    const names = [
      "dedup",
      "writer",
      "writer.site-a",
      "upkeep",
      "reader.hv1",
      "reader.hv.1",
      "jobs",
    ];
    const specs = names.map((name) => topology.queue(name));
    assert.deepEqual(
      specs.map(({ stream, subject, consumer }) => `${stream} ${subject} ${consumer}`),
      [
        "ashlar-claims ashlar.v1.claims.default default",
        "ashlar-blocks ashlar.v1.blocks.default default",
        "ashlar-blocks ashlar.v1.blocks.site-a site-a",
        "ashlar-requests ashlar.v1.requests.upkeep.default upkeep-default",
        "ashlar-readers ashlar.v1.readers.hv1 hv1",
        "ashlar-readers ashlar.v1.readers.hv=2e1 hv=2e1",
        "ashlar-jobs ashlar.v1.jobs.queue.default default",
      ],
    );
    for (const { stream, subject } of specs) {
      const spec = topology.streams.find(({ name }) => name === stream);
      assert.ok(spec?.subjects.some((pattern) => subject.startsWith(pattern.slice(0, -1))));
    }
  });

  it("hold plaintext in memory only", () => {
    const carriers = topology.streams.filter(({ name }) => !/-(jobs|events)$/.test(name));
    assert.deepEqual(new Set(carriers.map(({ storage }) => storage)), new Set(["memory"]));
  });

  it("have a prefix that is a name", () => {
    for (const prefix of ["", "a.b", "a*", "$JS", "x".repeat(33)]) {
      assert.throws(
        () => clusterTopology({ prefix, ...BOUNDS }),
        (error) => isErrorCode(error, ErrorCode.Config),
      );
    }
  });
});
