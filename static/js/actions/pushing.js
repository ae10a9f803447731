import { QueueError } from "../client.js";
import { LOST_CODES, retryWithKey } from "./idempotency.js";

/** Pushing to this queue, and copies to any queue. */
export function createPushing({ client, notices, curl, run, linkTo, t }) {
  /**
   * Push once. A caller that passes a key keeps the message, so that the same push can be repeated safely.
   * @param {import("../client/types.js").Message | string[]} message
   * @param {{front?: boolean, delay?: number, key?: string}} options
   */
  function push(message, { front, delay, key }) {
    return run(curl.push(message, { front, delay }), async () => {
      try {
        return await retryWithKey((sent) => client.push(message, { front, delay, key: sent }), key);
      } catch (error) {
        throw key && LOST_CODES.has(error.code) ? new QueueError("push_offline", error.message) : error;
      }
    });
  }

  /**
   * Push a copy of a message to this queue or another one.
   * @param {string} to @param {import("../client/types.js").Message} message
   * @param {string} key makes it safe to repeat
   */
  async function pushCopy(to, message, key) {
    const other = client.of(to);
    const work = () => retryWithKey((sent) => other.push(message, { key: sent }), key);
    const answer = await run(curl.of(to).push(message), work);
    if (answer) notices.say(t("pushed.to", { name: to }), linkTo(to));
    return answer;
  }
  return { push, pushCopy };
}
