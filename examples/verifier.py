#!/usr/bin/env python3
"""Answers who calls, by the access token of Roster in the request.

    NATS_URL=nats://127.0.0.1:4222 python3 verifier.py NAME --issuer http://127.0.0.1:8080 [--audience roster]
        [--jwks ISSUER/.well-known/jwks.json] [--ca ca.pem] [--creds NAME.creds] [--port 8090]

NAME and its credentials come from `roster services creds SERVICE --verifier --out NAME.creds`, with which one can
follow what ends access and do nothing else.

    GET /whoami      200 with the id of the user and the roles, 401 without a good token
    GET /roles/ROLE  the same for who has the role; 403 for who has not
    GET /readyz      200 when tokens can be verified, 503 when not

What it shows: a token is checked in memory. Its signature by a key that came over HTTP and is fetched again when it
is old; that it has not ended before its time by what came over NATS, within milliseconds. Until all of that was
read once, and when the keys are too old to be believed, nobody is let in: 503. While NATS is silent later, tokens are
good until they expire, and nobody is believed to have a role.
"""

import argparse
import asyncio
import base64
import datetime
import http.server
import ipaddress
import json
import os
import signal
import ssl
import threading
import time
import urllib.parse
import urllib.request
import uuid

import jwt
import nats
import nats.errors
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# No token of Roster lives longer, whatever it is configured to, so nothing has to be kept for longer.
LIFE_MAX_S = 3_600
# How far clocks may differ. No token lives longer for it.
CLOCKS_S = 60
TOKEN_BYTES_MAX = 4_096
CLAIMS = ["iss", "aud", "sub", "exp", "iat", "jti", "sid", "epoch", "roles"]


class Refused(Exception):
    """Whoever sent the token is not let in."""


class Unknown(Exception):
    """Whether the token is good cannot be told now."""


