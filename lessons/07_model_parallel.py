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
#       microbatches: {min: 1, max: 8}
#       steps: {min: 1, max: 20}
#       lr: {min: 0.0001, max: 1}
#       seed: {min: 0, max: 4294967295}
#       dtype: {choices: [float32, float64]}
# ---

# %% [markdown] lang="en"
# # Model parallelism
#
# Data parallelism divides the batch. This lesson, which is optional, divides the network: first between
# its layers, then within them.
#
# After this lesson you have trained on several processes in both ways. You know which values they
# communicate and when they wait for each other, and you can say which way suits which network.

# %% [markdown] lang="zh"
# # 模型并行
#
# 数据并行切分的是批量。这一课（选学）切分网络：先在层与层之间切，再在层的内部切。
#
# 学完这一课，你用这两种方式在多个进程上训练过，知道它们要通信哪些值、什么时候互相等待，并能说出哪种方式适合哪种网络。

# %% tags=["parameters"]
world_size: int = 2  # processes that share the work
batch: int = 23  # samples in one batch, over all processes
features: int = 8  # elements of a sample
hidden: int = 16  # hidden units of the network
microbatches: int = 4  # pieces of a batch in a pipeline
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

kind = getattr(torch, dtype)

# %%
import inspect

import matplotlib.pyplot as plt

from parallel import launch, pipeline, tensor_parallel
from parallel.network import Network, Stage, gradients, row

torch.set_printoptions(threshold=40, edgeitems=2)  # a long tensor shall not fill a page

# %% stdout="one_rank"
if world_size == 1:
    print("There is one rank only: no communication is tested in this run.")

# %% [markdown] lang="en"
# Weights and samples are drawn as in lesson 05:

# %% [markdown] lang="zh"
# 权重和样本的产生与第 05 课相同：


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
task = (weights, x, y)

# %% [markdown] lang="en"
# ## Between the layers
#
# In **pipeline parallelism** (network partitioning), each rank keeps a **stage**, some consecutive
# layers. Forward, it receives activations from the previous rank and sends its own to the next.
# Backward, it receives the gradient of the activations that it sent, and returns the gradient of those
# that it received. This is the chain rule, with a message between the stages.
#
# Two layers are too few for that. Therefore we take eight, with tanh after each: seven square matrices
# and a last one with a single row.

# %% [markdown] lang="zh"
# ## 在层与层之间切分
#
# 在**流水线并行**（网络划分）中，每个进程持有一个**阶段**（stage），即相邻的若干层。前向传播时，它从前一个进程接收激活值，再把自己的激活值发给后一个进程。反向传播时，它先收到“自己发出的激活值”的梯度，再发回“自己收到的激活值”的梯度。这就是链式法则，只是各阶段之间多了通信。
#
# 两层太少了。我们换一个八层的网络，每层之后都接 tanh：前七层是方阵，最后一层只有一行。

# %%
print(inspect.getsource(Stage))

# %%
rng = np.random.default_rng(seed)
squares = rng.uniform(-0.4, 0.4, (7, features, features)) / features**0.5
last = rng.uniform(-0.5, 0.5, (1, features)) / features**0.5
layers = [*(0.8 * np.eye(features) + squares), last]
deep = {f"W{i}": tensor(layer) for i, layer in enumerate(layers, 1)}

# %% [markdown] lang="en"
# On one device, the network is one stage with all layers. Its loss, and the right gradients, with which
# we compare later:

# %% [markdown] lang="zh"
# 在一台设备上，它就是包含所有层的一个阶段。下面是它的损失；正确的梯度留作后面比较：

# %% check="deep_loss"
single = Stage(deep)
loss = ((single(x) - y) ** 2).mean()
loss

# %%
loss.backward()
right = row(gradients(single))  # W1, ..., W8
compared = {}  # what was compared -> its largest difference from one device


