"""What a user may type wrong at `powerbench run`: one sentence with the remedy, never a traceback, nothing measured."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from powerbench.cli.app import main

Screen = pytest.CaptureFixture[str]


def refused(capsys: Screen, folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit status and the sentence of a run that must not begin."""
    status = main(["run", *arguments, "--output", str(folder / "runs")])

    told = capsys.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err
    assert not (folder / "runs").exists()
    return status, told.err


WHOLE = "must be a whole number from 1 to 10,000,000"


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--batch-size 0", f"--batch-size {WHOLE}, not 0."),
        ("--steps -1", f"--steps {WHOLE}, not -1."),
        ("--steps 10000001", f"--steps {WHOLE}, not 10000001."),
        ("--warmup -1", "--warmup must be a whole number from 0 to 10,000,000, not -1."),
        ("--threads 0", "--threads must be a whole number from 1 to 1,024, not 0."),
        (
            "--dtype float7",
            "--dtype must be one of bfloat16, float16, float32, not 'float7'; did you mean float32?",
        ),
        ("--mode trainig", "--mode must be one of inference, training, not 'trainig'; did you mean training?"),
        ("--batch-size x", f"--batch-size {WHOLE}, not 'x'."),
        ("--steps 1.5", f"--steps {WHOLE}, not 1.5."),
        ("--min-seconds long", "--min-seconds must be a number of seconds, 0 or more, not 'long'."),
        (
            "--batch-size 1,2,4",
            f"--batch-size {WHOLE}, not '1,2,4'; for several, give --batch-size once for each.",
        ),
        (
            "--ranks 2 --device mps",
            "--ranks 2 cannot be measured on mps: a Mac has one GPU, over which torch spreads no work; take --ranks 1, "
            "or --device cpu.",
        ),
        ("--ranks 0", "--ranks must be a whole number from 1 to 10,000, not 0."),
        (
            "--nnodes 2 --node-rank 2 --rendezvous here:1",
            "--node-rank is 2, and 2 machines are numbered from 0 to 1.",
        ),
        ("--copy twice", "--copy must be one of async, blocking, resident, not 'twice'."),
        ("--attention none", "--attention must be one of eager, sdpa, not 'none'."),
        ("--min-seconds nan", "--min-seconds must be a number of seconds, 0 or more, not 'nan'."),
        ("--min-seconds inf", "--min-seconds must be a number of seconds, 0 or more, not 'inf'."),
        ("--max-seconds inf", "--max-seconds must be a number of seconds above 0, not 'inf'."),
        ("--max-seconds 0", "--max-seconds must be a number of seconds above 0, not 0."),
        ("--set seed", "--set seed has no value; write --set key=value."),
        ("--set seed=1 --set seed=2", "A key is given twice with --set; leave one out."),
        (
            "--min-seconds 5 --max-seconds 5",
            "max_seconds is 5 and min_seconds 5: such a run always ends by its limit; allow more.",
        ),
        (
            "--min-seconds 5 --set max_seconds=1",
            "max_seconds is 1 and min_seconds 5: such a run always ends by its limit; allow more.",
        ),
        ("--set sede=1", "In --set, 'sede' is not a setting; did you mean seed?"),
        ("--set seed=x", "In --set, seed must be a whole number from 0 to 10,000,000, not 'x'."),
        ("--set seed=", "In --set, seed must be a whole number from 0 to 10,000,000, not nothing."),
        ("--set learning_rate=.nan", "In --set, learning_rate must be a number above 0, not nan."),
        ("--set sleep_ms=.inf", "In --set, sleep_ms must be a number above 0, not inf."),
        ("--set batch_size=[1,many]", f"In --set, batch_size {WHOLE}, not 'many'."),
        ("--set repeats=[1,2]", "In --set, repeats is one for the whole sweep: give one value."),
        ("--repeats 0", f"--repeats {WHOLE}, not 0."),
        ("--cooldown long", "--cooldown must be a number of seconds, 0 or more, not 'long'."),
        ("--batch-size 8 --batch-size 8", "--batch-size names a value twice; to measure a cell again, use --repeats."),
        ("--batch-size 8 --batch-size many", f"--batch-size {WHOLE}, not 'many'."),
        ("--repeats 2 --repeats 3", "--repeats is given twice, and there is room for one: leave one out."),
        ("--power none --power=rapl", "--power is given twice, and there is room for one: leave one out."),
        ("--output here --output there", "--output is given twice, and there is room for one: leave one out."),
        (
            "--retry oom,cold",
            "--retry knows no status 'cold'; choose from complete, oom, swapping, timeout, unavailable, failed.",
        ),
        (
            "--sequence-length 128 --sequence-length 513",
            "sequence_length is 513, but bert-base-cased has only 512 positions; "
            "choose at most 512 with --sequence-length.",
        ),
        (
            "--set seed=[1,2] --repeats 10000",
            "That makes 20,000 measurements; give fewer values, 10,000 at most in all.",
        ),
        ("--model bert-tinny", "There is no built-in model called 'bert-tinny'; did you mean bert-tiny?"),
        ("--device cudaa", "There is no device called 'cudaa'; did you mean cuda?"),
        (
            "--sequence-length 513",
            "sequence_length is 513, but bert-base-cased has only 512 positions; "
            "choose at most 512 with --sequence-length.",
        ),
    ],
)
def test_a_wrong_setting_is_wrong_usage(capsys: Screen, tmp_path: Path, typed: str, said: str) -> None:
    assert refused(capsys, tmp_path, *typed.split(" ")) == (2, f"powerbench: {said}\n")