class Keys:
    """Public keys by id. Fetched when they are old, and when a token names one that is not known, but for that not
    more than once in ASK_PAUSE_S: tokens with made-up ids must not become requests."""

    FRESH_S = (30, 900)  # whatever the server says
    ASK_PAUSE_S, ASK_WAIT_S, RETRY_S = 5, 2, 5
    KEPT_S = LIFE_MAX_S  # how long they are believed while the server does not answer
    BYTES_MAX = 65_536

    def __init__(self, url, authority):
        scheme, host = urllib.parse.urlsplit(url).scheme, urllib.parse.urlsplit(url).hostname
        try:
            loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if scheme != "https" and not (scheme == "http" and loopback):
            raise SystemExit(f"{url}: without TLS anyone on the way could make tokens")

        class NoRedirect(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_):
                return None  # which makes an error of it

        context = ssl.create_default_context(cafile=authority)
        self.opener = urllib.request.build_opener(
            NoRedirect, urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        self.url, self.news, self.wanted, self.looked_at = url, threading.Condition(), False, time.monotonic()
        self.known, self.fresh_s = self.fetch()
        self.known_at = time.monotonic()
        threading.Thread(target=self.keep_looking, daemon=True).start()

    def fetch(self):
        with self.opener.open(self.url, timeout=5) as answer:
            body = answer.read(self.BYTES_MAX + 1)
            control = answer.headers.get("Cache-Control", "")
        if len(body) > self.BYTES_MAX:
            raise ValueError("too large for a set of keys")
        known = {}
        for key in json.loads(body)["keys"]:
            ours = key.get("kty") == "OKP" and key.get("crv") == "Ed25519"
            if ours and key.get("use", "sig") == "sig" and key.get("alg", "EdDSA") == "EdDSA":
                if key["kid"] in known:
                    raise ValueError("two keys of one id in it")
                public = base64.urlsafe_b64decode(key["x"] + "=")
                known[key["kid"]] = Ed25519PublicKey.from_public_bytes(public)
        if not known:
            raise ValueError("no Ed25519 key in it")
        ages = [part.strip()[8:] for part in control.split(",") if part.strip().startswith("max-age=")]
        said = int(ages[0]) if ages and ages[0].isdigit() else 300
        return known, min(max(said, self.FRESH_S[0]), self.FRESH_S[1])

    def keep_looking(self):
        pause = self.fresh_s
        while True:
            with self.news:
                self.news.wait_for(lambda: self.wanted, timeout=pause)
                self.looked_at = time.monotonic()
            try:
                fetched = self.fetch()
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                fetched, pause = None, self.RETRY_S
                print(f"the keys from before go on: {error!r}", flush=True)
            with self.news:
                if fetched:
                    (self.known, pause), self.known_at = fetched, time.monotonic()
                self.wanted = False
                self.news.notify_all()

    def find(self, kid):
        with self.news:
            if kid not in self.known and time.monotonic() - self.looked_at >= self.ASK_PAUSE_S:
                self.wanted = True
                self.news.notify_all()
            if kid not in self.known and self.wanted:
                self.news.wait_for(lambda: not self.wanted, timeout=self.ASK_WAIT_S)
            if time.monotonic() - self.known_at > self.KEPT_S:
                raise Unknown("the keys are too old")
            return self.known.get(kid)


class Disturbed(Exception):
    """A feed has to be followed anew."""


class Ends:
    """What ended on one feed, by id: the position of the last end, and the time from which on nobody can have a token
    from before any more."""

    KEPT_S = LIFE_MAX_S + CLOCKS_S
    SILENCE_MAX_S = 5
    BATCH = 1_000

    def __init__(self, stream, subject):
        self.stream, self.subject, self.ended = stream, subject, {}
        self.live = False  # everything there is has been read, and the server says so every second
        self.heard_at = None  # when that was last so
        self.last = None  # the last message, by position and by time
        self.lineage = None  # the history that the log is in, as the last message about it says
        self.lineage_at = 0
        self.went_back_at = 0  # when the log was seen to have gone back: positions of before mean nothing in it

    def is_current(self):
        return self.live or (self.heard_at is not None and time.monotonic() - self.heard_at < self.SILENCE_MAX_S)

    async def follow(self, connection):
        since = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=self.KEPT_S)
        while True:
            try:
                async for position, name, stored_at, payload in self.messages(connection, since):
                    if name == "lineage":
                        self.take_lineage(payload, stored_at.timestamp())
                        continue
                    self.take_note(position, stored_at.timestamp())
                    until = stored_at.timestamp() + self.KEPT_S
                    before = self.ended.get(name, (0, 0))
                    # What is read again must not open what was closed since.
                    self.ended[name] = (max(position, before[0]), max(until, before[1]))
                    # By time: a log that was restored meanwhile counts positions from elsewhere.
                    since = stored_at - datetime.timedelta(seconds=CLOCKS_S)
            except (Disturbed, nats.errors.Error, asyncio.TimeoutError) as error:
                print(f"{self.subject} is silent: {error!r}", flush=True)
            self.live = False
            if connection.is_closed:  # by a server that does not take us any more: nothing will heal it
                raise ConnectionError("NATS has closed the connection for good")
            await asyncio.sleep(0.2)

    def take_lineage(self, payload, stored_at):
        """The one that was stored last counts: messages are read again after a disturbance."""
        if stored_at >= self.lineage_at:
            self.lineage, self.lineage_at = json.loads(payload)["lineage"], stored_at

    def take_note(self, position, stored_at):
        """Within one history what is stored later stands behind. What is read again is not later."""
        end, time_of_end = self.last or (0, 0)
        went_back = self.last is not None and position <= end and stored_at > time_of_end
        if went_back:
            print(f"the log of {self.subject} went back: rejecting earlier tokens", flush=True)
            self.went_back_at = stored_at
        if went_back or position > end:
            self.last = (position, max(stored_at, time_of_end))

    async def messages(self, connection, since):
        """Position, id, time and content of what ended, in order, until something disturbs it. The rights are for exactly this:
        a consumer under a name of its own with this one filter, in the subject of the request."""
        name = "follow-" + uuid.uuid4().hex
        config = {
            "name": name,
            "filter_subject": self.subject,
            "deliver_policy": "by_start_time",
            "opt_start_time": since.isoformat(),
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": 30 * 10**9,
        }
        made = await connection.request(
            f"$JS.API.CONSUMER.CREATE.{self.stream}.{name}.{self.subject}",
            json.dumps({"stream_name": self.stream, "config": config}).encode(),
            timeout=5,
        )
        made = json.loads(made.data)
        if "error" in made:
            raise Disturbed(made["error"]["description"])
        if made["num_pending"] == 0:
            self.hear()
        inbox = connection.new_inbox()
        delivery = await connection.subscribe(inbox)
        try:
            wanted, due = 0, 1
            while True:
                if wanted == 0:
                    pull = {"batch": self.BATCH, "expires": 30 * 10**9, "idle_heartbeat": 10**9}
                    next_ = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{name}"
                    await connection.publish(next_, json.dumps(pull).encode(), reply=inbox)
                    wanted = self.BATCH
                message = await delivery.next_msg(timeout=2.5)
                status = (message.headers or {}).get("Status")
                if status == "100":  # a heartbeat
                    if self.live:
                        self.hear()
                elif status in ("404", "408"):  # the request is over: ask for more
                    wanted = 0
                elif status:
                    raise Disturbed(f"{status} {message.headers.get('Description')}")
                else:
                    metadata = message.metadata
                    if metadata.sequence.consumer != due:
                        raise Disturbed(f"delivery {metadata.sequence.consumer} came where {due} was due")
                    wanted, due = wanted - 1, due + 1
                    # What no command of Roster wrote ends nobody's access.
                    if "Roster-Command-Id" in (message.headers or {}):
                        ended = message.subject.rsplit(".", 1)[1]
                        yield metadata.sequence.stream, ended, metadata.timestamp, message.data
                    if metadata.num_pending == 0:
                        self.hear()
        finally:
            await delivery.unsubscribe()

    def hear(self):
        self.live, self.heard_at = True, time.monotonic()

    def forget(self):
        now = time.time()
        for name in [name for name, (_, until) in self.ended.items() if until < now]:
            del self.ended[name]


