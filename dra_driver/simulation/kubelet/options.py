"""Settings of the fake kubelet: the real one's times by default, shorter ones where a test wants to see the end."""

from __future__ import annotations

from dataclasses import dataclass

DRA_V1_SERVICE = "v1.DRAPlugin"
DRA_V1BETA1_SERVICE = "v1beta1.DRAPlugin"
HEALTH_V1_SERVICE = "v1.DRAResourceHealth"
HEALTH_V1ALPHA1_SERVICE = "v1alpha1.DRAResourceHealth"


@dataclass(frozen=True, slots=True)
class KubeletOptions:
    """Times in seconds, from the kubelet's pluginmanager (registration), cm/dra/plugin (calls, wipe), pod workers."""

    known_services: tuple[str, ...] = (DRA_V1_SERVICE, DRA_V1BETA1_SERVICE)
    health_services: tuple[str, ...] = (HEALTH_V1_SERVICE, HEALTH_V1ALPHA1_SERVICE)  # none: the feature is off
    health_redial: float = 5.0  # after the end of a health stream
    health_timeout: float = 30.0  # of silence
    poll_interval: float = 0.1  # of the registry folder; the real kubelet watches it and acts once a second
    get_info_timeout: float = 1.0
    notify_timeout: float = 5.0
    registration_backoff: float = 0.5  # doubles per failure of one socket
    registration_backoff_limit: float = 122.0
    call_timeout: float = 45.0
    wipe_delay: float = 30.0  # between the loss of a driver's last plugin and the removal of its slices
    wipe_retry: float = 1.0  # doubles
    pod_backoff: float = 0.5  # between tries to start or to end a pod; doubles
    pod_backoff_limit: float = 10.0
    reconcile_interval: float = 60.0  # looks for claims of pods that are gone
    container_run_time: float = 0.1  # of containers that end by themselves
    pod_workers: int = 8
    create_node: bool = True
    repeat_calls: bool = False  # send each prepare and unprepare twice and compare the answers
