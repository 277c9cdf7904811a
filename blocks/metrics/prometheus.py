"""Business metrics from Prometheus, or another server with its HTTP API."""

from __future__ import annotations

import json
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from prefect.blocks.core import Block
from pydantic import ConfigDict, Field, HttpUrl, SecretStr, TypeAdapter, field_validator

from headway.domain.errors import MetricsUnavailable
from headway.domain.measurements import Sample
from headway.domain.ports import MetricSource
from headway.system import tls
from headway.system.redaction import Masker

__all__ = ["Prometheus"]

LARGEST = 10_000_000  # bytes of an answer
LONGEST = 200  # characters of an expression or of Prometheus' message in an error


class Prometheus(Block, MetricSource):
    """Instant queries in PromQL.

    An expression must return one value: a scalar, or a vector of at most one series.
    """

    _block_type_name = "Headway Prometheus"
    _block_type_slug = "prometheus"
    _description = "Asks Prometheus for business metrics."

    model_config = ConfigDict(hide_input_in_errors=True)  # a rejected value may be the token, or a URL with a password

    url: str = Field(description="base URL, such as http://prometheus:9090")
    token: SecretStr | None = Field(default=None, description="bearer token of requests")
    timeout: float = Field(default=5.0, gt=0, allow_inf_nan=False, description="seconds that a query may take")

    @field_validator("url")
    @classmethod
    def _base(cls, value: str) -> str:
        url = TypeAdapter(HttpUrl).validate_python(value)
        if url.username or url.password:
            raise ValueError("no user or password in the URL: it is shown in logs; use the token")
        if url.query is not None or url.fragment is not None:
            raise ValueError("the base URL only, without ? and #")
        return str(url).rstrip("/")

    @field_validator("token")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        # Tokens read from files often end in a newline. An empty field of a form is an empty string.
        token = value.get_secret_value().strip() if value else ""
        if not all("!" <= character <= "~" for character in token):
            raise ValueError("a token has only printable ASCII characters and no spaces")
        return SecretStr(token) if token else None

    # --- the port ----------------------------------------------------------------------------------------------

    def query(self, expression: str) -> float | None:
        return self._value(expression, *self._result(expression))

    # --- beyond the port ---------------------------------------------------------------------------------------

    def series(self, expression: str) -> list[Sample]:
        """All series of an instant vector. NaN and infinity are no data. Raises MetricsUnavailable."""
        kind, result = self._result(expression)
        if kind != "vector" or not isinstance(result, list):
            raise self._error(f"{self._quote(expression)} gives a {kind} instead of series", "ask for a vector")
        return [one for told in result if math.isfinite((one := self._sample(expression, told)).value)]

    # --- asking ------------------------------------------------------------------------------------------------

    def _result(self, expression: str) -> tuple[str, Any]:
        """Kind and content of the answer."""
        status, body = self._ask(expression)
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if status != httpx.codes.OK and not _refuses(said):
            raise self._error(f"answers {status}", _what_to_do(status))
        match said:
            case {"status": "error", "error": str(words)}:
                asked = self._quote(expression)
                raise self._error(f"refuses {asked}: {self._quote(words)}", f"try the expression at {self.url}/graph")
            case {"status": "success", "data": {"resultType": str(kind), "result": result}}:
                return kind, result
        raise self._not_prometheus()

    def _ask(self, expression: str) -> tuple[int, bytes]:
        """Status and body of the answer. Raises MetricsUnavailable when there is none in time."""
        # httpx limits each step but not their sum, and does not limit the DNS lookup.
        pool = ThreadPoolExecutor(1, "prometheus")
        try:
            return pool.submit(self._fetch, expression).result(self.timeout)
        except (TimeoutError, httpx.TimeoutException):
            raise self._error(
                f"no answer within {self.timeout:g} s", "see whether it is overloaded, or raise the block's timeout"
            ) from None
        except (httpx.InvalidURL, UnicodeError) as error:
            raise self._error(
                f"{self._quote(expression)} cannot be sent: {self._quote(str(error))}",
                "check the expression and the block's URL",
            ) from None
        except httpx.HTTPError as error:
            # Not chained: the original quotes the server's text, which may contain the token.
            raise self._error(
                f"{type(error).__name__}: {self._quote(str(error))}",
                "see whether it runs and the worker can reach it, and whether the block's URL is right",
            ) from None
        finally:
            pool.shutdown(wait=False)

    def _fetch(self, expression: str) -> tuple[int, bytes]:
        end = time.monotonic() + self.timeout
        headers = {"Authorization": f"Bearer {self.token.get_secret_value()}"} if self.token else {}
        url, asked = f"{self.url}/api/v1/query", {"query": expression}
        body = bytearray()
        with (
            httpx.Client(timeout=self.timeout, trust_env=False, headers=headers, verify=tls.for_url(url)) as client,
            client.stream("GET", url, params=asked) as answer,
        ):
            for piece in answer.iter_bytes():
                body += piece
                if time.monotonic() > end:  # the caller has timed out: end the thread
                    raise httpx.ReadTimeout("")
                if len(body) > LARGEST:
                    raise self._error(
                        f"{self._quote(expression)} gives more than {LARGEST:,} bytes", "aggregate, as in sum(...)"
                    )
        return answer.status_code, bytes(body)

    # --- understanding -----------------------------------------------------------------------------------------

    def _sample(self, expression: str, series: Any) -> Sample:
        match series:
            case {"metric": dict(labels), "value": [_, str(value)]}:
                return Sample(labels, self._number(value))
            case {"histogram": _}:
                raise self._histogram(expression)
        raise self._not_prometheus()

    def _value(self, expression: str, kind: str, result: Any) -> float | None:
        asked = self._quote(expression)
        match kind, result:
            case "vector", []:
                return None
            case ("scalar", [_, str(value)]) | ("vector", [{"value": [_, str(value)]}]):
                number = self._number(value)
                return None if math.isnan(number) else number
            case "vector", [_, _, *_]:
                raise self._error(
                    f"{asked} gives {len(result)} series instead of one", "aggregate them, as in sum(...) or max(...)"
                )
            case "vector", [{"histogram": _}]:
                raise self._histogram(expression)
            case "matrix" | "string", _:
                raise self._error(
                    f"{asked} gives a {kind} instead of a number", "ask for a value at one time, as in rate(...[5m])"
                )
        raise self._not_prometheus()

    def _number(self, value: str) -> float:
        try:
            return float(value)
        except ValueError:
            raise self._not_prometheus() from None

    # --- errors ------------------------------------------------------------------------------------------------

    def _error(self, what: str, hint: str) -> MetricsUnavailable:
        return MetricsUnavailable(f"Prometheus at {self.url}: {what}", hint)

    def _histogram(self, expression: str) -> MetricsUnavailable:
        return self._error(
            f"{self._quote(expression)} gives a histogram instead of a number",
            "take histogram_quantile(...) or such of it",
        )

    def _not_prometheus(self) -> MetricsUnavailable:
        return self._error("answers, but not as Prometheus does", _what_to_do(httpx.codes.OK))

    def _quote(self, text: str) -> str:
        """Text for an error message: token masked, on one line, at most 200 characters."""
        masked = Masker([self.token.get_secret_value()] if self.token else [])(text)
        line = " ".join("".join(one if one.isprintable() else " " for one in masked).split())
        return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _refuses(said: Any) -> bool:
    """Whether the response is an error of Prometheus itself, with a message, and not of a proxy."""
    return isinstance(said, dict) and said.get("status") == "error" and isinstance(said.get("error"), str)


def _what_to_do(status: int) -> str:
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return "give the block a token that may query"
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return "see its log, or that of the proxy in front of it"
    return "check the block's URL: what follows it is /api/v1/query"
