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
#       microbatches: {min: 1, max: 8}
#       steps: {min: 1, max: 20}
#       lr: {min: 0.0001, max: 1}
#       seed: {min: 0, max: 4294967295}
#       dtype: {choices: [float32, float64]}
# ---

# %% [markdown] lang="en"
# # Data parallelism
#
# Training takes a day, and three GPUs stand idle beside the one that works.
# Or the model does not fit into that one at all. Either way, the work has to be shared.
#
# After this lesson you can tell which of three ways of sharing suits a problem, you have trained
# on several processes in each of them, and you can prove that together they computed what one
# device would have computed.

# %% [markdown] lang="zh"
# # 数据并行
#
# 训练要跑一整天，旁边却有三块 GPU 闲着；
# 或者，模型在一块 GPU 里根本放不下。这两种情形都需要把工作分给多个设备。
#
# 学完这一课，你能判断三种分工方式各适合什么问题，会用每一种方式在多个进程上训练，
# 并且能证明：它们合起来算出的，正是一台设备会算出的结果。

# %% [markdown] lang="en"
# `world_size` is the number of processes that share the work. Change any value and run the
# lesson again: all that follows adapts, the figures too.

# %% [markdown] lang="zh"
# `world_size` 是分担工作的进程数。改动任何一个数值，再运行一遍：
# 后面的一切都会随之变化，插图也不例外。

# %% tags=["parameters"]
world_size: int = 2  # processes that share the work
batch: int = 23  # rows in one batch, over all processes
features: int = 8  # numbers in a row
hidden: int = 16  # hidden units of the network
microbatches: int = 4  # pieces of a batch in a pipeline
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

from parallel import data_parallel, launch
from parallel.network import Network, gradients, row

torch.set_printoptions(threshold=40, edgeitems=2)  # a long tensor shall not fill a page

# %% [markdown] lang="en"
# ## Faster, or larger
#
# **Faster.** Four devices can work through four times as many rows a second, as long as they do
# not wait for each other. The measure is **throughput**, rows per second.
#
# **Larger.** In float32, a weight takes 4 bytes, its gradient 4 more, and the optimizer Adam keeps two
# averages for it: 16 bytes. For 7 billion weights that is 112 GB, without a single sample. The measure
# is **memory**, bytes per device.

# %% [markdown] lang="zh"
# ## 更快，或者更大
#
# **更快**：只要互不等待，四台设备每秒能处理四倍的数据。衡量它的是**吞吐量**（throughput），即每秒处理多少个样本。
#
# **更大**：在 float32 下，一个权重占 4 字节，它的梯度再占 4 字节，Adam 优化器又要为它保存两个平均值，一共 16 字节。70 亿个权重就要 112 GB，还没算上任何样本。衡量它的是**内存**（在 GPU 上就是显存），即每台设备占用多少字节。

# %% [markdown] lang="en"
# ## Three ways to share
#
# Take a network of two layers. A batch $\mathbf{x}$ is multiplied by $\mathbf{W}_1^\top$, bent by
# tanh into the hidden values $\mathbf{h}$, and multiplied by $\mathbf{W}_2^\top$.
#
# You have a blue device and an orange one. Where would you cut? Think of one cut before you look
# at the figure: there are three.

# %% [markdown] lang="zh"
# ## 三种分工方式
#
# 来看一个两层的网络：一个批量的数据 $\mathbf{x}$ 先乘 $\mathbf{W}_1^\top$，
# 经过 tanh 得到隐藏层的值 $\mathbf{h}$，再乘 $\mathbf{W}_2^\top$。
#
# 你有蓝、橙两台设备，会从哪里切开？先自己想一种切法，再看下图：一共有三种。

# %% tags=["figure"]
BLUE, ORANGE, LINE, RED = "#a9c6de", "#f3c892", "#1d3557", "#c1121f"
parts = {  # left, bottom, width, height in units of the matrix; color
    "blue": [(0, 0, 1, 1, BLUE)],
    "orange": [(0, 0, 1, 1, ORANGE)],
    "rows": [(0, 0.5, 1, 0.5, BLUE), (0, 0, 1, 0.5, ORANGE)],
    "columns": [(0, 0, 0.5, 1, BLUE), (0.5, 0, 0.5, 1, ORANGE)],
    "both": [(0, 0, 1, 1, ORANGE), (0, 0, 1, 1, BLUE)],
}


# %% tags=["figure"]
def draw_matrix(panel, label, x, width, height, where):
    for left, bottom, w, h, color in parts[where]:
        behind = 0.14 if where == "both" and color == ORANGE else 0
        corner = (x + left * width + behind, (bottom - 0.5) * height + behind)
        box = plt.Rectangle(corner, w * width, h * height, fc=color, ec=LINE, lw=0.8)
        panel.add_patch(box)
    panel.text(x + width / 2, -1, label, ha="center", va="top", color=LINE)


