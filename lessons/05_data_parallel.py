# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   lesson:
#     gpus: {min: 0, max: 8}
#     prerequisites: [training]
#     parameters:
#       world_size: {min: 1, max: 8}
#       batch: {min: 1, max: 512}
#       features: {min: 1, max: 64}
#       hidden: {min: 8, max: 256}
#       pieces: {min: 1, max: 8}
#       steps: {min: 1, max: 20}
#       lr: {min: 0.0001, max: 1}
#       seed: {min: 0, max: 4294967295}
#       dtype: {choices: [float32, float64]}
# ---

# %% [markdown] lang="en"
# # Data parallelism
#
# Training takes a day, and three GPUs are idle beside the one that works. Or the model does not
# even fit into one GPU. Either way, several devices have to share the work.
#
# After this lesson you know three ways to share it. You can train on several processes in the most
# common one, data parallelism, and you can prove that together they compute what one device
# computes. At the end you have a training script that you can use in your own projects.

# %% [markdown] lang="zh"
# # 数据并行
#
# 训练要跑一整天，旁边却有三块 GPU 闲着；或者，模型在一块 GPU 里根本放不下。这两种情形都需要由多台设备分担工作。
#
# 学完这一课，你了解三种分工方式，会用其中最常用的一种（数据并行）在多个进程上训练，并且能证明：它们合起来算出的，正是一台设备算出的结果。最后你还会得到一个可以用在自己项目里的训练脚本。

# %% tags=["parameters"]
world_size: int = 2  # processes that share the work
batch: int = 23  # samples in one batch, over all processes
features: int = 8  # elements of a sample
hidden: int = 16  # hidden units of the network
pieces: int = 4  # backward passes whose gradients accumulate
steps: int = 20  # training steps
lr: float = 0.5  # learning rate
seed: int = 0  # where the random draws begin
dtype: str = "float64"  # dtype of data and weights
device: str = "cpu"  # what the processes compute on: cpu or cuda

# %% tags=["setup"]
import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from parallel.cells import launch_cell

kind = getattr(torch, dtype)

# %%
import inspect
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from torch.utils.data import DistributedSampler

from parallel import data_parallel, launch, timing, train
from parallel.network import Network, gradients, parameters, row
from parallel.torchrun import torchrun

torch.set_printoptions(threshold=40, edgeitems=2)  # a long tensor shall not fill a page

# %% [markdown] lang="en"
# ## Faster, or larger
#
# Deep learning grew with computing power, and GPUs made today's networks possible. Several of them
# help in two ways.
#
# **Faster.** Four devices can process four times as many samples per second, as long as they do not
# wait for each other. The measure is **throughput**, samples per second.
#
# **Larger.** In float32, a weight takes 4 bytes and its gradient another 4, and the optimizer Adam
# keeps two averages for it: 16 bytes in all. For 7 billion weights that is 112 GB, before the first
# sample is loaded. The measure is **memory**, bytes per device.

# %% [markdown] lang="zh"
# ## 更快，或者更大
#
# 深度学习的发展离不开算力，正是 GPU 让今天的网络成为可能。多块 GPU 有两种用处。
#
# **更快**：只要不互相等待，四台设备每秒能处理四倍的样本。衡量它的是**吞吐量**（throughput），即每秒处理多少个样本。
#
# **更大**：在 float32 下，一个权重占 4 字节，它的梯度再占 4 字节，Adam 优化器还要为它保存两个平均值，一共 16 字节。70 亿个权重就要 112 GB，这还没有算上任何样本。衡量它的是**内存**（在 GPU 上就是显存），即每台设备占用多少字节。

# %% [markdown] lang="en"
# ## Three ways to share the work
#
# Take a network of two layers. A batch $\mathbf{x}$ is multiplied by $\mathbf{W}_1^\top$; tanh gives
# the activations $\mathbf{h}$, which are multiplied by $\mathbf{W}_2^\top$.
#
# You have a blue device and an orange one. Where would you divide the work? Think of one way before
# you look at the figure, which shows three.

# %% [markdown] lang="zh"
# ## 三种分工方式
#
# 来看一个两层的网络：一个批量的数据 $\mathbf{x}$ 先乘 $\mathbf{W}_1^\top$，经过 tanh 得到激活值 $\mathbf{h}$，再乘 $\mathbf{W}_2^\top$。
#
# 你有蓝、橙两台设备，会怎样分工？先自己想一种，再看下图：图中有三种。

# %% tags=["figure"]
BLUE, ORANGE, LINE, RED = "#a9c6de", "#f3c892", "#1d3557", "#c1121f"
parts = {  # left, bottom, width, height in units of the matrix; color
    "blue": [(0, 0, 1, 1, BLUE)],
    "orange": [(0, 0, 1, 1, ORANGE)],
    "rows": [(0, 0.5, 1, 0.5, BLUE), (0, 0, 1, 0.5, ORANGE)],
    "columns": [(0, 0, 0.5, 1, BLUE), (0.5, 0, 0.5, 1, ORANGE)],
    "both": [(0, 0, 1, 1, ORANGE), (0, 0, 1, 1, BLUE)],
}


def draw_matrix(panel, label, x, width, height, where):
    for left, bottom, w, h, color in parts[where]:
        behind = 0.14 if where == "both" and color == ORANGE else 0
        corner = (x + left * width + behind, (bottom - 0.5) * height + behind)
        box = plt.Rectangle(corner, w * width, h * height, fc=color, ec=LINE, lw=0.8)
        panel.add_patch(box)
    panel.text(x + width / 2, -1, label, ha="center", va="top", color=LINE)


# %% tags=["figure"]
def draw_message(panel, label, start, end, style="->"):
    panel.annotate("", end, start, arrowprops=dict(arrowstyle=style, color=RED, lw=1.4))
    x, y = (start[0] + end[0]) / 2, max(start[1], end[1]) + 0.12
    panel.text(x, y, label, color=RED, ha="center")


matrices = {  # left edge, width, height
    "$x$": (0, 0.8, 1.7),
    r"$W_1^\top$": (1.1, 1.5, 0.8),
    r"$W_2^\top$": (3.3, 0.3, 1.5),
    "$out$": (4.3, 0.3, 1.7),
}
ways = {
    "(a)": ["blue", "blue", "orange", "orange"],
    "(b)": ["both", "columns", "rows", "both"],
    "(c)": ["rows", "both", "both", "rows"],
}

