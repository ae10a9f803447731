/** Comparing messages with previews, byte by byte: a preview may end within a character. */
import { bytesOf } from "../text/format.js";

/**
 * Return whether a whole message can be the one with this preview.
 * @param {import("../client/types.js").Message} message
 */
export function fits(message, { preview, bytes }) {
  const whole = bytesOf(message);
  return whole.length === bytes && startsAlike(whole, bytesOf(preview), bytesOf(preview).length);
}

/** Return whether two previews, one of which may be longer, can be of the same message. */
export function canBeSame(one, other) {
  const [a, b] = [bytesOf(one.preview), bytesOf(other.preview)];
  return one.bytes === other.bytes && startsAlike(a, b, Math.min(a.length, b.length));
}

function startsAlike(a, b, length) {
  return b.subarray(0, length).every((byte, i) => byte === a[i]);
}
