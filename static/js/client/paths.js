/** The paths of the API and of the pages, relative to the address of the app. */

export const QUEUES_PATH = "api/queues";
export const EVENTS_PATH = "api/events";

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
