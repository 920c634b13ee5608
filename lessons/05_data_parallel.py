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
# Training takes a day, and three of your four GPUs are idle. Or the model does not even fit on one
# GPU. In both cases, several devices have to share the work.
#
# After this lesson you know three ways to share the work of training. You can train on several
# processes in the most common way, data parallelism, and you can prove that together they compute
# what one device computes. You also have a training script that you can use in your own projects.

# %% [markdown] lang="zh"
# # 数据并行
#
# 训练要跑一整天，四块 GPU 却有三块闲着；或者，模型大得连一块 GPU 都放不下。这两种情形，都需要多台设备来分担工作。
#
# 学完这一课，你将了解三种分工方式，会用其中最常用的一种（数据并行）在多个进程上训练，并能证明它们合起来算出的就是一台设备算出的结果。你还会得到一个可以用在自己项目里的训练脚本。

# %% tags=["parameters"]
world_size: int = 2  # processes that share the work
batch: int = 23  # samples in one batch, over all processes
features: int = 4  # elements of a sample
hidden: int = 8  # hidden units of the network
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
from parallel.toy import make_task

# %%
import inspect
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
from torch.utils.data import DistributedSampler

from parallel import data_parallel, launch, timing, train
from parallel.comparison import compare, print_table
from parallel.drawings import draw_buckets, draw_gradients, draw_losses
from parallel.drawings import draw_step, draw_three_ways
from parallel.network import Network, gradients, parameters, row
from parallel.torchrun import torchrun

torch.set_printoptions(threshold=30, edgeitems=2)  # keeps long tensors short

# %% [markdown] lang="en"
# ## Faster, or larger
#
# Deep learning grew with computing power, and GPUs made today's networks possible. Several GPUs help
# in two ways.
#
# **Faster.** Four devices can process four times as many samples per second, as long as they do not
# wait for each other. The measure is **throughput**, in samples per second.
#
# **Larger.** In float32, a weight takes 4 bytes and its gradient another 4, and the optimizer Adam
# keeps two averages for it: 16 bytes in all. For 7 billion weights that is 112 GB, before the first
# sample is loaded. The measure is **memory**, in bytes per device.

# %% [markdown] lang="zh"
# ## 更快，或者更大
#
# 深度学习的发展离不开算力，正是 GPU 让今天的网络成为可能。多块 GPU 有两种用处。
#
# **更快**：只要不互相等待，四台设备每秒能处理四倍的样本。衡量指标是**吞吐量**（throughput），即每秒处理的样本数。
#
# **更大**：在 float32 下，一个权重占 4 字节，它的梯度再占 4 字节，Adam 优化器还要为它保存两个平均值，一共 16 字节。70 亿个权重就要 112 GB，这还没有算上任何样本。衡量指标是**内存**（在 GPU 上就是显存），即每台设备占用的字节数。

# %% [markdown] lang="en"
# ## Three ways to share the work
#
# Take a network of two layers. A batch $\mathbf{x}$ is multiplied by $\mathbf{W}_1^\top$; tanh gives
# the activations $\mathbf{h}$, which are multiplied by $\mathbf{W}_2^\top$. You have a blue device and
# an orange one. How would you divide the work? Think of one way before you look at the figure.

# %% [markdown] lang="zh"
# ## 三种分工方式
#
# 来看一个两层的网络：一个批量的数据 $\mathbf{x}$ 先乘以 $\mathbf{W}_1^\top$，经过 tanh 得到激活值 $\mathbf{h}$，再乘以 $\mathbf{W}_2^\top$。你有蓝、橙两台设备，会怎样分工？先自己想一种，再看下图。

# %% tags=["figure"]
draw_three_ways()
plt.show()

# %% [markdown] lang="en"
# **Figure.** Two layers on two devices. Two sheets mean that each device has a copy, and red marks what
# the devices communicate. (a) divides the network between its layers, (b) divides each layer, and (c)
# divides the batch and copies the network.

# %% [markdown] lang="zh"
# **图**。两层网络放在两台设备上。两个方块叠在一起，表示每台设备各有一份，红色是设备之间通信的内容。(a) 在层与层之间切分网络；(b) 切分每一层；(c) 切分批量，复制网络。

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
# | (a) | 网络划分（层间划分，今称**流水线并行**） | 一部分层 | 层与层之间的激活值 |
# | (b) | 层内划分（今称**张量并行**） | 每一层的一片 | 层内部的部分和 |
# | (c) | **数据并行** | 整个网络、一部分样本 | 梯度，每步一次 |
#
# (a) 和 (b) 切分的是模型，合称**模型并行**。
#
# > **如果你的笔记里写着** (b) 是“同一层的任务分布到不同*数据*中”：应为不同的*设备*。旧名 layer-wise partitioning（按层划分）也容易让人误解，因为每一层都被切开了。