def draw_message(panel, label, start, end, style="->"):
    panel.annotate("", end, start, arrowprops=dict(arrowstyle=style, color=RED, lw=1.4))
    x, y = (start[0] + end[0]) / 2, max(start[1], end[1]) + 0.12
    panel.text(x, y, label, color=RED, ha="center")


# %% tags=["figure"]
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
# **Figure.** The same two layers on two devices; two sheets are one copy on each. Red is what
# travels. (a) Cut between the layers: the hidden values $h$. (b) Cut within each layer: partial
# sums of the output. (c) Cut the batch, copy the network: the gradients of the weights.

# %% [markdown] lang="zh"
# **图**。同样的两层网络放在两台设备上；叠在一起的两张表示每台设备各有一份。
# 红色是需要传送的内容。(a) 在层与层之间切开：传送隐藏层的值 $h$。
# (b) 在每一层内部切开：传送输出的部分和。
# (c) 切开数据，复制网络：传送权重的梯度。

# %% [markdown] lang="en"
# | | name | a device holds | what travels |
# |---|---|---|---|
# | (a) | network partitioning, today **pipeline parallelism** | some layers | hidden values, between layers |
# | (b) | splitting within a layer, today **tensor parallelism** | a slice of each layer | partial sums, within the layers |
# | (c) | **data parallelism** | the whole network, some rows | gradients, once a step |
#
# (a) and (b) cut the model: **model parallelism**. Older texts call (b) layer-wise partitioning,
# though it leaves no layer whole.

# %% [markdown] lang="zh"
# | | 名称 | 每台设备持有 | 传送的内容 |
# |---|---|---|---|
# | (a) | 网络划分（层间划分，今称**流水线并行**） | 一部分层 | 隐藏层的值，在层与层之间 |
# | (b) | 层内划分（今称**张量并行**） | 每一层的一片 | 部分和，在层的内部 |
# | (c) | **数据并行** | 整个网络、一部分行 | 梯度，每步一次 |
#
# (a) 和 (b) 切开的是模型，合称**模型并行**。
# 早期资料把 (b) 叫作 layer-wise partitioning（按层划分），其实它把每一层都切开了。

# %% [markdown] lang="en"
# Which one? If the model fits on one device, take data parallelism: the network stays as it is,
# and the devices talk only once a step. If it does not fit, shard it: fully sharded data
# parallelism (**FSDP**) also divides weights, gradients and optimizer state, and the largest
# models combine it with the other two. This lesson begins with (c), which needs the fewest new
# words, and then takes (a) and (b).

# %% [markdown] lang="zh"
# 选哪一种？模型在一台设备里放得下，就用数据并行：网络不用改动，设备之间每步只通信一次。
# 放不下，就把模型也分片：全分片数据并行（**FSDP**）把权重、梯度和优化器状态都分到各设备上；
# 最大的模型还要与另外两种方式结合。这一课从新概念最少的 (c) 讲起，再讲 (a) 和 (b)。

# %% [markdown] lang="en"
# ## The right answer first
#
# To prove that shared work is right we need the right answer: loss and gradient on one device.
# The network is the one of the figure:

# %% [markdown] lang="zh"
# ## 先求正确答案
#
# 要证明分工后算得对，先要有正确答案：一台设备上的损失和梯度。
# 网络就是图中的那一个：

# %%
print(inspect.getsource(Network))

# %% [markdown] lang="en"
# Weights and rows are random, drawn from `seed`. The target is 1/4 where the numbers of a row have
# a positive sum, and −1/4 elsewhere. The square roots keep all values at a moderate size.

# %% [markdown] lang="zh"
# 权重和数据由种子 `seed` 随机产生。一行各数之和为正，目标值就是 1/4，否则是 −1/4。
# 除以平方根，是为了让所有数值大小适中。


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

# %% [markdown] lang="en"
# The loss is the mean squared error over all rows.

# %% [markdown] lang="zh"
# 损失是所有行的均方误差。

# %% check="loss"
network = Network(weights)
loss = ((network(x) - y) ** 2).mean()
loss

