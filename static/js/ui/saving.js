/** Files that the browser saves. */
import { QueueError } from "../client.js";

const PART_BYTES = 4 << 20; // kept as one Blob, which browsers can move to disk
const MAX_BLOB_BYTES = 1 << 30; // of a file that is kept in the browser until it is complete
const REVOKE_DELAY_MS = 60_000; // by then the browser is saving the blob

/** Let the browser save a file. @param {Blob} blob @param {string} name */
export function download(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), REVOKE_DELAY_MS);
}

/**
 * Return a file to write to. Where the browser can write to a file that the visitor chooses, its size is unlimited;
 * elsewhere the file is kept in the browser until it is closed, up to 1 GiB. After `abort`, nothing is saved.
 * @param {string} name
 * @returns {Promise<{write: (bytes: Uint8Array) => Promise<void>, close: () => Promise<void>, abort: () =>
 *     Promise<void>}>}
 */
export async function createFile(name) {
  if (!globalThis.showSaveFilePicker) return partsFile((blob) => download(blob, name));
  const chosen = await globalThis.showSaveFilePicker({ suggestedName: name });
  return chosen.createWritable();
}

/**
 * Return a file that is kept in parts until it is closed.
 * @param {(blob: Blob) => void} save receives the whole file
 */
export function partsFile(save, maximum = MAX_BLOB_BYTES) {
  const parts = []; // Blobs
  let last = []; // bytes that are not in a Blob yet
  let [size, lastSize] = [0, 0];
  return {
    async write(bytes) {
      size += bytes.length;
      lastSize += bytes.length;
      if (size > maximum) throw new QueueError("export_too_large", "The file is too large for the browser.");
      last.push(bytes);
      if (lastSize < PART_BYTES) return;
      parts.push(new Blob(last));
      [last, lastSize] = [[], 0];
    },
    close: async () => save(new Blob([...parts, ...last])),
    abort: async () => {},
  };
}
