import { ask, at, memory, refocus, write } from "../dom.js";
import { isName } from "../state.js";

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
    if (!done.undo) return void notices.say(t("cleared", { n: 0 }));
    keep([...undos, { undo: done.undo, cleared: done.cleared, until: Date.now() + KEPT }]);
    refocus(at("undo-go"), at("clear"));
  });
  at("undo-go").addEventListener("click", async () => {
    const { undo } = undos.at(-1);
    const without = () => keep(undos.filter((one) => one.undo !== undo));
    const done = await app.act(curl.restore(undo), () =>
      client.restore(undo).catch((error) => {
        if (error.code === "stale") without(); // it is an hour old, or was undone elsewhere
        throw error;
      }),
    );
    if (!done) return;
    without();
    notices.say(t("restored", { n: done.restored }));
    refocus(at("push-text"), at("undo"));
  });
  at("undo-close").addEventListener("click", () => keep(undos.slice(0, -1)));

  const [to, max] = [at("moving-to"), at("moving-max")];
  at("move").addEventListener("click", async () => {
    to.value = max.value = "";
    app.suggest();
    if ((await ask(at("moving"))) !== "go") return;
    if (!isName(to.value)) return notices.fail({ code: "bad_name" });
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
