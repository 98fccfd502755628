"""The error tree and the server's ``Status`` objects, one turned into the other, and the texts the server uses.

``cluster`` turns answers into errors; the simulated store raises the same errors, and the simulated API server turns
them back into answers. Texts follow k8s.io/apimachinery, pkg/api/errors, since people search for them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from dra_driver.kube.interface import (
    AlreadyExists,
    ApiError,
    BadRequest,
    Conflict,
    Expired,
    Forbidden,
    Invalid,
    NotFound,
    Obj,
    Resource,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from dra_driver.kube.resources import qualified_kind, qualified_name

_BY_CODE: dict[int, type[ApiError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Expired,
    422: Invalid,
    429: TooManyRequests,
}
_REASONS: dict[int, str] = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class FieldCause(Protocol):
    """One violated rule: where, what kind of violation, and the text without the path."""

    @property
    def field(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def message(self) -> str: ...


def error_from_status(code: int, status: Obj | None, text: str = "") -> ApiError:
    """The error for an HTTP answer of ``code``; ``status`` is its decoded Status object, ``text`` what to say if none.

    A Status inside a watch's ERROR event has its own code: pass that.
    """
    status = status if isinstance(status, dict) and status.get("kind") == "Status" else {}
    reason = str(status.get("reason") or _REASONS.get(code, ""))
    message = str(status.get("message") or text or f"the server answered with HTTP status {code}")
    details = status.get("details")
    if code == 409 and reason == "AlreadyExists":
        kind: type[ApiError] = AlreadyExists
    elif code >= 500:
        kind = Unavailable
    else:
        kind = _BY_CODE.get(code, ApiError)
    return kind(message, code=code, reason=reason, details=details if isinstance(details, dict) else None)


def status_from_error(error: ApiError) -> Obj:
    """The Status object that a server sends for this error."""
    code = error.code or 500
    status: Obj = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.message,
        "reason": error.reason or _REASONS.get(code, ""),
        "code": code,
    }
    if error.details:
        status["details"] = error.details
    return status


def success(resource: Resource, obj: Obj) -> Obj:
    """The Status object that answers a DELETE which removed the object at once."""
    details = {"name": obj["metadata"]["name"], "kind": resource.plural, "uid": obj["metadata"].get("uid", "")}
    if resource.group:
        details["group"] = resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _details(resource: Resource, name: str) -> Obj:
    details: Obj = {"name": name, "kind": resource.plural}
    if resource.group:
        details["group"] = resource.group
    return details


def not_found(resource: Resource, name: str) -> NotFound:
    return NotFound(
        f'{qualified_name(resource)} "{name}" not found', reason="NotFound", details=_details(resource, name)
    )


def unknown_resource() -> NotFound:
    """The answer for a path that no API serves."""
    return NotFound("the server could not find the requested resource", reason="NotFound")


def already_exists(resource: Resource, name: str, *, leaving: bool = False) -> AlreadyExists:
    """``leaving``: the one that exists is being deleted."""
    text = f'{qualified_name(resource)} "{name}" already exists'
    return AlreadyExists(
        f"object is being deleted: {text}" if leaving else text,
        reason="AlreadyExists",
        details=_details(resource, name),
    )


def conflict(resource: Resource, name: str, why: str) -> Conflict:
    return Conflict(
        f'Operation cannot be fulfilled on {qualified_name(resource)} "{name}": {why}',
        reason="Conflict",
        details=_details(resource, name),
    )


def modified(resource: Resource, name: str) -> Conflict:
    """The conflict of optimistic locking."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(resource, name, why)


def forbidden(resource: Resource, name: str, why: str) -> Forbidden:
    return Forbidden(
        f'{qualified_name(resource)} "{name}" is forbidden: {why}', reason="Forbidden", details=_details(resource, name)
    )


def bad_request(message: str) -> BadRequest:
    return BadRequest(message, reason="BadRequest")


def expired(message: str) -> Expired:
    return Expired(message, reason="Expired")


def invalid(resource: Resource, name: str, causes: Iterable[FieldCause]) -> Invalid:
    """One 422 for all violated rules; the message lists them as ``path: text``, in brackets when there are several."""
    causes = list(causes)
    texts = list(dict.fromkeys(f"{c.field}: {c.message}" for c in causes))
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    details: Obj = {"name": name, "kind": resource.kind}
    if resource.group:
        details["group"] = resource.group
    details["causes"] = [{"reason": str(c.reason), "message": c.message, "field": c.field} for c in causes]
    return Invalid(f'{qualified_kind(resource)} "{name}" is invalid: {text}', reason="Invalid", details=details)
