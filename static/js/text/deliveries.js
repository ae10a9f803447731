/** What is known of a message's deliveries, as text. */
import { durationOf, timeOf } from "./format.js";

const EXPIRED = "lease expired"; // the app's own reason; all others are written by consumers

/** Return why a message failed last, in the page's language. @param {string} [reason] */
export const reasonOf = (reason, t) => (reason === EXPIRED ? t("reason.expired") : (reason ?? ""));

/**
 * Return how often a message was delivered, and when and why it failed last; "" if it never was.
 * @param {import("../client/types.js").Details} details @param {{t: Function, language: string}} texts
 */
export function historyOf({ deliveries, reason, failed, died }, { t, language }) {
  const parts = [];
  if (deliveries) parts.push(t("history.deliveries", { n: deliveries }));
  if (died) parts.push(t("history.died", { time: timeOf(died * 1000, language) }));
  else if (failed) parts.push(t("history.failed", { time: timeOf(failed * 1000, language) }));
  if (reason) parts.push(reasonOf(reason, t));
  return parts.join(" · ");
}

/**
 * Return until when a message is reserved or delayed, and which delivery it is.
 * @param {{kind: "reserved" | "delayed", deadline: number, deliveries: number}} one deadline: Unix seconds
 * @param {number} now by the app's clock, milliseconds @param {{t: Function, language: string, max: number}} texts
 *     max: the deliveries after which it is a dead letter
 */
export function untilOf({ kind, deadline, deliveries }, now, { t, language, max }) {
  const time = durationOf(Math.max(0, Math.ceil(deadline - now / 1000)), language);
  const isLast = kind === "reserved" && deliveries >= max;
  const until = t(isLast ? "held.buried.in" : `held.${kind}.in`, { time });
  return deliveries ? `${until} · ${t("taken.deliveries", { n: deliveries, max })}` : until;
}
