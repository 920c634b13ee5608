# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   lesson:
#     gpus: {min: 0, max: 8}
#     parameters:
#       world_size: {min: 1, max: 8}
#       batch: {min: 1, max: 512}
#       features: {min: 1, max: 64}
#       hidden: {min: 8, max: 256}
#       steps: {min: 1, max: 20}
#       lr: {min: 0.0001, max: 1}
#       seed: {min: 0, max: 4294967295}
#       dtype: {choices: [float32, float64]}
# ---

# %% [markdown] lang="en"
# # What parallel training costs
#
# Lesson 05 showed that several processes compute what one device computes. Was it worth it? The
# ranks have to communicate, they wait for each other, and each of them keeps a whole network.
#
# After this lesson you can derive the bytes that a training step communicates and the bytes that
# it keeps in memory, measure where its time goes, and shard a network that does not fit into one
# device.

# %% [markdown] lang="zh"
# # 并行训练的代价
#
# 第 05 课说明了：多个进程合起来，能算出一台设备算出的结果。这样做值得吗？
# 进程之间要通信，要互相等待，每个进程还要保存整个网络。
#
# 学完这一课，你能推导一个训练步要通信多少字节、要占用多少内存，能测出时间花在哪里，
# 还能把一台设备放不下的网络分片。

# %% tags=["parameters"]
world_size: int = 2  # processes that share the work
batch: int = 23  # rows in one batch, over all processes
features: int = 8  # numbers in a row
hidden: int = 16  # hidden units of the network
steps: int = 5  # training steps
lr: float = 0.1  # learning rate
seed: int = 0  # where the random draws begin
dtype: str = "float64"  # dtype of data and weights
device: str = "cpu"  # what the processes compute on: cpu or cuda

# %% tags=["setup"]
import inspect
import os

import matplotlib.pyplot as plt
import numpy as np
import torch

from parallel import data_parallel, launch, ring, timing
from parallel.network import Network, row

torch.set_printoptions(threshold=40, edgeitems=2)  # a long tensor shall not fill a page
on_gpus = torch.device(device).type == "cuda"
BLUE, ORANGE, LINE, RED = "#a9c6de", "#f3c892", "#1d3557", "#c1121f"

# %%
if world_size == 1:
    print("There is one rank only: no communication is tested in this run.")

# %% [markdown] lang="en"
# The network and its data are those of lesson 05:

# %% [markdown] lang="zh"
# 网络和数据与第 05 课相同：

# %%
print(inspect.getsource(Network))


# %% tags=["setup"]
def tensor(numbers):
    return torch.tensor(numbers, dtype=getattr(torch, dtype), device=device)


rng = np.random.default_rng(seed)
W1 = rng.uniform(-1, 1, (hidden, features)) / hidden**0.5
W2 = rng.uniform(-1, 1, (1, hidden)) / hidden**0.5
rows = rng.uniform(-1, 1, (batch, features)) / features**0.5
targets = np.where(rows.sum(axis=1, keepdims=True) > 0, 0.25, -0.25)

weights = {"W1": tensor(W1), "W2": tensor(W2)}
x, y = tensor(rows), tensor(targets)  # (batch, features), (batch, 1)
task = (weights, x, y)

# %% [markdown] lang="en"
# ## What travels
#
# How does a sum get to all ranks? If one of them collected all gradients and sent the sum back, it
# would have the more to do, the more ranks there are. In a **ring** all have the same to do: the
# ranks stand in a circle and cut the gradient into $W$ chunks. In each exchange, every rank sends
# one chunk to the next.

# %% [markdown] lang="zh"
# ## 传送了什么
#
# 和是怎样到达每个进程的？如果由其中一个收齐所有梯度，再把和发回去，
# 那么进程越多，它要收发的就越多。**环**（ring）让大家出一样的力：
# 所有进程围成一圈，把梯度切成 $W$ 块；每次交换，各自把其中一块发给下一个进程。

# %%
print(inspect.getsource(ring.exchange))
print(inspect.getsource(ring.all_reduce))

# %% tags=["figure"]
around = 4  # ranks in the figure
counts = np.ones((around, around), dtype=int)  # rank, chunk -> gradients in its sum
pictures = [counts.copy()]
for step in range(2 * (around - 1)):
    arrived = {}
    for r in range(around):
        chunk = (r - step - 1) % around
        got = counts[(r - 1) % around, chunk]
        arrived[r, chunk] = got + counts[r, chunk] if step < around - 1 else got
    for place, count in arrived.items():
        counts[place] = count
    pictures.append(counts.copy())

