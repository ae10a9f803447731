import { COUNTS } from "../client/types.js";
import { deadOf, pageUrl } from "../state/names.js";
import { problemsOf, sortQueues, sparkMinutes, sparkline } from "../state/queueList.js";
import { scrollTo, visibleRows } from "../state/rows.js";
import { clone, write } from "./dom.js";

const ROW_HEIGHT_PX = 60; // as in queues.css
const SORT_INTERVAL_MS = 1000; // the rows change places at most this often,
const HANDS_OFF_MS = 1500; // and not until this long after the visitor last pointed at them or moved among them
const TICK_MS = 500; // the lines move with time, and the rows can too
const [SPARK_WIDTH, SPARK_HEIGHT] = [100, 26]; // the box of the SVG
const NARROW_COUNTS = ["reserved", "delayed", "waiters"]; // shown below the name if there is no room for columns

/**
 * Create a list of queues. Only the visible rows exist, so that ten thousand are as smooth as ten.
 * @param {HTMLElement} view the element that scrolls @param {HTMLElement} list the list in it
 * @param {string} current the queue of this page
 */
export function createQueueRows(view, list, { t, n, isName }, current = "") {
  const rows = new Map(); // name -> its element
  let state = { queues: new Map() };
  let options = { sort: "trouble", filter: "" };
  let names = []; // in order
  let sortedAt = -Infinity;
  let usedAt = -Infinity;
  let active = ""; // the queue whose row Tab reaches

  const box = () => ({ count: names.length, row: ROW_HEIGHT_PX, view: view.clientHeight, scroll: view.scrollTop });

  /**
   * Show a state. While the list is being used, its order stays, unless the options change.
   * @returns {number} the number of queues shown
   */
  function update(next, changes = {}) {
    const [now, elapsed] = [Date.now(), performance.now()]; // the clock can be set back, elapsed time cannot
    const isChanged = Object.entries(changes).some(([key, value]) => options[key] !== value);
    [state, options] = [next, { ...options, ...changes }];
    if (isChanged) view.scrollTop = 0;
    const isDue = elapsed - sortedAt >= SORT_INTERVAL_MS && elapsed - usedAt >= HANDS_OFF_MS;
    if (isChanged || names.length === 0 || isDue) {
      sortedAt = elapsed;
      names = sortQueues(state.queues, options, now).map(({ name }) => name);
    } else names = names.filter((name) => state.queues.has(name));
    render();
    return names.length;
  }

  // --- drawing

  /** Create the visible rows and remove all others. */
  function render() {
    list.style.height = `${visibleRows(box()).height}px`;
    const { first, last, top } = visibleRows(box());
    const shown = names.slice(first, last);
    const focused = rows.get(active)?.contains(document.activeElement) ? document.activeElement : null;
    const kept = new Set(shown);
    for (const [name, element] of rows) {
      if (kept.has(name)) continue;
      element.remove();
      rows.delete(name);
    }
    const reachable = kept.has(active) ? active : shown[Math.min(shown.length - 1, first ? 4 : 0)];
    let after = list.firstElementChild;
    shown.forEach((name, i) => {
      const element = rows.get(name) ?? clone("queue-row-template");
      rows.set(name, element);
      if (element === after) after = after.nextElementSibling;
      else list.insertBefore(element, after);
      fill(element, state.queues.get(name), first + i, name === reachable);
      element.style.transform = `translateY(${top + i * ROW_HEIGHT_PX}px)`;
    });
    const isLost = focused && document.activeElement !== focused;
    if (isLost) (focused.isConnected ? focused : view).focus({ preventScroll: true });
  }

  function fill(element, queue, place, isReachable) {
    const { name, dead } = queue;
    const open = element.querySelector(".open");
    const now = Date.now();
    const problems = problemsOf(queue, now);
    const [whyDead, whyRest] = reasonsOf(queue, problems);
    set(element, "aria-setsize", names.length);
    set(element, "aria-posinset", place + 1);
    element.classList.toggle("trouble", problems.length > 0);
    element.classList.toggle("nothing", queue.emptySince !== null);
    write(element.querySelector(".queue-name"), name);
    write(element.querySelector(".why-dead"), whyDead);
    write(element.querySelector(".why-rest"), whyRest);
    write(element.querySelector(".why-more"), numbersOf(queue, NARROW_COUNTS).join(" · "));
    set(open, "aria-label", labelOf(queue, whyRest));
    set(open, "aria-current", name === current ? "page" : null);
    set(open, "href", isName(name) ? pageUrl(name) : null);
    set(open, "tabindex", isReachable ? 0 : -1);
    const isLink = dead > 0 && isName(deadOf(name));
    const deadLink = element.querySelector("a.dead");
    set(deadLink, "href", isLink ? pageUrl(deadOf(name)) : null);
    set(deadLink, "tabindex", isLink ? open.tabIndex : null);
    set(deadLink, "aria-label", isLink ? t("queues.dead", { name, n: dead }) : null);
    set(deadLink, "aria-hidden", isLink ? null : true);
    for (const key of COUNTS) {
      const cell = element.querySelector(`.${key}`);
      cell.classList.toggle("zero", queue[key] === 0);
      write(cell.querySelector(".cell-number"), n(queue[key]));
      write(cell.querySelector(".cell-label"), t(`${key}.label`, { n: queue[key] }));
    }
    const line = sparkline(queue.samples, sparkMinutes(state, now), now, SPARK_WIDTH, SPARK_HEIGHT);
    set(element.querySelector("path"), "d", line);
  }

  /** Return the texts for a queue's problems and state: that of its dead letters, and the others. */
  function reasonsOf({ dead, paused, emptySince }, problems) {
    const rest = [
      problems.includes("growing") && t("queues.why.growing"),
      paused && t("queues.why.paused"),
      emptySince !== null && t("queues.why.empty"),
    ];
    return [problems.includes("dead") ? t("queues.why.dead", { n: dead }) : "", rest.filter(Boolean).join(" · ")];
  }

  /** Return the accessible name of a row: the queue, its counts, and its problems. */
  function labelOf(queue, why) {
    const numbers = [...numbersOf(queue, ["count"], 0), ...numbersOf(queue, COUNTS.slice(1))];
    return [queue.name, ...numbers, why].filter(Boolean).join(", ");
  }

  /** Return the given counts of a queue as texts, without those below `least`. */
  function numbersOf(queue, keys, least = 1) {
    const textOf = (key) => `${n(queue[key])} ${t(`${key}.label`, { n: queue[key] })}`;
    return keys.filter((key) => queue[key] >= least).map(textOf);
  }

  // --- mouse and keyboard

  const use = () => {
    usedAt = performance.now();
  };
  for (const kind of ["pointermove", "pointerdown", "keydown", "focusin"]) view.addEventListener(kind, use);

  list.addEventListener("focusin", (event) => {
    const row = event.target.closest(".queue-row");
    active = [...rows].find(([, element]) => element === row)?.[0] ?? active;
  });

  list.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const screen = Math.max(1, Math.floor(view.clientHeight / ROW_HEIGHT_PX) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: screen, PageUp: -screen, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    focus(names.indexOf(active) + steps[event.key]);
  });

  /** Focus a row, the nearest one if there is none at this place. */
  function focus(place) {
    if (!names.length) return;
    const index = Math.min(Math.max(0, place), names.length - 1);
    active = names[index];
    view.scrollTop = scrollTo(index, box());
    render();
    rows.get(active).querySelector(".open").focus({ preventScroll: true });
  }

  let frame = 0;
  view.addEventListener("scroll", () => {
    use();
    frame ||= requestAnimationFrame(() => {
      frame = 0;
      render();
    });
  });
  new ResizeObserver(render).observe(view);
  view.tabIndex = -1;
  setInterval(() => view.checkVisibility() && update(state), TICK_MS);

  return { update, focus };
}

/** Set an attribute, or remove it (null), if it has changed. */
function set(element, name, value) {
  const text = value === null ? null : String(value);
  if (element.getAttribute(name) === text) return;
  if (text === null) element.removeAttribute(name);
  else element.setAttribute(name, text);
}

/** Let the down arrow lead from a field to the first row. @param {HTMLInputElement} field */
export function leadToRows(field, queueRows) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    queueRows.focus(0);
  });
}
