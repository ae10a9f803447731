import { byId, clone, write } from "../dom.js";
import { headOf, oneLine, sizeOf } from "../format.js";

const MAX_HITS = 1000; // the search ends there: a list that long is not read
const MAX_ROW_CHARACTERS = 300; // shown of one, as hexadecimal is longer than the preview

/** Search the whole queue for a text; the messages found are shown as they come. */
export function mountSearch({ client, notices, curl, showCommand, page, t, n }, { openMessage, openMove, goTo }) {
  const [dialog, text, list, status] = [byId("search"), byId("search-text"), byId("search-hits"), byId("search-status")];
  let hits = []; // as in the list
  let stop = null; // ends the search in progress

  function open() {
    text.value = byId("filter").value;
    reset();
    dialog.showModal();
    text.focus();
    if (text.value) search();
  }

  function reset() {
    stop?.abort();
    hits = [];
    list.replaceChildren();
    status.textContent = "";
    byId("search-move").hidden = true;
  }

  async function search() {
    reset();
    const mine = new AbortController();
    stop = mine;
    byId("search-stop").hidden = byId("search-busy").hidden = false;
    write(status, t("search.busy"));
    showCommand(curl.find(text.value, MAX_HITS));
    let outcome = "search.found";
    try {
      for await (const hit of client.find(text.value, { limit: MAX_HITS, signal: mine.signal })) add(hit);
      if (hits.length === MAX_HITS) outcome = "search.most";
    } catch (error) {
      if (error.code === "aborted") outcome = "search.stopped";
      else notices.fail(error);
    }
    if (stop === mine) end(outcome);
  }

  function end(outcome) {
    stop = null;
    byId("search-stop").hidden = byId("search-busy").hidden = true;
    write(status, t(outcome, { n: hits.length }));
    byId("search-move").hidden = !hits.length;
    if (document.activeElement === document.body) text.focus();
  }

  function add(hit) {
    const element = clone("hit-template");
    element.dataset.place = hits.push(hit) - 1;
    const preview = headOf(oneLine(hit.preview), MAX_ROW_CHARACTERS);
    write(element.querySelector(".position"), n(hit.position + 1));
    write(element.querySelector(".preview"), preview);
    write(element.querySelector(".size"), sizeOf(hit.bytes, page.language));
    element.querySelector(".open").setAttribute("aria-label", t("waiting.open", { position: n(hit.position + 1), preview }));
    element.querySelector(".go").setAttribute("aria-label", t("search.go.to", { position: n(hit.position + 1) }));
    list.append(element);
  }

  list.addEventListener("click", (event) => {
    const hit = hits[event.target.closest(".hit")?.dataset.place];
    if (!hit) return;
    if (!event.target.closest(".go")) return void openMessage({ position: hit.position, preview: hit });
    dialog.close();
    goTo(hit.position);
  });
  byId("search-move").addEventListener("click", async () => {
    if (await openMove({ contains: text.value })) search();
  });
  byId("search-form").addEventListener("submit", (event) => {
    event.preventDefault();
    search();
  });
  byId("search-stop").addEventListener("click", () => {
    text.focus();
    stop?.abort();
  });
  dialog.addEventListener("close", reset);
  byId("search-open").addEventListener("click", open);
  byId("filter").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.isComposing) open();
  });
}