# %% [markdown] lang="en"
# Now backwards, by the chain rule. Let $\mathbf{o}$ be the output for $n$ rows, and
# $\mathbf{d} = \frac{2}{n}(\mathbf{o} - \mathbf{y})$ the derivative of the loss with respect to
# it. Then
#
# $$\nabla \mathbf{W}_2 = \mathbf{d}^\top \mathbf{h}, \qquad
# \nabla \mathbf{W}_1 = \mathbf{G}^\top \mathbf{x}, \qquad
# G_{ij} = d_i \, w_j \, (1 - h_{ij}^2)$$
#
# where $w_j$ are the entries of $\mathbf{W}_2$. All gradients of this lesson are compared with
# this rule, computed in NumPy. Autograd needs no rule from us:

# %% [markdown] lang="zh"
# 再用链式法则反向求导。记 $n$ 行的输出为 $\mathbf{o}$，
# 损失对它的导数为 $\mathbf{d} = \frac{2}{n}(\mathbf{o} - \mathbf{y})$，则
#
# $$\nabla \mathbf{W}_2 = \mathbf{d}^\top \mathbf{h}, \qquad
# \nabla \mathbf{W}_1 = \mathbf{G}^\top \mathbf{x}, \qquad
# G_{ij} = d_i \, w_j \, (1 - h_{ij}^2)$$
#
# 其中 $w_j$ 是 $\mathbf{W}_2$ 的元素。本课的每一个梯度，都要与 NumPy 按这条规则算出的值作比较。
# 自动求导不用我们告诉它规则：

# %% check="gradient"
loss.backward()
gradients(network)  # name -> .grad, of each parameter

# %% [markdown] lang="en"
# ## Split the batch
#
# The loss is a mean over rows, so its gradient is a sum over rows. A sum may be grouped as we
# like. Let $R_r$ be the rows of device $r = 0, \dots, W - 1$:
#
# $$\nabla L = \frac{1}{n} \sum_{i=1}^{n} \nabla \ell_i
# = \sum_{r=0}^{W-1} \left( \frac{1}{n} \sum_{i \in R_r} \nabla \ell_i \right)$$
#
# Each device computes the bracket of its rows; then the brackets are added up. That is all there
# is to data parallelism.

# %% [markdown] lang="zh"
# ## 切分批量
#
# 损失是各行的平均，所以它的梯度是各行之和；求和可以任意分组。
# 把分给设备 $r = 0, \dots, W - 1$ 的行记作 $R_r$：
#
# $$\nabla L = \frac{1}{n} \sum_{i=1}^{n} \nabla \ell_i
# = \sum_{r=0}^{W-1} \left( \frac{1}{n} \sum_{i \in R_r} \nabla \ell_i \right)$$
#
# 每台设备算出属于自己的那个括号，再把它们相加。数据并行的全部道理就在这里。

# %% [markdown] lang="en"
# `tensor_split` cuts a batch into exactly $W$ **shards**, as equal as can be.
# How many rows does each device get? Predict, then run.

# %% [markdown] lang="zh"
# `tensor_split` 把一个批量切成恰好 $W$ 个**分片**（shard），行数尽量相等。
# 每台设备分到几行？先预测，再运行。

# %% check="shards"
shards = x.tensor_split(world_size)  # world_size tensors, (n_local, features) each
[len(shard) for shard in shards]

# %% [markdown] lang="en"
# `chunk` looks like the same thing and is not: it first fixes the size of a piece, and may run out
# of rows before it runs out of devices. Six rows for four devices, by `chunk` and by
# `tensor_split`:

# %% [markdown] lang="zh"
# `chunk` 看似相同，其实不同：它先定每块的大小，设备还没轮完，行可能就分光了。
# 六行分给四台设备，先用 `chunk`，再用 `tensor_split`：

# %% check="six_for_four"
six = torch.arange(6, device=device)
[len(piece) for piece in six.chunk(4)], [len(piece) for piece in six.tensor_split(4)]

# %% [markdown] lang="en"
# ## One process, several devices
#
# First the way of `nn.DataParallel`, by hand: one process serves all the devices. (Without GPUs
# the CPU plays every part.) Each device gets a **replica**, a copy of the network, and a shard.
# The outputs are gathered on the first device.
#
# Predict: is anything different from `network(x)`?

# %% [markdown] lang="zh"
# ## 一个进程，多台设备
#
# 先亲手做一遍 `nn.DataParallel` 的做法：一个进程照管所有设备。（没有 GPU 时，由 CPU 充当每台设备。）
# 每台设备得到网络的一个**副本模型**（replica）和一个分片，输出都收集到第一台设备上。
#
# 猜一猜：结果会与 `network(x)` 不同吗？

# %% check="gathered"
on_gpus = torch.device(device).type == "cuda"
devices = [f"cuda:{r}" if on_gpus else "cpu" for r in range(world_size)]
replicas = [Network(weights).to(d) for d in devices]
parts = zip(replicas, shards, devices, strict=True)
outputs = [replica(shard.to(d)) for replica, shard, d in parts]  # (n_local, 1) each
gathered = torch.cat([out.to(device) for out in outputs])  # (n, 1)
gathered.flatten()

