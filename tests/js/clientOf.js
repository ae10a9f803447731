/** A client whose requests a test answers, for tests that replace `fetch`. */
import { QueueClient } from "../../static/js/client.js";

export const BASE = "http://queue.test/";

/** Return a client that receives these answers, one per request; `asked` has the requests. */
export function clientOf(...answers) {
  const asked = [];
  const fetch = async (url, options = {}) => {
    const body = options.body instanceof Blob ? await options.body.text() : options.body;
    asked.push({ method: options.method ?? "GET", url: url.href.slice(BASE.length - 1), headers: options.headers, body });
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    return new Response(JSON.stringify(answer.body ?? answer), { status: answer.status ?? 200 });
  };
  return { asked, client: new QueueClient("jobs", { base: BASE, fetch }) };
}
