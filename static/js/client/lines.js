/** Reading files in slices of whole lines. */
import { QueueError } from "./errors.js";

const SLICE_BYTES = 1 << 20; // sent in one request
const MAX_LINE_BYTES = 16 << 20; // a longer line is sent in parts, which the server refuses
const NEWLINE = 10;

/**
 * Return the bytes of the whole lines that begin at `start`, about one slice.
 * @param {Blob} blob @param {number} start @returns {Promise<Uint8Array<ArrayBuffer>>} rejects like `bytesOf`
 */
export async function nextLines(blob, start, slice = SLICE_BYTES) {
  for (let size = slice; ; size *= 2) {
    const bytes = await bytesOf(blob.slice(start, start + size));
    const end = start + bytes.length === blob.size ? bytes.length : bytes.lastIndexOf(NEWLINE) + 1;
    if (end > 0) return bytes.subarray(0, end);
    if (size >= MAX_LINE_BYTES) return bytes;
  }
}

/**
 * Return the bytes of a blob.
 * @param {Blob} blob @returns {Promise<Uint8Array<ArrayBuffer>>}
 *     rejects with the QueueError "file" if the file was changed or deleted since it was chosen
 */
export async function bytesOf(blob) {
  try {
    return new Uint8Array(await blob.arrayBuffer());
  } catch (/** @type {any} */ error) {
    throw new QueueError("file", error.message);
  }
}