# %% [markdown] lang="en"
# **Data parallelism is the mainstream today**, as your notes say: the network needs no change, and the
# devices communicate only once per step. Choose it whenever the model fits on one device. If the model
# does not fit, divide it too. Fully sharded data parallelism (**FSDP**, lesson 06) is still data
# parallelism, but it shards weights, gradients and optimizer state. The largest models combine it with
# (a) and (b), which lesson 07 explains.

# %% [markdown] lang="zh"
# 正如你的笔记所说，**目前主流的是数据并行**：网络不用改动，设备之间每步只通信一次。只要一台设备放得下模型，就用数据并行。放不下，就要把模型也切开。全分片数据并行（**FSDP**，第 06 课）仍是数据并行，但权重、梯度和优化器状态都分片存放。最大的模型还要与 (a) 和 (b) 结合，那是第 07 课的内容。

# %% [markdown] lang="en"
# ## The right answer first
#
# To verify shared work, we need the right answer: loss and gradient on one device. This is the network
# of the figure:

# %% [markdown] lang="zh"
# ## 先求正确答案
#
# 要验证分工的结果，先要有正确答案，即一台设备上的损失和梯度。图中的网络是：

# %%
print(inspect.getsource(Network))

# %% [markdown] lang="en"
# `make_task` draws weights and samples from `seed`. The target of a sample is 1/4 if its elements have a
# positive sum, and −1/4 otherwise. The loss is the mean squared error over all samples.

# %% [markdown] lang="zh"
# `make_task` 由种子 `seed` 随机产生权重和样本。一个样本的各元素之和为正时，目标值是 1/4，否则是 −1/4。损失是所有样本的均方误差。

# %% tags=["setup"]
task = make_task(batch, features, hidden, seed, dtype, device)
weights, x, y = task  # of two layers; (batch, features); (batch, 1)

# %% check="loss"
network = Network(weights)
loss = ((network(x) - y) ** 2).mean()
loss

# %% [markdown] lang="en"
# Now the gradient. Let $\mathbf{o}$ be the output for $n$ samples, and
# $\mathbf{d} = \frac{2}{n}(\mathbf{o} - \mathbf{y})$ the derivative of the loss with respect to it. By
# the chain rule,
#
# $$\nabla \mathbf{W}_2 = \mathbf{d}^\top \mathbf{h}, \qquad
# \nabla \mathbf{W}_1 = \mathbf{G}^\top \mathbf{x}, \qquad
# G_{ij} = d_i \, w_j \, (1 - h_{ij}^2)$$
#
# where $w_j$ are the elements of $\mathbf{W}_2$. The expected gradients of this network are
# computed by these formulas, in NumPy. Autograd finds the gradient by itself:

# %% [markdown] lang="zh"
# 再求梯度。记 $n$ 个样本的输出为 $\mathbf{o}$，损失对它的导数为 $\mathbf{d} = \frac{2}{n}(\mathbf{o} - \mathbf{y})$。由链式法则，
#
# $$\nabla \mathbf{W}_2 = \mathbf{d}^\top \mathbf{h}, \qquad
# \nabla \mathbf{W}_1 = \mathbf{G}^\top \mathbf{x}, \qquad
# G_{ij} = d_i \, w_j \, (1 - h_{ij}^2)$$
#
# 其中 $w_j$ 是 $\mathbf{W}_2$ 的元素。这个网络的梯度预期值，就是用 NumPy 按这组公式算出的。自动求导则直接给出结果：

# %% check="gradient"
loss.backward()
right = gradients(network)  # name -> .grad, of each parameter
row(right)  # W1, then W2, in one long row

# %% [markdown] lang="en"
# From now on, `compare` prints how far each result is from the result of one device: the largest
# difference, divided by the largest element. Rounding alone causes differences of about $10^{-16}$
# in float64 and $10^{-7}$ in float32.

# %% [markdown] lang="zh"
# 从现在起，每得到一个结果，就用 `compare` 打印它与一台设备的结果相差多少：最大的差除以最大的元素。如果只有舍入误差，float64 下约为 $10^{-16}$，float32 下约为 $10^{-7}$。

