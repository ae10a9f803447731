import { UNDO_TTL_MS } from "../../actions/wholeQueue.js";
import { parentOf } from "../../state/names.js";
import { byId, openDialog, refocus, session, write } from "../../ui/dom.js";
import { mountNameField } from "../../ui/nameField.js";

/** Clear with undo, move to another queue, and moving dead letters back. */
export function mountClearAndMove(app, suggestNames) {
  const { store, actions, notices, page, isName, t } = app;
  const undosKey = `undo:${page.name}`;
  let undos = session.get(undosKey, []); // {undo, cleared, until}; the last one is offered

  function setUndos(list) {
    undos = list.filter(({ until }) => until > Date.now());
    session.set(undosKey, undos);
    byId("undo").hidden = !undos.length;
    if (undos.length) write(byId("undo-text"), t("cleared", { n: undos.at(-1).cleared }));
  }
  setUndos(undos);

  const typed = byId("clearing-name");
  typed.addEventListener("input", () => {
    byId("clearing-go").disabled = typed.value !== page.name;
  });
  byId("clear").addEventListener("click", async () => {
    typed.value = "";
    byId("clearing-go").disabled = true;
    const hint = byId("filter").value ? ` ${t("clear.filter")}` : "";
    byId("clearing-text").textContent = t("clear.what", { n: store.state.count }) + hint;
    if ((await openDialog(byId("clearing"))) !== "go" || typed.value !== page.name) return;
    const answer = await actions.clear();
    if (!answer) return;
    const { undo, cleared } = answer;
    if (!undo) return void notices.say(t("cleared", { n: 0 }));
    setUndos([...undos, { undo, cleared, until: Date.now() + UNDO_TTL_MS }]);
    refocus(byId("undo-go"), byId("clear"));
  });

  byId("undo-go").addEventListener("click", async () => {
    const { undo } = undos.at(-1);
    const drop = () => setUndos(undos.filter((one) => one.undo !== undo));
    const answer = await actions.restore(undo, drop);
    if (!answer) return;
    drop();
    notices.say(t("restored", { n: answer.restored }));
    refocus(byId("clear"), byId("undo"));
  });
  byId("undo-close").addEventListener("click", () => {
    setUndos(undos.slice(0, -1));
    if (!undos.length) refocus(byId("clear"), byId("undo"));
  });

  const [to, max] = [byId("moving-to"), byId("moving-max")];
  const fillName = mountNameField(to, byId("moving-new"), { suggestNames, isName, t });

  /**
   * Ask for the target and move; with `contains`, only messages that contain this text. Resolves with the answer,
   * undefined if nothing was moved.
   */
  async function openMove({ contains } = {}) {
    max.value = "";
    byId("moving-contains").hidden = contains === undefined;
    write(byId("moving-contains"), t("move.contains", { text: contains ?? "" }));
    fillName(parentOf(page.name) ?? "");
    if ((await openDialog(byId("moving"))) !== "go") return undefined;
    if (!isName(to.value)) return void notices.fail({ code: "bad_name" });
    return actions.move(to.value, { max: max.value === "" ? undefined : Number(max.value), contains });
  }
  byId("move").addEventListener("click", () => openMove());

  byId("dead-back")?.addEventListener("click", () => actions.move(parentOf(page.name)));
  return { openMove };
}