# %% tags=["figure"]
figure, panels = plt.subplots(1, len(pictures), figsize=(7, 1.4), layout="constrained")
for step, (panel, picture) in enumerate(zip(panels, pictures, strict=True)):
    for (r, chunk), count in np.ndenumerate(picture):
        color = ORANGE if count == around else BLUE if count > 1 else "white"
        box = plt.Rectangle((chunk - 0.5, r - 0.5), 1, 1, fc=color, ec=LINE, lw=0.8)
        panel.add_patch(box)
        panel.text(chunk, r, count, ha="center", va="center", color=LINE, fontsize=8)
    panel.set(xlim=(-0.6, around - 0.4), ylim=(around - 0.4, -0.6), aspect="equal")
    panel.set(xticks=[], yticks=range(around) if step == 0 else [])
    panel.set_title(step, fontsize=9)
    panel.spines[:].set_visible(False)
panels[0].set_ylabel("rank")
plt.show()

# %% [markdown] lang="en"
# **Figure.** A ring of four ranks, before the first exchange and after each of the six. A row is a
# rank, a column a chunk; the number says how many ranks' gradients are in the sum. After three
# exchanges each rank has one complete chunk (orange), after six all of them.

# %% [markdown] lang="zh"
# **图**。四个进程的环：第一次交换之前，以及六次交换中每一次之后。每行是一个进程，每列是一块；
# 数字表示这一块已经包含几个进程的梯度。三次交换之后，每个进程各有一块是完整的（橙色）；
# 六次之后，全部完整。

# %% [markdown] lang="en"
# Now the gradient of our network goes around. The ring adds, and does not divide by $W$ as DDP does.
# So each rank weights its loss by $n_r / n$:

# %% [markdown] lang="zh"
# 现在把这个网络的梯度放到环上。环只求和，不像 DDP 那样再除以 $W$，
# 所以每个进程的损失乘以 $n_r / n$：

# %%
print(inspect.getsource(ring.ring_gradients))

# %% check="ring_gradients"
ringed = launch(ring.ring_gradients, world_size, *task, device=device)
torch.stack([found for found, sent in ringed])  # (world_size, all weights)

# %% [markdown] lang="en"
# What did each rank send? Each of the $2(W - 1)$ exchanges moves one chunk of
# $\lceil P / W \rceil$ numbers, where $P$ counts all weights. In bytes, for each rank; and the
# bytes of the whole gradient:

# %% [markdown] lang="zh"
# 每个进程发送了多少？共交换 $2(W - 1)$ 次，每次一块，有 $\lceil P / W \rceil$ 个数，
# 其中 $P$ 是权重总数。下面是每个进程发送的字节数，以及整个梯度的字节数：

# %% check="bytes_sent"
[sent for found, sent in ringed], row(weights).nbytes

# %% [markdown] lang="en"
# However many ranks there are, each sends about twice the gradient at most: a ninth rank costs the
# other eight almost no bytes. But it costs two more exchanges, and these come one after the other.
# So libraries have rings for long messages, and for short ones among many ranks trees, or switches
# of the network that add up. We counted our own bytes, not those of gloo or NCCL.

# %% [markdown] lang="zh"
# 进程再多，每个进程发送的大致也不超过梯度的两倍：加入第九个进程，另外八个几乎不用多发字节。
# 但要多做两次交换，而交换只能一次接着一次。
# 所以通信库对长消息用环；消息短、进程多时，就改用树形结构，或让网络交换机来求和。
# 我们数的是自己发送的字节，不是 gloo 或 NCCL 的。

# %% [markdown] lang="en"
# ## What it costs in time
#
# While our ranks wait for messages, they do not compute. How much of a step is that? We train a
# larger network by hand, and each rank looks at the clock after each part of a step:

# %% [markdown] lang="zh"
# ## 时间花在哪里
#
# 我们的进程等待消息时，就没有在计算。这在一步里占多少时间？
# 我们亲手训练一个更大的网络，一步的每个部分结束时，各进程都看一次钟：

# %%
print(inspect.getsource(timing.watch))

