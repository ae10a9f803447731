import { byId, write } from "../dom.js";

/** The curl command of the last operation, ready to copy; at first, the one that follows the queue. */
export function mountCurlBar({ notices, t, curl }) {
  const line = byId("curl-line");
  line.textContent = curl.events();
  byId("curl-copy").addEventListener("click", (event) => notices.copy(line.textContent, event.currentTarget));

  const example = curl.push("hello");
  byId("empty-curl").textContent = example;
  byId("empty-copy").addEventListener("click", (event) => notices.copy(example, event.currentTarget));

  function showCommand(command) {
    write(byId("curl-label"), t("curl"));
    write(line, command);
    line.scrollLeft = 0;
  }
  return { showCommand };
}
