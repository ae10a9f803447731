import { parentOf } from "../../state/names.js";
import { scrollTo, visibleRows } from "../../state/rows.js";
import { reasonOf } from "../../text/deliveries.js";
import { headOf, kindOfPreview, oneLine, sizeOf } from "../../text/format.js";
import { rowTextOf } from "../../text/summaries.js";
import { byId, clone, focusList, write } from "../../ui/dom.js";

const ROW_HEIGHT_PX = 44; // as in home.css
const MAX_PREVIEW_CHARACTERS = 200; // requested for a row
const MAX_ROW_CHARACTERS = 300; // shown in a row; hexadecimal is longer than the preview
const MAX_FILTERED_MESSAGES = 1000; // the text `filter` names this number
const RELOAD_DELAY_MS = 100;
const FILTER_RELOAD_DELAY_MS = 1000; // a filter reads many more messages
const ABSENT_CONNECTIONS = new Set(["fault", "away", "refused"]);
const ABSENT_CODES = new Set(["redis_unavailable", "offline", "token_required"]); // the texts `absent.*` explain them

/**
 * The list of waiting messages. Only the visible rows exist and are read from the server, so that a million messages
 * cost as much as twenty.
 */
export function mountWaiting({ client, store, actions, failure, page, t, n }, openMessage) {
  const [view, list, filter] = [byId("viewport"), byId("rows"), byId("filter")];
  /** @typedef {{element: HTMLElement, place: number, position: number, message?: object, setSize: number}} Row */
  const rows = new Map(); // place in the list -> Row
  const rowOf = new WeakMap(); // element -> Row
  let known = new Map(); // position in the queue -> {preview, bytes, version}
  let matches = null; // the positions that match the filter; null without one
  let drawnVersion = 0; // of the last state received
  let loading = false;
  let reloadTimer = 0;
  let active = 0; // the place of the row that Tab reaches
  const details = parentOf(page.name) !== null; // dead letters are listed with their reasons

  const length = () => matches?.length ?? store.state.count;
  const positionAt = (place) => (matches ? matches[place] : place);
  const box = () => ({ count: length(), row: ROW_HEIGHT_PX, view: view.clientHeight, scroll: view.scrollTop });

  // --- reading

  /** Read the visible messages whose present version is not known, one request at a time. */
  async function load() {
    if (loading || !store.state.known) return;
    const { version, count } = store.state;
    const searched = { first: 0, last: Math.min(MAX_FILTERED_MESSAGES, count) };
    let { first, last } = filter.value === "" ? visibleRows(box()) : searched;
    const isFresh = (position) => known.get(position)?.version === version;
    while (first < last && isFresh(first)) first += 1;
    while (last > first && isFresh(last - 1)) last -= 1;
    if (first === last) return applyFilter();
    loading = true;
    let complete = false;
    try {
      const range = { offset: first, limit: last - first };
      const { messages } = await client.all({ ...range, preview: MAX_PREVIEW_CHARACTERS, details });
      known = new Map([...known].filter(([position, { version: of }]) => of === version || isInView(position)));
      messages.forEach((message, i) => known.set(first + i, { ...message, version }));
      // Fewer messages than requested mean that some were popped since: a new state will arrive.
      complete = messages.length === last - first;
      applyFilter();
      render();
    } catch {
      // The stream reports a lost connection, and the next state loads again.
    } finally {
      loading = false;
    }
    if (store.state.version !== version) loadSoon();
    else if (complete) load(); // the list may have been scrolled
  }

  /** Load again after a delay, once for all states that arrive until then. */
  function loadSoon() {
    if (reloadTimer) return;
    reloadTimer = setTimeout(() => {
      reloadTimer = 0;
      load();
    }, filter.value ? FILTER_RELOAD_DELAY_MS : RELOAD_DELAY_MS);
  }

  const isInView = (position) => [...rows.values()].some((row) => row.position === position);

  /** Show only the rows that match the filter; all of them without a filter. */
  function applyFilter() {
    const needle = filter.value.toLowerCase();
    byId("found").parentElement.hidden = needle === "";
    if (needle === "") {
      matches = null;
      return;
    }
    const limit = Math.min(MAX_FILTERED_MESSAGES, store.state.count);
    const searched = [...known.keys()].filter((position) => position < limit).toSorted((a, b) => a - b);
    matches = searched.filter((position) => textOf(known.get(position)).toLowerCase().includes(needle));
    write(byId("found"), t("found", { n: matches.length, searched: searched.length }));
    render();
  }

  const textOf = ({ preview, summary }) =>
    `${typeof preview === "string" ? preview : oneLine(preview)} ${summary?.text ?? ""}`;

  filter.addEventListener("input", () => {
    view.scrollTop = 0;
    active = 0;
    applyFilter();
    render();
    load();
  });

  // --- drawing

  function update(state) {
    if (state.version !== drawnVersion) {
      drawnVersion = state.version;
      if (filter.value) loadSoon(); // until then, the list shows the matches at their old positions
      else {
        if (!details) state.next.forEach((message, i) => known.set(i, { ...message, version: drawnVersion }));
        load();
      }
    }
    render();
  }

  function render() {
    renderRows();
    const { known: ready, count, connection, error } = store.state;
    byId("empty").hidden = !(ready && count === 0 && connection === "live");
    const isAbsent = ABSENT_CONNECTIONS.has(connection);
    byId("absent").hidden = !isAbsent;
    byId("stage").classList.toggle("stale", isAbsent);
    if (isAbsent) {
      write(byId("absent"), ABSENT_CODES.has(error?.code ?? "offline") ? t(`absent.${connection}`) : failure(error));
    }
    for (const button of [byId("clear"), byId("move")]) {
      if (count === 0 && button === document.activeElement) focusList();
      button.disabled = count === 0;
    }
  }

  /** Create the visible rows and remove all others. */
  function renderRows() {
    const { height, first, last, top } = visibleRows(box());
    list.style.height = `${height}px`;
    for (const [place, { element }] of rows) {
      if (place >= first && place < last) continue;
      if (element.contains(document.activeElement)) view.focus({ preventScroll: true });
      element.remove();
      rows.delete(place);
    }
    const end = Math.max(0, length() - 1);
    active = Math.min(active, end);
    const reachable = active >= first && active < last ? active : Math.min(first + 4, end);
    let after = list.firstElementChild;
    for (let place = first; place < last; place += 1) {
      const row = rows.get(place) ?? addRow(place, after);
      after = row.element.nextElementSibling;
      fill(row, place === reachable);
      row.element.style.transform = `translateY(${top + (place - first) * ROW_HEIGHT_PX}px)`;
    }
  }

  function addRow(place, after) {
    const row = { element: clone("row-template"), place, position: -1, message: undefined, setSize: -1 };
    rows.set(place, row);
    rowOf.set(row.element, row);
    list.insertBefore(row.element, after);
    return row;
  }

  /** Show the message at a row's place, if it has changed. @param {Row} row */
  function fill(row, isReachable) {
    const { element, place } = row;
    const [open, remove] = element.children;
    open.tabIndex = remove.tabIndex = isReachable ? 0 : -1;
    if (row.setSize !== store.state.count) {
      row.setSize = store.state.count;
      element.setAttribute("aria-setsize", row.setSize);
    }
    const position = positionAt(place);
    const message = known.get(position);
    if (row.position === position && row.message === message) return;
    row.position = position;
    row.message = message;
    const number = n(position + 1);
    const preview = message ? headOf(rowTextOf(message), MAX_ROW_CHARACTERS) : "";
    const kind = message ? kindOfPreview(message.preview, message.bytes) : "text";
    element.setAttribute("aria-posinset", position + 1);
    element.classList.toggle("next", position === 0);
    element.classList.toggle("unread", !message);
    open.setAttribute("aria-label", t("waiting.open", { position: number, preview }));
    write(element.querySelector(".position"), number);
    element.querySelector(".badge").hidden = position !== 0;
    write(element.querySelector(".preview"), preview);
    write(element.querySelector(".reason"), reasonOf(message?.reason, t));
    const badge = message?.summary?.shape ?? (kind === "text" ? "" : t(`waiting.${kind}`));
    element.querySelector(".kind").hidden = badge === "";
    write(element.querySelector(".kind"), badge);
    write(element.querySelector(".size"), message ? sizeOf(message.bytes, page.language) : "");
    remove.setAttribute("aria-label", t("waiting.remove", { position: number }));
    remove.title = t("remove");
  }

  // --- mouse and keyboard

  list.addEventListener("click", (event) => {
    const row = rowOf.get(event.target.closest(".row"));
    if (!row) return;
    active = row.place;
    if (event.target.closest(".remove")) keepInPlace(() => actions.remove(row.position, row.message));
    else openMessage({ position: row.position, preview: row.message });
  });

  /** Do something that adds a card above the list, and scroll so that the list stays in place under the finger. */
  async function keepInPlace(work) {
    const before = view.getBoundingClientRect().top;
    await work();
    requestAnimationFrame(() => scrollBy(0, view.getBoundingClientRect().top - before));
  }

  list.addEventListener("keydown", (event) => {
    const row = rowOf.get(event.target.closest(".row"));
    if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
    const screen = Math.max(1, Math.floor(view.clientHeight / ROW_HEIGHT_PX) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: screen, PageUp: -screen, Home: -Infinity, End: Infinity };
    if (event.key in steps) focus(row.place + steps[event.key]);
    else if (event.key === "Delete") actions.remove(row.position, row.message).then(() => focus(row.place));
    else return;
    event.preventDefault();
  });

  function focus(place) {
    if (!length()) return view.focus();
    active = Math.min(Math.max(0, place), length() - 1);
    view.scrollTop = scrollTo(active, box());
    render();
    rows.get(active)?.element.firstElementChild.focus({ preventScroll: true });
  }

  // --- scrolling and resizing

  let frame = 0;
  view.addEventListener("scroll", () => {
    if (frame) return;
    frame = requestAnimationFrame(() => {
      frame = 0;
      render();
      load();
    });
  });
  new ResizeObserver(() => {
    render();
    load();
  }).observe(view);
  view.tabIndex = -1;

  /** Clear the filter, and scroll to a position and focus it. */
  function goTo(position) {
    filter.value = "";
    applyFilter();
    render(); // the list needs its full height before it can be scrolled
    focus(position);
    load();
  }

  /** Return how many of the first messages an event should include: the visible ones; none where rows need details. */
  function rowsShown() {
    const { next } = page.limits;
    return details ? 0 : Math.min(next, visibleRows({ ...box(), count: next }).last);
  }
  return { update, goTo, rowsShown };
}
