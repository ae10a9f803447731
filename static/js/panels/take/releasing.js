import { byId, openDialog } from "../../ui/dom.js";

/** The question how a message goes back: when, or to the dead letters, and why. */
export function mountReleasing() {
  const [when, reason] = [byId("releasing-when"), byId("releasing-reason")];

  /** Ask; resolves with the options of a release, undefined if it was cancelled. */
  async function askRelease() {
    when.value = "10";
    reason.value = "";
    const choice = await openDialog(byId("releasing"));
    if (choice === "bury") return { dead: true, reason: reason.value };
    return choice === "release" ? { delay: Number(when.value), reason: reason.value } : undefined;
  }
  return { askRelease };
}
