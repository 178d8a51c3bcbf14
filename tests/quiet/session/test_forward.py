"""Where a forward listens, as users say it."""

from __future__ import annotations

import pytest

from kt_net.errors import UsageFault
from kt_net.session.forward import another_port, listening_on


@pytest.mark.parametrize(
    ("given", "addresses"),
    [
        ([], ()),
        (["localhost"], ()),
        (["0.0.0.0"], ("0.0.0.0",)),
        (["localhost", "10.0.0.1"], ("127.0.0.1", "::1", "10.0.0.1")),
        (["::1", "::1"], ("::1",)),
    ],
)
def test_addresses(given: list[str], addresses: tuple[str, ...]) -> None:
    assert listening_on(given) == addresses


@pytest.mark.parametrize("text", ["", "here", "10.0.0.1:80", "10.0.0.0/8", "[::1]", "\0"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageFault):
        listening_on([text])


@pytest.mark.parametrize(("taken", "instead"), [(80, 8080), (443, 8443), (6379, 16379), (60000, 50000), (65535, 55535)])
def test_another_spelling(taken: int, instead: int) -> None:
    assert another_port(taken) == instead
