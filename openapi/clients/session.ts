// A session with the client that openapi-typescript and openapi-fetch generate from the document: compiling it shows that
// the types are usable, and running it that they are correct.

import assert from "node:assert/strict";
import createClient from "openapi-fetch";
import type { components, paths } from "./roster.js";

type User = components["schemas"]["UserRead"];
type Problem = components["schemas"]["Problem"];

const { CHECK_URL, CHECK_EMAIL, CHECK_PASSWORD } = process.env;
assert(CHECK_URL && CHECK_EMAIL && CHECK_PASSWORD);
const anyone = createClient<paths>({ baseUrl: CHECK_URL });
const as = (token: string) => createClient<paths>({ baseUrl: CHECK_URL, headers: { authorization: `Bearer ${token}` } });

async function logIn(email: string, password: string): Promise<string> {
  const { data } = await anyone.POST("/api/v1/auth/login", { body: { email, password } });
  assert(data);
  return data.access_token;
}

const email = "typescript@example.com";
const password = "a password of a generated client";
const registered = await anyone.POST("/api/v1/auth/register", {
  body: { email, password, full_name: "TypeScript", metadata: { languages: ["ts"] } },
});
assert.equal(registered.response.status, 201);
// Without `with_token`, the answer is the user.
const user = registered.data as User;
assert.deepEqual(user.metadata, { languages: ["ts"] });

const taken = await anyone.POST("/api/v1/auth/register", { body: { email, password } });
const problem: Problem | undefined = taken.error;
assert.deepEqual([taken.response.status, problem?.code], [409, "email-taken"]);

const own = as(await logIn(email, password));
const me = await own.GET("/api/v1/auth/me");
assert.equal(typeof me.data?.last_login_at, "string");
const changed = await own.PATCH("/api/v1/auth/me", { body: { full_name: null, metadata: { languages: null } } });
assert.deepEqual([changed.data?.full_name, changed.data?.metadata], [null, {}]);

const administrator = as(await logIn(CHECK_EMAIL, CHECK_PASSWORD));
const page = await administrator.GET("/api/v1/users", {
  params: { query: { email, sort: "-full_name", include_total: true } },
});
assert.deepEqual([page.data?.items.map((one) => one.id), page.data?.total], [[user.id], 1]);
const path = { user_id: user.id };
const stale = await administrator.PATCH("/api/v1/users/{user_id}", {
  params: { path, header: { "If-Match": 'W/"1"' } },
  body: { roles: ["user", "auditor"] },
});
assert.deepEqual([stale.response.status, stale.error?.code], [412, "stale-revision"]);
const given = await administrator.PATCH("/api/v1/users/{user_id}", {
  params: { path, header: { "If-Match": changed.response.headers.get("etag") ?? undefined } },
  body: { roles: ["user", "auditor"] },
});
assert.deepEqual(given.data?.roles, ["auditor", "user"]);
const gone = await administrator.DELETE("/api/v1/users/{user_id}", { params: { path } });
assert.equal(gone.response.status, 204);
const nobody = await administrator.GET("/api/v1/users/{user_id}", { params: { path } });
assert.deepEqual([nobody.response.status, nobody.error?.code], [404, "not-found"]);
console.log("TypeScript: the generated client works");
