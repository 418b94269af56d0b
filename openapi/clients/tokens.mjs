// Verifies access tokens with the JavaScript libraries that docs/verifying-tokens.md names: a valid token is accepted, and
// tokens that are invalid for this service are rejected.

import assert from "node:assert/strict";
import { createRemoteJWKSet, jwtVerify } from "jose";

const { CHECK_URL, CHECK_TOKEN } = process.env;
const CLAIMS = ["iss", "aud", "sub", "exp", "iat", "jti", "sid", "epoch", "roles"];
const keys = createRemoteJWKSet(new URL("/.well-known/jwks.json", CHECK_URL), { cooldownDuration: 5_000 });
const OPTIONS = {
  algorithms: ["EdDSA"],
  typ: "at+jwt",
  issuer: CHECK_URL,
  audience: "roster",
  requiredClaims: CLAIMS,
  clockTolerance: 0,
};
const verify = (token, options = {}) => jwtVerify(token, keys, { ...OPTIONS, ...options });

const { payload, protectedHeader } = await verify(CHECK_TOKEN);
assert.equal(protectedHeader.alg, "EdDSA");
assert.deepEqual(payload.roles, ["admin", "user"]);
const [header, claims, signature] = CHECK_TOKEN.split(".");
const raised = { ...JSON.parse(Buffer.from(claims, "base64url")), sub: "00000000-0000-7000-8000-000000000000" };
const forged = [header, Buffer.from(JSON.stringify(raised)).toString("base64url"), signature].join(".");
await assert.rejects(verify(forged), { code: "ERR_JWS_SIGNATURE_VERIFICATION_FAILED" });
await assert.rejects(verify(CHECK_TOKEN, { audience: "another" }), { code: "ERR_JWT_CLAIM_VALIDATION_FAILED" });
await assert.rejects(verify(CHECK_TOKEN, { issuer: "https://id.example.com" }), { code: "ERR_JWT_CLAIM_VALIDATION_FAILED" });
await assert.rejects(verify(CHECK_TOKEN, { algorithms: ["HS256"] }), { code: "ERR_JOSE_ALG_NOT_ALLOWED" });
await assert.rejects(verify(CHECK_TOKEN, { currentDate: new Date(payload.exp * 1_000) }), { code: "ERR_JWT_EXPIRED" });
console.log("jose: tokens are verified");