# %% [markdown] lang="en"
# Nothing: the outputs come in the order of the rows. Now there is one loss, and `backward()` runs
# through the gathering back into each replica. What does a replica find? Here are the gradients
# of $\mathbf{W}_2$:

# %% [markdown] lang="zh"
# 没有不同：输出仍按行的顺序排列。损失只有一个，`backward()` 穿过收集这一步，
# 回到每个副本模型。每个副本模型得到什么？下面是它们各自对 $\mathbf{W}_2$ 的梯度：

# %% check="shard_gradients"
loss = ((gathered - y) ** 2).mean()
loss.backward()
[replica.W2.grad for replica in replicas]

# %% [markdown] lang="en"
# Each replica has the bracket of its own rows. Their sum is the right answer: compare with the
# gradient of one device.

# %% [markdown] lang="zh"
# 每个副本模型得到的，正是自己那些行的括号。相加就是正确答案：请与一台设备的梯度比较。

# %% check="summed"
found = [gradients(replica) for replica in replicas]
{name: sum(each[name].to(device) for each in found) for name in weights}

# %% [markdown] lang="en"
# `nn.DataParallel` does all this for each batch, and is discouraged. The network is copied at each
# step; the first device keeps all outputs and the loss, while the others wait; and the threads that
# drive the devices share one Python interpreter.
#
# The remedy: a process for each device.

# %% [markdown] lang="zh"
# `nn.DataParallel` 对每个批量都做一遍这些事，现在已不推荐使用：
# 每一步都要复制网络；第一台设备要存放全部输出和损失，其他设备只能等待；
# 驱动各设备的线程还要争用同一个 Python 解释器。
#
# 解决办法：每台设备配一个进程。

# %% [markdown] lang="en"
# ## A process for each device
#
# All processes run the same program. Each knows its number, the **rank**, and how many there are,
# the **world size**. Together they form a **process group** that talks through a **backend**: gloo
# between CPUs, NCCL between GPUs.
#
# New processes can't import what a notebook cell defines, so the programs stand in the file
# `parallel/data_parallel.py`. Here is the first:

# %% [markdown] lang="zh"
# ## 每台设备一个进程
#
# 所有进程运行同一个程序。每个进程知道自己的**进程编号**（rank）和**进程总数**（world size）。
# 它们组成**进程组**（process group），通过**后端**（backend）通信：
# CPU 之间用 gloo，GPU 之间用 NCCL。
#
# 新进程导入不了笔记本单元里定义的函数，
# 所以程序写在文件 `parallel/data_parallel.py` 里。第一个程序是：

# %%
print(inspect.getsource(data_parallel.introduce))

# %% [markdown] lang="en"
# `launch` starts the processes and runs the program in each, with the rank's device as its first
# argument. What they return comes back as a list, in the order of the ranks.

# %% [markdown] lang="zh"
# `launch` 启动这些进程，在每个进程里运行程序（第一个参数是该进程的设备），
# 再把它们的返回值按编号排成列表。

# %% check="world"
world = launch(data_parallel.introduce, world_size, device=device)
[(rank, size, backend) for rank, size, backend, process in world]

# %%
if world_size == 1:
    print("There is one rank only: no communication is tested in this run.")

# %% [markdown] lang="en"
# Are they separate processes? Each would have an id of its own, and so has this notebook. How many
# different ids should there be?

# %% [markdown] lang="zh"
# 它们真是不同的进程吗？如果是，每个进程都有自己的进程号；这个笔记本也有一个。
# 一共应当有多少个不同的进程号？

# %% check="process_ids"
len({os.getpid(), *(process for *_, process in world)})

# %% [markdown] lang="en"
# One for each rank, and one for the notebook.
#
# Data parallelism needs one kind of message, the **all-reduce**: each rank brings a tensor, and
# each leaves with the sum of all. All ranks must take part, so this is called **collective
# communication**. If one stays away, the others wait for it.

# %% [markdown] lang="zh"
# 每个进程一个，笔记本一个。
#
# 数据并行只需要一种通信，**全归约**（all-reduce）：每个进程带来一个张量，
# 离开时都得到所有张量之和。所有进程必须一起参加，所以叫**集合通信**。
# 有一个不来，其他进程就只能等着。

# %%
print(inspect.getsource(data_parallel.add_up))

# %% [markdown] lang="en"
# Rank 0 brings 1, rank 1 brings 2, and so on. What does each rank have at the end?