# %% tags=["figure"]
figure, panels = plt.subplots(1, 3, figsize=(7, 1.6), layout="constrained")
for panel, (name, way) in zip(panels, ways.items(), strict=True):
    for (label, place), where in zip(matrices.items(), way, strict=True):
        draw_matrix(panel, label, *place, where)
    panel.text(-0.1, 1.15, name, color=LINE)
    panel.set(xlim=(-0.15, 5), ylim=(-1.4, 1.5), aspect="equal")
    panel.axis("off")
draw_message(panels[0], "$h$", (2.65, 0), (3.25, 0))
draw_message(panels[1], "$+$", (3.65, 0.4), (4.25, 0.05))
draw_message(panels[1], "", (3.65, -0.4), (4.25, -0.05))
draw_message(panels[2], r"$\nabla W_1$", (1.6, 0.75), (2.3, 0.75), "<->")
draw_message(panels[2], r"$\nabla W_2$", (3.2, 1.05), (3.8, 1.05), "<->")
plt.show()

# %% [markdown] lang="en"
# **Figure.** The same two layers on two devices; two sheets mean that each device has a copy. The
# devices communicate what is red. (a) The network is divided between its layers: activations $h$.
# (b) Each layer is divided: partial sums of the output. (c) The batch is divided, and the network is
# copied: gradients of the weights.

# %% [markdown] lang="zh"
# **图**。同样的两层网络放在两台设备上；叠在一起的两张表示每台设备各有一份。红色是设备之间要通信的内容。(a) 在层与层之间切分网络：激活值 $h$。(b) 切分每一层：输出的部分和。(c) 切分数据，复制网络：权重的梯度。

# %% [markdown] lang="en"
# | | name | each device holds | it communicates |
# |---|---|---|---|
# | (a) | network partitioning, today **pipeline parallelism** | some layers | activations, between layers |
# | (b) | splitting within a layer, today **tensor parallelism** | a slice of each layer | partial sums, within layers |
# | (c) | **data parallelism** | the whole network, some samples | gradients, once per step |
#
# (a) and (b) divide the model, so they are called **model parallelism**.
#
# > **If your notes say** that (b) assigns "the same layer to different *data*": it is different
# > *devices*. The old name layer-wise partitioning is misleading too, because no layer stays whole.

# %% [markdown] lang="zh"
# | | 名称 | 每台设备持有 | 通信内容 |
# |---|---|---|---|
# | (a) | 网络划分（层间划分，今称**流水线并行**） | 一部分层 | 激活值，在层与层之间 |
# | (b) | 层内划分（今称**张量并行**） | 每一层的一片 | 部分和，在层的内部 |
# | (c) | **数据并行** | 整个网络、一部分样本 | 梯度，每步一次 |
#
# (a) 和 (b) 切分的是模型，合称**模型并行**。
#
# > **如果你的笔记里写着** (b) 是“同一层的任务分布到不同*数据*中”：应为不同的*设备*。旧名 layer-wise partitioning（按层划分）也容易误解，因为每一层都被切开了。

# %% [markdown] lang="en"
# Which one? **Data parallelism is the mainstream today**, as your notes say: the network stays as it
# is, and the devices communicate only once per step. It is the right choice whenever the model fits
# on one device.
#
# If it does not fit, divide the model as well. Fully sharded data parallelism (**FSDP**) is still
# data parallelism, but it divides weights, gradients and optimizer state among the devices (lesson
# 06). The largest models combine it with (a) and (b), which are the subject of lesson 07.

# %% [markdown] lang="zh"
# 选哪一种？正如你的笔记所说，**目前主流的是数据并行**：网络不用改动，设备之间每步只通信一次。只要模型在一台设备里放得下，就应当选它。
#
# 放不下，就要把模型也分开。全分片数据并行（**FSDP**）仍是数据并行，但它把权重、梯度和优化器状态都分到各设备上（第 06 课）。最大的模型还要与 (a) 和 (b) 结合，那是第 07 课的内容。

# %% [markdown] lang="en"
# ## The right answer first
#
# To verify shared work, we need the right answer: loss and gradient on one device. The network is
# the one in the figure:

# %% [markdown] lang="zh"
# ## 先求正确答案
#
# 要验证分工后的结果，先要有正确答案：一台设备上的损失和梯度。网络就是图中的那一个：

# %%
print(inspect.getsource(Network))

# %% [markdown] lang="en"
# Weights and samples are random, drawn from `seed`. The target is 1/4 if the elements of a sample
# have a positive sum, and −1/4 otherwise. The square roots keep all values at a moderate size.

# %% [markdown] lang="zh"
# 权重和样本由种子 `seed` 随机产生。一个样本的各元素之和为正，目标值就是 1/4，否则是 −1/4。除以平方根，是为了让所有数值大小适中。


# %% tags=["setup"]
def tensor(numbers):
    return torch.tensor(numbers, dtype=kind, device=device)


rng = np.random.default_rng(seed)
W1 = rng.uniform(-1, 1, (hidden, features)) / hidden**0.5
W2 = rng.uniform(-1, 1, (1, hidden)) / hidden**0.5
samples = rng.uniform(-1, 1, (batch, features)) / features**0.5
targets = np.where(samples.sum(axis=1, keepdims=True) > 0, 0.25, -0.25)

weights = {"W1": tensor(W1), "W2": tensor(W2)}
x, y = tensor(samples), tensor(targets)  # (batch, features), (batch, 1)

# %% [markdown] lang="en"
# The loss is the mean squared error over all samples.

# %% [markdown] lang="zh"
# 损失是所有样本的均方误差。

# %% check="loss"
network = Network(weights)
loss = ((network(x) - y) ** 2).mean()
loss

# %% [markdown] lang="en"
# Now backward, by the chain rule. Let $\mathbf{o}$ be the output for $n$ samples, and
# $\mathbf{d} = \frac{2}{n}(\mathbf{o} - \mathbf{y})$ the derivative of the loss with respect to it.
# Then
#
# $$\nabla \mathbf{W}_2 = \mathbf{d}^\top \mathbf{h}, \qquad
# \nabla \mathbf{W}_1 = \mathbf{G}^\top \mathbf{x}, \qquad
# G_{ij} = d_i \, w_j \, (1 - h_{ij}^2)$$
#
# where $w_j$ are the elements of $\mathbf{W}_2$. Every gradient of this lesson is compared with this
# rule, computed in NumPy. Autograd needs no rule from us:

