"""Send requests at a steady rate over persistent connections and count the responses, for the demo and benchmarks."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType

import httpx

from headway.domain.revision import REVISION_HEADER
from headway.system import tls

__all__ = ["Load"]

TIMEOUT = 10.0  # seconds


class Load:
    """`with Load(url, paths=..., rate=50) as load:` sends about `rate` requests per second until the block ends.

    A request fails without a response or with status 500 and above. `worst` is the longest response time in seconds.
    """

    def __init__(
        self,
        url: str,
        *,
        paths: Sequence[str] = ("/",),
        rate: float = 50.0,
        workers: int = 4,
        headers: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.url = url
        self._headers = dict(headers)
        self.sent = 0
        self.failed = 0
        self.worst = 0.0
        self.failures: list[str] = []
        self.seen: dict[str, int] = {}
        self._paths = itertools.cycle(paths)
        self._pause = workers / rate
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(workers)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(TIMEOUT + 1)

    def _send(self) -> None:
        with httpx.Client(
            base_url=self.url,
            headers=self._headers,
            timeout=TIMEOUT,
            trust_env=False,
            verify=tls.for_url(self.url),
        ) as client:
            while not self._stop.is_set():
                begun = time.monotonic()
                with self._lock:
                    path = next(self._paths)
                failure, revision = _one(client, path)
                took = time.monotonic() - begun
                with self._lock:
                    self.sent += 1
                    self.worst = max(self.worst, took)
                    self.seen[revision] = self.seen.get(revision, 0) + 1
                    if failure:
                        self.failed += 1
                        self.failures.append(f"{path}: {failure}")
                self._stop.wait(max(0.0, self._pause - took))


def _one(client: httpx.Client, path: str) -> tuple[str, str]:
    try:
        answer = client.get(path)
    except httpx.HTTPError as error:
        return type(error).__name__, ""
    failure = f"{answer.status_code} {answer.text[:80].strip()}" if answer.is_server_error else ""
    return failure, answer.headers.get(REVISION_HEADER, "")
