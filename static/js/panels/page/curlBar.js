import { byId, write } from "../../ui/dom.js";

/** The curl command of the last action, ready to copy; at first, the one that follows the queue. */
export function mountCurlBar({ notices, t, curl }) {
  const line = byId("curl-line");
  let shown = curl.events();
  line.textContent = shown;
  byId("curl-copy").addEventListener("click", (event) => notices.copy(shown, event.currentTarget));

  const example = curl.push("hello");
  byId("empty-curl").textContent = example;
  byId("empty-copy").addEventListener("click", (event) => notices.copy(example, event.currentTarget));

  /** Show a command on one line; it is copied with all its lines. */
  function showCommand(command) {
    shown = command;
    write(byId("curl-label"), t("curl"));
    write(line, command.replace(/\r\n|[\n\r\u2028\u2029]/g, "↵"));
    line.scrollLeft = 0;
  }
  return { showCommand };
}
