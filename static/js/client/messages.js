/** What a JavaScript value is as a message: text, bytes or JSON. A value that JSON would silently change is refused. */
import { QueueError } from "./errors.js";
import { bytesOf } from "./lines.js";

const ENCODED_AT_ONCE = 0x6000; // bytes, a multiple of 3, so that the pieces of base64 can be joined

/**
 * Return the bytes of a buffer, a view of one (such as a Uint8Array) or a Blob; undefined for any other value.
 * @param {any} value @returns {Promise<Uint8Array<ArrayBuffer> | undefined>} rejects like `bytesOf`
 */
export async function bytesIn(value) {
  if (value instanceof Blob) return bytesOf(value);
  if (value instanceof ArrayBuffer) return new Uint8Array(value);
  if (!ArrayBuffer.isView(value)) return undefined;
  return new Uint8Array(new Uint8Array(value.buffer, value.byteOffset, value.byteLength)); // not of a shared buffer
}

/**
 * Return the body that is these very bytes.
 * @param {any} value @returns {Promise<Blob>} rejects with the QueueError "bad_message" if it is not bytes
 */
export async function bytesBody(value) {
  const bytes = await bytesIn(value);
  if (!bytes) throw new QueueError("bad_message", `Expected bytes or a Blob, not ${nameOf(value)}.`);
  return blobOf(bytes);
}

/** @param {Uint8Array<ArrayBuffer>} bytes */
const blobOf = (bytes) => new Blob([bytes], { type: "application/octet-stream" });

/**
 * Return the body of a push: of one message, or of a list of them.
 * @param {any} message @returns {Promise<Blob | object>}
 */
export async function pushBody(message) {
  const bytes = await bytesIn(message);
  if (bytes) return blobOf(bytes);
  if (Array.isArray(message)) return { messages: await Promise.all(Array.from(message, (one) => messageValue(one))) };
  return { message: await messageValue(message) };
}

/**
 * Return the value of a message or result in a JSON body: {base64} of bytes, any other value as it is.
 * @param {any} value @returns {Promise<any>}
 */
export async function messageValue(value) {
  if (value === undefined || typeof value?.then === "function") throw changed("message", value); // a promise
  const bytes = await bytesIn(value);
  if (!bytes) return value;
  let text = "";
  for (let start = 0; start < bytes.length; start += ENCODED_AT_ONCE) {
    text += btoa(String.fromCharCode(...bytes.subarray(start, start + ENCODED_AT_ONCE)));
  }
  return { base64: text };
}

/**
 * Return the JSON text of a body, whose own fields may be undefined: options left out.
 * @param {object} body @returns {string} throws the QueueError "bad_message" if JSON cannot hold a value in it
 */
export function jsonText(body) {
  try {
    return JSON.stringify(body, function strict(key, value) {
      const isOmitted = this === body && this[key] === undefined;
      if (!isOmitted && !isKept(this[key], value)) throw changed(key, this[key]);
      return value;
    });
  } catch (/** @type {any} */ error) {
    if (error instanceof QueueError) throw error;
    throw new QueueError("bad_message", `JSON cannot hold the message: ${error.message}`); // it contains itself
  }
}

/** Return whether JSON keeps a value. @param {any} original @param {any} value what its toJSON, if any, returned */
function isKept(original, value) {
  if (original instanceof ArrayBuffer || ArrayBuffer.isView(original)) return false; // also a Buffer, which has toJSON
  if (value === null) return original === null; // not an invalid Date
  if (typeof value === "number") return Number.isFinite(value);
  if (typeof value !== "object") return typeof value === "string" || typeof value === "boolean";
  if (Array.isArray(value)) return true;
  const prototype = Object.getPrototypeOf(value);
  const isPlain = prototype === null || Object.getPrototypeOf(prototype) === null;
  return isPlain && Object.getOwnPropertySymbols(value).length === 0;
}

/** @param {string} key @param {any} value */
function changed(key, value) {
  const sentence = `JSON cannot hold ${nameOf(value)} (at ${JSON.stringify(key)}).`;
  const isObject = typeof value === "object" && value !== null;
  return new QueueError("bad_message", isObject ? `${sentence} Convert it to a plain object or a text.` : sentence);
}

/** Return what an error calls a value: the name of its class, or the value itself. @param {any} value */
function nameOf(value) {
  if (typeof value === "function") return "a function";
  if (typeof value !== "object" || value === null) return typeof value === "bigint" ? `${value}n` : String(value);
  return `an object of class ${value.constructor?.name ?? "unknown"}`;
}
