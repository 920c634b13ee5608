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
# # Parallel computing
#
# Training takes a day, and three GPUs stand idle beside the one that works.
# Or the model does not fit into that one at all. Either way, the work has to be shared.
#
# After this lesson you can tell which of three ways of sharing suits a problem, you have trained
# on several processes in each of them, and you can prove that together they computed what one
# device would have computed.

# %% [markdown] lang="zh"
# # 并行计算
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

from parallel import data_parallel, launch, pipeline, ring, tensor_parallel, timing
from parallel.network import Network, Stage, gradients, row

torch.set_printoptions(threshold=40, edgeitems=2)  # a long tensor shall not fill a page

# %% [markdown] lang="en"
# ## Faster, or larger
#
# **Faster.** Four devices can work through four times as many rows a second, as long as they do
# not wait for each other. The measure is **throughput**, rows per second.
#
# **Larger.** A weight is not alone in memory: it has a gradient, and the optimizer Adam keeps two
# averages for it. How many bytes is that in float32? Here are the four, in this order:

# %% [markdown] lang="zh"
# ## 更快，或者更大
#
# **更快**：只要互不等待，四台设备每秒能处理四倍的数据。
# 衡量它的是**吞吐量**（throughput），即每秒处理多少行。
#
# **更大**：内存里不只有权重，每个权重还有一个梯度，Adam 优化器又要为它保存两个平均值。
# 在 float32 下，一共是多少字节？下面依次是这四项：

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
# ## Network partitioning
#
# Now (a): cut between the layers. Each rank keeps a **stage**, some layers one after the other.
# Forwards, it receives hidden values from the rank before, and sends its own to the next.
# Backwards, it receives the gradient of what it sent, and returns the gradient of what it received.
# That is the chain rule, with a message at each cut.

# %% [markdown] lang="zh"
# ## 网络划分
#
# 现在看 (a)：在层与层之间切开。每个进程持有一个**阶段**（stage），即前后相接的若干层。
# 前向传播时，它从前一个进程接收隐藏层的值，再把自己算出的值发给后一个进程。
# 反向传播时，它先收到“自己发出去的值”的梯度，再发回“自己收到的值”的梯度。
# 这就是链式法则，只是每个切口处多了一次通信。

# %% [markdown] lang="en"
# Two layers leave little to cut. So take eight, with tanh after each: seven square matrices, and
# one row at the end.

# %% [markdown] lang="zh"
# 只有两层，没有多少地方可切。我们换一个八层的网络，每层之后都接 tanh：
# 前七层是方阵，最后一层只有一行。

# %%
print(inspect.getsource(Stage))

# %%
rng = np.random.default_rng(seed)
squares = rng.uniform(-0.4, 0.4, (7, features, features)) / features**0.5
last = rng.uniform(-0.5, 0.5, (1, features)) / features**0.5
layers = [*(0.8 * np.eye(features) + squares), last]
deep = {f"W{i}": tensor(layer) for i, layer in enumerate(layers, 1)}

# %% [markdown] lang="en"
# On one device, it is one stage with all the layers. Its loss:

# %% [markdown] lang="zh"
# 在一台设备上，它就是包含所有层的一个阶段。损失是：

# %% check="deep_loss"
((Stage(deep)(x) - y) ** 2).mean()

# %% [markdown] lang="en"
# And here is what one rank does, forwards and backwards. `send` and `recv` are messages from one
# rank to another: each `recv` waits for its `send`.

# %% [markdown] lang="zh"
# 下面是一个进程在前向传播和反向传播中要做的事。`send` 和 `recv` 是两个进程之间的通信：
# 每个 `recv` 都要等到对应的 `send`。

# %%
print(inspect.getsource(pipeline.forward))
print(inspect.getsource(pipeline.backward))

# %% [markdown] lang="en"
# If a stage waits for the whole batch, only one rank works at a time. So the batch is cut once more,
# into **microbatches**: while the second stage has the first microbatch, the first stage takes the
# second. Their gradients add up, as they always do in `backward()`.
#
# How much of the time does each rank work?

