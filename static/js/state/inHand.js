/**
 * The messages in hand: popped, removed or reserved on this page. Each function returns a new state of the page.
 *
 * @typedef {{id: number, message: import("../client/types.js").Message, how: "pop" | "remove" | "reserve",
 *           key?: string, undo?: string, time?: number, reservation?: string, lease?: number, until?: number,
 *           deliveries?: number}} InHand
 *     key: makes it safe to put it back twice; undo: of a removal; reservation: its id; lease: seconds;
 *     time, until: when it came into hand, and when its lease ends, milliseconds
 */

let lastId = 0;

/** Add messages, the newest last; the newest come first in the state. */
export function addInHand(state, messages) {
  const added = messages.map((one) => ({ ...one, id: (lastId += 1) })).toReversed();
  return { ...state, inHand: [...added, ...state.inHand] };
}

/** Put a discarded message back in its place. */
export function restoreInHand(state, one) {
  return { ...state, inHand: [...state.inHand, one].toSorted((a, b) => b.id - a.id) };
}

/** @param {number} id of the message in hand, not of its reservation */
export function dropFromHand(state, id) {
  return { ...state, inHand: state.inHand.filter((one) => one.id !== id) };
}

/** A reservation has ended, perhaps in the list of all that are reserved. @param {string} reservation its id */
export function endReservation(state, reservation) {
  return { ...state, inHand: state.inHand.filter((one) => one.reservation !== reservation) };
}

/** A lease was extended. @param {string} reservation its id @param {number} until milliseconds */
export function extendReservation(state, reservation, until) {
  return { ...state, inHand: state.inHand.map((one) => (one.reservation === reservation ? { ...one, until } : one)) };
}
