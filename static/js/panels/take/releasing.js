import { byId, openDialog } from "../../ui/dom.js";

/** The dialog that asks when a message is put back, or whether it is buried, and why. */
export function mountReleasing() {
  const [when, reason] = [byId("releasing-when"), byId("releasing-reason")];

  /** Open the dialog; resolves with the options of a release, undefined if it was canceled. */
  async function askRelease() {
    when.value = "10";
    reason.value = "";
    const choice = await openDialog(byId("releasing"));
    if (choice === "bury") return { dead: true, reason: reason.value };
    return choice === "release" ? { delay: Number(when.value), reason: reason.value } : undefined;
  }
  return { askRelease };
}
