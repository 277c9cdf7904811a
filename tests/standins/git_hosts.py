"""Git hosts in memory, behind real sockets: of each the part of its REST API that Headway uses, as documented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["STAND_INS", "Asked", "StandIn", "listening"]

REPO = "acme/shop"
SHA = re.compile("[0-9a-f]{40}")


class Asked(NamedTuple):
    """A request, without the prefix of the API."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Answer(NamedTuple):
    status: int
    body: Any = None
    headers: Mapping[str, str] = MappingProxyType({})


NOT_FOUND = Answer(404, {"message": "Not Found"})


class StandIn:
    """Common parts: commit statuses, comments, pull requests, and injected faults."""

    prefix = ""
    page = 100

    def __init__(self) -> None:
        self.url = ""
        self.marks: dict[tuple[str, str], dict[str, Any]] = {}
        self.comments: dict[int, list[dict[str, Any]]] = {}
        self.pulls: dict[int, tuple[bool, str, bool]] = {}
        self.deployments: list[dict[str, Any]] = []
        self.removed_environments: list[str] = []
        self.may_administrate = True
        self.drafts: set[int] = set()
        self.faults: list[Answer] = []
        self.asked: list[Asked] = []
        self.writes = 0
        self._id = 100

    def has_pull(self, number: int, sha: str, *, open: bool = True, fork: bool = False) -> None:  # noqa: A002
        self.pulls[number] = (open, sha, fork)
        self.comments.setdefault(number, [])

    def mark(self, sha: str, context: str) -> tuple[str, str, str]:
        """State, description and link of a commit status, in the host's format."""
        raise NotImplementedError

    def texts(self, number: int) -> list[str]:
        return [comment["text"] for comment in self.comments[number]]

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        if self.faults:
            return self.faults.pop(0)
        if not self.authorized(asked):
            return Answer(401, {"message": "Bad credentials"})
        if asked.method != "GET":
            self.writes += 1
        return self.route(asked)

    def authorized(self, asked: Asked) -> bool:
        raise NotImplementedError

    def route(self, asked: Asked) -> Answer:
        raise NotImplementedError

    def new_id(self) -> int:
        self._id += 1
        return self._id

    def linked(self, asked: Asked, entries: list[Any], size: int) -> Answer:
        """One page, and a link to the next."""
        number = int(asked.query.get("page", "1"))
        headers = {}
        if number * size < len(entries):
            query = "&".join(f"{key}={value}" for key, value in {**asked.query, "page": number + 1}.items())
            headers["link"] = f'<{self.url}{asked.path}?{query}>; rel="next"'
        return Answer(200, entries[(number - 1) * size : number * size], headers)


