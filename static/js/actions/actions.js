import { pageUrl } from "../state/names.js";
import { createInFlight } from "./inFlight.js";
import { createMessages } from "./messages.js";
import { createPushing } from "./pushing.js";
import { createRun } from "./run.js";
import { createTaking } from "./taking.js";
import { createWholeQueue } from "./wholeQueue.js";

/**
 * Everything a visitor can do to the queue, without any DOM. Each action shows its curl command and reports its own
 * failure, and then resolves with undefined (with the server's answer on success), so that callers need no `catch`.
 *
 * @param {{client: import("../client.js").QueueClient, store: object, notices: object, recent: object, curl: object,
 *     showCommand: (command: string) => void, t: (key: string, values?: object) => string, language: string}} parts
 */
export function createActions(parts) {
  const { store, notices, t } = parts;

  /** Return the link of a notice to the page of another queue; undefined for this queue. */
  function linkTo(name) {
    return name === store.state.name ? undefined : { href: pageUrl(name), text: t("dead.open", { name }) };
  }
  function sayMoved(number, to, undo = {}) {
    notices.say(t("moved", { n: number, name: to }), { ...linkTo(to), ...undo });
  }

  const tools = { ...parts, run: createRun(parts), linkTo, sayMoved };
  const { push, pushCopy } = createPushing(tools);
  const whole = createWholeQueue(tools);
  const { keep, ...taking } = createTaking({ ...tools, push, restore: whole.restore });
  const inFlight = createInFlight({ ...tools, keep });
  const messages = createMessages({ ...tools, keep, putBack: taking.putBack });
  return { push, pushCopy, ...whole, ...taking, ...inFlight, ...messages };
}
