#!/usr/bin/env python3
"""Identifies callers by Roster's access token in the request.

    NATS_URL=nats://127.0.0.1:4222 python3 verifier.py NAME --issuer http://127.0.0.1:8080 [--audience roster]
        [--jwks ISSUER/.well-known/jwks.json] [--ca ca.pem] [--creds NAME.creds] [--port 8090]

NAME and its credentials come from `roster services creds SERVICE --verifier --out NAME.creds`. They allow following
revocations and nothing else.

    GET /whoami      200 with the user's id and roles, 401 without a valid token
    GET /roles/ROLE  the same for users with the role; 403 for others
    GET /readyz      200 if tokens can be verified, otherwise 503

A token is verified in memory: its signature with keys that are fetched over HTTP and refreshed, and its validity with
revocations that arrive over NATS within milliseconds. Until both have been read once, and when the keys are too old to
be trusted, every request gets 503. If NATS falls silent later, tokens are valid until they expire, and no role is
trusted.
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

# No token of Roster lives longer, whatever its settings, so nothing has to be kept for longer.
LIFETIME_MAX_S = 3_600
# How far clocks may differ. This does not extend the life of a token.
CLOCK_SKEW_MAX_S = 60
TOKEN_BYTES_MAX = 4_096
CLAIMS = ["iss", "aud", "sub", "exp", "iat", "jti", "sid", "epoch", "roles"]


class Rejected(Exception):
    """The token is invalid."""


class Undetermined(Exception):
    """It cannot be determined now whether the token is valid."""


class Keys:
    """Public keys by id. They are fetched again when they are old and when a token names an unknown key, the latter
    at most once in UNKNOWN_KEY_PAUSE_S: tokens with invented ids must not cause requests."""

    FRESH_S = (30, 900)  # bounds of the time that the server sets
    UNKNOWN_KEY_PAUSE_S, UNKNOWN_KEY_WAIT_S, RETRY_S = 5, 2, 5
    KEPT_S = LIFETIME_MAX_S  # how long the keys are trusted while the server does not answer
    BYTES_MAX = 65_536

    def __init__(self, url, authority):
        scheme, host = urllib.parse.urlsplit(url).scheme, urllib.parse.urlsplit(url).hostname
        try:
            loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            loopback = False
        if scheme != "https" and not (scheme == "http" and loopback):
            raise SystemExit(f"{url}: without TLS anyone on the network path could forge tokens")

        class NoRedirect(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_):
                return None  # a redirect becomes an error

        context = ssl.create_default_context(cafile=authority)
        self.opener = urllib.request.build_opener(
            NoRedirect, urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        self.url, self.changed, self.wanted, self.fetched_at = url, threading.Condition(), False, time.monotonic()
        self.known, self.fresh_s = self.fetch()
        self.known_at = time.monotonic()
        threading.Thread(target=self.keep_refreshing, daemon=True).start()

    def fetch(self):
        with self.opener.open(self.url, timeout=5) as answer:
            body = answer.read(self.BYTES_MAX + 1)
            control = answer.headers.get("Cache-Control", "")
        if len(body) > self.BYTES_MAX:
            raise ValueError("the key set is too large")
        known = {}
        for key in json.loads(body)["keys"]:
            is_ed25519 = key.get("kty") == "OKP" and key.get("crv") == "Ed25519"
            if is_ed25519 and key.get("use", "sig") == "sig" and key.get("alg", "EdDSA") == "EdDSA":
                if key["kid"] in known:
                    raise ValueError("two keys in the set have the same id")
                public = base64.urlsafe_b64decode(key["x"] + "=")
                known[key["kid"]] = Ed25519PublicKey.from_public_bytes(public)
        if not known:
            raise ValueError("the key set has no Ed25519 key")
        ages = [part.strip()[8:] for part in control.split(",") if part.strip().startswith("max-age=")]
        max_age = int(ages[0]) if ages and ages[0].isdigit() else 300
        return known, min(max(max_age, self.FRESH_S[0]), self.FRESH_S[1])

    def keep_refreshing(self):
        pause = self.fresh_s
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.wanted, timeout=pause)
                self.fetched_at = time.monotonic()
            try:
                fetched = self.fetch()
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                fetched, pause = None, self.RETRY_S
                print(f"cannot refresh the keys, keeping the previous ones: {error!r}", flush=True)
            with self.changed:
                if fetched:
                    (self.known, pause), self.known_at = fetched, time.monotonic()
                self.wanted = False
                self.changed.notify_all()

    def find(self, kid):
        with self.changed:
            if kid not in self.known and time.monotonic() - self.fetched_at >= self.UNKNOWN_KEY_PAUSE_S:
                self.wanted = True
                self.changed.notify_all()
            if kid not in self.known and self.wanted:
                self.changed.wait_for(lambda: not self.wanted, timeout=self.UNKNOWN_KEY_WAIT_S)
            if time.monotonic() - self.known_at > self.KEPT_S:
                raise Undetermined("the keys are too old")
            return self.known.get(kid)


class Interrupted(Exception):
    """The stream must be followed again."""


class Revocations:
    """The revocations of one stream by id: the position of the last one, and when all tokens that it revoked have
    expired."""

    KEPT_S = LIFETIME_MAX_S + CLOCK_SKEW_MAX_S
    SILENCE_MAX_S = 5
    BATCH = 1_000

    def __init__(self, stream, subject):
        self.stream, self.subject, self.revoked = stream, subject, {}
        self.live = False  # all messages have been read, and the server confirms it every second
        self.live_at = None  # the last time of such a confirmation
        self.last = None  # position and time of the last message
        self.lineage = None  # the current history of the log, from the last message about it
        self.lineage_at = 0
        self.went_back_at = 0  # when the log was found to have gone back: earlier positions mean nothing in it

    def is_current(self):
        return self.live or (self.live_at is not None and time.monotonic() - self.live_at < self.SILENCE_MAX_S)

    async def follow(self, connection):
        since = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=self.KEPT_S)
        while True:
            try:
                async for position, name, stored_at, payload in self.messages(connection, since):
                    if name == "lineage":
                        self.set_lineage(payload, stored_at.timestamp())
                        continue
                    self.track_position(position, stored_at.timestamp())
                    until = stored_at.timestamp() + self.KEPT_S
                    before = self.revoked.get(name, (0, 0))
                    # Reading an older revocation again must not undo a later one.
                    self.revoked[name] = (max(position, before[0]), max(until, before[1]))
                    # Resume by time: a log that was restored in the meantime has other positions.
                    since = stored_at - datetime.timedelta(seconds=CLOCK_SKEW_MAX_S)
            except (Interrupted, nats.errors.Error, asyncio.TimeoutError) as error:
                print(f"cannot follow {self.subject}, retrying: {error!r}", flush=True)
            self.live = False
            if connection.is_closed:  # the server no longer accepts these credentials: retrying does not help
                raise ConnectionError("NATS has closed the connection permanently")
            await asyncio.sleep(0.2)

    def set_lineage(self, payload, stored_at):
        """The one stored last counts, since messages are read again after an interruption."""
        if stored_at >= self.lineage_at:
            self.lineage, self.lineage_at = json.loads(payload)["lineage"], stored_at

    def track_position(self, position, stored_at):
        """Within one history, a later message has a higher position. A message that is read again is not later."""
        end, time_of_end = self.last or (0, 0)
        went_back = self.last is not None and position <= end and stored_at > time_of_end
        if went_back:
            print(f"the log of {self.subject} went back: rejecting earlier tokens", flush=True)
            self.went_back_at = stored_at
        if went_back or position > end:
            self.last = (position, max(stored_at, time_of_end))

    async def messages(self, connection, since):
        """Yields position, id, time and content of each revocation in order, until something interrupts it. The
        credentials allow exactly this: creating a consumer with a unique name and this one filter. Both are in the
        subject of the request."""
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
        created = await connection.request(
            f"$JS.API.CONSUMER.CREATE.{self.stream}.{name}.{self.subject}",
            json.dumps({"stream_name": self.stream, "config": config}).encode(),
            timeout=5,
        )
        created = json.loads(created.data)
        if "error" in created:
            raise Interrupted(created["error"]["description"])
        if created["num_pending"] == 0:
            self.mark_live()
        inbox = connection.new_inbox()
        delivery = await connection.subscribe(inbox)
        try:
            remaining, expected = 0, 1
            while True:
                if remaining == 0:
                    pull = {"batch": self.BATCH, "expires": 30 * 10**9, "idle_heartbeat": 10**9}
                    next_ = f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{name}"
                    await connection.publish(next_, json.dumps(pull).encode(), reply=inbox)
                    remaining = self.BATCH
                message = await delivery.next_msg(timeout=2.5)
                status = (message.headers or {}).get("Status")
                if status == "100":  # a heartbeat
                    if self.live:
                        self.mark_live()
                elif status in ("404", "408"):  # the request has ended: send the next one
                    remaining = 0
                elif status:
                    raise Interrupted(f"{status} {message.headers.get('Description')}")
                else:
                    metadata = message.metadata
                    if metadata.sequence.consumer != expected:
                        raise Interrupted(f"delivery {metadata.sequence.consumer} arrived instead of {expected}")
                    remaining, expected = remaining - 1, expected + 1
                    # A message that no command of Roster wrote revokes nothing.
                    if "Roster-Command-Id" in (message.headers or {}):
                        id_ = message.subject.rsplit(".", 1)[1]
                        yield metadata.sequence.stream, id_, metadata.timestamp, message.data
                    if metadata.num_pending == 0:
                        self.mark_live()
        finally:
            await delivery.unsubscribe()

    def mark_live(self):
        self.live, self.live_at = True, time.monotonic()

    def drop_expired(self):
        now = time.time()
        for name in [name for name, (_, until) in self.revoked.items() if until < now]:
            del self.revoked[name]


class Verifier:
    def __init__(self, keys, issuer, audience):
        self.keys, self.issuer, self.audience = keys, issuer, audience
        self.users, self.sessions = Revocations("USERS", "rv.user.*"), Revocations("SESSIONS", "rv.session.*")

    async def follow(self, connection):
        async def drop_expired():
            while True:
                await asyncio.sleep(60)
                self.users.drop_expired()
                self.sessions.drop_expired()

        await asyncio.gather(self.users.follow(connection), self.sessions.follow(connection), drop_expired())

    def check(self, token, role=None):
        """The claims of a valid token. Raises Rejected for an invalid one, Undetermined if neither can be said now."""
        if self.users.live_at is None or self.sessions.live_at is None:
            raise Undetermined("the revocations are not known yet")
        claims = self.verified_claims(token)
        if claims["iat"] < int(self.users.went_back_at):
            raise Rejected("issued before the log went back")
        lineage = self.sessions.lineage
        if lineage is not None and claims.get("lineage", lineage) != lineage:
            raise Rejected("issued in another history of the log")
        # The token reflects the user's revocations up to its epoch. A later one makes it invalid.
        if self.users.revoked.get(claims["sub"], (0, 0))[0] > claims["epoch"]:
            raise Rejected("the user was revoked")
        if claims["sid"] in self.sessions.revoked:
            raise Rejected("the session was revoked")
        if role is not None and role in claims["roles"]:
            if not (self.users.is_current() and self.sessions.is_current()):
                raise Undetermined("whether this role was revoked is not known")
        return claims

    def verified_claims(self, token):
        if len(token) > TOKEN_BYTES_MAX:
            raise Rejected("too long")
        try:
            header = jwt.get_unverified_header(token)
            # Reject other kinds of tokens, other algorithms and unknown extensions.
            if str(header.get("typ")).lower() not in ("at+jwt", "application/at+jwt"):
                raise Rejected("not an access token")
            if header["alg"] != "EdDSA" or "crit" in header or not isinstance(header.get("kid"), str):
                raise Rejected("not signed as Roster signs")
            key = self.keys.find(header["kid"])
            if key is None:
                raise Rejected("unknown key")
            claims = jwt.decode(
                token,
                key,
                algorithms=["EdDSA"],
                issuer=self.issuer,
                audience=self.audience,
                leeway=0,
                # PyJWT allows no clock skew for `iat`, so it is checked below.
                options={"require": CLAIMS, "strict_aud": True, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError) as error:
            raise Rejected(repr(error)) from error
        # PyJWT accepts a number in a string as a number, and does not know Roster's own claims.
        numbers = [claims[name] for name in ("exp", "iat", "epoch")]
        texts = [claims[name] for name in ("sub", "sid", "jti")]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise Rejected("a claim is not a number")
        if not all(isinstance(text, str) and is_id(text) for text in texts):
            raise Rejected("a claim is not an id")
        roles = claims["roles"]
        if not (isinstance(roles, list) and all(isinstance(role, str) for role in roles)):
            raise Rejected("roles is not a list of strings")
        # Its revocation would be dropped before it expires.
        if claims["exp"] - claims["iat"] > LIFETIME_MAX_S or claims["iat"] > time.time() + CLOCK_SKEW_MAX_S:
            raise Rejected("valid for too long, or issued in the future")
        return claims

    def failures(self):
        streams = {"users": self.users.live, "sessions": self.sessions.live}
        failures = [f"the revocations of {name} are silent" for name, live in streams.items() if not live]
        if time.monotonic() - self.keys.known_at > self.keys.KEPT_S:
            failures.append("the keys are too old")
        return failures


def is_id(text):
    """Whether this is an id as Roster spells it. Revocations are looked up by the exact text."""
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
                failures = verifier.failures()
                return self.answer(503 if failures else 200, {"failed": failures})
            role = path.removeprefix("/roles/") if path.startswith("/roles/") else None
            if path != "/whoami" and not role:
                return self.answer(404, {"error": "not found"})
            try:
                claims = verifier.check(self.bearer(), role)
            except Rejected:
                return self.answer(401, {"error": "a valid access token is needed"}, ("WWW-Authenticate", "Bearer"))
            except Undetermined:
                return self.answer(503, {"error": "try again"}, ("Retry-After", "1"))
            if role and role not in claims["roles"]:
                return self.answer(403, {"error": "not allowed"})
            return self.answer(200, {"sub": claims["sub"], "roles": claims["roles"]})

        def bearer(self):
            given = self.headers.get_all("Authorization", [])
            scheme, _, token = (given[0] if len(given) == 1 else "").partition(" ")
            if scheme.lower() != "bearer":
                raise Rejected("no token, or several")
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
    arguments = argparse.ArgumentParser(description="Identifies callers by the access token in the request.")
    arguments.add_argument("name")
    arguments.add_argument("--issuer", required=True)
    arguments.add_argument("--audience", default="roster")
    arguments.add_argument("--jwks", help="ISSUER/.well-known/jwks.json by default")
    arguments.add_argument("--ca", help="certificate authority of the key server, if the system does not trust it")
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

    async def on_error(error):
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
            error_cb=on_error,
        )
        await verifier.follow(connection)

    following = asyncio.create_task(follow())
    await asyncio.wait([following, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
    if following.done():
        following.result()  # raises the reason; it never returns otherwise
    following.cancel()
    server.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
