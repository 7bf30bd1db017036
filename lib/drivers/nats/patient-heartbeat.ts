// When a server is taken for dead. The client's own heartbeat waits for answers only, and those come behind whatever is on its way:
// on a slow line a block of megabytes would end the connection, and be sent again, for ever.
import { Heartbeat } from "@nats-io/nats-core/internal";

/** The client's heartbeat, which goes on while bytes come or go. */
export class PatientHeartbeat extends Heartbeat {
  readonly #progress: () => string;
  #before = "";

  private constructor({ ph, interval, maxOut }: Heartbeat, progress: () => string) {
    super(ph, interval, maxOut);
    this.#progress = progress;
  }

  /**
   * Takes over from one that has begun.
   * @param progress changes whenever bytes have come or gone
   */
  static inPlaceOf(heartbeat: Heartbeat, progress: () => string): PatientHeartbeat {
    heartbeat.cancel();
    const patient = new PatientHeartbeat(heartbeat, progress);
    patient.start();
    return patient;
  }

  /** Also for its own use: `stale` when so many answers are out that the server seems dead. */
  override cancel(stale?: boolean): void {
    const now = this.#progress();
    const isAlive = stale === true && now !== this.#before;
    this.#before = now;
    if (isAlive) this._schedule();
    else super.cancel(stale);
  }
}
