"""Every error has a code and a next step; JSON keeps to its schema; help is quick because nothing heavy is imported."""

from __future__ import annotations

import errno
import json
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner

import kt_cli
from kt_cli import entry
from kt_cli.exits import EXITS, exit_code
from kt_cli.main import app
from kt_cli.output import Format, Printer
from kt_cli.running import Stopped, StopSwitch, guarded, hold
from kt_net import errors

SCHEMA = json.loads((Path(kt_cli.__file__).parent / "output.schema.json").read_text())


def classes(root: type[errors.KtError] = errors.KtError) -> list[type[errors.KtError]]:
    return [found for child in root.__subclasses__() for found in (child, *classes(child))]


LEAVES = [found for found in classes() if not found.__subclasses__()]


@pytest.mark.parametrize("leaf", LEAVES)
def test_every_error_has_code_words_and_next_step(leaf: type[errors.KtError]) -> None:
    error = leaf("something is wrong")
    assert leaf.__doc__
    assert error.next_step
    assert 0 < exit_code(error) < 128


def test_branches_cannot_be_raised() -> None:
    for branch in (errors.KtError, errors.LocalProtocolError, errors.RemoteProtocolError, errors.EnvironmentFault):
        with pytest.raises(TypeError):
            branch("x")


def test_codes_are_told_apart() -> None:
    codes = [code for kind, code in EXITS.items() if kind is not errors.KtError]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("leaf", LEAVES)
