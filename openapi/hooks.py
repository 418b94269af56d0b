"""Authenticates the requests of Schemathesis.

CHECK_URL, CHECK_EMAIL and CHECK_PASSWORD name a user. The hooks log in again when a request may have
invalidated the token.
"""

import json
import os
import urllib.request

import schemathesis

URL = os.environ["CHECK_URL"]
USER = {"email": os.environ["CHECK_EMAIL"], "password": os.environ["CHECK_PASSWORD"]}
# These end the caller's session or invalidate its token.
INVALIDATING = {"logout", "logout_all", "end_session"}

token = None


def log_in():
    request = urllib.request.Request(
        f"{URL}/api/v1/auth/login",
        data=json.dumps(USER).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["access_token"]


@schemathesis.auth()
class Bearer:
    def get(self, case, context):
        global token
        if token is None:
            token = log_in()
        return token

    def set(self, case, data, context):
        case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


@schemathesis.hook
def after_call(context, case, response):
    global token
    definition = case.operation.definition.raw
    if definition.get("operationId") in INVALIDATING:
        token = None


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    return value.encode() if isinstance(value, str) else json.dumps(value).encode() + b"\n"
