// Bounded parallelism over a list or a stream of work.

/**
 * Runs `work` on each item, at most `limit` at once, which may change; the source is pulled only when there is room. The first
 * error stops further items and is thrown once what is under way has ended.
 */
export async function forEachBounded<T>(
  items: Iterable<T> | AsyncIterable<T>,
  limit: number | (() => number),
  work: (item: T) => Promise<void>,
  signal?: AbortSignal,
): Promise<void> {
  const running = new Set<Promise<void>>();
  const limitNow = (): number => (typeof limit === "number" ? limit : limit());
  let failure: { readonly error: unknown } | undefined;
  try {
    for await (const item of items) {
      if (failure !== undefined || signal?.aborted === true) break;
      const task = work(item)
        .catch((error: unknown) => {
          failure ??= { error };
        })
        .finally(() => running.delete(task));
      running.add(task);
      while (running.size >= limitNow()) await Promise.race(running);
    }
  } finally {
    await Promise.all(running);
  }
  if (failure !== undefined) throw failure.error;
  signal?.throwIfAborted();
}
