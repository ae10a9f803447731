import { at, clone, write } from "../dom.js";
import { bytesOf, kindOfPreview, oneLine, sizeOf } from "../format.js";
import { scrollTo, windowOf } from "../state.js";

const ROW = 44; // pixels; home.css says the same
const PREVIEW = 200; // characters of a message that a row can show
const FILTERED = 1000; // messages that a filter looks at
const SHOWN = 300; // characters of a row's text
const TOLD = new Set(["redis_away", "offline", "token_required"]); // of these the page knows more than their code tells

/**
 * The list of waiting messages. Only the rows in view exist, and only they are read from the app, so a million
 * messages cost what twenty do.
 */
export function mountWaiting(app) {
  const { client, store, failure, t, n, language } = app;
  const [view, list, filter] = [at("viewport"), at("rows"), at("filter")];
  const shown = new Map(); // place in the list -> its element
  let known = new Map(); // position in the queue -> {preview, bytes, version}
  let found = null; // positions that the filter leaves; null without a filter
  let seen = 0; // version of the last state that came in
  let loading = false;
  let timer = 0;
  let active = 0; // place of the row that Tab reaches

  const length = () => found?.length ?? store.state.count;
  const positionOf = (place) => (found ? found[place] : place);
  const box = () => ({ count: length(), row: ROW, view: view.clientHeight, scroll: view.scrollTop });

  // --- reading

  /** Read what is in view and not known as it is now; one request at a time. */
  async function load() {
    if (loading || !store.state.known) return;
    const { version, count } = store.state;
    const filtered = filter.value !== "";
    let { first, last } = filtered ? { first: 0, last: Math.min(FILTERED, count) } : windowOf(box());
    const fresh = (position) => known.get(position)?.version === version;
    while (first < last && fresh(first)) first += 1;
    while (last > first && fresh(last - 1)) last -= 1;
    if (first === last) return search();
    loading = true;
    let whole = false;
    try {
      const { messages } = await client.all({ offset: first, limit: last - first, preview: PREVIEW });
      const kept = [...known].filter(([position, row]) => row.version === version || inView(position));
      known = new Map(kept);
      messages.forEach((row, i) => known.set(first + i, { ...row, version }));
      // Fewer than asked for: others popped meanwhile, and the next state tells.
      whole = messages.length === last - first;
      search();
      render();
    } catch {
      // The stream tells when the app is away, and the next state asks again.
    } finally {
      loading = false;
    }
    if (store.state.version !== version) soon();
    else if (whole) load(); // what is in view may be something else by now
  }

  /** Read again after a while, however many states come in: a filter reads much. */
  function soon() {
    timer ||= setTimeout(() => {
      timer = 0;
      load();
    }, filter.value ? 1000 : 100);
  }

  const inView = (position) => [...shown.values()].some((row) => row.at === position);

  /** Leave the rows that the filter leaves; all of them without one. */
  function search() {
    const needle = filter.value.toLowerCase();
    at("found").hidden = needle === "";
    if (needle === "") return void (found = null);
    const most = Math.min(FILTERED, store.state.count);
    const read = [...known.keys()].filter((position) => position < most).toSorted((a, b) => a - b);
    found = read.filter((position) => textOf(known.get(position).preview).toLowerCase().includes(needle));
    write(at("found"), t("found", { found: found.length, n: read.length }));
    render();
  }

  const textOf = (preview) => (typeof preview === "string" ? preview : oneLine(preview));

  filter.addEventListener("input", () => {
    view.scrollTop = 0;
    active = 0;
    search();
    render();
    load();
  });

  // --- drawing

  function update(state) {
    if (state.version !== seen) {
      seen = state.version;
      if (filter.value) soon(); // until then it shows what it found, where that was
      else {
        state.next.forEach((row, i) => known.set(i, { ...row, version: seen }));
        load();
      }
    }
    render();
  }

  function render() {
    const { known: ready, count, connection, error } = store.state;
    const { height, first, last, top } = windowOf(box());
    list.style.height = `${height}px`;
    for (const [place, row] of shown) {
      if (place >= first && place < last) continue;
      if (row.contains(document.activeElement)) view.focus({ preventScroll: true });
      row.remove();
      shown.delete(place);
    }
    active = Math.min(active, Math.max(0, length() - 1));
    const reachable = active >= first && active < last ? active : Math.min(first + 4, Math.max(0, length() - 1));
    let after = list.firstElementChild;
    for (let place = first; place < last; place += 1) {
      let row = shown.get(place);
      if (!row) {
        row = clone("row-template");
        shown.set(place, row);
        list.insertBefore(row, after);
      } else after = row.nextElementSibling;
      fill(row, place, place === reachable);
      row.style.transform = `translateY(${top + (place - first) * ROW}px)`;
    }
    at("empty").hidden = !(ready && count === 0 && connection === "live");
    const absent = ["fault", "away", "refused"].includes(connection);
    at("absent").hidden = !absent;
    at("stage").classList.toggle("stale", absent);
    if (absent) write(at("absent"), TOLD.has(error?.code ?? "offline") ? t(`absent.${connection}`) : failure(error));
    at("clear").disabled = at("move").disabled = count === 0;
  }

  function fill(row, place, reachable) {
    const position = positionOf(place);
    const message = known.get(position);
    const [open, remove] = row.children;
    open.tabIndex = remove.tabIndex = reachable ? 0 : -1;
    if (row.setSize !== store.state.count) row.setAttribute("aria-setsize", (row.setSize = store.state.count));
    if (row.at === position && row.shows === message) return;
    Object.assign(row, { at: position, place, shows: message });
    const number = n(position + 1);
    const text = message ? oneLine(message.preview).slice(0, SHOWN) : "";
    const kind = message ? kindOfPreview(message.preview) : "";
    row.setAttribute("aria-posinset", position + 1);
    row.classList.toggle("next", position === 0);
    row.classList.toggle("unread", !message);
    write(row.querySelector(".position"), number);
    row.querySelector(".badge").hidden = position !== 0;
    write(row.querySelector(".preview"), text);
    row.querySelector(".kind").hidden = kind === "text" || kind === "";
    write(row.querySelector(".kind"), kind === "json" || kind === "bytes" ? t(`waiting.${kind}`) : "");
    write(row.querySelector(".size"), message ? sizeOf(message.bytes, language) : "");
    remove.setAttribute("aria-label", t("waiting.remove", { position: number }));
    remove.title = t("remove");
  }

  // --- acting

  list.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row) return;
    active = row.place;
    if (event.target.closest(".remove")) remove(row.at, row.shows);
    else app.open({ position: row.at });
  });

  /** Remove the message that was seen at a position; what moved meanwhile is left alone. */
  async function remove(position, seen) {
    let message;
    const done = await app.act("", async () => {
      const { messages } = await client.all({ offset: position, limit: 1 });
      [message] = messages;
      if (seen && !isSame(message, seen)) {
        throw Object.assign(new Error(t("remove.stale")), { code: "moved" });
      }
      app.teach(app.curl.remove(position, message));
      return client.remove(position, message);
    });
    if (!done) return false;
    app.took([{ how: "remove", message }]);
    return true;
  }

  /** Whether a message is the one of which this much was seen; byte by byte, as only the rest may be no UTF-8. */
  function isSame(message, { preview, bytes }) {
    if (message === undefined) return false;
    const [whole, head] = [bytesOf(message), bytesOf(preview)];
    return whole.length === bytes && head.every((byte, i) => byte === whole[i]);
  }

  list.addEventListener("keydown", (event) => {
    const row = event.target.closest(".row");
    if (!row || event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor(view.clientHeight / ROW) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (event.key in steps) focus(row.place + steps[event.key]);
    else if (event.key === "Delete") remove(row.at, row.shows).then(() => focus(row.place));
    else return;
    event.preventDefault();
  });

  function focus(place) {
    if (!length()) return view.focus();
    active = Math.min(Math.max(0, place), length() - 1);
    view.scrollTop = scrollTo(active, box());
    render();
    shown.get(active)?.firstElementChild.focus({ preventScroll: true });
  }

  let drawn = 0;
  view.addEventListener("scroll", () => {
    drawn ||= requestAnimationFrame(() => {
      drawn = 0;
      render();
      load();
    });
  });
  new ResizeObserver(() => {
    render();
    load();
  }).observe(view);
  view.tabIndex = -1;
  return { update, remove };
}
