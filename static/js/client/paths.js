/** The paths of the API and of the pages, relative to the address of the app. */

import { QueueError } from "./errors.js";

export const QUEUES_PATH = "api/queues";
export const EVENTS_PATH = "api/events";

/**
 * Return the address of an app as a URL that ends with a slash, so that paths are added to it. Without a scheme it is a
 * host, such as "localhost:5000", which http reaches; or a path of the page's host if it starts with a slash.
 * @param {string | URL} base @returns {URL} throws the QueueError "bad_base" unless it is of http or https
 */
export function baseUrl(base) {
  const text = typeof base === "string" || base instanceof URL ? String(base).trim() : "";
  let url;
  try {
    url = /^([a-z][a-z\d+.-]*:\/)?\//i.test(text) ? new URL(text, globalThis.location?.href) : new URL(`http://${text}`);
  } catch {
    throw new QueueError("bad_base", `Not the address of an app: ${JSON.stringify(text)}.`);
  }
  if (!/^https?:$/.test(url.protocol)) throw new QueueError("bad_base", "The address of the app must be of http or https.");
  if (url.username || url.password) throw new QueueError("bad_base", "Pass the token as `token`, not in the address.");
  url.search = url.hash = "";
  if (!url.pathname.endsWith("/")) url.pathname += "/";
  return url;
}

/** Return the path of an operation. @param {string | null} name null: the default queue @param {string} operation */
export function operationPath(name, operation) {
  return `api/queue/${name === null ? "" : `${encodeName(name)}/`}${operation}`;
}

/** Return the path of a queue's page. @param {string} name */
export const pagePath = (name) => `q/${encodeName(name)}`;

/** @param {string} name */
function encodeName(name) {
  return encodeURIComponent(name).replaceAll("%3A", ":");
}
