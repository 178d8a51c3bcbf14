"""The fake API is what the real one is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kt_net.kube.api import KubeApi
from tests.conformance.fake_api import FakeApi
from tests.conformance.kube_api import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_conformance(check: Callable[[KubeApi], None]) -> None:
    check(FakeApi())