def compare(name, found, expected):
    difference = (found.to(device) - expected).abs().max() / expected.abs().max()
    compared[name] = float(difference)
    print(f"{name}: {difference:.1e} from one device")


# %% [markdown] lang="en"
# This is what one rank does, forward and backward. `send` and `recv` are messages from one rank to
# another; each `recv` waits for its `send`.

# %% [markdown] lang="zh"
# 下面是一个进程在前向传播和反向传播中要做的事。`send` 和 `recv` 是两个进程之间的通信：每个 `recv` 都要等到对应的 `send`。

# %%
print(inspect.getsource(pipeline.forward))
print(inspect.getsource(pipeline.backward))

# %% [markdown] lang="en"
# ## Microbatches
#
# If a stage waits for the whole batch, only one rank works at a time. Therefore the batch is divided
# into **microbatches**: while the second stage processes the first microbatch, the first stage
# processes the second. Their gradients accumulate, as always in `backward()`.
#
# The order of the work is a **schedule**. **GPipe** runs all forward passes first, then all backward
# passes. **1F1B** starts backward passes as early as possible: after a few forward passes, one forward
# and one backward pass alternate.

# %% [markdown] lang="zh"
# ## 微批
#
# 如果每个阶段都等整个批量算完，同一时刻就只有一个进程在工作。所以把批量再切成**微批**（microbatch）：第二个阶段处理第一个微批时，第一个阶段处理第二个微批。各微批的梯度由 `backward()` 累积起来，与往常一样。
#
# 工作的次序叫作**调度**（schedule）。**GPipe** 先做完所有前向传播，再做所有反向传播。**1F1B** 尽早开始反向传播：先做几次前向传播，然后一次前向、一次反向交替进行。

# %%
pieces = min(microbatches, batch)  # a microbatch has at least one sample


def gpipe(r):  # what rank r does, in its order
    return [("F", m) for m in range(pieces)] + [("B", m) for m in range(pieces)]


def one_f_one_b(r):
    early = min(pieces, world_size - 1 - r)  # forward passes
    forward, backward = gpipe(r)[:pieces], gpipe(r)[pieces:]
    pairs = zip(forward[early:], backward)  # as many as there are forward passes left
    alternating = [work for pair in pairs for work in pair]
    return forward[:early] + alternating + backward[pieces - early :]


# %% [markdown] lang="en"
# To see who waits, we simulate a schedule in time slots. Work can start when the rank that it depends
# on has finished in an earlier slot:

# %% [markdown] lang="zh"
# 为了看清谁在等待，我们按时间段来模拟一个调度。一项工作所依赖的进程在更早的时间段里完成之后，这项工作才能开始：


# %%
def simulate(order):
    waiting, done, table = [order(r) for r in range(world_size)], set(), []

    def can_start(r, work):
        before = (r - 1) if work[0] == "F" else (r + 1)
        return not 0 <= before < world_size or (before, *work) in done

    while any(waiting):
        slot = [None] * world_size
        for r, works in enumerate(waiting):
            if works and can_start(r, works[0]):
                slot[r] = works[0]
        for r, work in enumerate(slot):
            if work:
                done.add((r, *waiting[r].pop(0)))
        table.append(slot)
    return table  # time slot, rank -> ("F" or "B", microbatch) or None


schedules = {"GPipe": simulate(gpipe), "1F1B": simulate(one_f_one_b)}

# %% tags=["figure"]
BLUE, ORANGE, LINE, RED = "#a9c6de", "#f3c892", "#1d3557", "#c1121f"
size = (7, 1 + 0.5 * world_size)
figure, panels = plt.subplots(2, 1, figsize=size, layout="constrained", sharex=True)
for panel, (name, table) in zip(panels, schedules.items(), strict=True):
    for slot, works in enumerate(table):
        for r, work in enumerate(works):
            color = {None: "none", "F": BLUE, "B": ORANGE}[work and work[0]]
            box = plt.Rectangle((slot - 0.5, r - 0.5), 1, 1, fc=color, ec=LINE, lw=0.8)
            panel.add_patch(box)
            label = "" if work is None else work[1]
            panel.text(slot, r, label, color=LINE, ha="center", va="center")
    panel.set(xlim=(-0.6, len(table) - 0.4), ylim=(world_size - 0.4, -0.6))
    panel.set(ylabel="rank", yticks=range(world_size), xticks=[])
    panel.set_title(name, loc="left", fontsize=9)
    panel.spines[:].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** Two schedules. A row is a rank, a column a time slot, a number a microbatch; forward is