class GitHub(StandIn):
    token_header = "Bearer a-token"

    def mark(self, sha: str, context: str) -> tuple[str, str, str]:
        found = self.marks[sha, context]
        return found["state"], found["description"], found["target_url"]

    def authorized(self, asked: Asked) -> bool:
        return asked.headers.get("authorization") == self.token_header

    def route(self, asked: Asked) -> Answer:
        method, path, query, _, body = asked
        if not path.startswith(f"/repos/{REPO}/"):
            return NOT_FOUND
        match method, path.removeprefix(f"/repos/{REPO}/").split("/"):
            case "POST", ["statuses", sha] if SHA.fullmatch(sha) and body["state"] in (
                "pending",
                "success",
                "failure",
                "error",
            ):
                self.marks[sha, body["context"]] = body
                return Answer(201, body)
            case "GET", ["issues", number, "comments"] if int(number) in self.comments:
                entries = [{"id": c["id"], "body": c["text"]} for c in self.comments[int(number)]]
                return self.comments_page(asked, entries)
            case "POST", ["issues", number, "comments"] if int(number) in self.comments:
                self.comments[int(number)].append({"id": self.new_id(), "text": body["body"]})
                return Answer(201, {})
            case "PATCH", ["issues", "comments", found]:
                for comment in (c for cs in self.comments.values() for c in cs if c["id"] == int(found)):
                    comment["text"] = body["body"]
                    return Answer(200, {})
            case "GET", ["pulls", number] if int(number) in self.pulls:
                return Answer(200, self.pull(int(number)))
            case "GET", ["pulls"] if query["state"] == "open":
                return self.linked(asked, [self.pull(n) for n, (is_open, _, _) in self.pulls.items() if is_open], 2)
            case "GET", ["deployments"]:
                wanted = [
                    d
                    for d in self.deployments
                    if d["ref"] == query.get("sha", d["ref"]) and d["environment"] == query["environment"]
                ]
                return Answer(200, wanted[: int(query["per_page"])])
            case "DELETE", ["deployments", number]:
                self.deployments = [d for d in self.deployments if d["id"] != int(number)]
                return Answer(200, {})
            case "DELETE", ["environments", name] if self.may_administrate:
                self.removed_environments.append(name)
                return Answer(200, {})
            case "POST", ["deployments"]:
                self.deployments.append(body | {"id": self.new_id(), "statuses": []})
                return Answer(201, self.deployments[-1])
            case "POST", ["deployments", number, "statuses"]:
                for deployment in (d for d in self.deployments if d["id"] == int(number)):
                    deployment["statuses"].append(body)
                    return Answer(201, {})
        return NOT_FOUND

    def comments_page(self, asked: Asked, entries: list[Any]) -> Answer:
        return self.linked(asked, entries, 2)

    def pull(self, number: int) -> dict[str, Any]:
        is_open, sha, fork = self.pulls[number]
        theirs = None if fork and number % 2 else {"full_name": "mallory/shop" if fork else REPO}
        return {
            "number": number,
            "state": "open" if is_open else "closed",
            "head": {"sha": sha, "ref": "feature", "repo": theirs},
            "base": {"ref": "main", "repo": {"full_name": REPO}},
        }


class Gitea(GitHub):
    prefix = "/api/v1"
    token_header = "token a-token"

    def comments_page(self, asked: Asked, entries: list[Any]) -> Answer:
        return Answer(200, entries)

    def route(self, asked: Asked) -> Answer:
        if "/deployments" in asked.path:
            return NOT_FOUND
        return super().route(asked)


class GitLab(StandIn):
    prefix = "/api/v4"

    def mark(self, sha: str, context: str) -> tuple[str, str, str]:
        found = self.marks[sha, context]
        return found["state"], found["description"], found["target_url"]

    def authorized(self, asked: Asked) -> bool:
        return asked.headers.get("private-token") == "a-token"

    def route(self, asked: Asked) -> Answer:
        method, path, query, _, body = asked
        if not path.startswith("/projects/acme%2Fshop/"):
            return NOT_FOUND
        match method, path.removeprefix("/projects/acme%2Fshop/").split("/"):
            case "POST", ["statuses", sha] if SHA.fullmatch(sha):
                known = self.marks.get((sha, body["name"]))
                if known and known["state"] == body["state"]:
                    return Answer(400, {"message": f"Cannot transition status via :run from :{body['state']}"})
                assert body["state"] in ("pending", "running", "success", "failed", "canceled")
                self.marks[sha, body["name"]] = body
                return Answer(201, body)
            case "GET", ["merge_requests", number, "notes"] if int(number) in self.comments:
                entries = [{"id": c["id"], "body": c["text"]} for c in self.comments[int(number)]]
                return self.linked(asked, entries, 2)
            case "POST", ["merge_requests", number, "notes"] if int(number) in self.comments:
                self.comments[int(number)].append({"id": self.new_id(), "text": body["body"]})
                return Answer(201, {})
            case "PUT", ["merge_requests", number, "notes", found]:
                for comment in (c for c in self.comments[int(number)] if c["id"] == int(found)):
                    comment["text"] = body["body"]
                    return Answer(200, {})
            case "GET", ["merge_requests", number] if int(number) in self.pulls:
                return Answer(200, self.pull(int(number)))
            case "GET", ["merge_requests"] if query["state"] == "opened":
                return self.linked(asked, [self.pull(n) for n, (is_open, _, _) in self.pulls.items() if is_open], 2)
        return NOT_FOUND

    def pull(self, number: int) -> dict[str, Any]:
        is_open, sha, fork = self.pulls[number]
        return {
            "iid": number,
            "state": "opened" if is_open else "merged",
            "sha": sha,
            "source_project_id": 99 if fork else 15,
            "target_project_id": 15,
            "source_branch": "feature",
            "target_branch": "main",
        }


