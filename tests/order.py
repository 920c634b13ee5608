"""The marks of tests by what they need; with pytest-xdist, their order and processes."""

from typing import Any

import pytest

# The fixtures through which tests get an engine, the wheels of its images, or a browser.
NEEDS = {
    "docker_engine": "docker",
    "cpu_wheel": "docker",
    "browser": "browser",
    "slurm_cluster": "slurm",
}
# The modules and folders whose tests one process runs. Those of Docker share one engine, where a
# group counts its own containers, or removes images; the others share what is made once.
GROUPS = {
    "docker: images": {
        "system/test_build_lab.py",
        "system/test_docker.py",
        "system/test_image.py",
        "system/test_workflow_jobs.py",
    },
    "docker: containers": {
        "execute/test_container.py",
        "execute/test_container_gpus.py",
        "execute/test_container_leftovers.py",
        "execute/test_container_limits.py",
        "execute/test_escapes.py",
        "system/test_engine_dies.py",
        "system/test_lab.py",
    },
    "docker: commands": {
        "doctor/test_in_lab.py",
        "jupyterlab/test_command.py",
        "jupyterlab/test_served.py",
        "lab/test_docker_engine.py",
    },
    "browser": {"system/browser/"},
    "run": {"run/"},
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by what they need; with pytest-xdist, begin with those that take long."""
    for item in items:
        for fixture, need in NEEDS.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(need)
        if item.get_closest_marker("docker") and not _group(item.nodeid).startswith("docker"):
            raise pytest.UsageError(f"{item.nodeid} needs an engine: add its module to GROUPS")
    if hasattr(config, "workerinput"):
        # The first group builds the lab's image, for which the other groups with an engine wait.
        order = [next(iter(GROUPS)), "kernel", "docker", "browser", ""]
        ranks: dict[str, int] = {}
        for item in items:
            group = _group(item.nodeid)
            needs = {group, "", *(mark.name for mark in item.iter_markers())}
            rank = min(order.index(need) for need in needs.intersection(order))
            ranks[group] = min(rank, ranks.get(group, rank))
        items.sort(key=lambda item: ranks[_group(item.nodeid)])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a module to one process, as its tests share fixtures, or a group of `GROUPS`.

    pytest-xdist 3.8 has groups too, but they have no effect with pytest 9.2, without a warning.
    """
    from xdist.scheduler import LoadScopeScheduling

    class LoadGroups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    config.option.loadscopereorder = False
    return LoadGroups(config, log)


def _group(nodeid: str) -> str:
    module = nodeid.partition("::")[0].removeprefix("tests/")
    return next(
        (group for group, modules in GROUPS.items() if module.startswith(tuple(modules))), module
    )
