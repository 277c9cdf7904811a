"""Containers on a Docker Engine, here or elsewhere, behind an Envoy on the worker's machine.

Labels say what a container is, so nothing but the engine is needed to know what runs. On a local engine instances have
an address of their own on a network of the target's; on a remote one each publishes a port. Either stays the same when
the engine starts a container again, so Envoy never has to be told.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import math
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import docker
from docker.errors import APIError, ImageNotFound, NotFound
from prefect.logging import get_logger
from pydantic import Field, SecretStr

from blocks.envoy.proxy import Address
from blocks.targets._envoy_fronted import BehindEnvoy, Standing
from headway.build import docker_engine as engines
from headway.build.docker_engine import connected, words
from headway.domain.errors import TargetError
from headway.domain.ports import Command
from headway.domain.revision import LaunchSpec, Revision
from headway.system.atomic_files import locked
from headway.system.redaction import Masker

__all__ = ["DockerTarget"]

LABEL = "headway."  # before each of ours
MADE = f"{LABEL}made"
PORT = 8080  # what a container is told to listen on; each has an address of its own
PUBLISHED = range(20000, 32000)  # ports of a remote engine that instances may get; below where systems take theirs
HEALTHCHECK = 5.0  # seconds between two HEALTHCHECKs, at most: an instance is not ready before the first
CRASHES = 3  # in a row; Supervisor gives up on a process as soon
CONFLICT = 409
SECOND = 1_000_000_000  # in nanoseconds, the engine's unit
LOGS = {"type": "json-file", "config": {"max-size": "10m", "max-file": "4"}}
PROCESSES = 4096  # of one container
STILL = ("exited", "created", "dead")  # states of a container that does not run, and will not by itself
RANDOM = secrets.SystemRandom()
FOLLOW = 0.3  # seconds between two looks at the logs


class DockerTarget(BehindEnvoy):
    """Containers with limits, dropped capabilities and a read-only root, behind Envoy."""

    _block_type_name = "Headway Docker Target"
    _block_type_slug = "docker"
    _description = "Runs apps as containers on a Docker Engine, behind Envoy."

    url: str | None = Field(
        default=None, description="the engine, as DOCKER_HOST has it: unix://, tcp:// or ssh://; left out: DOCKER_HOST"
    )
    namespace: str | None = Field(
        default=None, description="label of all that is this target's on the engine; left out: the block's name"
    )
    username: str | None = Field(default=None, description="user of the registry that images are pulled from")
    password: SecretStr | None = Field(default=None, description="password or token of that user")
    keep: int = Field(default=3, ge=0, description="earlier revisions whose containers and images are kept, stopped")
    read_only: bool = Field(default=True, description="the root file system is read-only, all but /tmp")
    cap_add: list[str] = Field(default=[], description="Linux capabilities an app keeps, such as CHOWN; else none")

    def destroy(self) -> None:
        """End and remove everything of this target: containers, their network, the proxies. Images and files stay."""
        self._supervisor.shut_down()
        with self._engine() as engine:
            for label in ("target", "command"):
                for container in engine.api.containers(all=True, filters={"label": f"{LABEL}{label}={self._marked}"}):
                    with suppress(NotFound):
                        engine.api.remove_container(container["Id"], force=True, v=True)
            with suppress(NotFound):
                engine.api.remove_network(self._network)

    def revive(self, app: str) -> bool:
        """An engine that was killed takes those for stopped by hand that it finds dead."""
        revived = super().revive(app)
        names = [name for ours in self._read(app)["instances"].values() for name in ours]
        with self._engine() as engine:
            for name in names:
                found = self._inspected(engine, name)
                if found is not None and found["State"]["Status"] in STILL:
                    engine.api.start(found["Id"])
                    revived = True
        return revived

    # --- instances ---------------------------------------------------------------------------------------------

    def _standing(self, app: str, names: Collection[str]) -> Mapping[str, Standing]:  # noqa: ARG002  # one engine
        with self._engine() as engine:
            return {name: _stands(self._inspected(engine, name)) for name in names}

    def _address(self, taken: Collection[Address]) -> Address:
        with self._engine() as engine:
            gone = {*taken, *(_labelled(one) for one in self._containers(engine)), *self._in_use(engine)}
            some = len(gone) + 1  # so many different ones cannot all be gone
            if remote := self._remote:
                chosen = [(remote, port) for port in RANDOM.sample(PUBLISHED, min(some, len(PUBLISHED)))]
            else:
                chosen = [(host, PORT) for host in self._hosts(engine, some)]
        free = next((one for one in chosen if one not in gone), None)
        if free is None:
            raise TargetError(
                f"{self._marked}: no address is left for another instance; containers have {len(gone)}",
                "retire some, or give the target a lower `keep`",
            )
        return free

    def _kept(self, revision: Revision) -> Mapping[str, Address]:
        with self._engine() as engine:
            gone = self._in_use(engine)
            return {
                one["Labels"][f"{LABEL}instance"]: _labelled(one)
                for one in self._containers(engine, revision.app)
                if one["Labels"][f"{LABEL}revision"] == revision.id
                and one["State"] in STILL
                and _labelled(one) not in gone
            }

    def _in_use(self, engine: docker.DockerClient) -> set[Address]:
        """Addresses that containers have now, whoever made them."""
        if remote := self._remote:
            return {
                (remote, port["PublicPort"])
                for one in engine.api.containers()
                for port in one["Ports"]
                if "PublicPort" in port
            }
        try:
            network = engine.api.inspect_network(self._network)
        except NotFound:
            return set()
        return {(one["IPv4Address"].partition("/")[0], PORT) for one in network["Containers"].values()}

    def _start(self, name: str, address: Address, revision: Revision, spec: LaunchSpec) -> None:
        with self._engine() as engine:
            image = self._image(engine, spec.artifact.location)
            wanted = self._wanted(engine, name, address, revision, spec, image)
            found = self._inspected(engine, name)
            if found is not None and not found["State"]["Running"] and not _fits(found, wanted):
                engine.api.remove_container(found["Id"], force=True, v=True)
                found = None
            if found is None:
                engine.api.create_container_from_config(wanted, name=self._called(name))
            if found is None or not found["State"]["Running"]:
                engine.api.start(self._called(name))

    def _end(self, app: str, names: Collection[str]) -> None:
        with self._engine() as engine:
            with ThreadPoolExecutor(max(1, len(names))) as pool:
                list(pool.map(lambda name: self._end_one(engine, name), names))
            self._tidy(engine, app, self.keep)

    def _end_one(self, engine: docker.DockerClient, name: str) -> None:
        found = self._inspected(engine, name)
        if found is None:
            return
        grace = int(found["Config"]["StopTimeout"])
        with suppress(NotFound):
            engine.api.stop(found["Id"], timeout=grace)

    def forget(self, app: str) -> None:
        super().forget(app)
        with self._engine() as engine:
            self._tidy(engine, app, 0)

    def _tidy(self, engine: docker.DockerClient, app: str, keep: int) -> None:
        """Remove what stands still of revisions that ended before those that are kept, and their images.

        One that never had all the traffic is the last thing anybody goes back to, and the first that is forgotten.
        """
        carried = self._read(app)["carried"]
        containers = self._containers(engine, app)
        running = {one["Labels"][f"{LABEL}revision"] for one in containers if one["State"] not in STILL}
        still = [one for one in containers if one["State"] in STILL]
        still.sort(
            key=lambda one: (one["Labels"][f"{LABEL}revision"] in carried, _ended(engine, one["Id"])), reverse=True
        )
        older = list(dict.fromkeys(one["Labels"][f"{LABEL}revision"] for one in still))
        forgotten = [revision for revision in older if revision not in running][keep:]
        for one in still:
            if one["Labels"][f"{LABEL}revision"] in forgotten:
                with _tidying(one["Id"]):
                    engine.api.remove_container(one["Id"], v=True)
        used = {one["ImageID"] for one in engine.api.containers(all=True)}
        for image, location in {(one["ImageID"], one["Labels"][f"{LABEL}image"]) for one in still}:
            if image not in used:
                with _tidying(image):
                    _forget_image(engine, image, location)

    def execute(self, revision: Revision, spec: LaunchSpec, command: Command) -> int:
        name = self._called(f"{revision.app}-command")
        address = self._address(())
        with self._engine() as engine:
            image = self._image(engine, spec.artifact.location)
            wanted = _once(self._wanted(engine, name, address, revision, spec, image), command.text, self._marked)
            with suppress(NotFound):
                if engine.api.inspect_container(name)["State"]["Running"]:
                    raise TargetError(
                        f"{spec.environment}: another command of {revision.app} is still running",
                        f"wait for its end, or end it: docker rm -f {name}",
                    )
                engine.api.remove_container(name, force=True, v=True)
            made = engine.api.create_container_from_config(wanted, name=name)["Id"]
            try:
                engine.api.start(made)
                return _ended_by_itself(engine, made, command)
            finally:
                engine.api.remove_container(made, force=True, v=True)

    def missing(self, spec: LaunchSpec) -> str:
        location = spec.artifact.location
        with self._engine() as engine:
            with suppress(ImageNotFound):
                engine.api.inspect_image(location)
                return ""
            try:
                engine.api.inspect_distribution(location, auth_config=self._login)
            except APIError as error:
                return f"image {location} is not on the engine, and its registry says: {words(error)}"
        return ""

    # --- logs --------------------------------------------------------------------------------------------------

    def _logged(self, app: str) -> list[str]:
        with self._engine() as engine:
            return sorted(one["Labels"][f"{LABEL}instance"] for one in self._containers(engine, app))

    def _said(self, app: str, name: str, lines: int) -> list[str]:  # noqa: ARG002  # one engine
        with self._engine() as engine:
            found = self._inspected(engine, name)
            if found is None:
                return []
            try:
                said: bytes = engine.api.logs(found["Id"], tail=lines)
            except NotFound:
                return []
        return _masker(found)(said.decode(errors="replace")).splitlines()

    def _follow(self, app: str, names: list[str]) -> Iterator[str]:  # noqa: ARG002  # one engine
        since = dict.fromkeys(names, datetime.now(UTC).isoformat())
        while True:
            with self._engine() as engine:
                for name in names:
                    found = self._inspected(engine, name)
                    if found is None:
                        continue
                    with suppress(NotFound):
                        for line in _masker(found)(_stamped(engine, found["Id"])).splitlines():
                            stamp, _, words = line.partition(" ")
                            if stamp > since[name]:
                                since[name] = stamp
                                yield f"{name}: {words}"
            time.sleep(FOLLOW)

    # --- what is on the engine ---------------------------------------------------------------------------------

    def _read(self, app: str) -> dict[str, Any]:
        """The state, and what runs on the engine without being in it: the file may be older, or lost."""
        state = super()._read(app)
        known = {name for ours in state["instances"].values() for name in ours} | set(state["stopping"])
        with self._engine() as engine:
            for one in self._containers(engine, app):
                labels = one["Labels"]
                name, revision = labels[f"{LABEL}instance"], labels[f"{LABEL}revision"]
                if name in known or one["State"] in STILL:
                    continue
                host, port = _labelled(one)
                ours = state["instances"].setdefault(revision, {})
                ours[name] = {"host": host, "port": port, "draining": False}
                state["specs"].setdefault(revision, json.loads(labels[f"{LABEL}spec"]))
                if not state["port"]:
                    state["port"], state["preview_port"] = json.loads(labels[f"{LABEL}ports"])
        return state

    def _containers(self, engine: docker.DockerClient, app: str | None = None) -> list[dict[str, Any]]:
        labels = [f"{LABEL}target={self._marked}", *([f"{LABEL}app={app}"] if app else [])]
        found: list[dict[str, Any]] = engine.api.containers(all=True, filters={"label": labels})
        return found

    def _inspected(self, engine: docker.DockerClient, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = engine.api.inspect_container(self._called(name))
        except NotFound:
            return None
        return found

    @property
    def _marked(self) -> str:
        return self.namespace or f"headway-{self._block_document_name or 'default'}"

    def _called(self, name: str) -> str:
        """The name of an instance's container, on an engine that others use as well."""
        return f"{self._marked}-{name}"

    # --- making containers -------------------------------------------------------------------------------------

    def _wanted(
        self,
        engine: docker.DockerClient,
        name: str,
        address: Address,
        revision: Revision,
        spec: LaunchSpec,
        image: dict[str, Any],
    ) -> dict[str, Any]:
        """The container, as the engine's API wants it."""
        environment = {name: str(value) for name, value in spec.env.items()}
        environment |= self._identity(revision.app, revision, spec, PORT)
        host, port = address
        labels = {
            "target": self._marked,
            "app": revision.app,
            "environment": spec.environment,
            "revision": revision.id,
            "release": spec.release,
            "instance": name,
            "address": f"{host}:{port}",
            "ports": json.dumps(self._ports(revision.app)),
            "image": spec.artifact.location,
            "spec": json.dumps(self._remembered(revision, spec)),
            "secrets": json.dumps(spec.secrets),
        }
        api = engine.api
        host_config = api.create_host_config(
            restart_policy={"Name": "unless-stopped"},
            init=True,  # an app that is the first process would get no SIGTERM it does not ask for
            read_only=self.read_only,
            tmpfs={"/tmp": ""},  # noqa: S108  # the container's
            cap_drop=["ALL"],
            cap_add=self.cap_add,
            security_opt=["no-new-privileges"],
            pids_limit=PROCESSES,
            mem_limit=spec.memory,
            memswap_limit=spec.memory,  # no swap beside it: out of memory is out of memory
            nano_cpus=round(spec.cpu * SECOND) if spec.cpu else None,
            log_config=LOGS,
            network_mode=None if self._remote else self._network,
            port_bindings={f"{PORT}/tcp": port} if self._remote else None,
        )
        endpoint = {self._network: api.create_endpoint_config(ipv4_address=host)}
        config: dict[str, Any] = api.create_container_config(
            image["Id"],
            ["/bin/sh", "-c", spec.run] if spec.run else None,
            environment=environment,
            labels={f"{LABEL}{key}": value for key, value in labels.items()},
            ports=[PORT],
            stop_timeout=math.ceil(spec.stop_grace),
            host_config=host_config,
            networking_config=None if self._remote else api.create_networking_config(endpoint),
            healthcheck=_healthcheck(image),
        )
        config["Labels"][MADE] = _made(config)
        return config

    def _image(self, engine: docker.DockerClient, location: str) -> dict[str, Any]:
        """The image, pulled when it is not there."""
        try:
            return dict(engine.api.inspect_image(location))
        except ImageNotFound:
            pass
        try:
            engines.pull(engine, location, self._login)
            return dict(engine.api.inspect_image(location))
        except APIError as error:
            raise TargetError(
                f"{self._marked}: image {location} is not on the engine, and it cannot pull it: {words(error)}",
                "was it removed from the registry? if it is private, give the target its user and password",
            ) from error

    # --- the engine --------------------------------------------------------------------------------------------

    def _engine(self) -> AbstractContextManager[docker.DockerClient]:
        return connected(self._marked, self.url)

    @property
    def _remote(self) -> str:
        """IP address of an engine that is not on this machine; empty for one that is."""
        return engines.host(self.url)

    @property
    def _login(self) -> dict[str, str] | None:
        if not self.username:
            return None
        return {"username": self.username, "password": self.password.get_secret_value() if self.password else ""}

    # --- its network -------------------------------------------------------------------------------------------

    @property
    def _network(self) -> str:
        return self._marked

    def _hosts(self, engine: docker.DockerClient, some: int) -> list[str]:
        """At most that many addresses of the target's network, which is made when it is not there."""
        self._home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self._home / "network.lock"):
            try:
                network = engine.api.inspect_network(self._network)
            except NotFound:
                network = self._made_network(engine)
        subnet = ipaddress.ip_network(network["IPAM"]["Config"][0]["Subnet"])
        numbers = range(2, subnet.num_addresses - 1)  # the first host is the gateway
        return [str(subnet[number]) for number in RANDOM.sample(numbers, min(some, len(numbers)))]

    def _made_network(self, engine: docker.DockerClient) -> dict[str, Any]:
        """With a subnet that is named: otherwise nobody may choose an address. The engine knows which one is free."""
        labels = {f"{LABEL}target": self._marked}
        probe = engine.api.create_network(self._network, driver="bridge", labels=labels)["Id"]
        subnet = engine.api.inspect_network(probe)["IPAM"]["Config"][0]["Subnet"]
        engine.api.remove_network(probe)
        pool = docker.types.IPAMConfig(pool_configs=[docker.types.IPAMPool(subnet=subnet)])
        engine.api.create_network(self._network, driver="bridge", ipam=pool, labels=labels)
        return dict(engine.api.inspect_network(self._network))


