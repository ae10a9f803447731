import { byId, clone } from "../dom.js";
import { isName, pageUrl } from "../names.js";

/** Switch to another queue, or open one by name. Every queue has its own address, so links and "back" work. */
export function mountQueues({ client, notices, page, n }) {
  byId("switch").addEventListener("click", () => {
    byId("queues-name").value = "";
    byId("queues").showModal();
    suggestNames();
  });
  byId("queues-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = byId("queues-name").value.trim();
    if (isName(name)) location.assign(pageUrl(name));
    else notices.fail({ code: "bad_name" });
  });

  /** Load the names of all queues for the list and for the suggestions of the name fields; resolves with them, or null. */
  async function suggestNames() {
    let queues;
    try {
      ({ queues } = await client.queues());
    } catch (error) {
      notices.fail(error);
      return null;
    }
    queues.sort((a, b) => a.name.localeCompare(b.name));
    byId("names").replaceChildren(...queues.map(({ name }) => new Option("", name)));
    byId("queues-list").replaceChildren(...queues.filter(({ name }) => isName(name)).map(itemOf));
    return queues.map(({ name }) => name);
  }

  function itemOf({ name, count }) {
    const item = clone("queue-template");
    const link = item.querySelector("a");
    link.href = pageUrl(name);
    if (name === page.name) link.setAttribute("aria-current", "page");
    item.querySelector(".queue-name").textContent = name;
    item.querySelector(".queue-count").textContent = n(count);
    return item;
  }
  return { suggestNames };
}
