import { byId, refocus } from "../../ui/dom.js";

/** The buttons to pause and resume, and the band across the page while the queue is paused. */
export function mountPause({ actions }) {
  const [pause, resume, band] = [byId("pause"), byId("resume"), byId("paused")];
  pause.addEventListener("click", actions.pause);
  resume.addEventListener("click", actions.resume);

  function update({ paused }) {
    if (band.hidden !== paused) return;
    const [from, to] = paused ? [pause, resume] : [resume, pause];
    const hadFocus = from === document.activeElement;
    band.hidden = !paused;
    pause.hidden = paused;
    if (hadFocus) refocus(to, from);
  }
  return { update };
}
