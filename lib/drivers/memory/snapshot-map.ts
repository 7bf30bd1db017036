// An ordered map whose snapshots are free: a change makes new nodes along one path and shares the rest.

/** Most entries of a node; a fuller one is split. */
const NODE_MAX = 32;

interface Leaf<V> {
  readonly children?: undefined;
  readonly keys: readonly string[];
  readonly values: readonly V[];
}

interface Inner<V> {
  /** The first key of each child. */
  readonly keys: readonly string[];
  readonly children: readonly Node<V>[];
}

type Node<V> = Leaf<V> | Inner<V>;

/** An immutable ordered map with string keys: `with` and `without` return another one. */
export class SnapshotMap<V> {
  readonly #root: Node<V>;

  private constructor(root: Node<V>) {
    this.#root = root;
  }

  /** The map without entries. */
  static empty<V>(): SnapshotMap<V> {
    return new SnapshotMap<V>({ keys: [], values: [] });
  }

  get(key: string): V | undefined {
    let node = this.#root;
    while (node.children !== undefined) {
      const child = node.children[childIndex(node.keys, key)];
      if (child === undefined) return undefined;
      node = child;
    }
    const index = lowerBound(node.keys, key);
    return node.keys[index] === key ? node.values[index] : undefined;
  }

  /** This map with `key` set to `value`. */
  with(key: string, value: V): SnapshotMap<V> {
    const parts = insert(this.#root, key, value);
    const [only] = parts;
    return new SnapshotMap(parts.length === 1 && only !== undefined ? only : innerOf(parts));
  }

  /** This map without `key`, which may be absent. */
  without(key: string): SnapshotMap<V> {
    let root = remove(this.#root, key) ?? { keys: [], values: [] };
    while (root.children?.length === 1) root = root.children[0] ?? root;
    return new SnapshotMap(root);
  }

  /** The entries with `start` ≤ key < `end`, in key order or, with `reverse`, from the end. */
  *entries(start: string, end: string, reverse = false): Generator<[string, V]> {
    yield* scan(this.#root, start, end, reverse);
  }
}

/** The first index whose key is not below `key`. */
function lowerBound(keys: readonly string[], key: string): number {
  let [low, high] = [0, keys.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    const at = keys[middle];
    if (at !== undefined && at < key) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The child that `key` belongs to: the last one that does not begin above it. */
function childIndex(keys: readonly string[], key: string): number {
  const index = lowerBound(keys, key);
  return keys[index] === key ? index : Math.max(index - 1, 0);
}

function innerOf<V>(children: readonly Node<V>[]): Inner<V> {
  return { keys: children.map((child) => child.keys[0] ?? ""), children };
}

function halves<T>(list: readonly T[]): [readonly T[], readonly T[]] {
  const middle = list.length >>> 1;
  return [list.slice(0, middle), list.slice(middle)];
}

/** The node with the entry in it, as one node or as two halves. */
function insert<V>(node: Node<V>, key: string, value: V): readonly Node<V>[] {
  if (node.children !== undefined) {
    const index = childIndex(node.keys, key);
    const child = node.children[index];
    const parts = child === undefined ? [] : insert(child, key, value);
    const children = node.children.toSpliced(index, 1, ...parts);
    return children.length > NODE_MAX ? halves(children).map(innerOf) : [innerOf(children)];
  }
  const index = lowerBound(node.keys, key);
  const replaced = node.keys[index] === key ? 1 : 0;
  const keys = node.keys.toSpliced(index, replaced, key);
  const values = node.values.toSpliced(index, replaced, value);
  if (keys.length <= NODE_MAX) return [{ keys, values }];
  const [keysLeft, keysRight] = halves(keys);
  const [valuesLeft, valuesRight] = halves(values);
  return [
    { keys: keysLeft, values: valuesLeft },
    { keys: keysRight, values: valuesRight },
  ];
}

/** The node without the key; undefined when nothing is left. Sparse nodes are left as they are. */
function remove<V>(node: Node<V>, key: string): Node<V> | undefined {
  if (node.children !== undefined) {
    const index = childIndex(node.keys, key);
    const child = node.children[index];
    const left = child === undefined ? undefined : remove(child, key);
    if (left === child) return node;
    const children = node.children.toSpliced(index, 1, ...(left === undefined ? [] : [left]));
    return children.length === 0 ? undefined : innerOf(children);
  }
  const index = lowerBound(node.keys, key);
  if (node.keys[index] !== key) return node;
  if (node.keys.length === 1) return undefined;
  return { keys: node.keys.toSpliced(index, 1), values: node.values.toSpliced(index, 1) };
}

function* scan<V>(
  node: Node<V>,
  start: string,
  end: string,
  reverse: boolean,
): Generator<[string, V]> {
  const first =
    node.children === undefined ? lowerBound(node.keys, start) : childIndex(node.keys, start);
  const past = lowerBound(node.keys, end);
  const step = reverse ? -1 : 1;
  for (let at = reverse ? past - 1 : first; at >= first && at < past; at += step) {
    const child = node.children?.[at];
    if (child !== undefined) {
      yield* scan(child, start, end, reverse);
    } else if (node.children === undefined) {
      const [key, value] = [node.keys[at], node.values[at]];
      if (key !== undefined) yield [key, value as V];
    }
  }
}