@contextmanager
def _tidying(what: str) -> Iterator[None]:
    """What the engine does not give up now is left for the next time: nobody's release fails for it."""
    try:
        yield
    except NotFound:
        pass
    except APIError as error:
        get_logger("headway.docker").warning("%s stays until the next time: %s", what, words(error))


def _ended(engine: docker.DockerClient, container: str) -> datetime:
    """When it last ran, not when it was made: the way back may have started an old one again since."""
    try:
        state = engine.api.inspect_container(container)["State"]
    except NotFound:
        return datetime.min.replace(tzinfo=UTC)
    return datetime.fromisoformat(state["FinishedAt"])


def _forget_image(engine: docker.DockerClient, image: str, location: str) -> None:
    """With the tags that it got in its own repository when it was built here; what others call it stays."""
    repository = engines.familiar(location.partition("@")[0])
    with suppress(ImageNotFound):
        tags = engine.api.inspect_image(image)["RepoTags"] or []
        for name in (*(tag for tag in tags if tag.rpartition(":")[0] == repository), location):
            try:
                engine.api.remove_image(name)
            except APIError as error:
                if error.status_code != CONFLICT:  # somebody has made another image of it: then it stays
                    raise


def _stands(found: dict[str, Any] | None) -> Standing:
    """What the engine says of a container."""
    if found is None:
        return Standing(ailing="its container is gone: somebody removed it")
    state = found["State"]
    if state["Running"] and not state["Restarting"]:
        return Standing(run=f"{state['StartedAt']}", ailing=_masker(found)(_sick(state.get("Health"))))
    died = _died(found)
    if state["Status"] in STILL and state["Error"]:
        return Standing(given_up=f"cannot be started: {died}", ailing=died)
    if found["RestartCount"] >= CRASHES:
        return Standing(given_up=f"keeps dying: {died}", ailing=died)
    return Standing(ailing=died)


