"""A stand-in for the hub: folders served on this machine as repositories, as far as huggingface_hub asks."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

API = re.compile(r"/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)")
FILE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class StandIn:
    """Repositories by name and revision, each a folder; which names are refused, and how; and what was asked for."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.folders: dict[tuple[str, str], Path] = {}
        self.refusals: dict[str, tuple[int, dict[str, str]]] = {}
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()  # that came with what was asked about repositories

    def files(self) -> set[str]:
        """The files that were asked for."""
        return {match[3] for match in map(FILE.fullmatch, self.asked) if match}

    def answer(self, path: str, token: str | None) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and content."""
        self.asked.append(path)
        match = API.fullmatch(path) or FILE.fullmatch(path)
        if match is None:
            return 404, {}, b""
        self.tokens.add(token)
        repo, is_file = match[1], match.re is FILE
        known = [x for x in self.folders if x[0] == repo]
        # Like the hub, it tells anyone what a gated repository has, but does not give its files.
        if repo in self.refusals and (is_file or not known):
            return *self.refusals[repo], b""
        if not known:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        found = [x for x in known if match[2 if is_file else 3] in (x[1], commit(*x))]
        if not found:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        folder, sha = self.folders[found[0]], commit(*found[0])
        if is_file:
            content = (folder / match[3]).read_bytes()
            return 200, {"X-Repo-Commit": sha, "ETag": f'"{sha1(content).hexdigest()}"'}, content
        files = {p.relative_to(folder).as_posix(): p.stat().st_size for p in sorted(folder.rglob("*")) if p.is_file()}
        said: Any = {"id": repo, "sha": sha, "siblings": [{"rfilename": name} for name in files]}
        if match[2] == "tree":
            said = [{"type": "file", "path": name, "size": size, "oid": sha} for name, size in files.items()]
        return 200, {"Content-Type": "application/json"}, json.dumps(said).encode()


def commit(repo: str, revision: str) -> str:
    return sha1(f"{repo} {revision}".encode()).hexdigest()


@contextmanager
def serve() -> Iterator[StandIn]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            status, headers, content = stand_in.answer(path, self.headers["Authorization"])
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        stand_in = StandIn(f"http://127.0.0.1:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield stand_in
        finally:
            server.shutdown()