# %% [markdown] lang="en"
# ## Divide the batch
#
# The loss is a mean over the samples, so its gradient is the mean of the samples' gradients, and a sum
# may be grouped in any way. Let $R_r$ be the samples of device $r = 0, \dots, W - 1$:
#
# $$\nabla L = \frac{1}{n} \sum_{i=1}^{n} \nabla \ell_i
# = \sum_{r=0}^{W-1} \left( \frac{1}{n} \sum_{i \in R_r} \nabla \ell_i \right)$$
#
# Each device computes the term in parentheses for its samples, and the terms are added. This is the
# whole idea of data parallelism.

# %% [markdown] lang="zh"
# ## 切分批量
#
# 损失是各样本损失的平均，所以它的梯度是各样本梯度的平均，而求和可以任意分组。把分给设备 $r = 0, \dots, W - 1$ 的样本记作 $R_r$：
#
# $$\nabla L = \frac{1}{n} \sum_{i=1}^{n} \nabla \ell_i
# = \sum_{r=0}^{W-1} \left( \frac{1}{n} \sum_{i \in R_r} \nabla \ell_i \right)$$
#
# 每台设备算出括号中属于自己的那一项，再把各项相加。这就是数据并行的全部道理。

# %% [markdown] lang="en"
# ## One process per device
#
# All processes run the same program. Each knows its number, the **rank**, and how many there are, the
# **world size**. Together they form a **process group**, which communicates through a **backend**: gloo
# between CPUs, NCCL between GPUs.
#
# Data parallelism needs one kind of communication, the **all-reduce**: each rank provides a tensor, and
# afterwards each rank has the sum. It is a **collective** operation: every rank must take part, or the
# others wait forever.

# %% [markdown] lang="zh"
# ## 每台设备一个进程
#
# 所有进程运行同一个程序。每个进程都知道自己的**进程编号**（rank）和**进程总数**（world size）。它们组成**进程组**（process group），通过**后端**（backend）通信：CPU 之间用 gloo，GPU 之间用 NCCL。
#
# 数据并行只需要一种通信，即**全归约**（all-reduce）：每个进程提供一个张量，结束时都得到总和。这是一种**集合通信**：所有进程都必须参加，否则其他进程会一直等待。

# %% [markdown] lang="en"
# New processes cannot import what a notebook cell defines, so the programs are in the file
# `parallel/data_parallel.py`. `launch` starts the processes, runs a program in each, with the device of
# the rank as its first argument, and returns the results in the order of the ranks. Here, rank 0 provides 1,
# rank 1 provides 2, and so on. What does each rank return?

# %% [markdown] lang="zh"
# 新进程无法导入笔记本单元里定义的函数，所以程序写在文件 `parallel/data_parallel.py` 里。`launch` 启动各进程并在其中运行程序（第一个参数是该进程的设备），再按进程编号的顺序返回结果。这里进程 0 提供 1，进程 1 提供 2，依此类推。每个进程返回什么？

# %%
print(inspect.getsource(data_parallel.add_ranks))

# %% tags=["predict"] check="world"
launch(data_parallel.add_ranks, world_size, device=device)

# %% stdout="one_rank"
if world_size == 1:
    print("There is one rank only: no communication is tested in this run.")

# %% [markdown] lang="en"
# ## Data parallelism by hand
#
# `tensor_split` divides a batch into exactly $W$ **shards** of nearly equal size. Once each rank has its shard,
# data parallelism takes one more line: an all-reduce of the gradient. We try it on a linear regression with
# integers, whose gradient $\mathbf{X}^\top(\mathbf{X}\mathbf{w} - \mathbf{t})$ has integer elements too.
# Adding integers of this size causes no rounding, in any order. Therefore each rank must get the expected
# gradient to the last bit, and a sample that is lost or counted twice cannot hide behind a tolerance. (One
# row per rank.)

# %% [markdown] lang="zh"
# ## 亲手实现数据并行
#
# `tensor_split` 把一个批量恰好切成 $W$ 个大小几乎相等的**分片**（shard）。每个进程拿到自己的分片之后，数据并行只多一行：对梯度做一次全归约。我们用整数的线性回归来试，它的梯度 $\mathbf{X}^\top(\mathbf{X}\mathbf{w} - \mathbf{t})$ 的元素也都是整数。这样大小的整数，无论按什么次序相加都没有舍入误差。因此每个进程的梯度必须与预期值完全相等；漏掉或者多算了样本，就一定会被发现，不会被容差掩盖。（每个进程一行。）

# %%
print(inspect.getsource(data_parallel.my_samples))
print(inspect.getsource(data_parallel.gradient_by_hand))

