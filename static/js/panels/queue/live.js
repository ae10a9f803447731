import { COUNTS } from "../../client/types.js";
import { currentRates, depthLines, rateLines, spanOf } from "../../state/chart.js";
import { parentOf } from "../../state/names.js";
import { labelOf } from "../../state/queue.js";
import { byId, write, writeTitle } from "../../ui/dom.js";

const CHART_INTERVAL_MS = 1000; // the charts move with time even if the queue does not change
const SPEAK_INTERVAL_MS = 30_000; // how often a new count is announced to screen readers
const [CHART_WIDTH, DEPTH_HEIGHT, RATES_HEIGHT] = [600, 82, 38]; // the boxes of the SVGs

/** The state of the connection, the numbers, the charts, and the tab's title. */
export function mountLive({ store, notices, t, n, page }) {
  let spokenCount = null; // the count last announced to screen readers, or the first one

  function update(state) {
    const pill = byId("live");
    if (pill.dataset.connection !== state.connection) pill.dataset.connection = state.connection;
    write(byId("live-text"), t(`live.${labelOf(state)}`));
    if (!state.known) return;
    spokenCount ??= state.count;
    for (const key of COUNTS.filter((one) => one !== "waiters")) {
      write(byId(key), n(state[key]));
      write(byId(`${key}-label`), t(`${key}.label`, { n: state[key] }));
    }
    byId("delayed-open").parentElement.hidden = state.delayed === 0;
    // Dead letters of dead letters are rare, so the link is shown only if there are some.
    byId("dead-link").parentElement.hidden = parentOf(page.name) !== null && state.dead === 0;
    byId("dead-link").classList.toggle("some", state.dead > 0);
    write(byId("waiters"), state.waiters ? t("waiters", { n: state.waiters }) : t("waiters.none"));
    byId("waiters").classList.toggle("some", state.waiters > 0);
    writeTitle(state.count && state.connection === "live" ? `(${n(state.count)}) ${page.name}` : page.name);
    draw(state);
  }

  function draw(state) {
    const [now, isLive] = [Date.now(), state.connection === "live"];
    const span = spanOf(state.samples, now);
    const minutes = span / 60_000;
    byId("overview").classList.toggle("stale", !isLive);
    write(byId("chart-ago"), t("chart.ago", { n: minutes }));
    // A label is not a live region, so a screen reader reads it only on request.
    const { line, area, top, least, most } = depthLines(state.samples, now, span, CHART_WIDTH, DEPTH_HEIGHT);
    byId("chart-line").setAttribute("d", line);
    byId("chart-area").setAttribute("d", area);
    write(byId("chart-top"), n(top));
    label("chart", isLive ? t("chart.range", { n: minutes, least, most, now: state.count }) : t("chart.stale"));
    const rates = rateLines(state.steps, now, span, CHART_WIDTH, RATES_HEIGHT, isLive);
    byId("rates-in-line").setAttribute("d", rates.in);
    byId("rates-out-line").setAttribute("d", rates.out);
    const current = currentRates(state.steps, now);
    write(byId("rate-in"), t("rate.in", { rate: isLive ? perSecond(current.in) : "–" }));
    write(byId("rate-out"), t("rate.out", { rate: isLive ? perSecond(current.out) : "–" }));
    label("rates", t("rates.range", { n: minutes, in: perSecond(rates.most.in), out: perSecond(rates.most.out) }));
  }

  const label = (id, text) => byId(id).setAttribute("aria-label", text);
  const perSecond = (rate) => n(rate < 10 ? Math.round(rate * 10) / 10 : Math.round(rate));

  setInterval(() => {
    if (!document.hidden && store.state.samples.length) draw(store.state);
  }, CHART_INTERVAL_MS);
  setInterval(() => {
    const { count } = store.state;
    if (document.hidden || spokenCount === null || count === spokenCount) return;
    spokenCount = count;
    notices.speak(`${n(count)} ${t("count.label", { n: count })}`);
  }, SPEAK_INTERVAL_MS);
  return { update };
}
