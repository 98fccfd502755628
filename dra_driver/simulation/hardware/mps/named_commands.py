"""The commands of protocol 3: what each module and verb takes, does and answers; ``named_language`` has their form.

Servers, namespaces and clients are here, as NVIDIA's MPS v3 Interface has them. SM partitions, locality domains,
devices and features are refused with a sentence: nothing here needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from dra_driver.simulation.hardware.mps import named_language as language
from dra_driver.simulation.hardware.mps import values
from dra_driver.simulation.hardware.mps.commands import Reply
from dra_driver.simulation.hardware.mps.named_language import Words
from dra_driver.simulation.hardware.mps.named_views import Control, ServerView
from dra_driver.simulation.hardware.mps.namespace import DEFAULT, Namespace
from dra_driver.simulation.hardware.mps.values import Invalid

_LIMITS = ("pinned-memory-limit", "active-thread-percentage", "client-priority")
_SERVER = ("name", "uid", "pid", "status", "pipe-directory", "allowed-devices")
_NAMESPACE = ("name", "server", "server-status", *_LIMITS, "pipe-directory")
_CLIENT = ("pid", "server", "device", "maws-ns", "cmd")


@dataclass(frozen=True, slots=True)
class _Verb:
    run: Callable[[Control, Words, int], Reply]
    usage: str
    least: int = 0
    most: int = 0
    options: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    changes: bool = True


def name_of(text: str) -> str:
    return " ".join(text.split()[:2])


def is_change(text: str) -> bool:
    """Whether it is for root and the owner of the daemon only."""
    return name_of(text) not in _VERBS or _VERBS[name_of(text)].changes


def run(control: Control, text: str, asker: int) -> Reply:
    """Do one command of user ``asker``. Invalid with what to print when it is refused; nothing has changed then."""
    words = language.parse(text)
    if words.name == "quit":
        control.quit(0.0)
        return Reply(is_due=lambda: not control.named)
    verb = _VERBS.get(words.name)
    if verb is None:
        raise Invalid(f"Unknown command {words.name or '(none)'}; there are: {', '.join(_VERBS)}")
    fits = verb.least <= len(words.positional) <= verb.most
    if not fits or not words.options.keys() <= set(verb.options) or not words.flags <= set(verb.flags):
        raise Invalid(f"Usage: {words.name} {verb.usage}")
    return verb.run(control, words, asker)


def _server(control: Control, name: str | None) -> ServerView:
    if name is None:
        raise Invalid("--server=<server> is missing")
    if name not in control.named:
        raise Invalid(f"No MPS server is named {name}")
    return control.named[name]


def _create_server(control: Control, words: Words, asker: int) -> Reply:
    given = words.options.get("uid")
    if given is None and not words.positional:
        raise Invalid("A name or --uid=<n> is needed")
    uid = asker if given is None else values.whole(given, "UID")
    if control.multi_user and given is not None and uid != 0:
        raise Invalid("In multiuser mode only --uid=0 is allowed")
    name = language.name(words.positional[0], "server") if words.positional else f"uid_{uid}"
    if name in control.named:
        raise Invalid(f"An MPS server is named {name} already")
    control.create_server(name, uid, words.options.get("allowed-devices"))
    return Reply()


def _delete_server(control: Control, words: Words, _asker: int) -> Reply:
    server = _server(control, words.positional[0])
    force = "force" in words.flags
    if server.clients and not force:
        raise Invalid(f"MPS server {server.name} has {len(server.clients)} active clients")
    server.shut_down(force=force)
    return Reply(is_due=lambda: control.named.get(server.name) is not server)


def _list_servers(control: Control, words: Words, _asker: int) -> Reply:
    if words.positional:
        _server(control, words.positional[0])
    servers = [each for each in control.named.values() if each.name in (words.positional or control.named)]
    rows = [[*(_server_field(each, field) for field in _SERVER), language.UNSET] for each in servers]
    return Reply(language.listing((*_SERVER, "context-ids"), rows, words.options.get("format", "table")))


def _get_server(control: Control, words: Words, _asker: int) -> Reply:
    name, field = words.positional
    if field not in _SERVER:
        raise Invalid(f"Unknown field {field}; there are: {', '.join(_SERVER)}")
    return Reply((_server_field(_server(control, name), field),))


def _server_field(server: ServerView, field: str) -> str:
    return {
        "name": server.name,
        "uid": str(server.uid),
        "pid": str(server.pid),
        "status": server.status,
        "pipe-directory": str(server.path),
        "allowed-devices": server.allowed or "all",
    }[field]


def _set_server(control: Control, words: Words, _asker: int) -> Reply:
    return _set(_server(control, words.positional[0]), DEFAULT, words)


def _create_namespace(control: Control, words: Words, _asker: int) -> Reply:
    server = _server(control, words.options.get("server"))
    name = language.name(words.positional[0], "namespace")
    if name in server.namespaces:
        raise Invalid(f"MPS server {server.name} has a namespace {name} already")
    server.add(Namespace(name))
    return Reply()


def _delete_namespace(control: Control, words: Words, _asker: int) -> Reply:
    server = _server(control, words.options.get("server"))
    name = _namespace(server, words.positional[0]).name
    if name == DEFAULT:
        raise Invalid(f"Namespace {DEFAULT} is built in")
    clients = [each for each in server.clients if each.mps_namespace == name]
    if clients and "force" not in words.flags:
        raise Invalid(f"Namespace {name} of MPS server {server.name} has {len(clients)} active clients")
    server.drop(name)
    return Reply()


def _list_namespaces(control: Control, words: Words, _asker: int) -> Reply:
    only = words.options.get("server")
    servers = list(control.named.values()) if only is None else [_server(control, only)]
    found = [(server, each) for server in servers for each in server.namespaces.values()]
    if words.positional:
        found = [(server, each) for server, each in found if each.name == words.positional[0]]
        if not found:
            raise Invalid(f"No namespace is named {words.positional[0]}")
    rows = [[_namespace_field(server, each, field) for field in _NAMESPACE] for server, each in found]
    return Reply(language.listing(_NAMESPACE, rows, words.options.get("format", "table")))


def _set_namespace(control: Control, words: Words, _asker: int) -> Reply:
    return _set(_server(control, words.options.get("server")), words.positional[0], words)


def _get_namespace(control: Control, words: Words, _asker: int) -> Reply:
    name, of, field = words.positional
    if field not in _NAMESPACE:
        raise Invalid(f"Unknown field {field}; there are: {', '.join(_NAMESPACE)}")
    server = _server(control, of)
    return Reply((_namespace_field(server, _namespace(server, name), field),))


def _namespace(server: ServerView, name: str) -> Namespace:
    if name not in server.namespaces:
        raise Invalid(f"MPS server {server.name} has no namespace {name}")
    return server.namespaces[name]


def _namespace_field(server: ServerView, namespace: Namespace, field: str) -> str:
    return {
        "name": namespace.name,
        "server": server.name,
        "server-status": server.status,
        "pinned-memory-limit": language.memory_text(namespace.memory),
        "active-thread-percentage": language.percentage_text(namespace.percentage),
        "client-priority": str(namespace.priority),
        "pipe-directory": str(server.path / namespace.name),
    }[field]


def _set(server: ServerView, name: str, words: Words) -> Reply:
    namespace = _namespace(server, name)
    given = {key: words.options[key] for key in _LIMITS if key in words.options}
    if not given:
        raise Invalid(f"At least one of {', '.join(f'--{each}' for each in _LIMITS)} is needed")
    if "pinned-memory-limit" in given:
        namespace = replace(namespace, memory=language.memory(given["pinned-memory-limit"]))
    if "active-thread-percentage" in given:
        namespace = replace(namespace, percentage=language.percentage(given["active-thread-percentage"]))
    if "client-priority" in given:
        namespace = replace(namespace, priority=language.priority(given["client-priority"]))
    server.namespaces[name] = namespace
    return Reply()


def _has_no(server: ServerView, client: int) -> bool:
    return all(each.pid != client for each in server.clients)


def _list_clients(control: Control, words: Words, _asker: int) -> Reply:
    only = words.options.get("server")
    servers = list(control.named.values()) if only is None else [_server(control, only)]
    rows = [
        [str(each.pid), server.name, str(server.offered.index(device)), each.mps_namespace, each.command]
        for server in servers
        for each in server.clients
        for device in each.devices
    ]
    return Reply(language.listing(_CLIENT, rows, words.options.get("format", "table")))


def _terminate_client(control: Control, words: Words, _asker: int) -> Reply:
    pid = values.whole(words.positional[0], "PID")
    for server in control.named.values():
        if any(each.pid == pid for each in server.clients):
            server.terminate(pid)
            return Reply(is_due=partial(_has_no, server, pid))
    raise Invalid(f"No client has the PID {pid}")


_FORMAT = "[--format=<table|csv>[,noheader]]"
_SET = "[--pinned-memory-limit=<limit>] [--active-thread-percentage=<pct>] [--client-priority=<priority>]"

_VERBS = {
    "server create": _Verb(
        _create_server, "<name> [--uid=<n>] [--allowed-devices=<devices>]", 0, 1, ("uid", "allowed-devices")
    ),
    "server delete": _Verb(_delete_server, "<name> [--force]", 1, 1, flags=("force",)),
    "server list": _Verb(_list_servers, f"[<name>] {_FORMAT}", 0, 1, ("format",), changes=False),
    "server set": _Verb(_set_server, f"<name> {_SET}", 1, 1, _LIMITS),
    "server get": _Verb(_get_server, "<name> <field>", 2, 2, changes=False),
    "namespace create": _Verb(_create_namespace, "<name> --server=<s>", 1, 1, ("server",)),
    "namespace delete": _Verb(_delete_namespace, "<name> --server=<s> [--force]", 1, 1, ("server",), ("force",)),
    "namespace list": _Verb(
        _list_namespaces, f"[<name>] [--server=<s>] {_FORMAT}", 0, 1, ("server", "format"), changes=False
    ),
    "namespace set": _Verb(_set_namespace, f"<name> --server=<s> {_SET}", 1, 1, ("server", *_LIMITS)),
    "namespace get": _Verb(_get_namespace, "<name> <server> <field>", 3, 3, changes=False),
    "client list": _Verb(
        _list_clients, f"[--server=<s>] [--all] {_FORMAT}", 0, 0, ("server", "format"), ("all",), changes=False
    ),
    "client terminate": _Verb(_terminate_client, "<pid>", 1, 1),
}
