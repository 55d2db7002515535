"""From a body to the request that it holds, decoded and checked as Go would."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, TypeVar, get_type_hints

from ollama_compat import gojson, gotypes
from ollama_compat.errors import BadRequest
from ollama_compat.gotypes import Described, Kind, Place, Stopped

_Request = TypeVar("_Request")


@functools.cache
def fields(request: type[Any]) -> dict[str, tuple[str, Kind]]:
    """JSON name -> (attribute, kind) of a request, from its annotations."""
    hints = get_type_hints(request, include_extras=True)
    declared = ((f.name, hints[f.name].__metadata__) for f in dataclasses.fields(request))
    return {(meta[1] if len(meta) > 1 else name): (name, meta[0]) for name, meta in declared}


def decode(body: bytes, request: type[_Request], package: str = "api") -> _Request:
    """The request that `body` holds, of the dataclass `request`; BadRequest with Ollama's text when it holds none.

    `package`: the Go package that the error texts name as that of the request's type.
    """
    try:
        value = gojson.loads(body)
        return _decode(value, request, package)
    except gojson.NoBody:
        raise BadRequest("missing request body" if package == "api" else "EOF") from None
    except (gojson.SyntaxFault, Stopped) as error:
        raise BadRequest(str(error)) from None
    except RecursionError:
        raise BadRequest("exceeded max depth") from None


def _merged(former: Any, latter: Any, kind: Kind) -> Any:
    """What a field that stands twice is: the latter, but maps and structs grow."""
    if isinstance(former, dict) and isinstance(latter, dict) and isinstance(kind, Described):
        return former | latter
    return latter


def _decode(value: Any, request: type[_Request], package: str) -> _Request:
    name = request.__name__
    if value is None:
        return request()
    if not isinstance(value, dict):
        raise BadRequest(f"json: cannot unmarshal {gotypes.word(value)} into Go value of type {package}.{name}")
    declared = fields(request)  # type: ignore[arg-type]
    root = Place(name, (), [])
    got: dict[str, Any] = {}
    for key, item in gotypes.match_members(value, declared):
        attribute, kind = declared[key]
        decoded = None if item is None else kind(item, root.field(name, key))
        if decoded is not None:
            got[attribute] = _merged(got.get(attribute), decoded, kind)
    if root.faults:
        raise BadRequest(root.faults[0].text())
    return request(**got)
