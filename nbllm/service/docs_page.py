"""/docs and /openapi.json: what can be asked here. One page without scripts, made from the OpenAPI description.

No script of other hosts is loaded: the page works without the internet, and nobody's content network sees who reads it. Everything
on it is escaped, because descriptions and examples come from flows and models.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from nbllm.service.access import identified
from nbllm.service.configuration import ServiceSettings
from nbllm.service.context import Service, exchange_of, service_of
from nbllm.service.flow_docs import without_recorded
from nbllm.service.heads import is_local, is_local_name
from nbllm.service.problems import ServiceProblem
from nbllm.service.v1_docs import TAG as V1

router = APIRouter(include_in_schema=False)
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1b1b1f;background:#fff}"
    "h1{font-size:1.6rem}h2{font-size:1.1rem;margin-top:2.2rem;border-top:1px solid #ccc;padding-top:1rem}"
    "code,pre{font:14px/1.45 ui-monospace,monospace}pre{background:#f3f3f6;padding:.8rem;overflow-x:auto;border-radius:4px}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.2rem 1rem .2rem 0;vertical-align:top}"
    ".verb{display:inline-block;min-width:4.2rem;font-weight:600;color:#0b5394}"
    "@media(prefers-color-scheme:dark){body{background:#16161a;color:#e6e6ea}pre{background:#232329}.verb{color:#8ab4f8}a{color:#8ab4f8}}"
)
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'; base-uri 'none'"
_MOST_EXAMPLE = 4000
_PROXIED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip", "via")


def is_shown(service: Service, request: Request) -> bool:
    """Whether a caller may read it without a key: as the settings say, else only programs of this machine.

    A proxy on this machine is one, too, so what it passes on is told by the name that was called and by what proxies add.
    """
    config, headers = service.config, request.headers
    if config.docs is not None:
        return config.docs
    here = is_local(request.scope) and is_local_name(headers.get("host", ""))
    return here and for_this_machine(config) and not any(name in headers for name in _PROXIED)


def for_this_machine(config: ServiceSettings) -> bool:
    """Whether nothing in the settings says that others than this machine's programs reach the service."""
    return not config.public and not config.allowed_hosts


def _check(request: Request) -> None:
    if not is_shown(service_of(request), request):
        raise ServiceProblem(404, "not-found", "Not Found.")


@router.get("/openapi.json")
async def description(request: Request) -> Response:
    """Answer with the OpenAPI description."""
    _check(request)
    return JSONResponse(_api(request))


@router.get("/docs")
async def page(request: Request) -> Response:
    """Answer with the page."""
    _check(request)
    base = f"{request.url.scheme}://{request.headers['host']}"
    text = "\n".join(_page(_api(request), service_of(request), base))
    return HTMLResponse(text, headers={"Content-Security-Policy": _POLICY})


def _api(request: Request) -> Mapping[str, Any]:
    """Return the description: recorded runs are somebody's texts, and in it only for those who show a key."""
    api: Mapping[str, Any] = request.app.openapi()
    try:
        identified(service_of(request), exchange_of(request), request.headers.get("authorization"))
    except ServiceProblem:
        return without_recorded(api)
    return api


def _page(api: Mapping[str, Any], service: Service, base: str) -> Iterator[str]:
    title = escape(str(api["info"]["title"]))
    yield f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body><main>'
    yield f"<h1>{title}</h1>"
    yield (
        "<p>Each request but /health and /ready shows a key: <code>Authorization: Bearer $KEY</code>. Keys are made with "
        "<code>nbllm keys make DIR</code>. Errors are <code>application/problem+json</code>, on /v1 in the shape of OpenAI's. "
        'The whole description: <a href="/openapi.json">openapi.json</a>.</p>'
    )
    if any(spec.examples for spec in service.flows.values()):
        yield f"<p>Recorded runs are in it for those who show a key.</p><pre>{escape(_with_key(base))}</pre>"
    listed = [
        (path, method.upper(), operation)
        for path, methods in api["paths"].items()
        for method, operation in methods.items()
        if isinstance(operation, Mapping)
    ]
    for path, method, operation in listed:
        if not _has_tag(operation, "service", V1):
            yield from _operation(api, path, method, operation, base)
    for name in service.flows:
        yield f'<h2><span class="verb">WS</span> <code>/flows/{escape(name)}/ws</code></h2>'
        yield "<p>A WebSocket with the events of /stream. The first message holds the arguments.</p>"
    yield from _models(service, base)
    for tag in (V1, "service"):
        for path, method, operation in listed:
            if _has_tag(operation, tag):
                yield from _operation(api, path, method, operation, base)
    yield "</main></body></html>"