# %% [markdown] lang="zh"
# 再用链式法则反向求导。记 $n$ 个样本的输出为 $\mathbf{o}$，损失对它的导数为 $\mathbf{d} = \frac{2}{n}(\mathbf{o} - \mathbf{y})$，则
#
# $$\nabla \mathbf{W}_2 = \mathbf{d}^\top \mathbf{h}, \qquad
# \nabla \mathbf{W}_1 = \mathbf{G}^\top \mathbf{x}, \qquad
# G_{ij} = d_i \, w_j \, (1 - h_{ij}^2)$$
#
# 其中 $w_j$ 是 $\mathbf{W}_2$ 的元素。本课的每一个梯度，都与 NumPy 按这条规则算出的值作比较。自动求导不需要我们给出规则：

# %% check="gradient"
loss.backward()
right = gradients(network)  # name -> .grad, of each parameter
right

# %% [markdown] lang="en"
# From now on we compare with one device after each result. This function prints the largest difference,
# relative to the largest element of the right tensor. Rounding alone causes about $10^{-16}$ in float64
# and $10^{-7}$ in float32.

# %% [markdown] lang="zh"
# 从现在起，得到每个结果之后，我们都与一台设备作比较。下面的函数打印最大的差，以正确张量的最大元素为单位。只有舍入误差时，float64 下约为 $10^{-16}$，float32 下约为 $10^{-7}$。

# %%
compared = {}  # what was compared -> its largest difference from one device


def compare(name, found, expected):
    difference = (found.to(device) - expected).abs().max() / expected.abs().max()
    compared[name] = float(difference)
    print(f"{name}: {difference:.1e} from one device")


# %% [markdown] lang="en"
# ## Divide the batch
#
# The loss is a mean over the samples, so its gradient is a mean of the samples' gradients. A sum may
# be grouped as we like. Let $R_r$ be the samples of device $r = 0, \dots, W - 1$:
#
# $$\nabla L = \frac{1}{n} \sum_{i=1}^{n} \nabla \ell_i
# = \sum_{r=0}^{W-1} \left( \frac{1}{n} \sum_{i \in R_r} \nabla \ell_i \right)$$
#
# Each device computes the term in parentheses for its samples, and the terms are added. This is the
# whole idea of data parallelism.

# %% [markdown] lang="zh"
# ## 切分批量
#
# 损失是各样本损失的平均，所以它的梯度是各样本梯度的平均；求和可以任意分组。把分给设备 $r = 0, \dots, W - 1$ 的样本记作 $R_r$：
#
# $$\nabla L = \frac{1}{n} \sum_{i=1}^{n} \nabla \ell_i
# = \sum_{r=0}^{W-1} \left( \frac{1}{n} \sum_{i \in R_r} \nabla \ell_i \right)$$
#
# 每台设备算出括号中属于自己的那一项，再把各项相加。数据并行的全部道理就在这里。

# %% [markdown] lang="en"
# `tensor_split` divides a batch into exactly $W$ **shards** of nearly equal size. (`chunk` fixes the
# size first, and may return fewer shards than devices.) How many samples does each device get?

# %% [markdown] lang="zh"
# `tensor_split` 把一个批量切成恰好 $W$ 个大小尽量相等的**分片**（shard）。（`chunk` 先定每块的大小，分片可能比设备少。）每台设备分到几个样本？

# %% tags=["predict"] check="shards"
shards = x.tensor_split(world_size)  # world_size tensors, (n_local, features) each
[len(shard) for shard in shards]

# %% [markdown] lang="en"
# ## One process, several devices
#
# First we do by hand what `nn.DataParallel` does: one process drives all devices. (Without GPUs, the
# CPU plays every part.) Each device gets a **replica**, a copy of the network, and a shard. The
# outputs are gathered on the first device. There is one loss, and `backward()` passes through the
# gathering into each replica. What does each replica find? These are the gradients of $\mathbf{W}_2$:

# %% [markdown] lang="zh"
# ## 一个进程，多台设备
#
# 先亲手做一遍 `nn.DataParallel` 做的事：一个进程控制所有设备。（没有 GPU 时，由 CPU 充当每台设备。）每台设备得到网络的一个**副本**（replica）和一个分片，输出都收集到第一台设备上。损失只有一个，`backward()` 穿过收集这一步，回到每个副本。每个副本得到什么？下面是它们各自对 $\mathbf{W}_2$ 的梯度：

# %% check="shard_gradients"
on_gpus = torch.device(device).type == "cuda"
devices = [f"cuda:{r}" if on_gpus else "cpu" for r in range(world_size)]
replicas = [Network(weights).to(d) for d in devices]
triples = zip(replicas, shards, devices, strict=True)
outputs = [replica(shard.to(d)) for replica, shard, d in triples]  # (n_local, 1) each
gathered = torch.cat([out.to(device) for out in outputs])  # (n, 1)
((gathered - y) ** 2).mean().backward()
[replica.W2.grad for replica in replicas]

# %% [markdown] lang="en"
# Each replica has the term in parentheses for its own samples. Their sum should be the right answer:

# %% [markdown] lang="zh"
# 每个副本得到的，正是括号中属于自己样本的那一项。它们的和应当就是正确答案：

# %% check="summed"
found = [gradients(replica) for replica in replicas]
summed = {name: sum(each[name].to(device) for each in found) for name in weights}
summed

# %%
compare("one process, by hand", row(summed), row(right))

# %% [markdown] lang="en"
# `nn.DataParallel` also adds these gradients, into those of the original network. It is discouraged
# today: the network is copied in each step, the first device keeps all outputs and computes the loss
# while the others wait, and one Python process has to drive all devices.
#
# The remedy is one process per device.

# %% [markdown] lang="zh"
# `nn.DataParallel` 还会把这些梯度加到原来那个网络的梯度里。现在已不推荐使用它：每一步都要复制网络；第一台设备要存放全部输出并计算损失，其他设备只能等待；而且所有设备由同一个 Python 进程驱动。
#
# 解决办法是每台设备一个进程。

# %% [markdown] lang="en"
# ## One process per device
#
# All processes run the same program. Each knows its number, the **rank**, and how many there are, the
# **world size**. Together they form a **process group**, which communicates through a **backend**:
# gloo between CPUs, NCCL between GPUs.
#
# New processes cannot import what a notebook cell defines, so the programs are in the file
# `parallel/data_parallel.py`. `launch` starts the processes, runs a program in each, with the device
# of the rank as its first argument, and returns the results in the order of the ranks.

