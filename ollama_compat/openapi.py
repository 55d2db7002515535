"""The description of the API: an OpenAPI document made from the routes and the declarations of their requests, and a page."""

from __future__ import annotations

import dataclasses
import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from ollama_compat import decoding, gotypes, schema
from ollama_compat.anthropic.messages import MessagesRequest
from ollama_compat.openai.chat import ChatCompletionRequest
from ollama_compat.openai.completions import CompletionRequest
from ollama_compat.openai.embeddings import EmbedRequest as OpenAIEmbedRequest
from ollama_compat.openai.responses import ResponsesRequest
from ollama_compat.settings import VERSION

BODIES: Mapping[tuple[str, str], type[Any]] = {
    ("post", "/api/generate"): schema.GenerateRequest,
    ("post", "/api/chat"): schema.ChatRequest,
    ("post", "/api/embed"): schema.EmbedRequest,
    ("post", "/api/embeddings"): schema.EmbeddingRequest,
    ("post", "/api/create"): schema.CreateRequest,
    ("post", "/api/show"): schema.ShowRequest,
    ("post", "/api/copy"): schema.CopyRequest,
    ("delete", "/api/delete"): schema.DeleteRequest,
    ("post", "/api/pull"): schema.PullRequest,
    ("post", "/api/push"): schema.PushRequest,
    ("post", "/api/tokenize"): schema.TokenizeRequest,
    ("post", "/api/detokenize"): schema.DetokenizeRequest,
    ("post", "/v1/chat/completions"): ChatCompletionRequest,
    ("post", "/v1/completions"): CompletionRequest,
    ("post", "/v1/embeddings"): OpenAIEmbedRequest,
    ("post", "/v1/responses"): ResponsesRequest,
    ("post", "/v1/messages"): MessagesRequest,
    ("post", "/v1/messages/count_tokens"): MessagesRequest,
    **{("post", path): schema.RerankRequest for path in ("/api/rerank", "/v1/rerank", "/v1/reranking", "/rerank", "/reranking")},
}
_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}


def document(app: web.Application) -> dict[str, Any]:
    """The OpenAPI 3.1 document of the application's routes."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, summary in _operations(app):
        paths.setdefault(path, {})[method] = _operation(method, path, summary)
    schemas = {_name(kind): request_schema(kind) for kind in dict.fromkeys(BODIES.values())}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Moellama", "version": VERSION, "description": "The API of Ollama, with OpenAI's and Anthropic's."},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operations(app: web.Application) -> Iterator[tuple[str, str, str]]:
    """Method, path and summary of every route, in the order of their declaration."""
    for route in app.router.routes():
        method = route.method.lower()
        if method == "head" or route.resource is None:
            continue
        text = (route.handler.__doc__ or "").strip().partition("\n")[0]
        yield method, route.resource.canonical, text.rstrip(".")


def _operation(method: str, path: str, summary: str) -> dict[str, Any]:
    error = {"description": "what went wrong", "content": _json({"$ref": "#/components/schemas/Error"})}
    operation: dict[str, Any] = {"summary": summary, "responses": {"200": {"description": "the answer"}, "default": error}}
    names = re.findall(r"\{(\w+)\}", path)
    if names:
        text = {"type": "string"}
        operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": text} for name in names]
    kind = BODIES.get((method, path))
    if kind is not None:
        content = _json({"$ref": f"#/components/schemas/{_name(kind)}"})
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _json(found: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": found}}


def _name(kind: type[Any]) -> str:
    """The name of a request's schema; two dialects have a request of the same name."""
    dialect = kind.__module__.split(".")[1]
    return kind.__name__ if dialect == "schema" else f"{dialect}.{kind.__name__}"


def request_schema(kind: type[Any]) -> dict[str, Any]:
    """The JSON schema of a request, from its declaration. Nothing is required: what is absent has a default or is refused."""
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    properties: dict[str, Any] = {}
    for name, (attribute, decode) in decoding.fields(kind).items():  # type: ignore[arg-type]
        default = defaults[attribute]
        told = {"default": default} if isinstance(default, (bool, int, float)) else {}
        properties[name] = {**gotypes.schema_of(decode), **told}
    return {"type": "object", "description": (kind.__doc__ or "").partition("\n")[0], "properties": properties}


# ---------------------------------------------------------------- the page

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}"
    "code,td:first-child{font-family:ui-monospace,monospace}details{border:1px solid #ccc;border-radius:4px;margin:.4rem 0;"
    "padding:.4rem .8rem}summary{cursor:pointer}b{display:inline-block;width:4.5rem}td{padding:.1rem 1.5rem .1rem 0;"
    "vertical-align:top}@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}}"
)
PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


def page(found: Mapping[str, Any]) -> str:
    """The document as a page without scripts, for people."""
    rows = "".join(
        _html_operation(method, path, operation, found)
        for path, operations in found["paths"].items()
        for method, operation in operations.items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Moellama: API</title><style>{_STYLE}</style></head>'
        f'<body><h1>Moellama: API</h1><p>The API of Ollama {VERSION}. As a file: <a href="/openapi.json">openapi.json</a></p>'
        f"{rows}</body></html>"
    )


def _html_operation(method: str, path: str, operation: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    title = f"<b>{method.upper()}</b> <code>{html.escape(path)}</code> {html.escape(operation['summary'])}"
    body = operation.get("requestBody")
    if body is None:
        return f"<details><summary>{title}</summary><p>No fields.</p></details>"
    reference = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    fields = found["components"]["schemas"][reference]["properties"]
    cells = ((html.escape(name), html.escape(_words(field))) for name, field in fields.items())
    rows = "".join(f"<tr><td>{name}</td><td>{words}</td></tr>" for name, words in cells)
    return f"<details><summary>{title}</summary><table>{rows}</table></details>"


def _words(field: Mapping[str, Any]) -> str:
    """What a field takes, in words."""
    kinds = field.get("type", "any")
    text = " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
    if kinds == "array" and field.get("items", {}).get("type"):
        text = f"array of {field['items']['type']}"
    text += f" (default {str(field['default']).lower()})" if "default" in field else ""
    return f"{text}: {field['description']}" if "description" in field else text
