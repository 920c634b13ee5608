# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   lesson:
#     gpus: {min: 0, max: 8}
#     prerequisites: [data_parallel]
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
# In lesson 05, several processes computed what one device computes. Was it worth it? The ranks
# communicate, they wait for each other, and each of them keeps a whole network in memory.
#
# After this lesson you can derive how many bytes a training step communicates and how many it keeps
# in memory. You can measure where its time goes, and shard a network that does not fit on one
# device.

# %% [markdown] lang="zh"
# # 并行训练的代价
#
# 在第 05 课里，多个进程合起来，算出了与一台设备相同的结果。这样做值得吗？进程之间要通信，要互相等待，每个进程还要在内存里保存整个网络。
#
# 学完这一课，你能推导出一个训练步要通信多少字节、占用多少内存，能测出时间花在哪里，还能把一台设备放不下的网络分片存放。

# %% tags=["parameters"]
world_size: int = 2  # processes that share the work
batch: int = 23  # samples in one batch, over all processes
features: int = 4  # elements of a sample
hidden: int = 8  # hidden units of the network
steps: int = 5  # training steps
lr: float = 0.1  # learning rate
seed: int = 0  # where the random draws begin
dtype: str = "float64"  # dtype of data and weights
device: str = "cpu"  # what the processes compute on: cpu or cuda

# %% tags=["setup"]
import numpy as np
import torch
import torch.distributed as dist

from parallel.cells import launch_cell
from parallel.toy import make_task

# %%
import inspect
import os

import matplotlib.pyplot as plt

from parallel import launch, ring, sharded, timing, zero
from parallel.network import Network, row

torch.set_printoptions(threshold=30, edgeitems=2)  # keeps long tensors short
on_gpus = torch.device(device).type == "cuda"

# %% stdout="one_rank"
if world_size == 1:
    print("There is one rank only: no communication is tested in this run.")

# %% [markdown] lang="en"
# The network, its weights and the samples are those of lesson 05:

# %% [markdown] lang="zh"
# 网络、权重和样本与第 05 课相同：

# %%
print(inspect.getsource(Network))

# %% tags=["setup"]
task = make_task(batch, features, hidden, seed, dtype, device)
weights = task[0]  # of the two layers

# %% [markdown] lang="en"
# ## What a step communicates
#
# How does the sum of the gradients reach all ranks? If one rank collected all gradients and returned
# the sum, its work would grow with the number of ranks. In a **ring**, all ranks have the same work: they
# are arranged in a circle, and each divides its gradient into $W$ chunks. In each exchange, every rank
# sends one chunk to the next rank and receives one from the previous rank.

# %% [markdown] lang="zh"
# ## 一步要通信多少
#
# 梯度之和是怎样到达每个进程的？如果由一个进程收集所有梯度，再把和发回去，进程越多，它的工作就越多。在**环**（ring）中，各进程的工作一样多：进程排成一圈，各自把梯度切成 $W$ 块；每次交换时，每个进程把一块发给下一个进程，并从上一个进程接收一块。

# %%
print(inspect.getsource(ring.exchange))
print(inspect.getsource(ring.all_reduce))

# %% tags=["figure"]
BLUE, ORANGE, LINE, RED = "#a9c6de", "#f3c892", "#1d3557", "#c1121f"
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
# rank, a column is a chunk, and the number counts the gradients in its sum. The first three exchanges
# are a **reduce-scatter**: each rank then has one complete chunk (orange). The other three are an
# **all-gather**: each rank then has all chunks.

# %% [markdown] lang="zh"
# **图**。四个进程的环：第一次交换之前，以及六次交换中每一次之后。每行是一个进程，每列是一块，数字表示这一块的和已包含几个梯度。前三次交换叫 **reduce-scatter**，之后每个进程各有一个完整的块（橙色）；后三次交换叫**全收集**（all-gather），之后每个进程都有全部完整的块。

# %% [markdown] lang="en"
# We send the gradient of our network around the ring. Unlike DDP, the ring does not divide by $W$, so
# each rank weights its loss by $n_r / n$. Every row should be the gradient of one device:

# %% [markdown] lang="zh"
# 现在用环来求这个网络的梯度之和。环不像 DDP 那样除以 $W$，所以每个进程的损失要乘以 $n_r / n$。下面每一行都应当是一台设备的梯度：

