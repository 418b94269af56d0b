#!/usr/bin/env node
// Prints what happens to users, from the feed of Roster.
//
//     npm ci
//     NATS_URL=nats://127.0.0.1:4222 node subscriber.mjs NAME [CREDS] [STATE]
//
// NAME and its credentials (NAME.creds by default) come from `roster subscribers add NAME`. STATE (NAME.revisions
// by default) is a file with the last revision of each user and session.
//
// Events come in order and at least once. An event is acknowledged when it is handled and its revision is on
// disk, so whatever comes again after that is dropped. Between the two lies a gap: killed there, this handles
// the event a second time. Whoever keeps the revision in the database of the effect, in one transaction, has
// no such gap; subscriber.py shows that.

import { closeSync, existsSync, fsyncSync, openSync, readFileSync, renameSync, writeSync } from "node:fs";
import { connect, credsAuthenticator } from "@nats-io/transport-node";
import { jetstream } from "@nats-io/jetstream";

const [name, creds = `${name}.creds`, state = `${name}.revisions`] = process.argv.slice(2);
if (!name) {
  console.error("usage: NATS_URL=nats://HOST:PORT node subscriber.mjs NAME [CREDS] [STATE]");
  process.exit(2);
}
const SNAPSHOTS = "USER_SNAPSHOTS";
const FEED = "USER_EVENTS";

/** The last revision of each aggregate, in a file that only grows while it is open. */
class Revisions {
  constructor(path) {
    this.last = new Map();
    const text = existsSync(path) ? readFileSync(path, "utf8") : "";
    // What comes behind the last line end was cut off by a crash.
    for (const line of text.split("\n").slice(0, -1)) {
      const [aggregate, revision] = line.split(" ");
      this.last.set(aggregate, Number(revision));
    }
    // One line for each, in place of one for each event.
    const draft = openSync(`${path}.new`, "w", 0o600);
    for (const [aggregate, revision] of this.last) writeSync(draft, `${aggregate} ${revision}\n`);
    fsyncSync(draft);
    closeSync(draft);
    renameSync(`${path}.new`, path);
    this.file = openSync(path, "a");
  }

  isNews(event) {
    return !(event.revision <= this.last.get(aggregate(event)));
  }

  record(event) {
    writeSync(this.file, `${aggregate(event)} ${event.revision}\n`);
    fsyncSync(this.file);
    this.last.set(aggregate(event), event.revision);
  }
}

/** What `revision` counts the events of: a user, a session, or the ends of all sessions of a user. */
function aggregate({ type, subject }) {
  if (type === "sessions.v1.all_ended") return `all-sessions.${subject}`;
  return `${type.startsWith("sessions.") ? "session" : "user"}.${subject}`;
}

/** The work itself. It may take its time: the server is told that the event is being worked on. */
async function handle(event) {
  switch (event.type) {
    case "users.v1.registered":
      console.log(event.type, event.subject, event.revision, event.data.changed.imported ? "imported" : "new");
      break;
    case "users.v1.deleted":
      // Roster has erased this user. So must everyone who has a copy.
      console.log(event.type, event.subject, event.revision);
      break;
    case "users.v1.snapshot":
    case "users.v1.profile_changed":
    case "users.v1.roles_changed":
    case "users.v1.disabled":
    case "users.v1.enabled":
    case "users.v1.password_changed":
    case "users.v1.email_verified":
    case "users.v1.email_changed":
    case "sessions.v1.started":
    case "sessions.v1.ended":
    case "sessions.v1.theft_detected":
    case "sessions.v1.all_ended":
      console.log(event.type, event.subject, event.revision);
      break;
    default:
      // There may come new types; they are passed over.
  }
}

let stopping = false;
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => (stopping = true));
const pause = () => new Promise((resolve) => setTimeout(resolve, 1000));

/**
 * Ends the program when the operator has removed the consumer: trying again would never help. No answer at all tells
 * nothing, and a request for the next message of a consumer that is gone may have none.
 */
async function endIfGone(consumer, stream) {
  try {
    await consumer.info();
  } catch (error) {
    if (error.code === 10014 || error.code === 10059) {
      console.error(`the consumer ${name} on ${stream} is gone: ask the operator (roster subscribers list)`);
      process.exit(1);
    }
  }
}

/** Takes one event after the other; from the snapshots until there are none left. */
async function follow(js, stream, revisions) {
  let consumer;
  while (!consumer && !stopping) {
    try {
      consumer = await js.consumers.get(stream, name);
    } catch (error) {
      if (error.code === 10014 || error.code === 10059) {
        if (stream === SNAPSHOTS) return; // It was not added with --from snapshot.
        console.error(`there is no consumer ${name} on ${stream}: ask the operator (roster subscribers list)`);
        process.exit(1);
      }
      console.error("trying again:", error.message);
      await pause();
    }
  }
  let seemsEmpty = stream === SNAPSHOTS;
  while (!stopping) {
    let message;
    try {
      if (seemsEmpty) {
        const { num_pending, num_ack_pending } = await consumer.info();
        if (num_pending + num_ack_pending === 0) return;
        seemsEmpty = false;
      }
      message = await consumer.next({ expires: 5000 });
    } catch (error) {
      // No server, or one that has just started. The connection is made again by itself.
      console.error("trying again:", error.message);
      await pause();
      if (stream === FEED) await endIfGone(consumer, stream);
      continue;
    }
    if (!message) {
      seemsEmpty = stream === SNAPSHOTS;
      if (stream === FEED) await endIfGone(consumer, stream);
      continue;
    }
    // What cannot be read or handled ends the program: nothing is skipped, and it comes first next time.
    if (!message.headers?.has("Roster-Event-Type") && !message.headers?.has("Roster-Command-Id")) {
      // An answer that somebody had the server store here is about nobody, whomever its subject names.
      console.error("passed over, since Roster did not write it:", message.subject);
      message.ack();
      continue;
    }
    const event = message.json();
    if (revisions.isNews(event)) {
      const working = setInterval(() => message.working(), 10_000);
      await handle(event).finally(() => clearInterval(working));
      revisions.record(event);
    }
    // Not confirmed: it comes again, and is known by then.
    await message.ackAck().catch(() => false);
    if (stream === SNAPSHOTS) seemsEmpty = message.info.pending === 0;
  }
}

const connection = await connect({
  servers: (process.env.NATS_URL ?? "nats://127.0.0.1:4222").split(","),
  name: `roster-subscriber-${name}`,
  authenticator: credsAuthenticator(readFileSync(creds)),
  inboxPrefix: `_INBOX_${name}`,
  maxReconnectAttempts: -1,
});
const js = jetstream(connection, { apiPrefix: "feed" });
const revisions = new Revisions(state);
for (const stream of [SNAPSHOTS, FEED]) await follow(js, stream, revisions);
await connection.close();