# %% [markdown] lang="zh"
# ## 每台设备一个进程
#
# 所有进程运行同一个程序。每个进程知道自己的**进程编号**（rank）和**进程总数**（world size）。它们组成**进程组**（process group），通过**后端**（backend）通信：CPU 之间用 gloo，GPU 之间用 NCCL。
#
# 新进程导入不了笔记本单元里定义的函数，所以程序写在文件 `parallel/data_parallel.py` 里。`launch` 启动这些进程，在每个进程里运行程序（第一个参数是该进程的设备），再按进程编号的顺序返回结果。

# %%
print(inspect.getsource(data_parallel.introduce))

# %% check="world"
launch(data_parallel.introduce, world_size, device=device)

# %% stdout="one_rank"
if world_size == 1:
    print("There is one rank only: no communication is tested in this run.")

# %% [markdown] lang="en"
# Data parallelism needs one kind of communication, the **all-reduce**: each rank provides a tensor,
# and afterwards each rank has the sum of all. Every rank must take part; if one does not, the others
# wait for it. Therefore it is called **collective communication**.
#
# Rank 0 provides 1, rank 1 provides 2, and so on. What does each rank have at the end?

# %% [markdown] lang="zh"
# 数据并行只需要一种通信，即**全归约**（all-reduce）：每个进程提供一个张量，结束时都得到总和。所有进程都必须参加；有一个不参加，其他进程就会一直等待，所以叫**集合通信**。
#
# 进程 0 提供 1，进程 1 提供 2，依此类推。最后每个进程得到什么数？

# %%
print(inspect.getsource(data_parallel.sum_of_ranks))

# %% tags=["predict"] check="all_reduced"
torch.stack(launch(data_parallel.sum_of_ranks, world_size, device=device))

# %% [markdown] lang="en"
# ## Data parallelism by hand
#
# Once each rank has its samples, data parallelism takes one more line: an all-reduce of the gradient.
# We try it where nothing is rounded: in a linear regression with whole numbers, whose gradient
# $\mathbf{X}^\top(\mathbf{X}\mathbf{w} - \mathbf{t})$ consists of whole numbers too.

# %% [markdown] lang="zh"
# ## 亲手实现数据并行
#
# 每个进程拿到自己的样本之后，数据并行只多一行：对梯度做一次全归约。先在没有舍入误差的地方试一试：整数的线性回归，它的梯度 $\mathbf{X}^\top(\mathbf{X}\mathbf{w} - \mathbf{t})$ 也是整数。

# %%
print(inspect.getsource(data_parallel.my_samples))
print(inspect.getsource(data_parallel.gradient_by_hand))

# %% [markdown] lang="en"
# Whole numbers of this size are added without rounding, in any order. Therefore each rank must have
# the expected gradient to the last bit: a sample that is lost or counted twice cannot hide behind a
# tolerance. The result has one row per rank:

# %% [markdown] lang="zh"
# 这样大小的整数，无论按什么次序相加都没有舍入。所以每个进程的梯度必须与预期值完全相等：漏掉或者多算一个样本，都无法藏在容差后面。结果中每个进程占一行：

# %% check="integer_gradient"
rng = np.random.default_rng(seed)
X = tensor(rng.integers(1, 5, (batch, features)))
w = tensor(rng.integers(-3, 0, features))
t = tensor(rng.integers(0, 4, batch))
program = data_parallel.gradient_by_hand
by_hand = torch.stack(launch(program, world_size, X, w, t, device=device))
by_hand  # (world_size, features)

# %%
compare("by hand, whole numbers", by_hand, X.T @ (X @ w - t))

# %% [markdown] lang="en"
# ## DistributedDataParallel
#
# `DistributedDataParallel`, **DDP** for short, wraps a network and does this all-reduce during
# `backward()`. It takes the **mean** over the ranks, not the sum. That suits a loss that is a mean
# over samples. Or does it?
#
# Let each rank use the mean squared error of its own samples. A rank may have no samples at all (3
# samples on 4 ranks). Its loss is the mean of nothing, NaN. Its gradient is a sum over no samples,
# zero, but it must still take part in the all-reduce, or the other ranks wait forever.

# %% [markdown] lang="zh"
# ## 分布式数据并行
#
# `DistributedDataParallel`（分布式数据并行，简称 **DDP**）把网络包装起来，在 `backward()` 期间完成这次全归约。它对各进程取**平均**，而不是求和。损失是各样本的平均，这样似乎正合适。真的合适吗？
#
# 让每个进程以自己样本的均方误差为损失。有的进程可能一个样本也没有（3 个样本分给 4 个进程）：它的损失是“零个数的平均”，即 NaN；它的梯度是零个样本的和，即 0。但它也必须带着这个 0 参与通信，否则其他进程会一直等待。

# %%
print(inspect.getsource(data_parallel.local_loss))
print(inspect.getsource(data_parallel.plain_gradients))

# %% [markdown] lang="en"
# This program computes the gradients twice. The first time, `no_sync()` suppresses the averaging, so
# that we see what each rank found alone. (`Named` is a dictionary of tensors by name.) The ranks have
# equal weights and different samples. Are their gradients equal? Here is the gradient of
# $\mathbf{W}_2$, one row per rank:

# %% [markdown] lang="zh"
# 这个程序求两次梯度。第一次用 `no_sync()` 关掉取平均，好看清每个进程单独得到了什么。（`Named` 是按名字存放张量的字典。）各进程权重相同，样本不同。梯度相同吗？下面是对 $\mathbf{W}_2$ 的梯度，每个进程一行：

# %% tags=["predict"] check="local_gradients"
task = (weights, x, y)
pairs = launch(data_parallel.plain_gradients, world_size, *task, device=device)
local = torch.cat([before["W2"] for before, after in pairs])  # (world_size, hidden)
local

# %% [markdown] lang="en"
# And this is what each rank has after `backward()` with averaging. Every rank has the mean of the
# rows above. But is it the gradient of the whole batch?

# %% [markdown] lang="zh"
# 带平均的 `backward()` 之后，每个进程得到的如下，都是上面各行的平均。可它是整个批量的梯度吗？

# %% check="unweighted"
plain = torch.cat([after["W2"] for before, after in pairs])  # (world_size, hidden)
plain

# %%
compare("DDP, plain mean", plain, right["W2"])

# %% [markdown] lang="en"
# If `world_size` divides `batch`, the difference is rounding. Otherwise it is a real error: a rank
# with fewer samples counts as much as the others, so each of its samples counts for more. Training
# still seems to work, and therefore this mistake often stays unnoticed.
#
# The remedy is a weight. If rank $r$ has $n_r$ samples, multiply its loss by $n_r W / n$:
#
# $$\frac{1}{W} \sum_{r} \frac{n_r W}{n} \nabla L_r
# = \frac{1}{n} \sum_{r} n_r \nabla L_r = \nabla L$$