# %% check="ring_gradients"
ringed = launch(ring.ring_gradients, world_size, *task, device=device)
torch.stack([found for found, sent in ringed])  # (world_size, all weights)

# %% [markdown] lang="en"
# Each of the $2(W - 1)$ exchanges sends one chunk of $\lceil P / W \rceil$ elements, where $P$ is the
# number of weights. How many bytes did each rank send, and how many does the whole gradient have?

# %% [markdown] lang="zh"
# 共交换 $2(W - 1)$ 次，每次发送一块，有 $\lceil P / W \rceil$ 个元素，其中 $P$ 是权重总数。每个进程发送了多少字节？整个梯度又有多少字节？

# %% tags=["predict"] check="bytes_sent"
[sent for found, sent in ringed], row(weights).nbytes

# %% [markdown] lang="en"
# For any number of ranks, each sends at most about twice the size of the gradient: with a ninth rank, the
# other eight send hardly more. But a ninth rank adds two exchanges, and they run one after the other.
# Therefore libraries use rings for long messages, and trees for short messages among many ranks. (These
# are the bytes of our own ring, not those of gloo or NCCL.)

# %% [markdown] lang="zh"
# 无论有多少个进程，每个进程发送的字节数最多约为梯度的两倍：加入第九个进程，另外八个几乎不必多发。但每加入一个进程，就要多做两次交换，而且只能一次接着一次。所以通信库对长消息用环；消息短、进程多时，用树形结构。（这里统计的是我们自己的环发送的字节数，不是 gloo 或 NCCL 的。）

# %% [markdown] lang="en"
# ## Where the time goes
#
# While a rank waits for a message, it does not compute. How much of a step does it spend waiting? We
# train a larger network by hand, with enough computation that communication does not dominate. Each rank
# records the time after each part of a step:

# %% [markdown] lang="zh"
# ## 时间花在哪里
#
# 进程等待消息时，就没有在计算。等待在一步里占多少时间？我们不用 DDP，自己写训练循环来训练一个更大的网络，它的计算量足够大，通信时间不会占主导。一步中的每个部分结束时，各进程都记录一次时间：

# %%
print(inspect.getsource(timing.watch))

# %% tags=["figure"]
draw = torch.Generator().manual_seed(seed)
big = {"W1": (512, 256), "W2": (1, 512), "x": (4096, 256), "y": (4096, 1)}
big = {name: torch.randn(shape, generator=draw) / 16 for name, shape in big.items()}
big_task = ({"W1": big["W1"], "W2": big["W2"]}, big["x"], big["y"], 5, lr)
sizes = sorted({1, world_size} if on_gpus else {1, 2, 4, world_size})
watched = {}  # world size -> (rank, step, moment), in s; the first two steps warm up
for size in sizes:
    times = launch(timing.watch, size, *big_task, device=device)
    watched[size] = np.array(times)[:, 2:]

# %% tags=["figure"]
times = watched[world_size]
lengths = times[:, :, -1].max(axis=0) - times[:, :, 0].min(axis=0)
shortest = int(lengths.argmin())  # the step that other programs disturbed least
moments = 1000 * (times[:, shortest] - times[:, shortest, 0].min())
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
# **Figure.** The shortest step of this run, which other programs disturbed least; one row per rank. The
# red part includes waiting, because no rank can leave the all-reduce before the slowest rank has reached
# it. With several buckets, DDP would overlap a part of it with `backward()`.

# %% [markdown] lang="zh"
# **图**。本次运行中最短的一步，它受其他程序的干扰最小；每行一个进程。红色部分也包括等待的时间，因为在最慢的进程开始全归约之前，任何进程都无法完成它。如果梯度分成几个桶，DDP 能让一部分全归约与 `backward()` 重叠。

# %% [markdown] lang="en"
# For the same batch, the **speed-up** is the time $T_1$ of a step on one rank, divided by the time
# $T_W$ on $W$ ranks. The speed-up divided by $W$ is the **efficiency**. How many cores or GPUs does
# this machine have, and what speed-up do you expect?

# %% [markdown] lang="zh"
# 批量不变时，一个进程训练一步的时间 $T_1$ 与 $W$ 个进程的时间 $T_W$ 之比，叫作**加速比**；加速比除以 $W$，叫作**并行效率**。这台机器有几个核（或几块 GPU）？你预计加速比是多少？

