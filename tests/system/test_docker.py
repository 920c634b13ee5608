"""The contents of docker/: the locks, the scripts, and the lab's image that is built from them."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ci.lab import image
from ci.lab.docker_engine import connect
from ci.lab.image import VARIANTS, Image
from tests.conftest import DOCKER, ROOT
from tests.machine_parts import missing


def pins(variant: str, folder: Path = DOCKER) -> dict[str, str]:
    """The packages of a lock and their versions."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (folder / f"{variant}.txt").read_text(), re.M))


def required(lines: list[str]) -> dict[str, str]:
    """Packages and their version bounds."""
    return {(wanted := Requirement(line)).name: str(wanted.specifier) for line in lines}


def wanted_in_the_lab() -> dict[str, str]:
    """The packages of requirements.in and their version bounds."""
    text = (DOCKER / "requirements.in").read_text()
    return required([line for line in text.splitlines() if not line.startswith("#")])


def test_the_lab_keeps_the_bounds_of_the_project() -> None:
    """The lab and this machine have the same packages; only the lab has JupyterLab."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    here = required(project["optional-dependencies"]["here"])
    bounds = {**required(project["dependencies"]), **here, "jupyterlab": ">=4.4"}
    wanted = wanted_in_the_lab()
    assert wanted == {name: bounds[name] for name in wanted}
    assert here.keys() <= wanted.keys()


@pytest.mark.parametrize("variant", image.VARIANTS)
def test_a_lock_pins_what_the_lab_wants_by_hashes(variant: str) -> None:
    """Each package has a version within its bounds and a hash; no path or address is recorded."""
    text = (DOCKER / f"{variant}.txt").read_text()
    locked = pins(variant)
    for name, bounds in wanted_in_the_lab().items():
        assert Requirement(f"{name}{bounds}").specifier.contains(locked[name]), name
    for entry in re.split(r"^(?=\w)", text, flags=re.M)[1:]:
        assert "--hash=sha256:" in entry, entry
    code = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    assert not re.search(r"://|/|@", code)
    assert not re.search(r"://|\s/", text)


def test_the_variants_differ_in_torch_alone() -> None:
    """Lessons run with the same versions on the CPU and on GPUs."""
    cpu, cuda = pins("cpu"), pins("cuda")
    both = cpu.keys() & cuda.keys()
    assert {name for name in both if cpu[name] != cuda[name]} == {"torch"}
    assert cpu["torch"] == cuda["torch"] + "+cpu"
    assert cpu.keys() <= cuda.keys()


def lock(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Run docker/lock in a copy of docker/, with the uv that is installed beside pytest."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        [folder / "lock"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )


def test_a_lock_made_again_is_the_same(tmp_path: Path, cpu_wheel: Path) -> None:
    """It keeps the locked versions; a second run changes no byte."""
    folder = tmp_path / "docker"
    shutil.copytree(DOCKER, folder)
    made = []
    for _ in range(2):  # an index may have new files, and so new hashes, of an old version
        done = lock(folder)
        assert (done.returncode, done.stderr) == (0, "")
        made.append([(folder / f"{variant}.txt").read_bytes() for variant in VARIANTS])
        assert [pins(variant, folder) for variant in VARIANTS] == [pins(v) for v in VARIANTS]
    assert made[0] == made[1]


UV = """\
#!/bin/bash
while [[ $1 != --output-file ]]; do
  [[ $1 = --python-platform ]] && platform=$2
  shift
done
echo "a==1 of $platform" > "$2"
"""


def test_a_lock_that_differs_on_arm64_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image is built from the same file on both architectures."""
    folder = tmp_path / "docker"
    (folder / "wheels").mkdir(parents=True)
    for name in ("lock", "requirements.in"):
        shutil.copy(DOCKER / name, folder)
    torch = re.search(r"torch==([\d.]+)", (DOCKER / "requirements.in").read_text())
    assert torch
    (folder / "wheels" / f"torch-{torch[1]}+cpu-cp311-x86_64.whl").touch()
    (folder / "uv").write_text(UV)
    (folder / "uv").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))  # beside which `lock` has its uv
    done = lock(folder)
    assert done.returncode == 3
    assert done.stderr.startswith("the lock for arm64 differs from docker/cuda.txt")


def test_a_lock_without_the_cpu_build_says_where_it_belongs(tmp_path: Path) -> None:
    """One line, status 3, and unchanged locks."""
    folder = tmp_path / "docker"
    folder.mkdir()
    for name in ("lock", "requirements.in", "cpu.txt"):
        shutil.copy(DOCKER / name, folder)
    done = lock(folder)
    assert (done.returncode, done.stdout) == (3, "")
    assert re.match(r"docker/wheels has no torch [\d.]+\+cpu: pip download .*\n$", done.stderr)
    assert (folder / "cpu.txt").read_bytes() == (DOCKER / "cpu.txt").read_bytes()