# blue, backward is orange, as if both took equally long. In the white slots a rank waits: this is the
# **bubble**.

# %% [markdown] lang="zh"
# **图**。两种调度。每行是一个进程，每列是一个时间段，数字是微批的编号；蓝色是前向传播，橙色是反向传播，这里假设两者用时相同。在白格里进程只能等待，这就是**气泡**（bubble）。

# %% [markdown] lang="en"
# For each schedule, how many slots have work, and how many are there? With $m$ microbatches on $W$
# ranks, the share with work is $\frac{m}{m + W - 1}$, so more microbatches mean a smaller bubble.

# %% [markdown] lang="zh"
# 每种调度各有多少个时间段有工作？一共有多少个？$W$ 个进程、$m$ 个微批时，有工作的占 $\frac{m}{m + W - 1}$，所以微批越多，气泡越小。

# %% tags=["predict"] check="busy"
[
    (sum(work is not None for slot in table for work in slot), world_size * len(table))
    for table in schedules.values()
]

# %% [markdown] lang="en"
# The bubble is the same. Then what is 1F1B good for? A rank keeps the activations of a microbatch from
# its forward pass to its backward pass. How many microbatches does each rank keep at most?

# %% [markdown] lang="zh"
# 气泡一样大，那么 1F1B 好在哪里？从一个微批的前向传播到它的反向传播，进程要一直保存它的激活值。每个进程最多同时保存几个微批的激活值？


# %% tags=["predict"] check="kept"
def most_kept(table, r):
    changes = [{"F": 1, "B": -1}[slot[r][0]] for slot in table if slot[r]]
    return int(np.cumsum(changes).max())


[[most_kept(table, r) for r in range(world_size)] for table in schedules.values()]

# %% [markdown] lang="en"
# With GPipe all of them; with 1F1B at most as many as there are stages from this one on. Therefore
# large models are trained with 1F1B or a schedule that improves on it.
#
# Here is the whole training program, with GPipe. In `backward`, the derivative is divided by the number
# of samples in the whole batch, so microbatches of different sizes need no weights. (`Found` stands for
# outputs, gradients, and the weights after the last step.)

# %% [markdown] lang="zh"
# GPipe 要保存全部微批；1F1B 要保存的微批数，不超过从本阶段到最后一个阶段的阶段数。所以训练大模型用的是 1F1B，或由它改进而来的调度。
#
# 下面是完整的训练程序，用的是 GPipe。`backward` 里的导数除以的是整个批量的样本数，所以微批大小不等也不需要加权。（`Found` 表示输出、梯度和最后一步之后的权重。）

# %%
print(inspect.getsource(pipeline.my_stage))
print(inspect.getsource(pipeline.train_by_hand))

# %% [markdown] lang="en"
# First one step. For which layers does each rank have gradients?

# %% [markdown] lang="zh"
# 先训练一步。每个进程求得哪些层的梯度？

# %% check="stages"
program, deep_task = pipeline.train_by_hand, (deep, x, y, pieces)
stages = launch(program, world_size, *deep_task, 1, lr, device=device)
[" ".join(found) for outputs, found, after in stages]

# %% [markdown] lang="en"
# Only the last rank has outputs. Here they are, minus the targets:

# %% [markdown] lang="zh"
# 只有最后一个进程有输出。下面是输出减去目标值：

# %% check="pipeline_errors"
(stages[-1][0] - y.cpu()).flatten()  # (n,)

