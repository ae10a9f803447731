/** A file that is kept in the browser until it is complete. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { partsFile } from "../../static/js/ui/saving.js";

test("the parts of a file are saved as one, in order", async () => {
  let saved;
  const file = partsFile((blob) => (saved = blob));
  const piece = new Uint8Array(3 << 20);
  for (const value of [1, 2, 3]) await file.write(piece.slice().fill(value));
  assert.equal(saved, undefined);
  await file.close();
  const bytes = new Uint8Array(await saved.arrayBuffer());
  assert.deepEqual([bytes.length, bytes[0], bytes[3 << 20], bytes.at(-1)], [9 << 20, 1, 2, 3]);
});

test("a file that is too large for the browser is refused", async () => {
  const file = partsFile(() => assert.fail("saved"), 5);
  await file.write(new Uint8Array(5));
  await assert.rejects(file.write(new Uint8Array(1)), { code: "export_too_large" });
  await file.abort();
});
