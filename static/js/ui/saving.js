/** Files that the browser saves. */
import { QueueError } from "../client.js";

const PART_BYTES = 4 << 20; // kept as one Blob, which a browser can put on its disk
const MAX_BLOB_BYTES = 1 << 30; // of a file that is kept until it is complete
const REVOKE_DELAY_MS = 60_000; // the browser has begun to save a blob by then

/** Let the browser save a file. @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), REVOKE_DELAY_MS);
}

/**
 * Return a file to write to, of any size where the browser can write to one that the visitor chooses; elsewhere it is kept
 * in parts until it is closed, up to 1 GiB. After `abort` nothing is saved.
 * @param {string} name
 * @returns {Promise<{write: (bytes: Uint8Array) => Promise<void>, close: () => Promise<void>, abort: () => Promise<void>}>}
 */
export async function createFile(name) {
  if (!globalThis.showSaveFilePicker) return partsFile((blob) => download(blob, name));
  const chosen = await globalThis.showSaveFilePicker({ suggestedName: name });
  return chosen.createWritable();
}

/** @param {(blob: Blob) => void} save gets the whole file once it is closed */
export function partsFile(save, maximum = MAX_BLOB_BYTES) {
  const parts = []; // Blobs
  let last = []; // bytes that are not in a Blob yet
  let [size, lastSize] = [0, 0];
  return {
    async write(bytes) {
      size += bytes.length;
      lastSize += bytes.length;
      if (size > maximum) throw new QueueError("export_too_large", "The browser cannot keep so much.");
      last.push(bytes);
      if (lastSize < PART_BYTES) return;
      parts.push(new Blob(last));
      [last, lastSize] = [[], 0];
    },
    close: async () => save(new Blob([...parts, ...last])),
    abort: async () => {},
  };
}