# %% [markdown] lang="en"
# The gradients passed every stage, from the last layer back to the first. Here they are, and then the
# weights after `steps` steps:

# %% [markdown] lang="zh"
# 梯度从最后一层一路传回第一层，经过了每一个阶段。下面是这些梯度，以及 `steps` 步之后的权重：

# %% check="stage_gradients"
staged = torch.cat([row(found) for outputs, found, after in stages])
staged

# %%
compare("pipeline by hand", staged, right)

# %% check="pipeline_parameters"
stages = launch(program, world_size, *deep_task, steps, lr, device=device)
torch.cat([row(after) for outputs, found, after in stages])

# %% [markdown] lang="en"
# torch has both schedules, as `ScheduleGPipe` and `Schedule1F1B`. They use our stages as they are, and
# do the sending and receiving:

# %% [markdown] lang="zh"
# torch 里有这两种调度：`ScheduleGPipe` 和 `Schedule1F1B`。它们直接使用我们的阶段，发送和接收都由它们完成：

# %%
print(inspect.getsource(pipeline.train_by_torch))

# %% [markdown] lang="en"
# This schedule takes the mean of the microbatches' gradients, which is right only if the microbatches
# have the same size. It is the mistake of the plain mean again. Therefore we drop the last samples:

# %% [markdown] lang="zh"
# 这种调度对各微批的梯度取平均，只有各微批一样大时才正确：这与普通平均的错误是同一回事。所以要先舍去最后几个样本：

# %%
even = batch - batch % pieces  # samples that the microbatches share evenly
print(f"{even} of {batch} samples, {even // pieces} in each of {pieces} microbatches")

# %% [markdown] lang="en"
# The gradients of one step, and the weights after `steps` steps:

# %% [markdown] lang="zh"
# 一步的梯度，以及 `steps` 步之后的权重：

# %% check="schedule_gradients"
program, deep_task = pipeline.train_by_torch, (deep, x[:even], y[:even], pieces)
scheduled = launch(program, world_size, *deep_task, 1, lr, device=device)
found = torch.cat([row(found) for outputs, found, after in scheduled])
found

# %%
single = Stage(deep)
((single(x[:even]) - y[:even]) ** 2).mean().backward()
compare("pipeline by torch", found, row(gradients(single)))

# %% check="schedule_parameters"
scheduled = launch(program, world_size, *deep_task, steps, lr, device=device)
torch.cat([row(after) for outputs, found, after in scheduled])

# %% [markdown] lang="en"
# ## Within a layer
#
# In **tensor parallelism**, each rank keeps a share of the **hidden units** and processes all samples.
# Hidden unit $j$ is column $j$ of $\mathbf{W}_1^\top$ and row $j$ of $\mathbf{W}_2^\top$. Therefore the
# first matrix is split **column-wise** and the second **row-wise**:
#
# $$\tanh(\mathbf{x} \mathbf{W}_1^\top) \mathbf{W}_2^\top
# = \sum_{r=0}^{W-1} \tanh(\mathbf{x} \, (\mathbf{W}_1^\top)_r) \, (\mathbf{W}_2^\top)_r$$
#
# Between the two matrices nothing is communicated, because tanh acts on each hidden unit alone. At the
# end there is one all-reduce.

# %% [markdown] lang="zh"
# ## 在层的内部切分
#
# 在**张量并行**中，每个进程持有一部分**隐藏单元**，并处理所有样本。隐藏单元 $j$ 对应 $\mathbf{W}_1^\top$ 的第 $j$ 列和 $\mathbf{W}_2^\top$ 的第 $j$ 行。所以第一个矩阵**按列切分**，第二个**按行切分**：
#
# $$\tanh(\mathbf{x} \mathbf{W}_1^\top) \mathbf{W}_2^\top
# = \sum_{r=0}^{W-1} \tanh(\mathbf{x} \, (\mathbf{W}_1^\top)_r) \, (\mathbf{W}_2^\top)_r$$
#
# 两个矩阵之间不用通信，因为 tanh 对每个隐藏单元单独计算。最后只要一次全归约。

