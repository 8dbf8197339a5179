"""Profiles are read strictly, and whatever is wrong with one is a sentence that names the file and the key."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from powerbench.errors import PowerbenchError, UsageError
from powerbench.profile import (
    Plan,
    Profile,
    assignment,
    find_profile,
    load_profile,
    make_cell,
    make_plan,
    resolve,
    shipped_profiles,
)
from powerbench.records import Cell
from powerbench.settings import TYPES, checked

KEYS = [*(name for name in Cell.__struct_fields__ if name != "limits"), "limits.swap_out_mb", "limits.step_seconds"]


def profile(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, "utf-8")
    return path


def complaint(path: Path) -> str:
    with pytest.raises(PowerbenchError) as caught:
        load_profile(path)
    assert caught.value.exit_status == 1
    return str(caught.value)


class TestShipped:
    def test_are_these(self) -> None:
        assert list(shipped_profiles()) == ["energy", "large", "quick", "seed", "slowdown"]

    def test_all_load_describe_themselves_and_resolve(self) -> None:
        for path in shipped_profiles().values():
            loaded = load_profile(path)
            assert loaded.description
            for cell in make_plan(profile=loaded, options={"device": "cpu"}).cells:
                resolve(cell, metered=False)

    @pytest.mark.parametrize("name", ["quick", "slowdown"])
    def test_quick_and_slowdown_are_of_one_cell(self, name: str) -> None:
        assert not make_plan(profile=load_profile(find_profile(name))).is_sweep

    def test_energy_is_measured_long_three_times_and_from_rest(self) -> None:
        plan = make_plan(profile=load_profile(find_profile("energy")))

        assert (plan.repeats, plan.cooldown_seconds) == (3, 300.0)
        assert {(cell.min_seconds, cell.idle_seconds, cell.require_power) for cell in plan.cells} == {(120, 30, True)}

    def test_slowdown_is_a_trace_of_ten_minutes_at_least(self) -> None:
        cell = make_cell(profile=load_profile(find_profile("slowdown")))

        assert cell.trace
        assert (cell.min_seconds or 0) >= 600

    def test_are_found_by_name_and_files_by_path(self) -> None:
        assert find_profile("quick") == shipped_profiles()["quick"]
        for path in ("./quick", "quick.yaml", "quick.yml", "/etc/quick"):
            assert find_profile(path) == Path(path)

    def test_that_do_not_exist_are_refused_with_the_nearest(self) -> None:
        with pytest.raises(PowerbenchError) as caught:
            find_profile("quik")
        assert str(caught.value) == (
            "There is no profile called 'quik'; did you mean quick? A file of yours needs a path: ./quik.yaml"
        )

        with pytest.raises(PowerbenchError, match="there are energy, large, quick, seed, slowdown"):
            find_profile("xyz")


class TestLoading:
    def test_gives_the_settings_that_the_file_has_and_no_others(self, tmp_path: Path) -> None:
        path = profile(tmp_path, "description: mine\nsteps: 7\nlearning_rate: 1e-4\nmin_seconds: 2\ncopy: null\n")

        assert load_profile(path) == Profile(
            path, "mine", {"steps": 7, "learning_rate": 1e-4, "min_seconds": 2.0, "copy": None}
        )

    def test_needs_no_description(self, tmp_path: Path) -> None:
        assert load_profile(profile(tmp_path, "steps: 7")).description == ""

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("", "The profile {} holds nothing; write settings, one `key: value` a line."),
            ("- steps: 1", "The profile {} holds a list; write settings, one `key: value` a line."),
            ("steps", "The profile {} holds a single value; write settings, one `key: value` a line."),
            ("description: 3", "In the profile {}, description must be text, not 3."),
            ("setps: 3", "In the profile {}, 'setps' is not a setting; did you mean steps?"),
            (
                "steps: many",
                "In the profile {}, steps must be a whole number from 1 to 10,000,000, not 'many'.",
            ),
            ("steps: 1.5", "In the profile {}, steps must be a whole number from 1 to 10,000,000, not 1.5."),
            ("steps:", "In the profile {}, steps must be a whole number from 1 to 10,000,000, not nothing."),
            ("trace: 1", "In the profile {}, trace must be true or false, not 1."),
            (
                "dtype: float7",
                "In the profile {}, dtype must be one of bfloat16, float16, float32, not 'float7'; "
                "did you mean float32?",
            ),
            ("batch_size: []", "In the profile {}, batch_size is an empty list: give values, or leave it out."),
            ("batch_size: [1, many]", "In the profile {}, batch_size must be a whole number from 1 to 10,000,000, not"),
            ("batch_size: [[1]]", "In the profile {}, batch_size must be a whole number from 1 to 10,000,000, not"),
            (
                "min_seconds: [1, 1.0]",
                "In the profile {}, min_seconds names a value twice; to measure a cell again, use --repeats.",
            ),
            ("repeats: 0", "In the profile {}, repeats must be a whole number from 1 to 10,000,000, not 0."),
            ("repeats: [1, 2]", "In the profile {}, repeats is one for the whole sweep: give one value."),
            ("cooldown_seconds: -1", "In the profile {}, cooldown_seconds must be a number of seconds, 0 or more, not"),
            (
                "exclude: {batch_size: 1}",
                "In the profile {}, exclude must be a list of what to leave out, such as "
                "`- {{device: cpu, batch_size: 256}}`.",
            ),
            ("exclude: [{}]", "In the profile {}, exclude must be a list of what to leave out"),
            ("exclude: [{bach_size: 1}]", "In the profile {}, exclude: 'bach_size' is not a setting; did you mean"),
            (
                "exclude: [{repeats: 1}]",
                "In the profile {}, exclude: repeats is one for the whole sweep and leaves no cell out.",
            ),
            (
                "steps: 1\nsteps: 2",
                "The profile {} is no YAML: steps is given twice (line 2, column 1); mend it there.",
            ),
            (
                "steps: {",
                "The profile {} is no YAML: while parsing a flow node, expected the node content, "
                "but found '<stream end>' (line 1, column 9); mend it there.",
            ),
            ("seed: !!python/name:os.system", "The profile {} is no YAML: could not determine a constructor"),
            ("min_seconds: .nan", "In the profile {}, min_seconds must be a number of seconds, 0 or more, or null"),
            ("max_seconds: .inf", "In the profile {}, max_seconds must be a number of seconds above 0, or null"),
            ("sleep_ms: -.inf", "In the profile {}, sleep_ms must be a number above 0, not -inf."),
        ],
    )
    def test_says_what_is_wrong_and_where(self, tmp_path: Path, text: str, said: str) -> None:
        path = profile(tmp_path, text)

        assert complaint(path).startswith(said.format(path))

    def test_of_what_is_not_there_or_no_file_or_no_text_says_so(self, tmp_path: Path) -> None:
        binary = tmp_path / "binary.yaml"
        binary.write_bytes(b"\x80\x00\xff")

        missing = tmp_path / "missing.yaml"
        assert complaint(missing) == f"Cannot read the profile {missing}: No such file or directory; check the path."
        assert complaint(tmp_path) == f"Cannot read the profile {tmp_path}: Is a directory; check the path."
        assert complaint(binary) == f"The profile {binary} is not text in UTF-8; save it as such."

    @settings(deadline=None, max_examples=300)
    @given(
        st.one_of(
            st.text(),
            st.text(alphabet="steps: -[]{}&*!|>%@`'\"#,?01.\n\t"),
            st.builds("{}: {}".format, st.sampled_from(KEYS), st.text(max_size=12)),
        )
    )
    def test_of_any_text_gives_settings_or_a_sentence(self, text: str) -> None:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "mine.yaml"
            path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
            said = sentence(lambda: load_profile(path))
            assert said is None or str(path) in said


def sentence(do: Callable[[], object]) -> str | None:
    """What a PowerbenchError said; None where all was well."""
    try:
        do()
    except PowerbenchError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    "text",
    [
        "seed: 2021-13-45",
        "seed: 0b_",
        "seed: " + "9" * 5000,
        "seed: 0x" + "f" * 5000,
        "!!map abc",
        "a: !!int x",
        "a: !!bool x",
        "a: !!timestamp x",
        "[" * 700,
    ],
    ids=lambda text: text[:16],
)
def test_yaml_that_pyyaml_itself_trips_over_is_a_sentence_too(tmp_path: Path, text: str) -> None:
    assert complaint(profile(tmp_path, text))


class TestSettingsInAGroup:
    def test_are_read_nested_or_by_their_whole_name(self, tmp_path: Path) -> None:
        for text in ("limits: {step_seconds: 2}", "limits.step_seconds: 2"):
            loaded = load_profile(profile(tmp_path, text))
            assert loaded.settings == {"limits.step_seconds": 2.0}
            assert make_cell(profile=loaded).limits.step_seconds == 2.0

    def test_are_as_strict_as_others(self, tmp_path: Path) -> None:
        path = profile(tmp_path, "limits: {step_secnods: 2}")

        assert complaint(path) == (
            f"In the profile {path}, 'limits.step_secnods' is not a setting; did you mean limits.step_seconds?"
        )

    @pytest.mark.parametrize("text", ["steps: {}", "setps: {}"])
    def test_that_are_none_are_refused(self, tmp_path: Path, text: str) -> None:
        assert complaint(profile(tmp_path, text))

    def test_may_not_be_given_in_both_forms(self, tmp_path: Path) -> None:
        text = "limits: {step_seconds: 1}\nlimits.step_seconds: 2"

        assert "given twice" in complaint(profile(tmp_path, text))


class TestAssignment:
    @pytest.mark.parametrize(
        ("text", "key", "value"),
        [
            ("seed=1", "seed", 1),
            ("dropout=false", "dropout", False),
            ("model=bert-tiny", "model", "bert-tiny"),
            ("copy=null", "copy", None),
            ("steps=", "steps", None),
            ("a=b=c", "a", "b=c"),
            (" seed = 1", "seed", 1),
        ],
    )
    def test_is_a_key_and_a_value_read_as_in_a_profile(self, text: str, key: str, value: object) -> None:
        assert assignment(text) == (key, value)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("seed", "--set seed has no value; write --set key=value."),
            ("seed={", "--set seed={: the value is no YAML: "),
        ],
    )
    def test_that_is_none_is_wrong_usage(self, text: str, said: str) -> None:
        with pytest.raises(UsageError) as caught:
            assignment(text)
        assert str(caught.value).startswith(said)

    def test_of_a_date_that_is_none_is_wrong_usage(self) -> None:
        with pytest.raises(UsageError):
            assignment("seed=2021-13-45")


class TestMakingACell:
    def test_takes_options_before_sets_before_the_profile_before_the_defaults(self) -> None:
        cell = make_cell(
            profile=Profile(Path("mine.yaml"), "", {"steps": 1, "warmup": 1, "batch_size": 1}),
            sets={"steps": 2, "warmup": 2},
            options={"steps": 3},
        )

        assert (cell.steps, cell.warmup, cell.batch_size, cell.sequence_length) == (3, 2, 1, 128)

    def test_of_nothing_is_the_default(self) -> None:
        assert make_cell() == Cell()

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            ({"options": {"batch_size": 0}}, "--batch-size must be a whole number from 1 to 10,000,000, not 0."),
            ({"sets": {"batch_size": 0}}, "In --set, batch_size must be a whole number from 1 to 10,000,000, not 0."),
            ({"sets": {"sede": 0}}, "In --set, 'sede' is not a setting; did you mean seed?"),
        ],
    )
    def test_names_what_was_typed_wrong(self, asked: dict[str, Any], said: str) -> None:
        with pytest.raises(UsageError) as caught:
            make_cell(**asked)
        assert (str(caught.value), caught.value.exit_status) == (said, 2)


class TestPlanning:
    def planned(self, folder: Path, text: str, **asked: Any) -> list[tuple[str, int, int]]:
        plan = make_plan(profile=load_profile(profile(folder, text)), **asked)
        return [(cell.mode, cell.sequence_length, cell.batch_size) for cell in plan.cells]

    def test_of_lists_makes_all_combinations_and_the_last_changes_fastest(self, tmp_path: Path) -> None:
        text = "mode: [training, inference]\nsequence_length: 128\nbatch_size: [16, 64]"

        assert self.planned(tmp_path, text) == [
            ("training", 128, 16),
            ("training", 128, 64),
            ("inference", 128, 16),
            ("inference", 128, 64),
        ]

    def test_leaves_out_what_the_profile_excludes(self, tmp_path: Path) -> None:
        text = """
            mode: [training, inference]
            batch_size: [16, 64, 256]
            exclude:
            - {mode: training, batch_size: [64, 256]}
            - batch_size: 16
              mode: inference
            - sequence_length: 512
        """

        assert self.planned(tmp_path, text) == [
            ("training", 128, 16),
            ("inference", 128, 64),
            ("inference", 128, 256),
        ]

    def test_excludes_by_the_device_that_auto_chooses(self, tmp_path: Path) -> None:
        text = "model: [sleep, bert-tiny]\nexclude: [{device: cpu, model: sleep}]"

        plan = make_plan(profile=load_profile(profile(tmp_path, text)))

        assert [cell.model for cell in plan.cells] == ["bert-tiny"]

    def test_tells_which_lines_of_exclude_leave_nothing_out(self, tmp_path: Path) -> None:
        text = """
            batch_size: [16, 64]
            exclude: [{batch_size: 63}, {batch_size: 64}, {batch_size: [64, 65]}, {batch_size: 16, mode: inference}]
        """

        assert make_plan(profile=load_profile(profile(tmp_path, text))).idle_excludes == (
            {"batch_size": 63},
            {"batch_size": 16, "mode": "inference"},
        )

    def test_excludes_by_a_limit(self, tmp_path: Path) -> None:
        text = "limits.swap_out_mb: [1, 2]\nexclude: [{limits: {swap_out_mb: 1}}]"

        plan = make_plan(profile=load_profile(profile(tmp_path, text)))

        assert [cell.limits.swap_out_mb for cell in plan.cells] == [2.0]

    def test_takes_an_option_given_again_as_a_list_in_the_place_of_the_profile_s(self, tmp_path: Path) -> None:
        text = "sequence_length: [128, 512]\nbatch_size: [16, 64]"

        found = self.planned(tmp_path, text, options={"sequence_length": ["64"], "batch_size": ["1", "2"]})

        assert found == [("training", 64, 1), ("training", 64, 2)]

    def test_takes_a_list_by_set(self) -> None:
        assert [cell.seed for cell in make_plan(sets={"seed": [1, 2]}).cells] == [1, 2]

    def test_takes_repeats_and_cooldown_from_the_profile_and_before_it_the_options(self, tmp_path: Path) -> None:
        loaded = load_profile(profile(tmp_path, "repeats: 3\ncooldown_seconds: 60"))

        assert make_plan(profile=loaded) == Plan("mine", [Cell()], repeats=3, cooldown_seconds=60.0, is_sweep=True)
        assert make_plan(profile=loaded, options={"repeats": ["2"]}, sets={"cooldown_seconds": 0}) == Plan(
            "mine", [Cell()], repeats=2, cooldown_seconds=0.0, is_sweep=True
        )

    @pytest.mark.parametrize(
        ("asked", "is_sweep"),
        [
            ({}, False),
            ({"options": {"batch_size": ["1"], "cooldown_seconds": "60"}}, False),
            ({"options": {"batch_size": ["1", "2"]}}, True),
            ({"options": {"repeats": "2"}}, True),
            ({"options": {"repeats": "1"}}, True),
            ({"sets": {"seed": [1]}}, True),
            ({"sets": {"seed": [1]}, "options": {"seed": "2"}}, False),
        ],
    )
    def test_is_of_a_sweep_where_a_list_or_repeats_are_asked_for_even_of_one(
        self, asked: dict[str, Any], is_sweep: bool
    ) -> None:
        assert make_plan(**asked).is_sweep is is_sweep

    @pytest.mark.parametrize(
        ("asked", "said"),
        [
            (
                {"options": {"batch_size": ["1", "2", "1"]}},
                "--batch-size names a value twice; to measure a cell again, use --repeats.",
            ),
            (
                {"options": {"batch_size": ["1,2"]}},
                "--batch-size must be a whole number from 1 to 10,000,000, not '1,2'; "
                "for several, give --batch-size once for each.",
            ),
            ({"options": {"repeats": "0"}}, "--repeats must be a whole number from 1 to 10,000,000, not 0."),
            ({"options": {"cooldown_seconds": "x"}}, "--cooldown must be a number of seconds, 0 or more, not 'x'."),
            (
                {"options": {"repeats": "9000"}, "sets": {"seed": [1, 2]}},
                "That makes 18,000 measurements; give fewer values, 10,000 at most in all.",
            ),
            (
                {"profile": Profile(Path("mine.yaml"), "", {}, ({"mode": "training"},))},
                "The profile excludes every cell that is asked for: change its `exclude`, or the options.",
            ),
        ],
    )
    def test_refuses_what_makes_no_sense(self, asked: dict[str, Any], said: str) -> None:
        with pytest.raises(UsageError) as caught:
            make_plan(**asked)
        assert str(caught.value) == said

    def test_counts_before_it_combines(self) -> None:
        many = list(range(10_000))

        with pytest.raises(UsageError, match="That makes 1,000,000,000,000 measurements"):
            make_plan(sets={"seed": many, "warmup": many, "sleep_ms": [it + 1 for it in many]})

    def test_of_several_cells_is_refused_where_there_is_room_for_one(self) -> None:
        with pytest.raises(UsageError, match="These settings make 2 cells, and here is room for one"):
            make_cell(sets={"seed": [1, 2]})


class TestResolving:
    def test_makes_every_choice_that_was_left_open(self) -> None:
        cell = resolve(Cell(device="cpu"), metered=False)

        assert (cell.device, cell.copy, cell.sync_every, cell.min_seconds) == ("cpu", "blocking", 1, 0.0)

    def test_keeps_every_choice_that_was_made(self) -> None:
        cell = resolve(Cell(device="cpu", copy="resident", sync_every=0, min_seconds=0.0, threads=3), metered=True)

        assert (cell.copy, cell.sync_every, cell.min_seconds, cell.threads) == ("resident", 0, 0.0, 3)

    @pytest.mark.parametrize("metered", [True, False])
    def test_leaves_nothing_to_be_chosen_by_a_second_time(self, metered: bool) -> None:
        once = resolve(Cell(device="cpu"), metered=metered)

        assert resolve(once, metered=not metered) == once

    def test_measures_ten_seconds_where_a_meter_runs(self) -> None:
        assert resolve(Cell(device="cpu"), metered=True).min_seconds == 10.0

    def test_allows_a_limit_above_the_least_time(self) -> None:
        assert resolve(Cell(device="cpu", min_seconds=1.0, max_seconds=1.5), metered=True).max_seconds == 1.5

    def test_never_ends_in_a_run_that_always_ends_by_its_limit(self) -> None:
        """The ten seconds give way, or the limit is refused."""
        with suppress(UsageError):
            cell = resolve(Cell(device="cpu", max_seconds=5.0), metered=True)
            assert (cell.min_seconds or 0) < 5.0

    def test_rests_five_seconds_where_a_meter_runs_and_as_asked_for_otherwise(self) -> None:
        assert resolve(Cell(device="cpu"), metered=True).idle_seconds == 5.0
        assert resolve(Cell(device="cpu"), metered=False).idle_seconds == 0.0
        assert resolve(Cell(device="cpu", idle_seconds=1.0), metered=False).idle_seconds == 1.0

    def test_chooses_a_device_for_auto(self) -> None:
        assert resolve(Cell(), metered=False).device != "auto"

    @pytest.mark.parametrize(
        ("cell", "said"),
        [
            (Cell(device="cudaa"), "There is no device called 'cudaa'; did you mean cuda?"),
            (Cell(device="gpu"), "There is no device called 'gpu'; choose one of auto, mps, cuda, cpu, "),
            (
                Cell(min_seconds=60.0, max_seconds=60.0),
                "max_seconds is 60 and min_seconds 60: such a run always ends by its limit; allow more.",
            ),
            (
                Cell(min_seconds=2.5, max_seconds=1.0),
                "max_seconds is 1 and min_seconds 2.5: such a run always ends by its limit; allow more.",
            ),
            (Cell(model="bert-tinny"), "There is no built-in model called 'bert-tinny'; did you mean bert-tiny?"),
            (Cell(sequence_length=513), "sequence_length is 513, but bert-base-cased has only 512 positions; choose"),
        ],
    )
    def test_refuses_what_makes_no_sense(self, cell: Cell, said: str) -> None:
        with pytest.raises(UsageError) as caught:
            resolve(cell, metered=False)
        assert str(caught.value).startswith(said)


ANY_VALUE = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.dates(), st.complex_numbers()
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner)),
    max_leaves=5,
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(KEYS), ANY_VALUE)
@example("learning_rate", 10**400)
@example("steps", -(10**400))
def test_any_value_of_a_setting_is_taken_or_refused_by_the_settings_name(key: str, value: object) -> None:
    taken: list[Any] = []
    said = sentence(lambda: taken.append(checked(key, value, "In a test, ")))

    if said is None:
        assert isinstance(make_cell(options={key: taken[0]}), Cell)
    else:
        assert said.startswith(f"In a test, {key} ")


@settings(deadline=None)
@given(st.one_of(st.text().filter(lambda key: key not in TYPES), st.integers(), st.none(), st.booleans(), st.dates()))
def test_any_key_that_is_no_setting_is_named(key: object) -> None:
    with pytest.raises(PowerbenchError) as caught:
        checked(key, 1, "In a test, ")
    assert re.match(
        r"In a test, .{1,40} is not a setting; (did you mean|the settings are) ", str(caught.value), re.DOTALL
    )


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("sede", "'sede'"),
        (3, "3"),
        (None, "nothing"),
        (True, "true"),
        (date(2021, 12, 31), "2021-12-31"),
        ("a" * 100, f"'{'a' * 36}..."),
        (10**20, "a number that large"),
        (10**5000, "a number that large"),
    ],
    ids=["text", "number", "nothing", "truth", "date", "long text", "large number", "number too large for text"],
)
def test_a_key_that_is_no_setting_is_named_as_its_writer_knows_it(key: object, named: str) -> None:
    with pytest.raises(PowerbenchError) as caught:
        checked(key, 1, "In a test, ")
    assert str(caught.value).startswith(f"In a test, {named} is not a setting; ")


@pytest.mark.parametrize(
    ("key", "value", "taken"),
    [
        ("learning_rate", "1e-4", 1e-4),
        ("min_seconds", "1e1", 10.0),
        ("min_seconds", 3, 3.0),
        ("min_seconds", None, None),
        ("threads", None, None),
        ("batch_size", 10_000_000, 10_000_000),
    ],
)
def test_a_number_is_taken_in_the_forms_that_yaml_gives_it(key: str, value: object, taken: object) -> None:
    it = checked(key, value, "")

    assert (it, type(it)) == (taken, type(taken))