# %% [markdown] lang="zh"
# 进程 0 带来 1，进程 1 带来 2，依此类推。最后每个进程手里是什么数？

# %% check="all_reduced"
torch.stack(launch(data_parallel.add_up, world_size, device=device))  # (world_size,)

# %% [markdown] lang="en"
# ## Data parallelism by hand
#
# Once the rows are dealt out, data parallelism is one more line: an all-reduce of the gradient. We
# try it where there is no rounding: a linear regression with whole numbers, whose gradient
# $\mathbf{X}^\top(\mathbf{X}\mathbf{w} - \mathbf{t})$ is whole as well.

# %% [markdown] lang="zh"
# ## 亲手实现数据并行
#
# 把行分给各个进程之后，数据并行只多一行：对梯度做一次全归约。
# 先在没有舍入误差的地方试一试：整数的线性回归，
# 它的梯度 $\mathbf{X}^\top(\mathbf{X}\mathbf{w} - \mathbf{t})$ 也是整数。

# %%
print(inspect.getsource(data_parallel.my_rows))
print(inspect.getsource(data_parallel.gradient_by_hand))

# %% [markdown] lang="en"
# Whole numbers of this size add up without rounding, in any order. So each rank must have the
# expected gradient to the last bit: a row that was lost or counted twice can't hide behind a
# tolerance. The result has one row for each rank:

# %% [markdown] lang="zh"
# 这样大小的整数，无论按什么次序相加都没有舍入。所以每个进程的梯度必须与预期值一位不差：
# 漏掉一行或者多算一行，都无法藏在容差后面。结果中每个进程占一行：

# %% check="integer_gradient"
rng = np.random.default_rng(seed)
X = tensor(rng.integers(1, 5, (batch, features)))
w = tensor(rng.integers(-3, 0, features))
t = tensor(rng.integers(0, 4, batch))
result = launch(data_parallel.gradient_by_hand, world_size, X, w, t, device=device)
torch.stack(result)  # (world_size, features)

# %% [markdown] lang="en"
# ## DistributedDataParallel
#
# A large network has hundreds of gradients, and the first are ready long before the last.
# `DistributedDataParallel`, **DDP** for short, wraps a network and sends the first gradients while
# `backward()` is still computing the others.
#
# It takes the **mean** over the ranks, not the sum. That suits a loss which is a mean over rows.
# Does it?

# %% [markdown] lang="zh"
# ## 分布式数据并行
#
# 大型网络有成百上千个梯度，最先算完的比最后的早得多。
# `DistributedDataParallel`（分布式数据并行，简称 **DDP**）把网络包起来，
# 在 `backward()` 期间，一边计算其余的梯度，一边把算好的传送出去。
#
# 它对各进程取**平均**，而不是求和。损失是各行的平均，这样似乎正合适。真的合适吗？

# %% [markdown] lang="en"
# Let each rank take the mean squared error of its own rows. A rank may have no rows at all (3 rows
# on 4 ranks). Its loss is then a mean of nothing, NaN. Its gradient is a sum over no rows, zero, and
# it still has to bring that: the others would wait for it in vain.

# %% [markdown] lang="zh"
# 让每个进程以自己那些行的均方误差为损失。有的进程可能一行也没有（3 行分给 4 个进程）：
# 它的损失是“零个数的平均”，即 NaN；它的梯度是零行之和，即 0。
# 这个 0 也必须带来，否则其他进程就会白白等下去。

# %%
print(inspect.getsource(data_parallel.local_loss))

# %% [markdown] lang="en"
# This program differentiates twice. The first time `no_sync()` holds the averaging back, so that we
# can see what each rank found alone. There is no optimizer in it, and no step. (`Named` means
# tensors by name: a dictionary.)

# %% [markdown] lang="zh"
# 这个程序求两次梯度。第一次用 `no_sync()` 暂停取平均，好看清每个进程自己得到了什么。
# 程序里没有优化器，也没有更新权重。（`Named` 表示按名字存放张量的字典。）

# %%
print(inspect.getsource(data_parallel.plain_gradients))

# %% [markdown] lang="en"
# Before the averaging: the ranks have equal weights and different rows. Are their gradients equal?
# (The gradient of $\mathbf{W}_2$, a row for each rank.)

# %% [markdown] lang="zh"
# 取平均之前：各进程权重相同，数据不同。梯度相同吗？
# （这里是对 $\mathbf{W}_2$ 的梯度，每个进程一行。）

# %% check="local_gradients"
task = (weights, x, y)
pairs = launch(data_parallel.plain_gradients, world_size, *task, device=device)
local = torch.cat([before["W2"] for before, after in pairs])  # (world_size, hidden)
local

