/**
 * The messages that this browser popped or removed last, in one store for all its tabs: none is lost with its tab, or by
 * being discarded.
 *
 * @typedef {{message: import("../client/types.js").Message, key: string, undo?: string, time: number}} Recent
 *     key: makes it safe to put it back again; undo: of a removal; time: when it was taken, milliseconds
 */

const MAX_MESSAGES = 100;
const MAX_CHARACTERS = 1 << 20; // of all of them: a browser keeps some millions for all queues together
const MAX_AGE_MS = 24 * 3600_000;

/** @param {string} queue @param {Storage | undefined} storage undefined where the browser forbids it: then nothing is kept */
export function createRecent(queue, storage) {
  const place = `recent:${queue}`;

  /** Return what is kept, the newest first. @returns {Recent[]} */
  function list(now = Date.now()) {
    try {
      return (JSON.parse(storage?.getItem(place)) ?? []).filter(({ time }) => time > now - MAX_AGE_MS);
    } catch {
      return [];
    }
  }

  /** Keep as many of the newest as there is room for. @param {Recent[]} entries */
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
        storage?.setItem(place, JSON.stringify(fitting.slice(0, count)));
        return;
      } catch {
        if (count === 0) return;
      }
    }
  }

  return {
    list,
    /** Keep messages. @param {Array<Omit<Recent, "time">>} taken the newest last */
    add(taken, now = Date.now()) {
      const added = taken.map(({ message, key, undo }) => ({ message, key, undo, time: now })).toReversed();
      save([...added, ...list(now)]);
    },
    /** Forget a message that is in the queue again. @param {string} key */
    drop(key) {
      save(list().filter((one) => one.key !== key));
    },
  };
}

/** Return the browser's store for all tabs; undefined where it is forbidden. */
export function sharedStorage() {
  try {
    return globalThis.localStorage;
  } catch {
    return undefined;
  }
}
