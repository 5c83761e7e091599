"""A hub on this machine: the part of huggingface.co's HTTP that downloads speak, and its moods."""

import hashlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

HALF = "half"  # of a file, and then the connection drops


def files_of(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder as a repository has them."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in paths}


class Hub:
    """Repositories at commits, a list of who asked what, and how it misbehaves."""

    def __init__(self) -> None:
        self.commits: dict[tuple[str, str], dict[str, bytes]] = {}  # (name, commit): files
        self.refs: dict[tuple[str, str], str] = {}
        self.blobs: dict[str, bytes] = {}
        self.gated: set[str] = set()
        self.moods: dict[str, int | str] = {}  # part of a path: a status, a number of drops, "slow"
        self.unlisted: set[str] = set()  # files that are listed and not there
        self.asked: list[tuple[str, str]] = []
        self.tokens: dict[str, set[str]] = {"hub": set(), "cdn": set()}  # who was shown which
        # Large files come from another server, as they do on the real one.
        self.servers = {
            who: ThreadingHTTPServer(
                ("127.0.0.1", 0), type(who, (Answer,), {"hub": self, "who": who})
            )
            for who in self.tokens
        }
        self.url, self.cdn = (f"http://127.0.0.1:{s.server_port}" for s in self.servers.values())
        for server in self.servers.values():
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def push(self, name: str, files: dict[str, bytes], *refs: str) -> str:
        """Make a commit, and move branches or tags to it; main, unless others are named."""
        told = json.dumps([name, *((k, hashlib.sha1(v).hexdigest()) for k, v in files.items())])
        commit = hashlib.sha1(told.encode()).hexdigest()
        self.commits[name, commit] = files
        for ref in refs or ("main",):
            self.refs[name, ref] = commit
        return commit

    def forget(self) -> None:
        """Begin to count anew."""
        self.asked.clear()

    def fetched(self) -> list[str]:
        """Return the files whose bytes were asked for."""
        paths = (p.partition("/resolve/")[2].partition("/")[2] for m, p in self.asked if m == "GET")
        return sorted(path for path in paths if path)

    def close(self) -> None:
        for server in self.servers.values():
            server.shutdown()
            server.server_close()


class Answer(BaseHTTPRequestHandler):
    """One request."""

    hub: Hub
    who: str
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or what follows a head waits 40 ms for the reader's word

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path))
        if token := self.headers.get("Authorization"):
            self.hub.tokens[self.who].add(token)
        for part, mood in self.hub.moods.items():
            if part in path:
                if mood == "slow":
                    time.sleep(1.5)
                elif isinstance(mood, int) and mood >= 400:
                    return self.reply(mood, b"{}")
        if match := re.fullmatch(r"/api/models/(.+?)(?:/revision/(.+))?", path):
            return self.about(match[1], match[2] or "main")
        if match := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            return self.resolve(*match.groups())
        if match := re.fullmatch(r"/cdn/([0-9a-f]{40})", path):
            return self.blob(match[1])
        return self.reply(404, b"{}")

    def do_HEAD(self) -> None:
        self.do_GET()

    def commit(self, name: str, revision: str) -> str | None:
        """Return the commit of a revision; what is wrong is answered."""
        if not any(known == name for known, _ in self.hub.commits):
            return self.reply(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        if name in self.hub.gated and "Authorization" not in self.headers:
            return self.reply(401, b"{}", {"X-Error-Code": "GatedRepo"})
        commit = self.hub.refs.get((name, revision), revision)
        if (name, commit) not in self.hub.commits:
            return self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        return commit

    def about(self, name: str, revision: str) -> None:
        if commit := self.commit(name, revision):
            files = [{"rfilename": path} for path in self.hub.commits[name, commit]]
            about = {"id": name, "sha": commit, "siblings": files, "tags": [], "downloads": 0,
                     "likes": 0, "private": False, "disabled": False, "lastModified":
                     "2024-01-01T00:00:00.000Z"}  # fmt: skip
            self.reply(200, json.dumps(about).encode(), {"Content-Type": "application/json"})

    def resolve(self, name: str, revision: str, path: str) -> None:
        if commit := self.commit(name, revision):
            known = {"X-Repo-Commit": commit}
            content = self.hub.commits[name, commit].get(path)
            if content is None or path in self.hub.unlisted:
                return self.reply(404, b"", {**known, "X-Error-Code": "EntryNotFound"})
            tag = hashlib.sha1(content).hexdigest()
            self.hub.blobs[tag] = content
            if path.endswith((".safetensors", ".bin")):  # as large files: a link to a CDN
                linked = {"X-Linked-Etag": f'"{tag}"', "X-Linked-Size": str(len(content))}
                return self.reply(
                    302, b"", {**known, **linked, "Location": f"{self.hub.cdn}/cdn/{tag}"}
                )
            return self.send(content, {**known, "ETag": f'"{tag}"'})
        return None

    def blob(self, tag: str) -> None:
        content = self.hub.blobs[tag]
        drops = self.hub.moods.get(HALF, 0)
        if drops and self.command == "GET":
            self.hub.moods[HALF] = drops - 1
            start = self.start(content)
            self.head(206 if start else 200, len(content) - start, {"ETag": f'"{tag}"'})
            # The first time some bytes come; a hub that always drops sends none after these.
            self.wfile.write(b"" if start else content[: len(content) // 2])
            self.wfile.flush()
            self.close_connection = True
            return
        self.send(content, {"ETag": f'"{tag}"'})

    def start(self, content: bytes) -> int:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        return int(asked[1]) if asked else 0

    def send(self, content: bytes, headers: dict[str, str]) -> None:
        if start := self.start(content):
            part = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.reply(206, content[start:], {**headers, "Content-Range": part})
        else:
            self.reply(200, content, headers)

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.head(status, len(body), headers or {})
        if self.command != "HEAD":
            self.wfile.write(body)

    def head(self, status: int, length: int, headers: dict[str, str]) -> None:
        # A server in trouble may say more than it should.
        told = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.send_response(status, f"Bad {told}" if status >= 500 and told else None)
        for name, value in {**headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass
