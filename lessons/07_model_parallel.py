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
# After this lesson you can train on several processes in both ways. You know which values they communicate
# and when they wait for each other, and you can say which way suits which network.

# %% [markdown] lang="zh"
# # 模型并行
#
# 数据并行切分的是批量。这一课（选学）切分网络：先在层与层之间切，再在层的内部切。
#
# 学完这一课，你会用这两种方式在多个进程上训练，知道它们要通信哪些值、什么时候互相等待，并能说出哪种方式适合哪种网络。

# %% tags=["parameters"]
world_size: int = 2  # processes that share the work
batch: int = 23  # samples in one batch, over all processes
features: int = 4  # elements of a sample
hidden: int = 8  # hidden units of the network
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
from parallel.toy import make_task

# %%
import inspect

import matplotlib.pyplot as plt

from parallel import launch, pipeline, tensor_parallel
from parallel.comparison import compare, print_table
from parallel.network import Network, Stage, gradients, row

torch.set_printoptions(threshold=30, edgeitems=2)  # keeps long tensors short

# %% stdout="one_rank"
if world_size == 1:
    print("There is one rank only: no communication is tested in this run.")

# %% [markdown] lang="en"
# The network, its weights and the samples are those of lesson 05:

# %% [markdown] lang="zh"
# 网络、权重和样本与第 05 课相同：

# %% tags=["setup"]
task = make_task(batch, features, hidden, seed, dtype, device)
weights, x, y = task  # of two layers; (batch, features); (batch, 1)

# %% [markdown] lang="en"
# ## Between the layers
#
# In **pipeline parallelism** (network partitioning), each rank keeps a **stage**, which is a few
# consecutive layers. In the forward pass, a rank receives activations from the previous rank and sends its
# own activations to the next. In the backward pass, it receives the gradient of the activations that it
# sent, and returns the gradient of the activations that it received. This is the chain rule, with messages
# between the stages.
#
# Two layers are too few for a pipeline. Therefore we take eight, with tanh after each: seven square
# matrices, and a last one with a single row.

# %% [markdown] lang="zh"
# ## 在层与层之间切分
#
# 在**流水线并行**（网络划分）中，每个进程持有一个**阶段**（stage），即相邻的若干层。前向传播时，进程从前一个进程接收激活值，再把自己的激活值发给后一个进程。反向传播时方向相反：进程从后一个进程接收自己发出的激活值的梯度，再把自己收到的激活值的梯度发回前一个进程。这就是链式法则，只是各阶段之间多了通信。
#
# 对流水线来说，两层太少了，所以换成八层，每层之后都接 tanh：前七个权重矩阵是方阵，最后一个只有一行。

# %%
print(inspect.getsource(Stage))

# %%
rng = np.random.default_rng(seed)
squares = rng.uniform(-0.4, 0.4, (7, features, features)) / features**0.5
last = rng.uniform(-0.5, 0.5, (1, features)) / features**0.5
layers = [*(0.8 * np.eye(features) + squares), last]
deep = {f"W{i}": torch.tensor(layer).to(x) for i, layer in enumerate(layers, 1)}

# %% [markdown] lang="en"
# On one device, the network is one stage with all layers. This is its loss. We keep its gradients, because
# we compare with them later:

# %% [markdown] lang="zh"
# 在一台设备上，整个网络就是一个阶段。下面是它的损失；它的梯度留到后面作比较：

# %% check="deep_loss"
single = Stage(deep)
loss = ((single(x) - y) ** 2).mean()
loss.backward()
right = row(gradients(single))  # W1, ..., W8
loss

# %% [markdown] lang="en"
# Each rank runs these two functions, one for the forward and one for the backward pass. `send` and `recv`
# pass a tensor from one rank to another, and each `recv` waits for its `send`.

# %% [markdown] lang="zh"
# 每个进程用下面两个函数完成前向传播和反向传播。`send` 和 `recv` 把张量从一个进程传给另一个进程，每个 `recv` 都要等待对应的 `send`。

# %%
print(inspect.getsource(pipeline.forward))
print(inspect.getsource(pipeline.backward))

# %% [markdown] lang="en"
# ## Microbatches
#
# If each stage waits for the whole batch, only one rank works at a time. Therefore the batch is divided
# into **microbatches**: while the second stage processes the first microbatch, the first stage processes
# the second. The gradients of the microbatches accumulate.
#
# The order of the work is called a **schedule**. **GPipe** runs all forward passes first, and then all
# backward passes. **1F1B** starts the backward passes as early as possible: after a few forward passes, one
# forward pass and one backward pass alternate.

# %% [markdown] lang="zh"
# ## 微批
#
# 如果每个阶段都等整个批量算完，同一时刻就只有一个进程在工作。所以把批量再切成**微批**（microbatch）：第二个阶段处理第一个微批时，第一个阶段就处理第二个微批。各微批的梯度累积起来。
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
# To see which ranks wait, we simulate a schedule in time slots. A pass can start once the pass that it
# depends on has finished in an earlier slot:

# %% [markdown] lang="zh"
# 为了看清哪些进程在等待，我们按时间段来模拟一种调度。一次前向或反向传播，要等它所依赖的那一次在更早的时间段里完成，才能开始：


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
# **Figure.** Two schedules. A row is a rank, a column is a time slot, and a number is a microbatch.
# Forward passes are blue and backward passes are orange; the figure assumes that both take equally
# long. In a white slot the rank waits; the white slots are the **bubble**.

# %% [markdown] lang="zh"
# **图**。两种调度。每行是一个进程，每列是一个时间段，数字是微批的编号；蓝色是前向传播，橙色是反向传播，这里假设两者用时相同。进程在白格里只能等待，这些白格就是**气泡**（bubble）。

# %% [markdown] lang="en"
# With $m$ microbatches on $W$ ranks, passes fill $\frac{m}{m + W - 1}$ of the slots, so more microbatches
# mean a smaller bubble. For each schedule, how many slots are filled, and how many slots are there?

# %% [markdown] lang="zh"
# 有 $W$ 个进程、$m$ 个微批时，前向和反向传播占全部格子的 $\frac{m}{m + W - 1}$，所以微批越多，气泡越小。每种调度各占多少格？一共有多少格？

# %% tags=["predict"] check="busy"
[
    (sum(work is not None for slot in table for work in slot), world_size * len(table))
    for table in schedules.values()
]

# %% [markdown] lang="en"
# The bubbles are equal, so what is the advantage of 1F1B? A rank keeps the activations of a
# microbatch from its forward pass to its backward pass. For each rank, what is the largest number
# of microbatches whose activations it keeps at the same time?

# %% [markdown] lang="zh"
# 气泡一样大，那么 1F1B 好在哪里？从一个微批的前向传播到它的反向传播，进程要一直保存它的激活值。每个进程最多同时保存几个微批的激活值？


# %% tags=["predict"] check="kept"
def most_kept(table, r):
    changes = [{"F": 1, "B": -1}[slot[r][0]] for slot in table if slot[r]]
    return int(np.cumsum(changes).max())


[[most_kept(table, r) for r in range(world_size)] for table in schedules.values()]

# %% [markdown] lang="en"
# GPipe keeps the activations of all microbatches. With 1F1B, a rank keeps those of at most one
# microbatch for each stage from its own to the last. Therefore large models are trained with 1F1B
# or with an improved version of it.
#
# Here is the whole training program, with GPipe. In `backward`, the derivative is divided by the
# number of samples in the whole batch, so microbatches of different sizes need no weighting.
# (`Found` stands for the outputs and gradients of the first step, and the weights after the last
# step.)

