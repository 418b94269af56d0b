#!/usr/bin/env python3
"""Keeps a copy of all users in SQLite, fed by Roster's feed.

    NATS_URL=nats://127.0.0.1:4222 python3 subscriber.py NAME [--creds NAME.creds] [--database NAME.db]

NAME and its credentials come from `roster subscribers add NAME`. With `--from snapshot`, the existing users
come first; with `--from start`, everything that was ever published.

Events are delivered in order and at least once. The copy and the last revision of each user are written in
one transaction, and the event is acknowledged after that. A redelivered event, even after a kill -9 at any
moment, changes nothing: its effect happens exactly once.
"""

import argparse
import asyncio
import json
import os
import signal
import sqlite3
import sys

import nats
import nats.errors
import nats.js.errors

SNAPSHOTS, FEED = "USER_SNAPSHOTS", "USER_EVENTS"

# Every message that Roster writes has one of these headers.
WRITTEN_BY_ROSTER = {"Roster-Event-Type", "Roster-Command-Id"}

# Event types whose `data.user` is an existing user. Unknown types are ignored, since new ones may be added.
STATES = {
    "users.v1." + name
    for name in (
        "snapshot registered profile_changed roles_changed disabled enabled password_changed "
        "email_verified email_changed"
    ).split()
}


def open_database(path):
    database = sqlite3.connect(path)
    database.executescript(
        """
        PRAGMA journal_mode = WAL;
        PRAGMA synchronous = FULL;
        CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, email TEXT NOT NULL, full_name TEXT,
            status TEXT NOT NULL, events INTEGER NOT NULL);
        CREATE TABLE IF NOT EXISTS handled (aggregate TEXT PRIMARY KEY, revision INTEGER NOT NULL);
        """
    )
    return database


def aggregate(event):
    """What `revision` counts events of: a user, a session, or the logouts of all sessions of a user."""
    if event["type"] == "sessions.v1.all_ended":
        return "all-sessions." + event["subject"]
    root = "session." if event["type"].startswith("sessions.") else "user."
    return root + event["subject"]


def handle(database, event):
    """Applies the event and stores its revision in one transaction. Returns False if it was handled before."""
    with database:
        inserted = database.execute(
            "INSERT INTO handled VALUES (?, ?) ON CONFLICT (aggregate)"
            " DO UPDATE SET revision = excluded.revision WHERE excluded.revision > revision",
            (aggregate(event), event["revision"]),
        )
        if inserted.rowcount == 0:
            return False
        if event["type"] == "users.v1.deleted":
            # Roster has erased this user, so every subscriber must erase its copy too.
            database.execute("DELETE FROM users WHERE id = ?", (event["subject"],))
        elif event["type"] in STATES:
            user = event["data"]["user"]
            database.execute(
                "INSERT INTO users VALUES (:id, :email, :full_name, :status, 1) ON CONFLICT (id)"
                " DO UPDATE SET email = :email, full_name = :full_name, status = :status,"
                " events = events + 1",
                {key: user[key] for key in ("id", "email", "full_name", "status")},
            )
        return True


async def exit_if_removed(consumer, stream, name):
    """Exits if the operator has removed the consumer, since retrying would never help. A missing answer proves
    nothing: a request for the next message may get none when the consumer is gone."""
    try:
        await consumer.consumer_info()
    except nats.js.errors.NotFoundError:
        sys.exit(f"the consumer {name} on {stream} is gone: ask the operator (roster subscribers list)")
    except (nats.errors.Error, nats.js.errors.Error):
        pass


async def follow(jetstream, stream, name, database, stop):
    """Handles one event after the other; from the snapshots, until none are left."""
    consumer = await jetstream.pull_subscribe_bind(consumer=name, stream=stream)
    maybe_empty = stream == SNAPSHOTS
    while not stop.is_set():
        try:
            if maybe_empty:
                info = await consumer.consumer_info()
                if info.num_pending + info.num_ack_pending == 0:
                    return
                maybe_empty = False
            [message] = await consumer.fetch(1, timeout=5)
        except nats.js.errors.NotFoundError:
            if stream == SNAPSHOTS:
                return  # The subscriber was not added with --from snapshot.
            await exit_if_removed(consumer, stream, name)
            continue
        except nats.errors.TimeoutError:
            maybe_empty = stream == SNAPSHOTS
            if stream == FEED:
                await exit_if_removed(consumer, stream, name)
            continue
        except (nats.errors.Error, nats.js.errors.Error) as error:
            # No server, or one that has just started. The client reconnects by itself.
            print(f"retrying: {error!r}", flush=True)
            await asyncio.sleep(1)
            if stream == FEED:
                await exit_if_removed(consumer, stream, name)
            continue
        # An event that cannot be read or stored ends the program. Nothing is skipped: it comes first next time.
        # If the work can take longer than 20 s, call `await message.in_progress()` from time to time.
        if not WRITTEN_BY_ROSTER.intersection(message.headers or {}):
            # A client can have the server store an answer here. It is not an event, whatever its subject says.
            print(f"ignored a message that Roster did not write: {message.subject}", file=sys.stderr, flush=True)
            await message.ack()
            continue
        event = json.loads(message.data)
        is_new = handle(database, event)
        again = "" if is_new else "again"
        # One write per line, so that a reader never sees half a line.
        sys.stdout.write(f"{event['type']} {event['subject']} {event['revision']} {again}\n")
        sys.stdout.flush()
        try:
            await message.ack_sync(timeout=5)
        except nats.errors.Error:
            pass  # It is redelivered, and recognized by its revision.
        if stream == SNAPSHOTS:
            maybe_empty = message.metadata.num_pending == 0


async def main():
    arguments = argparse.ArgumentParser(description="Keeps a copy of all users in SQLite.")
    arguments.add_argument("name")
    arguments.add_argument("--creds", help="NAME.creds by default")
    arguments.add_argument("--database", help="NAME.db by default")
    arguments = arguments.parse_args()
    name = arguments.name
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    database = open_database(arguments.database or name + ".db")
    connection = await nats.connect(
        os.environ.get("NATS_URL", "nats://127.0.0.1:4222").split(","),
        name="roster-subscriber-" + name,
        user_credentials=arguments.creds or name + ".creds",
        inbox_prefix="_INBOX_" + name,
        max_reconnect_attempts=-1,
    )
    jetstream = connection.jetstream(prefix="feed")
    for stream in (SNAPSHOTS, FEED):
        await follow(jetstream, stream, name, database, stop)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
