/** Queue names: which are valid, the addresses of their pages, and which queue a dead-letter queue belongs to. */
import { APP_URL } from "../address.js";
import { pagePath } from "../client/paths.js";

const DEAD_SUFFIX = ".dead";

/**
 * Return a function that checks whether a queue can have a name. "." and ".." are refused because no URL can hold them.
 * @param {string} pattern of the names that the server allows @returns {(text: string) => boolean}
 */
export function nameRule(pattern) {
  const rule = new RegExp(`^(?:${pattern})$`);
  return (text) => rule.test(text) && text !== "." && text !== "..";
}

/** Return the queue that holds the dead letters of a queue. @param {string} name */
export const deadOf = (name) => name + DEAD_SUFFIX;

/** Return the queue whose dead letters this queue holds; null if it is an ordinary queue. @param {string} name */
export function parentOf(name) {
  return name.endsWith(DEAD_SUFFIX) && name !== DEAD_SUFFIX ? name.slice(0, -DEAD_SUFFIX.length) : null;
}

/** Return the address of a queue's page. @param {string} name */
export const pageUrl = (name) => new URL(pagePath(name), APP_URL).href;
