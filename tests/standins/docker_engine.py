"""A Docker Engine of the tests' own, and images made of what is on this machine: none can be pulled."""

from __future__ import annotations

import io
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import pytest

from headway.domain.revision import Artifact

__all__ = ["Engine", "running"]

PYTHON = "headway-test/python"
WITH_US = ("setpriv", "--pdeathsig", "TERM")  # a test run that is killed cannot end it
START = 120.0  # seconds
LEFT_OUT = re.compile(
    r"/(test|tests|idlelib|lib2to3|ensurepip|site-packages|turtledemo|tkinter|__pycache__|config-3.*)(/|$)"
)
NUMBERS = itertools.count()  # of the engines of this process
TOOLS = ("/bin/sh", "/bin/sleep", "/bin/cat")


class Engine:
    """A dockerd with directories of its own, which can be killed and started again."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.url = f"unix://{place / 'docker.sock'}"
        number = next(NUMBERS)
        self.bridge = f"hw{os.getpid()}n{number}"  # at most 15 characters
        self.network = f"10.{200 + (os.getpid() + number) % 50}"
        self._containerd: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def client(self) -> docker.DockerClient:
        return docker.DockerClient(base_url=self.url, timeout=60)

    def start(self) -> None:
        """Without a change to what another engine on this machine has: its bridge, its rules, its networks."""
        command = [*WITH_US, "dockerd", "--host", self.url, "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        command += ["--bridge", self.bridge, "--default-address-pool", f"base={self.network}.0.0/16,size=24"]
        for option, name in (("data-root", "data"), ("exec-root", "run"), ("pidfile", "pid"), ("containerd", "sock")):
            command += [f"--{option}", str(self.place / name)]
        log = (self.place / "log").open("ab")
        if self._containerd is None:  # one of its own, as a service manager starts it: it outlives dockerd
            settings = self.place / "containerd.toml"
            settings.write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
            own = ["--root", str(self.place / "root"), "--state", str(self.place / "state")]
            own += ["--config", str(settings), "--address", str(self.place / "sock")]
            self._containerd = subprocess.Popen(
                [*WITH_US, "containerd", *own], stdout=log, stderr=log, start_new_session=True
            )
        self._process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        end = time.monotonic() + START
        while True:
            try:
                self.client.ping()
            except docker.errors.DockerException:
                if self._process.poll() is not None or time.monotonic() > end:
                    pytest.skip(f"dockerd does not start here: {(self.place / 'log').read_text()[-300:]}")
                time.sleep(0.1)
            else:
                return

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)

    def end(self) -> None:
        """Everything, whatever state it is in."""
        if self._process is None or self._process.poll() is not None:
            self.start()
        end = time.monotonic() + START
        while (left := self.client.containers.list(all=True)) and time.monotonic() < end:
            for container in left:
                with suppress(docker.errors.APIError):  # it may be on its way out already
                    container.remove(force=True, v=True)
        self.client.networks.prune()
        self.stop()
        if self._containerd is not None:
            self._containerd.terminate()
            self._containerd.wait(60)

    def image(
        self, files: dict[str, str], *, name: str = "app", dockerfile: str = 'CMD ["python3", "app.py"]'
    ) -> Artifact:
        """An image of these files on top of Python, known by its id: it is in no registry."""
        self.prepare()
        recipe = f"FROM {PYTHON}\nWORKDIR /app\nCOPY . .\n{dockerfile}\n"
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as tar:
            for path, content in {"Dockerfile": recipe, ".dockerignore": "Dockerfile\n", **files}.items():
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(content.encode()), 0o644
                tar.addfile(entry, io.BytesIO(content.encode()))
        context.seek(0)
        image, _ = self.client.images.build(
            fileobj=context, custom_context=True, tag=f"headway-test/{name}", rm=True, network_mode="none"
        )
        return Artifact(kind="image", digest=image.id, location=image.id, size=image.attrs["Size"])

    def prepare(self) -> None:
        """Have the image that others are built on."""
        if not self.client.images.list(PYTHON):
            self._import_python()

    def _import_python(self) -> None:
        """This interpreter with its standard library, the libraries both need, and a shell."""
        interpreter = Path(sys.executable).resolve()
        library = Path(sysconfig.get_path("stdlib"))
        binaries = [interpreter, *map(Path, TOOLS), *library.glob("lib-dynload/*.so")]
        with tempfile.NamedTemporaryFile(suffix=".tar") as rootfs:
            with tarfile.open(fileobj=rootfs, mode="w") as tar:
                for file in {one for binary in binaries for one in _libraries(binary)} | {Path(one) for one in TOOLS}:
                    tar.add(file.resolve(), str(file))
                tar.add(interpreter, str(interpreter))
                tar.add(library, str(library), filter=lambda one: None if LEFT_OUT.search(f"/{one.name}") else one)
                link = tarfile.TarInfo("/usr/bin/python3")
                link.type, link.linkname = tarfile.SYMTYPE, str(interpreter)
                tar.addfile(link)
                for directory in ("/tmp", "/proc", "/sys", "/dev", "/etc"):  # the image's
                    entry = tarfile.TarInfo(directory)
                    entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if directory == "/tmp" else 0o755
                    tar.addfile(entry)
            rootfs.flush()
            changes = ["ENV PATH=/usr/bin:/bin", "ENV PYTHONDONTWRITEBYTECODE=1", "ENV LISTEN=0.0.0.0"]
            self.client.api.import_image_from_file(rootfs.name, PYTHON, changes=changes)


@contextmanager
def running(place: Path, *, data: str | None = None) -> Iterator[Engine]:
    """An engine that runs, and that leaves nothing behind; its data on a tmpfs with these options, when given."""
    if shutil.which("dockerd") is None:
        pytest.skip("no dockerd on this machine: apt-get install docker.io")
    if os.getuid() != 0:
        pytest.skip("dockerd needs root")
    place.mkdir(parents=True, exist_ok=True)
    engine = Engine(place)
    if data:
        (place / "data").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", data, "tmpfs", place / "data"], check=True, timeout=60)
    _ip("link", "add", engine.bridge, "type", "bridge")
    try:
        _ip("address", "add", f"{engine.network}.255.1/24", "dev", engine.bridge)
        engine.start()
        yield engine
    finally:
        engine.end()
        _ip("link", "delete", engine.bridge)
        if data:
            subprocess.run(["umount", "--lazy", place / "data"], check=True, timeout=60)
        shutil.rmtree(place, ignore_errors=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=60)


def _libraries(binary: Path) -> list[Path]:
    told = subprocess.run(["ldd", binary], capture_output=True, text=True, check=False).stdout
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", told)]
