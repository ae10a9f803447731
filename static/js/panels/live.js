import { at, write } from "../dom.js";
import { chart, labelOf } from "../state.js";

/** The state of the connection, the numbers, the chart, and the tab's title. */
export function mountLive({ store, t, n, page }) {
  const dead = at("dead-link");

  function update(state) {
    const pill = at("live");
    if (pill.dataset.connection !== state.connection) pill.dataset.connection = state.connection;
    write(at("live-text"), t(`live.${labelOf(state)}`));
    if (!state.known) return;
    write(at("count"), n(state.count));
    write(at("count-label"), t("count.label", { n: state.count }));
    write(at("reserved"), n(state.reserved));
    write(at("reserved-label"), t("reserved.label", { n: state.reserved }));
    write(at("dead"), n(state.dead));
    write(at("dead-label"), t("dead.label", { n: state.dead }));
    dead.classList.toggle("some", state.dead > 0);
    write(at("waiters"), state.waiters ? t("waiters", { n: state.waiters }) : t("waiters.none"));
    at("waiters").classList.toggle("some", state.waiters > 0);
    document.title = state.count ? `(${n(state.count)}) ${page.name}` : page.name;
    draw(state);
  }

  function draw({ samples, count }) {
    const { line, area, top, least, most, minutes } = chart(samples, Date.now(), 600, 82);
    at("chart-line").setAttribute("d", line);
    at("chart-area").setAttribute("d", area);
    write(at("chart-top"), n(top));
    write(at("chart-ago"), t("chart.ago", { n: minutes }));
    // Said only when asked for: a label is no live region.
    at("chart").setAttribute("aria-label", t("chart.range", { n: minutes, least, most, now: count }));
  }

  // Time passes without any change too.
  setInterval(() => {
    if (!document.hidden && store.state.samples.length) draw(store.state);
  }, 1000);
  return update;
}
