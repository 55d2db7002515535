"""A registry in memory: what of Docker's protocol Ollama uses, with tokens, redirects and Hugging Face's list of files."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hashlib
import json
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclasses.dataclass(slots=True)
class FakeRegistry:
    """Its contents and habits; every request is noted in `seen` as `(method, path, headers)`."""

    blobs: dict[str, bytes] = dataclasses.field(default_factory=dict)
    manifests: dict[str, bytes] = dataclasses.field(default_factory=dict)  # "<ns>/<model>:<tag>"
    uploads: dict[str, bytearray] = dataclasses.field(default_factory=dict)
    seen: list[tuple[str, str, Any]] = dataclasses.field(default_factory=list)
    tokens: set[str] | None = None  # those that are good; None: nobody is asked
    token_uses: int = 1 << 30  # requests that a token is good for
    redirect: str = ""  # the base address that blobs are really at
    part_redirect: str = ""  # the base address that parts of uploads are sent to
    ranges: bool = True
    pace: float = 0.0  # bytes a second of one answer; 0: as fast as can be
    sent: int = 0  # bytes of blobs
    files: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # of a sharded repository
    base: str = ""

    @property
    def host(self) -> str:
        """Address and port, as they begin a model's name."""
        return self.base.removeprefix("http://")

    def add(self, data: bytes) -> str:
        """A blob; its digest."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        self.blobs[digest] = data
        return digest

    def add_model(self, name: str, *layers: tuple[str, bytes], config: bytes = b'{"model_format":"gguf"}') -> list[str]:
        """A model of layers (short media type, bytes) and a config; the digests, that of the config last."""
        image = "application/vnd.ollama.image."
        described = [{"mediaType": image + kind, "digest": self.add(data), "size": len(data)} for kind, data in layers]
        last = {"mediaType": "application/vnd.docker.container.image.v1+json", "digest": self.add(config), "size": len(config)}
        body = {"schemaVersion": 2, "mediaType": MANIFEST, "config": last, "layers": described}
        self.manifests[name] = json.dumps(body, separators=(",", ":")).encode()
        return [layer["digest"] for layer in (*described, last)]

    def requests(self, method: str, pattern: str) -> list[Any]:
        """Headers of the requests that were made so."""
        return [headers for verb, path, headers in self.seen if verb == method and re.search(pattern, path)]


@contextlib.asynccontextmanager
async def serving(registry: FakeRegistry, host: str = "127.0.0.1") -> AsyncIterator[FakeRegistry]:
    """The registry on a free port; its address is in `base` then."""
    app = web.Application(client_max_size=1 << 30, middlewares=[_observed])
    app[_REGISTRY] = registry
    app.add_routes(_ROUTES)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    registry.base = f"http://{host}:{runner.addresses[0][1]}"
    try:
        yield registry
    finally:
        await runner.cleanup()


_REGISTRY = web.AppKey("registry", FakeRegistry)


def _of(request: web.Request) -> FakeRegistry:
    return request.app[_REGISTRY]


@web.middleware
async def _observed(request: web.Request, handler: Any) -> web.StreamResponse:
    registry = _of(request)
    registry.seen.append((request.method, request.path_qs, request.headers.copy()))
    if registry.tokens is not None and request.path.startswith("/v2/") and not _allowed(registry, request):
        scope = f"repository:{request.match_info.get('repo', '')}:pull,push"
        challenge = f'Bearer realm="{registry.base}/token",service="fake",scope="{scope}"'
        return web.Response(status=401, headers={"WWW-Authenticate": challenge})
    answer: web.StreamResponse = await handler(request)
    return answer


def _allowed(registry: FakeRegistry, request: web.Request) -> bool:
    token = request.headers.get("Authorization", "").removeprefix("Bearer ")
    if registry.tokens is None or token not in registry.tokens:
        return False
    registry.token_uses -= 1
    if registry.token_uses <= 0:
        registry.tokens.discard(token)
        registry.token_uses = 1 << 30
    return True


async def _token(request: web.Request) -> web.Response:
    """Gives a token to whoever signs the address of this very request with the key that is shown."""
    registry = _of(request)
    public, _, signature = request.headers["Authorization"].partition(":")
    empty = base64.b64encode(hashlib.sha256().hexdigest().encode()).decode()
    text = f"GET,{registry.base}{request.rel_url.raw_path_qs},{empty}"
    key = load_ssh_public_key(f"ssh-ed25519 {public}".encode())
    key.verify(base64.b64decode(signature), text.encode())  # type: ignore[call-arg, union-attr]
    assert {"service", "scope", "ts", "nonce"} <= set(request.query)
    token = secrets.token_hex(8)
    assert registry.tokens is not None
    registry.tokens.add(token)
    return web.json_response({"token": token})


# ---------------------------------------------------------------- reading


async def _get_manifest(request: web.Request) -> web.Response:
    registry, name = _of(request), f"{request.match_info['repo']}:{request.match_info['tag']}"
    if registry.files:
        return web.json_response({"error": "This is a sharded GGUF. Ollama does not support this yet."}, status=400)
    if name not in registry.manifests:
        return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN"}]}, status=404)
    return web.Response(body=registry.manifests[name], content_type=MANIFEST)


async def _get_blob(request: web.Request) -> web.StreamResponse:
    registry, digest = _of(request), request.match_info["digest"]
    if digest not in registry.blobs:
        return web.Response(status=404)
    if registry.redirect:
        raise web.HTTPTemporaryRedirect(f"{registry.redirect}/storage/{digest}")
    return await _bytes(request, registry.blobs[digest])


async def _storage(request: web.Request) -> web.StreamResponse:
    assert "Authorization" not in request.headers, "the token has leaked to another host"
    return await _bytes(request, _of(request).blobs[request.match_info["digest"]])


async def _bytes(request: web.Request, data: bytes) -> web.StreamResponse:
    wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("Range", ""))
    if not wanted or not _of(request).ranges:
        return await _paced(request, web.StreamResponse(), data)
    start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
    headers = {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
    return await _paced(request, web.StreamResponse(status=206, headers=headers), data[start:stop])


async def _paced(request: web.Request, response: web.StreamResponse, data: bytes) -> web.StreamResponse:
    response.content_length = len(data)
    with contextlib.suppress(ConnectionResetError):  # the client has gone
        await response.prepare(request)
        await _write(_of(request), response, data if request.method == "GET" else b"")
    return response


async def _write(registry: FakeRegistry, response: web.StreamResponse, data: bytes) -> None:
    for at in range(0, len(data), 1 << 16):
        block = data[at : at + (1 << 16)]
        await response.write(block)
        registry.sent += len(block)
        if registry.pace:
            await asyncio.sleep(len(block) / registry.pace)
    await response.write_eof()


async def _tree(request: web.Request) -> web.Response:
    registry, page = _of(request), int(request.query.get("page", "0"))
    headers = {"Link": f'<{registry.base}{request.path}?page={page + 1}>; rel="next"'} if page + 1 < len(registry.files) else {}
    return web.json_response(registry.files[page : page + 1], headers=headers)  # a file a page


async def _resolve(request: web.Request) -> web.StreamResponse:
    registry = _of(request)
    entry = next(entry for entry in registry.files if entry["path"] == request.match_info["path"])
    return await _bytes(request, registry.blobs[f"sha256:{entry['lfs']['oid']}"])


# ---------------------------------------------------------------- writing


async def _begin(request: web.Request) -> web.Response:
    registry, repo = _of(request), request.match_info["repo"]
    if request.query.get("mount") in registry.blobs and request.query.get("from"):
        return web.Response(status=201)
    upload = secrets.token_hex(4)
    registry.uploads[upload] = bytearray()
    return web.Response(status=202, headers=_location(registry, repo, upload))


def _location(registry: FakeRegistry, repo: str, upload: str) -> dict[str, str]:
    last = max(len(registry.uploads[upload]) - 1, 0)
    return {"Location": f"{registry.base}/v2/{repo}/blobs/uploads/{upload}?state={last}", "Range": f"0-{last}"}


async def _patch(request: web.Request) -> web.Response:
    registry, repo, upload = _of(request), request.match_info["repo"], request.match_info["upload"]
    data = registry.uploads[upload]
    start = int(request.headers["Content-Range"].split("-")[0])
    if registry.part_redirect:
        where = f"{registry.part_redirect}/parts/{upload}/{start}"
        following = _location(registry, repo, upload)["Location"]
        return web.Response(status=307, headers={"Location": where, "Docker-Upload-Location": following})
    if start != len(data):
        return web.Response(status=416, headers=_location(registry, repo, upload))
    async for chunk in request.content.iter_any():
        data += chunk
    return web.Response(status=202, headers=_location(registry, repo, upload))


async def _put_part(request: web.Request) -> web.Response:
    assert "Authorization" not in request.headers, "the token has leaked to another host"
    data, start, body = _of(request).uploads[request.match_info["upload"]], int(request.match_info["start"]), await request.read()
    data += bytes(max(start + len(body) - len(data), 0))
    data[start : start + len(body)] = body
    return web.Response(status=200)


async def _upload_status(request: web.Request) -> web.Response:
    registry, repo, upload = _of(request), request.match_info["repo"], request.match_info["upload"]
    if upload not in registry.uploads:
        return web.Response(status=404)
    return web.Response(status=204, headers=_location(registry, repo, upload))


async def _finish(request: web.Request) -> web.Response:
    registry = _of(request)
    data = bytes(registry.uploads[request.match_info["upload"]])
    if request.query["digest"] != f"sha256:{hashlib.sha256(data).hexdigest()}":
        return web.json_response({"errors": [{"code": "DIGEST_INVALID"}]}, status=400)
    registry.blobs[request.query["digest"]] = data
    return web.Response(status=201)


async def _put_manifest(request: web.Request) -> web.Response:
    registry, data = _of(request), await request.read()
    body = json.loads(data)
    if any(layer["digest"] not in registry.blobs for layer in (*body["layers"], body["config"])):
        return web.json_response({"errors": [{"code": "MANIFEST_BLOB_UNKNOWN"}]}, status=400)
    registry.manifests[f"{request.match_info['repo']}:{request.match_info['tag']}"] = data
    return web.Response(status=201)


_REPO = "/v2/{repo:[^/]+/[^/]+}"
_ROUTES = [
    web.get("/token", _token),
    web.get(_REPO + "/manifests/{tag}", _get_manifest),
    web.put(_REPO + "/manifests/{tag}", _put_manifest),
    web.get(_REPO + "/blobs/{digest:sha256:[0-9a-f]+}", _get_blob),
    web.get("/storage/{digest}", _storage),
    web.post(_REPO + "/blobs/uploads/", _begin),
    web.patch(_REPO + "/blobs/uploads/{upload}", _patch),
    web.get(_REPO + "/blobs/uploads/{upload}", _upload_status),
    web.put(_REPO + "/blobs/uploads/{upload}", _finish),
    web.put("/parts/{upload}/{start}", _put_part),
    web.get("/api/models/{repo:[^/]+/[^/]+}/tree/main", _tree),
    web.get("/{repo:[^/]+/[^/]+}/resolve/main/{path:.+}", _resolve),
]
