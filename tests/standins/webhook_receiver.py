"""The webhook receiver on a real socket, with a real ledger and a fake Prefect server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from headway.domain.errors import HeadwayError, NotFound
from headway.ledger import Ledger
from headway.service.api import authorize, oidc_routes, pages, releases, sign_in, webhooks
from headway.service.api.app import app as whole
from headway.service.api.authentication import Site
from headway.service.api.delivery_batcher import DeliveryBatcher
from headway.service.api.http_server import DeadlineProtocol
from headway.service.api.rate_limits import RateLimits
from headway.service.api.responses import LargeBodies
from headway.service.api.services import Services, current_services
from headway.service.api.webhook_secrets import WebhookSecrets
from headway.service.prefect.client import Control

__all__ = ["Receiver", "receiver"]


class FakeControl(Control):
    """Starts a run for every key, in memory."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.fault: HeadwayError | None = None

    def start(
        self,
        deployment: str,
        parameters: dict[str, Any],
        *,
        idempotency_key: str | None = None,
        creator: Mapping[str, str] | None = None,
    ) -> str:
        assert deployment == "release/release-commit"
        if self.fault:
            raise self.fault
        key = idempotency_key or str(len(self.runs))
        self.runs.setdefault(key, parameters)
        return f"run-{list(self.runs).index(key) + 1}"

    def run_url(self, flow_run_id: str) -> str:
        return f"http://prefect/runs/flow-run/{flow_run_id}"


class Receiver:
    """Where it listens, what it has kept, and the secrets that exist."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.secrets: dict[str, str] = {}
        self.url = ""
        self.client = httpx.Client()
        self.app = FastAPI()
        self.app.include_router(webhooks.router)
        for router in (releases.router, authorize.router, sign_in.router, pages.router, oidc_routes.router):
            self.app.include_router(router)
        self.control = FakeControl()
        self.services = Services(
            ledger=ledger,
            owner="root",
            control=self.control,
            load_secret=self._secret,
            rate_limits=RateLimits(),
            large_bodies=LargeBodies(),
            delivery_batcher=DeliveryBatcher(ledger),
            webhook_secrets=WebhookSecrets(ledger, self._secret),
            deliveries_stored=asyncio.Event(),
            site=Site("http://127.0.0.1:4300", frozenset({"127.0.0.1:4300"})),
            checks={},
        )
        self.app.dependency_overrides[current_services] = self._current_services

    async def _current_services(self) -> Services:
        return self.services

    async def _secret(self, name: str, where: str) -> str:
        if name not in self.secrets:
            raise NotFound(f"{where}: there is no secret {name}")
        return self.secrets[name]

    def register(self, name: str, repo: str, host: str, secret: str | None) -> None:
        if secret is not None:
            self.secrets[f"{name}-webhook"] = secret
        self.ledger.apps.register(name, repo=repo, host=host, secret=f"{name}-webhook", by="ann")

    def send(self, host: str, headers: dict[str, str], body: bytes) -> httpx.Response:
        headers = {"content-type": "application/json"} | headers
        return self.client.post(f"/hooks/{host}", headers=headers, content=body)

    def forgive(self) -> None:
        """Send further requests from new client addresses."""
        self.services = replace(self.services, rate_limits=RateLimits())


@contextmanager
def receiver(place: Path) -> Iterator[Receiver]:
    """One that listens until the block ends."""
    assert whole.openapi()["paths"].keys() >= {"/hooks/{host}", "/api/releases"}
    with Ledger.open(f"sqlite:///{place / 'ledger.db'}") as ledger:
        made = Receiver(ledger)
        config = uvicorn.Config(
            made.app,
            host="127.0.0.1",
            port=0,
            log_level="warning",
            log_config=None,
            lifespan="off",
            http=DeadlineProtocol,
            ws="none",
        )
        server = uvicorn.Server(config)
        thread = Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
            made.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
            with httpx.Client(base_url=made.url, trust_env=False, timeout=30) as made.client:
                yield made
        finally:
            server.should_exit = True
            thread.join()
