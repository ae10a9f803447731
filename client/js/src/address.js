/** Where the server is, outside of its own page: in place of the page's module of this name. */
import { baseUrl } from "./client/paths.js";

/** @returns {Record<string, string | undefined>} */
const environment = () => globalThis.process?.env ?? {}; // none in a browser

/** Return the address of the server, if none is given. */
export const defaultBase = () => baseUrl(environment().SEEQUEUE_URL || "http://localhost:5000");

/** Return the token, if none is given: "" is none. */
export const defaultToken = () => environment().SEEQUEUE_TOKEN ?? "";
