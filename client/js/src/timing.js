/** Waiting, until a signal ends it. */

const MAX_TIMER_MS = 2 ** 31 - 1; // a longer timer would fire at once

/** Resolve after a time, or once a signal is aborted. @param {number} seconds @param {AbortSignal} signal */
export function sleep(seconds, signal) {
  return new Promise((/** @type {(value?: undefined) => void} */ resolve) => {
    if (signal.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, Math.min(seconds * 1000, MAX_TIMER_MS));
    signal.addEventListener("abort", end);
  });
}

/**
 * Make a request that ends after a time, or once a signal is aborted.
 * @template T @param {number} seconds @param {AbortSignal} signal @param {(signal: AbortSignal) => Promise<T>} request
 * @returns {Promise<T>}
 */
export async function within(seconds, signal, request) {
  const ended = new AbortController(); // AbortSignal.any would be held by `signal` after the request
  const end = () => ended.abort();
  const timer = setTimeout(end, seconds * 1000);
  signal.addEventListener("abort", end);
  if (signal.aborted) end();
  try {
    return await request(ended.signal);
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
  }
}
