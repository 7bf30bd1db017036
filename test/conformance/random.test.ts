import { seededRandom } from "#lib/drivers/memory/seeded-random.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";
import { describeRandom } from "./random.ts";

describeRandom("system", systemRandom);

describeRandom("seeded", () => seededRandom("conformance"));
