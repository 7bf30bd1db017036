// Events in the order of their time; of the same time, in the order in which they were made. A binary heap.
import type { EventOwner } from "./scheduler.ts";

/** Something that will happen. */
export interface SimEvent {
  /** Virtual ms. */
  readonly atMs: number;
  /** Set by the queue. */
  order: number;
  readonly owner: EventOwner | undefined;
  readonly label: string;
  /** Undefined once it was taken back. */
  run: (() => void) | undefined;
}

/** The queue. */
export class EventQueue {
  readonly #heap: SimEvent[] = [];
  #order = 0;

  /** Adds an event. */
  push(event: SimEvent): void {
    event.order = this.#order += 1;
    const heap = this.#heap;
    let at = heap.length;
    heap.push(event);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = heap[parent] as SimEvent;
      if (!isBefore(event, above)) break;
      heap[at] = above;
      at = parent;
    }
    heap[at] = event;
  }

  /** Takes the next event out. */
  pop(): SimEvent | undefined {
    const heap = this.#heap;
    const [first] = heap;
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = at * 2 + 1;
      if (child >= heap.length) break;
      const right = child + 1;
      if (right < heap.length && isBefore(heap[right] as SimEvent, heap[child] as SimEvent)) {
        child = right;
      }
      const below = heap[child] as SimEvent;
      if (!isBefore(below, last)) break;
      heap[at] = below;
      at = child;
    }
    heap[at] = last;
    return first;
  }
}

function isBefore(one: SimEvent, other: SimEvent): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}
