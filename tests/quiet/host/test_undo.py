"""What the helper's journal does when a step cannot be undone, and when the resolver file is another one meanwhile; on files of our own."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kt_net.host import environment, helper
from kt_net.host.helper import Fault, Journal, apply_plan, digest, replay, set_file

OURS, THEIRS, OTHERS = "nameserver 198.19.255.253\n", "nameserver 192.0.2.1\n", "nameserver 192.0.2.99\n"


@pytest.fixture
def resolver_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "etc" / "resolv.conf"
    path.parent.mkdir()
    path.write_text(THEIRS)
    monkeypatch.setattr(helper, "RESOLVER_FILE", str(path))
    return path


@pytest.fixture
def target(resolver_file: Path, tmp_path: Path) -> Path:
    """The resolver file is a link to it."""
    path = tmp_path / "run.conf"
    resolver_file.rename(path)
    resolver_file.symlink_to(path)
    return path


@pytest.fixture
def state(tmp_path: Path) -> str:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return str(folder)


def taken(path: Path, journal: Journal, step: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ours in the place of what is there; the step."""
    set_file({"path": str(path), "content": OURS, "seen": digest(path.read_bytes())}, journal, step)
    (found,) = (one for one in journal.undo if one["kind"] == "file")
    return found


def names(state: str) -> list[str]:
    return sorted(path.name for path in Path(state).iterdir())


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool | str], None]:
    """Whether the disk is full, or the resolver file is on one that is read-only."""
    write = helper.write_in_place

    def refuse(file: Any, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def refuse_open(path: str, mode: str = "r", *more: Any, **others: Any) -> Any:
        if path.endswith("resolv.conf") and "+" in mode:
            raise OSError(errno.EROFS, "Read-only file system")
        return open(path, mode, *more, **others)

    def change(is_full: bool | str) -> None:
        monkeypatch.setattr(helper, "write_in_place", refuse if is_full else write)
        monkeypatch.setattr(helper, "open", refuse_open if is_full == "read-only" else open, raising=False)

    return change


@pytest.mark.parametrize("by", ["its helper", "the next one"])
def test_what_cannot_be_undone_is_tried_again(
    resolver_file: Path, state: str, full: Callable[[bool | str], None], by: str
) -> None:
    journal = Journal(state, "kt0")
    taken(resolver_file, journal)
    full(True)
    if by == "the next one":
        helper.write_journal(journal.path, journal.undo, started=None)  # its helper is dead
        done = replay(state)
    else:
        done = journal.end()
    assert "tried again" in done[0]
    assert names(state) == ["journal-kt0.left.json"]
    assert "No space left" in replay(state)[0]
    assert resolver_file.read_text() == OURS
    full(False)
    assert replay(state) == [f"{resolver_file} restored"]
    assert (resolver_file.read_text(), names(state)) == (THEIRS, [])


def test_a_second_connection_that_cannot_be_undone_either(
    resolver_file: Path, state: str, full: Callable[[bool | str], None]
) -> None:
    """The same device is free for it; both are undone later, the last one first."""
    for text in (OURS, OTHERS):
        journal = Journal(state, "kt0")
        set_file(
            {"path": str(resolver_file), "content": text, "seen": digest(resolver_file.read_bytes())}, journal, None
        )
        full(True)
        journal.end()
        full(False)
    assert names(state) == ["journal-kt0.left.json"]
    replay(state)
    assert (resolver_file.read_text(), names(state)) == (THEIRS, [])


def test_what_never_can_be_undone_is_said_once(state: str) -> None:
    helper.write_journal(f"{state}/journal-kt0.json", [{"kind": "nonsense"}, {"kind": "file"}], started=None)
    assert all("could not be undone" in line for line in replay(state))
    assert (replay(state), names(state)) == ([], [])


def test_a_link_that_leads_elsewhere_leaves_nothing_in_its_old_target(
    resolver_file: Path, state: str, target: Path
) -> None:
    """A VPN puts a file of its own in the place of the link, and the link back when it ends, before us or after us."""
    journal = Journal(state, "kt0")
    step = taken(resolver_file, journal)
    resolver_file.unlink()
    resolver_file.write_text(OTHERS)
    taken(resolver_file, journal, step)
    assert (target.read_text(), resolver_file.read_text()) == (THEIRS, OURS)
    resolver_file.unlink()
    resolver_file.symlink_to(target)
    step = taken(resolver_file, journal, step)
    assert step["target"] == str(target)
    assert target.read_text() == OURS
    journal.end()
    assert (resolver_file.read_text(), names(state)) == (THEIRS, [])


def test_a_link_that_is_gone_for_a_while_leaves_nothing_in_its_old_target(
    resolver_file: Path, state: str, target: Path
) -> None:
    journal = Journal(state, "kt0")
    step = taken(resolver_file, journal)
    resolver_file.unlink()
    set_file({"path": str(resolver_file), "content": OURS, "seen": ""}, journal, step)
    assert (target.read_text(), resolver_file.read_text()) == (THEIRS, OURS)
    assert journal.end() == [f"{resolver_file} removed: there was none"]
    assert not resolver_file.exists()


def test_a_file_that_nobody_may_write_and_that_is_not_ours_any_more(
    resolver_file: Path, state: str, full: Callable[[bool | str], None]
) -> None:
    journal = Journal(state, "kt0")
    taken(resolver_file, journal)
    resolver_file.write_text(OTHERS)
    full("read-only")
    assert journal.end() == [f"{resolver_file} was changed by somebody else; left as it is"]
    assert names(state) == []


def test_a_device_of_somebody_elses_stays(state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan that is refused for it writes no undo that would remove it."""
    monkeypatch.setattr(helper, "interface_exists", lambda name: True)
    journal = Journal(state, "kt7")
    with pytest.raises(Fault, match="there already"):
        apply_plan({"interface": {"name": "kt7", "offload": False}, "routes": [], "resolver": None}, journal)
    assert (journal.undo, names(state)) == ([], [])


def test_mounts_of_any_name(monkeypatch: pytest.MonkeyPatch, resolver_file: Path) -> None:
    """A user has mounted something at a name that is no UTF-8."""
    lines = b"22 1 0:20 / / rw,relatime - ext4 /dev/sda rw\n30 22 0:44 / /home/u/B\xfccher\x0b rw - fuse.x x rw\nodd\n"
    lines += b"31 22 0:45 / " + str(resolver_file.parent).encode() + b" ro,relatime - tmpfs t rw\n"
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: lines if str(self) == "/proc/self/mountinfo" else read(self))
    assert environment._mount(str(resolver_file)) == (False, True)
    assert environment._mount("/etc/none") == (False, False)
