/** Doing an operation exactly once, although a response may be lost. */

const MAX_ATTEMPTS = 3;
const RETRY_DELAY_MS = 700;

/** Error codes after which the operation may have been done. With "no_json", a proxy has responded. */
export const LOST_CODES = new Set(["offline", "outcome_unknown", "no_json"]);

/** Return a new Idempotency-Key. */
export function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * Do something, and retry it with the same Idempotency-Key if the response is lost.
 * @template T @param {(key: string) => Promise<T>} work @returns {Promise<T>}
 */
export async function retryWithKey(work, key = newKey(), delay = RETRY_DELAY_MS) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work(key);
    } catch (error) {
      if (attempt === MAX_ATTEMPTS || !LOST_CODES.has(error.code)) throw error;
      await new Promise((done) => setTimeout(done, delay));
    }
  }
}