# %% [markdown] lang="zh"
# 如果 `batch` 能被 `world_size` 整除，这个差只是舍入误差；否则就是真正的错误：样本少的进程与其他进程所占的比重一样，于是它的每个样本都算得太重。训练看上去照样进行，所以这个错误常常没有人发现。
#
# 办法是加权。进程 $r$ 有 $n_r$ 个样本，就把它的损失乘以 $n_r W / n$：
#
# $$\frac{1}{W} \sum_{r} \frac{n_r W}{n} \nabla L_r
# = \frac{1}{n} \sum_{r} n_r \nabla L_r = \nabla L$$

# %%
print(inspect.getsource(data_parallel.ddp_gradients))

# %% [markdown] lang="en"
# What should every row be now?

# %% [markdown] lang="zh"
# 现在每一行应当是什么？

# %% tags=["predict"] check="ddp_gradients"
weighted = launch(data_parallel.ddp_gradients, world_size, *task, device=device)
torch.cat([each["W2"] for each in weighted])  # (world_size, hidden)

# %%
compare("DDP, weighted", row(weighted[-1]), row(right))

# %% tags=["figure"]
entry = int((local - right["W2"].cpu()).abs().sum(dim=0).argmax())
value = right["W2"][0].cpu()  # (hidden,)
after = torch.cat([each["W2"] for each in weighted])  # (world_size, hidden)
ranks = np.arange(world_size)
colors = [[BLUE, ORANGE][r % 2] for r in ranks]
figure, panels = plt.subplots(1, 3, figsize=(7, 2.2), layout="constrained")
for panel, bars in zip(panels, (local, after), strict=False):
    panel.bar(ranks, bars[:, entry], 0.6, color=colors, edgecolor=LINE, linewidth=0.8)
    panel.axhline(value[entry], color=RED, linestyle="--", linewidth=1)
    panel.axhline(0, color=LINE, linewidth=0.8)
    panel.set(xlabel="rank", xticks=ranks, xlim=(-0.7, world_size - 0.3))
panels[0].set_ylabel(rf"$\nabla W_2$[{entry}]")
panels[1].sharey(panels[0])
panels[1].tick_params(labelleft=False)
for found, color in ((plain, RED), (after, LINE)):
    errors = 100 * (found[0] - value) / value.abs().max()  # (hidden,)
    panels[2].plot(errors, ".", color=color, markersize=5)
limit = max(1.0, 110 * float((plain[0] - value).abs().max() / value.abs().max()))
panels[2].set(xlabel="$j$", ylabel="%", ylim=(-limit, limit))
for panel in panels:
    panel.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** One element of the gradient on each rank, before the weighted averaging (left) and
# after it (middle); the red dashes are the value of one device. Right: the error of each element, in
# percent of the largest one, for the plain mean (red) and the weighted one (blue).

# %% [markdown] lang="zh"
# **图**。各进程梯度中的同一个元素：左为加权平均之前，中为之后；红色虚线是一台设备的值。右：每个元素的误差，以最大元素的百分数表示；红点是普通平均，蓝点是加权平均。

# %% [markdown] lang="en"
# Rounding differences from one device are expected, because the sums are grouped differently.
# Between ranks the results must be identical, or their weights would drift apart. The largest
# difference over all ranks and parameters:

# %% [markdown] lang="zh"
# 与一台设备相比，舍入造成的差别是正常的，因为求和的分组不同。各进程之间则必须完全相同，否则它们的权重会渐渐不一致。所有进程、所有参数中的最大差别是：

# %% check="ranks_agree"
first = weighted[0]
differences = [each[name] - first[name] for each in weighted for name in each]
torch.stack([difference.abs().max() for difference in differences]).max()

# %% [markdown] lang="en"
# ## What happens in a step
#
# `nn.DataParallel` and DDP share the idea and differ in every phase of a step.

# %% [markdown] lang="zh"
# ## 一个训练步的过程
#
# `nn.DataParallel` 与 DDP 想法相同，但一个训练步的每个阶段都不同。


# %% tags=["figure"]
def draw_box(panel, label, phase, device_number):
    color = (BLUE, ORANGE)[device_number]
    box = dict(boxstyle="round,pad=0.3", fc=color, ec=LINE, lw=0.8)
    place = phase, -device_number
    panel.text(*place, label, ha="center", va="center", color=LINE, bbox=box)


def draw_arrow(panel, phase, down=True, style="->"):
    ends = [(phase, -0.22), (phase, -0.78)]
    line = dict(arrowstyle=style, color=RED, lw=1.4)
    panel.annotate("", ends[down], ends[not down], arrowprops=line)


steps_of = {  # what each device has after each phase
    "nn.DataParallel": [
        ["$x, W$", "$o_0$", "$o, L$", "$g_0$", "$g$", "$W$"],
        ["$x_1, W$", "$o_1$", "", "$g_1$", "", ""],
    ],
    "DistributedDataParallel": [
        ["$x_0$", "$o_0$", "$L_0$", "$g_0$", "$g$", "$W$"],
        ["$x_1$", "$o_1$", "$L_1$", "$g_1$", "$g$", "$W$"],
    ],
}

# %% tags=["figure"]
figure, panels = plt.subplots(2, 1, figsize=(7, 3.3), layout="constrained")
for panel, (name, devices_of) in zip(panels, steps_of.items(), strict=True):
    for number, labels in enumerate(devices_of):
        for phase, label in enumerate(labels, 1):
            if label:
                draw_box(panel, label, phase, number)
    for phase in range(1, 7):
        circle = dict(boxstyle="circle,pad=0.2", fc="white", ec="#8d99ae")
        panel.text(phase, 0.75, phase, ha="center", va="center", bbox=circle)
    panel.set(xlim=(0.4, 6.6), ylim=(-1.5, 1.1), xticks=[], yticks=[])
    panel.set_title(name, family="monospace", fontsize=9)
    panel.spines[:].set_visible(False)
frame = dict(fc="none", ec="#8d99ae", linestyle="--")
panels[0].add_patch(plt.Rectangle((0.5, -1.42), 6, 1.84, **frame))
for bottom in (-0.42, -1.42):
    panels[1].add_patch(plt.Rectangle((0.5, bottom), 6, 0.84, **frame))