# %% [markdown] lang="zh"
# GPipe 要保存全部微批的激活值。用 1F1B 时，一个进程同时保存的激活值，最多来自 $k$ 个微批，$k$ 是从它自己的阶段到最后一个阶段（含两端）的阶段数。所以训练大模型用的是 1F1B，或由它改进而来的调度。
#
# 下面是完整的训练程序，用的是 GPipe。`backward` 里的导数除以整个批量的样本数，所以微批大小不等也不需要加权。（`Found` 表示第一步的输出和梯度，以及最后一步之后的权重。）

# %%
print(inspect.getsource(pipeline.my_stage))
print(inspect.getsource(pipeline.train_by_hand))

# %% [markdown] lang="en"
# After training for `steps` steps, for which layers does each rank have gradients?

# %% [markdown] lang="zh"
# 训练 `steps` 步之后，每个进程有哪些层的梯度？

# %% tags=["predict"] check="stages"
rest = pieces, steps, lr
stages = launch(pipeline.train_by_hand, world_size, deep, x, y, *rest, device=device)
[" ".join(found) for outputs, found, after in stages]

# %% [markdown] lang="en"
# Only the last rank has outputs. Here are its outputs in the first step, minus the targets:

# %% [markdown] lang="zh"
# 只有最后一个进程有输出。下面是第一步的输出减去目标值：

# %% check="pipeline_errors"
(stages[-1][0] - y.cpu()).flatten()  # (n,)

# %% [markdown] lang="en"
# The gradients have passed through every stage, from the last layer back to the first. Here are the
# gradients of the first step, and the weights after the last step:

# %% [markdown] lang="zh"
# 梯度从最后一层一路传回第一层，经过了每一个阶段。下面是第一步的梯度，以及最后一步之后的权重：

# %% check="pipeline"
staged = torch.cat([row(found) for outputs, found, after in stages])
compare("pipeline by hand", staged, right)
staged, torch.cat([row(after) for *_, after in stages])

# %% [markdown] lang="en"
# torch provides both schedules, as `ScheduleGPipe` and `Schedule1F1B`. They use our stages unchanged, and
# they do the sending and receiving:

# %% [markdown] lang="zh"
# torch 提供这两种调度：`ScheduleGPipe` 和 `Schedule1F1B`。它们直接使用我们的阶段，并负责发送和接收：

# %%
print(inspect.getsource(pipeline.train_by_torch))

# %% [markdown] lang="en"
# These schedules take the mean of the microbatches' gradients, which is right only if all microbatches have
# the same size. (Otherwise it is the plain mean of lesson 05 again.) Therefore we drop the samples
# that are left over when the batch is divided evenly. Again, the results are the gradients of the
# first step and the weights after the last step:

# %% [markdown] lang="zh"
# 这两种调度对各微批的梯度取平均，只有各微批一样大时才正确。（否则又是第 05 课里的普通平均。）所以如果不能平分，就要先舍去多出来的最后几个样本。结果同样是第一步的梯度，以及最后一步之后的权重：

# %% check="schedule"
even = batch - batch % pieces  # samples that the microbatches share evenly
part = x[:even], y[:even]
program = pipeline.train_by_torch
scheduled = launch(program, world_size, deep, *part, *rest, device=device)
staged = torch.cat([row(found) for outputs, found, after in scheduled])
staged, torch.cat([row(after) for *_, after in scheduled])

# %%
single = Stage(deep)
((single(part[0]) - part[1]) ** 2).mean().backward()
compare("pipeline by torch", staged, row(gradients(single)))

# %% [markdown] lang="en"
# ## Within a layer
#
# In **tensor parallelism**, each rank keeps some of the **hidden units** and processes all samples. Hidden
# unit $j$ belongs to column $j$ of $\mathbf{W}_1^\top$ and to row $j$ of $\mathbf{W}_2^\top$. Therefore
# the first matrix is split **column-wise** and the second **row-wise**:
#
# $$\tanh(\mathbf{x} \mathbf{W}_1^\top) \mathbf{W}_2^\top
# = \sum_{r=0}^{W-1} \tanh(\mathbf{x} \, (\mathbf{W}_1^\top)_r) \, (\mathbf{W}_2^\top)_r$$
#
# Between the two matrices nothing is communicated, because tanh acts on each hidden unit separately. One
# all-reduce at the end adds the partial outputs.

