/**
 * Puts and gets of sealed objects at an S3 service, by Ashlar's driver or by the SDK alone. A program of its own, so that its CPU time
 * is that of nothing else.
 *
 *   node bench/s3/objects.ts ashlar|sdk URL OBJECTS OBJECT_BYTES PARALLEL
 */
import { randomBytes } from "node:crypto";
import { Agent } from "node:http";
import { readFile } from "node:fs/promises";
import { GetObjectCommand, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { openStorage } from "#lib/drivers/storages.ts";
import { parseS3Url } from "#lib/drivers/s3/s3-settings.ts";
import { systemClock } from "#lib/drivers/system/system-clock.ts";
import { systemRandom } from "#lib/drivers/system/system-random.ts";

/** What one direction took. */
export interface ObjectsFigure {
  readonly cpuSeconds: number;
  readonly wallSeconds: number;
}

/** What the program prints. */
export interface ObjectsFigures {
  readonly put: ObjectsFigure;
  readonly get: ObjectsFigure;
}

interface Client {
  put(name: string, bytes: Uint8Array): Promise<void>;
  get(name: string, into: Uint8Array): Promise<Uint8Array>;
}

async function openAshlar(url: string): Promise<Client> {
  const store = await openStorage(url, { clock: systemClock(), random: systemRandom() });
  return {
    put: (name, bytes) => store.put(name, bytes, { mode: "create" }),
    get: (name, into) => store.get(name, { into }),
  };
}

/** As anybody would write it, with as many connections. */
async function openSdk(url: string): Promise<Client> {
  const settings = parseS3Url(url);
  const agent = new Agent({ keepAlive: true, maxSockets: settings.connections });
  const client = new S3Client({
    endpoint: settings.endpoint as string,
    region: settings.region as string,
    forcePathStyle: true,
    credentials: {
      accessKeyId: (await readFile(settings.accessKeyIdFile as string, "utf8")).trim(),
      secretAccessKey: (await readFile(settings.secretAccessKeyFile as string, "utf8")).trim(),
    },
    requestHandler: { httpAgent: agent },
  });
  const Bucket = settings.bucket;
  return {
    put: async (name, bytes) => {
      await client.send(
        new PutObjectCommand({ Bucket, Key: `sdk/${name}`, Body: bytes, IfNoneMatch: "*" }),
      );
    },
    get: async (name) => {
      const { Body } = await client.send(new GetObjectCommand({ Bucket, Key: `sdk/${name}` }));
      return (await Body?.transformToByteArray()) as Uint8Array;
    },
  };
}

/** Runs `work` for each name, some at a time. */
async function measure(
  names: readonly string[],
  parallel: number,
  work: (name: string, lane: number) => Promise<void>,
): Promise<ObjectsFigure> {
  const left = [...names];
  const cpu = process.cpuUsage();
  const startMs = performance.now();
  await Promise.all(
    Array.from({ length: parallel }, async (_, lane) => {
      for (let name = left.pop(); name !== undefined; name = left.pop()) await work(name, lane);
    }),
  );
  const { user, system } = process.cpuUsage(cpu);
  return { cpuSeconds: (user + system) / 1e6, wallSeconds: (performance.now() - startMs) / 1000 };
}

const [who = "", url = "", count = "", sizeText = "", parallelText = ""] = process.argv.slice(2);
const sizeBytes = Number(sizeText);
const parallel = Number(parallelText);
const client = await (who === "ashlar" ? openAshlar(url) : openSdk(url));
const bytes = randomBytes(sizeBytes);
const intos = Array.from({ length: parallel }, () => Buffer.alloc(sizeBytes));
const namesFor = (many: number): string[] =>
  Array.from({ length: many }, () => `blocks/${randomBytes(32).toString("hex")}`);
const put = (name: string): Promise<void> => client.put(name, bytes);
const get = async (name: string, lane: number): Promise<void> => {
  const found = await client.get(name, intos[lane] as Buffer);
  if (Buffer.compare(found, bytes) !== 0) throw new Error(`${name} came back as something else`);
};
// Connections are there, and everything is compiled.
const first = namesFor(parallel * 2);
await measure(first, parallel, put);
await measure(first, parallel, get);
const names = namesFor(Number(count));
const figures: ObjectsFigures = {
  put: await measure(names, parallel, put),
  get: await measure(names, parallel, get),
};
console.log(JSON.stringify(figures));
process.exit(0);