class Bitbucket(StandIn):
    prefix = "/2.0"

    def mark(self, sha: str, context: str) -> tuple[str, str, str]:
        (found,) = (m for (where, _), m in self.marks.items() if where == sha and m["name"] == context)
        return found["state"], found["description"], found["url"]

    def authorized(self, asked: Asked) -> bool:
        return asked.headers.get("authorization") == "Bearer a-token"

    def route(self, asked: Asked) -> Answer:
        method, path, query, _, body = asked
        if not path.startswith(f"/repositories/{REPO}/"):
            return NOT_FOUND
        match method, path.removeprefix(f"/repositories/{REPO}/").split("/"):
            case "POST", ["commit", sha, "statuses", "build"] if SHA.fullmatch(sha) and len(body["key"]) <= 40:
                assert body["state"] in ("INPROGRESS", "SUCCESSFUL", "FAILED", "STOPPED")
                self.marks[sha, body["key"]] = body
                return Answer(201, body)
            case "GET", ["pullrequests", number, "comments"] if int(number) in self.comments:
                comments = self.comments[int(number)]
                entries = [{"id": c["id"], "content": {"raw": c["text"]}, "deleted": False} for c in comments]
                return self.paged(query, entries)
            case "POST", ["pullrequests", number, "comments"] if int(number) in self.comments:
                self.comments[int(number)].append({"id": self.new_id(), "text": body["content"]["raw"]})
                return Answer(201, {})
            case "PUT", ["pullrequests", number, "comments", found]:
                for comment in (c for c in self.comments[int(number)] if c["id"] == int(found)):
                    comment["text"] = body["content"]["raw"]
                    return Answer(200, {})
            case "GET", ["pullrequests", number] if int(number) in self.pulls:
                return Answer(200, self.pull(int(number)))
            case "GET", ["pullrequests"] if query["state"] == "OPEN" or self.drafts:
                pulls = [self.pull(number) for number in self.pulls]
                return self.paged(query, [pull for pull in pulls if pull["state"] == query["state"]])
        return NOT_FOUND

    def paged(self, query: dict[str, str], entries: list[Any]) -> Answer:
        number = int(query["page"])
        more = {"next": "https://api.bitbucket.org/2.0/..."} if number * 2 < len(entries) else {}
        return Answer(200, {"values": entries[(number - 1) * 2 : number * 2], **more})

    def pull(self, number: int) -> dict[str, Any]:
        is_open, sha, fork = self.pulls[number]
        theirs = None if fork and number % 2 else {"full_name": "mallory/shop" if fork else REPO}
        return {
            "id": number,
            "state": "DRAFT" if number in self.drafts else "OPEN" if is_open else "MERGED",
            "source": {"commit": {"hash": sha[:12]}, "repository": theirs, "branch": {"name": "feature"}},
            "destination": {"repository": {"full_name": REPO}, "branch": {"name": "main"}},
        }


STAND_INS: dict[str, type[StandIn]] = {"github": GitHub, "gitea": Gitea, "gitlab": GitLab, "bitbucket": Bitbucket}


@contextmanager
def listening(stand_in: StandIn) -> Iterator[StandIn]:
    """On a port of its own until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("content-length", "0"))
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            path = url.path.removeprefix(stand_in.prefix)
            status, content, extra = stand_in.answer(
                Asked(self.command, path, dict(parse_qsl(unquote(url.query))), headers, body)
            )
            payload = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815  # the library's names

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    stand_in.url = f"http://127.0.0.1:{server.server_port}{stand_in.prefix}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