def inside(name: str, *command: str, user: str = "4321:4321") -> str:
    """The output of a command in a container with few rights; it must not warn."""
    options = ["--network=none", "--read-only", "--tmpfs=/tmp", f"--user={user}"]
    words = ["docker", "run", "--rm", *options, name, *command]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_lab_holds_the_lock_and_no_more(lab_image: Image) -> None:
    """Every package but one in its locked version, with its requirements met, in 1.2 GB."""
    code = """if True:
        import json
        from importlib.metadata import distributions, version
        from packaging.requirements import Requirement
        from packaging.utils import canonicalize_name
        unmet, found = [], {}
        for package in distributions():
            found[canonicalize_name(package.name)] = package.version
            for wanted in map(Requirement, package.requires or []):
                if not wanted.marker or wanted.marker.evaluate({"extra": ""}):
                    if not wanted.specifier.contains(version(wanted.name), prereleases=True):
                        unmet.append(f"{package.name}: {wanted}")
        print(json.dumps([unmet, found]))
        """
    unmet, found = json.loads(inside(lab_image.id, "python", "-c", code))
    assert unmet == []
    wanted = pins("cpu")
    del wanted["rfc3987-syntax"]
    assert found == wanted
    with connect() as client:
        assert client.images.get(lab_image.id).attrs["Size"] < 1.2e9


@pytest.mark.parametrize("user", ["1000:1000", "4321:4321"])
def test_any_user_can_use_the_lab(lab_image: Image, user: str) -> None:
    """With only /tmp writable, and without the parts that the image leaves out."""
    modules = [
        *("getpass", "jupytext", "jupyterlab", "matplotlib.pyplot", "numpy.testing", "papermill"),
        *("torch._dynamo", "torch.distributed.fsdp", "torch.distributed.pipelining"),
        *("torch.distributed.tensor.parallel", "torch.optim", "torch.testing"),
        *("torch.utils.data", "torch.profiler"),
    ]
    code = f"import {', '.join(modules)}; print(getpass.getuser())"
    assert inside(lab_image.id, "python", "-c", code, user=user) == "lab\n"
    assert re.match(r"4\.", inside(lab_image.id, "jupyter", "lab", "--version", user=user))


def test_the_lab_has_nothing_to_build_with(lab_image: Image) -> None:
    """No compiler, installer, converter or Docker, and none of the pipeline's own tools."""
    tools = ["gcc", "cc", "pip", "uv", "docker", "pandoc", "typst", "git", "curl", "invoke"]
    code = f"import shutil; print([tool for tool in {tools} if shutil.which(tool)])"
    assert inside(lab_image.id, "python", "-c", code) == "[]\n"


def test_the_shell_scripts_are_clean() -> None:
    """According to shellcheck."""
    if not shutil.which("shellcheck"):
        missing("shellcheck")
    scripts = [DOCKER / "lock", DOCKER / "make_base"]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def make_base(*words: str, user: int | None = None, **environment: str) -> tuple[int, str]:
    """The exit status and output of docker/make_base."""
    with (DOCKER / "make_base").open() as script:
        done = subprocess.run(
            ["/bin/bash", "-s", "-", *words],  # so that another user can read it
            stdin=script,
            capture_output=True,
            text=True,
            check=False,
            user=user,
            env={**os.environ, **environment},
        )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def root() -> None:
    """To unpack a system, the caller must be root."""
    if os.getuid() != 0:
        missing("root")


def test_a_base_needs_a_name() -> None:
    """Its usage, and status 2."""
    assert make_base() == (2, "docker/make_base: usage: docker/make_base NAME [MIRROR…]\n")


def test_a_base_needs_root(root: None) -> None:
    """One line, status 3."""
    needs = "docker/make_base: needs root, to unpack a system: sudo -E docker/make_base name\n"
    assert make_base("name", user=65534) == (3, needs)


def test_a_base_needs_mmdebstrap(root: None, tmp_path: Path) -> None:
    """One line, status 3."""
    needs = "docker/make_base: no mmdebstrap here: apt-get install mmdebstrap\n"
    assert make_base("name", PATH=str(tmp_path)) == (3, needs)


def test_a_base_needs_an_engine(root: None) -> None:
    """This is checked before the system is made, which takes a minute."""
    if not shutil.which("mmdebstrap"):
        missing("mmdebstrap")
    status, output = make_base("name", DOCKER_HOST="unix:///nowhere.sock")
    assert (status, output.count("\n")) == (3, 1)
    assert "no Docker engine answers" in output


def test_a_system_that_cannot_be_made_is_no_base(
    root: None, base_image: str, tmp_path: Path
) -> None:
    """If the mirror does not exist, no image and no file is left."""
    status, output = make_base("test-of-half-a-system", f"file://{tmp_path}", TMPDIR=str(tmp_path))
    assert status == 3
    assert f"The repository 'file:{tmp_path} bookworm Release'" in output
    assert list(tmp_path.iterdir()) == []
    with connect() as client:
        assert client.images.list(name="test-of-half-a-system") == []
