import { headOf, sizeOf } from "../../text/format.js";
import { rowTextOf } from "../../text/summaries.js";
import { byId, clone, write } from "../../ui/dom.js";

const MAX_HITS = 1000; // the search ends there: nobody reads a longer list
const MAX_ROW_CHARACTERS = 300; // shown of a message; hexadecimal is longer than the preview

/** Search the whole queue for a text, and show the messages as they are found. */
export function mountSearch(app, { openMessage, openMove, exportQueue, goTo }) {
  const { client, notices, curl, showCommand, page, t, n } = app;
  const [dialog, text] = [byId("search"), byId("search-text")];
  const [list, status] = [byId("search-hits"), byId("search-status")];
  let hits = []; // as in the list
  let stop = null; // ends the search in progress
  let outcome = ""; // the key of the text that says how the last search ended

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
    offer(false);
  }

  /** Show or hide the actions on all messages that were found. */
  function offer(isOffered) {
    byId("search-move").hidden = byId("search-export").hidden = !isOffered;
  }

  async function search() {
    reset();
    const mine = new AbortController();
    stop = mine;
    byId("search-stop").hidden = byId("search-busy").hidden = false;
    write(status, t("search.busy"));
    showCommand(curl.find(text.value, MAX_HITS));
    let how = "search.found";
    try {
      for await (const hit of client.find(text.value, { limit: MAX_HITS, signal: mine.signal })) add(hit);
      if (hits.length === MAX_HITS) how = "search.most";
    } catch (error) {
      if (error.code === "aborted") how = "search.stopped";
      else notices.fail(error);
    }
    if (stop === mine) end(how);
  }

  function end(how) {
    stop = null;
    outcome = how;
    byId("search-stop").hidden = byId("search-busy").hidden = true;
    sayFound();
    if (document.activeElement === document.body) text.focus();
  }

  function sayFound() {
    const found = list.childElementCount;
    write(status, t(outcome, { n: found }));
    offer(found > 0);
  }

  function add(hit) {
    const element = clone("hit-template");
    element.dataset.place = hits.push(hit) - 1;
    const preview = headOf(rowTextOf(hit), MAX_ROW_CHARACTERS);
    write(element.querySelector(".preview"), preview);
    write(element.querySelector(".size"), sizeOf(hit.bytes, page.language));
    number(element, hit.position, preview);
    list.append(element);
  }

  /** Show the position of a hit in the queue. */
  function number(element, position, preview = element.querySelector(".preview").textContent) {
    const place = n(position + 1);
    write(element.querySelector(".position"), place);
    element.querySelector(".open").setAttribute("aria-label", t("waiting.open", { position: place, preview }));
    element.querySelector(".go").setAttribute("aria-label", t("search.go.to", { position: place }));
  }

  /** Drop a hit whose message was removed or moved; those behind it have moved up one position. */
  function drop(element, { position }) {
    const neighbour = element.nextElementSibling ?? element.previousElementSibling;
    (neighbour?.querySelector(".open") ?? text).focus();
    element.remove();
    for (const other of list.children) {
      const hit = hits[other.dataset.place];
      if (hit.position > position) number(other, (hit.position -= 1));
    }
    if (!stop) sayFound();
  }

  list.addEventListener("click", async (event) => {
    const element = event.target.closest(".hit");
    const hit = hits[element?.dataset.place];
    if (!hit) return;
    if (event.target.closest(".go")) {
      dialog.close();
      goTo(hit.position);
    } else if (await openMessage({ position: hit.position, preview: hit })) drop(element, hit);
  });
  text.addEventListener("input", () => offer(false)); // the matches belong to the previous text
  byId("search-move").addEventListener("click", async () => {
    if (await openMove({ contains: text.value })) search();
  });
  byId("search-export").addEventListener("click", (event) => {
    exportQueue(event.currentTarget, byId("search-form"), text.value);
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