# %% check="integer_gradient"
rng = np.random.default_rng(seed)
draws = rng.integers(1, 5, (batch, features)), rng.integers(-3, 0, features)
X, w = (torch.tensor(draw, dtype=x.dtype) for draw in draws)
t = torch.tensor(rng.integers(0, 4, batch), dtype=x.dtype)
program = data_parallel.gradient_by_hand
by_hand = torch.stack(launch(program, world_size, X, w, t, device=device))
compare("by hand, integers", by_hand, X.T @ (X @ w - t))
by_hand  # (world_size, features)

# %% [markdown] lang="en"
# ## DistributedDataParallel
#
# `DistributedDataParallel`, **DDP** for short, wraps a network and does this all-reduce during
# `backward()`. It computes the **mean** over the ranks instead of the sum, which seems right for a loss
# that is a mean over samples. Is it?
#
# The program below computes the gradients twice, first without averaging: `no_sync()` suppresses
# it, so that we see the gradient of each rank alone. (`replica.module` is the network itself,
# without DDP.) A rank without samples (3 samples on 4 ranks) has the loss NaN and the gradient
# zero; it must still take part in the all-reduce, or the other ranks wait forever.

# %% [markdown] lang="zh"
# ## 分布式数据并行
#
# `DistributedDataParallel`（分布式数据并行，简称 **DDP**）把网络包装起来，在 `backward()` 期间完成这次全归约。它对各进程的梯度取**平均**，而不是求和。既然损失是各样本的平均，这似乎正合适。果真如此吗？
#
# 下面的程序求两次梯度。第一次用 `no_sync()` 跳过取平均这一步，以便看到每个进程单独的梯度。（`replica.module` 是没有经过 DDP 包装的网络本身。）没有样本的进程（例如 3 个样本分给 4 个进程）损失是 NaN，梯度是 0；它也必须带着这个 0 参与通信，否则其他进程会一直等待。

# %%
print(inspect.getsource(data_parallel.local_loss))
print(inspect.getsource(data_parallel.ddp_gradients))

# %% [markdown] lang="en"
# In the first call, `is_weighted` is `False`: the losses are not weighted. All ranks have the same
# network, but different samples. Are their gradients equal? (Here and below:
# $\nabla \mathbf{W}_2$, one row per rank.)

# %% [markdown] lang="zh"
# 第一次调用时 `is_weighted` 为 `False`，损失不加权。各进程权重相同，样本不同，梯度相同吗？（这里和下面显示的都是 $\nabla \mathbf{W}_2$，每个进程一行。）

# %% tags=["predict"] check="local_gradients"
program = data_parallel.ddp_gradients
pairs = launch(program, world_size, *task, False, device=device)
local = torch.cat([alone["W2"] for alone, averaged in pairs])  # (world_size, hidden)
local

# %% [markdown] lang="en"
# After a `backward()` with averaging, each rank has the mean of these rows. Is it the gradient of the
# whole batch?

# %% [markdown] lang="zh"
# 带平均的 `backward()` 之后，每个进程得到的都是上面各行的平均。它是整个批量的梯度吗？

# %% check="unweighted"
plain = torch.cat([averaged["W2"] for alone, averaged in pairs])  # (world_size, hidden)
compare("DDP, plain mean", plain, right["W2"])
plain

# %% [markdown] lang="en"
# If `world_size` divides `batch`, the difference is rounding. Otherwise it is a real error: a rank with
# fewer samples counts as much as the others, so each of its samples counts for more. Training still seems
# to work, and therefore this mistake often goes unnoticed.
#
# The remedy is a weight. If rank $r$ has $n_r$ samples, multiply its loss by $n_r W / n$:
#
# $$\frac{1}{W} \sum_{r} \frac{n_r W}{n} \nabla L_r
# = \frac{1}{n} \sum_{r} n_r \nabla L_r = \nabla L$$

# %% [markdown] lang="zh"
# 如果 `batch` 能被 `world_size` 整除，这个差只是舍入误差；否则就是真正的错误：样本少的进程与其他进程所占的比重一样，于是它的每个样本都被算得过重。训练看上去照常进行，所以这个错误常常没有人发现。
#
# 解决办法是加权：进程 $r$ 有 $n_r$ 个样本，就把它的损失乘以 $n_r W / n$：
#
# $$\frac{1}{W} \sum_{r} \frac{n_r W}{n} \nabla L_r
# = \frac{1}{n} \sum_{r} n_r \nabla L_r = \nabla L$$

