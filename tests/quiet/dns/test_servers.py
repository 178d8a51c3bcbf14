"""Which server is asked when, by a script of what happens."""

from __future__ import annotations

import pytest
from dnslib import RCODE, DNSRecord

from kt_net.dns.messages import answers_to
from kt_net.dns.servers import MAX_SERVERS, SERVER_SECONDS, SILENT_SECONDS, Servers

QUERY = DNSRecord.question("web.default.svc.cluster.local").pack()


def answer(code: int = 0) -> bytes:
    reply = DNSRecord.parse(QUERY).reply()
    reply.header.rcode = code
    return bytes(reply.pack())


FAILS = answer(int(RCODE.SERVFAIL))


@pytest.mark.parametrize(
    ("servers", "again", "happens", "asked"),
    [
        ("a", True, ["silence"] * 5, "a a a a a -"),
        ("a b", True, ["silence"] * 5, "a b a b a -"),
        ("a b c", True, ["silence"] * 5, "a b c a b -"),
        ("a b", False, ["silence"] * 5, "a b . . . -"),
        ("a b c d", True, ["silence"] * 3, "a b c a"),
        ("a b", True, ["lost a", "silence", "silence"], "a b b b"),
        ("a b", True, ["lost a", "lost b"], "a b -"),
        ("a b", True, ["silence", "lost a", "lost b"], "a b -"),
        ("a b", False, ["fails a", "silence"], "a b -"),
        ("a b", True, ["fails a", "silence"], "a b -"),
        ("a b", True, ["silence", "fails a", "silence"], "a b -"),
        ("a b", True, ["fails a", "fails b"], "a b -"),
        ("a", True, ["fails a"], "a -"),
        ("", True, [], "-"),
        ("a a b", True, ["silence"], "a b"),
    ],
)
def test_whose_turn_it_is(servers: str, again: bool, happens: list[str], asked: str) -> None:
    """`.` is: nobody, wait; `-`: there will be no answer."""
    now, said = 100.0, list[str]()
    turns = Servers(servers.split()).turns(again=again, now=now)

    def take() -> None:
        taken = turns.take(now=now)
        said.append("-" if taken is None else taken[0] if taken else ".")

    take()
    for what in happens:
        kind, _, server = what.partition(" ")
        if kind == "silence":
            assert turns.due == now + SERVER_SECONDS
            now = turns.due
            take()
            continue
        if kind == "lost":
            turns.lost(server)
        else:
            assert not turns.receive(server, FAILS)
        if not turns.waiting:
            take()
    assert " ".join(said) == asked
    assert (turns.second_best is not None) == any(what.startswith("fails") for what in happens)


@pytest.mark.parametrize("code", [RCODE.NOERROR, RCODE.NXDOMAIN, RCODE.FORMERR])
def test_what_is_an_answer(code: int) -> None:
    assert Servers("ab").turns(again=True, now=0.0).receive("a", answer(int(code)))


def test_who_answered_last_is_asked_first() -> None:
    servers = Servers(("a", "b", "c"))

    def first() -> tuple[str, ...] | None:
        return servers.turns(again=True, now=0.0).take(now=0.0)

    assert first() == ("a",)
    servers.answered("c", now=0.0)
    assert first() == ("c",)
    servers.answered("nobody", now=0.0)
    assert first() == ("c",)
    assert len(list(servers.turns(again=True, now=0.0)._left)) == MAX_SERVERS


def test_one_that_knows_more_is_asked_first_again() -> None:
    """After it has been silent the others come first for a while, and then it does."""
    servers = Servers(("a", "b", "c"), first="n")
    assert list(servers.turns(again=True, now=10.0)._left) == ["n", "a", "b", "c"]
    servers.answered("b", now=10.0)
    assert list(servers.turns(again=True, now=10.0 + SILENT_SECONDS - 0.1)._left) == ["b", "n", "a", "c"]
    assert list(servers.turns(again=True, now=10.0 + SILENT_SECONDS)._left) == ["n", "b", "a", "c"]
    servers.answered("n", now=20.0)
    assert list(servers.turns(again=True, now=20.0)._left) == ["n", "b", "a", "c"]


def test_answers_are_known_by_id_and_question() -> None:
    good = answer()
    assert answers_to(good, QUERY)
    assert answers_to(good.replace(b"default", b"DEFAULT"), QUERY)
    assert answers_to(FAILS[:4] + bytes(8), QUERY), "an error without its question"
    assert not answers_to(good[:4] + bytes(8), QUERY)
    assert not answers_to(bytes([good[0] ^ 1]) + good[1:], QUERY)
    assert not answers_to(good.replace(b"default", b"another"), QUERY)
    assert not answers_to(QUERY, QUERY)
    assert not answers_to(b"", QUERY)
    assert not answers_to(good[:14], QUERY)
