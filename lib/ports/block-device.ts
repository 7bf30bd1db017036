// BlockSource and BlockTarget: what is backed up, and what is restored onto. Drivers: file (images, block devices), stream.

/** A part of a device. */
export interface Extent {
  /** In bytes. */
  readonly offset: number;
  /** In bytes. */
  readonly length: number;
}

/** A readable device. */
export interface BlockSource {
  /** As the user gave it, without secrets. */
  readonly url: string;
  /** In bytes; undefined for a stream, whose size shows at its end. */
  readonly sizeBytes: number | undefined;
  /** False for a stream: it is read once, forwards. */
  readonly seekable: boolean;
  /** True when it names a snapshot that cannot change. */
  readonly frozen: boolean;
  /** The same text at a later opening means the same content; undefined where that cannot be told. */
  readonly identity: string | undefined;
  /** What is wrong with reading it now (mounted read-write, opened for writing elsewhere), as sentences. */
  readonly warnings: readonly string[];
  /**
   * The extents within `range` that may hold data, ascending, not touching; everything else reads as zero.
   * A source that cannot tell yields the whole range.
   */
  extents(range: Extent): AsyncIterable<Extent>;
  /**
   * Fills `into` from `offset` and returns the bytes read. A seekable source reads exactly or throws (Io with
   * `details.offset`): EIO, a short read, a source that shrank. A stream returns less only at its end.
   */
  read(into: Uint8Array, offset: number): Promise<number>;
  /** A sentence when the source changed while it was read (size, modification time), else undefined. */
  changed(): Promise<string | undefined>;
  close(): Promise<void>;
}

/** A writable device. */
export interface BlockTarget {
  readonly url: string;
  /** False for a stream: it is written once, forwards, without gaps. */
  readonly seekable: boolean;
  /** True when everything not written reads as zero (a new file). */
  readonly blank: boolean;
  /** True once something was written to it or made zero. */
  readonly touched: boolean;
  /**
   * The extents within `range` that may hold anything but zeros, ascending, not touching (for differential restores).
   * A target that cannot tell yields the whole range.
   */
  extents(range: Extent): AsyncIterable<Extent>;
  /** Writes all of `bytes` at `offset`. */
  write(bytes: Uint8Array, offset: number): Promise<void>;
  /**
   * Makes the extent read as zero. `discard`: by a hole or a discard where the target can (falling back to writing zeros),
   * else by writing zeros. Nothing to do where the target is blank and `discard` is set.
   */
  zero(extent: Extent, options: { readonly discard: boolean }): Promise<void>;
  /** Fills `into` from `offset` (for differential restores); beyond its end reads as zero. */
  read(into: Uint8Array, offset: number): Promise<void>;
  /** Makes everything durable and, for files, sets the size. */
  finish(): Promise<void>;
  /** Lets go of it. A file that was made for it goes again when nothing was written and it was not finished. */
  close(): Promise<void>;
}
