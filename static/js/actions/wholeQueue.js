import { QueueError } from "../client.js";
import { setPaused } from "../state/queue.js";

export const UNDO_TTL_MS = 3600_000; // how long the server can undo a clear or a removal

/** What can be done with all messages of the queue. */
export function createWholeQueue({ client, store, notices, curl, run, sayMoved, t }) {
  const clear = () => run(curl.clear(), () => client.clear());

  /** Undo a clear or a removal; `onStale` is called if that is no longer possible. @param {string} undo */
  function restore(undo, onStale = () => {}) {
    return run(curl.restore(undo), async () => {
      try {
        return await client.restore(undo);
      } catch (error) {
        if (error.code === "stale") onStale();
        throw error;
      }
    });
  }

  /** Move the oldest messages. @param {string} to @param {{max?: number, contains?: string}} options */
  async function move(to, options = {}) {
    if (to === store.state.name) return notices.fail({ code: "same_queue" });
    const answer = await run(curl.move(to, options), () => client.move(to, options));
    if (!answer) return undefined;
    const { moved } = answer;
    const canUndo = await holdsExactly(to, moved);
    sayMoved(moved, to, canUndo ? { label: t("move.back"), action: () => moveBack(to, moved) } : {});
    return answer;
  }

  /** Return whether a queue holds only the messages just moved: if they are mixed with others, there is no undo. */
  async function holdsExactly(name, number) {
    try {
      return number > 0 && (await client.of(name).count()).count === number;
    } catch {
      return false; // then no undo is offered
    }
  }

  /** Undo a move into a queue that was empty, unless it has changed since. */
  async function moveBack(from, number) {
    const { name } = store.state;
    const answer = await run("", async () => {
      if (!(await holdsExactly(from, number))) throw new QueueError("moved", t("move.stale", { name: from }));
      return client.of(from).move(name, { max: number });
    });
    if (answer) sayMoved(answer.moved, name);
  }

  async function pause() {
    if (await run(curl.pause(), () => client.pause())) store.change(setPaused, true);
  }

  async function resume() {
    if (await run(curl.resume(), () => client.resume())) store.change(setPaused, false);
  }
  return { clear, restore, move, pause, resume };
}
