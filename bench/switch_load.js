// The load of switch.py, run by k6. Rate and connections are in the scenario, a JSON that switch.py writes.
import http from "k6/http";
import exec from "k6/execution";
import { Counter, Trend } from "k6/metrics";

const sent = new Counter("sent");
const failed = new Counter("failed");
const matched = new Counter("matched"); // responses of the revision in REVISION
const took = new Trend("took", true);

export const options = {
  scenarios: { load: JSON.parse(__ENV.SCENARIO) },
  discardResponseBodies: true,
};

export default function () {
  // Half of them are POST: the proxy does not retry those, so it cannot hide a failure.
  const post = exec.scenario.iterationInTest % 2;
  const limits = { timeout: __ENV.TIMEOUT };
  const answer = post ? http.post(__ENV.URL, "x", limits) : http.get(__ENV.URL, limits);
  if (answer.error === "context canceled") {
    return; // k6 cancels its own requests on SIGINT; a request that hangs has reached its timeout before
  }
  sent.add(1);
  took.add(answer.timings.duration);
  const revision = answer.headers["X-Headway-Revision"];
  if (revision === __ENV.REVISION) {
    matched.add(1);
  }
  if (answer.status === 0 || answer.status >= 500) {
    failed.add(1);
    const at = new Date().toISOString();
    console.error(`${at} ${post ? "POST" : "GET"} ${answer.status} ${answer.error} ${revision || ""}`);
  }
}

export function handleSummary(data) {
  const count = (name) => (data.metrics[name] ? data.metrics[name].values.count : 0);
  const counts = { unsent: count("dropped_iterations"), milliseconds: data.state.testRunDurationMs };
  for (const name of ["sent", "failed", "matched"]) {
    counts[name] = count(name);
  }
  return { [__ENV.SUMMARY]: JSON.stringify(counts) };
}
