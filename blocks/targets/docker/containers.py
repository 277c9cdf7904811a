"""Containers of a Docker target: their labels, configuration, status and output."""

from __future__ import annotations

import hashlib
import json
import math
import time
from datetime import datetime
from typing import Any, Literal

import docker

from blocks.envoy.xds import Address
from blocks.targets._instance_checks import InstanceStatus
from headway.domain.refusal import Refusal
from headway.system.redaction import Masker

__all__ = [
    "CONFIG_HASH",
    "LABEL",
    "SECOND",
    "STOPPED",
    "address",
    "command_config",
    "config_hash",
    "fits",
    "healthcheck",
    "masker",
    "output",
    "status",
]

LABEL = "headway."  # prefix of Headway's labels
CONFIG_HASH = f"{LABEL}made"
HEALTHCHECK = 5.0  # seconds between two HEALTHCHECKs, at most: an instance is not ready before the first
CRASHES = 2  # after which an instance that was never ready has failed
SECOND = 1_000_000_000  # in nanoseconds, the engine's unit
KILLED = 137  # exit code of a process that SIGKILL ended
STOPPED = ("exited", "created", "dead")  # states of a container that is not restarted


def status(engine: docker.DockerClient, found: dict[str, Any] | None) -> InstanceStatus:
    """Status of an inspected container."""
    if found is None:
        return InstanceStatus(unhealthy=Refusal("its container is gone: somebody removed it"))
    state = found["State"]
    if state["Running"] and not state["Restarting"]:
        reason = masker(found)(_unhealthy(state.get("Health")))
        return InstanceStatus(
            run=f"{state['StartedAt']}",
            crashed=_crashed(engine, found) if found["RestartCount"] > CRASHES else None,
            unhealthy=Refusal(reason) if reason else None,
        )
    died = _exit_reason(found)
    failed = None
    if state["Status"] in STOPPED and state["Error"]:
        failed = Refusal(f"cannot be started: {died}")
    elif found["RestartCount"] >= CRASHES:
        failed = Refusal(f"keeps dying: {died}")
    return InstanceStatus(failed=failed, unhealthy=Refusal(died))


def _crashed(engine: docker.DockerClient, found: dict[str, Any]) -> Refusal:
    """Why a container that runs again ended last, from the engine's events: its state says so only until the start."""
    what = f"keeps dying: it was started {found['RestartCount'] + 1} times"
    filters = {"container": found["Id"], "event": ["start", "oom", "die"]}
    runs: list[dict[str, dict[str, Any]]] = [{}]  # the events of each, by name; the engine has the last 256
    for event in engine.api.events(since=0, until=f"{time.time():.6f}", filters=filters, decode=True):
        if event["Action"] == "start":
            runs.append({})
        runs[-1][event["Action"]] = event["Actor"]["Attributes"]
    ended = [run for run in runs if "die" in run]
    if not ended:
        return Refusal(what)
    code = int(ended[-1]["die"]["exitCode"])
    # The kernel may also have killed a process of the container other than its first, which went on.
    killed = "oom" in ended[-1] and code == KILLED
    return Refusal(f"{what}; {_out_of_memory(found) if killed else f'it exited with code {code}'}")


def _exit_reason(found: dict[str, Any]) -> str:
    state = found["State"]
    return _out_of_memory(found) if state["OOMKilled"] else state["Error"] or f"it exited with code {state['ExitCode']}"


def _out_of_memory(found: dict[str, Any]) -> str:
    return f"out of memory (OOMKilled): its limit is {found['HostConfig']['Memory'] // 2**20} MiB"


def _unhealthy(health: dict[str, Any] | None) -> str:
    """Why the image's HEALTHCHECK does not pass; empty when it does, or there is none."""
    if health is None or health["Status"] in ("none", "healthy"):
        return ""
    if health["Status"] == "starting" or not health["Log"]:
        return "its HEALTHCHECK has not passed yet"
    return f"its HEALTHCHECK fails: {' '.join(str(health['Log'][-1]['Output']).split())[:200]}"


def healthcheck(image: dict[str, Any]) -> dict[str, Any] | None:
    """The image's own, at a shorter interval: a rollout waits for its first result."""
    check = image["Config"].get("Healthcheck")
    if not check or check["Test"][:1] == ["NONE"]:
        return None
    return {**check, "Interval": min(check.get("Interval") or math.inf, round(HEALTHCHECK * SECOND))}


def fits(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether this container has the wanted config: secrets, address or block settings may have changed."""
    same = found["Config"]["Labels"].get(CONFIG_HASH) == wanted["Labels"][CONFIG_HASH]
    return same and set(wanted["Env"]) <= set(found["Config"]["Env"])


def config_hash(config: dict[str, Any]) -> str:
    """Hash of the config without its environment: a short secret could be guessed from its hash."""
    rest = {key: value for key, value in config.items() if key not in ("Env", "Labels")}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def command_config(config: dict[str, Any], command: str, label: str) -> dict[str, Any]:
    """Config of a container that runs one command, from that of an instance. Its labels are not an instance's."""
    host = config["HostConfig"]
    host["RestartPolicy"] = {"Name": "no"}
    host.pop("PortBindings", None)
    environment = [one for one in config["Env"] if not one.startswith("PORT=")]
    labels = {f"{LABEL}command": label, f"{LABEL}secrets": config["Labels"][f"{LABEL}secrets"]}
    healthcheck = {"Test": ["NONE"]}
    shell = ["/bin/sh", "-c", command]
    return {**config, "Cmd": shell, "Env": environment, "Labels": labels, "Healthcheck": healthcheck}


def address(container: dict[str, Any]) -> Address:
    host, _, port = container["Labels"][f"{LABEL}address"].rpartition(":")
    return host, int(port)


def masker(found: dict[str, Any]) -> Masker:
    """Masks the secrets in a container's output. Its labels name the secret variables, without their values."""
    environment = dict(one.partition("=")[::2] for one in found["Config"]["Env"] or [])
    secret = json.loads(found["Config"]["Labels"].get(f"{LABEL}secrets", "[]"))
    return Masker(environment[name] for name in secret if name in environment)


def output(
    engine: docker.DockerClient, container: str, lines: int | Literal["all"] = 1000, after: datetime | None = None
) -> str:
    """The last lines of a container's log, each after its time in RFC 3339; from the second of `after` on."""
    since = math.floor(after.timestamp()) if after else None
    output: bytes = engine.api.logs(container, timestamps=True, tail=lines, since=since)
    return output.decode(errors="replace")
