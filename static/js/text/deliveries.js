/** The deliveries of a message, as text. */
import { durationOf, timeOf } from "./format.js";

const EXPIRED = "lease expired"; // the server's own reason; all others come from consumers

/** Return why a message last failed, in the page's language if the server says so. @param {string} [reason] */
export const reasonOf = (reason, t) => (reason === EXPIRED ? t("reason.expired") : (reason ?? ""));

/**
 * Return the number of deliveries of a message, and when and why it last failed; "" if it was never delivered.
 * @param {import("../client/types.js").Details} details @param {{t: Function, language: string}} texts
 */
export function deliveriesOf({ deliveries, reason, failed, died }, { t, language }) {
  const parts = [];
  if (deliveries) parts.push(t("history.deliveries", { n: deliveries }));
  if (died) parts.push(t("history.died", { time: timeOf(died * 1000, language) }));
  else if (failed) parts.push(t("history.failed", { time: timeOf(failed * 1000, language) }));
  if (reason) parts.push(reasonOf(reason, t));
  return parts.join(" · ");
}

/**
 * Return how long a message stays reserved or delayed, and the number of its delivery.
 * @param {{kind: "reserved" | "delayed", deadline: number, deliveries: number}} one deadline: Unix seconds
 * @param {number} now by the server's clock, milliseconds @param {{t: Function, language: string, max: number}} texts
 *     max: the number of deliveries after which it becomes a dead letter
 */
export function untilOf({ kind, deadline, deliveries }, now, { t, language, max }) {
  const time = durationOf(Math.max(0, Math.ceil(deadline - now / 1000)), language);
  const isLast = kind === "reserved" && deliveries >= max;
  const until = t(isLast ? "inFlight.buried.in" : `inFlight.${kind}.in`, { time });
  return deliveries ? `${until} · ${t("inHand.deliveries", { n: deliveries, max })}` : until;
}