# %% [markdown] lang="en"
# And right after `backward()` with averaging:

# %% [markdown] lang="zh"
# 再看带平均的 `backward()` 刚结束时：

# %% check="unweighted"
plain = torch.cat([after["W2"] for before, after in pairs])  # (world_size, hidden)
plain

# %% [markdown] lang="en"
# Every rank has the mean of the gradients above: they travelled *during* `backward()`.
#
# But is this the gradient of the whole batch? Call the largest entry of the right one 100%.
# How large is the largest error?

# %% [markdown] lang="zh"
# 每个进程都得到了上面各梯度的平均：梯度是在 `backward()` **期间**传送的。
#
# 可它是整个批量的梯度吗？以正确梯度中最大的元素为 100%，最大的误差是多少？

# %% check="unweighted_error"
right = gradients(network)["W2"][0].cpu()  # (hidden,), from one device
largest = torch.stack([right, plain[0] - right]).abs().amax(dim=1)  # (2,)
100 * largest / largest[0]

# %% [markdown] lang="en"
# If `world_size` divides `batch`, this is only rounding. Otherwise it is a real error: a rank with
# fewer rows has as much say as the others, so each of its rows counts for more. Training still
# seems to work, which is why the mistake so often stays.
#
# The cure is a weight. With $n_r$ rows on rank $r$, multiply its loss by $n_r W / n$:
#
# $$\frac{1}{W} \sum_{r} \frac{n_r W}{n} \nabla L_r
# = \frac{1}{n} \sum_{r} n_r \nabla L_r = \nabla L$$

# %% [markdown] lang="zh"
# 如果 `batch` 能被 `world_size` 整除，这只是舍入误差；否则就是真正的错误：
# 行数少的进程与其他进程有同样的发言权，它的每一行就占了更大的分量。
# 训练看上去照样进行，所以这个错误常常没有人发现。
#
# 办法是加权。进程 $r$ 有 $n_r$ 行，就把它的损失乘以 $n_r W / n$：
#
# $$\frac{1}{W} \sum_{r} \frac{n_r W}{n} \nabla L_r
# = \frac{1}{n} \sum_{r} n_r \nabla L_r = \nabla L$$

# %%
print(inspect.getsource(data_parallel.ddp_gradients))

# %% [markdown] lang="en"
# What should every row be now?

# %% [markdown] lang="zh"
# 现在每一行应当是什么？

# %% check="ddp_gradients"
weighted = launch(data_parallel.ddp_gradients, world_size, *task, device=device)
torch.cat([each["W2"] for each in weighted])  # (world_size, hidden)

# %% tags=["figure"]
entry = int((local - right).abs().sum(dim=0).argmax())  # where the ranks differ most
after = torch.cat([each["W2"] for each in weighted])  # (world_size, hidden)
ranks = np.arange(world_size)
colors = [[BLUE, ORANGE][r % 2] for r in ranks]
figure, panels = plt.subplots(1, 3, figsize=(7, 2.2), layout="constrained")
for panel, bars in zip(panels, (local, after), strict=False):
    panel.bar(ranks, bars[:, entry], 0.6, color=colors, edgecolor=LINE, linewidth=0.8)
    panel.axhline(right[entry], color=RED, linestyle="--", linewidth=1)
    panel.axhline(0, color=LINE, linewidth=0.8)
    panel.set(xlabel="rank", xticks=ranks, xlim=(-0.7, world_size - 0.3))
panels[0].set_ylabel(rf"$\nabla W_2$[{entry}]")
panels[1].sharey(panels[0])
panels[1].tick_params(labelleft=False)
for found, color in ((plain, RED), (after, LINE)):
    errors = 100 * (found[0] - right) / right.abs().max()  # (hidden,)
    panels[2].plot(errors, ".", color=color, markersize=5)
limit = max(1.0, 110 * float(largest[1] / largest[0]))
panels[2].set(xlabel="$j$", ylabel="%", ylim=(-limit, limit))
for panel in panels:
    panel.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** One entry of the gradient on each rank, before (left) and after (middle) the weighted
# averaging; the red dashes are one device's value. Right: the error of each entry, in percent of
# the largest one, for the plain mean (red) and the weighted one (dark).

# %% [markdown] lang="zh"
# **图**。各进程梯度中的同一个元素，左为加权平均之前，中为之后；红色虚线是一台设备算出的值。
# 右：每个元素的误差，以最大元素的百分数表示；红点是普通平均，深色点是加权平均。

# %% [markdown] lang="en"
# And the other layer? Here is the whole gradient on the last rank, to compare with the right
# answer.

