const SLOW_MS = 3000; // after this the page says that the server is slow

/**
 * Return a function that does the work of an action: it shows the curl command and reports a failure.
 * @param {{notices: object, showCommand: (command: string) => void, t: (key: string, values?: object) => string}} parts
 */
export function createRun({ notices, showCommand, t }) {
  /**
   * Resolve with the result of `work`, undefined if it failed.
   * @param {string} command "": none to show @param {() => Promise<any>} work
   * @param {boolean} isLongPoll whether the server is expected to take its time
   */
  return async function run(command, work, isLongPoll = false) {
    if (command) showCommand(command);
    const settled = isLongPoll ? () => {} : notices.sayAfter(SLOW_MS, t("slow"));
    try {
      const result = await work();
      notices.clear();
      return result;
    } catch (error) {
      if (error.code !== "aborted") notices.fail(error);
      return undefined;
    } finally {
      settled();
    }
  };
}
