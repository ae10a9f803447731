import { ask, at, memory, write } from "./dom.js";

const KEPT = 3600_000; // milliseconds that the app keeps what was cleared

/** Clear with undo, move, and the way back of dead letters. */
export function mountTidy(app) {
  const { client, store, notices, page, t, curl } = app;
  const key = `undo:${page.name}`;
  let undos = memory.get(key, []); // {undo, cleared, until}; the last is offered first

  function keep(list) {
    undos = list.filter(({ until }) => until > Date.now());
    memory.set(key, undos);
    at("undo").hidden = !undos.length;
    if (undos.length) write(at("undo-text"), t("cleared", { n: undos.at(-1).cleared }));
  }
  keep(undos);

  const typed = at("clearing-name");
  typed.addEventListener("input", () => {
    at("clearing-go").disabled = typed.value !== page.name;
  });
  at("clear").addEventListener("click", async () => {
    typed.value = "";
    at("clearing-go").disabled = true;
    at("clearing-text").textContent = t("clear.what", { n: store.state.count });
    if ((await ask(at("clearing"))) !== "go" || typed.value !== page.name) return;
    const done = await app.act(curl.clear(), () => client.clear());
    if (!done) return;
    keep([...undos, { undo: done.undo, cleared: done.cleared, until: Date.now() + KEPT }]);
    at("undo-go").focus();
  });
  at("undo-go").addEventListener("click", async () => {
    const { undo } = undos.at(-1);
    const done = await app.act(curl.restore(undo), () => client.restore(undo));
    if (!done) return;
    keep(undos.slice(0, -1));
    notices.say(t("restored", { n: done.restored }));
    at("push-text").focus();
  });
  at("undo-close").addEventListener("click", () => keep(undos.slice(0, -1)));

  const [to, max] = [at("moving-to"), at("moving-max")];
  at("move").addEventListener("click", async () => {
    to.value = max.value = "";
    app.suggest();
    if ((await ask(at("moving"))) !== "go") return;
    move(to.value, max.value === "" ? undefined : Number(max.value));
  });

  async function move(target, most) {
    const done = await app.act(curl.move(target, most), () => client.move(target, most));
    if (!done) return;
    const link = { href: app.pageOf(target), text: t("dead.open", { name: target }) };
    notices.say(t("moved", { n: done.moved, name: target }), link);
  }

  at("dead-back")?.addEventListener("click", () => move(app.alive));
}
