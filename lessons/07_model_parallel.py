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
# # Model parallelism
#
# Data parallelism divides the batch. This lesson divides the network: first between its layers,
# then within them.
#
# After this lesson you have trained on several processes in both ways, you know which values they
# communicate and when they wait for each other, and you can say which way suits which network.

# %% [markdown] lang="zh"
# # 模型并行
#
# 数据并行切分的是批量。这一课切分网络：先在层与层之间切，再在层的内部切。
#
# 学完这一课，你用这两种方式在多个进程上训练过，知道它们要通信哪些值、在什么时候互相等待，
# 并能说出哪种方式适合哪种网络。

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

import matplotlib.pyplot as plt
import numpy as np
import torch

from parallel import launch, pipeline, tensor_parallel
from parallel.network import Stage, row

torch.set_printoptions(threshold=40, edgeitems=2)  # a long tensor shall not fill a page
BLUE, ORANGE, LINE, RED = "#a9c6de", "#f3c892", "#1d3557", "#c1121f"

# %%
if world_size == 1:
    print("There is one rank only: no communication is tested in this run.")


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
# ## Exercises
#
# Each can be done in one process: what the ranks would do, one after the other.

# %% [markdown] lang="zh"
# ## 练习
#
# 每道题都可以在一个进程里完成：各进程要做的事，一件一件地做。

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. A smaller bubble
#
# In a pipeline of `world_size` stages, at most a tenth of the slots shall be bubble. How many
# microbatches does that take at least?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 小一点的气泡
#
# 一条流水线有 `world_size` 个阶段，要让气泡不超过全部时间段的十分之一，至少需要多少个微批？

# %% tags=["exercise"]
enough = ...  # a whole number, computed from world_size
enough

# %% tags=["solution"] check="enough"
enough = max(1, 9 * (world_size - 1))  # m / (m + W - 1) >= 9 / 10
enough

# %% [markdown] lang="en" tags=["exercise"]
# ### 2. The other way round
#
# Why is the first matrix, $\mathbf{W}_1^\top$, split by columns and not by rows? Try the rows: each of
# `world_size` ranks has a share of the features, that is some columns of `x` and the same columns
# of $\mathbf{W}_1$. Compute the hidden values of the first row of `x` from these parts. At which point
# do the ranks have to talk?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 反过来切
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
# - `microbatches=1`: how large is the bubble now? And with 8?
# - `world_size=4, hidden=9`: which rank holds how many hidden units?
# - `world_size=8`: how many layers does each stage have?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `microbatches=1`：气泡有多大？换成 8 呢？
# - `world_size=4, hidden=9`：各进程分别持有多少个隐藏单元？
# - `world_size=8`：每个阶段有几层？
