"""Containers on a local or remote Docker Engine, behind an Envoy on the worker's machine.

Labels identify each container, so all state is read from the engine. On a local engine each instance has an IP address
in a network of the target; on a remote one each publishes a port. Both stay the same when the engine restarts a
container, so Envoy's configuration need not change.
"""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from typing import Any, Literal

import docker
from docker.errors import APIError, ImageNotFound, NotFound
from pydantic import Field, SecretStr

from blocks.envoy.xds import Address
from blocks.targets._app_state import AppState, InstanceState, RevisionState
from blocks.targets._envoy_fronted import BehindEnvoy
from blocks.targets._instance_checks import InstanceStatus
from blocks.targets.docker import containers, network
from blocks.targets.docker.cleanup import remove_stopped
from blocks.targets.docker.containers import CONFIG_HASH, LABEL, SECOND, STOPPED
from headway.build import docker_engine as engines
from headway.build.docker_engine import connected, words
from headway.domain.errors import TargetError
from headway.domain.log_lines import LogLine, by_time
from headway.domain.ports import Command
from headway.domain.refusal import Refusal
from headway.domain.revision import LaunchSpec, Revision

__all__ = ["DockerTarget"]

PORT = 8080  # port of a container; each has its own IP address
PUBLISHED = range(20000, 32000)  # ports of a remote engine for instances; below the range of ephemeral ports
LOGS = {"type": "json-file", "config": {"max-size": "10m", "max-file": "4"}}
PROCESSES = 4096  # of one container
RANDOM = secrets.SystemRandom()
FOLLOW = 0.3  # seconds between two reads of the logs