class Verifier:
    def __init__(self, keys, issuer, audience):
        self.keys, self.issuer, self.audience = keys, issuer, audience
        self.users, self.sessions = Ends("USERS", "rv.user.*"), Ends("SESSIONS", "rv.session.*")

    async def follow(self, connection):
        async def forget():
            while True:
                await asyncio.sleep(60)
                self.users.forget()
                self.sessions.forget()

        await asyncio.gather(self.users.follow(connection), self.sessions.follow(connection), forget())

    def check(self, token, role=None):
        """The claims of a good token. Refused: the caller is nobody. Unknown: it cannot be told now."""
        if self.users.heard_at is None or self.sessions.heard_at is None:
            raise Unknown("what has ended is not known yet")
        claims = self.signed(token)
        if claims["iat"] < int(self.users.went_back_at):
            raise Refused("made before the log went back")
        lineage = self.sessions.lineage
        if lineage is not None and claims.get("lineage", lineage) != lineage:
            raise Refused("made in another history of the log")
        # The token knows of the user's ends up to its epoch; whoever had an end behind it needs a new one.
        if self.users.ended.get(claims["sub"], (0, 0))[0] > claims["epoch"]:
            raise Refused("the user's access ended")
        if claims["sid"] in self.sessions.ended:
            raise Refused("the session ended")
        if role is not None and role in claims["roles"]:
            if not (self.users.is_current() and self.sessions.is_current()):
                raise Unknown("whether this role was taken away is not known")
        return claims

    def signed(self, token):
        if len(token) > TOKEN_BYTES_MAX:
            raise Refused("too long")
        try:
            header = jwt.get_unverified_header(token)
            # A token for something else, an algorithm of the caller's choice, an extension nobody here knows.
            if str(header.get("typ")).lower() not in ("at+jwt", "application/at+jwt"):
                raise Refused("no access token")
            if header["alg"] != "EdDSA" or "crit" in header or not isinstance(header.get("kid"), str):
                raise Refused("not signed as Roster signs")
            key = self.keys.find(header["kid"])
            if key is None:
                raise Refused("an unknown key")
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                issuer=self.issuer,
                audience=self.audience,
                leeway=0,
                # PyJWT knows no clocks that differ for `iat`: it is looked at below.
                options={"require": CLAIMS, "strict_aud": True, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError) as error:
            raise Refused(repr(error)) from error
        # PyJWT takes a number in a string for a number, and knows no claims that are Roster's own.
        numbers = [claims[name] for name in ("exp", "iat", "epoch")]
        texts = [claims[name] for name in ("sub", "sid", "jti")]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise Refused("a number is none")
        if not all(isinstance(text, str) and is_id(text) for text in texts):
            raise Refused("an id is none")
        roles = claims["roles"]
        if not (isinstance(roles, list) and all(isinstance(role, str) for role in roles)):
            raise Refused("roles are none")
        # Its end would be forgotten before it is over.
        if claims["exp"] - claims["iat"] > LIFE_MAX_S or claims["iat"] > time.time() + CLOCKS_S:
            raise Refused("made for too long, or in the future")
        return claims

    def faults(self):
        feeds = {"users": self.users.live, "sessions": self.sessions.live}
        faults = [f"the feed of {name} is silent" for name, live in feeds.items() if not live]
        if time.monotonic() - self.keys.known_at > self.keys.KEPT_S:
            faults.append("the keys are too old")
        return faults