# %% [markdown] lang="zh"
# 如果一个阶段要等整个批量算完，那么同一时刻只有一个进程在工作。
# 所以把批量再切成**微批**（microbatch）：第二个阶段计算第一个微批时，第一个阶段就计算第二个微批。
# 各微批的梯度由 `backward()` 累积起来，与往常一样。
#
# 每个进程有多少时间在工作？

# %%
pieces = min(microbatches, batch)  # a microbatch has at least one row
slots = pieces + world_size - 1  # forwards, and as many backwards
table = np.full((world_size, 2 * slots), -1)  # rank, time slot -> microbatch
for r in range(world_size):
    for m in range(pieces):
        table[r, r + m] = m
        table[r, slots + world_size - 1 - r + m] = m

# %% tags=["figure"]
figure, panel = plt.subplots(figsize=(7, 0.5 + 0.3 * world_size), layout="constrained")
for (r, slot), m in np.ndenumerate(table):
    color = "none" if m < 0 else BLUE if slot < slots else ORANGE
    box = plt.Rectangle((slot - 0.5, r - 0.5), 1, 1, fc=color, ec=LINE, lw=0.8)
    panel.add_patch(box)
    if m >= 0:
        panel.text(slot, r, m, color=LINE, ha="center", va="center")
panel.set(xlim=(-0.6, 2 * slots - 0.4), ylim=(world_size - 0.4, -0.6))
panel.set(ylabel="rank", yticks=range(world_size), xticks=[])
panel.spines[:].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** A row is a rank, a column a time slot, a number a microbatch; forwards is blue,
# backwards orange, as if both took equally long. The white slots are the **bubble**, in which a rank
# waits.

# %% [markdown] lang="zh"
# **图**。每行是一个进程，每列是一个时间段，数字是微批的编号；蓝色是前向传播，橙色是反向传播，
# 这里假设两者用时相同。白格是**气泡**（bubble），进程在这些时间段里等待。

# %% [markdown] lang="en"
# Count the slots with work, and all slots. With $m$ microbatches on $W$ ranks the share of the first
# is $\frac{m}{m + W - 1}$.

# %% [markdown] lang="zh"
# 数一数有工作的时间段，以及全部时间段。$W$ 个进程、$m$ 个微批时，前者占后者的
# $\frac{m}{m + W - 1}$。

# %% check="busy"
int((table >= 0).sum()), table.size

# %% [markdown] lang="en"
# The whole program. In `backward` the derivative was divided by the rows of the whole batch, so
# microbatches of different sizes need no weights. (`Found` means three things: outputs, gradients,
# and the weights after the last step.)

# %% [markdown] lang="zh"
# 下面是完整的程序。`backward` 里的导数除以的是整个批量的行数，所以微批大小不等也不需要加权。
# （`Found` 表示三样东西：输出、梯度和最后一步之后的权重。）

# %%
print(inspect.getsource(pipeline.my_stage))
print(inspect.getsource(pipeline.train_by_hand))

# %% [markdown] lang="en"
# One step first. Which layers does each rank find gradients for?

# %% [markdown] lang="zh"
# 先走一步。每个进程求得哪些层的梯度？

# %% check="stages"
program, deep_task = pipeline.train_by_hand, (deep, x, y, pieces)
stages = launch(program, world_size, *deep_task, 1, lr, device=device)
[" ".join(found) for outputs, found, after in stages]

# %% [markdown] lang="en"
# Only the last rank sees outputs. Here they are, less the targets:

# %% [markdown] lang="zh"
# 只有最后一个进程见到输出。下面是输出减去目标值：

# %% check="pipeline_errors"
(stages[-1][0] - y.cpu()).flatten()  # (n,)

# %% [markdown] lang="en"
# The gradients crossed every cut, from the last layer back to the first. Here they are, and then the
# weights after `steps` steps:

