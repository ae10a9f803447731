/**
 * Texts, numbers and plural forms in the page's language.
 * @param {Record<string, string | Record<string, string>>} catalogue the same file that the templates use
 * @param {string} language
 */
export function translator(catalogue, language) {
  const plural = new Intl.PluralRules(language);
  const numbers = new Intl.NumberFormat(language);
  const n = (number) => numbers.format(number);

  /** The text of a key; a number `n` chooses the plural form. Numbers among the values are written for people. */
  function t(key, values = {}) {
    let text = catalogue[key];
    if (text === undefined) return key;
    if (typeof text === "object") text = text[plural.select(values.n)] ?? text.other;
    return text.replace(/\{(\w+)\}/g, (whole, name) => {
      const value = values[name];
      return value === undefined ? whole : typeof value === "number" ? n(value) : String(value);
    });
  }

  /** The text of a failure: by its code, else the app's own sentence. */
  const failure = (error) => catalogue[`error.${error.code}`] ?? (error.message || String(error.code));

  return { t, n, failure, language };
}