# %% tags=["predict", "figure"]
took = {
    size: float((t[:, :, -1].max(axis=0) - t[:, :, 0].min(axis=0)).min())
    for size, t in watched.items()
}
speedup = [took[1] / took[size] for size in sizes]
available = torch.cuda.device_count() if on_gpus else os.cpu_count()
figure, panel = plt.subplots(figsize=(4, 2.0), layout="constrained")
panel.plot(sizes, sizes, "--", color="#8d99ae")
panel.plot(sizes, speedup, "o-", color=LINE)
for size, gain in zip(sizes, speedup, strict=True):
    panel.annotate(f"{gain:.2f}", (size, gain), (5, -12), textcoords="offset points")
panel.axvline(available, color=RED, linewidth=1)
panel.set(xlabel="$W$", ylabel="$T_1 / T_W$", xticks=sizes, ylim=(0, None))
panel.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** The speed-up of this run, from the shortest steps. The dashes show the ideal, and the red
# line the number of logical cores, or GPUs, of this machine. (On the CPU, each rank has one thread.)

# %% [markdown] lang="zh"
# **图**。本次运行的加速比，由最短的一步算出。虚线是理想情形，红线是本机的逻辑核数（或 GPU 数）。（在 CPU 上，每个进程只用一个线程。）

# %% [markdown] lang="en"
# How to read the figure:
#
# - A point near the dashes means that the ranks mostly compute.
# - A point well below the dashes, but left of the red line, usually has one of three causes. The
#   cores are busy with other programs, so that the ranks have to take turns; or two ranks share one
#   physical core, which can count as two logical cores; or the all-reduce takes long compared with
#   the computation. In the last case, the red part of the previous figure is long on *every* rank.
# - To the right of the red line, the speed-up cannot rise any further, because several ranks share
#   a core.

# %% [markdown] lang="zh"
# 怎样读这张图：
#
# - 点靠近虚线，说明各进程大部分时间都在计算。
# - 点在红线左边，却远低于虚线，通常有三种原因：要么核被别的程序占用，各进程只能轮流使用空闲的核；要么两个进程共用一个物理核（它可能算作两个逻辑核）；要么全归约的时间与计算相比太长。如果是最后一种，上一张图中*每个*进程的红色部分都很长。
# - 点在红线右边，加速比就不会再提高，因为此时几个进程共用一个核。

# %% [markdown] lang="en"
# These times belong to this run on this machine, and no check depends on them. Measure your own
# machine.

# %% [markdown] lang="zh"
# 这些时间只反映本机的这一次运行，检查项都不依赖它们。请在自己的机器上也测一测。

# %% [markdown] lang="en"
# ## The memory of a weight
#
# Memory holds more than the weights: each weight has a gradient, and the optimizer Adam keeps two
# averages for it. In float32, how many bytes does each of these four values take? The cell lists
# the weight, its gradient, and the two averages, in this order:

# %% [markdown] lang="zh"
# ## 一个权重占用的内存
#
# 内存里不只有权重：每个权重还有一个梯度，Adam 优化器又要为它保存两个平均值。在 float32 下，这四项各占多少字节？下面依次列出：

# %% tags=["predict"] check="bytes_a_weight"
weight = torch.ones(hidden, features, requires_grad=True)  # float32
optimizer = torch.optim.Adam([weight])
weight.sum().backward()
optimizer.step()
averages = [v for v in optimizer.state[weight].values() if v.shape == weight.shape]
[each.nbytes / weight.numel() for each in (weight, weight.grad, *averages)]

# %% [markdown] lang="en"
# Together that is 16 bytes. For 7 billion weights it is 112 GB, and with DDP every rank keeps all of it.
# The idea of **ZeRO** (zero redundancy optimizer) is that each rank keeps only a **shard** and gets the
# rest from the other ranks when it needs it. There are three stages:
#
# | stage | sharded | bytes per weight with Adam | 7 billion weights on 8 ranks |
# |---|---|---|---|
# | 0 (DDP) | nothing | 16 | 112 GB |
# | 1 | the optimizer's averages | 8 + 8 / W | 63 GB |
# | 2 | averages and gradient | 4 + 12 / W | 38.5 GB |
# | 3 (FSDP) | averages, gradient and weights | 16 / W | 14 GB |

