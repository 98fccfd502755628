"""ApiServer as a client on the wire sees it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from dra_driver.kube.connect import connect
from dra_driver.kube.interface import CONFIG_MAPS, NODES, PODS, ApiError, EventType, Unavailable
from dra_driver.simulation.apiserver.server import LIMITS, ApiServer
from dra_driver.simulation.store import EmbeddedApi
from tests.contract.objects import config_map, pod


@pytest.fixture
def api() -> EmbeddedApi:
    return EmbeddedApi()


@pytest.fixture
def server(api: EmbeddedApi) -> Iterator[ApiServer]:
    server = ApiServer(api)
    server.start()
    yield server
    server.stop()


def call(
    server: ApiServer, method: str, path: str, body: Any = None, content_type: str = "application/json"
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, data, {"Content-Type": content_type})
    response = connection.getresponse()
    content = response.read()
    connection.close()
    is_json = response.headers["Content-Type"] == "application/json"
    return response.status, json.loads(content) if is_json else content.decode()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


CONFIG_MAP_PATH = "/api/v1/namespaces/default/configmaps"


class TestRequests:
    def test_create_answers_201_and_fills_in_the_namespace(self, server: ApiServer) -> None:
        code, created = call(server, "POST", CONFIG_MAP_PATH, {"metadata": {"name": "a"}})
        assert code == 201
        assert created["metadata"]["namespace"] == "default"

    def test_delete_answers_what_became_of_it(self, server: ApiServer, api: EmbeddedApi) -> None:
        api.create(CONFIG_MAPS, config_map("a", "default"))
        code, answer = call(server, "DELETE", f"{CONFIG_MAP_PATH}/a")
        assert (code, answer["status"], answer["details"]["name"]) == (200, "Success", "a")
        api.create(PODS, pod("p", "default"))
        api.bind("p", "default", "n1")
        code, answer = call(server, "DELETE", "/api/v1/namespaces/default/pods/p?gracePeriodSeconds=7")
        assert (code, answer["metadata"]["deletionGracePeriodSeconds"]) == (200, 7)

    def test_pods_are_bound_through_their_subresource(self, server: ApiServer, api: EmbeddedApi) -> None:
        api.create(PODS, pod("p", "default"))
        path = "/api/v1/namespaces/default/pods/p/binding"
        assert call(server, "POST", path, {"target": {"kind": "Node", "name": "n1"}})[0] == 201
        assert api.get(PODS, "p", "default")["spec"]["nodeName"] == "n1"
        assert call(server, "POST", path, {"target": {"name": "n2"}})[0] == 409
        assert call(server, "POST", path, {})[0] == 400

    def test_yaml_bodies(self, server: ApiServer) -> None:
        body = b"metadata:\n  name: a\ndata:\n  x: '1'\n"
        assert call(server, "POST", CONFIG_MAP_PATH, body, "application/yaml")[1]["data"] == {"x": "1"}

    @pytest.mark.parametrize(
        ("method", "path", "body", "content_type", "code"),
        [
            ("GET", "/", None, "", 404),
            ("GET", "/apis/nothing/v1/here", None, "", 404),
            ("GET", "/api/v1/namespaces/default/nodes", None, "", 404),
            ("GET", f"{CONFIG_MAP_PATH}/a/status", None, "", 404),
            ("GET", f"{CONFIG_MAP_PATH}?limit=many", None, "", 400),
            ("GET", f"{CONFIG_MAP_PATH}?fieldSelector=data.x%3D1", None, "", 400),
            ("POST", "/api/v1/configmaps", {"metadata": {"name": "a"}}, "application/json", 405),
            ("POST", CONFIG_MAP_PATH, {"metadata": {"name": "a", "namespace": "other"}}, "application/json", 400),
            ("POST", CONFIG_MAP_PATH, b"{bad", "application/json", 400),
            ("POST", CONFIG_MAP_PATH, b"[1]", "application/json", 400),
            ("POST", CONFIG_MAP_PATH, b"k8s\0", "application/vnd.kubernetes.protobuf", 415),
            ("POST", f"{CONFIG_MAP_PATH}?dryRun=Some", {"metadata": {"name": "a"}}, "application/json", 400),
            ("PUT", f"{CONFIG_MAP_PATH}/a", {"metadata": {"name": "b"}}, "application/json", 400),
            ("PUT", CONFIG_MAP_PATH, {}, "application/json", 405),
            ("PATCH", f"{CONFIG_MAP_PATH}/a", {}, "text/plain", 415),
            ("PATCH", f"{CONFIG_MAP_PATH}/a", {}, "application/merge-patch+json", 404),
            ("DELETE", f"{CONFIG_MAP_PATH}/a/b/c", None, "", 404),
        ],
    )
    def test_requests_that_make_no_sense(
        self, server: ApiServer, method: str, path: str, body: Any, content_type: str, code: int
    ) -> None:
        found, answer = call(server, method, path, body, content_type)
        assert found == code
        assert answer["kind"] == "Status"
        assert answer["status"] == "Failure"
        assert answer["code"] == code
        assert answer["message"]

    def test_a_body_beyond_all_measure(self, server: ApiServer) -> None:
        host, port = urlsplit(server.url).netloc.split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(f"POST {CONFIG_MAP_PATH} HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n".encode())
            assert connection.recv(100).startswith(b"HTTP/1.1 413")

    def test_connections_are_kept(self, server: ApiServer) -> None:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=5)
        connection.request("GET", "/healthz")
        assert connection.getresponse().read() == b"ok"
        kept = connection.sock
        connection.request("GET", f"{CONFIG_MAP_PATH}/absent")
        assert connection.getresponse().read()
        assert connection.sock is kept
        connection.close()


class TestDiscovery:
    def test_health_and_version(self, server: ApiServer) -> None:
        assert call(server, "GET", "/readyz") == (200, "ok")
        assert call(server, "GET", "/version")[1]["minor"] == "37"

    def test_groups_and_resources(self, server: ApiServer) -> None:
        assert call(server, "GET", "/api")[1]["versions"] == ["v1"]
        groups = {g["name"]: g["preferredVersion"]["version"] for g in call(server, "GET", "/apis")[1]["groups"]}
        assert groups["resource.k8s.io"] == "v1"
        assert groups["gpu-dra.dev"] == "v1alpha1"
        listed = call(server, "GET", "/apis/resource.k8s.io/v1")[1]["resources"]
        names = {entry["name"]: entry["namespaced"] for entry in listed}
        assert names["resourceslices"] is False
        assert names["resourceclaims"] is True
        assert "resourceclaims/status" in names
        assert call(server, "GET", "/apis/resource.k8s.io")[1]["name"] == "resource.k8s.io"
        assert call(server, "GET", "/apis/absent.example.com/v1")[0] == 404

    def test_open_api_says_that_fields_are_validated(self, server: ApiServer) -> None:
        roots = call(server, "GET", "/openapi/v3")[1]["paths"]
        document = call(server, "GET", roots["apis/resource.k8s.io/v1"]["serverRelativeURL"])[1]
        patches = [path["patch"] for path in document["paths"].values()]
        kinds = {patch["x-kubernetes-group-version-kind"]["kind"] for patch in patches}
        assert {"ResourceSlice", "ResourceClaim"} <= kinds
        assert all("fieldValidation" in [p["name"] for p in patch["parameters"]] for patch in patches)


class TestLife:
    def test_it_has_no_address_before_it_is_started(self, api: EmbeddedApi) -> None:
        idle = ApiServer(api)
        with pytest.raises(RuntimeError, match="before it is started"):
            _ = idle.url
        idle.stop()

    def test_a_kubeconfig_that_works(self, server: ApiServer, api: EmbeddedApi, tmp_path: Path) -> None:
        path = tmp_path / "kubeconfig"
        server.write_kubeconfig(path)
        assert path.stat().st_mode & 0o777 == 0o600
        connect(str(path)).create(NODES, {"metadata": {"name": "n"}})
        assert api.get(NODES, "n")

    def test_stop_ends_watches_and_connections_at_once(self, server: ApiServer, tmp_path: Path) -> None:
        server.write_kubeconfig(tmp_path / "kubeconfig")
        client = connect(str(tmp_path / "kubeconfig"), timeout=2)
        start = client.list(CONFIG_MAPS).resource_version
        with client.watch(CONFIG_MAPS, resource_version=start) as events:
            client.create(CONFIG_MAPS, config_map("a", "default"))
            assert next(events).type is EventType.ADDED
            stopper = threading.Thread(target=server.stop, name="stopper")
            began = time.monotonic()
            stopper.start()
            assert list(events) == [], "the stream ends as a stream does, it does not break"
            stopper.join()
        assert time.monotonic() - began < 2
        with pytest.raises(Unavailable):
            client.list(CONFIG_MAPS)

    def test_a_client_that_hangs_up_leaves_no_watch_behind(
        self, server: ApiServer, api: EmbeddedApi, tmp_path: Path
    ) -> None:
        server.write_kubeconfig(tmp_path / "kubeconfig")
        client = connect(str(tmp_path / "kubeconfig"))
        with (
            client.watch(CONFIG_MAPS, resource_version="1"),
            client.watch(NODES, resource_version="1"),
        ):
            wait_until(lambda: api.open_watches == 2)
        wait_until(lambda: api.open_watches == 0)

    def test_a_request_that_does_not_come_to_its_end_is_cut(self, api: EmbeddedApi) -> None:
        server = ApiServer(api, limits=replace(LIMITS, request_seconds=0.3))
        server.start()
        host, port = urlsplit(server.url).netloc.split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(f"POST {CONFIG_MAP_PATH} HTTP/1.1\r\nContent-Length: 9\r\n\r\n{{".encode())
            assert connection.recv(1) == b""
        server.stop()

    def test_watches_have_a_number_and_no_more(self, api: EmbeddedApi, tmp_path: Path) -> None:
        server = ApiServer(api, limits=replace(LIMITS, streams=1))
        server.start()
        server.write_kubeconfig(tmp_path / "kubeconfig")
        client = connect(str(tmp_path / "kubeconfig"))
        with client.watch(CONFIG_MAPS, resource_version="1"):
            with pytest.raises(ApiError) as caught, client.watch(NODES, resource_version="1"):
                pass
            assert (caught.value.code, caught.value.reason) == (429, "TooManyRequests")
            assert client.list(NODES).items == []

        def another() -> bool:
            with contextlib.suppress(ApiError), client.watch(NODES, resource_version="1"):
                return True
            return False

        wait_until(another)
        server.stop()

    def test_no_thread_is_left(self, api: EmbeddedApi, tmp_path: Path) -> None:
        before = set(threading.enumerate())  # of servers that other tests share
        server = ApiServer(api)
        server.start()
        server.write_kubeconfig(tmp_path / "kubeconfig")
        client = connect(str(tmp_path / "kubeconfig"))
        client.list(CONFIG_MAPS)
        assert set(threading.enumerate()) - before
        server.stop()
        wait_until(lambda: not set(threading.enumerate()) - before)