# %% [markdown] lang="zh"
# ## 在层的内部切分
#
# 在**张量并行**中，每个进程持有一部分**隐藏单元**，并处理所有样本。隐藏单元 $j$ 对应 $\mathbf{W}_1^\top$ 的第 $j$ 列和 $\mathbf{W}_2^\top$ 的第 $j$ 行。所以第一个矩阵**按列切分**，第二个**按行切分**：
#
# $$\tanh(\mathbf{x} \mathbf{W}_1^\top) \mathbf{W}_2^\top
# = \sum_{r=0}^{W-1} \tanh(\mathbf{x} \, (\mathbf{W}_1^\top)_r) \, (\mathbf{W}_2^\top)_r$$
#
# 两个矩阵之间不用通信，因为 tanh 对每个隐藏单元单独计算。最后做一次全归约，把各部分的输出相加。

# %% [markdown] lang="en"
# Now the backward pass. Because the output is a sum over ranks, its derivative with respect to each
# partial output is 1. Every rank has the whole output, computes the same derivative $\mathbf{d}$ of
# the loss, and propagates it back through its own slices without communication. (In a deeper
# network, the earlier layers need the gradient with respect to $\mathbf{x}$. It is a sum over ranks
# too, and takes another all-reduce.)

# %% [markdown] lang="zh"
# 反向传播时，因为输出是各进程的部分输出之和，它对每个部分输出的导数都是 1。每个进程都有完整的输出，都能算出损失对输出的同一个导数 $\mathbf{d}$，再让它经过自己的那一片反向传播，不用通信。（在更深的网络里，前面的层还需要 $\mathbf{x}$ 的梯度；它也要对各进程求和，所以要再做一次全归约。）

# %%
print(inspect.getsource(tensor_parallel.my_slice))
print(inspect.getsource(tensor_parallel.train_by_hand))

# %% [markdown] lang="en"
# The slices need not be equally large. What are the shapes of $\mathbf{W}_1$ and $\mathbf{W}_2$ on each
# rank?

# %% [markdown] lang="zh"
# 各片不必一样大。每个进程上 $\mathbf{W}_1$ 和 $\mathbf{W}_2$ 各是什么形状？

# %% tags=["predict"] check="slices"
program = tensor_parallel.train_by_hand
slices = launch(program, world_size, *task, steps, lr, device=device)
[[list(part.shape) for part in after.values()] for out, found, after in slices]

# %% [markdown] lang="en"
# Every rank has the whole output. Here it is in the first step, minus the targets, one column per rank:

# %% [markdown] lang="zh"
# 每个进程都有完整的输出。下面是第一步的输出减去目标值，每个进程一列：

# %% check="tensor_errors"
torch.cat([out - y.cpu() for out, found, after in slices], dim=1)  # (n, world_size)

# %% [markdown] lang="en"
# We put the slices together, to get the gradient of the first step and the weights after the last step:

# %% [markdown] lang="zh"
# 把各片拼起来，得到第一步的梯度，以及最后一步之后的权重：


# %% check="column_row"
def join(parts):
    W1 = torch.cat([part["W1"] for part in parts], dim=0)
    W2 = torch.cat([part["W2"] for part in parts], dim=1)
    return torch.cat([W1.flatten(), W2.flatten()])


outs, gradient_slices, weight_slices = zip(*slices)
join(gradient_slices), join(weight_slices)

# %%
network = Network(weights)
((network(x) - y) ** 2).mean().backward()
right = row(gradients(network))
compare("tensor by hand", join(gradient_slices), right)

# %% [markdown] lang="en"
# In torch, the network is written as for one device. A **plan** says how each layer is split, and
# `parallelize_module` applies the plan. The all-reduce does not appear in the program, because
# `RowwiseParallel` adds it:

