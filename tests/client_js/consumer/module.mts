/** A program in TypeScript, with `import`. Each @ts-expect-error is a mistake that the types must show. */
import { QueueClient, QueueError, QueueMessage, Reject } from "seequeue";
import type { Counts, Message, Reservation, WorkOptions } from "seequeue";

const queue = new QueueClient("typed-module");

const pushed: number = (await queue.push(["a", { n: 1 }])).count;
const popped: Message | null = await queue.pop();
const list: Message[] = await queue.pop({ max: 0 + 1, wait: 1 });
const reserved: Reservation | null = await queue.reserve();
const reservations: Reservation[] = await queue.reserve({ max: 3, by: "typed" });
const either: Reservation | Reservation[] | null = await queue.reserve({ max: process.env.SEEQUEUE_URL ? 1 : undefined });
const counts: Counts = await queue.count();
export const mistakes = async () => {
  // @ts-expect-error: it may be null
  (await queue.reserve()).id;
  // @ts-expect-error: it is a list
  (await queue.reserve({ max: 2 })).id;
  // @ts-expect-error: it may be null
  (await queue.pop()).length;
  // @ts-expect-error: a lease is a number
  await queue.reserve({ lease: "30" });
  // @ts-expect-error: without batch, it is one message
  await queue.work((messages: QueueMessage[]) => messages.length);
  // @ts-expect-error: with batch, it is a list
  await queue.work((message) => message.text, { batch: 2 });
  // @ts-expect-error: there is no such option
  await queue.work(() => {}, { retries: 3 });
  // @ts-expect-error: for the client itself
  queue.http.get("/");
};

const controller = new AbortController();
const options: WorkOptions = { concurrency: 2, lease: 30, signal: controller.signal, retryDelay: (deliveries) => deliveries };
await queue.push([{ n: 2 }, "not JSON"]);
const numbers: number[] = [];
await queue.work(
  async (message) => {
    const task: { n: number } = message.json();
    numbers.push(task.n, message.deliveries, message.bytes.length);
    if (message.queue !== "typed-module") throw new Reject(message.text);
  },
  { ...options, onReject: (message, error) => (error instanceof Reject && message.isLastDelivery ? {} : controller.abort()) },
);

const batches = new AbortController();
await queue.of("typed-module.dead").work((messages) => (batches.abort(), messages.map(({ text }) => text)), { batch: 10, signal: batches.signal });
const code = await queue.work(() => {}, { lease: 1e9 }).catch((error: unknown) => (error instanceof QueueError ? error.code : ""));
console.log(JSON.stringify([pushed, popped, list, reserved, reservations, either, counts.count, numbers, code]));