def _died(found: dict[str, Any]) -> str:
    state = found["State"]
    if state["OOMKilled"]:
        return f"out of memory (OOMKilled): its limit is {found['HostConfig']['Memory'] // 2**20} MiB"
    return state["Error"] or f"it exited with code {state['ExitCode']}"


def _sick(health: dict[str, Any] | None) -> str:
    if health is None or health["Status"] in ("none", "healthy"):
        return ""
    if health["Status"] == "starting" or not health["Log"]:
        return "its HEALTHCHECK has not passed yet"
    return f"its HEALTHCHECK fails: {' '.join(str(health['Log'][-1]['Output']).split())[:200]}"


def _healthcheck(image: dict[str, Any]) -> dict[str, Any] | None:
    """The image's own, but asked often enough: a rollout waits for its first answer."""
    check = image["Config"].get("Healthcheck")
    if not check or check["Test"][:1] == ["NONE"]:
        return None
    return {**check, "Interval": min(check.get("Interval") or math.inf, round(HEALTHCHECK * SECOND))}


def _fits(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether this container is what is wanted: secrets may have changed since, its address, the block's settings."""
    same = found["Config"]["Labels"].get(MADE) == wanted["Labels"][MADE]
    return same and set(wanted["Env"]) <= set(found["Config"]["Env"])


def _made(config: dict[str, Any]) -> str:
    """Another one for each way to make a container. Without its variables: a digest gives a short secret away."""
    rest = {key: value for key, value in config.items() if key not in ("Env", "Labels")}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def _once(config: dict[str, Any], command: str, marked: str) -> dict[str, Any]:
    """The container of an instance, but for a command that ends: nobody takes it for an instance."""
    host = config["HostConfig"]
    host["RestartPolicy"] = {"Name": "no"}
    host.pop("PortBindings", None)
    environment = [one for one in config["Env"] if not one.startswith("PORT=")]
    labels = {f"{LABEL}command": marked, f"{LABEL}secrets": config["Labels"][f"{LABEL}secrets"]}
    healthcheck = {"Test": ["NONE"]}
    shell = ["/bin/sh", "-c", command]
    return {**config, "Cmd": shell, "Env": environment, "Labels": labels, "Healthcheck": healthcheck}


def _ended_by_itself(engine: docker.DockerClient, container: str, command: Command) -> int:
    """The exit code. Raises TargetError when it took too long, or somebody stopped it."""
    deadline = time.monotonic() + command.timeout
    last = ""
    while True:
        found = engine.api.inspect_container(container)  # before its log: what it says last is there then
        masker = _masker(found)
        for line in sorted(masker(_stamped(engine, container)).splitlines()):  # its two outputs are kept as they come
            stamp, _, said = line.partition(" ")
            if stamp > last:
                last = stamp
                command.on_line(said)
        if not found["State"]["Running"]:
            return int(found["State"]["ExitCode"])
        if command.stop.is_set() or time.monotonic() >= deadline:
            why = "stopped" if command.stop.is_set() else f"no end after {command.timeout:g} s"
            raise TargetError(
                f"{masker(command.text)}: {why}; its container was removed", "its last lines say what it did"
            )
        time.sleep(FOLLOW)


def _labelled(container: dict[str, Any]) -> Address:
    host, _, port = container["Labels"][f"{LABEL}address"].rpartition(":")
    return host, int(port)


def _masker(found: dict[str, Any]) -> Masker:
    """For whatever a container says: which of its variables are secrets is in its labels, but not their values."""
    environment = dict(one.partition("=")[::2] for one in found["Config"]["Env"] or [])
    secret = json.loads(found["Config"]["Labels"].get(f"{LABEL}secrets", "[]"))
    return Masker(environment[name] for name in secret if name in environment)


def _stamped(engine: docker.DockerClient, container: str) -> str:
    said: bytes = engine.api.logs(container, timestamps=True, tail=1000)
    return said.decode(errors="replace")