# %% [markdown] lang="en"
# Backward, the output is a sum over ranks, so its derivative with respect to each part is 1. Every rank
# has the whole output, computes the same $\mathbf{d}$, and passes it into its own part without
# communication. (In a deeper network, the layers before need the gradient of $\mathbf{x}$, which is a
# sum over ranks too and takes another all-reduce.)

# %% [markdown] lang="zh"
# 反向传播时，输出是各进程的部分和相加，对每一部分的导数都是 1。每个进程都有完整的输出，算出同一个 $\mathbf{d}$，传回自己的那一部分，不用通信。（在更深的网络里，前面的层还需要 $\mathbf{x}$ 的梯度；它也是各进程之和，要再做一次全归约。）

# %%
print(inspect.getsource(tensor_parallel.my_slice))
print(inspect.getsource(tensor_parallel.train_by_hand))

# %% [markdown] lang="en"
# One step. The slices need not be equally large. These are their shapes, $\mathbf{W}_1$ and
# $\mathbf{W}_2$ on each rank:

# %% [markdown] lang="zh"
# 训练一步。各片不必一样大。下面是每个进程上 $\mathbf{W}_1$ 和 $\mathbf{W}_2$ 的形状：

# %% tags=["predict"] check="slices"
program = tensor_parallel.train_by_hand
slices = launch(program, world_size, *task, 1, lr, device=device)
[[list(part.shape) for part in after.values()] for out, found, after in slices]

# %% [markdown] lang="en"
# The outputs minus the targets, one column per rank:

# %% [markdown] lang="zh"
# 输出减去目标值，每个进程占一列：

# %% check="tensor_errors"
torch.cat([out - y.cpu() for out, found, after in slices], dim=1)  # (n, world_size)

# %% [markdown] lang="en"
# The slices put together: the gradient of one step, and the weights after `steps` steps.

# %% [markdown] lang="zh"
# 把各片拼起来：一步的梯度，以及 `steps` 步之后的权重。

# %% check="column_row"
joined = {
    "W1": torch.cat([found["W1"] for out, found, after in slices], dim=0),
    "W2": torch.cat([found["W2"] for out, found, after in slices], dim=1),
}
joined

# %%
network = Network(weights)
((network(x) - y) ** 2).mean().backward()
right = row(gradients(network))
compare("tensor by hand", row(joined), right)

# %% check="tensor_parameters"
slices = launch(program, world_size, *task, steps, lr, device=device)
whole = {
    "W1": torch.cat([after["W1"] for out, found, after in slices], dim=0),
    "W2": torch.cat([after["W2"] for out, found, after in slices], dim=1),
}
row(whole)

# %% [markdown] lang="en"
# In torch the network is written as for one device. A **plan** says how each layer is split, and
# `parallelize_module` applies it. The all-reduce is hidden:

# %% [markdown] lang="zh"
# 在 torch 里，网络按一台设备来写。用一个**方案**（plan）说明每一层怎样切分，再由 `parallelize_module` 执行。程序里看不到全归约：

# %%
print(inspect.getsource(tensor_parallel.train_by_torch))

# %% [markdown] lang="en"
# The gradients of one step, and the weights after `steps` steps, on the last rank. `full_tensor` has put
# the slices together.

# %% [markdown] lang="zh"
# 最后一个进程上，一步的梯度，以及 `steps` 步之后的权重；各片已由 `full_tensor` 拼好。

# %% check="planned_gradients"
program = tensor_parallel.train_by_torch
planned = launch(program, world_size, *task, 1, lr, device=device)
row(planned[-1][1])

# %%
compare("tensor by torch", row(planned[-1][1]), right)

# %% check="planned_parameters"
planned = launch(program, world_size, *task, steps, lr, device=device)
row(planned[-1][2])