# %% [markdown] lang="zh"
# 在 torch 里，网络的写法与只用一台设备时相同。**方案**（plan）规定每一层怎样切分，`parallelize_module` 按方案执行切分。程序里看不到全归约的代码，因为 `RowwiseParallel` 会自动加上它：

# %%
print(inspect.getsource(tensor_parallel.train_by_torch))

# %% [markdown] lang="en"
# `full_tensor` puts the slices together. These are the gradient of the first step and the weights after the
# last step, on the last rank:

# %% [markdown] lang="zh"
# `full_tensor` 把各片拼在一起。下面是最后一个进程上第一步的梯度，以及最后一步之后的权重：

# %% check="planned"
program = tensor_parallel.train_by_torch
out, found, after = launch(program, world_size, *task, steps, lr, device=device)[-1]
compare("tensor by torch", row(found), right)
row(found), row(after)

# %% [markdown] lang="en"
# ## Compared with one device
#
# This table lists the largest difference between each gradient and the gradient of one device, relative to
# the largest element:

# %% [markdown] lang="zh"
# ## 与一台设备比较
#
# 下表列出各梯度的相对误差，即它与一台设备的梯度之间的最大差值除以最大的元素：

# %%
print_table(dtype)

# %% [markdown] lang="en"
# ## What does each way communicate?
#
# Our networks are too small to answer this question. Take one block of a large language model: width
# $d = 4096$, $P = 12 d^2$ weights, a batch of $n = 16384$ tokens with $d$ activations each, 2 bytes
# per element, and $W = 8$ ranks with ring all-reduces. How many megabytes does a rank send in a step?
#
# | | a rank sends |
# |---|---|
# | DDP | the gradient: $2 \frac{W-1}{W} P$ elements per block |
# | FSDP | the weights twice, and the gradient: $3 \frac{W-1}{W} P$ elements per block |
# | pipeline | activations and their gradient: $2 n d$ elements per stage |
# | tensor | two all-reduces forward and two backward: $4 \cdot 2 \frac{W-1}{W} n d$ elements per block |

# %% [markdown] lang="zh"
# ## 各种方式的通信量
#
# 我们的网络太小，看不出差别。来看大语言模型中的一个模块（block，即模型中反复堆叠的一组层）：宽度 $d = 4096$，有 $P = 12 d^2$ 个权重，一个批量有 $n = 16384$ 个词元（token），每个词元有 $d$ 个激活值，每个元素 2 字节，$W = 8$ 个进程，全归约都用环。一个进程每步发送多少 MB？
#
# | | 一个进程发送 |
# |---|---|
# | DDP | 梯度：每个模块 $2 \frac{W-1}{W} P$ 个元素 |
# | FSDP | 两次权重，加上梯度：每个模块 $3 \frac{W-1}{W} P$ 个元素 |
# | 流水线 | 激活值及其梯度：每个阶段 $2 n d$ 个元素 |
# | 张量 | 前向两次全归约，反向两次：每个模块 $4 \cdot 2 \frac{W-1}{W} n d$ 个元素 |

# %% tags=["predict"] check="traffic"
d, n, ranks = 4096, 16384, 8
P, share = 12 * d**2, (ranks - 1) / ranks
elements = [2 * share * P, 3 * share * P, 2 * n * d, 4 * 2 * share * n * d]
[2 * each / 1e6 for each in elements]  # DDP, FSDP, pipeline, tensor

# %% [markdown] lang="en"
# - **Pipeline parallelism** communicates least, however many blocks a stage has, and only between neighbors,
#   so it is used between machines. Its price is the bubble.
# - **Tensor parallelism** communicates about as much as data parallelism for *each* block. The volume grows
#   with the number of tokens, and the ranks cannot compute meanwhile, so it needs the fast links within a
#   machine.
# - **DDP and FSDP** communicate more for more weights, but not for more tokens, and they overlap
#   communication with computation. They scale to the most devices.
#
# The largest models combine them: tensor parallelism within a machine, pipeline parallelism between machines,
# and data parallelism between groups of machines.