def test_errors_as_json(leaf: type[errors.KtError], capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise leaf("what", why="why")

    code = guarded(Printer("connect", Format.json), False, fail)
    answer = json.loads(capsys.readouterr().out)
    jsonschema.validate(answer, SCHEMA)
    assert (answer["exit"], answer["error"]["class"]) == (code, leaf.__name__)


def test_errors_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer("connect", Format.text)
    printer.step("one step")
    assert printer.error(errors.NoKubeconfig("no kubeconfig at x", why="gone")) == 10
    said = capsys.readouterr()
    assert said.out == "one step\n"
    assert said.err.splitlines()[:2] == ["error: no kubeconfig at x", "  why: gone"]
    assert said.err.splitlines()[2].startswith("  next: ")


def test_a_bug_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(Printer("status", Format.text), False, lambda: 1 // 0) == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_steps_and_results_keep_to_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    printer = Printer("connect", Format.json)
    printer.step("step")
    printer.packet(time=1.5, direction="in", lost=False, protocol="TCP")
    printer.result("text", state="connected")
    said = capsys.readouterr()
    for line in (*said.out.splitlines(), said.err):
        jsonschema.validate(json.loads(line), SCHEMA)


def run(*arguments: str) -> tuple[int, Any]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result


@pytest.mark.parametrize(
    "command",
    [[], ["capture"], ["connect"], ["disconnect"], ["dns"], ["doctor"], ["forward"], ["logs"], ["status"], ["version"]],
)
def test_help(command: list[str]) -> None:
    code, result = run(*command, "--help")
    assert code == 0
    assert "Usage" in result.output


def test_flags_before_and_after_the_command() -> None:
    for arguments in (("--output", "json", "version"), ("version", "--output", "json")):
        code, result = run(*arguments)
        assert code == 0
        jsonschema.validate(json.loads(result.output), SCHEMA)


def test_camel_case_of_the_predecessor_is_known() -> None:
    code, result = run("connect", "--podCreationTimeout", "x")
    assert code == 2
    assert "No such option" not in result.output


def test_unknown_command_and_flag() -> None:
    assert run("teleport")[0] == 2
    assert run("status", "--sideways")[0] == 2


def test_nothing_heavy_is_imported_for_help() -> None:
    assert "kt_cli.main" in sys.modules
    source = Path(kt_cli.__file__).parent
    for file in source.glob("*.py"):
        top = [line for line in file.read_text().splitlines() if line.startswith(("import ", "from "))]
        assert not any("kubernetes" in line or "kt_net.session" in line or "kt_net.kube" in line for line in top), file


def test_the_console_script_dies_of_ctrl_c_until_a_command_takes_the_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setitem(
        sys.modules, "kt_cli.main", SimpleNamespace(app=lambda: seen.append(signal.getsignal(signal.SIGINT)))
    )
    before = signal.getsignal(signal.SIGINT)
    try:
        for given in (signal.default_int_handler, signal.SIG_IGN):
            signal.signal(signal.SIGINT, given)
            entry.run()
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIG_DFL, signal.SIG_IGN]


def test_an_interruption_that_falls_into_a_destructor_is_not_lost() -> None:
    class Falls:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def falling() -> None:
        with StopSwitch().installed():
            Falls()
            threading.Event().wait(5)  # until it comes again, 10 ms later

    with pytest.raises(Stopped):
        falling()


def test_signals_interrupt_once_and_then_only_wish() -> None:
    switch = StopSwitch()
    with pytest.raises(Stopped):
        switch._handle(2, None)
    assert switch.stop.is_set()
    switch._handle(2, None)


class Unread:
    """Standard output of which nobody reads the other end."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError

    def isatty(self) -> bool:
        return False


def say_on_another(printer: Printer, text: str) -> None:
    """On a thread that is not the main one."""
    thread = threading.Thread(target=printer.step, args=(text,))
    thread.start()
    thread.join()


def test_who_is_told_that_nobody_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main thread ends of it; another one has the session ended, and goes on. While things are undone it is nobody's business."""
    monkeypatch.setattr(sys, "stdout", Unread())
    monkeypatch.setattr("kt_cli.output.forget_reader", lambda: None)
    printer, told = Printer("exchange", Format.text), threading.Event()
    printer.unread = told.set
    with pytest.raises(BrokenPipeError):
        printer.step("on the main thread")
    assert not told.is_set()
    say_on_another(printer, "on another")
    assert told.is_set()
    told.clear()
    printer.ending()
    say_on_another(printer, "undone, on another")
    printer.step("undone")
    assert not told.is_set()


class Interrupted:
    """A session that a signal ends, while it is brought up or later, and another one meets while it is undone."""

    def __init__(self, switch: StopSwitch, *, starting: bool = False) -> None:
        self._switch = switch
        self._starting = starting
        #: Whether the stop was set before the second signal, and after it.
        self.seen: list[bool] = []

    def start(self) -> None:
        if self._starting:
            signal.raise_signal(signal.SIGINT)

    def wait(self, stop: threading.Event) -> None:
        signal.raise_signal(signal.SIGINT)

    def close(self) -> list[str]:
        self.seen.append(self._switch.stop.is_set())
        signal.raise_signal(signal.SIGINT)
        self.seen.append(self._switch.stop.is_set())
        return []


def test_a_signal_while_things_are_undone_ends_what_is_waited_for() -> None:
    """The first one has ended the session; that is over, and a second one is told apart from it."""
    with StopSwitch().installed() as switch:
        session = Interrupted(switch)
        assert hold(switch, session, Printer("exchange", Format.json), lambda: None) == 0
        assert session.seen == [False, True]


def test_the_same_while_it_was_being_brought_up() -> None:
    with StopSwitch().installed() as switch:
        session = Interrupted(switch, starting=True)
        with pytest.raises(Stopped):
            hold(switch, session, Printer("exchange", Format.json), lambda: None)
        assert session.seen == [False, True]


def test_a_full_disk_is_no_reason_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a log in the background."""

    class Full(Unread):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    printer = Printer("connect", Format.text)
    printer.unread = lambda: pytest.fail("nobody has gone")
    printer.step("connected again")


def test_a_signal_in_the_midst_of_waiting() -> None:
    """Its handler sets what the same thread is about to wait for, and holds the lock of."""
    with StopSwitch().installed() as switch:
        switch.started()
        stop: Any = switch.stop
        with stop._changed:
            signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        assert stop.wait()
        stop.clear()
        assert not stop.wait(0.0)
        thread = threading.Thread(target=stop.set)
        thread.start()
        assert stop.wait(30)
        thread.join()