# %% [markdown] lang="en"
# ## Compared with one device
#
# The largest difference of each gradient from that of one device, relative to its largest element, in
# one table:

# %% [markdown] lang="zh"
# ## 与一台设备比较
#
# 把各梯度与一台设备的最大差别列在一张表里，以梯度的最大元素为单位：

# %%
eps = torch.finfo(kind).eps
print(f"{dtype}, {world_size} ranks, {batch} samples, eps = {eps:.1e}\n")
for name, difference in compared.items():
    print(f"{name:20} {difference:.1e}")

# %% [markdown] lang="en"
# ## Which way costs what?
#
# Our networks are too small to judge by. Take one block of a large language model: width $d = 4096$,
# $P = 12 d^2$ weights, a batch of $n = 16384$ tokens, 2 bytes per element, and $W = 8$ ranks with ring
# all-reduces. How many megabytes does a rank send in a step?
#
# | | a rank sends |
# |---|---|
# | DDP | the gradient: $2 \frac{W-1}{W} P$ elements per block |
# | FSDP | the weights twice, the gradient: $3 \frac{W-1}{W} P$ per block |
# | pipeline | activations and their gradient: $2 n d$ per stage |
# | tensor | two all-reduces forward, two backward: $4 \cdot 2 \frac{W-1}{W} n d$ per block |

# %% [markdown] lang="zh"
# ## 各种方式的代价
#
# 我们的网络太小，不足以判断。来看大语言模型中的一个模块：宽度 $d = 4096$，有 $P = 12 d^2$ 个权重，一个批量有 $n = 16384$ 个词元（token），每个元素 2 字节，$W = 8$ 个进程，全归约都用环。一个进程每步发送多少兆字节？
#
# | | 一个进程发送 |
# |---|---|
# | DDP | 梯度：每个模块 $2 \frac{W-1}{W} P$ 个元素 |
# | FSDP | 两次权重，加上梯度：每个模块 $3 \frac{W-1}{W} P$ |
# | 流水线 | 激活值及其梯度：每个阶段 $2 n d$ |
# | 张量 | 前向两次全归约，反向两次：每个模块 $4 \cdot 2 \frac{W-1}{W} n d$ |

# %% tags=["predict"] check="traffic"
d, n, ranks = 4096, 16384, 8
P, share = 12 * d**2, (ranks - 1) / ranks
elements = [2 * share * P, 3 * share * P, 2 * n * d, 4 * 2 * share * n * d]
[2 * each / 1e6 for each in elements]  # DDP, FSDP, pipeline, tensor

# %% [markdown] lang="en"
# - **Pipeline** sends least, and only between neighbours, for any number of blocks in a stage. Its
#   price is the bubble. It is used between machines.
# - **Tensor** sends about as much as data parallelism for *each* block, more with each token, and
#   nothing can be computed meanwhile. It needs the fast links within a machine.
# - **DDP and FSDP** send more with each weight but not with each token, and overlap it with
#   computation. They scale to the largest numbers of devices.
#
# The largest models combine them: tensor within a machine, pipeline between machines, data around both.

# %% [markdown] lang="zh"
# - **流水线**发送得最少，只在相邻进程之间，而且与一个阶段里有多少个模块无关；它的代价是气泡。它用在机器之间。
# - **张量并行**对*每个*模块发送的量与数据并行相当，词元越多发送得越多，而且通信时不能做别的计算。它需要机器内部的高速连接。
# - **DDP 和 FSDP** 的通信量随权重增多，不随词元增多，还能与计算重叠。它们可以扩展到最多的设备。
#
# 最大的模型把它们结合起来：机器内部用张量并行，机器之间用流水线并行，外面再套一层数据并行。

# %% [markdown] lang="en"
# ## Exercises

