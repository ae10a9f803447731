/**
 * Return functions for texts, numbers and plural forms in the page's language.
 * @param {Record<string, string | Record<string, string>>} catalogue the one that the templates use
 * @param {string} language
 */
export function translator(catalogue, language) {
  const plural = new Intl.PluralRules(language);
  const numbers = new Intl.NumberFormat(language);
  const n = (number) => numbers.format(number);

  /**
   * Return the text of a key. `n` chooses the plural form; zero takes "other", although CLDR says "one" in Portuguese.
   * Numbers among the values are formatted.
   */
  function t(key, values = {}) {
    let text = catalogue[key];
    if (text === undefined) return key;
    if (typeof text === "object") text = text[values.n === 0 ? "other" : plural.select(values.n)] ?? text.other;
    return text.replace(/\{(\w+)\}/g, (whole, name) => {
      const value = values[name];
      return value === undefined ? whole : typeof value === "number" ? n(value) : String(value);
    });
  }

  /** Return the text for an error code, or else the sentence of the error itself. */
  function failure(error, values = {}) {
    const key = `error.${error.code}`;
    return key in catalogue ? t(key, values) : error.message || String(error.code);
  }

  return { t, n, failure, language };
}