# %% [markdown] lang="zh"
# 梯度从最后一层一路传回第一层，途中经过了每一个切口。下面是这些梯度，以及 `steps` 步之后的权重：

# %% check="stage_gradients"
torch.cat([row(found) for outputs, found, after in stages])

# %% check="pipeline_parameters"
stages = launch(program, world_size, *deep_task, steps, lr, device=device)
torch.cat([row(after) for outputs, found, after in stages])

# %% [markdown] lang="en"
# torch has this schedule ready, under the name of the paper that proposed it: GPipe. It takes our
# stages as they are, and does the sending and receiving itself:

# %% [markdown] lang="zh"
# torch 里有现成的这种调度，名字取自提出它的论文：GPipe。
# 它直接使用我们的阶段，发送和接收都由它完成：

# %%
print(inspect.getsource(pipeline.train_by_torch))

# %% [markdown] lang="en"
# It takes the mean of the microbatches' gradients, which is right where they are equally large.
# That is the mistake of the plain mean once more. So for torch we leave out the last rows:

# %% [markdown] lang="zh"
# 它对各微批的梯度取平均，只有微批一样大时才正确：这与前面普通平均的错误是同一回事。
# 所以交给 torch 之前，要舍去最后几行：

# %%
kept = batch - batch % pieces  # rows that the microbatches share evenly
print(f"{kept} of {batch} rows, {kept // pieces} in each of {pieces} microbatches")

# %% [markdown] lang="en"
# The gradients of one step, and the weights after `steps` steps:

# %% [markdown] lang="zh"
# 一步的梯度，以及 `steps` 步之后的权重：

# %% check="schedule_gradients"
program, deep_task = pipeline.train_by_torch, (deep, x[:kept], y[:kept], pieces)
scheduled = launch(program, world_size, *deep_task, 1, lr, device=device)
torch.cat([row(found) for outputs, found, after in scheduled])

# %% check="schedule_parameters"
scheduled = launch(program, world_size, *deep_task, steps, lr, device=device)
torch.cat([row(after) for outputs, found, after in scheduled])

# %% [markdown] lang="en"
# ## Splitting within a layer
#
# Last (b): each rank keeps a share of the **hidden units**, and sees all rows. Hidden unit $j$ is
# column $j$ of $\mathbf{W}_1^\top$ and row $j$ of $\mathbf{W}_2^\top$. So the first matrix is split
# **column-wise** and the second **row-wise**:
#
# $$\mathbf{x} \mathbf{W}_1^\top \mathbf{W}_2^\top
# = \sum_{r=0}^{W-1} \mathbf{x} \, (\mathbf{W}_1^\top)_r \, (\mathbf{W}_2^\top)_r$$
#
# Between the two matrices nothing has to travel. At the end there is one all-reduce.

# %% [markdown] lang="zh"
# ## 层内划分
#
# 最后看 (b)：每个进程持有一部分**隐藏单元**，所有的行都要经过它。
# 隐藏单元 $j$ 对应 $\mathbf{W}_1^\top$ 的第 $j$ 列和 $\mathbf{W}_2^\top$ 的第 $j$ 行。
# 所以第一个矩阵**按列切分**，第二个**按行切分**：
#
# $$\mathbf{x} \mathbf{W}_1^\top \mathbf{W}_2^\top
# = \sum_{r=0}^{W-1} \mathbf{x} \, (\mathbf{W}_1^\top)_r \, (\mathbf{W}_2^\top)_r$$
#
# 两个矩阵之间什么都不用传送，最后只要一次全归约。

# %%
print(inspect.getsource(tensor_parallel.my_slice))
print(inspect.getsource(tensor_parallel.multiply))

# %% [markdown] lang="en"
# With whole numbers there is no rounding, and each rank must have the product to the last bit. (A
# column for each rank.)

# %% [markdown] lang="zh"
# 用整数就没有舍入，每个进程得到的乘积都必须一位不差。（每个进程占一列。）