# %% [markdown] lang="zh"
# 一共 16 字节。70 亿个权重就要 112 GB，而且用 DDP 时，每个进程都要保存全部。**ZeRO**（zero redundancy optimizer，零冗余优化器）的思路是：每个进程只保存一个**分片**（shard），需要时再从其他进程取得其余部分。它有三个阶段：
#
# | 阶段 | 分片保存的内容 | 用 Adam 时每个权重的字节数 | 70 亿个权重、8 个进程 |
# |---|---|---|---|
# | 0（DDP） | 无 | 16 | 112 GB |
# | 1 | 优化器的平均值 | 8 + 8 / W | 63 GB |
# | 2 | 平均值和梯度 | 4 + 12 / W | 38.5 GB |
# | 3（FSDP） | 平均值、梯度和权重 | 16 / W | 14 GB |

# %% [markdown] lang="en"
# ## ZeRO by hand
#
# The program below trains in any of these stages. Its optimizer is SGD with momentum, which keeps
# one value for each weight, the momentum. All weights are in one long row, padded with zeros so
# that all shards have the same length.

# %% [markdown] lang="zh"
# ## 亲手实现 ZeRO
#
# 下面的程序可以按其中任何一个阶段训练。优化器是带动量的 SGD，它为每个权重保存一个值，即动量。所有权重排成一长行，末尾补零，使各分片一样长。

# %%
print(inspect.getsource(zero.reduce_scatter))
print(inspect.getsource(zero.all_gather))
print(inspect.getsource(zero.train_zero))

# %% [markdown] lang="en"
# How many bytes does the last rank keep for weights, gradient and momentum? (One row per stage.)

# %% [markdown] lang="zh"
# 最后一个进程为权重、梯度和动量各保存多少字节？（每个阶段一行。）

# %% tags=["predict"] check="zero_bytes"
stages = launch(zero.train_stages, world_size, *task, steps, lr, device=device)[-1]
[memory for memory, trained in stages]

# %% [markdown] lang="en"
# The weights after `steps` steps, again one row per stage, must not depend on the stage:

# %% [markdown] lang="zh"
# `steps` 步之后的权重同样每个阶段一行，各行应当相同：

# %% check="zero_parameters"
torch.stack([trained for memory, trained in stages])  # (4, all weights)

# %% [markdown] lang="en"
# How much does each stage communicate? A reduce-scatter and an all-gather are the two halves of the ring
# all-reduce, so stages 1 and 2 can send as few bytes as DDP. (Our stage 1 sends more, because it runs a
# whole all-reduce before the all-gather.) Stage 3 gathers the weights twice, for the forward and
# for the backward pass, and reduce-scatters the gradient: $3 \frac{W-1}{W} P$ elements instead of
# $2 \frac{W-1}{W} P$. (Our stage 3 keeps the gathered weights for both passes, so it gathers them
# once.)

# %% [markdown] lang="zh"
# 各阶段的通信量是多少？reduce-scatter 和全收集正是环形全归约的前后两半，所以阶段 1 和 2 的通信量可以与 DDP 相同。（我们的阶段 1 要多一些，因为它在全收集之前做了一次完整的全归约。）阶段 3 在前向和反向传播时各收集一次权重，再对梯度做一次 reduce-scatter，共 $3 \frac{W-1}{W} P$ 个元素，而不是 $2 \frac{W-1}{W} P$。（我们的阶段 3 在两次传播中共用收集到的权重，所以只收集一次。）

# %% [markdown] lang="en"
# ## FSDP
#
# In torch, stage 3 is called **FSDP**, fully sharded data parallelism. `fully_shard` shards each
# parameter along its first axis. (It replaces the older class `FullyShardedDataParallel`, FSDP1.)
# Apply it first to each block of a large network and then to the network itself, so that only one
# or two blocks are whole at a time.

# %% [markdown] lang="zh"
# ## FSDP
#
# 在 torch 里，阶段 3 叫作 **FSDP**，即全分片数据并行。`fully_shard` 沿第一个轴切分每个参数（它取代了较早的类 `FullyShardedDataParallel`，即 FSDP1）。对大型网络，要先逐个模块调用它，最后对整个网络调用，这样同一时刻只有一两个模块的权重是完整的。

# %%
print(inspect.getsource(sharded.train_sharded))

# %% [markdown] lang="en"
# How many weights does each rank hold? ($\mathbf{W}_2$ has only one row, which stays on one rank.)

