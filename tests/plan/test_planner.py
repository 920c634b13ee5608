"""Planning: lessons x parameters x GPUs."""

import re
from pathlib import Path

import pytest

from ci.errors import UsageError
from ci.plan import planner
from ci.plan.gpus import Gpu
from tests.conftest import HEADER, ROOT, Read

GPUS = [Gpu(str(i), f"GPU-{i}", "H100") for i in range(2)]
PARALLEL = HEADER.replace("max: 1}", "max: 8}", 1).replace(
    "size: int = 4",
    'device: str = "cpu"  # where\nworld_size: int = 2  # ranks\nsize: int = 4',
)


def test_a_comma_list_is_a_sweep(read: Read) -> None:
    """Each value is a run, in the order of the list."""
    sizes = [run.parameters["size"] for run in planner.runs([read()], ["size=2,4,16"], [])]
    assert sizes == [2, 4, 16]


def test_two_comma_lists_multiply(read: Read) -> None:
    """Every combination is a run."""
    runs = planner.runs([read(header=PARALLEL)], ["size=2,3", "world_size=1,2,3"], [])
    assert len(runs) == 6


def test_a_value_given_twice_runs_once(read: Read) -> None:
    """`size=2,2` plans one run."""
    assert len(planner.runs([read()], ["size=2,2"], [])) == 1


def test_a_parameter_applies_to_the_lessons_that_have_it(read: Read) -> None:
    """The other lessons run with their defaults."""
    other = read("", header="", name="02_other")
    first, second = planner.runs([read(), other], ["size=3"], [])
    assert (first.label, second.label) == ("size=3", "")


def test_the_same_run_has_the_same_key(read: Read) -> None:
    """Planning a run again does not change its key."""
    lesson = read()
    one, same = (planner.runs([lesson], ["size=3"], [])[0].key for _ in range(2))
    assert one == same


def test_another_value_has_another_key(read: Read) -> None:
    """The runs of a sweep have separate attempts."""
    one, other = planner.runs([read()], ["size=3,4"], [])
    assert one.key != other.key


def test_the_lease_sets_device_and_world_size(read: Read) -> None:
    """On two GPUs a parallel lesson gets two ranks on cuda."""
    run = planner.runs([read(header=PARALLEL)], [], GPUS)[0]
    assert (run.parameters["device"], run.parameters["world_size"]) == ("cuda", 2)


def test_parameters_from_the_lease_count_as_defaults(read: Read) -> None:
    """A course that runs on GPUs is published like one that runs on the CPU."""
    assert planner.runs([read(header=PARALLEL)], [], GPUS)[0].is_default


def test_a_run_with_more_ranks_than_gpus_is_skipped(read: Read) -> None:
    """Where GPUs are leased, four ranks need four of them."""
    run = planner.runs([read(header=PARALLEL)], ["world_size=4"], GPUS)[0]
    assert run.lacks_gpus
    assert run.gpus_needed == 4


@pytest.mark.parametrize(("size", "leased"), [(1, 1), (2, 2), (8, 2)])
def test_a_run_leases_as_many_gpus_as_it_has_ranks(read: Read, size: int, leased: int) -> None:
    """It could show no tensor on the others."""
    run = planner.runs([read(header=PARALLEL)], [f"world_size={size}"], GPUS)[0]
    assert len(run.gpus) == leased


def test_a_lesson_leases_no_more_than_it_can_use(read: Read) -> None:
    """gpus: {max: 1} takes one of two."""
    assert planner.runs([read()], [], GPUS)[0].gpus == (GPUS[0],)


def test_a_run_leases_one_slice(read: Read) -> None:
    """CUDA shows a process only one."""
    slices = [Gpu(f"0:{i}", f"MIG-{i}", "H100 MIG 1g.10gb") for i in range(2)]
    run = planner.runs([read(header=PARALLEL)], [], slices)[0]
    assert (run.gpus, run.parameters["world_size"]) == ((slices[0],), 1)


