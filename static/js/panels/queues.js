import { at, clone } from "../dom.js";
import { isName } from "../state.js";

/** Switch to another queue, or open one by name. Every queue has an address of its own, so links and "back" work. */
export function mountQueues(app) {
  const { client, notices, page, n } = app;
  const dialog = at("queues");

  at("switch").addEventListener("click", async () => {
    at("queues-name").value = "";
    dialog.showModal();
    await app.suggest();
  });
  at("queues-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = at("queues-name").value.trim();
    if (isName(name)) location.assign(app.pageOf(name));
    else notices.fail({ code: "bad_name" });
  });

  /** Read which queues there are, for the list and for what name fields suggest. */
  app.suggest = async () => {
    let queues;
    try {
      ({ queues } = await client.queues());
    } catch (error) {
      return notices.fail(error);
    }
    queues.sort((a, b) => a.name.localeCompare(b.name));
    at("names").replaceChildren(
      ...queues.map(({ name }) => Object.assign(document.createElement("option"), { value: name })),
    );
    at("queues-list").replaceChildren(
      ...queues.filter(({ name }) => isName(name)).map(({ name, count }) => {
        const item = clone("queue-template");
        const link = item.querySelector("a");
        link.href = app.pageOf(name);
        if (name === page.name) link.setAttribute("aria-current", "page");
        item.querySelector(".queue-name").textContent = name;
        item.querySelector(".queue-count").textContent = n(count);
        return item;
      }),
    );
  };
}