@pytest.mark.parametrize(
    ("typed", "beginning"),
    [
        ("--set seed={", "powerbench: --set seed={: the value is no YAML: "),
        ("--device abacus", "powerbench: There is no device called 'abacus'; choose one of auto, "),
        ("--model ./gpt-17", "powerbench: There is no folder ./gpt-17: name one that holds a config.json, a model on "),
        ("--model sleep --device cuda", "powerbench: The model sleep runs on the cpu, not on cuda"),
        ("--set nonsense=1", "powerbench: In --set, 'nonsense' is not a setting; "),
    ],
)
def test_a_wrong_setting_is_one_line_however_long(capsys: Screen, tmp_path: Path, typed: str, beginning: str) -> None:
    status, said = refused(capsys, tmp_path, *typed.split(" "))

    assert status == 2
    assert said.startswith(beginning)
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "The profile {} holds nothing; write settings, one `key: value` a line."),
        (b"- steps: 1\n", "The profile {} holds a list; write settings, one `key: value` a line."),
        (b"quick\n", "The profile {} holds a single value; write settings, one `key: value` a line."),
        (
            b"a: [\n",
            "The profile {} is no YAML: while parsing a flow node, expected the node content, but found '<stream end>' "
            "(line 2, column 1); mend it there.",
        ),
        (b"\x80\xff\x00", "The profile {} is not text in UTF-8; save it as such."),
        (b"steps: 1\nsteps: 2\n", "The profile {} is no YAML: steps is given twice (line 2, column 1); mend it there."),
        (b"bach_size: 1\n", "In the profile {}, 'bach_size' is not a setting; did you mean batch_size?"),
        (b"batch_size: many\n", f"In the profile {{}}, batch_size {WHOLE}, not 'many'."),
        (b"trace: 1\n", "In the profile {}, trace must be true or false, not 1."),
        (
            b"batch_size: [8, many]\n",
            f"In the profile {{}}, batch_size {WHOLE}, not 'many'.",
        ),
        (
            b"min_seconds: .inf\n",
            "In the profile {}, min_seconds must be a number of seconds, 0 or more, or null, not inf.",
        ),
    ],
)
def test_a_wrong_profile_is_named_with_what_is_wrong(capsys: Screen, tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text)

    assert refused(capsys, tmp_path, str(path)) == (1, f"powerbench: {said.format(path)}\n")


def test_a_profile_that_is_not_there_or_no_file_is_named(capsys: Screen, tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"

    assert refused(capsys, tmp_path, str(missing)) == (
        1,
        f"powerbench: Cannot read the profile {missing}: No such file or directory; check the path.\n",
    )
    assert refused(capsys, tmp_path, str(tmp_path)) == (
        1,
        f"powerbench: Cannot read the profile {tmp_path}: Is a directory; check the path.\n",
    )
    assert refused(capsys, tmp_path, "quikc") == (
        1,
        "powerbench: There is no profile called 'quikc'; did you mean quick? "
        "A file of yours needs a path: ./quikc.yaml\n",
    )


@pytest.mark.parametrize("typed", ["--nonsense", "a b"])
def test_what_the_command_line_itself_cannot_read_is_wrong_usage(capsys: Screen, tmp_path: Path, typed: str) -> None:
    status, said = refused(capsys, tmp_path, *typed.split(" "))

    assert status == 2
    assert "Usage: powerbench run" in said


def test_a_folder_that_cannot_be_made_is_named_with_the_remedy(capsys: Screen, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    status = main(["run", "--model", "sleep", "--output", str(tmp_path / "file")])

    assert (status, capsys.readouterr().err.splitlines()[-1]) == (
        1,
        f"powerbench: Cannot make a run directory in {tmp_path / 'file'}: File exists. "
        "Choose another folder with --output.",
    )


def test_a_date_that_is_none_is_one_line_too(capsys: Screen, tmp_path: Path) -> None:
    status, said = refused(capsys, tmp_path, "--set", "seed=2021-13-45")

    assert (status, said.count("\n")) == (2, 1)


@pytest.mark.parametrize(("source", "status"), [("nonsense", 2), ("powermetrics", 3)])
def test_a_power_source_that_there_is_not_is_refused_before_anything_is_made(
    capsys: Screen, tmp_path: Path, source: str, status: int
) -> None:
    assert refused(capsys, tmp_path, "--model", "sleep", "--steps", "1", "--set", f"power={source}")[0] == status


def test_a_sweep_of_nothing_but_a_device_that_is_not_here_is_refused(capsys: Screen, tmp_path: Path) -> None:
    status, said = refused(capsys, tmp_path, "--device", "mps" if sys.platform != "darwin" else "xpu", "--repeats", "2")

    assert (status, said.count("\n")) == (3, 1)


def test_there_is_nothing_to_resume_where_there_is_no_such_sweep(capsys: Screen, tmp_path: Path) -> None:
    assert refused(capsys, tmp_path, "--model", "sleep", "--resume") == (
        1,
        f"powerbench: In {tmp_path / 'runs'} there is no sweep of these very cells on this machine to go on with: type "
        "the command as it was, name its folder with --output, or leave --resume out to begin anew.\n",
    )
