/** The forms of the API reference: each shows its request as a curl command, sends it, and shows the response. */
import { APP_URL } from "./address.js";
import { operationPath } from "./client/paths.js";
import { quoted } from "./text/curl.js";
import { translator } from "./text/i18n.js";
import { byId, write } from "./ui/dom.js";

const SHOWN_HEADERS = ["content-type", "content-length", "allow", "retry-after", "www-authenticate"];
const MAX_SHOWN_CHARACTERS = 100_000; // of a response; a stream never ends
const QUEUE_PATH = operationPath(null, ""); // the start of the paths of a queue's operations

const page = JSON.parse(byId("page").textContent);
const { t } = translator(page.catalogue, page.language);
const queue = byId("queue");

/** Return the request that a form describes. */
function requestOf(form) {
  const { method, path } = form.dataset;
  const name = queue.value.trim();
  const isOfQueue = name && path.startsWith(QUEUE_PATH);
  const url = new URL(isOfQueue ? operationPath(name, path.slice(QUEUE_PATH.length)) : path, APP_URL);
  const headers = {};
  for (const input of form.querySelectorAll("[data-in]")) {
    const value = input.type === "checkbox" && !input.checked ? "" : input.value;
    if (value && input.dataset.in === "query") url.searchParams.append(input.name, value);
    if (value && input.dataset.in === "header") headers[input.name] = value;
  }
  const accept = form.querySelector(".accept");
  if (accept?.selectedIndex > 0) headers.Accept = accept.value;
  const body = form.querySelector(".body")?.value || undefined;
  if (body !== undefined) headers["Content-Type"] = form.querySelector(".type").value;
  return { url, method, headers, body };
}

/** Return the curl command of a request. */
function curlOf({ url, method, headers, body }) {
  const sent = Object.entries(headers).map((header) => `-H ${quoted(header.join(": "))}`);
  if (page.token) sent.push('-H "Authorization: Bearer $API_TOKEN"');
  if (body !== undefined) sent.push(`--data-raw ${quoted(body)}`);
  else if (method === "POST") sent.push("-X POST");
  if (url.pathname.endsWith("/events")) sent.push("-N");
  return ["curl", ...sent, quoted(url.href)].join(" ");
}

/** Send a form's request, and show the response as it arrives. */
async function send(form, signal) {
  const { url, ...options } = requestOf(form);
  const shown = form.querySelector(".answer");
  const status = form.querySelector(".status");
  write(status, t("docs.waiting"));
  const response = await fetch(url, { ...options, signal });
  write(status, `${response.status} ${response.statusText}`);
  const names = SHOWN_HEADERS.filter((name) => response.headers.has(name));
  shown.textContent = [...names.map((name) => `${name}: ${response.headers.get(name)}`), "", ""].join("\n");
  shown.hidden = false;
  const decoder = new TextDecoder();
  const reader = response.body?.getReader();
  while (reader && shown.textContent.length < MAX_SHOWN_CHARACTERS) {
    const { done, value } = await reader.read();
    if (done) return;
    shown.append(decoder.decode(value, { stream: true }));
  }
  await reader?.cancel();
}

function mountForm(form) {
  const stop = form.querySelector(".stop");
  let request = null; // in progress
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    request?.abort();
    const mine = new AbortController();
    request = mine;
    stop.hidden = false;
    try {
      await send(form, mine.signal);
    } catch (error) {
      if (error.name !== "AbortError") write(form.querySelector(".status"), t("error.offline"));
      else if (request === mine) write(form.querySelector(".status"), t("docs.stopped"));
    }
    if (request === mine) stop.hidden = true;
  });
  stop.addEventListener("click", () => {
    request?.abort();
    form.querySelector(".primary").focus();
  });
}

const forms = [...document.querySelectorAll(".try")];
const showCommand = (form) => write(form.querySelector(".curl"), curlOf(requestOf(form)));
for (const form of forms) {
  mountForm(form);
  showCommand(form);
  form.addEventListener("input", () => showCommand(form));
}
queue.addEventListener("input", () => forms.forEach((form) => showCommand(form)));

/** Unfold the operation in the address. */
function unfold() {
  const named = byId(location.hash.slice(1));
  if (named?.matches("details")) named.open = true;
}
unfold();
addEventListener("hashchange", unfold);
