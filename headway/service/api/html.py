"""HTML pages: templates that escape what they show, and a policy that lets a page run only our own script."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from headway.domain.ages import format_age
from headway.service.api.responses import RequestRefused

__all__ = ["asset", "page", "refusal_page"]

FILES = Path(__file__).parent / "templates"
ASSETS = {"headway.css": "text/css", "headway.js": "text/javascript"}
POLICY = "; ".join(
    (
        "default-src 'none'",
        "style-src 'self'",
        "script-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)


def _age(moment: datetime | None) -> str:
    return format_age(datetime.now(UTC) - moment) if moment else ""


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


TEMPLATES = Environment(
    loader=FileSystemLoader(FILES),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters |= {"age": _age, "duration": _seconds}


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """One of the templates, and no copy of it in a cache."""
    headers = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(TEMPLATES.get_template(template).render(**values), status, headers)


def refusal_page(refused: RequestRefused) -> Response:
    return page("refused.html", refused.status, error=refused.body.error, hint=refused.body.hint)


def asset(name: str) -> Response:
    """Raises KeyError."""
    return Response((FILES / name).read_text(), media_type=ASSETS[name], headers={"Cache-Control": "max-age=300"})
