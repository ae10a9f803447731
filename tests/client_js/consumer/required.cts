/** A program in TypeScript, with `require`. */
import seequeue = require("seequeue");

const { QueueClient, QueueError, Reject } = seequeue;
const queue: seequeue.QueueClient = new QueueClient("typed-required");

async function main() {
  await queue.push({ n: 1 });
  const controller = new AbortController();
  const texts: string[] = [];
  const handler = (message: seequeue.QueueMessage) => {
    texts.push(message.text);
    controller.abort();
    throw new Reject("seen");
  };
  await queue.work(handler, { signal: controller.signal, onReject: () => {} });
  const dead = await queue.of("typed-required.dead").pop();
  const code = await queue.restore("none").catch((error: unknown) => (error instanceof QueueError ? error.code : ""));
  console.log(JSON.stringify([texts, dead, code]));
}

void main();