for phase, down in {1: True, 3: False, 4: True, 5: False}.items():
    draw_arrow(panels[0], phase, down)
draw_arrow(panels[1], 5, style="<->")
plt.show()

# %% [markdown] lang="en"
# **Figure.** One step on a blue and an orange device; dashed frames are processes, red arrows are
# communication. Phases: 1 scatter the batch, 2 forward, 3 loss, 4 backward, 5 all-reduce, 6 update.
# Above: in phase 1 samples and weights go to the second device, in 3 its outputs come back, in 4 it
# receives their gradient, and in 5 it returns the gradient of the weights. Below: only phase 5
# communicates, and each rank updates its own weights.

# %% [markdown] lang="zh"
# **图**。蓝、橙两台设备上的一个训练步；虚线框是进程，红色箭头是通信。各阶段为：1 分发批量，2 前向传播，3 损失，4 反向传播，5 全归约，6 更新。上：阶段 1 把样本和权重发给第二台设备，阶段 3 收回它的输出，阶段 4 把输出的梯度发给它，阶段 5 收回权重的梯度。下：只有阶段 5 需要通信，每个进程各自更新权重。

# %% [markdown] lang="en"
# > **If your notes say** that the outputs are gathered and then differentiated: that is
# > `nn.DataParallel`, the upper half. With DDP, each rank computes its own loss and runs its own
# > backward pass, and gradients are averaged instead of outputs.

# %% [markdown] lang="zh"
# > **如果你的笔记里写着**先汇总输出、再反向传播：那是 `nn.DataParallel`，即图的上半部分。用 DDP 时，每个进程计算自己的损失，做自己的反向传播；取平均的是梯度，不是输出。

# %% [markdown] lang="en"
# ## Train
#
# At the start, DDP copies the weights of rank 0 to all ranks. From then on the weights stay equal
# without being communicated, because equal weights and equal gradients give equal updates. The
# program below uses the weighted loss in another form: $\frac{n_r W}{n} \cdot \frac{1}{n_r} \sum =
# \frac{W}{n} \sum$, which needs no special case for a rank without samples.

# %% [markdown] lang="zh"
# ## 训练
#
# 开始时，DDP 把进程 0 的权重复制给所有进程。此后不必再传送权重，它们也始终相同：权重相同，梯度相同，更新也就相同。下面的程序把加权后的损失换了一种写法：$\frac{n_r W}{n} \cdot \frac{1}{n_r} \sum = \frac{W}{n} \sum$，这样没有样本的进程也不必特殊处理。

# %%
print(inspect.getsource(data_parallel.train))

# %% [markdown] lang="en"
# Does the loss fall? These are its values over `steps` steps:

# %% [markdown] lang="zh"
# 损失下降了吗？下面是它在 `steps` 步中的值：

# %% check="losses"
results = launch(data_parallel.train, world_size, *task, steps, lr, device=device)
losses, trained = results[-1]
losses

# %% [markdown] lang="en"
# The weights of the last rank after the last step, all in one long row:

# %% [markdown] lang="zh"
# 下面是最后一步之后最后一个进程的权重，排成一长行：

# %% check="parameters_after_steps"
row(trained)  # W1, then W2

# %% [markdown] lang="en"
# The same training on one device, without a second process:

# %% [markdown] lang="zh"
# 再用一台设备做同样的训练，没有第二个进程：

# %%
single = Network(weights)
sgd = torch.optim.SGD(single.parameters(), lr=lr)
losses_alone = []
for _ in range(steps):
    sgd.zero_grad()
    error = ((single(x) - y) ** 2).mean()
    error.backward()
    sgd.step()
    losses_alone.append(error.item())
compare("DDP, weights after training", row(trained), row(parameters(single)))

# %% tags=["figure"]
figure, panel = plt.subplots(figsize=(4.5, 2.2), layout="constrained")
panel.plot(range(1, steps + 1), losses_alone, "o", color=ORANGE, markersize=7)
panel.plot(range(1, steps + 1), losses, ".-", color=LINE, markersize=4)
panel.set(xlabel="step", ylabel="loss", ylim=(0, None))
panel.xaxis.get_major_locator().set_params(integer=True)
panel.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** The loss over all samples in each step: of all ranks together (blue), and of one device
# (orange).

# %% [markdown] lang="zh"
# **图**。每一步在所有样本上的损失：蓝色是所有进程合起来，橙色是一台设备。

# %% [markdown] lang="en"
# ## Accumulate gradients
#
# A batch may be too large even for $W$ devices at once. Then each rank divides its samples into
# pieces, and lets their gradients accumulate (lesson 03). Without further care, DDP would run an
# all-reduce in each backward pass. `no_sync()` suppresses all but the last one. How many all-reduces
# does each rank take part in, for `pieces` pieces?

# %% [markdown] lang="zh"
# ## 梯度累积
#
# 一个批量可能太大，连 $W$ 台设备也无法一次处理。这时每个进程把自己的样本分成几份，让各份的梯度累积起来（见第 03 课）。如果不加处理，DDP 在每次反向传播时都会做一次全归约；`no_sync()` 只留下最后一次。分成 `pieces` 份时，每个进程参加几次全归约？

# %%
print(inspect.getsource(data_parallel.accumulated_gradients))

# %% tags=["predict"] check="accumulated"
program = data_parallel.accumulated_gradients
found = launch(program, world_size, *task, pieces, device=device)
[count for count, each in found], torch.cat([each["W2"] for count, each in found])

# %%
compare("DDP, accumulated", row(found[-1][1]), row(right))

# %% [markdown] lang="en"
# ## Buckets
#
# A large network has hundreds of gradients, and the last layers have theirs long before the first.
# DDP collects gradients in **buckets**. As soon as a bucket is full, its all-reduce starts, while
# `backward()` computes the gradients of earlier layers. By default the first bucket is full at 1 MiB
# and every other at 25 MiB, so our small network has one bucket, and nothing overlaps.
#
# Take eight layers of 512 × 512 weights instead, and a limit of 2 MiB. How many bytes does each
# bucket have?

# %% [markdown] lang="zh"
# ## 桶
#
# 大型网络有成百上千个梯度，最后几层的梯度比前几层早得多就算好了。DDP 把梯度收集到**桶**（bucket）里。一个桶装满，它的全归约就开始，同时 `backward()` 继续计算更前面各层的梯度。默认情况下，第一个桶装到 1 MiB 就满，其余的装到 25 MiB；我们的小网络只有一个桶，没有任何重叠。
#
# 换成八层、每层 512 × 512 个权重的网络，并把上限设为 2 MiB。每个桶有多少字节？

