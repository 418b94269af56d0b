#!/usr/bin/env python3
"""Keeps a copy of all users in SQLite, from the feed of Roster.

    NATS_URL=nats://127.0.0.1:4222 python3 subscriber.py NAME [--creds NAME.creds] [--database NAME.db]

NAME and its credentials come from `roster subscribers add NAME`. With `--from snapshot` the users who are
there already come first, with `--from start` everything that was ever told.

What it shows: events come in order and at least once. The copy and the last revision of each user are
written in one transaction, and the event is acknowledged after that. So an event that comes again, after a
kill -9 at whatever moment, changes nothing: its effect happens exactly once.
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

# Every message of Roster's has one of these headers.
WRITTEN_BY_ROSTER = {"Roster-Event-Type", "Roster-Command-Id"}

# Types after which `data.user` is a user who is there. Types that are not known are passed over: there may
# come new ones.
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
    """What `revision` counts the events of: a user, a session, or the ends of all sessions of a user."""
    if event["type"] == "sessions.v1.all_ended":
        return "all-sessions." + event["subject"]
    root = "session." if event["type"].startswith("sessions.") else "user."
    return root + event["subject"]


def handle(database, event):
    """Effect and revision in one transaction. False: the event was handled before."""
    with database:
        news = database.execute(
            "INSERT INTO handled VALUES (?, ?) ON CONFLICT (aggregate)"
            " DO UPDATE SET revision = excluded.revision WHERE excluded.revision > revision",
            (aggregate(event), event["revision"]),
        )
        if news.rowcount == 0:
            return False
        if event["type"] == "users.v1.deleted":
            # Roster has erased this user. So must everyone who has a copy.
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


async def end_if_gone(consumer, stream, name):
    """Ends the program when the operator has removed the consumer: trying again would never help. No answer at all
    tells nothing, and a request for the next message of a consumer that is gone may have none."""
    try:
        await consumer.consumer_info()
    except nats.js.errors.NotFoundError:
        sys.exit(f"the consumer {name} on {stream} is gone: ask the operator (roster subscribers list)")
    except (nats.errors.Error, nats.js.errors.Error):
        pass


async def follow(jetstream, stream, name, database, stop):
    """Takes one event after the other; from the snapshots until there are none left."""
    consumer = await jetstream.pull_subscribe_bind(consumer=name, stream=stream)
    nothing_left = stream == SNAPSHOTS
    while not stop.is_set():
        try:
            if nothing_left:
                info = await consumer.consumer_info()
                if info.num_pending + info.num_ack_pending == 0:
                    return
                nothing_left = False
            [message] = await consumer.fetch(1, timeout=5)
        except nats.js.errors.NotFoundError:
            if stream == SNAPSHOTS:
                return  # It was not added with --from snapshot.
            await end_if_gone(consumer, stream, name)
            continue
        except nats.errors.TimeoutError:
            nothing_left = stream == SNAPSHOTS
            if stream == FEED:
                await end_if_gone(consumer, stream, name)
            continue
        except (nats.errors.Error, nats.js.errors.Error) as error:
            # No server, or one that has just started. The connection is made again by itself.
            print(f"trying again: {error!r}", flush=True)
            await asyncio.sleep(1)
            if stream == FEED:
                await end_if_gone(consumer, stream, name)
            continue
        # What cannot be read or stored ends the program: nothing is skipped, and it comes first next time.
        # Work that takes longer than 20 s calls `await message.in_progress()` now and then.
        if not WRITTEN_BY_ROSTER.intersection(message.headers or {}):
            # An answer that somebody had the server store here is about nobody, whomever its subject names.
            print(f"passed over, since Roster did not write it: {message.subject}", file=sys.stderr, flush=True)
            await message.ack()
            continue
        event = json.loads(message.data)
        news = handle(database, event)
        again = "" if news else "again"
        # In one piece: whoever reads these lines takes half of one for another.
        sys.stdout.write(f"{event['type']} {event['subject']} {event['revision']} {again}\n")
        sys.stdout.flush()
        try:
            await message.ack_sync(timeout=5)
        except nats.errors.Error:
            pass  # It comes again, and is known by then.
        if stream == SNAPSHOTS:
            nothing_left = message.metadata.num_pending == 0


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