# %% check="ddp_gradients"
pairs = launch(program, world_size, *task, True, device=device)
found = [averaged for alone, averaged in pairs]
weighted = torch.cat([each["W2"] for each in found])  # (world_size, hidden)
compare("DDP, weighted", row(found[-1]), row(right))
weighted

# %% tags=["figure"]
draw_gradients(local, weighted, plain, right["W2"][0].cpu())
plt.show()

# %% [markdown] lang="en"
# **Figure.** One element of the gradient on each rank, alone (left) and after weighted averaging (middle);
# the red dashes are the value of one device. Right: the error of each element, in percent of the largest
# element, with the plain mean (red) and with the weighted mean (blue).

# %% [markdown] lang="zh"
# **图**。梯度的同一个元素在各进程上的值：左为各自单独的，中为加权平均之后；红色虚线是一台设备的值。右：每个元素的误差，以最大元素的百分数表示；红点是普通平均，蓝点是加权平均。

# %% [markdown] lang="en"
# Rounding differences from one device are expected, because the sums are grouped differently. Between
# ranks the results must be identical, or the weights of the ranks would drift apart. The next cell
# computes the largest difference between ranks, over the gradients of all parameters:

# %% [markdown] lang="zh"
# 与一台设备相比，有舍入误差是正常的，因为求和的分组不同。各进程之间则必须完全相同，否则它们的权重会渐渐不一致。下面比较所有参数的梯度，求出各进程之间的最大差别：

# %% check="ranks_agree"
differences = [each[name] - found[0][name] for each in found for name in each]
torch.stack([difference.abs().max() for difference in differences]).max()

# %% [markdown] lang="en"
# ## What happens in a step
#
# The older `nn.DataParallel` drives all devices from one process. Each device gets a **replica**, a
# copy of the network. The idea is the same, but the devices communicate in more phases of a step:

# %% [markdown] lang="zh"
# ## 一个训练步的过程
#
# 较早的 `nn.DataParallel` 由一个进程控制所有设备，每台设备得到网络的一个**副本**（replica）。思路与 DDP 相同，但一个训练步中有更多阶段需要通信：

# %% tags=["figure"]
draw_step()
plt.show()

# %% [markdown] lang="en"
# **Figure.** One step on a blue and an orange device; dashed frames are processes, red arrows are
# communication. Phases: 1 scatter the batch, 2 forward, 3 loss, 4 backward, 5 reduce the gradients,
# 6 update. In the upper half, the second device receives samples and weights in phase 1, returns
# its outputs in phase 3, receives their gradient in phase 4, and returns the gradient of the
# weights in phase 5. In the lower half, the devices communicate only in phase 5, by an all-reduce.

# %% [markdown] lang="zh"
# **图**。蓝、橙两台设备上的一个训练步；虚线框是进程，红色箭头是通信。各阶段为：1 分发批量，2 前向传播，3 损失，4 反向传播，5 归约梯度，6 更新。上：第二台设备在阶段 1 收到样本和权重，在阶段 3 发回输出，在阶段 4 收到输出的梯度，在阶段 5 发回权重的梯度。下：只有阶段 5 需要通信，即一次全归约。

# %% [markdown] lang="en"
# > **If your notes say** that the outputs are gathered and then differentiated: that is
# > `nn.DataParallel`, the upper half. With DDP, each rank computes its own loss and runs its own backward
# > pass, and gradients are averaged instead of outputs.
#
# `nn.DataParallel` is discouraged today: it copies the network in each step, the first device computes the loss
# while the others wait, and one Python process has to drive all devices.

# %% [markdown] lang="zh"
# > **如果你的笔记里写着**先汇总输出、再反向传播：那是 `nn.DataParallel`，即图的上半部分。用 DDP 时，每个进程计算自己的损失，做自己的反向传播；取平均的是梯度，不是输出。
#
# 现在已不推荐使用 `nn.DataParallel`：每一步都要复制网络；第一台设备计算损失时，其他设备只能等待；所有设备还要由同一个 Python 进程控制。

# %% [markdown] lang="en"
# ## Train
#
# At the start, DDP copies the weights of rank 0 to all ranks. From then on the weights stay equal without
# being communicated, because equal weights and equal gradients give equal updates. The program below
# writes the weighted loss as $\frac{n_r W}{n} \cdot \frac{1}{n_r} \sum = \frac{W}{n} \sum$, so a rank
# without samples needs no special case.