# %% tags=["figure"]
draw = torch.Generator().manual_seed(seed)
big = {"W1": (512, 256), "W2": (1, 512), "x": (4096, 256), "y": (4096, 1)}
big = {name: torch.randn(shape, generator=draw) / 16 for name, shape in big.items()}
big_task = ({"W1": big["W1"], "W2": big["W2"]}, big["x"], big["y"], 8, lr)
sizes = sorted({1, world_size} if on_gpus else {1, 2, 4, world_size})
watched = {}  # world size -> (rank, step, moment), in s; the first two steps warm up
for size in sizes:
    times = launch(timing.watch, size, *big_task, device=device)
    watched[size] = np.array(times)[:, 2:]

# %% tags=["figure"]
times = watched[world_size]
longest = (times[:, :, -1].max(axis=0) - times[:, :, 0].min(axis=0)).argsort()
typical = longest[len(longest) // 2]  # the step that takes the median time
moments = 1000 * (times[:, typical] - times[:, typical, 0].min())
figure, panel = plt.subplots(figsize=(7, 0.8 + 0.3 * world_size), layout="constrained")
colors = {"forward": BLUE, "backward": ORANGE, "all-reduce": RED, "step": LINE}
for i, (part, color) in enumerate(colors.items()):
    length = moments[:, i + 1] - moments[:, i]
    panel.barh(range(world_size), length, 0.6, moments[:, i], color=color, label=part)
panel.set(xlabel="ms", ylabel="rank", yticks=range(world_size))
panel.invert_yaxis()
panel.legend(ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False)
panel.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** The time line of one step of this run, by rank, in milliseconds: the step of median
# length. The red part contains the waiting: nobody leaves the all-reduce before the slowest rank
# has come. DDP can hide a part of it behind `backward()`, by sending what is ready.

# %% [markdown] lang="zh"
# **图**。本次运行中一步的时间线，每行一个进程，单位是毫秒；取的是用时居中的那一步。
# 红色部分包括等待：最慢的进程到来之前，谁也离不开全归约。
# DDP 在 `backward()` 期间就传送算好的部分，所以能把其中一些时间藏起来。

# %% tags=["figure"]
took = {
    size: float(np.median(t[:, :, -1].max(axis=0) - t[:, :, 0].min(axis=0)))
    for size, t in watched.items()
}
speedup = [took[1] / took[size] for size in sizes]
figure, panels = plt.subplots(1, 2, figsize=(7, 2.3), layout="constrained")
panels[0].plot(sizes, sizes, "--", color="#8d99ae")
panels[0].plot(sizes, speedup, "o-", color=LINE)
panels[0].set(xlabel="$W$", ylabel="$T_1 / T_W$", xticks=sizes, ylim=(0, None))
efficiency = [gain / size for gain, size in zip(speedup, sizes, strict=True)]
panels[1].axhline(1, linestyle="--", color="#8d99ae")
panels[1].plot(sizes, efficiency, "o-", color=LINE)
panels[1].set(xlabel="$W$", ylabel=r"$T_1 / (W \, T_W)$", xticks=sizes, ylim=(0, None))
available = torch.cuda.device_count() if on_gpus else os.cpu_count()
for panel in panels:
    panel.axvline(available, color=RED, linewidth=1)
    panel.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** Left: the **speed-up** of this run, the time $T_1$ of a step on one rank over the time
# $T_W$ on $W$, for the same batch. Right: the **efficiency**, the speed-up divided by $W$. Dashes
# are the ideal; the red line stands at the number of logical cores, or GPUs, of this machine. (On
# the CPU a rank has one thread.)

# %% [markdown] lang="zh"
# **图**。左：本次运行的**加速比**，即批量不变时，一个进程走一步的时间 $T_1$
# 与 $W$ 个进程的时间 $T_W$ 之比。右：**并行效率**，即加速比除以进程数。
# 虚线是理想情形；红线标出本机的逻辑核数（或 GPU 数）。（在 CPU 上，每个进程只用一个线程。）

# %% [markdown] lang="en"
# Right of the red line no gain is to be expected: the ranks take turns on the same cores. Left of it
# the ideal is missed too: with more ranks, each has fewer rows to compute, but its gradient does not
# get shorter. These are the times of one run, on this machine and with whatever else it was doing;
# no check depends on them. Elsewhere, and above all on GPUs, expect another picture. Measure yours.

# %% [markdown] lang="zh"
# 红线右边不能指望更快：几个进程只能轮流使用同样的核。红线左边也达不到理想情形：
# 进程越多，每个进程要算的行越少，要传送的梯度却一点也不少。
# 这些时间只属于这台机器上的这一次运行，当时机器上还可能有别的任务；检查项都不依赖它们。
# 换一台机器，尤其是换成 GPU，图就会不一样。请在你自己的机器上测一测。

# %% [markdown] lang="en"
# ## The memory of a weight
#
# A weight is not alone in memory: it has a gradient, and the optimizer Adam keeps two averages for
# it. How many bytes is that in float32? Here are the four, in this order:

# %% [markdown] lang="zh"
# ## 一个权重占用的内存
#
# 内存里不只有权重：每个权重还有一个梯度，Adam 优化器又要为它保存两个平均值。在 float32 下，一共是多少字节？下面依次是这四项：

# %% check="bytes_a_weight"
weight = torch.ones(hidden, features, requires_grad=True)  # float32
optimizer = torch.optim.Adam([weight])
weight.sum().backward()
optimizer.step()
averages = [v for v in optimizer.state[weight].values() if v.shape == weight.shape]
[each.nbytes / weight.numel() for each in (weight, weight.grad, *averages)]

# %% [markdown] lang="en"
# Together 16 bytes. For 7 billion weights that is 112 GB, without a single row of data. The measure
# is **memory**, bytes per device.

# %% [markdown] lang="zh"
# 一共 16 字节。70 亿个权重就要 112 GB，还没算上一行数据。
# 衡量它的是**内存**（在 GPU 上就是显存），即每台设备占用多少字节。

# %% [markdown] lang="en"
# ## Fully sharded
#
# DDP keeps the whole network on each rank. FSDP keeps a shard of each matrix there. Just before
# the weights are used, each rank collects the missing shards from the others (**all-gather**).
# During `backward()` the gradients are averaged as before, but each rank receives only its own shard
# of the mean (**reduce-scatter**).
#
# Little changes in the program. In a large network, `fully_shard` is applied block by block, so
# that only a block or two are whole at a time.

# %% [markdown] lang="zh"
# ## 全分片
#
# DDP 在每个进程里保存整个网络；FSDP 在每个进程里只保存每个矩阵的一个分片。
# 权重即将使用时，每个进程向其他进程收齐缺少的分片，这叫**全收集**（all-gather）。
# `backward()` 期间照样对梯度取平均，但每个进程只得到平均值中属于自己的分片，
# 这叫**归约散发**（reduce-scatter）。
#
# 程序几乎不用改。在大型网络中，要逐个模块调用 `fully_shard`，
# 这样同一时刻只有一两个模块是完整的。

# %%
print(inspect.getsource(data_parallel.train_sharded))

# %% [markdown] lang="en"
# `fully_shard` cuts along the first axis, and as `chunk` does. How many weights does each rank hold?
# (The matrix $\mathbf{W}_2$ has one row, and can't be shared.)

# %% [markdown] lang="zh"
# `fully_shard` 沿第一个轴切分，切法与 `chunk` 相同。每个进程持有多少个权重？
# （$\mathbf{W}_2$ 只有一行，无法分开。）

# %% check="weights_held"
program = data_parallel.train_sharded
sharded = launch(program, world_size, *task, 1, lr, device=device)
[held for held, found, after in sharded]

# %% [markdown] lang="en"
# Less memory, and the same results: the gradients of one step, put together from the shards, and
# the weights after `steps` steps.

# %% [markdown] lang="zh"
# 占用的内存少了，结果还是一样：下面是一步的梯度，由各分片拼成，以及 `steps` 步之后的权重。

# %% check="sharded_gradients"
row(sharded[-1][1])

# %% check="sharded_parameters"
sharded = launch(program, world_size, *task, steps, lr, device=device)
row(sharded[-1][2])

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - `world_size=4, hidden=9`: which rank holds how much?
# - `world_size=8`: how many bytes does each rank send now?
# - `dtype="float32"`: which of the numbers of bytes are halved?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `world_size=4, hidden=9`：各进程分别持有多少？
# - `world_size=8`：现在每个进程发送多少字节？
# - `dtype="float32"`：哪些字节数减半？