# %% [markdown] lang="zh"
# 每个进程持有多少个权重？（$\mathbf{W}_2$ 只有一行，只能放在一个进程上。）

# %% tags=["predict"] check="weights_held"
worlds = launch(sharded.train_sharded, world_size, *task, steps, lr, device=device)
[held for held, first, trained in worlds]

# %% [markdown] lang="en"
# FSDP needs less memory, and its results are those of one device. Here are the gradient of the first step,
# gathered from the shards, and the weights after `steps` steps:

# %% [markdown] lang="zh"
# FSDP 占用的内存少，结果仍与一台设备相同。下面是第一步的梯度（由各分片拼成），以及 `steps` 步之后的权重：

# %% check="fsdp"
held, first, trained = worlds[-1]
row(first), row(trained)

# %% [markdown] lang="en"
# ## Exercises
#
# `launch_cell` takes a function from a cell and runs it on several ranks. The function may use its
# arguments, `torch` and `dist`.

# %% [markdown] lang="zh"
# ## 练习
#
# `launch_cell` 在多个进程上运行单元里定义的函数。这个函数可以使用它的参数，以及 `torch` 和 `dist`。

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. The two halves of an all-reduce
#
# Each rank has a row of `world_size` integers, `table[rank]`. Give each rank the sum of these rows.
# Use `dist.reduce_scatter(output, list_of_inputs)` and `dist.all_gather(list_of_outputs, input)`,
# but not `dist.all_reduce`. What is the shape of each tensor?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 全归约的两半
#
# 每个进程有一行 `world_size` 个整数，即 `table[rank]`。请让每个进程都得到各行之和：只用 `dist.reduce_scatter(output, list_of_inputs)` 和 `dist.all_gather(list_of_outputs, input)`，不用 `dist.all_reduce`。各个张量是什么形状？

# %% tags=["setup"]
shape = world_size, world_size
table = torch.from_numpy(np.random.default_rng(seed).integers(1, 100, shape))


# %% tags=["exercise"]
def sum_rows(device, table):
    own = table[dist.get_rank()].to(device)  # (world_size,)
    total = torch.zeros_like(own)
    ...  # the two halves
    return total


halves = torch.stack(launch_cell(sum_rows, world_size, table, device=device))
halves


# %% tags=["solution"] check="halves"
def sum_rows(device, table):
    own = table[dist.get_rank()].to(device)  # (world_size,)
    element = own.new_empty(1)
    dist.reduce_scatter(element, list(own.split(1)))
    elements = [own.new_empty(1) for _ in own]
    dist.all_gather(elements, element)
    return torch.cat(elements)


halves = torch.stack(launch_cell(sum_rows, world_size, table, device=device))
halves

# %% [markdown] lang="en" tags=["exercise"]
# ### 2. What fits?
#
# A GPU has 80 GB of memory, and activations need half of it. For each stage of ZeRO from 0 to 3,
# what is the largest number of weights, in billions, that a network can have on `world_size` such
# GPUs, in float32 and with Adam?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 放得下多少？
#
# 一块 GPU 有 80 GB 显存，其中一半要留给激活值。用 `world_size` 块这样的 GPU，数据类型为 float32，优化器为 Adam，网络最多可以有多少个权重（以十亿为单位）？对 ZeRO 的阶段 0 到 3 各求一个数。

# %% tags=["exercise"]
bytes_each = [...]  # of a weight, for each stage
largest = [40 / size for size in bytes_each if size is not ...]
largest

# %% tags=["solution"] check="largest"
bytes_each = [16, 8 + 8 / world_size, 4 + 12 / world_size, 16 / world_size]
largest = [40 / size for size in bytes_each]
largest

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - `world_size=4, hidden=9`: how many weights does each rank hold, with ZeRO by hand and with FSDP?
# - `world_size=8`: how many bytes does each rank send now?
# - `dtype="float32"`: which numbers of bytes are halved?
# - Train the larger network with 64 samples instead of 4096. What happens to the speed-up?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `world_size=4, hidden=9`：用亲手实现的 ZeRO 和用 FSDP，各进程分别持有多少个权重？
# - `world_size=8`：现在每个进程发送多少字节？
# - `dtype="float32"`：哪些字节数减半？
# - 把训练那个大网络的样本从 4096 个减到 64 个，加速比会怎样？