def is_id(text):
    """As Roster writes them: what ended is looked up by the text."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def handler(verifier):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 15
        wbufsize = -1  # head and body in one packet

        def do_GET(self):
            path = urllib.parse.urlsplit(self.path).path
            if path == "/readyz":
                faults = verifier.faults()
                return self.answer(503 if faults else 200, {"failed": faults})
            role = path.removeprefix("/roles/") if path.startswith("/roles/") else None
            if path != "/whoami" and not role:
                return self.answer(404, {"error": "not found"})
            try:
                claims = verifier.check(self.bearer(), role)
            except Refused:
                return self.answer(401, {"error": "a valid access token is needed"}, ("WWW-Authenticate", "Bearer"))
            except Unknown:
                return self.answer(503, {"error": "try again"}, ("Retry-After", "1"))
            if role and role not in claims["roles"]:
                return self.answer(403, {"error": "not allowed"})
            return self.answer(200, {"sub": claims["sub"], "roles": claims["roles"]})

        def bearer(self):
            given = self.headers.get_all("Authorization", [])
            scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
            if scheme.lower() != "bearer":
                raise Refused("no token, or more than one")
            return token.strip()

        def answer(self, status, body, *headers):
            body = json.dumps(body).encode()
            self.send_response(status)
            length = ("Content-Length", str(len(body)))
            for name, value in (("Content-Type", "application/json"), ("Cache-Control", "no-store"), length, *headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


async def main():
    arguments = argparse.ArgumentParser(description="Answers who calls, by the access token in the request.")
    arguments.add_argument("name")
    arguments.add_argument("--issuer", required=True)
    arguments.add_argument("--audience", default="roster")
    arguments.add_argument("--jwks", help="ISSUER/.well-known/jwks.json by default")
    arguments.add_argument("--ca", help="authority of the server of the keys, when it is none of the system's")
    arguments.add_argument("--creds", help="NAME.creds by default")
    arguments.add_argument("--port", type=int, default=8090)
    arguments = arguments.parse_args()
    jwks = arguments.jwks or arguments.issuer + "/.well-known/jwks.json"
    try:
        keys = Keys(jwks, arguments.ca)
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(f"cannot get the keys of access tokens from {jwks}: {error}")
    verifier = Verifier(keys, arguments.issuer, arguments.audience)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", arguments.port), handler(verifier))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"ready url=http://127.0.0.1:{server.server_port}", flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def told(error):
        print(f"NATS: {error!r}", flush=True)

    async def follow():
        connection = await nats.connect(
            os.environ.get("NATS_URL", "nats://127.0.0.1:4222").split(","),
            name=arguments.name,
            user_credentials=arguments.creds or arguments.name + ".creds",
            inbox_prefix="_INBOX_" + arguments.name,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.5,
            ping_interval=5,
            error_cb=told,
        )
        await verifier.follow(connection)

    following = asyncio.create_task(follow())
    await asyncio.wait([following, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    if following.done():
        following.result()  # says why: it goes on for ever
    following.cancel()
    server.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
