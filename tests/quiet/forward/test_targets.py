"""What users may write for "where to"."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kt_net.errors import UsageFault
from kt_net.forward.targets import Kind, parse_target


@pytest.mark.parametrize(
    ("text", "kind", "name", "shown"),
    [
        ("web", Kind.ANY, "web", "web"),
        ("svc/web", Kind.SERVICE, "web", "service/web"),
        ("Service/web", Kind.SERVICE, "web", "service/web"),
        ("pod/web-0", Kind.POD, "web-0", "pod/web-0"),
        ("pod/with.dots", Kind.POD, "with.dots", "pod/with.dots"),
        ("deploy/web", Kind.DEPLOYMENT, "web", "deployment/web"),
        ("deployment/web", Kind.DEPLOYMENT, "web", "deployment/web"),
        ("sts/db", Kind.STATEFUL_SET, "db", "statefulset/db"),
        ("statefulset/db", Kind.STATEFUL_SET, "db", "statefulset/db"),
        ("10.1.2.3", Kind.HOST, "10.1.2.3", "10.1.2.3"),
        ("db.internal", Kind.HOST, "db.internal", "db.internal"),
        ("db.internal.", Kind.HOST, "db.internal.", "db.internal."),
        ("_x.internal", Kind.HOST, "_x.internal", "_x.internal"),
        ("fd00::1", Kind.HOST, "fd00::1", "fd00::1"),
        ("[fd00::1]", Kind.HOST, "fd00::1", "fd00::1"),
        ("::ffff:10.0.0.1", Kind.HOST, "::ffff:10.0.0.1", "::ffff:10.0.0.1"),
        ("host/db", Kind.HOST, "db", "db"),
    ],
)
def test_targets(text: str, kind: Kind, name: str, shown: str) -> None:
    target = parse_target(text)
    assert (target.kind, target.name, str(target)) == (kind, name, shown)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "svc/",
        "job/x",
        "/web",
        "svc/Web",
        "svc/a/b",
        "We_b",
        "db.internal:5432",
        "host/",
        "host/..",
        "a..b",
        "münchen.example",
        "svc/" + "a" * 254,
        "a." * 127 + "abc",
        "fd00::1%eth0",
    ],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageFault) as refused:
        parse_target(text)
    assert refused.value.why
    assert refused.value.next_step


@given(st.text())
def test_any_text_is_a_target_or_refused(text: str) -> None:
    try:
        assert parse_target(text).name
    except UsageFault:
        pass
