"""A stand-in for the Hugging Face Hub, with models in memory.

It has the part of the hub's interface that downloads and uploads use. Small files go into a commit,
and the others go to large-file storage.
"""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

TOKEN = "hf_secret"
_MODEL = r"/(?:api/models/)?(?P<name>[\w.-]+/[\w.-]+?)"


class Hub(ThreadingHTTPServer):
    """The server, on a port of its own.

    Attributes:
        models: name -> path -> content.
        private: names of private models.
        requests: method and path of each request.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.objects: dict[str, bytes] = {}  # by SHA-256, before and after their commit
        self.requests: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def commit_of(self, name: str) -> str:
        content = json.dumps(
            {path: hashlib.sha1(data).hexdigest() for path, data in self.models[name].items()}
        )
        return hashlib.sha1(content.encode()).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = self.path.partition("?")[0]
        self.server.requests.append(f"{self.command} {path}")
        for method, pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method:
                if "POST" in method and self.headers["Authorization"] != f"Bearer {TOKEN}":
                    self._send(401, {"error": "Invalid username or password."})
                    return
                name = match.groupdict().get("name")
                if name and name not in self.server.models:
                    error = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Not found"}
                    self._send(404, {"error": "Not found"}, **error)
                    return
                answer(self, body, **match.groupdict())
                return
        self._send(404, {"error": "Entry not found"}, **{"X-Error-Code": "EntryNotFound"})

    def _send(self, status: int, content: Any, **headers: str) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _create(self, body: bytes) -> None:
        wanted = json.loads(body)
        name = f"{wanted['organization']}/{wanted['name']}"
        # As on the hub, an existing model stays as it is, and a new one is public by default.
        if name not in self.server.models and "private" in (
            wanted.get("visibility"),
            "private" if wanted.get("private") else None,
        ):
            self.server.private.add(name)
        self.server.models.setdefault(name, {".gitattributes": b""})
        self._send(200, {"url": f"{self.server.url}/{name}"})

    def _info(self, body: bytes, name: str, revision: str | None = None) -> None:
        files = [{"rfilename": path} for path in self.server.models[name]]
        info = {"id": name, "sha": self.server.commit_of(name), "siblings": files}
        self._send(200, info | {"private": name in self.server.private})

    def _tree(self, body: bytes, name: str, revision: str) -> None:
        files = self.server.models[name].items()
        self._send(
            200,
            [
                {
                    "type": "file",
                    "path": path,
                    "size": len(data),
                    "oid": hashlib.sha1(data).hexdigest(),
                }
                for path, data in files
            ],
        )

    def _resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        data = self.server.models[name].get(path)
        if data is None:
            self._send(404, {}, **{"X-Error-Code": "EntryNotFound"})
            return
        etag = hashlib.sha1(data).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.server.commit_of(name)}
        self._send(200, data, **headers)

    def _validate(self, body: bytes) -> None:
        yaml.safe_load(json.loads(body)["content"].split("---")[1])
        self._send(200, {"errors": [], "warnings": []})

    def _preupload(self, body: bytes, name: str, revision: str) -> None:
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._send(200, {"files": files})

    def _batch(self, body: bytes, name: str) -> None:
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.url}/storage/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def _store(self, body: bytes, oid: str) -> None:
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.objects[oid] = body
        self._send(200, {})

    def _commit(self, body: bytes, name: str, revision: str) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                content = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.server.objects[value["oid"]]
            else:
                continue
            self.server.models[name][value["path"]] = content
        self._send(200, {"commitUrl": f"{self.server.url}/{name}/commit/1", "commitOid": "1" * 40})


_ROUTES = (
    (("POST",), "/api/repos/create", _Handler._create),
    (("POST",), "/api/validate-yaml", _Handler._validate),
    (("POST",), f"{_MODEL}/preupload/(?P<revision>[^/]+)", _Handler._preupload),
    (("POST",), rf"{_MODEL}\.git/info/lfs/objects/batch", _Handler._batch),
    (("POST",), f"{_MODEL}/commit/(?P<revision>[^/]+)", _Handler._commit),
    (("PUT",), "/storage/(?P<oid>[0-9a-f]+)", _Handler._store),
    (("GET",), f"{_MODEL}/tree/(?P<revision>[^/]+)", _Handler._tree),
    (("GET",), f"{_MODEL}/revision/(?P<revision>[^/]+)", _Handler._info),
    (("GET", "HEAD"), f"{_MODEL}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler._resolve),
    (("GET",), "/api/models/(?P<name>[^/]+/[^/]+)", _Handler._info),
)