# %% [markdown] lang="zh"
# 另一层呢？下面是最后一个进程上的全部梯度，请与正确答案比较。

# %% check="whole_gradient"
weighted[-1]

# %% [markdown] lang="en"
# Compared with one device there may be rounding differences, as the sums are grouped differently.
# Between the ranks there may be none: they must all take the very same step. The largest difference
# over all ranks and parameters:

# %% [markdown] lang="zh"
# 与一台设备相比，可以有舍入的差别，因为求和的分组不同。
# 进程之间则不能有任何差别：它们必须迈出完全相同的一步。所有进程、所有参数中的最大差别是：

# %% check="ranks_agree"
first = weighted[0]
differences = [each[name] - first[name] for each in weighted for name in each]
torch.stack([difference.abs().max() for difference in differences]).max()

# %% [markdown] lang="en"
# ## Two ways, side by side
#
# `nn.DataParallel` and DDP share the idea and differ in all that happens on the way.

# %% [markdown] lang="zh"
# ## 两种做法对照
#
# `nn.DataParallel` 与 DDP 想法相同，过程却处处不同。


# %% tags=["figure"]
def draw_box(panel, label, x, y, color):
    box = dict(boxstyle="round,pad=0.3", fc=color, ec=LINE, lw=0.8)
    panel.text(x, y, label, ha="center", va="center", color=LINE, bbox=box)


def draw_arrow(panel, start, end, color=LINE, style="->"):
    line = dict(arrowstyle=style, color=color, lw=1.4, shrinkA=14, shrinkB=14)
    panel.annotate("", end, start, arrowprops=line)


def draw_process(panel, low, high):
    frame = dict(fc="none", ec="#8d99ae", linestyle="--")
    panel.add_patch(plt.Rectangle((-0.5, low), 4, high - low, **frame))


# %% tags=["figure"]
figure, (left, right_panel) = plt.subplots(1, 2, figsize=(7, 2.3), layout="constrained")
for panel, loss_names in ((left, ["$L$"]), (right_panel, ["$L_0$", "$L_1$"])):
    for r, color in enumerate((BLUE, ORANGE)):
        labels = [f"$x_{r}$", "$W_{1,2}$", f"$out_{r}$", *loss_names[r : r + 1]]
        for i, label in enumerate(labels):
            draw_box(panel, label, i, -r, color)
            if i:
                draw_arrow(panel, (i - 1, -r), (i, -r))
    panel.set(xlim=(-0.6, 3.6), ylim=(-1.5, 0.5))
    panel.axis("off")
draw_process(left, -1.42, 0.42)
draw_process(right_panel, -0.42, 0.42)
draw_process(right_panel, -1.42, -0.58)
draw_arrow(left, (0, 0), (0, -1), RED)
draw_arrow(left, (1, 0), (1, -1), RED, "<->")
draw_arrow(left, (2, -1), (3, 0), RED, "<->")
draw_arrow(right_panel, (1, 0), (1, -1), RED, "<->")
left.set_title("nn.DataParallel", family="monospace", fontsize=9)
right_panel.set_title("DistributedDataParallel", family="monospace", fontsize=9)
right_panel.text(1.1, -0.5, r"$\nabla W_{1,2}$", color=RED, va="center")
left.text(1.1, -0.5, r"$W_{1,2}, \nabla W_{1,2}$", color=RED, va="center")
plt.show()

# %% [markdown] lang="en"
# **Figure.** Blue and orange are devices, dashed frames are processes, red arrows cross from device
# to device. Left: rows, weights, outputs and gradients all travel, and one device computes the
# loss. Right: each rank has its own loss, and only gradients travel.

# %% [markdown] lang="zh"
# **图**。蓝、橙是两台设备，虚线框是进程，红色箭头跨越设备。
# 左：数据、权重、输出、梯度都要传送，损失只在一台设备上计算。
# 右：每个进程有自己的损失，传送的只有梯度。

# %% [markdown] lang="en"
# ## Train
#
# At the start DDP copies rank 0's weights to all ranks. From then on they stay equal without ever
# being sent: equal weights and equal gradients make equal steps.

# %% [markdown] lang="zh"
# ## 训练
#
# 开始时，DDP 把进程 0 的权重复制给所有进程。此后不必再传送权重，它们也始终相同：
# 权重相同，梯度相同，更新也就相同。

# %%
print(inspect.getsource(data_parallel.train))

# %% [markdown] lang="en"
# The weights of the last rank after `steps` steps, all in one long row (`row` puts
# $\mathbf{W}_1$ first). The expected ones come from a loop in NumPy, with the whole batch and no
# second process.

