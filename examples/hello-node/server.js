// Says hello, and how it and what it depends on are. Node's standard library, nothing else.
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const TIMEOUT = 2000; // milliseconds that the upstream has to answer

export function configuration(env) {
  const port = Number(env.PORT);
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw new Error(`PORT: is ${env.PORT}, expected a port`);
  return { port, version: env.HEADWAY_VERSION ?? "dev", greeting: env.GREETING ?? "hello", upstream: env.UPSTREAM_URL };
}

async function ask(url) {
  const begun = performance.now();
  const took = () => Math.round(10 * (performance.now() - begun)) / 10;
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(TIMEOUT) });
    if (!answer.ok) return { status: "down", latency_ms: took(), error: `it answers ${answer.status}` };
    return { status: "ok", latency_ms: took() };
  } catch (error) {
    return { status: "down", latency_ms: took(), error: error.cause?.code ?? error.name };
  }
}

export async function detailed({ version, upstream }) {
  const checks = upstream ? { upstream: await ask(upstream) } : {};
  const well = Object.values(checks).every((check) => check.status === "ok");
  return { status: well ? "ok" : "degraded", version, uptime_seconds: process.uptime(), checks };
}

export function app(config) {
  const pages = {
    "/": async () => ({ message: config.greeting }),
    "/health": async () => ({ status: "ok", version: config.version }),
    "/health/detailed": () => detailed(config),
  };
  return createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    const page = pages[pathname];
    const body = JSON.stringify(page ? await page() : { error: `there is no ${pathname}` });
    response.writeHead(page ? 200 : 404, { "Content-Type": "application/json", "X-Content-Type-Options": "nosniff" });
    response.end(body);
  });
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const config = configuration(process.env);
  const server = app(config).listen(config.port, process.env.HOST ?? "127.0.0.1", () =>
    console.log(JSON.stringify({ level: "info", message: "listening", port: server.address().port })),
  );
  process.on("SIGTERM", () => {
    server.close(); // finishes what has been asked
    server.closeIdleConnections();
  });
}