def test_a_run_on_cuda_needs_a_gpu(read: Read) -> None:
    """Without one it is skipped; it would fail in its kernel."""
    assert planner.runs([read(header=PARALLEL)], ["device=cuda"], [])[0].gpus_needed == 1


def test_a_run_cannot_choose_among_gpus_by_its_device(read: Read) -> None:
    """It sees those of its lease, from cuda:0 on."""
    with pytest.raises(UsageError, match="by --gpus device=1, with -p device=cuda"):
        planner.runs([read(header=PARALLEL)], ["device=cuda:1"], GPUS)


def test_the_cpu_has_any_number_of_ranks(read: Read) -> None:
    """Without GPUs, all ranks run on the CPU."""
    assert not planner.runs([read(header=PARALLEL)], ["world_size=4"], [])[0].lacks_gpus


def test_a_lesson_that_needs_a_gpu_is_skipped_without_one(read: Read) -> None:
    """Its header says `gpus: {min: 1}`."""
    header = HEADER.replace("{min: 0, max: 1}", "{min: 1, max: 1}")
    assert planner.runs([read(header=header)], [], [])[0].lacks_gpus


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sise=3", "did you mean 'size'"),
        ("size", "must be name=value"),
        ("size=", "must be name=value"),
        ("x=1;print(9)#=2", "no selected lesson has this parameter"),
        ("size=3,x", "must be a whole number"),
    ],
)
def test_an_invalid_setting_is_rejected(read: Read, setting: str, message: str) -> None:
    """An unknown name or an invalid value never reaches a kernel."""
    with pytest.raises(UsageError, match=message):
        planner.runs([read()], [setting], [])


def test_a_parameter_given_twice_is_rejected(read: Read) -> None:
    """Two `-p` with the same name could be a sweep or a mistake."""
    with pytest.raises(UsageError, match="given twice"):
        planner.runs([read()], ["size=2", "size=3"], [])


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5"])
def test_invalid_jobs_are_rejected(jobs: str) -> None:
    """--jobs must be a whole number above 0."""
    with pytest.raises(UsageError, match="--jobs .*: must be"):
        planner.count_slots(jobs, [])


@pytest.mark.parametrize("timeout", ["0", "nan", "inf", "soon"])
def test_an_invalid_timeout_is_rejected(timeout: str) -> None:
    """--timeout must be a number of seconds above 0."""
    with pytest.raises(UsageError, match="--timeout .*: must be"):
        planner.parse_timeout(timeout)


@pytest.mark.parametrize(("gpus", "timeout_s"), [(0, 600), (1, 712), (8, 936)])
def test_the_default_timeout_counts_the_launches_of_ranks(gpus: int, timeout_s: float) -> None:
    """16 of them: each starts CUDA and NCCL, in 5 s and another 2 s per GPU."""
    assert planner.default_timeout(gpus) == timeout_s


def test_a_run_on_gpus_gets_the_longer_timeout(read: Read) -> None:
    """By the GPUs that it leases, unless the user or the lesson says how long it may take."""
    on_one = planner.default_timeout(1)
    assert planner.runs([read()], [], GPUS)[0].timeout_s == on_one > planner.TIMEOUT_S
    assert planner.runs([read()], [], GPUS, timeout_s=5)[0].timeout_s == 5
    header = HEADER.replace("  lesson:\n", "  lesson:\n#     timeout: 60\n", 1)
    assert planner.runs([read(header=header)], [], GPUS)[0].timeout_s == 60


@pytest.mark.parametrize("path", sorted((ROOT / "lessons").glob("0*.py")), ids=lambda p: p.stem)
def test_no_lesson_launches_ranks_more_often_than_its_timeout_counts(path: Path) -> None:
    """Counted in its code; the blanks of its exercises launch ranks, too."""
    code = re.sub(r"(?m)^#.*$|\b(def|import) .*$", "", path.read_text())
    assert len(re.findall(r"\b(?:launch|launch_cell|try_both)\(", code)) <= planner.LAUNCHES


def test_numbers_of_gpus_are_those_of_nvidia_smi(read: Read) -> None:
    """CUDA would number the fastest GPU first."""
    assert planner.Run(read(), {}).environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