# %% [markdown] lang="zh"
# 下面是 `steps` 步之后最后一个进程的权重，全部排成一长行（由 `row` 排列，$\mathbf{W}_1$ 在前）。
# 预期值由 NumPy 的循环求得：用整个批量，没有第二个进程。

# %% check="parameters_after_steps"
trained = launch(data_parallel.train, world_size, *task, steps, lr, device=device)
row(trained[-1])

# %% [markdown] lang="en"
# ## Recipe for DDP
#
# 1. Start one process per device: `torchrun --nproc-per-node=4 train.py`, or `launch` in this
#    course.
# 2. `init_process_group`, and give each rank its device.
# 3. Give each rank its own rows: `tensor_split`, or a `DistributedSampler`, which makes shards even
#    by repeating some rows or, with `drop_last=True`, by leaving some out.
# 4. Wrap the network in `DistributedDataParallel`.
# 5. Where shards are uneven, weight the loss by $n_r W / n$.
# 6. `backward()` and `step()` as ever. Save from rank 0 only.
# 7. Delete the DDP object, then `destroy_process_group`.

# %% [markdown] lang="zh"
# ## DDP 步骤小结
#
# 1. 每台设备启动一个进程：`torchrun --nproc-per-node=4 train.py`，本课中是 `launch`。
# 2. 调用 `init_process_group`，给每个进程指定设备。
# 3. 给每个进程分配各自的行：用 `tensor_split`，或用 `DistributedSampler`；
#    后者让分片大小相等，办法是重复某些行，或者用 `drop_last=True` 舍去某些行。
# 4. 用 `DistributedDataParallel` 把网络包起来。
# 5. 分片大小不等时，损失乘以 $n_r W / n$。
# 6. `backward()` 和 `step()` 照旧；只由进程 0 保存模型。
# 7. 先删除 DDP 对象，再调用 `destroy_process_group`。

# %% [markdown] lang="en"
# ## Exercises
#
# Each can be done in one process: what the ranks would do, one after the other.

# %% [markdown] lang="zh"
# ## 练习
#
# 每道题都可以在一个进程里完成：各进程要做的事，一件一件地做。

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. Parallel in time
#
# One device can do data parallelism with itself: take the batch in pieces, one after the other,
# and let the gradients add up. Cut `x` and `y` into `microbatches` pieces with `tensor_split`, and
# call `backward()` once for each piece. The pieces may be uneven, and still the gradient has to be
# that of the whole batch. (It is the gradient accumulation of lesson 03, and saves memory.)

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 时间上的并行
#
# 一台设备也能与自己做数据并行：把批量分成几块，一块接一块地算，让梯度累积起来。
# 用 `tensor_split` 把 `x` 和 `y` 切成 `microbatches` 块，每块调用一次 `backward()`。
# 各块大小可能不等，但得到的必须仍是整个批量的梯度。（这就是第 03 课的梯度累积，可以节省内存。）

# %% tags=["exercise"]
alone = Network(weights)
...  # for each piece: its loss with its weight, and backward()
in_pieces = alone.W2.grad  # (1, hidden)
in_pieces

# %% tags=["solution"] check="in_pieces"
alone = Network(weights)
pairs = zip(x.tensor_split(microbatches), y.tensor_split(microbatches), strict=True)
for rows_here, targets_here in pairs:
    loss = ((alone(rows_here) - targets_here) ** 2).sum() / len(x)
    loss.backward()
in_pieces = alone.W2.grad  # (1, hidden)
in_pieces

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - `batch=24`: where has the error of the plain mean gone?
# - `world_size=4, batch=3`: one rank has no rows. Which values show it?
# - `microbatches=1`: how large is the bubble now? And with 8?
# - `world_size=4, hidden=9`: who holds how much, in (b) and in FSDP?
# - `dtype="float32"`: which results still agree with NumPy to the last bit, and why?
# - In `data_parallel.py`, let rank 1 sleep for a minute before the all-reduce of `add_up`, and
#   launch it with `timeout_s=5`. Where does each rank stand?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `batch=24`：普通平均的误差到哪里去了？
# - `world_size=4, batch=3`：有一个进程一行也没有，从哪些数值看得出来？
# - `microbatches=1`：气泡有多大？换成 8 呢？
# - `world_size=4, hidden=9`：在 (b) 和 FSDP 中，各进程分别持有多少？
# - `dtype="float32"`：哪些结果仍与 NumPy 的一位不差？为什么？
# - 在 `data_parallel.py` 里，让进程 1 在 `add_up` 的全归约之前睡一分钟，
#   再用 `timeout_s=5` 启动。各个进程停在哪里？
