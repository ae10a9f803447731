/**
 * A failure. `code` is stable: the server's own, or one of this client's, for which there is no `status`: "offline" (no
 * response), "aborted" or "timeout" (by the caller's signal), "file" (unreadable), "bad_message" (JSON cannot hold it),
 * "bad_base" (not the address of an app). "no_json" is a response that did not come from
 * the server, such as a proxy's error page.
 */
export class QueueError extends Error {
  /**
   * @param {string} code @param {string} message
   * @param {number} status of HTTP, 0 without a response @param {any} answer
   */
  constructor(code, message, status = 0, answer = {}) {
    super(message);
    this.name = "QueueError";
    this.code = code;
    this.status = status;
    this.answer = answer;
  }

  /** Return a copy of this error with more fields in its answer. @param {object} details */
  withDetails(details) {
    return new QueueError(this.code, this.message, this.status, { ...this.answer, ...details });
  }
}
