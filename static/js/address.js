/** Where the app is: the origin of this module. The npm package has a module of its own in place of this one. */

export const APP_URL = new URL("../../", import.meta.url);

/** Return the address of the app, if none is given. */
export const defaultBase = () => APP_URL;

/** Return the token, if none is given: "" is none. */
export const defaultToken = () => "";
