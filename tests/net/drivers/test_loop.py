"""The loop and other threads."""

from __future__ import annotations

import select
import socket
import threading

from kt_net.drivers.loop import Loop


def test_who_calls_an_ended_loop_writes_to_nobody() -> None:
    """The numbers of its pipe belong to others by then: a stray octet would break a stranger's TLS."""
    loop = Loop()
    loop.start("loop")
    loop.stop()
    assert not loop.running
    strangers = [end for _ in range(4) for end in socket.socketpair()]
    loop.call_soon(lambda: None)
    assert select.select(strangers, [], [], 0)[0] == []
    for end in strangers:
        end.close()


def test_calls_from_other_threads_while_it_ends() -> None:
    loop, called = Loop(), threading.Event()
    loop.start("loop")
    loop.call_soon(called.set)
    assert called.wait(10)

    def call() -> None:
        for _ in range(500):
            loop.call_soon(lambda: None)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    loop.stop()
    for caller in callers:
        caller.join(10)
    assert loop.failure is None
    assert not loop.running