# %% [markdown] lang="zh"
# - **流水线并行**的通信量最少，与一个阶段里有多少个模块无关，而且只在相邻进程之间通信，所以用在机器之间。它的代价是气泡。
# - **张量并行**对*每个*模块的通信量都与数据并行相当，词元越多，通信量越大，而且通信时不能做别的计算。所以它需要机器内部的高速连接。
# - **DDP 和 FSDP** 的通信量随权重的个数增长，不随词元数增长，而且通信能与计算重叠。几种方式中，它们能扩展到的设备数最多。
#
# 最大的模型把它们结合起来：机器内部用张量并行，机器之间用流水线并行，各组机器之间再用数据并行。

# %% [markdown] lang="en"
# ## Exercises

# %% [markdown] lang="zh"
# ## 练习

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. A smaller bubble
#
# In a pipeline of `world_size` stages, the bubble should fill at most a tenth of the slots. What is
# the smallest number of microbatches that achieves this?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 小一点的气泡
#
# 一条流水线有 `world_size` 个阶段，气泡最多只能占全部格子的十分之一。至少需要多少个微批？

# %% tags=["exercise"]
enough = ...  # a whole number, computed from world_size
enough

# %% tags=["solution"] check="enough"
enough = max(1, 9 * (world_size - 1))  # m / (m + W - 1) >= 9 / 10
enough

# %% [markdown] lang="en" tags=["exercise"]
# ### 2. Pass it on
#
# Each rank has a number. Give each rank the sum of the numbers from rank 0 up to its own, passing the sum
# from rank to rank as in a pipeline. Use `dist.send(tensor, rank)` and `dist.recv(tensor, rank)`, and let
# each rank send at most one message. (`launch_cell` runs the function on several ranks.)

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 传下去
#
# 每个进程有一个数。让每个进程得到从进程 0 到它自己的各数之和，像流水线那样，把累加的结果从一个进程传给下一个进程。使用 `dist.send(tensor, rank)` 和 `dist.recv(tensor, rank)`，每个进程最多发送一次。（`launch_cell` 在多个进程上运行这个函数。）

# %% tags=["setup"]
numbers = torch.from_numpy(np.random.default_rng(seed).integers(1, 100, world_size))


# %% tags=["exercise"]
def running_sum(device, numbers):
    rank = dist.get_rank()
    total = torch.zeros_like(numbers[rank], device=device)
    ...  # receive, add, send
    return total


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


sums = torch.stack(launch_cell(running_sum, world_size, numbers, device=device))
sums

# %% [markdown] lang="en" tags=["exercise"]
# ### 3. The other way round
#
# Why is the first matrix, $\mathbf{W}_1^\top$, split by columns and not by rows? Try rows: each of
# `world_size` ranks has some columns of `x` and the matching rows of $\mathbf{W}_1^\top$, which are
# columns of $\mathbf{W}_1$. Compute the activations of the first sample from these parts. At which
# point do the ranks have to communicate?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 3. 反过来切
#
# 为什么第一个矩阵 $\mathbf{W}_1^\top$ 按列切分，而不按行切分？试试按行切分：`world_size` 个进程各有 `x` 的若干列，以及 $\mathbf{W}_1^\top$ 中对应的那些行，也就是 $\mathbf{W}_1$ 中对应的那些列。用这些部分求出第一个样本的激活值。各进程在哪一步必须通信？

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
# - `microbatches=1`, then `microbatches=8`: how large is the bubble?
# - `world_size=4`: what does 1F1B save, and on which ranks?
# - `world_size=4, hidden=9`: how many hidden units does each rank hold?
# - `world_size=8`: how many layers does each stage have?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `microbatches=1`，再换成 `microbatches=8`：气泡有多大？
# - `world_size=4`：1F1B 节省了什么？在哪些进程上？
# - `world_size=4, hidden=9`：各进程分别持有多少个隐藏单元？
# - `world_size=8`：每个阶段有几层？