# %% tags=["predict"] check="buckets"
watched = launch(timing.watch_buckets, world_size, 512, 8, 2.0, kind, device=device)
[[size for size, begin, end in messages] for messages, ready in watched]

# %% tags=["figure"]
messages, ready = watched[0]
figure, panel = plt.subplots(figsize=(7, 1.9), layout="constrained")
edges = 1000 * np.array([0, *ready])
panel.barh(0, np.diff(edges), 0.6, edges[:-1], color=[BLUE, ORANGE] * 4, ec=LINE)
for i, center in enumerate((edges[:-1] + edges[1:]) / 2):
    panel.text(center, 0, len(ready) - i, ha="center", va="center", color=LINE)
for i, (_, begin, end) in enumerate(messages):
    panel.barh(1 + i % 2, 1000 * (end - begin), 0.6, 1000 * begin, color=RED, alpha=0.8)
panel.set(xlabel="ms", yticks=[0, 1.5], yticklabels=["backward", "all-reduce"])
panel.invert_yaxis()
panel.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** One backward pass on rank 0. Upper bar: when each layer had its gradient, layer 8 first.
# Red bars: the all-reduce of each bucket, from its start to its end. Where red is below the upper
# bar, communication **overlaps** with computation and costs no extra time; only the part to the right of
# the bar does.

# %% [markdown] lang="zh"
# **图**。进程 0 上的一次反向传播。上面的长条：每一层的梯度何时算好，最先是第 8 层。红条：每个桶的全归约，从开始到结束。红条在长条范围之内时，通信与计算**重叠**，不多花时间；超出右端的部分才是额外的代价。

# %% [markdown] lang="en"
# ## A script of your own
#
# `launch` belongs to this course. The usual tool is `torchrun`, which starts the processes and tells
# each its rank in environment variables. The file `parallel/train.py` is a complete
# script for it: save it, change network and data, and use it.
#
# ```sh
# torchrun --nproc-per-node 2 train.py
# ```
#
# This is its central function. After each step it replaces its checkpoint, so that the same command
# resumes training if anything was killed.

# %% [markdown] lang="zh"
# ## 你自己的脚本
#
# 在本课程之外，没有人用 `launch`。通常的工具是 `torchrun`：它启动各个进程，并通过环境变量告诉每个进程它的编号。文件 `parallel/train.py` 是一个完整的脚本：把它保存下来，换上自己的网络和数据，就可以使用。
#
# ```sh
# torchrun --nproc-per-node 2 train.py
# ```
#
# 下面是其中最主要的函数。每一步之后它都更新检查点，所以无论什么原因中断，用同一条命令就能接着训练。

# %%
print(inspect.getsource(train.train))

# %% [markdown] lang="en"
# We run it, and compare with one device. Two things come from torch's own random generator and cannot
# be derived, so they are given: the initial weights, and the order of the samples in each epoch.

# %% [markdown] lang="zh"
# 我们运行它，再与一台设备比较。有两样东西来自 torch 自己的随机数生成器，无法推导，所以是给定的：初始权重，以及每一轮中样本的次序。

# %% given="initial"
alone = train.make_network(seed, kind)
row(alone.state_dict())  # weights and biases of both layers, one after the other

# %% given="orders"
sampler = DistributedSampler(range(1680), num_replicas=1, rank=0, seed=seed)
orders = []
for epoch in range(2):
    sampler.set_epoch(epoch)
    orders.append(list(sampler))
orders = torch.tensor(orders)  # (epochs, samples)
orders

# %% [markdown] lang="en"
# The batch of 840 samples can be divided among 1 to 8 processes. What the script prints, and the
# weights in its checkpoint:

# %% [markdown] lang="zh"
# 一个批量有 840 个样本，1 到 8 个进程都能平分。下面是脚本打印的内容，以及检查点里的权重：

# %% check="script_weights"
options = ["--epochs", 2, "--samples", 1680, "--batch", 840]
options += ["--dtype", dtype, "--seed", seed]
with tempfile.TemporaryDirectory() as folder:
    print(torchrun(folder, train.__file__, world_size, *options))
    saved = torch.load(Path(folder) / "checkpoint.pt", map_location="cpu")["network"]
row(saved)

# %% [markdown] lang="en"
# On one device, without DDP and without a sampler:

# %% [markdown] lang="zh"
# 在一台设备上，不用 DDP，也不用采样器：

# %%
points, labels = train.make_data(1680, seed, kind).tensors
sgd = torch.optim.SGD(alone.parameters(), lr=0.1, momentum=0.9)
criterion = nn.BCEWithLogitsLoss()
for indices in orders.flatten().split(840):  # one batch after the other
    sgd.zero_grad()
    criterion(alone(points[indices])[:, 0], labels[indices]).backward()
    sgd.step()
compare("train.py by torchrun", row(saved), row(alone.state_dict()).to(device))

# %% [markdown] lang="en"
# ## Compared with one device
#
# All differences in one table. Rounding has the size of `eps`, the gap between 1 and the next larger
# number:

# %% [markdown] lang="zh"
# ## 与一台设备比较
#
# 把所有的差列在一张表里。舍入误差的大小与 `eps` 相当，它是 1 与下一个更大的数之差：

# %%
eps = torch.finfo(kind).eps
print(f"{dtype}, {world_size} ranks, {batch} samples, eps = {eps:.1e}\n")
for name, difference in compared.items():
    print(f"{name:28} {difference:.1e}")

# %% [markdown] lang="en"
# Unless the ranks have equally many samples, one line stands out: the plain mean. All other lines show
# rounding. A loss curve would not have shown the mistake.

# %% [markdown] lang="zh"
# 只要各进程的样本数不相等，就有一行与众不同：普通平均。其余各行都只是舍入误差。只看损失曲线，是看不出这个错误的。

# %% [markdown] lang="en"
# ## Recipe for DDP
#
# 1. Start one process per device: `torchrun --nproc-per-node 4 train.py`.
# 2. `init_process_group`; on GPUs, `set_device` with the number in `LOCAL_RANK`.
# 3. Give each rank its own samples with a `DistributedSampler`, and call its `set_epoch` in each
#    epoch. It makes shards even by repeating some samples or, with `drop_last=True`, by dropping some.
# 4. Wrap the network in `DistributedDataParallel`.
# 5. If shards are uneven, weight the loss by $n_r W / n$.
# 6. `backward()` and `step()` as always; `no_sync()` if gradients accumulate.
# 7. Save `replica.module.state_dict()` on one rank, to a file that is replaced as a whole.
# 8. `destroy_process_group` at the end, once the DDP object is gone.

