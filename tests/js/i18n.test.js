/** Texts, plural forms and numbers in the three languages. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { translator } from "../../static/js/text/i18n.js";

const load = (language) => JSON.parse(readFileSync(new URL(`../../translations/${language}.json`, import.meta.url)));

test("every language uses its plural forms", () => {
  const count = (language, n) => translator(load(language), language).t("pushed", { n });
  assert.deepEqual([0, 1, 2, 1000].map((n) => count("en", n)), ["0 messages pushed", "1 message pushed", "2 messages pushed", "1,000 messages pushed"]);
  assert.deepEqual([0, 1, 2, 1000].map((n) => count("pt-BR", n)), ["0 mensagens enviadas", "1 mensagem enviada", "2 mensagens enviadas", "1.000 mensagens enviadas"]);
  assert.deepEqual([0, 1, 2].map((n) => count("es", n)), ["0 mensajes enviados", "1 mensaje enviado", "2 mensajes enviados"]);
  assert.equal(count("es", 1_000_000), "1.000.000 de mensajes enviados");
});

test("values are inserted unchanged and are not expanded again", () => {
  const { t } = translator({ a: "{x} and {y} and {z}" }, "en");
  assert.equal(t("a", { x: "{y}", y: "<b>$&</b>" }), "{y} and <b>$&</b> and {z}");
});

test("an error is translated by its code, or else shown with its own message", () => {
  const { failure } = translator(load("es"), "es");
  assert.equal(failure({ code: "redis_unavailable", message: "Redis is unavailable." }), "Redis no está disponible; no se cambió nada.");
  assert.equal(failure({ code: "brand_new", message: "Something new." }), "Something new.");
});

test("the text of an error can name a limit", () => {
  const { failure } = translator(load("en"), "en");
  const text = failure({ code: "message_too_large", message: "" }, { max: "1 MiB" });
  assert.equal(text, "The message is too large (limit: 1 MiB).");
});
