import { QueueError } from "../client.js";
import { bytesOf, headOf, oneLine } from "../text/format.js";
import { canBeSame, fits } from "./previews.js";

const MAX_SHIFT = 100; // how far from its last known position to search for a message
const SEARCH_CHARACTERS = 200; // read of each message during a search
const NAMED_CHARACTERS = 40; // of a removed message, in the notice

/**
 * The actions on one waiting message.
 *
 * @import { Message, Preview } from "../client/types.js"
 */
export function createMessages({ client, store, notices, curl, showCommand, run, keep, putBack, sayMoved, t }) {
  /**
   * Read a whole message, and its deliveries.
   * @param {number} position @param {Preview} [preview] what the page shows of it: if
   *     others were popped since then, search for the message nearby
   * @returns {Promise<{position: number, message: Message} & import("../client/types.js").Details | undefined>}
   */
  function read(position, preview) {
    return run(curl.read(position), async () => {
      const found = await readAt(position);
      if (found && (!preview || fits(found.message, preview))) return found;
      const moved = preview && (await findNear(position, preview));
      const again = moved === undefined ? undefined : await readAt(moved);
      if (again && fits(again.message, preview)) return again;
      throw new QueueError("moved", t("read.stale"));
    });
  }

  async function readAt(position) {
    const [found] = (await client.all({ offset: position, limit: 1, details: true })).messages;
    return found && { position, ...found };
  }

  /** Return the nearest position of a message with this preview, undefined if there is none nearby. */
  async function findNear(position, preview) {
    const start = Math.max(0, position - MAX_SHIFT);
    const { messages } = await client.all({ offset: start, limit: 2 * MAX_SHIFT, preview: SEARCH_CHARACTERS });
    const positions = messages.flatMap((one, i) => (canBeSame(one, preview) ? [start + i] : []));
    return positions.toSorted((a, b) => Math.abs(a - position) - Math.abs(b - position))[0];
  }

  /**
   * Remove the message that is shown at a position. If another message is there by now, nothing is removed.
   * @param {number} position @param {Preview} [preview] what the page shows of it
   */
  async function remove(position, preview) {
    let message;
    const answer = await run("", async () => {
      [message] = (await client.all({ offset: position, limit: 1 })).messages;
      const isSame = message !== undefined && (!preview || fits(message, preview));
      if (!isSame) throw new QueueError("moved", t("remove.stale"));
      showCommand(curl.remove(position, message));
      return client.remove(position, message, { undo: true });
    });
    if (!answer) return undefined;
    keep("remove", [{ message, undo: answer.undo }]);
    const [one] = store.state.inHand;
    const text = headOf(oneLine(message), NAMED_CHARACTERS);
    notices.say(t("removed.what", { text }), { text: t("undo"), action: () => putBack([one]) });
    return answer;
  }

  /**
   * Move one message to another queue. If others were popped since it was read, search for it nearby.
   * @param {string} to @param {number} position @param {Message} message
   */
  async function moveOne(to, position, message) {
    const answer = await run(curl.moveOne(to, position, message), async () => {
      try {
        return await client.move(to, { position, message });
      } catch (error) {
        if (error.code !== "stale") throw error;
      }
      const moved = await findNear(position, { preview: message, bytes: bytesOf(message).length });
      if (moved === undefined) throw new QueueError("moved", t("read.stale"));
      return client.move(to, { position: moved, message });
    });
    if (answer) sayMoved(answer.moved, to);
    return answer;
  }
  return { read, remove, moveOne };
}
