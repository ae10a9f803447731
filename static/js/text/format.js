/** Messages, sizes and times as text for people: pure functions. */

const MAX_CHARACTER_UNITS = 64; // of one visible character; a longer one (many accents) may be cut
const encoder = new TextEncoder();

/** @param {import("../client/types.js").Message} message @returns {Uint8Array} */
export function bytesOf(message) {
  if (typeof message === "string") return encoder.encode(message);
  return Uint8Array.from(atob(message.base64), (character) => character.charCodeAt(0));
}

/** Return "json" for an object or array, "bytes" for a message that is not UTF-8, else "text". */
export function kindOf(message) {
  if (typeof message !== "string") return "bytes";
  const text = message.trimStart();
  return /^[[{]/.test(text) && indented(message) !== null ? "json" : "text";
}

/** Return the kind of a message of a size, guessed if the preview is only its beginning. */
export function kindOfPreview(preview, bytes) {
  if (typeof preview !== "string") return "bytes";
  if (bytesOf(preview).length === bytes) return kindOf(preview);
  return /^\s*(\{\s*["}]|\[\s*["\]{[\d-])/.test(preview) ? "json" : "text";
}

/** Return a message on one line, with visible signs for line breaks, tabs and control characters. */
export function oneLine(message) {
  if (typeof message !== "string") return hexOf(bytesOf(message).subarray(0, 64)).line;
  const visible = message.replace(/\r\n|[\n\r\u2028\u2029]/g, " ↵ ").replace(/\t/g, " ⇥ ");
  return visible.replace(/[\0-\x1f\x7f\u202a-\u202e\u2066-\u2069]/g, "�");
}

/** Return the beginning of a text, at most `length` UTF-16 units, without cutting a visible character in two. */
export function headOf(text, length) {
  if (text.length <= length) return text;
  const start = Math.max(0, length - MAX_CHARACTER_UNITS);
  const around = new Intl.Segmenter().segment(text.slice(start, length + MAX_CHARACTER_UNITS));
  const { index } = around.containing(length - start);
  return text.slice(0, index ? start + index : length);
}

/** Indent a JSON text, leaving every token as it is written, numbers too; null if it is not JSON. */
export function indented(text) {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  let [out, depth] = ["", 0];
  const line = () => `\n${"  ".repeat(depth)}`;
  const token = /"(?:[^"\\]|\\.)*"|[^\s[\]{},:"]+|[[\]{},:]/gs;
  let before = "";
  for (const [part] of text.matchAll(token)) {
    if (part === "}" || part === "]") {
      depth -= 1;
      out += before === "{" || before === "[" ? part : line() + part;
    } else {
      if (before === "{" || before === "[") out += line();
      if (part === "{" || part === "[") depth += 1;
      out += part === "," ? `,${line()}` : part === ":" ? ": " : part;
    }
    before = part;
  }
  return out;
}

/** Split a JSON text into pieces, each with its kind: key, string, number, word, or "" for punctuation and space. */
export function* piecesOf(json) {
  let end = 0;
  for (const found of json.matchAll(/("(?:[^"\\]|\\.)*")(?=(:?))|(-?\d[\d.eE+-]*)|true|false|null/gs)) {
    const [text, string, colon, number] = found;
    if (found.index > end) yield { text: json.slice(end, found.index), kind: "" };
    yield { text, kind: string ? (colon ? "key" : "string") : number ? "number" : "word" };
    end = found.index + text.length;
  }
  if (end < json.length) yield { text: json.slice(end), kind: "" };
}

/**
 * Return bytes as hexadecimal: `lines` of 16 with offsets and characters, and as one `line`.
 * @param {Uint8Array} bytes
 */
export function hexOf(bytes) {
  const pairs = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0"));
  const lines = [];
  for (let i = 0; i < pairs.length; i += 16) {
    const characters = Array.from(bytes.subarray(i, i + 16), (b) => (b > 31 && b < 127 ? String.fromCharCode(b) : "."));
    const hex = `${pairs.slice(i, i + 8).join(" ")}  ${pairs.slice(i + 8, i + 16).join(" ")}`;
    lines.push(`${i.toString(16).padStart(8, "0")}  ${hex.padEnd(48)}  ${characters.join("")}`);
  }
  return { lines: lines.join("\n"), line: pairs.join(" ") };
}

/** Return a size for people: 999 B, 1.2 KiB, 1 MiB. @param {number} bytes @param {string} language */
export function sizeOf(bytes, language) {
  const units = ["B", "KiB", "MiB", "GiB"];
  const unit = Math.min(units.length - 1, bytes < 1024 ? 0 : Math.floor(Math.log2(bytes) / 10));
  const number = new Intl.NumberFormat(language, { maximumFractionDigits: unit ? 1 : 0 });
  return `${number.format(bytes / 1024 ** unit)} ${units[unit]}`;
}

/** Return a time for people: the time of day, with the date if it is not today. @param {number} time milliseconds */
export function timeOf(time, language, now = Date.now()) {
  const isToday = new Date(time).toDateString() === new Date(now).toDateString();
  const date = isToday ? {} : { dateStyle: "medium" };
  return new Intl.DateTimeFormat(language, { timeStyle: "medium", ...date }).format(time);
}

const UNITS = [["d", 86_400], ["h", 3600], ["min", 60], ["s", 1]]; // each in seconds

/** Return a duration for people: 42 s, 5 min 3 s, 2 h 10 min, 3 d. @param {number} seconds 0 or more */
export function durationOf(seconds, language) {
  const number = new Intl.NumberFormat(language);
  const largest = UNITS.findIndex(([, size]) => size === 1 || seconds >= size);
  let rest = Math.floor(seconds);
  const parts = UNITS.slice(largest, largest + 2).map(([unit, size]) => {
    const whole = Math.floor(rest / size);
    rest %= size;
    return { whole, text: `${number.format(whole)} ${unit}` };
  });
  return parts.filter(({ whole }, i) => i === 0 || whole > 0).map(({ text }) => text).join(" ");
}

/** Return the lines of a text without empty ones: each of them can be a message. @param {string} text */
export function linesOf(text) {
  return text.split("\n").map((line) => line.replace(/\r$/, "")).filter((line) => line !== "");
}

/** Return whether every line of a text is a JSON value, as in an exported queue. @param {string} text */
export function areJsonLines(text) {
  const lines = linesOf(text);
  try {
    lines.forEach((line) => JSON.parse(line));
    return lines.length > 0;
  } catch {
    return false;
  }
}
