"""Verifies access tokens with the Python libraries that docs/verifying-tokens.md names: a valid token is accepted, and
tokens that are invalid for this service are rejected."""

import base64
import json
import os
import urllib.request

import jwt
from joserfc import jwk
from joserfc import jwt as jose
from joserfc.errors import JoseError

URL, TOKEN = os.environ["CHECK_URL"], os.environ["CHECK_TOKEN"]
CLAIMS = ["iss", "aud", "sub", "exp", "iat", "jti", "sid", "epoch", "roles"]
AUDIENCE = "roster"

with urllib.request.urlopen(f"{URL}/.well-known/jwks.json") as answer:
    JWKS = json.load(answer)


def with_pyjwt(token: str, audience: str = AUDIENCE, issuer: str = URL) -> dict[str, object]:
    header = jwt.get_unverified_header(token)
    assert header["typ"] == "at+jwt" and "crit" not in header
    key = jwt.PyJWKSet.from_dict(JWKS)[header["kid"]]
    options = {"require": CLAIMS, "strict_aud": True}
    return jwt.decode(token, key, algorithms=["EdDSA"], issuer=issuer, audience=audience, leeway=0, options=options)


def with_joserfc(token: str, audience: str = AUDIENCE, issuer: str = URL) -> dict[str, object]:
    checked = jose.decode(token, jwk.KeySet.import_key_set(JWKS), algorithms=["EdDSA"])
    assert checked.header["typ"] == "at+jwt" and "crit" not in checked.header
    rules = {claim: {"essential": True} for claim in CLAIMS} | {
        "iss": {"essential": True, "value": issuer},
        "aud": {"essential": True, "value": audience},
    }
    jose.JWTClaimsRegistry(leeway=0, **rules).validate(checked.claims)
    return checked.claims


def forged() -> str:
    header, claims, signature = TOKEN.split(".")
    content = json.loads(base64.urlsafe_b64decode(claims + "=="))
    content["sub"] = "00000000-0000-7000-8000-000000000000"
    claims = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    return ".".join([header, claims, signature])


for name, verify, error in [("PyJWT", with_pyjwt, jwt.PyJWTError), ("joserfc", with_joserfc, JoseError)]:
    assert verify(TOKEN)["roles"] == ["admin", "user"], name
    for arguments in [(forged(),), (TOKEN, "another"), (TOKEN, AUDIENCE, "https://id.example.com")]:
        try:
            verify(*arguments)
        except error:
            continue
        raise SystemExit(f"{name} accepts {arguments}")
    print(f"{name}: tokens are verified")
