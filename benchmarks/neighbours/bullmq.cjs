// BullMQ's program: as in programs.py, in Node. NODE_PATH names the folder of its packages.
const readline = require("node:readline");
const { Queue, Worker } = require("bullmq");
const { Redis } = require("ioredis");

const jobs = Number(process.env.JOBS);
const connection = new Redis(process.env.REDIS_URL, { maxRetriesPerRequest: null });
const report = (value) => process.stdout.write(`${value}\n`);
let number = 0;
let first;

async function job({ data }) {
  const now = process.hrtime.bigint();
  if (data.sent !== "0") {
    report(now - BigInt(data.sent));
    return;
  }
  first ??= now;
  if (++number === jobs) {
    report(((jobs - 1) / Number(now - first)) * 1e9);
  }
}

async function main() {
  if (process.argv[2] === "work") {
    new Worker("jobs", job, { connection, concurrency: 16 });
    return;
  }
  const queue = new Queue("jobs", { connection });
  if (process.argv[2] === "fill") {
    for (let done = 0; done < jobs; done += 1000) {
      await queue.addBulk(Array(1000).fill({ name: "job", data: { sent: "0" } }));
    }
  } else {
    for await (const _ of readline.createInterface({ input: process.stdin })) {
      await queue.add("job", { sent: String(process.hrtime.bigint()) });
    }
  }
  await queue.close();
  connection.disconnect();
}

main();
