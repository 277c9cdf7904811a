import assert from "node:assert/strict";
import { once } from "node:events";
import test from "node:test";
import { app, configuration } from "../server.js";

async function serving(t, env = {}) {
  const server = app(configuration({ PORT: "0", HEADWAY_VERSION: "abc1234", ...env })).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  return `http://127.0.0.1:${server.address().port}`;
}

const get = async (url) => (await fetch(url)).json();

test("it says hello", async (t) => {
  assert.deepEqual(await get(`${await serving(t, { GREETING: "hi" })}/`), { message: "hi" });
});

test("it is the version that was released", async (t) => {
  assert.deepEqual(await get(`${await serving(t)}/health`), { status: "ok", version: "abc1234" });
});

test("it names an upstream that is gone", async (t) => {
  const upstream = await serving(t);
  assert.equal((await get(`${await serving(t, { UPSTREAM_URL: `${upstream}/health` })}/health/detailed`)).status, "ok");
  const said = await get(`${await serving(t, { UPSTREAM_URL: "http://127.0.0.1:9/" })}/health/detailed`);
  assert.equal(said.status, "degraded");
  assert.equal(said.checks.upstream.status, "down");
});

test("a wrong port is said", () => {
  assert.throws(() => configuration({ PORT: "http" }), /PORT: is http/);
});