# %% [markdown] lang="zh"
# ## 训练
#
# 开始时，DDP 把进程 0 的权重复制给所有进程。此后权重不必通信也始终相同，因为权重相同，梯度相同，更新也就相同。下面的程序把加权后的损失写成 $\frac{n_r W}{n} \cdot \frac{1}{n_r} \sum = \frac{W}{n} \sum$，这样没有样本的进程也不必特殊处理。

# %%
print(inspect.getsource(data_parallel.train))

# %% [markdown] lang="en"
# Does the loss fall? These are the losses of all ranks together, over `steps` steps:

# %% [markdown] lang="zh"
# 损失下降了吗？下面是所有进程合起来在 `steps` 步中的损失：

# %% check="losses"
results = launch(data_parallel.train, world_size, *task, steps, lr, device=device)
losses, trained = results[-1]
losses

# %% [markdown] lang="en"
# Here are the trained weights, in one long row. The same training on one device ends with the same weights:

# %% [markdown] lang="zh"
# 下面是训练后的权重，排成一长行。在一台设备上做同样的训练，最后得到同样的权重：

# %% check="parameters_after_steps"
row(trained)

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
draw_losses(losses, losses_alone)
plt.show()

# %% [markdown] lang="en"
# **Figure.** The loss over all samples in each step: all ranks together (blue), and one device (orange).

# %% [markdown] lang="zh"
# **图**。每一步在所有样本上的损失：蓝色由所有进程合起来算出，橙色由一台设备算出。

# %% [markdown] lang="en"
# ## Accumulate gradients
#
# A batch may be too large for all $W$ devices together. Then each rank divides its samples into pieces
# and lets their gradients accumulate (lesson 03). By itself, DDP would run an all-reduce in each backward
# pass; `no_sync()` suppresses all but the last one. The result begins with the number of all-reduces per
# rank. How many are there for `pieces` pieces?

# %% [markdown] lang="zh"
# ## 梯度累积
#
# 一个批量可能太大，$W$ 台设备合起来也无法一次处理。这时每个进程把自己的样本再分成几份，让各份的梯度累积起来（见第 03 课）。DDP 本来在每次反向传播时都要做一次全归约；除最后一次外，都可以用 `no_sync()` 省去。下面的结果首先列出每个进程做全归约的次数。分成 `pieces` 份时，是几次？

# %%
print(inspect.getsource(data_parallel.accumulated_gradients))

# %% tags=["predict"] check="accumulated"
program = data_parallel.accumulated_gradients
found = launch(program, world_size, *task, pieces, device=device)
compare("DDP, accumulated", row(found[-1][1]), row(right))
[count for count, each in found], torch.cat([each["W2"] for count, each in found])

# %% [markdown] lang="en"
# ## Buckets
#
# A large network has hundreds of gradients, and those of the last layers are ready long before those of
# the first. DDP collects gradients in **buckets**. As soon as a bucket is full, its all-reduce starts,
# while `backward()` computes the gradients of earlier layers. By default the first bucket is full at 1 MiB
# and every other at 25 MiB, so our small network has one bucket, and nothing overlaps.
#
# Take eight layers of 512 × 512 weights instead, and a limit of 2 MiB. How many bytes are in each bucket?

# %% [markdown] lang="zh"
# ## 桶
#
# 大型网络有成百上千个梯度，而最后几层的梯度远早于前几层算好。DDP 把梯度收集到**桶**（bucket）里。一个桶装满，它的全归约就开始，同时 `backward()` 继续计算前面各层的梯度。默认情况下，第一个桶装到 1 MiB 就满，其余的装到 25 MiB；我们的小网络只用一个桶，没有任何重叠。
#
# 换成八层、每层 512 × 512 个权重的网络，并把上限设为 2 MiB。每个桶有多少字节？

# %% tags=["predict"] check="buckets"
watched = launch(timing.watch_buckets, world_size, 512, 8, 2.0, x.dtype, device=device)
[[size for size, begin, end in messages] for messages, ready in watched]

# %% tags=["figure"]
draw_buckets(*watched[0])
plt.show()

# %% [markdown] lang="en"
# **Figure.** One backward pass on rank 0. Upper bar: when the gradient of each layer was ready,
# layer 8 first. Red bars: the all-reduce of each bucket. Where a red bar lies under the upper bar,
# communication **overlaps** with computation and costs no extra time. Only the part that extends
# beyond the right end of the upper bar costs extra time.

# %% [markdown] lang="zh"
# **图**。进程 0 上的一次反向传播。上面的长条：各层的梯度何时算好，最先是第 8 层。红条：每个桶的全归约。红条与上面的长条在时间上**重叠**的部分，通信和计算同时进行，不额外花时间；只有超出长条右端的部分才是额外的代价。