# %% [markdown] lang="zh"
# ## DDP 步骤小结
#
# 1. 每台设备启动一个进程：`torchrun --nproc-per-node 4 train.py`。
# 2. 调用 `init_process_group`；用 GPU 时，再用 `LOCAL_RANK` 中的编号调用 `set_device`。
# 3. 用 `DistributedSampler` 给每个进程分配自己的样本，并在每一轮调用它的 `set_epoch`。它让分片大小相等，办法是重复某些样本，或者用 `drop_last=True` 舍去某些样本。
# 4. 用 `DistributedDataParallel` 包装网络。
# 5. 分片大小不等时，损失乘以 $n_r W / n$。
# 6. `backward()` 和 `step()` 照旧；梯度累积时用 `no_sync()`。
# 7. 由一个进程保存 `replica.module.state_dict()`，文件要整体替换。
# 8. 最后，等 DDP 对象不再存在，调用 `destroy_process_group`。

# %% [markdown] lang="en"
# ## Exercises
#
# `launch_cell` works like `launch`, for a function in a cell. The function may use its arguments,
# `torch`, `dist`, `nn` and `DistributedDataParallel`.

# %% [markdown] lang="zh"
# ## 练习
#
# `launch_cell` 与 `launch` 相同，但用于单元里定义的函数。这个函数可以使用它的参数，以及 `torch`、`dist`、`nn` 和 `DistributedDataParallel`。

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. All-gather from send and receive
#
# In an **all-gather**, each rank provides a tensor, and afterwards each rank has all of them, in the
# order of the ranks. Write it with `dist.send(tensor, rank)` and `dist.recv(tensor, rank)` only. Both
# wait until the other rank does its part. In which order must the ranks call them?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 用发送和接收实现全收集
#
# 在**全收集**（all-gather）中，每个进程提供一个张量，结束时每个进程都有全部张量，按进程编号排列。只用 `dist.send(tensor, rank)` 和 `dist.recv(tensor, rank)` 实现它。这两个函数都要等对方完成相应的一步。各进程应当按什么顺序调用它们？


# %% tags=["exercise"]
def all_gather(device, numbers):
    # returns the numbers of all ranks, of which this rank knows one
    rank, world_size = dist.get_rank(), dist.get_world_size()
    own = numbers[rank].to(device)
    gathered = [torch.zeros_like(own) for _ in range(world_size)]
    ...  # fill it with send and receive
    return torch.stack(gathered)


numbers = tensor(np.random.default_rng(seed).integers(1, 100, world_size))
collected = torch.stack(launch_cell(all_gather, world_size, numbers, device=device))
collected


# %% tags=["solution"] check="collected"
def all_gather(device, numbers):
    # returns the numbers of all ranks, of which this rank knows one
    rank, world_size = dist.get_rank(), dist.get_world_size()
    own = numbers[rank].to(device)
    gathered = [torch.zeros_like(own) for _ in range(world_size)]
    gathered[rank] = own
    for sender in range(world_size):  # one after the other
        for receiver in range(world_size):
            if rank == sender != receiver:
                dist.send(own, receiver)
            elif rank == receiver != sender:
                dist.recv(gathered[sender], sender)
    return torch.stack(gathered)


numbers = tensor(np.random.default_rng(seed).integers(1, 100, world_size))
collected = torch.stack(launch_cell(all_gather, world_size, numbers, device=device))
collected

# %% [markdown] lang="en" tags=["exercise"]
# ### 2. Repair a script
#
# This program is to make one step of linear regression over all samples, from weights of zero. It
# runs without an error, and the weights are wrong. Find four mistakes and repair it.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 修好一个脚本
#
# 这个程序应当从全零的权重出发，用所有样本做一步线性回归。它运行时不报错，得到的权重却是错的。找出四处错误，把它修好。


# %% tags=["exercise"]
def step(device, x, y, lr):
    # returns the weights after one step over all samples
    network = nn.Linear(x.shape[1], 1, bias=False, dtype=x.dtype)
    nn.init.zeros_(network.weight)
    replica = DistributedDataParallel(network.to(device))
    optimizer = torch.optim.SGD(replica.parameters(), lr=lr)
    optimizer.zero_grad()
    my_x = x.tensor_split(dist.get_world_size())[0].to(device)
    my_y = y.tensor_split(dist.get_world_size())[0].to(device)
    loss = ((replica.module(my_x) - my_y) ** 2).mean()
    loss.backward()
    ...  # and one line is missing
    return network.weight.detach()[0]


repaired = torch.stack(launch_cell(step, world_size, x, y, lr, device=device))
repaired


# %% tags=["solution"] check="repaired"
def step(device, x, y, lr):
    # returns the weights after one step over all samples
    network = nn.Linear(x.shape[1], 1, bias=False, dtype=x.dtype)
    nn.init.zeros_(network.weight)
    replica = DistributedDataParallel(network.to(device))
    optimizer = torch.optim.SGD(replica.parameters(), lr=lr)
    optimizer.zero_grad()
    rank, world_size = dist.get_rank(), dist.get_world_size()
    my_x = x.tensor_split(world_size)[rank].to(device)  # its own samples
    my_y = y.tensor_split(world_size)[rank].to(device)
    errors = replica(my_x) - my_y  # through DDP
    loss = world_size / len(x) * (errors**2).sum()  # weighted
    loss.backward()
    optimizer.step()
    return network.weight.detach()[0]


repaired = torch.stack(launch_cell(step, world_size, x, y, lr, device=device))
repaired

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - `batch=24`: where has the error of the plain mean gone?
# - `world_size=4, batch=3`: one rank has no samples. Which values show it?
# - `dtype="float32"`: which results still agree with one device to the last bit, and why?
# - `pieces=1`: how many all-reduces are there now, and why?
# - Save `train.py` in an empty folder, run it, kill it with Ctrl-C, and run it again. Where does it
#   resume?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `batch=24`：普通平均的误差到哪里去了？
# - `world_size=4, batch=3`：有一个进程一个样本也没有，从哪些数值看得出来？
# - `dtype="float32"`：哪些结果仍与一台设备完全相等？为什么？
# - `pieces=1`：现在有几次全归约？为什么？
# - 把 `train.py` 保存到一个空文件夹里，运行它，用 Ctrl-C 中断，再运行一次。它从哪里接着训练？