# %% [markdown] lang="zh"
# ## 练习

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. A smaller bubble
#
# In a pipeline of `world_size` stages, at most a tenth of the slots may be bubble. How many
# microbatches does that take at least?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 小一点的气泡
#
# 一条流水线有 `world_size` 个阶段，气泡最多只能占全部时间段的十分之一。至少需要多少个微批？

# %% tags=["exercise"]
enough = ...  # a whole number, computed from world_size
enough

# %% tags=["solution"] check="enough"
enough = max(1, 9 * (world_size - 1))  # m / (m + W - 1) >= 9 / 10
enough

# %% [markdown] lang="en" tags=["exercise"]
# ### 2. Pass it on
#
# Each rank has a number. Every rank is to have the sum of the numbers from rank 0 up to its own, like
# the stages of a pipeline. Use `dist.send(tensor, rank)` and `dist.recv(tensor, rank)`, and let each
# rank send at most one message. (`launch_cell` runs the function on several ranks.)

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 传下去
#
# 每个进程有一个数。像流水线的各阶段那样，让每个进程得到从进程 0 到它自己的各数之和。使用 `dist.send(tensor, rank)` 和 `dist.recv(tensor, rank)`，每个进程最多发送一次。（`launch_cell` 在多个进程上运行这个函数。）


# %% tags=["exercise"]
def running_sum(device, numbers):
    rank = dist.get_rank()
    total = torch.zeros_like(numbers[rank], device=device)
    ...  # receive, add, send
    return total


numbers = tensor(np.random.default_rng(seed).integers(1, 100, world_size))
sums = torch.stack(launch_cell(running_sum, world_size, numbers, device=device))
sums


# %% tags=["solution"] check="sums"
def running_sum(device, numbers):
    rank = dist.get_rank()
    total = torch.zeros_like(numbers[rank], device=device)
    if rank > 0:
        dist.recv(total, rank - 1)
    total += numbers[rank].to(device)
    if rank < dist.get_world_size() - 1:
        dist.send(total, rank + 1)
    return total


numbers = tensor(np.random.default_rng(seed).integers(1, 100, world_size))
sums = torch.stack(launch_cell(running_sum, world_size, numbers, device=device))
sums

# %% [markdown] lang="en" tags=["exercise"]
# ### 3. The other way round
#
# Why is the first matrix, $\mathbf{W}_1^\top$, split by columns and not by rows? Try rows: each of
# `world_size` ranks has a share of the features, that is some columns of `x` and the same columns of
# $\mathbf{W}_1$. Compute the activations of the first sample from these parts. At which point do the
# ranks have to communicate?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 3. 反过来切
#
# 为什么第一个矩阵 $\mathbf{W}_1^\top$ 按列切分，而不按行切分？试试按行：让 `world_size` 个进程各持有一部分特征，也就是 `x` 的若干列，以及 $\mathbf{W}_1$ 中相同的那些列。用这些部分求出第一个样本的激活值。各进程在哪一步必须通信？

# %% tags=["exercise"]
W1_parts = weights["W1"].tensor_split(world_size, dim=1)
x_parts = x[:1].tensor_split(world_size, dim=1)
activations = ...  # (1, hidden), from the parts alone
activations

# %% tags=["solution"] check="activations"
W1_parts = weights["W1"].tensor_split(world_size, dim=1)
x_parts = x[:1].tensor_split(world_size, dim=1)
products = [part @ W.T for part, W in zip(x_parts, W1_parts, strict=True)]
activations = sum(products).tanh()  # tanh has to wait for the sum
activations

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - `microbatches=1`: how large is the bubble now? And with 8?
# - `world_size=4`: what does 1F1B save, and on which ranks?
# - `world_size=4, hidden=9`: which rank holds how many hidden units?
# - `world_size=8`: how many layers does each stage have?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `microbatches=1`：气泡有多大？换成 8 呢？
# - `world_size=4`：1F1B 节省了什么？在哪些进程上？
# - `world_size=4, hidden=9`：各进程分别持有多少个隐藏单元？
# - `world_size=8`：每个阶段有几层？
