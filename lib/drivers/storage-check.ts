// Tries out on a storage everything that Ashlar relies on, with small objects that nobody takes for anything else.
import { AshlarError, ErrorCode, isErrorCode } from "#lib/core/errors.ts";
import { lockOf, type BlobStore, type LockedObject } from "#lib/ports/blob-store.ts";
import type { Random } from "#lib/ports/random.ts";

/** What one trial came to. `warning`: it works, and something about it is to be known. */
export interface CheckFinding {
  readonly check: string;
  readonly outcome: "ok" | "warning" | "failed" | "unknown";
  /** In words; empty where there is nothing to say. */
  readonly detail: string;
}

/** Where the objects of a check are; none of Ashlar's own is called so, and what is not called as they are is left alone. */
const PROBE_FOLDER = "stamps/";
const PROBE_PREFIX = `${PROBE_FOLDER}probe.`;
const PROBE_BYTES = 65_536;
const MANY = 12;
/** What a storage locks is tried apart, with locks that do not last. */
const CREATE = { mode: "create", unlocked: true } as const;

/** Tries everything, one after the other. What it has put is deleted again, and what an earlier check has left behind. */
export async function checkStorage(store: BlobStore, random: Random): Promise<CheckFinding[]> {
  const check = new StorageCheck(store, random);
  try {
    return await check.run();
  } finally {
    await check.clean();
  }
}

class StorageCheck {
  readonly #store: BlobStore;
  readonly #random: Random;
  readonly #findings: CheckFinding[] = [];
  readonly #names: string[];
  readonly #bytes: Uint8Array;

  constructor(store: BlobStore, random: Random) {
    this.#store = store;
    this.#random = random;
    this.#names = Array.from({ length: MANY }, () => this.#newName());
    this.#bytes = random.bytes(PROBE_BYTES);
  }

  #newName(): string {
    return PROBE_PREFIX + this.#random.bytes(8).toString("hex");
  }

  async run(): Promise<CheckFinding[]> {
    const store = this.#store;
    const [name = "", ...others] = this.#names;
    await this.#try("marker", () => store.check());
    // Without this one the rest says nothing.
    const isPut = await this.#try("put", () => store.put(name, this.#bytes, CREATE));
    if (!isPut) return this.#findings;
    await this.#try("read after write", () => this.#reads(name, this.#bytes));
    await this.#try("read a part", async () => {
      const range = { offset: 1000, length: 5000 };
      const found = await store.get(name, { range });
      mustBe(Buffer.compare(found, this.#bytes.subarray(1000, 6000)) === 0, "other bytes came");
    });
    await this.#try("size", async () => {
      const { sizeBytes } = await store.stat(name);
      mustBe(sizeBytes === PROBE_BYTES, `it tells ${sizeBytes} instead of ${PROBE_BYTES} bytes`);
    });
    await this.#createOnly(name);
    await this.#try("replace", async () => {
      const other = this.#random.bytes(100);
      await store.put(name, other, { ...CREATE, mode: "replace" });
      await this.#reads(name, other);
    });
    await this.#try("many at once", async () => {
      const put = (each: string): Promise<void> =>
        store.put(each, this.#bytes.subarray(0, 100), CREATE);
      await Promise.all(others.map(put));
    });
    await this.#listing();
    await this.#try("what is absent", async () => {
      const error = await store.get(this.#newName()).catch((thrown: unknown) => thrown);
      mustBe(isErrorCode(error, ErrorCode.NotFound), `it is told as ${String(error)}`);
    });
    await this.#deletion();
    return this.#findings;
  }

  async #createOnly(name: string): Promise<void> {
    if (!this.#store.capabilities.createOnly) {
      this.#tell(
        "create only",
        "warning",
        "not by the storage: of two that create one name at once both may think that they have",
      );
      return;
    }
    // Names are used once and hard to guess, so nothing is lost where it fails; but it is not what the storage is set to.
    await this.#try(
      "create only",
      async () => {
        const again = this.#store.put(name, this.#bytes, CREATE);
        mustBe(await isTaken(again), "an object that is there was replaced");
        const one = this.#newName();
        this.#names.push(one);
        const tries = Array.from({ length: 8 }, () =>
          isTaken(this.#store.put(one, this.#bytes, CREATE)),
        );
        const winners = (await Promise.all(tries)).filter((taken) => !taken).length;
        mustBe(
          winners === 1,
          `${winners} of 8 that created one name at once were told that they have`,
        );
      },
      "warning",
    );
  }

  async #listing(): Promise<void> {
    if (!this.#store.capabilities.consistentListing) {
      this.#tell("listing", "warning", "it may lag behind: nothing will ever be deleted here");
      return;
    }
    await this.#try("listing", async () => {
      const listed = await this.#list();
      const missing = this.#names.filter((name) => !listed.includes(name));
      mustBe(
        missing.length === 0,
        `${missing.length} of ${this.#names.length} objects that were just put are missing`,
      );
    });
  }

  async #deletion(): Promise<void> {
    let locked: LockedObject | undefined;
    const isTried = await this.#try("delete", async () => {
      const failures = await this.#store.delete(this.#names);
      locked = [...failures.values()].map(lockOf).find((lock) => lock !== undefined);
      if (locked !== undefined) return;
      for (const error of failures.values()) throw error;
      const left = (await this.#list()).filter((name) => this.#names.includes(name));
      mustBe(left.length === 0, `${left.length} deleted objects are still listed`);
      const error = await this.#store
        .get(this.#names[0] as string)
        .catch((thrown: unknown) => thrown);
      mustBe(isErrorCode(error, ErrorCode.NotFound), "a deleted object can still be read");
    });
    if (!isTried || locked === undefined) return;
    const until = new Date(locked.untilMs).toISOString();
    const detail = `the bucket itself locks everything that is put: what this check has put stays until ${until}`;
    this.#findings[this.#findings.length - 1] = { check: "delete", outcome: "warning", detail };
  }

  async #reads(name: string, bytes: Uint8Array): Promise<void> {
    mustBe(Buffer.compare(await this.#store.get(name), bytes) === 0, "other bytes came");
  }

  async #list(): Promise<string[]> {
    const names: string[] = [];
    for await (const { name } of this.#store.list(PROBE_FOLDER)) {
      if (name.startsWith(PROBE_PREFIX)) names.push(name);
    }
    return names;
  }

  /** @param wrong what it means when the storage does not do what it should */
  async #try(
    check: string,
    work: () => Promise<void>,
    wrong: "failed" | "warning" = "failed",
  ): Promise<boolean> {
    try {
      await work();
      this.#tell(check, "ok", "");
      return true;
    } catch (error) {
      if (!(error instanceof AshlarError) && !(error instanceof Wrong)) throw error;
      this.#tell(check, error instanceof Wrong ? wrong : "failed", error.message);
      return false;
    }
  }

  #tell(check: string, outcome: CheckFinding["outcome"], detail: string): void {
    this.#findings.push({ check, outcome, detail });
  }

  /** Whatever became of it. Where it cannot be, the next check finds it. */
  async clean(): Promise<void> {
    const names = await this.#list().catch(() => this.#names);
    await this.#store.delete(names).catch(() => undefined);
  }
}

/** It did not do what it must. */
class Wrong extends Error {
  override readonly name = "Wrong";
}

function mustBe(condition: boolean, problem: string): void {
  if (!condition) throw new Wrong(problem);
}

async function isTaken(put: Promise<void>): Promise<boolean> {
  try {
    await put;
    return false;
  } catch (error) {
    if (isErrorCode(error, ErrorCode.AlreadyExists)) return true;
    throw error;
  }
}
