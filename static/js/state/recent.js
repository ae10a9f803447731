/**
 * The messages last popped or removed in this browser, stored for all its tabs, so that none is lost if its tab is
 * closed or it is discarded.
 *
 * @typedef {{message: import("../client/types.js").Message, key: string, undo?: string, time: number}} Recent
 *     key: makes it safe to put it back twice; undo: of a removal; time: when it was popped or removed, milliseconds
 */

const MAX_MESSAGES = 100;
const MAX_CHARACTERS = 1 << 20; // in total; browsers store a few million characters for all queues together
const MAX_AGE_MS = 24 * 3600_000;

/**
 * @param {string} queue
 * @param {Storage | undefined} storage undefined if the browser forbids it: then nothing is stored
 */
export function createRecent(queue, storage) {
  const storageKey = `recent:${queue}`;

  /** Return the stored messages, the newest first. @returns {Recent[]} */
  function list(now = Date.now()) {
    try {
      return (JSON.parse(storage?.getItem(storageKey)) ?? []).filter(({ time }) => time > now - MAX_AGE_MS);
    } catch {
      return [];
    }
  }

  /** Store as many of the newest as there is room for. @param {Recent[]} entries */
  function save(entries) {
    let room = MAX_CHARACTERS;
    const fitting = entries.slice(0, MAX_MESSAGES).filter(({ message }) => {
      const { length } = typeof message === "string" ? message : message.base64;
      const fits = length <= room;
      if (fits) room -= length;
      return fits;
    });
    for (let count = fitting.length; ; count >>= 1) {
      try {
        storage?.setItem(storageKey, JSON.stringify(fitting.slice(0, count)));
        return;
      } catch {
        if (count === 0) return;
      }
    }
  }

  return {
    list,
    /** Store messages. @param {Array<Omit<Recent, "time">>} messages the newest last */
    add(messages, now = Date.now()) {
      const added = messages.map(({ message, key, undo }) => ({ message, key, undo, time: now })).toReversed();
      save([...added, ...list(now)]);
    },
    /** Drop a message that is in the queue again. @param {string} key */
    drop(key) {
      save(list().filter((one) => one.key !== key));
    },
  };
}

/** Return the browser's storage for all tabs; undefined if it is forbidden. */
export function sharedStorage() {
  try {
    return globalThis.localStorage;
  } catch {
    return undefined;
  }
}
