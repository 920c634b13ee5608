"""The verdict and the remedy of each fact that the doctor finds."""

from typing import Any

import pytest

from ci.doctor import diagnosis
from ci.doctor.diagnosis import HERE, LAB, MACHINE, Finding
from ci.plan.gpus import Gpu

H100 = Gpu("0", "GPU-a", "NVIDIA H100")
TWO = (H100, Gpu("1", "GPU-b", "NVIDIA H100"))
SEALED = {
    **{"test": "surroundings", "uid": 1000, "interfaces": ["lo"], "read_only": True},
    "attempt": "",
}
SEALED |= {"shm": 2**30}


def judge(place: str = LAB, granted: tuple[Gpu, ...] = (), **fact: Any) -> list[Finding]:
    """The findings of one fact."""
    return list(diagnosis.judge_facts(place, granted, [fact]))


@pytest.mark.parametrize(
    ("version", "cuda", "verdict"),
    [
        ("580.95.05", "13.0", "ok"),
        ("595.1", "13.2", "ok"),
        ("579.99", "13.0", "fail"),
        ("570.86.15", "13.0", "fail"),
        ("570.86.15", "12.8", "ok"),
        ("520.1", "12.8", "fail"),
        ("", "13.0", "warn"),
    ],
)
def test_a_driver_is_as_new_as_torchs_cuda_needs(version: str, cuda: str, verdict: str) -> None:
    """580 for CUDA 13, 525 for CUDA 12; an unknown version is a warning."""
    assert diagnosis.judge_driver(HERE, version, cuda).verdict == verdict


@pytest.mark.parametrize(
    ("kernel", "verdict"), [("forked", "ok"), ("fresh: an import warns: no", "warn"), ("", "fail")]
)
def test_kernels_should_be_forked(kernel: str, verdict: str) -> None:
    """Fresh ones are slower; without a fork server no lesson runs."""
    assert diagnosis.judge_kernels(HERE, kernel).verdict == verdict


def test_an_old_driver_has_its_remedy() -> None:
    """The oldest sufficient driver."""
    assert diagnosis.judge_driver(HERE, "570.1", "13.0").remedy == "install 580 or newer"


@pytest.mark.parametrize(
    ("version", "verdict"),
    [("1.17.8", "ok"), ("1.18.0-rc.1", "ok"), ("1.17.8-rc.1", "fail"), ("1.9.0", "fail")],
)
def test_a_toolkit_has_the_security_fix(version: str, verdict: str) -> None:
    """1.9 is older than 1.17, and a release candidate is older than its release."""
    finding = diagnosis.judge_toolkit(version)
    assert finding.verdict == verdict
    assert "CVE-2025-23266" in finding.text


def test_a_cpu_build_fails_only_where_there_are_gpus() -> None:
    """A CPU build on a GPU machine was installed by mistake."""
    fact = {"test": "torch", "version": "2.13.0+cpu", "cuda": None}
    assert [finding.verdict for finding in judge(**fact)] == ["ok"]
    (finding,) = judge(granted=TWO, **fact)
    assert (finding.verdict, finding.remedy) == (
        "fail",
        "install torch's CUDA build, or use --gpus none",
    )


def test_gpus_that_torch_cannot_use_fail() -> None:
    """The driver lists two GPUs, and torch sees one."""
    (finding,) = judge(granted=TWO, test="GPUs", names=["NVIDIA H100"], apart=[])
    assert (finding.verdict, finding.text) == ("fail", "torch can use 1 of 2")


@pytest.mark.parametrize(("apart", "verdict"), [([], "ok"), ([[0, 1], [1, 0]], "warn")])
def test_gpus_without_peer_access_are_slower(apart: list[list[int]], verdict: str) -> None:
    """The course can run all the same."""
    (finding,) = judge(granted=TWO, test="GPUs", names=["a", "b"], apart=apart)
    assert (finding.subject, finding.verdict) == ("peer access", verdict)


@pytest.mark.parametrize(
    ("error", "verdict"), [(4e-7, "ok"), (3e-4, "fail"), (float("nan"), "fail")]
)
def test_a_product_is_as_exact_as_float32(error: float, verdict: str) -> None:
    """TF32 is not as exact, and a NaN is an error."""
    (finding,) = judge(granted=TWO, test="matmul", device=1, error=error)
    assert (finding.subject, finding.verdict) == ("matmul, cuda:1", verdict)


def test_a_sealed_lab_is_ok() -> None:
    """A user without root, no network, a read-only root, and 1 GiB of shared memory."""
    assert [finding.verdict for finding in judge(**SEALED)] == ["ok", "ok"]


@pytest.mark.parametrize(
    "leak", [{"uid": 0}, {"interfaces": ["lo", "eth0"]}, {"read_only": False}], ids=str
)
def test_a_lab_that_leaks_fails(leak: dict[str, Any]) -> None:
    """Outside the lab, there is no isolation to leak."""
    fact = SEALED | leak
    assert judge(**fact)[-1].verdict == "fail"
    assert judge(HERE, **fact)[-1].verdict == "not here"


def test_a_lab_that_cannot_write_an_attempt_fails() -> None:
    """As in a rootless engine, where the user inside is a subordinate of the caller."""
    finding = judge(**SEALED | {"attempt": "Permission denied"})[1]
    assert (finding.subject, finding.verdict) == ("results", "fail")
    assert finding.text == "the lab's user cannot write them: Permission denied"


def test_little_shared_memory_warns() -> None:
    """Docker's default is 64 MB."""
    assert judge(**SEALED | {"shm": 64 * 2**20})[0].verdict == "warn"


def test_a_fault_is_a_failing_row_with_a_remedy() -> None:
    """An all-reduce that timed out, and a probe without a remedy of its own."""
    for test in ("all-reduce", "probe"):
        (finding,) = judge(test=test, fault="nccl, 2 ranks: not done in 90 s")
        assert (finding.subject, finding.verdict) == (test, "fail")
        assert finding.remedy


@pytest.mark.parametrize(
    ("findings", "place"),
    [
        ({MACHINE: "ok", LAB: "ok"}, LAB),
        ({MACHINE: "warn", LAB: "warn"}, LAB),
        ({MACHINE: "ok", LAB: "fail", HERE: "not here"}, HERE),
        ({MACHINE: "ok", LAB: "fail", HERE: "fail"}, ""),
        ({MACHINE: "fail", LAB: "ok"}, ""),
    ],
)
def test_the_course_runs_where_nothing_fails(findings: dict[str, str], place: str) -> None:
    """A fault of the machine affects every place."""
    found = [Finding(where, "something", verdict, "") for where, verdict in findings.items()]
    assert diagnosis.usable_place(found) == place
