/** Puts the package together in dist/: the page's own client, from static/js, and what only the package has, from src/. */
import { cpSync, mkdirSync, rmSync, writeFileSync } from "node:fs";

const here = (/** @type {string} */ path) => new URL(path, import.meta.url);
const PAGE = here("../../static/js/");

rmSync(here("dist/"), { recursive: true, force: true });
cpSync(new URL("client.js", PAGE), here("dist/client.js"));
cpSync(new URL("client/", PAGE), here("dist/client/"), { recursive: true });
cpSync(here("src/"), here("dist/"), { recursive: true });
cpSync(here("../../LICENSE"), here("LICENSE"));
mkdirSync(here("dist/cjs/"));
writeFileSync(here("dist/cjs/package.json"), '{ "type": "commonjs" }\n'); // tsc writes the modules for require() there
