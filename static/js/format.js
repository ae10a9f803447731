/** How messages are shown: pure functions from a message to text. */

const encoder = new TextEncoder();

/** @param {import("./client.js").Message} message @returns {Uint8Array} */
export function bytesOf(message) {
  if (typeof message === "string") return encoder.encode(message);
  return Uint8Array.from(atob(message.base64), (character) => character.charCodeAt(0));
}

/** "json" for an object or array, "bytes" for what is not UTF-8, else "text". */
export function kindOf(message) {
  if (typeof message !== "string") return "bytes";
  const text = message.trimStart();
  return /^[[{]/.test(text) && indented(message) !== null ? "json" : "text";
}

/** What kind a message looks like from its beginning only. */
export function kindOfPreview(preview) {
  if (typeof preview !== "string") return "bytes";
  return /^\s*(\{\s*["}]|\[\s*["\]{[\d-])/.test(preview) ? "json" : "text";
}

/** A message on one line: control characters become visible. */
export function oneLine(message) {
  if (typeof message !== "string") return hexOf(bytesOf(message).subarray(0, 64)).line;
  return message.replace(/\r\n|[\n\r\u2028\u2029]/g, " ↵ ").replace(/\t/g, " ⇥ ").replace(/[\0-\x1f\x7f\u202a-\u202e\u2066-\u2069]/g, "�");
}

/** The JSON text with indentation, every token as it was written (numbers too); null if it is no JSON. */
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

/** The pieces of a JSON text with what each is: key, string, number, word, or "" between them. */
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

/** Bytes as hexadecimal: `lines` of 16 with offset and characters, and as one `line`. @param {Uint8Array} bytes */
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

/** A size for people: 999 B, 1.2 kB, 1 MiB. @param {number} bytes @param {string} language */
export function sizeOf(bytes, language) {
  const units = ["B", "KiB", "MiB", "GiB"];
  const unit = Math.min(units.length - 1, bytes < 1024 ? 0 : Math.floor(Math.log2(bytes) / 10));
  const number = new Intl.NumberFormat(language, { maximumFractionDigits: unit ? 1 : 0 });
  return `${number.format(bytes / 1024 ** unit)} ${units[unit]}`;
}
