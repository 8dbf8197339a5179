"""Which machine of a run this is: as it is typed, or as SLURM has it."""

from __future__ import annotations

import pytest

from powerbench.cli.machines import Machines, first_host, node_of, port_of, with_slurm
from powerbench.errors import UsageError
from powerbench.profile import Plan
from powerbench.records import Node
from tests.rundir import a_cell

NOTHING = Machines(None, None, None)
SLURM = {
    **{"SLURM_JOB_ID": "4242", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "2", "SLURM_NNODES": "4"},
    **{"SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "gpu[07-08]", "SLURM_JOB_NODELIST": "gpu[05-08]"},
}


def a_plan(*, nnodes: int = 2, cells: int = 1, is_sweep: bool = False) -> Plan:
    return Plan("cells", [a_cell(nnodes=nnodes)] * cells, is_sweep=is_sweep)


class TestTyped:
    def test_a_machine_has_its_number_and_the_place_where_they_meet(self) -> None:
        assert node_of(Machines("2", "1", "alpha:29500"), a_plan()) == Node(rank=1, rendezvous="alpha:29500")

    def test_one_machine_is_none_of_several(self) -> None:
        assert node_of(NOTHING, a_plan(nnodes=1)) is None
        assert node_of(Machines("1", "0", None), a_plan(nnodes=1)) is None

    @pytest.mark.parametrize(
        ("typed", "plan", "said"),
        [
            (Machines("2", None, "a:1"), a_plan(), "--nnodes 2 needs --node-rank, which of them this is (0 to 1), and"),
            (Machines("2", "0", None), a_plan(), "--nnodes 2 needs --node-rank"),
            (Machines("2", "2", "a:1"), a_plan(), "--node-rank is 2, and 2 machines are numbered from 0 to 1."),
            (Machines("2", "-1", "a:1"), a_plan(), "--node-rank is -1, and 2"),
            (Machines("2", "x", "a:1"), a_plan(), "--node-rank is x, and 2"),
            (Machines("2", "0", "alpha"), a_plan(), "--rendezvous is 'alpha', and must be HOST:PORT, such as node0:2"),
            (
                Machines("2", "0", "a:1"),
                a_plan(cells=2),
                "On 2 machines a command measures one cell: type one",
            ),
            (Machines("2", "0", "a:1"), a_plan(is_sweep=True), "On 2 machines a command measures one cell"),
            (Machines(None, "1", None), a_plan(nnodes=1), "--node-rank and --rendezvous are for several machines: say"),
            (Machines(None, None, "a:1"), a_plan(nnodes=1), "--node-rank and --rendezvous are for several machines"),
        ],
    )
    def test_what_makes_no_sense_is_a_sentence(self, typed: Machines, plan: Plan, said: str) -> None:
        with pytest.raises(UsageError) as told:
            node_of(typed, plan)

        assert str(told.value).startswith(said)


class TestUnderSlurm:
    def test_a_job_step_on_several_machines_says_all_of_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert with_slurm(NOTHING, SLURM) == Machines("2", "1", "gpu07:24242")
        assert capsys.readouterr().err == (
            "powerbench: By SLURM's variables this is --nnodes 2 --node-rank 1 --rendezvous gpu07:24242 (--nnodes 1 "
            "measures on this machine alone).\n"
        )

    def test_an_allocation_does_where_there_is_no_step(self) -> None:
        job = {name: value for name, value in SLURM.items() if "_STEP_" not in name}

        assert with_slurm(NOTHING, job) == Machines("4", "1", "gpu05:24242")

    def test_what_is_typed_goes_first(self) -> None:
        assert with_slurm(Machines("1", None, None), SLURM) == Machines("1", None, None)
        assert with_slurm(Machines(None, "0", "alpha:1"), SLURM) == Machines("2", "0", "alpha:1")

    def test_one_machine_is_as_without_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert with_slurm(NOTHING, SLURM | {"SLURM_STEP_NUM_NODES": "1"}) == NOTHING
        assert with_slurm(NOTHING, {}) == NOTHING
        assert capsys.readouterr().err == ""

    def test_several_of_us_on_a_machine_are_refused(self) -> None:
        with pytest.raises(UsageError, match=r"start one on each \(srun --ntasks-per-node=1\)"):
            with_slurm(NOTHING, SLURM | {"SLURM_LOCALID": "1"})

    @pytest.mark.parametrize(
        ("node_list", "first"),
        [
            ("alpha", "alpha"),
            ("alpha,beta", "alpha"),
            ("node[01-03,07],gpu5", "node01"),
            ("gpu5,node[01-03]", "gpu5"),
            ("rack[2,4]node[010-012]-ib,x", "rack2node010-ib"),
        ],
    )
    def test_the_first_machine_is_read_from_a_list_that_is_folded(self, node_list: str, first: str) -> None:
        assert first_host(node_list) == first

    def test_steps_of_one_job_meet_at_ports_of_their_own(self) -> None:
        assert port_of(SLURM) == 24242
        assert port_of(SLURM | {"SLURM_STEP_ID": "3"}) == 24245
        assert port_of({"SLURM_JOB_ID": "123456"}) == 23456
