import { at, write } from "../dom.js";

/** The curl line of the last act, ready to copy. */
export function mountTeach({ notices, t, curl }) {
  const line = at("teach-line");
  line.textContent = curl.events();
  at("teach-copy").addEventListener("click", (event) => notices.copy(line.textContent, event.currentTarget));

  const example = curl.push("hello");
  at("empty-curl").textContent = example;
  at("empty-copy").addEventListener("click", (event) => notices.copy(example, event.currentTarget));

  return function teach(text) {
    write(at("teach-label"), t("teach.act"));
    write(line, text);
    line.scrollLeft = 0;
  };
}
