"""The figures of lesson 05, and one of lesson 08."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from torch import Tensor

from parallel.messages import Message

BLUE, ORANGE, LINE, RED, GREY = "#a9c6de", "#f3c892", "#1d3557", "#c1121f", "#8d99ae"
CENTERED = {"ha": "center", "va": "center", "color": LINE}

MATRICES = {  # left edge, width, height
    "$x$": (0, 0.8, 1.7),
    r"$W_1^\top$": (1.1, 1.5, 0.8),
    r"$W_2^\top$": (3.3, 0.3, 1.5),
    "$out$": (4.3, 0.3, 1.7),
}
PARTS = {  # left, bottom, width, height in units of the matrix; color
    "blue": [(0, 0, 1, 1, BLUE)],
    "orange": [(0, 0, 1, 1, ORANGE)],
    "rows": [(0, 0.5, 1, 0.5, BLUE), (0, 0, 1, 0.5, ORANGE)],
    "columns": [(0, 0, 0.5, 1, BLUE), (0.5, 0, 0.5, 1, ORANGE)],
    "both": [(0, 0, 1, 1, ORANGE), (0, 0, 1, 1, BLUE)],
}
WAYS = {
    "(a)": ["blue", "blue", "orange", "orange"],
    "(b)": ["both", "columns", "rows", "both"],
    "(c)": ["rows", "both", "both", "rows"],
}


def draw_three_ways() -> None:
    """Two layers on two devices: divided between the layers, within them, or by samples."""
    _, panels = plt.subplots(1, 3, figsize=(7, 1.6), layout="constrained")
    for panel, (name, way) in zip(panels, WAYS.items(), strict=True):
        for (label, place), where in zip(MATRICES.items(), way, strict=True):
            _draw_matrix(panel, label, *place, where)
        panel.text(-0.1, 1.15, name, color=LINE)
        panel.set(xlim=(-0.15, 5), ylim=(-1.4, 1.5), aspect="equal")
        panel.axis("off")
    _draw_message(panels[0], "$h$", (2.65, 0), (3.25, 0))
    _draw_message(panels[1], "$+$", (3.65, 0.4), (4.25, 0.05))
    _draw_message(panels[1], "", (3.65, -0.4), (4.25, -0.05))
    _draw_message(panels[2], r"$\nabla W_1$", (1.6, 0.75), (2.3, 0.75), "<->")
    _draw_message(panels[2], r"$\nabla W_2$", (3.2, 1.05), (3.8, 1.05), "<->")


def _draw_matrix(
    panel: Axes, label: str, x: float, width: float, height: float, where: str
) -> None:
    for left, bottom, w, h, color in PARTS[where]:
        behind = 0.14 if where == "both" and color == ORANGE else 0
        corner = (x + left * width + behind, (bottom - 0.5) * height + behind)
        panel.add_patch(plt.Rectangle(corner, w * width, h * height, fc=color, ec=LINE, lw=0.8))
    panel.text(x + width / 2, -1, label, ha="center", va="top", color=LINE)


def _draw_message(
    panel: Axes,
    label: str,
    start: tuple[float, float],
    end: tuple[float, float],
    style: str = "->",
) -> None:
    panel.annotate("", end, start, arrowprops={"arrowstyle": style, "color": RED, "lw": 1.4})
    x, y = (start[0] + end[0]) / 2, max(start[1], end[1]) + 0.12
    panel.text(x, y, label, color=RED, ha="center")


STEPS = {  # what each device has after each phase
    "nn.DataParallel": [
        ["$x, W$", "$o_0$", "$o, L$", "$g_0$", "$g$", "$W$"],
        ["$x_1, W$", "$o_1$", "", "$g_1$", "", ""],
    ],
    "DistributedDataParallel": [
        ["$x_0$", "$o_0$", "$L_0$", "$g_0$", "$g$", "$W$"],
        ["$x_1$", "$o_1$", "$L_1$", "$g_1$", "$g$", "$W$"],
    ],
}
PROCESSES = [[(-1.42, 1.84)], [(-0.42, 0.84), (-1.42, 0.84)]]  # bottom and height of each frame
ARROWS = [{1: "->", 3: "<-", 4: "->", 5: "<-"}, {5: "<->"}]  # phase -> direction


def draw_step() -> None:
    """The six phases of a training step, with nn.DataParallel and with DDP."""
    _, panels = plt.subplots(2, 1, figsize=(7, 2.4), layout="constrained")
    each = zip(panels, STEPS.items(), PROCESSES, ARROWS, strict=True)
    for panel, (name, devices), processes, arrows in each:
        _draw_phases(panel, devices)
        for bottom, height in processes:
            frame = plt.Rectangle((0.5, bottom), 6, height, fc="none", ec=GREY, linestyle="--")
            panel.add_patch(frame)
        for phase, style in arrows.items():
            line = {"arrowstyle": style, "color": RED, "lw": 1.4, "mutation_scale": 7}
            panel.annotate("", (phase, -0.78), (phase, -0.22), arrowprops=line)
        panel.set(xlim=(0.4, 6.6), ylim=(-1.5, 1.1), xticks=[], yticks=[])
        panel.set_title(name, family="monospace", fontsize=9)
        panel.spines[:].set_visible(False)


def _draw_phases(panel: Axes, devices: list[list[str]]) -> None:
    for number, labels in enumerate(devices):
        for phase, label in enumerate(labels, 1):
            color = (BLUE, ORANGE)[number]
            box = {"boxstyle": "round,pad=0.3", "fc": color, "ec": LINE, "lw": 0.8}
            if label:
                panel.text(phase, -number, label, bbox=box, **CENTERED)
    for phase in range(1, 7):
        circle = {"boxstyle": "circle,pad=0.2", "fc": "white", "ec": GREY}
        panel.text(phase, 0.75, phase, bbox=circle, **CENTERED)


def draw_gradients(local: Tensor, weighted: Tensor, plain: Tensor, right: Tensor) -> None:
    """One element of the gradient on each rank, and the errors of all elements."""
    world_size, entry = len(local), int((local - right).abs().sum(dim=0).argmax())
    _, panels = plt.subplots(1, 3, figsize=(7, 1.8), layout="constrained")
    for panel, bars in zip(panels, (local, weighted), strict=False):
        colors = [[BLUE, ORANGE][r % 2] for r in range(world_size)]
        panel.bar(range(world_size), bars[:, entry], 0.6, color=colors, edgecolor=LINE, lw=0.8)
        panel.axhline(right[entry], color=RED, linestyle="--", linewidth=1)
        panel.axhline(0, color=LINE, linewidth=0.8)
        panel.set(xlabel="rank", xticks=range(world_size), xlim=(-0.7, world_size - 0.3))
    panels[0].set_ylabel(rf"$\nabla W_2$[{entry}]")
    panels[1].sharey(panels[0])
    for result, color in ((plain, RED), (weighted, LINE)):
        errors = 100 * (result[0] - right) / right.abs().max()  # (hidden,)
        panels[2].plot(errors, ".", color=color, markersize=5)
    limit = max(1.0, 110 * float((plain[0] - right).abs().max() / right.abs().max()))
    panels[2].set(xlabel="$j$", ylabel="%", ylim=(-limit, limit))
    for panel in panels:
        panel.spines[["top", "right"]].set_visible(False)


def draw_losses(losses: Tensor, losses_alone: Sequence[float]) -> None:
    """The loss at each step: of all ranks together, and of one device."""
    _, panel = plt.subplots(figsize=(4.5, 1.3), layout="constrained")
    steps = range(1, len(losses) + 1)
    panel.plot(steps, losses_alone, "o", color=ORANGE, markersize=7)
    panel.plot(steps, losses, ".-", color=LINE, markersize=4)
    panel.set(xlabel="step", ylabel="loss", ylim=(0, None))
    panel.xaxis.get_major_locator().set_params(integer=True)
    panel.spines[["top", "right"]].set_visible(False)


def draw_buckets(messages: Sequence[Message], ready: Sequence[float]) -> None:
    """When each layer had its gradient, the last layer first, and the all-reduce of each bucket."""
    _, panel = plt.subplots(figsize=(7, 1.5), layout="constrained")
    edges = 1000 * np.array([0, *ready])
    panel.barh(0, np.diff(edges), 0.6, edges[:-1], color=[BLUE, ORANGE] * 4, ec=LINE)
    for i, center in enumerate((edges[:-1] + edges[1:]) / 2):
        panel.text(center, 0, len(ready) - i, **CENTERED)
    for i, (_, begin, end) in enumerate(messages):
        panel.barh(1 + i % 2, 1000 * (end - begin), 0.6, 1000 * begin, color=RED, alpha=0.8)
    panel.set(xlabel="ms", yticks=[0, 1.5], yticklabels=["backward", "all-reduce"])
    panel.invert_yaxis()
    panel.spines[["top", "right"]].set_visible(False)


def draw_loaders(ways: Sequence[Sequence[Sequence[int]]], batch: int) -> None:
    """The samples that each rank loads, for each way to load them."""
    world_size = len(ways[0])
    size = (6, 1.2 + 0.4 * world_size)
    _, panels = plt.subplots(len(ways), 1, figsize=size, sharex=True, layout="constrained")
    colors = ListedColormap(["#f4f4f4", BLUE, RED])
    for panel, way, name in zip(panels, ways, "abc", strict=True):
        table = np.zeros((world_size, batch))  # 1 where a rank has a sample
        for r, numbers in enumerate(way):
            table[r, numbers] = 1
        table *= np.minimum(table.sum(axis=0), 2)  # 2 where other ranks have it too
        edges = np.arange(batch + 1) - 0.5, np.arange(world_size + 1) - 0.5
        panel.pcolormesh(*edges, table, cmap=colors, vmin=0, vmax=2, edgecolors="w", lw=0.6)
        panel.set(yticks=range(world_size), ylabel="rank")
        panel.set_title(f"({name})", loc="left", fontsize="medium", pad=2)
        panel.invert_yaxis()
    panels[-1].set(xlabel="sample")
    panels[-1].xaxis.get_major_locator().set_params(integer=True)
