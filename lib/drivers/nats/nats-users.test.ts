import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { parseUsers, permissionsOf, renderUsers, type NatsUser } from "./nats-users.ts";

const USERS: readonly NatsUser[] = [
  { role: "core", name: "central", nkey: "UA", prefix: "ashlar" },
  { role: "reader", name: "hv1", nkey: "UB", prefix: "ashlar" },
  { role: "reader", name: "hv1", nkey: "UC", prefix: "second-1" },
  { role: "client", name: "alice", nkey: "UD", prefix: "second-1" },
];

describe("the file of NATS users", () => {
  it("has users of several repositories, each with the permissions of its own", () => {
    const text = renderUsers({ users: USERS, others: [] });
    assert.deepEqual(parseUsers(text, "f"), { users: USERS, others: [] });
    for (const { role, name, nkey, prefix } of USERS) {
      const line = JSON.stringify({ nkey, permissions: permissionsOf(role, name, prefix) });
      assert.ok(text.includes(line), `${prefix} ${name}`);
    }
  });

  it("keeps what others have written into the list", () => {
    const others = ["# The orders service.", '  {user: orders, password: "x"}'];
    const text = renderUsers({ users: USERS.slice(0, 2), others: [] });
    const edited = text.replace("# reader hv1", `${others.join("\n")}\n# reader hv1`);
    const read = parseUsers(edited, "f");
    assert.deepEqual(read, { users: USERS.slice(0, 2), others });
    assert.deepEqual(parseUsers(renderUsers(read), "f"), read);
  });

  it("takes entries as the server does: with a comma behind them, and line ends of any kind", () => {
    const text = renderUsers({ users: USERS, others: [] });
    for (const edited of [
      text.replaceAll("}\n", "},\n"),
      text.replaceAll("\n", "\r\n"),
      text.trimEnd(),
    ]) {
      assert.deepEqual(parseUsers(edited, "f").users, USERS);
    }
  });

  it("refuses what it would lose, and names an entry that it cannot read", () => {
    const text = renderUsers({ users: USERS, others: [] });
    for (const edited of [
      `${text}default_permissions: {}\n`,
      text.replace("users:", "timeout: 2\nusers:"),
    ]) {
      assert.throws(() => parseUsers(edited, "f"), /f has something beside its list of users/);
    }
    assert.throws(
      () => parseUsers(text.replace('{"nkey":"UB"', "{nkey: UB"), "f"),
      (error) => isErrorCode(error, ErrorCode.Damaged) && /the reader hv1/.test(error.message),
    );
  });

  it("is nothing else", () => {
    for (const text of ["", "users: [\n]\n", renderUsers({ users: [], others: [] }).slice(0, -2)]) {
      assert.throws(
        () => parseUsers(text, "f"),
        (error) => isErrorCode(error, ErrorCode.Damaged),
      );
    }
  });
});
