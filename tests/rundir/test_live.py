"""How a recorder is found: only one that lives, of this user and this boot, is believed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from powerbench.environment import boot_id
from powerbench.rundir.live import AlreadyLive, Live, Publisher, find_live, live_path, moved_sensors
from tests.rundir import a_rail


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / ".local/state/powerbench/live.json"


def a_live(**changes: object) -> Live:
    settings: dict[str, object] = {"pid": 42, "boot_id": boot_id(), "run": "/runs/x", "rails": {"cpu": a_rail()}}
    return Live(**settings | changes)  # type: ignore[arg-type]


def test_the_place_is_in_the_home_of_the_password_database(monkeypatch: pytest.MonkeyPatch) -> None:
    before = live_path()
    monkeypatch.setenv("HOME", "/elsewhere")
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")

    assert live_path() == before


def test_one_that_lives_is_found_and_what_it_said_last(place: Path) -> None:
    publisher = Publisher(place)
    publisher.say(a_live(run="/a/much/longer/path/than/the/one/after/it"))
    publisher.say(a_live())
    found = find_live(place)
    publisher.close()

    assert found == (a_live(), None)
    assert not place.exists()
    assert find_live(place) == (None, None)


def test_it_is_the_owner_s_alone(place: Path) -> None:
    publisher = Publisher(place)

    assert place.stat().st_mode & 0o777 == 0o600
    assert place.parent.stat().st_mode & 0o777 == 0o700
    publisher.close()


def test_a_second_one_is_refused_and_harms_nothing(place: Path) -> None:
    first = Publisher(place)
    first.say(a_live())
    with pytest.raises(AlreadyLive, match="runs attach to that one"):
        Publisher(place)

    assert find_live(place).live == a_live()
    first.close()
    Publisher(place).close()


def test_a_link_is_not_followed(place: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("precious")
    place.parent.mkdir(parents=True)
    place.symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        Publisher(place)

    assert precious.read_text() == "precious"
    assert "cannot be read" in (find_live(place).why_not or "")


def test_one_that_reads_other_sensors_is_left_alone(place: Path) -> None:
    publisher = Publisher(place)
    publisher.say(a_live(moved={"POWERBENCH_SYSFS": "/elsewhere"}))
    found = find_live(place)
    publisher.close()

    assert found.live is None
    assert found.why_not is not None
    assert "reads other sensors" in found.why_not


@pytest.mark.parametrize(
    ("variables", "moved"),
    [
        ({"POWERBENCH_SYSFS": "/x", "HOME": "/h"}, {"POWERBENCH_SYSFS": "/x"}),
        ({"POWERBENCH_SYSFS": ""}, {}),
        ({"POWERBENCH_SYSFS": "/x", "SUDO_UID": "1"}, {}),
    ],
)
def test_where_sensors_are_read_from_is_the_environment_s_but_not_under_sudo(
    variables: dict[str, str], moved: dict[str, str]
) -> None:
    assert moved_sensors(variables) == moved


def test_one_that_was_killed_is_told(place: Path) -> None:
    leave_behind(place, a_live())

    assert find_live(place) == (
        None,
        "The recorder (pid 42) is gone without a word: start `powerbench power` anew.",
    )
    Publisher(place).close()  # and is in nobody's way


def test_one_of_another_boot_is_told(place: Path) -> None:
    publisher = Publisher(place)
    publisher.say(a_live(boot_id="another"))

    assert "left by a recorder before this boot" in (find_live(place).why_not or "")
    publisher.close()


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_one_that_others_may_write_is_not_believed(place: Path, mode: int) -> None:
    publisher = Publisher(place)
    publisher.say(a_live())
    place.chmod(mode)

    assert "is not believed" in (find_live(place).why_not or "")
    publisher.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_one_of_another_user_is_not_believed(place: Path) -> None:
    leave_behind(place, a_live())
    os.chown(place, 12345, 12345)

    assert "is not believed" in (find_live(place).why_not or "")


@pytest.mark.parametrize("said", ["", "{", "[]", '{"schema": 2}', "\ufeff", "null"])
def test_one_that_cannot_be_understood_is_told(place: Path, said: str) -> None:
    place.parent.mkdir(parents=True)
    place.write_text(said)
    place.chmod(0o600)

    assert "says nothing that this powerbench understands" in (find_live(place).why_not or "")


def test_a_newer_one_is_not_guessed_at(place: Path) -> None:
    leave_behind(place, a_live(schema=2))

    assert "says nothing that this powerbench understands" in (find_live(place).why_not or "")


def leave_behind(place: Path, live: Live) -> None:
    """As a recorder leaves it that was killed."""
    publisher = Publisher(place)
    publisher.say(live)
    said = json.loads(place.read_text())
    publisher.close()
    place.write_text(json.dumps(said))
    place.chmod(0o600)
