import { clone, write } from "./dom.js";
import { deadOf, isName, pageUrl } from "../state/names.js";
import { scrollTo, visibleRows } from "../state/rows.js";
import { SORTS, arranged, sparkMinutes, sparkline, troublesOf } from "../state/queueList.js";

const ROW_HEIGHT_PX = 60; // as in queues.css
const ARRANGE_INTERVAL_MS = 1000; // queues change places at most so often,
const TICK_MS = 500; // the lines move with time, and a queue may be due for another place
const HANDS_OFF_MS = 1500; // and not so soon after somebody has pointed at them or moved among them
const [SPARK_WIDTH, SPARK_HEIGHT] = [100, 26]; // the box of the SVG
const NUMBERS = SORTS.slice(2); // the columns of numbers
const MORE = ["reserved", "delayed", "waiters"]; // shown below the name where there is no room for columns

/**
 * A list of queues, of which only the visible rows exist, so that ten thousand are as smooth as ten.
 * @param {HTMLElement} view the element that scrolls @param {HTMLElement} list the list in it
 */
export function createQueueList(view, list, { t, n }, current = "") {
  const rows = new Map(); // name -> its element
  let state = { queues: new Map() };
  let options = { sort: "trouble", filter: "" };
  let names = []; // in order
  let arrangedAt = -Infinity;
  let usedAt = -Infinity;
  let active = ""; // the queue whose row Tab reaches

  const box = () => ({ count: names.length, row: ROW_HEIGHT_PX, view: view.clientHeight, scroll: view.scrollTop });

  /** Show a state; with other options at once, else in the order of before while it is used. */
  function update(next, changes = {}) {
    const [now, elapsed] = [Date.now(), performance.now()]; // the clock may be set back, the elapsed time never is
    const isOther = Object.entries(changes).some(([key, value]) => options[key] !== value);
    [state, options] = [next, { ...options, ...changes }];
    if (isOther) view.scrollTop = 0;
    if (isOther || names.length === 0 || (elapsed - arrangedAt >= ARRANGE_INTERVAL_MS && elapsed - usedAt >= HANDS_OFF_MS)) {
      arrangedAt = elapsed;
      names = arranged(state.queues, options, now).map(({ name }) => name);
    } else names = names.filter((name) => state.queues.has(name));
    render();
    return names.length;
  }

  // --- drawing

  /** Make the rows in view exist, and no others, in their order. */
  function render() {
    list.style.height = `${visibleRows(box()).height}px`;
    const { first, last, top } = visibleRows(box());
    const shown = names.slice(first, last);
    const focused = rows.has(active) && rows.get(active).contains(document.activeElement) ? document.activeElement : null;
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
    if (focused && document.activeElement !== focused) (focused.isConnected ? focused : view).focus({ preventScroll: true });
  }

  function fill(element, queue, place, isReachable) {
    const { name, dead } = queue;
    const open = element.querySelector(".open");
    const now = Date.now();
    const troubles = troublesOf(queue, now);
    const [whyDead, whyRest] = reasonsOf(queue, troubles);
    set(element, "aria-setsize", names.length);
    set(element, "aria-posinset", place + 1);
    element.classList.toggle("trouble", troubles.length > 0);
    element.classList.toggle("nothing", queue.emptySince !== null);
    write(element.querySelector(".queue-name"), name);
    write(element.querySelector(".why-dead"), whyDead);
    write(element.querySelector(".why-rest"), whyRest);
    write(element.querySelector(".why-more"), numbersOf(queue, MORE).join(" · "));
    set(open, "aria-label", fullNameOf(queue, whyRest));
    set(open, "aria-current", name === current ? "page" : null);
    set(open, "href", isName(name) ? pageUrl(name) : null);
    set(open, "tabindex", isReachable ? 0 : -1);
    const isLink = dead > 0 && isName(deadOf(name));
    const deadLink = element.querySelector("a.dead");
    set(deadLink, "href", isLink ? pageUrl(deadOf(name)) : null);
    set(deadLink, "tabindex", isLink ? open.tabIndex : null);
    set(deadLink, "aria-label", isLink ? t("queues.dead", { name, n: dead }) : null);
    set(deadLink, "aria-hidden", isLink ? null : true);
    for (const key of NUMBERS) {
      const cell = element.querySelector(`.${key}`);
      cell.classList.toggle("zero", queue[key] === 0);
      write(cell.querySelector(".cell-number"), n(queue[key]));
      write(cell.querySelector(".cell-label"), t(`${key}.label`, { n: queue[key] }));
    }
    set(element.querySelector("path"), "d", sparkline(queue.samples, sparkMinutes(state, now), now, SPARK_WIDTH, SPARK_HEIGHT));
  }

  /** Why a queue is where it is, in words: its dead letters, and the rest. */
  function reasonsOf({ dead, paused, emptySince }, troubles) {
    const rest = [
      troubles.includes("growing") && t("queues.why.growing"),
      paused && t("queues.why.paused"),
      emptySince !== null && t("queues.why.empty"),
    ];
    return [troubles.includes("dead") ? t("queues.why.dead", { n: dead }) : "", rest.filter(Boolean).join(" · ")];
  }

  /** The name of a row for who does not see it: the queue, its numbers, and what is wrong. */
  function fullNameOf(queue, why) {
    return [queue.name, ...numbersOf(queue, ["count"], 0), ...numbersOf(queue, NUMBERS.slice(1)), why].filter(Boolean).join(", ");
  }

  /** Some numbers of a queue, each with what it counts, without those that are lower than `least`. */
  function numbersOf(queue, keys, least = 1) {
    return keys.filter((key) => queue[key] >= least).map((key) => `${n(queue[key])} ${t(`${key}.label`, { n: queue[key] })}`);
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

  /** Focus the row at a place. */
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

/** Set an attribute, or remove it (null), only if it changed. */
function set(element, name, value) {
  const text = value === null ? null : String(value);
  if (element.getAttribute(name) === text) return;
  if (text === null) element.removeAttribute(name);
  else element.setAttribute(name, text);
}

/** Let the arrow leave a field for the first row. @param {HTMLInputElement} field */
export function leadToRows(field, queueList) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    queueList.focus(0);
  });
}
