import { pageUrl } from "../../state/names.js";
import { initialList, receiveChange, receiveList } from "../../state/queueList.js";
import { byId } from "../../ui/dom.js";
import { followAll } from "../../ui/following.js";
import { createQueueRows, leadToRows } from "../../ui/queueRows.js";

/** The dialog that opens another queue. Every queue has its own address, so that links and "back" work. */
export function mountSwitcher({ client, notices, page, isName, t, n }) {
  const [dialog, field] = [byId("queues"), byId("queues-name")];
  const queueRows = createQueueRows(byId("queues-view"), byId("queues-list"), { t, n, isName }, page.name);
  leadToRows(field, queueRows);
  let state = initialList();
  let stop = null;

  const on = (transition) => (event) => {
    state = transition(state, event, Date.now());
    update();
  };

  byId("switch").addEventListener("click", () => {
    field.value = "";
    dialog.showModal();
    stop?.();
    stop = followAll(client, { queues: on(receiveList), changed: on(receiveChange), connection });
  });
  dialog.addEventListener("close", () => stop?.());
  field.addEventListener("input", update);
  byId("queues-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = field.value.trim();
    if (isName(name)) location.assign(pageUrl(name));
    else notices.fail({ code: "bad_name" });
  });

  function update() {
    if (dialog.open) queueRows.update(state, { filter: field.value.trim() });
  }

  function connection(now, error) {
    if (dialog.open && error) notices.fail(error);
  }

  /** Load the names of all queues, which the name fields suggest; resolves with them, or with null if that failed. */
  async function suggestNames() {
    let queues;
    try {
      ({ queues } = await client.queues());
    } catch (error) {
      notices.fail(error);
      return null;
    }
    const names = queues.map(({ name }) => name);
    byId("names").replaceChildren(...names.map((name) => new Option("", name)));
    return names;
  }
  return { suggestNames };
}
