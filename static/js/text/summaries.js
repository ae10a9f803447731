/** Summaries of messages of other programs, as text. The names of facts are not translated: they are the API's. */
import { oneLine, timeOf } from "./format.js";

const TIMES = new Set(["created", "due", "enqueued", "expires", "failed", "time"]); // Unix seconds

/** Return what a row shows of a message: its summary, or else its beginning. @param {any} message */
export const rowTextOf = ({ summary, preview }) => oneLine(summary?.text ?? preview);

/** Return the summary of a message with its facts, in one line; "" if it has none. @param {any} message */
export function summaryOf({ summary }, language) {
  if (!summary) return "";
  const facts = Object.entries(summary.facts).map(([name, value]) => {
    const isTime = TIMES.has(name) && typeof value === "number";
    return `${name} ${isTime ? timeOf(value * 1000, language) : value}`;
  });
  return oneLine([summary.text, ...facts].join(" · "));
}
