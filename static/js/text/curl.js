/** The curl command of each operation, quoted for a shell: pure functions. */

const MAX_SHOWN_CHARACTERS = 2000; // a longer message is replaced by the name of a file

const contentType = (type) => `-H 'Content-Type: ${type}'`;
const ACCEPT_NDJSON = "-H 'Accept: application/x-ndjson'";

/** Quote a text for a POSIX shell. */
export function quoted(text) {
  return /^[A-Za-z0-9_/:.=@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * @param {import("../client.js").QueueClient} client
 * @param {boolean} token whether the server requires one
 */
export function curlCommands(client, token) {
  const line = (operation, query, ...options) => {
    const auth = token ? ['-H "Authorization: Bearer $API_TOKEN"'] : [];
    return ["curl", ...auth, ...options, quoted(client.url(operation, query).href)].join(" ");
  };
  /** Return the options for the fields of a form. `-d` does not escape `&`, `+` and `%`, so it is for numbers and names. */
  const form = (fields) =>
    Object.entries(fields)
      .filter(([, value]) => value !== undefined)
      .map(([key, value]) => `${key !== "message" && /^[\w.:-]*$/.test(value) ? "-d" : "--data-urlencode"} ${quoted(`${key}=${value}`)}`);
  const json = (body) => [contentType("application/json"), `-d ${quoted(JSON.stringify(body))}`];
  return {
    push(message, { front = false, delay } = {}) {
      const query = { front, delay: delay || undefined };
      if (Array.isArray(message)) {
        const isShort = JSON.stringify(message).length <= MAX_SHOWN_CHARACTERS;
        if (isShort) return line("push", query, ...json({ messages: message }));
        // A stream of lines can be neither put in front nor delayed.
        if (!front && !delay) return this.pushLines();
        return line("push", query, contentType("application/json"), "-d @messages.json");
      }
      if (typeof message !== "string") return line("push", query, ...json({ message }));
      const isLong = message.length > MAX_SHOWN_CHARACTERS;
      if (isLong) return line("push", query, contentType("text/plain"), "--data-binary @message.txt");
      if (/^[A-Za-z0-9][A-Za-z0-9 .,!?:_-]*$/.test(message)) return line("push", query, ...form({ message }));
      if (/[\0-\x08\x0b-\x1f\x7f]/.test(message)) return line("push", query, ...json({ message }));
      return line("push", query, contentType("text/plain"), `--data-raw ${quoted(message)}`);
    },
    pushLines: (file = "messages.txt", { json = false } = {}) =>
      json
        ? line("push", {}, contentType("application/x-ndjson"), `-T ${quoted(file)}`, "-X POST")
        : line("push", { each: "line" }, contentType("text/plain"), `-T ${quoted(file)}`, "-X POST"),
    pushBytes: (file = "message.bin") =>
      line("push", {}, contentType("application/octet-stream"), `--data-binary ${quoted(`@${file}`)}`),
    pop: ({ max, wait } = {}) => line("pop", { max, wait }, "-X POST"),
    reserve: ({ lease, wait, max } = {}) => line("reserve", { lease, wait, max }, "-X POST"),
    ack: (id) => line("ack", {}, ...form({ id })),
    release(id, { delay, dead, reason } = {}) {
      const options = { delay: delay || undefined, dead: dead ? 1 : undefined, reason: reason || undefined };
      return line("release", {}, ...form({ id, ...options }));
    },
    extend: (id, lease) => line("extend", {}, ...form({ id, lease })),
    read: (position) => line("all", { offset: position, limit: 1, details: true }),
    exportLines: (file, contains) => line("all", { contains }, ACCEPT_NDJSON, `-o ${quoted(file)}`),
    find: (contains, limit) => line("all", { contains, limit, preview: 200 }, ACCEPT_NDJSON),
    reserved: () => line("reserved"),
    delayed: () => line("delayed"),
    remove: (position, message) =>
      JSON.stringify(message).length > MAX_SHOWN_CHARACTERS
        ? line("remove", {}, `-d position=${position}`, "--data-urlencode message@message.txt")
        : line("remove", {}, ...json({ position, message })),
    clear: () => line("clear", {}, "-X POST"),
    restore: (undo) => line("restore", {}, ...form({ undo })),
    move: (to, { max, contains } = {}) => line("move", {}, ...form({ to, max, contains })),
    moveOne: (to, position, message) =>
      JSON.stringify(message).length > MAX_SHOWN_CHARACTERS
        ? line("move", {}, ...form({ to, position }), "--data-urlencode message@message.txt")
        : line("move", {}, ...json({ to, position, message })),
    /** The commands of another queue. */
    of: (name) => curlCommands(client.of(name), token),
    pause: () => line("pause", {}, "-X POST"),
    resume: () => line("resume", {}, "-X POST"),
    setResult: (job, result, { keep } = {}) => line("result", {}, ...json({ job, result, keep })),
    result: (job, { wait } = {}) => line("result", { job, wait }),
    events: () => line("events", {}, "-N"),
  };
}