class DockerTarget(BehindEnvoy):
    """Containers with limits, dropped capabilities and a read-only root, behind Envoy."""

    _block_type_name = "Headway Docker Target"
    _block_type_slug = "docker"
    _description = "Runs apps as containers on a Docker Engine, behind Envoy."

    url: str | None = Field(
        default=None, description="URL of the engine: unix://, tcp:// or ssh://. Default: DOCKER_HOST"
    )
    namespace: str | None = Field(
        default=None, description="label of the target's containers and network. Default: the block's name"
    )
    username: str | None = Field(default=None, description="user name at the registry that images are pulled from")
    password: SecretStr | None = Field(default=None, description="password or token of that user")
    keep: int = Field(
        default=3, ge=0, description="number of earlier revisions whose stopped containers and images are kept"
    )
    read_only: bool = Field(default=True, description="mount the root file system read-only, except /tmp")
    cap_add: list[str] = Field(
        default=[], description="Linux capabilities that apps keep, such as CHOWN. Default: none"
    )

    def destroy(self) -> None:
        """Stop and remove the containers, network and proxies of this target. Images and files stay."""
        self._supervisor.shut_down()
        with self._engine() as engine:
            for label in ("target", "command"):
                for container in engine.api.containers(all=True, filters={"label": f"{LABEL}{label}={self._label}"}):
                    with suppress(NotFound):
                        engine.api.remove_container(container["Id"], force=True, v=True)
            with suppress(NotFound):
                engine.api.remove_network(self._label)

    def revive(self, app: str) -> bool:
        """Start Envoy and dead containers again: an engine that was killed does not restart them."""
        revived = super().revive(app)
        with self._engine() as engine:
            for name in self._read(app).names():
                found = self._inspected(engine, name)
                if found is not None and found["State"]["Status"] in STOPPED:
                    engine.api.start(found["Id"])
                    revived = True
        return revived

    def suspend(self) -> None:
        super().suspend()
        with self._engine() as engine:
            for container in self._containers(engine):
                if container["State"] not in STOPPED:
                    engine.api.stop(container["Id"])

    # --- instances ---------------------------------------------------------------------------------------------

    def _statuses(self, app: str, names: Collection[str]) -> Mapping[str, InstanceStatus]:  # noqa: ARG002  # one engine
        with self._engine() as engine:
            return {name: containers.status(engine, self._inspected(engine, name)) for name in names}

    def _free_address(self, app: str, taken: Collection[Address]) -> Address:  # noqa: ARG002  # one network
        with self._engine() as engine:
            used = {*taken, *(containers.address(one) for one in self._containers(engine)), *self._in_use(engine)}
            enough = len(used) + 1  # at least one of the candidates is free
            if remote := self._remote:
                candidates = [(remote, port) for port in RANDOM.sample(PUBLISHED, min(enough, len(PUBLISHED)))]
            else:
                candidates = [(host, PORT) for host in network.free_hosts(engine, self._label, enough, self._home)]
        free = next((one for one in candidates if one not in used), None)
        if free is None:
            raise TargetError(
                f"{self._label}: no address is left for another instance; containers have {len(used)}",
                "retire some, or give the target a lower `keep`",
            )
        return free

    def _stopped(self, revision: Revision) -> Mapping[str, Address]:
        with self._engine() as engine:
            used = self._in_use(engine)
            return {
                one["Labels"][f"{LABEL}instance"]: containers.address(one)
                for one in self._containers(engine, revision.app)
                if one["Labels"][f"{LABEL}revision"] == revision.id
                and one["State"] in STOPPED
                and containers.address(one) not in used
            }

    def _in_use(self, engine: docker.DockerClient) -> set[Address]:
        """Addresses of all running containers, of other targets too."""
        if remote := self._remote:
            return {
                (remote, port["PublicPort"])
                for one in engine.api.containers()
                for port in one["Ports"]
                if "PublicPort" in port
            }
        return {(host, PORT) for host in network.addresses_in_use(engine, self._label)}

    def _start(self, name: str, instance: InstanceState, revision: Revision, spec: LaunchSpec) -> None:
        with self._engine() as engine:
            image = self._image(engine, spec.artifact.location)
            wanted = self._config(engine, name, instance.address, revision, spec, image)
            found = self._inspected(engine, name)
            if found is not None and not found["State"]["Running"] and not containers.fits(found, wanted):
                engine.api.remove_container(found["Id"], force=True, v=True)
                found = None
            if found is None:
                engine.api.create_container_from_config(wanted, name=self._container_name(name))
            if found is None or not found["State"]["Running"]:
                engine.api.start(self._container_name(name))

    def _end(self, app: str, names: Collection[str]) -> None:
        with self._engine() as engine:
            with ThreadPoolExecutor(max(1, len(names))) as pool:
                list(pool.map(lambda name: self._end_one(engine, name), names))
            remove_stopped(engine, self._containers(engine, app), self._read(app).carried, self.keep)

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
            remove_stopped(engine, self._containers(engine, app), self._read(app).carried, keep=0)

    def execute(self, revision: Revision, spec: LaunchSpec, command: Command) -> int:
        name = self._container_name(f"{revision.app}-command")
        address = self._free_address(revision.app, ())
        with self._engine() as engine:
            image = self._image(engine, spec.artifact.location)
            wanted = containers.command_config(
                self._config(engine, name, address, revision, spec, image), command.text, self._label
            )
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
                return _await_exit(engine, made, command)
            finally:
                engine.api.remove_container(made, force=True, v=True)

    def missing(self, spec: LaunchSpec) -> Refusal | None:
        location = spec.artifact.location
        with self._engine() as engine:
            with suppress(ImageNotFound):
                engine.api.inspect_image(location)
                return None
            try:
                engine.api.inspect_distribution(location, auth_config=self._login)
            except APIError as error:
                return Refusal(f"image {location} is not on the engine, and its registry says: {words(error)}")
        return None

    # --- logs --------------------------------------------------------------------------------------------------

    def _instances_with_logs(self, app: str, revision: str | None) -> list[str]:
        with self._engine() as engine:
            names = sorted(one["Labels"][f"{LABEL}instance"] for one in self._containers(engine, app))
        return [name for name in names if revision is None or revision in name]

    def _log_lines(self, app: str, name: str, lines: int) -> list[LogLine]:  # noqa: ARG002  # one engine
        return self._printed(name, tail=lines)

    def _follow(self, app: str, revision: str | None, lines: int) -> Iterator[LogLine]:
        since = dict.fromkeys(self._instances_with_logs(app, revision), datetime.now(UTC))
        new = [line for name in since for line in self._printed(name, tail=lines)]
        while True:
            since |= {line.instance: line.at for line in new if line.at}
            yield from by_time(new)
            time.sleep(FOLLOW)
            new = [
                line
                for name in self._instances_with_logs(app, revision)
                for line in self._printed(name, tail="all", after=since.get(name))
            ]

    def _printed(self, name: str, tail: int | Literal["all"], after: datetime | None = None) -> list[LogLine]:
        """Lines of a container, those after a time if given; none when there is no such container."""
        with self._engine() as engine, suppress(NotFound):
            found = self._inspected(engine, name)
            if found is None:
                return []
            output = containers.masker(found)(containers.output(engine, found["Id"], tail, after))
            lines = [LogLine.stamped(name, line) for line in output.splitlines()]
            return [line for line in lines if after is None or line.at is None or line.at > after]
        return []

    # --- what is on the engine ---------------------------------------------------------------------------------

    def _read(self, app: str) -> AppState:
        """The state of the file, with the containers that run and are not in it: the file may be older, or lost."""
        state = super()._read(app)
        known = {*state.names(), *state.stopping}
        with self._engine() as engine:
            for one in self._containers(engine, app):
                labels = one["Labels"]
                name, revision = labels[f"{LABEL}instance"], labels[f"{LABEL}revision"]
                if name in known or one["State"] in STOPPED:
                    continue
                state.instances.setdefault(revision, {})[name] = InstanceState.at(containers.address(one))
                state.specs.setdefault(revision, RevisionState.model_validate_json(labels[f"{LABEL}spec"]))
                if not state.port:
                    state.port, state.preview_port = json.loads(labels[f"{LABEL}ports"])
        return state

    def _containers(self, engine: docker.DockerClient, app: str | None = None) -> list[dict[str, Any]]:
        labels = [f"{LABEL}target={self._label}", *([f"{LABEL}app={app}"] if app else [])]
        found: list[dict[str, Any]] = engine.api.containers(all=True, filters={"label": labels})
        return found

    def _inspected(self, engine: docker.DockerClient, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = engine.api.inspect_container(self._container_name(name))
        except NotFound:
            return None
        return found

    @property
    def _label(self) -> str:
        return self.namespace or f"headway-{self._block_document_name or 'default'}"

    def _container_name(self, name: str) -> str:
        """Name of an instance's container, unique on a shared engine."""
        return f"{self._label}-{name}"

    # --- creating containers -------------------------------------------------------------------------------------

    def _config(
        self,
        engine: docker.DockerClient,
        name: str,
        address: Address,
        revision: Revision,
        spec: LaunchSpec,
        image: dict[str, Any],
    ) -> dict[str, Any]:
        """Config of an instance's container, for the engine's API."""
        environment = {name: str(value) for name, value in spec.env.items()}
        environment |= self._identity(revision.app, revision, spec, PORT)
        host, port = address
        state = self._read(revision.app)
        labels = {
            "target": self._label,
            "app": revision.app,
            "environment": spec.environment,
            "revision": revision.id,
            "release": spec.release,
            "instance": name,
            "address": f"{host}:{port}",
            "ports": json.dumps([state.port, state.preview_port]),
            "image": spec.artifact.location,
            "spec": RevisionState.of(revision, spec).model_dump_json(),
            "secrets": json.dumps(spec.secrets),
        }
        api = engine.api
        host_config = api.create_host_config(
            restart_policy={"Name": "unless-stopped"},
            init=True,  # without an init, process 1 ignores SIGTERM unless it handles it
            read_only=self.read_only,
            tmpfs={"/tmp": ""},  # noqa: S108  # the container's
            cap_drop=["ALL"],
            cap_add=self.cap_add,
            security_opt=["no-new-privileges"],
            pids_limit=PROCESSES,
            mem_limit=spec.memory,
            memswap_limit=spec.memory,  # no swap
            nano_cpus=round(spec.cpu * SECOND) if spec.cpu else None,
            log_config=LOGS,
            network_mode=None if self._remote else self._label,
            port_bindings={f"{PORT}/tcp": port} if self._remote else None,
        )
        endpoint = {self._label: api.create_endpoint_config(ipv4_address=host)}
        config: dict[str, Any] = api.create_container_config(
            image["Id"],
            ["/bin/sh", "-c", spec.run] if spec.run else None,
            environment=environment,
            labels={f"{LABEL}{key}": value for key, value in labels.items()},
            ports=[PORT],
            stop_timeout=math.ceil(spec.stop_grace),
            host_config=host_config,
            networking_config=None if self._remote else api.create_networking_config(endpoint),
            healthcheck=containers.healthcheck(image),
        )
        config["Labels"][CONFIG_HASH] = containers.config_hash(config)
        return config

    def _image(self, engine: docker.DockerClient, location: str) -> dict[str, Any]:
        """The inspected image, pulled if it is missing."""
        try:
            return dict(engine.api.inspect_image(location))
        except ImageNotFound:
            pass
        try:
            engines.pull(engine, location, self._login)
            return dict(engine.api.inspect_image(location))
        except APIError as error:
            raise TargetError(
                f"{self._label}: image {location} is not on the engine, and it cannot pull it: {words(error)}",
                "was it removed from the registry? if it is private, give the target its user and password",
            ) from error

    # --- the engine --------------------------------------------------------------------------------------------

    def _engine(self) -> AbstractContextManager[docker.DockerClient]:
        return connected(self._label, self.url)

    @property
    def _remote(self) -> str:
        """IP address of a remote engine; empty for a local one."""
        return engines.host(self.url)

    @property
    def _login(self) -> dict[str, str] | None:
        if not self.username:
            return None
        return {"username": self.username, "password": self.password.get_secret_value() if self.password else ""}


def _await_exit(engine: docker.DockerClient, container: str, command: Command) -> int:
    """Exit code of the command. Raises TargetError when it is stopped or runs out of time."""
    deadline = time.monotonic() + command.timeout
    last = ""
    while True:
        found = engine.api.inspect_container(container)  # before its log, which is complete then
        masker = containers.masker(found)
        for line in sorted(masker(containers.output(engine, container)).splitlines()):  # unordered
            stamp, _, text = line.partition(" ")
            if stamp > last:
                last = stamp
                command.on_line(text)
        if not found["State"]["Running"]:
            return int(found["State"]["ExitCode"])
        if command.stop.is_set() or time.monotonic() >= deadline:
            why = "stopped" if command.stop.is_set() else f"timed out after {command.timeout:g} s"
            raise TargetError(
                f"{masker(command.text)}: {why}; its container was removed", "its last lines say what it did"
            )
        time.sleep(FOLLOW)
