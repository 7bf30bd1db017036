// A pool of slots that tells how much of it is in use: the bytes that an actor has in flight.
import type { Slot, SlotPool } from "#lib/ports/compute.ts";
import type { Attributes, Telemetry } from "#lib/ports/telemetry.ts";

/** The same pool, with the gauge `ashlar.inflight.bytes`. */
export function meterPool(pool: SlotPool, telemetry: Telemetry, attributes: Attributes): SlotPool {
  const { slotBytes, slotCount } = pool;
  const tell = (): void => {
    const used = slotCount - pool.freeCount;
    telemetry.gauge("ashlar.inflight.bytes", used * slotBytes, attributes);
  };
  const metered = (slot: Slot): Slot => ({
    bytes: slot.bytes,
    retain: () => slot.retain(),
    release: () => {
      slot.release();
      tell();
    },
  });
  return {
    slotBytes,
    slotCount,
    get freeCount() {
      return pool.freeCount;
    },
    acquire: async (signal) => {
      const slot = await pool.acquire(signal);
      tell();
      return metered(slot);
    },
  };
}