def _with_key(base: str) -> str:
    return f'curl {base}/openapi.json -H "Authorization: Bearer $KEY"'


def _has_tag(operation: Mapping[str, Any], *tags: str) -> bool:
    return not set(tags).isdisjoint(operation.get("tags", ()))


def _operation(api: Mapping[str, Any], path: str, method: str, operation: Mapping[str, Any], base: str) -> Iterator[str]:
    yield f'<h2><span class="verb">{escape(method)}</span> <code>{escape(path)}</code></h2>'
    summary, more = str(operation.get("summary", "")), str(operation.get("description", ""))
    yield f"<p><strong>{escape(summary)}</strong></p>" if summary else ""
    yield f"<p>{escape(more)}</p>" if more and more != summary else ""
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    schema = _resolved(api, content.get("schema", {}))
    yield from _fields(api, schema)
    yield from _asked(path, method, operation, _example(content, schema), base)


def _fields(api: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[str]:
    fields = schema.get("properties", {})
    if not fields:
        return
    yield "<table><tr><th>field</th><th>type</th><th></th></tr>"
    for name, given in fields.items():
        needed = "needed" if name in schema.get("required", ()) else f"default {json.dumps(given.get('default'), default=str)}"
        yield f"<tr><td><code>{escape(name)}</code></td><td>{escape(_kind(api, given))}</td><td>{escape(needed)}</td></tr>"
    yield "</table>"


def _asked(path: str, method: str, operation: Mapping[str, Any], body: Any, base: str) -> Iterator[str]:
    """Yield how it is asked with curl."""
    lines = [f"curl {base}{path}" + ("" if method == "GET" else f" -X {method}")]
    if operation.get("security"):
        lines.append('-H "Authorization: Bearer $KEY"')
    if body is not None:
        text = json.dumps(body, ensure_ascii=False)[:_MOST_EXAMPLE].replace("'", "'\\''")
        lines += ["-H 'Content-Type: application/json'", f"-d '{text}'"]
    command = " \\\n  ".join(lines)
    yield f"<pre>{escape(command)}</pre>"


def _models(service: Service, base: str) -> Iterator[str]:
    yield "<h2><code>/v1</code></h2>"
    names = ", ".join(f"<code>{escape(name)}</code>" for name, _ in service.menu.rows())
    yield f"<p>OpenAI's interface. Models: {names or 'none'}.</p>"
    client = f'from openai import OpenAI\nclient = OpenAI(base_url="{base}/v1", api_key=KEY)'
    yield f"<pre>{escape(client)}</pre>"


def _example(content: Mapping[str, Any], schema: Mapping[str, Any]) -> Any:
    """Return a body to show: a recorded one, else one made of types; None where no body is needed."""
    for example in content.get("examples", {}).values():
        return example.get("value")
    if not schema:
        return None
    required = schema.get("required", list(schema.get("properties", {})))
    return {name: _sample(schema["properties"][name]) for name in required if name in schema.get("properties", {})}


def _sample(given: Mapping[str, Any]) -> Any:
    if "default" in given:
        return given["default"]
    samples = {"string": "...", "integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}
    return samples.get(str(given.get("type")))


def _kind(api: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    if "anyOf" in given:
        return " or ".join(dict.fromkeys(_kind(api, one) for one in given["anyOf"]))
    if "enum" in given:
        return ", ".join(json.dumps(one) for one in given["enum"])
    found = _resolved(api, given).get("type", "anything")
    kind = found if isinstance(found, str) else " or ".join(found)
    return f"list of {_kind(api, given['items'])}" if kind == "array" and "items" in given else kind


def _resolved(api: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    found: Mapping[str, Any] = api.get("components", {}).get("schemas", {}).get(name, schema)
    return found