# %% check="integer_product"
rng = np.random.default_rng(seed)
integers = {
    "W1": tensor(rng.integers(1, 5, (hidden, features))),
    "W2": tensor(rng.integers(1, 4, (1, hidden))),
}
integer_x = tensor(rng.integers(-3, 0, (batch, features)))
program = tensor_parallel.multiply
products = launch(program, world_size, integers, integer_x, device=device)
torch.cat(products, dim=1)  # (n, world_size)

# %% [markdown] lang="en"
# tanh works on each hidden unit alone, so it may stand between the two matrices.
#
# Backwards: the output is a sum over ranks, so its derivative with respect to each part is 1. Every
# rank knows the whole output, computes the same $\mathbf{d}$, and passes it into its own part,
# without a message. (In a deeper network the layers before need the gradient of $\mathbf{x}$. It
# is a sum over the ranks too, and takes another all-reduce.)

# %% [markdown] lang="zh"
# tanh 对每个隐藏单元单独计算，所以可以放在两个矩阵之间。
#
# 反向传播时：输出是各进程的部分和相加，对每一部分的导数都是 1。
# 每个进程都有完整的输出，算出同一个 $\mathbf{d}$，传回自己的那一部分，不用通信。
# （在更深的网络里，前面的层还需要 $\mathbf{x}$ 的梯度；它也是各进程之和，要再做一次全归约。）

# %%
print(inspect.getsource(tensor_parallel.train_by_hand))

# %% [markdown] lang="en"
# One step. The slices need not be equal; here are their shapes, $\mathbf{W}_1$ and $\mathbf{W}_2$ on
# each rank:

# %% [markdown] lang="zh"
# 走一步。各片不必一样大。下面是每个进程上 $\mathbf{W}_1$ 和 $\mathbf{W}_2$ 的形状：

# %% check="slices"
program = tensor_parallel.train_by_hand
slices = launch(program, world_size, *task, 1, lr, device=device)
[[list(part.shape) for part in after.values()] for out, found, after in slices]

# %% [markdown] lang="en"
# The outputs less the targets, a column for each rank:

# %% [markdown] lang="zh"
# 输出减去目标值，每个进程占一列：

# %% check="tensor_errors"
torch.cat([out - y.cpu() for out, found, after in slices], dim=1)  # (n, world_size)

# %% [markdown] lang="en"
# And the slices put together again: the gradient, to compare with the right answer at the beginning,
# and the weights after `steps` steps.

# %% [markdown] lang="zh"
# 再把各片拼起来：先是梯度，请与开头的正确答案比较；然后是 `steps` 步之后的权重。

# %% check="column_row"
{
    "W1": torch.cat([found["W1"] for out, found, after in slices], dim=0),
    "W2": torch.cat([found["W2"] for out, found, after in slices], dim=1),
}

# %% check="tensor_parameters"
slices = launch(program, world_size, *task, steps, lr, device=device)
whole = {
    "W1": torch.cat([after["W1"] for out, found, after in slices], dim=0),
    "W2": torch.cat([after["W2"] for out, found, after in slices], dim=1),
}
row(whole)

# %% [markdown] lang="en"
# In torch the network is written as for one device. A **plan** says how each layer is split, and
# `parallelize_module` does it. The all-reduce is nowhere to be seen:

# %% [markdown] lang="zh"
# 在 torch 里，网络按一台设备来写。用一个**方案**（plan）说明每一层怎样切分，
# 再由 `parallelize_module` 完成。程序里看不到全归约：

# %%
print(inspect.getsource(tensor_parallel.train_by_torch))

# %% [markdown] lang="en"
# The gradients of one step, and the weights after `steps` steps, on the last rank. `full_tensor` has
# put the slices together.

# %% [markdown] lang="zh"
# 最后一个进程上，一步的梯度，以及 `steps` 步之后的权重；各片已由 `full_tensor` 拼好。

# %% check="planned_gradients"
program = tensor_parallel.train_by_torch
planned = launch(program, world_size, *task, 1, lr, device=device)
row(planned[-1][1])

