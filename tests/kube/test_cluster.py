"""ClusterApi against a server that misbehaves on purpose."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from dra_driver.errors import ConfigError
from dra_driver.kube.cluster import ClusterApi
from dra_driver.kube.cluster_transport import Endpoint, Transport
from dra_driver.kube.credentials import Credentials, FixedHeaders, TokenFile
from dra_driver.kube.interface import (
    CONFIG_MAPS,
    NODES,
    PODS,
    RESOURCE_SLICES,
    ApiError,
    BadRequest,
    EventType,
    Expired,
    Forbidden,
    NotFound,
    Obj,
    PatchType,
    Preconditions,
    TooManyRequests,
    Unauthorized,
    Unavailable,
)
from dra_driver.version import __version__
from tests.kube.scripted_server import ScriptedServer, answer, cut, hang_up, status, stay_silent, stream

NODE: Obj = {"metadata": {"name": "n"}}


def api(server: ScriptedServer, *, timeout: float = 5.0, credentials: Credentials | None = None) -> ClusterApi:
    return ClusterApi(Transport(Endpoint(server.url), credentials or FixedHeaders.none()), timeout=timeout)


def line(kind: str, obj: Obj) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


class TestRequests:
    def test_what_is_sent(self) -> None:
        steps = [answer(200, NODE)] * 4 + [answer(200, {"items": [NODE], "metadata": {"resourceVersion": "7"}})]
        with ScriptedServer(*steps) as server:
            client = api(server, credentials=FixedHeaders.token("secret"))
            client.get(NODES, "n")
            client.update(NODES, {"metadata": {"name": "n"}}, subresource="status", dry_run=True)
            client.patch(PODS, "p", {"metadata": {}}, "ml", patch_type=PatchType.APPLY, field_manager="m", force=True)
            client.delete(PODS, "p", "ml", preconditions=Preconditions("u", "5"), grace_period_seconds=0)
            page = client.list(PODS, label_selector="a in (b)", field_selector="spec.nodeName=n", limit=2)
        get, put, patch, delete, listed = server.requests
        assert get.line == "GET /api/v1/nodes/n HTTP/1.1"
        assert get.headers["authorization"] == "Bearer secret"
        assert get.headers["user-agent"] == f"gpu-dra/{__version__}"
        assert put.line == "PUT /api/v1/nodes/n/status?dryRun=All HTTP/1.1"
        assert json.loads(put.body) == {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
        assert patch.line == "PATCH /api/v1/namespaces/ml/pods/p?fieldManager=m&force=true HTTP/1.1"
        assert patch.headers["content-type"] == "application/apply-patch+yaml"
        assert json.loads(patch.body)["metadata"] == {"name": "p"}
        assert json.loads(delete.body) == {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": "u", "resourceVersion": "5"},
            "gracePeriodSeconds": 0,
        }
        assert listed.line == (
            "GET /api/v1/pods?labelSelector=a+in+%28b%29&fieldSelector=spec.nodeName%3Dn&limit=2 HTTP/1.1"
        )
        assert page.items[0]["kind"] == "Pod"

    def test_a_path_in_the_address_is_kept(self) -> None:
        with ScriptedServer(answer(200, NODE)) as server:
            transport = Transport(Endpoint(server.url + "/k8s/clusters/c-1/"), FixedHeaders.none())
            ClusterApi(transport).get(NODES, "n")
        assert server.requests[0].line == "GET /k8s/clusters/c-1/api/v1/nodes/n HTTP/1.1"

    def test_requests_that_name_nothing_are_not_sent(self) -> None:
        with ScriptedServer() as server:
            client = api(server)
            with pytest.raises(BadRequest):
                client.get(NODES, "")
            with pytest.raises(BadRequest):
                client.get(PODS, "p")
            with pytest.raises(BadRequest):
                client.create(PODS, {"metadata": {"name": "p"}})
        assert server.requests == []


class TestErrors:
    @pytest.mark.parametrize(
        ("code", "reason", "kind"),
        [
            (400, "BadRequest", BadRequest),
            (403, "Forbidden", Forbidden),
            (404, "NotFound", NotFound),
            (410, "Gone", Expired),
            (418, "Teapot", ApiError),
            (500, "InternalError", Unavailable),
            (503, "ServiceUnavailable", Unavailable),
        ],
    )
    def test_statuses(self, code: int, reason: str, kind: type[ApiError]) -> None:
        with ScriptedServer(status(code, reason, "why")) as server, pytest.raises(kind) as caught:
            api(server).get(NODES, "n")
        assert (caught.value.code, caught.value.reason, caught.value.message) == (code, reason, "why")

    def test_answers_that_are_no_status(self) -> None:
        with ScriptedServer(answer(502, b"<html>bad gateway"), answer(200, b"<html>"), answer(200, b"[]")) as server:
            client = api(server)
            with pytest.raises(Unavailable, match="bad gateway"):
                client.get(NODES, "n")
            with pytest.raises(Unavailable, match="not JSON"):
                client.get(NODES, "n")
            with pytest.raises(Unavailable, match="not an object"):
                client.get(NODES, "n")

    def test_nobody_listens(self) -> None:
        with ScriptedServer() as server:
            client = api(server)
        with pytest.raises(Unavailable, match="no answer from the API server at http://127") as caught:
            client.create(NODES, NODE)
        assert caught.value.code == 0

    def test_a_silent_server_costs_the_timeout_once(self) -> None:
        with ScriptedServer(stay_silent) as server:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                api(server, timeout=0.2).get(NODES, "n")
            assert time.monotonic() - began < 2
        assert len(server.requests) == 1

    @pytest.mark.parametrize("url", ["ftp://host", "host:6443", "https://"])
    def test_an_address_that_is_none(self, url: str) -> None:
        with pytest.raises(ConfigError, match="not an http"):
            Transport(Endpoint(url), FixedHeaders.none())


class TestRetries:
    def test_reading_is_tried_again_when_the_connection_breaks(self) -> None:
        with ScriptedServer(hang_up, hang_up, answer(200, NODE)) as server:
            assert api(server).get(NODES, "n") == NODE
        assert len(server.requests) == 3

    def test_but_not_for_ever(self) -> None:
        with ScriptedServer(*[hang_up] * 5) as server, pytest.raises(Unavailable):
            api(server).get(NODES, "n")
        assert len(server.requests) == 3

    def test_writing_is_not(self) -> None:
        with ScriptedServer(hang_up, answer(201, NODE)) as server, pytest.raises(Unavailable):
            api(server).create(NODES, NODE)
        assert len(server.requests) == 1

    def test_a_busy_server_is_waited_for(self) -> None:
        busy = status(429, "TooManyRequests", "slow down", Retry_After="0")
        with ScriptedServer(busy, answer(201, NODE)) as server:
            assert api(server).create(NODES, NODE) == NODE
        assert len(server.requests) == 2

    @pytest.mark.parametrize("header", [{"Retry_After": "60"}, {"Retry_After": "soon"}, {}])
    def test_within_reason(self, header: dict[str, str]) -> None:
        busy = status(429, "TooManyRequests", "slow down", **header)
        with ScriptedServer(busy) as server, pytest.raises(TooManyRequests):
            api(server).create(NODES, NODE)

    def test_and_within_the_timeout(self) -> None:
        busy = status(429, "TooManyRequests", "slow down", Retry_After="2")
        with ScriptedServer(busy) as server, pytest.raises(TooManyRequests):
            api(server, timeout=1).create(NODES, NODE)

    def test_a_refused_token_is_read_again_once(self, tmp_path: Path) -> None:
        token = tmp_path / "token"
        token.write_text("old\n")
        credentials = TokenFile(token)
        credentials.headers()
        token.write_text("new\n")
        refused = status(401, "Unauthorized", "no")
        with ScriptedServer(refused, answer(200, NODE), refused) as server:
            client = api(server, credentials=credentials)
            assert client.get(NODES, "n") == NODE
            with pytest.raises(Unauthorized):
                client.get(NODES, "n")
        sent = [request.headers["authorization"] for request in server.requests]
        assert sent == ["Bearer old", "Bearer new", "Bearer new"]


class TestTokenFile:
    def test_it_is_read_again_after_a_minute(self, tmp_path: Path) -> None:
        now = [0.0]
        path = tmp_path / "token"
        path.write_text("one")
        token = TokenFile(path, clock=lambda: now[0])
        assert token.headers() == {"Authorization": "Bearer one"}
        path.write_text("two")
        now[0] = 59.0
        assert token.headers() == {"Authorization": "Bearer one"}
        now[0] = 61.0
        assert token.headers() == {"Authorization": "Bearer two"}
        path.unlink()
        now[0] = 130.0
        assert token.headers() == {"Authorization": "Bearer two"}, "the last one is better than none"

    def test_it_must_be_there_once(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"cannot read the token file .*absent"):
            TokenFile(tmp_path / "absent").headers()


class TestWatch:
    EVENT: Obj = {"kind": "ResourceSlice", "metadata": {"name": "s", "resourceVersion": "8"}}  # noqa: RUF012

    def watch(self, server: ScriptedServer, **options: Any) -> list[tuple[EventType, str]]:
        with api(server).watch(RESOURCE_SLICES, resource_version="7", **options) as events:
            return [(event.type, event.object["metadata"]["name"]) for event in events]

    def test_lines_however_they_are_cut(self) -> None:
        data = line("ADDED", self.EVENT) + line("MODIFIED", self.EVENT) + line("DELETED", self.EVENT).rstrip()
        with ScriptedServer(stream(data[:10], data[10:200], data[200:])) as server:
            assert self.watch(server, field_selector="spec.driver=d", timeout_seconds=30) == [
                (EventType.ADDED, "s"),
                (EventType.MODIFIED, "s"),
                (EventType.DELETED, "s"),
            ]
        assert server.requests[0].line == (
            "GET /apis/resource.k8s.io/v1/resourceslices?fieldSelector=spec.driver%3Dd&watch=true"
            "&allowWatchBookmarks=true&resourceVersion=7&timeoutSeconds=30 HTTP/1.1"
        )

    def test_an_error_event_is_raised(self) -> None:
        gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version: 7 (9)"}
        with ScriptedServer(stream(line("ERROR", gone))) as server, pytest.raises(Expired, match="too old"):
            self.watch(server)

    def test_a_refusal_is_raised_on_entering(self) -> None:
        with ScriptedServer(status(410, "Expired", "too old")) as server, pytest.raises(Expired):
            self.watch(server)
        with ScriptedServer(status(403, "Forbidden", "no")) as server, pytest.raises(Forbidden):
            self.watch(server)

    def test_a_stream_that_breaks(self) -> None:
        with ScriptedServer(cut(line("ADDED", self.EVENT))) as server, pytest.raises(Unavailable, match="broke"):
            self.watch(server)

    def test_a_line_that_is_no_event(self) -> None:
        with ScriptedServer(stream(b"{}\n")) as server, pytest.raises(Unavailable, match="not a watch event"):
            self.watch(server)

    def test_a_silent_stream_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dra_driver.kube.cluster._SILENCE_MARGIN", 0.2)
        with ScriptedServer(stream(ends=False)) as server:
            began = time.monotonic()
            with pytest.raises(Unavailable, match="broke"):
                self.watch(server, timeout_seconds=0)
            assert time.monotonic() - began < 2

    def test_headers_that_never_come(self) -> None:
        with (
            ScriptedServer(stay_silent) as server,
            pytest.raises(Unavailable),
            api(server, timeout=0.2).watch(CONFIG_MAPS, resource_version="7"),
        ):
            pass

    def test_closing_wakes_the_reader(self) -> None:
        with ScriptedServer(stream(line("ADDED", self.EVENT), ends=False)) as server:
            manager = api(server).watch(RESOURCE_SLICES, resource_version="7")
            closer = threading.Timer(0.1, manager.close)
            with manager as events:
                assert next(events).type is EventType.ADDED
                closer.start()
                assert list(events) == []
                assert list(events) == []
            closer.join()
            manager.close()
