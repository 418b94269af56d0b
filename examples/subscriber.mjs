#!/usr/bin/env node
// Prints what happens to users, from Roster's feed.
//
//     npm ci
//     NATS_URL=nats://127.0.0.1:4222 node subscriber.mjs NAME [CREDS] [STATE]
//
// NAME and its credentials (NAME.creds by default) come from `roster subscribers add NAME`. STATE (NAME.revisions
// by default) is a file with the last revision of each user and session.
//
// Events are delivered in order and at least once. An event is acknowledged once it is handled and its revision is on
// disk; later deliveries of it are dropped. If the process is killed between the two, it handles the event a second
// time. To close this gap, store the revision in the same database transaction as the effect, as subscriber.py does.

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

/** The last revision of each aggregate, in a file that is only appended to while it is open. */
class Revisions {
  constructor(path) {
    this.last = new Map();
    const text = existsSync(path) ? readFileSync(path, "utf8") : "";
    // Text after the last line end was cut off by a crash.
    for (const line of text.split("\n").slice(0, -1)) {
      const [aggregate, revision] = line.split(" ");
      this.last.set(aggregate, Number(revision));
    }
    // Compact the file: one line per aggregate instead of one per event.
    const draft = openSync(`${path}.new`, "w", 0o600);
    for (const [aggregate, revision] of this.last) writeSync(draft, `${aggregate} ${revision}\n`);
    fsyncSync(draft);
    closeSync(draft);
    renameSync(`${path}.new`, path);
    this.file = openSync(path, "a");
  }

  isNew(event) {
    return !(event.revision <= this.last.get(aggregate(event)));
  }

  record(event) {
    writeSync(this.file, `${aggregate(event)} ${event.revision}\n`);
    fsyncSync(this.file);
    this.last.set(aggregate(event), event.revision);
  }
}

/** What `revision` counts events of: a user, a session, or the logouts of all sessions of a user. */
function aggregate({ type, subject }) {
  if (type === "sessions.v1.all_ended") return `all-sessions.${subject}`;
  return `${type.startsWith("sessions.") ? "session" : "user"}.${subject}`;
}

/** The work itself. It may take long: `follow` tells the server that the event is in progress. */
async function handle(event) {
  switch (event.type) {
    case "users.v1.registered":
      console.log(event.type, event.subject, event.revision, event.data.changed.imported ? "imported" : "new");
      break;
    case "users.v1.deleted":
      // Roster has erased this user, so every subscriber must erase its copy too.
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
      // New types may be added; they are ignored.
  }
}

let stopping = false;
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => (stopping = true));
const pause = () => new Promise((resolve) => setTimeout(resolve, 1000));

/**
 * Exits if the operator has removed the consumer, since retrying would never help. A missing answer proves nothing: a
 * request for the next message may get none when the consumer is gone.
 */
async function exitIfRemoved(consumer, stream) {
  try {
    await consumer.info();
  } catch (error) {
    if (error.code === 10014 || error.code === 10059) {
      console.error(`the consumer ${name} on ${stream} is gone: ask the operator (roster subscribers list)`);
      process.exit(1);
    }
  }
}

/** Handles one event after the other; from the snapshots, until none are left. */
async function follow(js, stream, revisions) {
  let consumer;
  while (!consumer && !stopping) {
    try {
      consumer = await js.consumers.get(stream, name);
    } catch (error) {
      if (error.code === 10014 || error.code === 10059) {
        if (stream === SNAPSHOTS) return; // The subscriber was not added with --from snapshot.
        console.error(`there is no consumer ${name} on ${stream}: ask the operator (roster subscribers list)`);
        process.exit(1);
      }
      console.error("retrying:", error.message);
      await pause();
    }
  }
  let maybeEmpty = stream === SNAPSHOTS;
  while (!stopping) {
    let message;
    try {
      if (maybeEmpty) {
        const { num_pending, num_ack_pending } = await consumer.info();
        if (num_pending + num_ack_pending === 0) return;
        maybeEmpty = false;
      }
      message = await consumer.next({ expires: 5000 });
    } catch (error) {
      // No server, or one that has just started. The client reconnects by itself.
      console.error("retrying:", error.message);
      await pause();
      if (stream === FEED) await exitIfRemoved(consumer, stream);
      continue;
    }
    if (!message) {
      maybeEmpty = stream === SNAPSHOTS;
      if (stream === FEED) await exitIfRemoved(consumer, stream);
      continue;
    }
    // An event that cannot be read or handled ends the program. Nothing is skipped: it comes first next time.
    if (!message.headers?.has("Roster-Event-Type") && !message.headers?.has("Roster-Command-Id")) {
      // A client can have the server store an answer here. It is not an event, whatever its subject says.
      console.error("ignored a message that Roster did not write:", message.subject);
      message.ack();
      continue;
    }
    const event = message.json();
    if (revisions.isNew(event)) {
      const inProgress = setInterval(() => message.working(), 10_000);
      await handle(event).finally(() => clearInterval(inProgress));
      revisions.record(event);
    }
    // If this is not confirmed, the event is redelivered, and recognized by its revision.
    await message.ackAck().catch(() => false);
    if (stream === SNAPSHOTS) maybeEmpty = message.info.pending === 0;
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