# %% check="planned_parameters"
planned = launch(program, world_size, *task, steps, lr, device=device)
row(planned[-1][2])

# %% [markdown] lang="en"
# ## What travels, side by side
#
# How many numbers one rank sends in a step, with $P$ weights, $n$ rows, $f$ numbers a row between
# the stages, and rings. The first line we counted above; the others are arithmetic.
#
# | | a rank sends |
# |---|---|
# | DDP | $2 \frac{W-1}{W} P$: the gradient |
# | FSDP | $3 \frac{W-1}{W} P$: the weights, forwards and again backwards; the gradient |
# | pipeline | $n f$ forwards, $n f$ backwards, at each cut |
# | tensor | $2 \frac{W-1}{W} n$: the outputs, one number a row |
#
# The first two grow with the network, the others with the batch. (Applied to a network as a whole,
# as here, FSDP collects the weights once and keeps them until the backward pass: $2 \frac{W-1}{W} P$.)

# %% [markdown] lang="zh"
# ## 传送量对照
#
# 设有 $P$ 个权重、$n$ 行数据，阶段之间每行 $f$ 个数，集合通信都用环，一个进程每步发送多少个数？
# 第一行前面已经数过，其余各行是推算。
#
# | | 一个进程发送 |
# |---|---|
# | DDP | $2 \frac{W-1}{W} P$：梯度 |
# | FSDP | $3 \frac{W-1}{W} P$：前向、反向各收集一次权重，再加上梯度 |
# | 流水线 | 每个切口前向 $n f$，反向 $n f$ |
# | 张量 | $2 \frac{W-1}{W} n$：输出，每行一个数 |
#
# 前两种随网络增大，后两种随批量增大。（像这里这样对整个网络只调用一次时，
# FSDP 只收集一次权重，一直留到反向传播：$2 \frac{W-1}{W} P$。）

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

# %% [markdown] lang="en" tags=["exercise"]
# ### 2. A smaller bubble
#
# In a pipeline of `world_size` stages, at most a tenth of the slots shall be bubble. How many
# microbatches does that take at least?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 小一点的气泡
#
# 一条流水线有 `world_size` 个阶段，要让气泡不超过全部时间段的十分之一，至少需要多少个微批？

# %% tags=["exercise"]
enough = ...  # a whole number, computed from world_size
enough

# %% tags=["solution"] check="enough"
enough = max(1, 9 * (world_size - 1))  # m / (m + W - 1) >= 9 / 10
enough

# %% [markdown] lang="en" tags=["exercise"]
# ### 3. The other way round
#
# Why is the first matrix, $\mathbf{W}_1^\top$, split by columns and not by rows? Try the rows: each of
# `world_size` ranks has a share of the features, that is some columns of `x` and the same columns
# of $\mathbf{W}_1$. Compute the hidden values of the first row of `x` from these parts. At which point
# do the ranks have to talk?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 3. 反过来切
#
# 为什么第一个矩阵 $\mathbf{W}_1^\top$ 按列切分，而不按行切分？试试按行：
# 让 `world_size` 个进程各持有一部分特征，也就是 `x` 的若干列，和 $\mathbf{W}_1$ 相同的那些列。
# 用这些部分求出 `x` 第一行的隐藏层的值。各进程在哪一步不得不通信？

# %% tags=["exercise"]
W1_parts = weights["W1"].tensor_split(world_size, dim=1)
x_parts = x[:1].tensor_split(world_size, dim=1)
hidden_values = ...  # (1, hidden), from the parts alone
hidden_values

# %% tags=["solution"] check="hidden_values"
W1_parts = weights["W1"].tensor_split(world_size, dim=1)
x_parts = x[:1].tensor_split(world_size, dim=1)
products = [part @ W.T for part, W in zip(x_parts, W1_parts, strict=True)]
hidden_values = sum(products).tanh()  # the sum is an all-reduce; tanh waits for it
hidden_values

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
