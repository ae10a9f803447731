import { byId } from "../../ui/dom.js";
import { followAll } from "../../ui/following.js";
import { isName, pageUrl } from "../../state/names.js";
import { changed, initialOverview, listed } from "../../state/queueList.js";
import { createQueueList, leadToRows } from "../../ui/queueRows.js";

/** Switch to another queue, or open one by name. Every queue has its own address, so links and "back" work. */
export function mountQueues({ client, notices, page, t, n }) {
  const [dialog, field] = [byId("queues"), byId("queues-name")];
  const queueList = createQueueList(byId("queues-view"), byId("queues-list"), { t, n }, page.name);
  leadToRows(field, queueList);
  let state = initialOverview();
  let stop = null;

  const on = (transition) => (event) => {
    state = transition(state, event, Date.now());
    update();
  };

  byId("switch").addEventListener("click", () => {
    field.value = "";
    dialog.showModal();
    stop = followAll(client, { queues: on(listed), changed: on(changed), connection });
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
    if (dialog.open) queueList.update(state, { filter: field.value.trim() });
  }

  function connection(now, error) {
    if (dialog.open && error) notices.fail(error);
  }

  /** Load the names of all queues for the suggestions of the name fields; resolves with them, or null. */
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
