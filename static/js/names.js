/** Queue names: which are valid, where their pages are, and which queue a dead-letter queue belongs to. */

/** Whether a queue can have this name. "." and ".." are refused because no URL can hold them. @param {string} text */
export function isName(text) {
  return /^[A-Za-z0-9._:-]{1,128}(\.dead)?$/.test(text) && text !== "." && text !== "..";
}

/** Return the queue whose dead letters this queue holds; null if it holds none. @param {string} name */
export function parentOf(name) {
  return /^(.+)\.dead$/.exec(name)?.[1] ?? null;
}

/** Return the address of a queue's page. @param {string} name */
export function pageUrl(name) {
  return new URL(`../../q/${encodeURIComponent(name).replaceAll("%3A", ":")}`, import.meta.url).href;
}
