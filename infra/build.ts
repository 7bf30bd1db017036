/**
 * Compiles the sources into dist/, the form in which the package is published: Node.js refuses to strip
 * types below node_modules. `npm pack` calls this through the `prepack` script; the tarball then holds
 * bin/, dist/ and the root's package.json, unchanged.
 *
 * The compiler rewrites relative imports to .js, but not imports through "#lib/…". Those are mapped by
 * dist/package.json, because Node.js resolves "#" names by the nearest package.json above a file. So
 * nothing in the source tree is touched, and nothing has to be cleaned up afterwards. The compiler would
 * refuse such imports when it rewrites extensions (TS2877), which is a check, and checking is the job of
 * `npm run check`: here `noCheck` is set.
 *
 * It also repeats name and version: `new URL("../../package.json", import.meta.url)`, seen from
 * services/cli, is right in both forms.
 */
import { spawnSync } from "node:child_process";
import { copyFileSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license: string;
  readonly engines: Readonly<Record<string, string>>;
}

const SOURCE_FOLDERS = ["proto", "lib", "services"] as const;
/** Files that belong to the sources but not into the package. */
const NOT_PACKED = /\.ts$|\.md$|(^|\/)(golden|testdata)\//;

const root = path.resolve(import.meta.dirname, "..");
const dist = path.join(root, "dist");

function compile(): void {
  const tsc = path.join(root, "node_modules/typescript/bin/tsc");
  const project = path.join(root, "infra/tsconfig.pack.json");
  const { status, error } = spawnSync(process.execPath, [tsc, "--project", project], {
    stdio: "inherit",
  });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`tsc ended with ${status ?? "a signal"}`);
}

/** Data files beside the sources, which the compiler does not know about. */
function copyAssets(): void {
  const patterns = SOURCE_FOLDERS.map((folder) => `${folder}/**/*.*`);
  for (const entry of globSync(patterns, { cwd: root, withFileTypes: true })) {
    const file = path.relative(root, path.join(entry.parentPath, entry.name));
    if (!entry.isFile() || NOT_PACKED.test(file)) continue;
    mkdirSync(path.dirname(path.join(dist, file)), { recursive: true });
    copyFileSync(path.join(root, file), path.join(dist, file));
  }
}

function writeManifest(): void {
  const text = readFileSync(path.join(root, "package.json"), "utf8");
  const { name, version, license, engines } = JSON.parse(text) as Manifest;
  const imports = Object.fromEntries(
    SOURCE_FOLDERS.map((folder) => [`#${folder}/*.ts`, `./${folder}/*.js`]),
  );
  const manifest = { name, version, private: true, type: "module", license, engines, imports };
  writeFileSync(path.join(dist, "package.json"), `${JSON.stringify(manifest, null, 2)}\n`);
}

rmSync(dist, { recursive: true, force: true });
compile();
copyAssets();
writeManifest();