# %% [markdown] lang="en"
# ## A script of your own
#
# `launch` belongs to this course. The usual tool is `torchrun`: it starts the processes, and environment
# variables tell each process its rank. The file `parallel/train.py` is a complete script for it. Save it,
# replace the network and the data, and use it:
#
# ```sh
# torchrun --nproc-per-node 2 train.py
# ```
#
# It saves a checkpoint after each step, so that the same command resumes an interrupted run.
# The recipe below lists the steps of scripts like this one.

# %% [markdown] lang="zh"
# ## 你自己的脚本
#
# `launch` 只在本课程中使用，实际项目通常用 `torchrun`：它启动各个进程，并用环境变量告诉每个进程它的编号。文件 `parallel/train.py` 是一个完整的脚本，保存下来，换上自己的网络和数据，就可以使用：
#
# ```sh
# torchrun --nproc-per-node 2 train.py
# ```
#
# 每一步之后它都保存检查点，所以训练中断之后，用同一条命令就能接着训练。这类脚本的一般步骤，见后面的“DDP 步骤小结”。

# %% [markdown] lang="en"
# We run the script and compare its weights with those of one device. Two things come from torch's
# own random generator and cannot be derived, so they are given: the initial weights, and the order
# of the samples in each epoch. A batch of 840 samples can be divided evenly among 1 to 8 processes.

# %% [markdown] lang="zh"
# 我们运行这个脚本，再把得到的权重与一台设备训练出的权重比较。有两样东西来自 torch 自己的随机数生成器，无法推导，所以是给定的：初始权重，以及每一轮中样本的次序。一个批量有 840 个样本，1 到 8 个进程都能平分。

# %% given="initial"
alone = train.make_network(seed, x.dtype)
row(alone.state_dict())  # weights and biases of both layers

# %% given="orders"
sampler = DistributedSampler(range(1680), num_replicas=1, rank=0, seed=seed)
orders = []
for epoch in range(2):
    sampler.set_epoch(epoch)
    orders.append(list(sampler))
orders = torch.tensor(orders)  # (epochs, samples)
orders

# %% check="script_weights"
options = ["--epochs", 2, "--samples", 1680, "--batch", 840]
options += ["--dtype", dtype, "--seed", seed]
with tempfile.TemporaryDirectory() as folder:
    print(torchrun(folder, train.__file__, world_size, *options))
    saved = torch.load(Path(folder) / "checkpoint.pt", map_location="cpu")["network"]
row(saved)

# %%
points, labels = train.make_data(1680, seed, x.dtype).tensors
sgd = torch.optim.SGD(alone.parameters(), lr=0.1, momentum=0.9)
for indices in orders.flatten().split(840):  # one device, no DDP, no sampler
    sgd.zero_grad()
    nn.BCEWithLogitsLoss()(alone(points[indices])[:, 0], labels[indices]).backward()
    sgd.step()
compare("train.py by torchrun", row(saved), row(alone.state_dict()).to(device))

# %% [markdown] lang="en"
# ## Compared with one device
#
# Rounding errors are about as large as `eps`, the gap between 1 and the next larger number
# that the dtype can represent. This table lists all differences so far, and then `eps`:

# %% [markdown] lang="zh"
# ## 与一台设备比较
#
# 舍入误差与 `eps` 同一量级；`eps` 是 1 与下一个更大的浮点数之差。下表列出到目前为止的所有差，最后一行是 `eps`：

# %%
print_table(dtype)

# %% [markdown] lang="en"
# Unless all ranks have the same number of samples, one line stands out: the plain mean. All other lines show
# rounding. A loss curve would not have shown the mistake.

# %% [markdown] lang="zh"
# 只要各进程的样本数不相等，就有一行与众不同，即普通平均；其余各行都只是舍入误差。只看损失曲线，是看不出这个错误的。

# %% [markdown] lang="en"
# ## Recipe for DDP
#
# 1. Start one process per device: `torchrun --nproc-per-node 4 train.py`.
# 2. On GPUs, pass `LOCAL_RANK` to `set_device`. Then call `init_process_group`.
# 3. Give each rank its own samples with a `DistributedSampler`; call `set_epoch` in each epoch.
#    It repeats samples to make shards even.
# 4. Wrap the network in `DistributedDataParallel`.
# 5. Weight the loss by $n_r W / n$ if shards are uneven.
# 6. Call `backward()` and `step()`, and `no_sync()` to accumulate gradients.
# 7. Save `replica.module.state_dict()` on one rank, in a temporary file, and rename the file.
# 8. Delete the DDP object and call `destroy_process_group`: a group that is still alive when
#    Python exits can abort the process.

