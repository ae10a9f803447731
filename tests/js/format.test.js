/** Texts for people: kinds of messages, one line, indented JSON, hexadecimal, sizes, times, lines. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { areJsonLines, bytesOf, durationOf, headOf, hexOf, indented, kindOf, kindOfPreview, linesOf, oneLine, piecesOf, sizeOf, timeOf } from "../../static/js/text/format.js";

test("a text is cut between visible characters", () => {
  assert.equal(headOf("short", 5), "short");
  assert.equal(headOf("ab😀c", 3), "ab");
  assert.equal(headOf("abe\u0301c", 3), "ab");
  assert.equal(headOf("a👩‍👩‍👧b", 6), "a");
  assert.equal(headOf("x".repeat(99), 9), "x".repeat(9));
  assert.equal(headOf(`e${"\u0301".repeat(99)}`, 9).length, 9); // never empty
});

test("JSON is indented, and every number stays as it is written", () => {
  const text = '{"a":1.10,"big":12345678901234567890123,"s":"x, {y}: \\"z\\"","l":[1,[],{}],"e":{"n":null}}';
  assert.equal(
    indented(text),
    `{
  "a": 1.10,
  "big": 12345678901234567890123,
  "s": "x, {y}: \\"z\\"",
  "l": [
    1,
    [],
    {}
  ],
  "e": {
    "n": null
  }
}`,
  );
  assert.deepEqual(JSON.parse(indented(text)), JSON.parse(text));
  assert.equal(indented("{not json"), null);
});

test("pieces of JSON have the right kind and lose nothing, even if the text is cut off", () => {
  const json = indented('{"a":"x: \\"y\\"","b":[-1.5e3,true,null]}');
  const pieces = [...piecesOf(json)];
  assert.equal(pieces.map(({ text }) => text).join(""), json);
  assert.deepEqual(
    pieces.filter(({ kind }) => kind).map(({ text, kind }) => `${kind} ${text}`),
    ['key "a"', 'string "x: \\"y\\""', 'key "b"', "number -1.5e3", "word true", "word null"],
  );
  for (let cut = 0; cut <= json.length; cut += 1) {
    assert.equal([...piecesOf(json.slice(0, cut))].map(({ text }) => text).join(""), json.slice(0, cut));
  }
});

test("a megabyte of JSON is indented quickly", () => {
  const value = Array.from({ length: 20_000 }, (_, i) => ({ number: i, text: "something, [with] {marks}" }));
  assert.deepEqual(JSON.parse(indented(JSON.stringify(value))), value);
});

test("objects and arrays are JSON, invalid UTF-8 is bytes, everything else is text", () => {
  assert.equal(kindOf(' {"a": 1}'), "json");
  assert.equal(kindOf("[1,2]"), "json");
  assert.equal(kindOf("12"), "text");
  assert.equal(kindOf("{oops"), "text");
  assert.equal(kindOf({ base64: "/w==" }), "bytes");
  assert.equal(kindOfPreview('{"a": 1, "cut'), "json");
  assert.equal(kindOfPreview("[x]"), "text");
  assert.equal(kindOfPreview({ base64: "/w==" }), "bytes");
});

test("a row is one line, in which line breaks and control characters are visible and nothing reverses the text", () => {
  assert.equal(oneLine("a\nb\r\nc\td"), "a ↵ b ↵ c ⇥ d");
  assert.equal(oneLine("\u0000\u202e\u2066x"), "���x");
  assert.equal(oneLine({ base64: btoa("\xff\x00A") }), "ff 00 41");
  assert.equal(oneLine("héllo 👍🏽"), "héllo 👍🏽");
});

test("hexadecimal lines show the offset, sixteen bytes and their characters", () => {
  const bytes = Uint8Array.from({ length: 18 }, (_, i) => i + 60);
  const { lines, line } = hexOf(bytes);
  assert.equal(
    lines,
    "00000000  3c 3d 3e 3f 40 41 42 43  44 45 46 47 48 49 4a 4b  <=>?@ABCDEFGHIJK\n" +
      `00000010  ${"4c 4d".padEnd(48)}  LM`,
  );
  assert.equal(line.slice(0, 8), "3c 3d 3e");
});

test("the bytes of a text are its UTF-8, and those of base64 are decoded", () => {
  assert.deepEqual([...bytesOf("é")], [0xc3, 0xa9]);
  assert.deepEqual([...bytesOf({ base64: "/wA=" })], [255, 0]);
});

test("sizes are short and use the language's number format", () => {
  assert.equal(sizeOf(5, "en"), "5 B");
  assert.equal(sizeOf(1536, "pt-BR"), "1,5 KiB");
  assert.equal(sizeOf(1 << 20, "es"), "1 MiB");
});

test("every line but the empty ones is a message, without a CR at its end", () => {
  assert.deepEqual(linesOf("a\r\n\n b \nc"), ["a", " b ", "c"]);
});

test("durations and times for people", () => {
  const shown = (seconds) => durationOf(seconds, "en");
  assert.deepEqual([0, 42.9, 60, 303, 7800, 259_200, 2_592_000].map(shown), ["0 s", "42 s", "1 min", "5 min 3 s", "2 h 10 min", "3 d", "30 d"]);
  const noon = new Date(2026, 4, 1, 12).getTime();
  assert.match(timeOf(noon + 65_000, "en", noon), /^12:01:05.PM$/u);
  assert.match(timeOf(noon + 86_400_000, "en", noon), /May 2, 2026.*12:00:00.PM/u);
});

test("the kind of a whole message is known, and that of a longer one is guessed", () => {
  assert.equal(kindOfPreview('{"a":1,}', 8), "text");
  assert.equal(kindOfPreview('{"a":1}', 7), "json");
  assert.equal(kindOfPreview('{"a":1,', 900), "json");
});

test("lines of JSON are distinguished from lines of text", () => {
  assert.ok(areJsonLines('"a"\n{"b":1}\n\n'));
  assert.ok(!areJsonLines('"a"\n{"b":'));
  assert.ok(!areJsonLines('"a"\nplain\n'));
  assert.ok(!areJsonLines(""));
});
