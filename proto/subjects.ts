// Subjects of the bus: names that actors of all hosts agree on. What concerns the reader of one host lies below its name.

/** A name as one token of a subject; different names stay different. */
export function subjectToken(name: string): string {
  return name.replaceAll(/[^-A-Za-z0-9_]/gu, (character) =>
    [...Buffer.from(character)].map((byte) => `=${byte.toString(16).padStart(2, "0")}`).join(""),
  );
}

/** What concerns the reader of one host lies below one name: permissions keep other hosts out of it. */
function hostSubject(host: string, what: string, session: string): string {
  return `hosts.${subjectToken(host)}.${what}.${session}`;
}

/** Subject on which a host's reader tells the progress of a session's job. */
export function progressSubject(host: string, session: string): string {
  return hostSubject(host, "progress", session);
}

/** Subject that tells a host's reader of a session to stop. */
export function cancelSubject(host: string, session: string): string {
  return hostSubject(host, "cancel", session);
}

/** Subject on which whoever waits for a session's job says so from time to time: nobody works for one who is gone. */
export function attendSubject(host: string, session: string): string {
  return hostSubject(host, "attend", session);
}

/** Subject on which the agent of a host answers another one that takes itself for it. */
export function presenceSubject(host: string): string {
  return `hosts.${subjectToken(host)}.agent`;
}

/** Subject of what becomes of a job: JSON, for people. */
export function jobEventSubject(job: string): string {
  return `jobs.events.${job}`;
}

/** Subject on which the agent of a host says that it is there, and what it may touch: only that host's may publish there. */
export function agentSubject(host: string): string {
  return `hosts.${subjectToken(host)}.here`;
}

/** All subjects of {@link agentSubject}. */
export const AGENTS_SUBJECT = "hosts.*.here";

/** Subject that wakes coordinators: a job was submitted or is over. */
export const JOBS_WAKE_SUBJECT = "jobs.wake";

/** Subject on which whoever runs a job hears that it is to be stopped. */
export const JOBS_CANCEL_SUBJECT = "jobs.stop";

/** Subject on which whoever verifies copies hears that a scrub is over, by its name: what is under way for it is for nobody. */
export const SCRUB_OVER_SUBJECT = "scrubs.over";