# %% [markdown] lang="zh"
# ## DDP 步骤小结
#
# 1. 每台设备启动一个进程：`torchrun --nproc-per-node 4 train.py`。
# 2. 用 GPU 时，先把 `LOCAL_RANK` 传给 `set_device`，再调用 `init_process_group`。
# 3. 用 `DistributedSampler` 给每个进程分配自己的样本，并在每一轮调用它的 `set_epoch`。它会重复某些样本，使分片大小相等。
# 4. 用 `DistributedDataParallel` 包装网络。
# 5. 分片大小不等时，损失乘以 $n_r W / n$。
# 6. `backward()` 和 `step()` 照旧；累积梯度时用 `no_sync()`。
# 7. 由一个进程保存 `replica.module.state_dict()`，先写入临时文件，再改名，这样即使中断也不会留下不完整的检查点。
# 8. 最后删除 DDP 对象，再调用 `destroy_process_group`：如果 Python 退出时进程组还在，进程可能异常中止。

# %% [markdown] lang="en"
# ## Exercises
#
# `launch_cell` works like `launch`, but for a function in a cell. The function may use its arguments,
# `torch`, `dist`, `nn` and `DistributedDataParallel`.

# %% [markdown] lang="zh"
# ## 练习
#
# `launch_cell` 的用法与 `launch` 相同，但用于单元里定义的函数。这个函数可以使用它的参数，以及 `torch`、`dist`、`nn` 和 `DistributedDataParallel`。

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. All-gather from send and receive
#
# In an **all-gather**, each rank provides a tensor, and afterwards each rank has all of them, in the order
# of the ranks. Write it with nothing but `dist.send(tensor, rank)` and `dist.recv(tensor, rank)`, which
# both wait for the other rank. In which order must the ranks call them?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 用发送和接收实现全收集
#
# 在**全收集**（all-gather）中，每个进程提供一个张量，结束时每个进程都有全部张量，按进程编号排列。只用 `dist.send(tensor, rank)` 和 `dist.recv(tensor, rank)` 实现它，这两个函数都要等待对方。各进程应当按什么顺序调用它们？

# %% tags=["setup"]
numbers = torch.from_numpy(np.random.default_rng(seed).integers(1, 100, world_size))


# %% tags=["exercise"]
def all_gather(device, numbers):
    # returns the numbers of all ranks; reads only its own and receives the others
    rank, world_size = dist.get_rank(), dist.get_world_size()
    own = numbers[rank].to(device)
    gathered = [torch.zeros_like(own) for _ in range(world_size)]
    ...  # fill the list with send and receive
    return torch.stack(gathered)


collected = torch.stack(launch_cell(all_gather, world_size, numbers, device=device))
collected


# %% tags=["solution"] check="collected"
def all_gather(device, numbers):
    # returns the numbers of all ranks; reads only its own and receives the others
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


collected = torch.stack(launch_cell(all_gather, world_size, numbers, device=device))
collected

# %% [markdown] lang="en" tags=["exercise"]
# ### 2. Repair a script
#
# This program should take one step of gradient descent for a linear regression, over all samples
# and starting from zero weights. It runs without an error, but the weights are wrong. Find four
# mistakes and repair them.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 修好一个脚本
#
# 这个程序应当从全零的权重出发，用所有样本为线性回归训练一步。它运行时不报错，得到的权重却是错的。找出四处错误并改正。


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
    ...  # one line is missing
    return network.weight.detach().flatten()


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
    return network.weight.detach().flatten()


repaired = torch.stack(launch_cell(step, world_size, x, y, lr, device=device))
repaired

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - `batch=24`: where has the error of the plain mean gone?
# - `world_size=4, batch=3`: one rank has no samples. Which values show it?
# - `pieces=1`: how many all-reduces are there now, and why?
# - Save `train.py` in an empty folder and run it with `--epochs 1000`. Kill it with Ctrl-C, and run
#   the same command again. Where does it resume?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `batch=24`：普通平均的误差到哪里去了？
# - `world_size=4, batch=3`：有一个进程没有样本，从哪些数值看得出来？
# - `pieces=1`：现在有几次全归约？为什么？
# - 把 `train.py` 保存到一个空文件夹里，加上 `--epochs 1000` 运行，用 Ctrl-C 中断，再用同样的命令运行一次。它从哪里接着训练？
