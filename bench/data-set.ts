/** The images of a run, each made when it is first asked for. */
import { mkdir, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { writeChangedImage, writeRandomImage, writeRealImage } from "./data.ts";
import { freeBytes, type Workspace } from "./workspace.ts";

/** The changed image of scenario 4 and what belongs to it. */
export interface ChangedImage {
  readonly image: string;
  readonly hints: string;
  readonly changes: string;
  readonly changedBytes: number;
}

async function sizeOf(file: string): Promise<number | undefined> {
  try {
    return (await stat(file)).size;
  } catch {
    return undefined;
  }
}

/** Makes images, once each, in the workspace or in a folder that is kept. */
export class DataSet {
  readonly imageBytes: number;
  readonly #folder: string;
  readonly #workspace: Workspace;

  constructor(workspace: Workspace, imageBytes: number, keepIn: string | undefined) {
    this.imageBytes = imageBytes;
    this.#workspace = workspace;
    this.#folder = keepIn ?? workspace.folder;
  }

  async #image(
    name: string,
    write: (file: string, sizeBytes: number) => Promise<void>,
  ): Promise<string> {
    await mkdir(this.#folder, { recursive: true });
    const file = path.join(this.#folder, `${name}-${this.imageBytes}.img`);
    if ((await sizeOf(file)) === this.imageBytes) return file;
    if ((await freeBytes(this.#folder)) < this.imageBytes)
      throw new Error(`not enough room for an image of ${this.imageBytes} bytes`);
    console.error(`making the ${name} image …`);
    // Under its name it is whole, so that a kept one can be trusted the next time.
    await write(`${file}.part`, this.imageBytes);
    await rename(`${file}.part`, file);
    return file;
  }

  real(): Promise<string> {
    return this.#image("real", writeRealImage);
  }

  random(): Promise<string> {
    return this.#image("random", writeRandomImage);
  }

  /** Frees the room of the random image, which only one scenario needs. */
  async dropRandom(): Promise<void> {
    if (this.#folder !== this.#workspace.folder) return;
    await rm(path.join(this.#folder, `random-${this.imageBytes}.img`), { force: true });
  }

  /** A changed copy of the real image; the caller removes the folder that it lies in. */
  async changed(folder: string): Promise<ChangedImage> {
    await mkdir(folder, { recursive: true });
    const files = {
      image: path.join(folder, "changed.img"),
      hints: path.join(folder, "hints.json"),
      changes: path.join(folder, "changes.img"),
    };
    console.error("making the changed image …");
    const changedBytes = await writeChangedImage(await this.real(), files);
    return { ...files, changedBytes };
  }
}
