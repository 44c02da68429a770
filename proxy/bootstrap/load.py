"""How much one process takes on."""

from __future__ import annotations

import resource

from proxy.application.load import Load
from proxy.domain.overload import Patience
from proxy.settings import Settings

_OWN_DESCRIPTORS = 200  # the database's, the spool's, files, and connections that are being refused
_MANY = 10**9
_DESCRIPTORS_OF_A_REQUEST = 2  # its client's and its upstream's


def load_of(settings: Settings) -> Load:
    """Requests need descriptors: with too few of them less is taken on, so that what is too much can be refused."""
    descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    free = (_MANY if descriptors == resource.RLIM_INFINITY else descriptors) - _OWN_DESCRIPTORS
    most = max(1, min(settings.max_in_flight, free // _DESCRIPTORS_OF_A_REQUEST))
    return Load(
        most,
        settings.max_queued,
        settings.max_in_flight_per_key,
        max(1, free - most),
        Patience(settings.overload_lag_seconds),
    )
