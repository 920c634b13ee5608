# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
#   lesson:
#     prerequisites: [tensors]
#     gpus: {min: 0, max: 1}
#     parameters:
#       size: {min: 2, max: 64}
#       seed: {min: 0, max: 4294967295}
#       dtype: {choices: [float32, float64]}
#       limit: {min: 0, max: 1000000}
# ---

# %% [markdown] lang="en"
# # Automatic differentiation
#
# Training changes the parameters of a network, such as its weights, a little at a time, in the
# direction that lowers the **loss**, a number that measures how wrong the predictions are. This
# direction is opposite to the **gradient**, which holds one derivative for each parameter. A
# network can have billions of parameters, so nobody computes these derivatives by hand.
#
# After this lesson you can let PyTorch differentiate any computation that you write, you know
# when gradients add up and where they stop, and you can test a gradient independently.

# %% [markdown] lang="zh"
# # 自动求导
#
# 训练就是一点一点地修改网络的参数（例如权重），使**损失**（衡量预测误差大小的一个数）下降，也就是沿着与**梯度**相反的方向前进。梯度中，每个参数对应一个导数；而参数可能有几十亿个，没有人能逐个手算。
#
# 学完这一课，你能让 PyTorch 对你写的任何计算求导（即**自动求导**，又称自动微分），知道梯度何时累积、在哪里中断，还能用另一种独立的方法检验梯度。

# %% tags=["parameters"]
size: int = 4  # length of x, the vector to differentiate with respect to
seed: int = 15  # seed for the random a in the section on control flow
dtype: str = "float32"  # dtype of the tensors
limit: float = 1000.0  # the doubling loop ends when it reaches this
device: str = "cpu"  # where the tensors live

# %% tags=["setup"]
import matplotlib.pyplot as plt
import numpy as np
import torch

kind = getattr(torch, dtype)

# %% [markdown] lang="en"
# ## One gradient
#
# We begin with a gradient that we can derive by hand. Let $y = 2\,\mathbf{x}^\top \mathbf{x}$, that
# is, $y = 2\sum_i x_i^2$. Each $x_i$ occurs in only one term, so
#
# $$\frac{\partial y}{\partial x_i} = 4 x_i .$$
#
# To differentiate with respect to `x`, PyTorch must record every operation that uses `x`. Calling
# `requires_grad_(True)` asks for this. The gradient will be stored in `x.grad`. What does `x.grad`
# contain before anything is computed?

# %% [markdown] lang="zh"
# ## 一个梯度
#
# 先看一个能手算的例子。令 $y = 2\,\mathbf{x}^\top \mathbf{x}$，也就是 $y = 2\sum_i x_i^2$。每个 $x_i$ 只出现在一项里，所以
#
# $$\frac{\partial y}{\partial x_i} = 4 x_i .$$
#
# 要对 `x` 求导，PyTorch 必须记录 `x` 参与的每一步运算；调用 `requires_grad_(True)`，就是要求它这样做。梯度将存放在 `x.grad` 里。在做任何计算之前，`x.grad` 是什么？

# %% check="no_gradient_yet"
x = torch.arange(size, dtype=kind, device=device)
x.requires_grad_(True)  # or at once: torch.arange(4.0, requires_grad=True)
x, x.grad is None

# %% [markdown] lang="en"
# It is `None`, not zeros. Now the **forward pass** computes $y$, and PyTorch records each operation in
# a **computational graph**. The output shows the end of this record as `grad_fn`: the last operation
# was a multiplication.

# %% [markdown] lang="zh"
# 是 `None`，而不是零。现在做**前向传播**，算出 $y$；PyTorch 同时把每一步运算记录在**计算图**中。输出里的 `grad_fn` 就是这份记录的末端：最后一步运算是乘法。

# %% check="y"
y = 2 * torch.dot(x, x)
y

# %% [markdown] lang="en"
# The **backward pass** goes through the graph from $y$ back to $\mathbf{x}$ and applies the chain
# rule at each step. Predict `x.grad` before you look.

# %% [markdown] lang="zh"
# **反向传播**从 $y$ 出发，沿着计算图反向回到 $\mathbf{x}$，每一步都应用链式法则。先预测 `x.grad`，再往下看。

# %% check="gradient"
y.backward()
x.grad

# %% [markdown] lang="en"
# This is the gradient that we derived. Only a **leaf tensor** keeps its gradient. A leaf is a
# tensor that is not the result of a recorded operation: `x` is a leaf, and `y` is not. (`y` keeps
# its gradient, too, if you call `y.retain_grad()` before the backward pass.)
#
# The computer can compare the two results. For this function both are exact, because multiplying by 2
# or 4 only changes the exponent of a floating-point number.

# %% [markdown] lang="zh"
# 与手算的梯度一致。只有**叶子张量**才保存梯度，叶子张量就是不由计算图所记录的运算得来的张量：`x` 是叶子张量，`y` 不是。（如果在反向传播之前调用 `y.retain_grad()`，`y` 也会保存梯度。）
#
# 也可以让计算机来验证。对这个函数，两个结果都没有舍入误差，因为乘以 2 或 4 只改变浮点数的指数。

# %% check="gradient_is_4x"
x.grad == 4 * x

# %% [markdown] lang="en"
# ## An independent test
#
# Our own derivation could be wrong, too. There is a test that needs no calculus: change one $x_i$ a
# little in both directions, and see how much $y$ changes. This is the **central difference**
#
# $$\frac{\partial y}{\partial x_i} \approx \frac{f(x_i + h) - f(x_i - h)}{2h} .$$
#
# Here $f(x_i \pm h)$ is the value of $y$ after this change. We compute the difference in `float64`,
# because subtracting two numbers that are nearly equal loses digits.

# %% [markdown] lang="zh"
# ## 独立的检验
#
# 我们自己的推导也可能出错。有一种检验不需要微积分：把某个 $x_i$ 向两边各移动一点，看 $y$ 变化多少。这就是**中心差分**
#
# $$\frac{\partial y}{\partial x_i} \approx \frac{f(x_i + h) - f(x_i - h)}{2h} .$$
#
# 其中 $f(x_i \pm h)$ 是移动之后 $y$ 的值。我们用 `float64` 计算差分，因为两个相近的数相减会丢失有效数字。


# %% tags=["setup"]
def slopes(f, x, h=2.0**-10):
    """Central differences of the scalar f at x, one for each element."""
    steps = h * torch.eye(len(x)).to(x)  # row i moves x_i alone
    return torch.stack([(f(x + step) - f(x - step)) / (2 * h) for step in steps])


# %% check="numeric_gradient"
x64 = x.detach().double()
slopes(lambda x: 2 * torch.dot(x, x), x64)

# %% [markdown] lang="en"
# All three results agree: by hand, by autograd, and numerically. We will use this test wherever a
# gradient may surprise us.

# %% [markdown] lang="zh"
# 手算、自动求导、数值差分，三种方法的结果一致。以后哪里的梯度可能出人意料，就在哪里做这个检验。

# %% [markdown] lang="en"
# ## Gradients add up
#
# We call `backward` once more. What do you expect?

# %% [markdown] lang="zh"
# ## 梯度会累积
#
# 再调用一次 `backward`，你预计会怎样？

# %% check="same_graph_twice" raises="RuntimeError"
y.backward()

# %% [markdown] lang="en"
# It raises an error. The graph had saved values for the chain rule, and the first backward pass
# freed them, because they take up memory. (The error message suggests `retain_graph=True`, which
# keeps the values. You need it only if you go back through the same graph twice on purpose.)

# %% [markdown] lang="zh"
# 报错了。计算图为链式法则保存了一些中间值，反向传播会释放它们，因为它们要占内存。（报错信息里提到的 `retain_graph=True` 会保留这些值，只有确实要在同一张计算图上反向传播两次时才需要它。）


# %% tags=["figure"]
def saved(node):  # what an operation keeps for the backward pass; None once it is freed
    try:
        values = [getattr(node, key) for key in dir(node) if key.startswith("_saved_")]
    except RuntimeError:
        return None
    return ", ".join({f"{value.tolist()}" for value in values if value is not None})


def draw_graph(panel, y):
    panel.text(3, 1, "y", ha="center", va="center")
    node = y.grad_fn
    arrow = {"arrowstyle": "->", "color": "#1d3557"}
    for x, label in [(2, r"$2\,\cdot$"), (1, "dot"), (0, "x")]:
        panel.annotate("", (x + 0.2, 1), (x + 0.85, 1), arrowprops=arrow)
        panel.text(x, 1, label, ha="center", va="center")
        kept = saved(node)
        box = {"edgecolor": "#1f5fa8", "facecolor": "#cfe3f2" if kept else "white"}
        if kept is None:
            kept, box["linestyle"] = " " * 12, "--"
        if kept:
            panel.text(x, 0, kept, ha="center", va="center", fontsize=8, bbox=box)
        node = node.next_functions[0][0] if node.next_functions else None
    panel.set(xlim=(-0.5, 3.3), ylim=(-0.5, 1.4))
    panel.axis("off")


# %% tags=["figure"]
small = torch.arange(3.0, requires_grad=True)
result = 2 * torch.dot(small, small)
figure, panels = plt.subplots(1, 2, figsize=(7, 1.2), layout="constrained")
draw_graph(panels[0], result)
result.backward()
draw_graph(panels[1], result)
plt.show()

# %% [markdown] lang="en"
# **Figure.** The graph of $y = 2\,\mathbf{x}^\top \mathbf{x}$ for $\mathbf{x} = (0, 1, 2)$, before
# (left) and after `backward()` (right). The arrows show the direction of the backward pass. The blue
# boxes show the saved values; dashed boxes have been freed.

# %% [markdown] lang="zh"
# **图**。$\mathbf{x} = (0, 1, 2)$ 时 $y = 2\,\mathbf{x}^\top \mathbf{x}$ 的计算图，左边是 `backward()` 之前，右边是之后。箭头是反向传播的方向。蓝框里是运算保存的值，虚线框表示值已经释放。

# %% [markdown] lang="en"
# To differentiate again, we compute $y$ again, which builds a new graph. What is `x.grad` after this
# second backward pass?

# %% [markdown] lang="zh"
# 想再求一次导，就重新计算 $y$，这样会建立新的计算图。第二次反向传播之后，`x.grad` 是多少？

# %% check="accumulated"
y = 2 * torch.dot(x, x)
y.backward()
x.grad

# %% [markdown] lang="en"
# Not $4\mathbf{x}$ but $8\mathbf{x}$. PyTorch *adds* the new gradient to the one that is already in
# `x.grad`. This is called **gradient accumulation**, and it is intended, because it lets several
# small batches act as one large batch. But if you forget it, you train with the sum of all gradients
# so far. Therefore we clear the gradient before the next pass:

# %% [markdown] lang="zh"
# 不是 $4\mathbf{x}$，而是 $8\mathbf{x}$。PyTorch 把新的梯度**加**到 `x.grad` 已有的值上，这叫**梯度累积**。这是有意的设计，因为这样可以把几个小批量当作一个大批量来用。但如果忘了这一点，训练时用的就是历次梯度之和。所以，下一次反向传播之前要做**梯度清零**：

# %% check="after_clearing"
x.grad.zero_()
y = 2 * torch.dot(x, x)
y.backward()
x.grad

# %% tags=["figure"]
heights, w = [], torch.tensor(1.0, requires_grad=True)
for _ in range(3):
    (2 * w * w).backward()
    heights.append(w.grad.item())
w.grad.zero_()
heights.append(w.grad.item())
(2 * w * w).backward()
heights.append(w.grad.item())
labels = ["backward()", "backward()", "backward()", "zero_()", "backward()"]
figure, axes = plt.subplots(figsize=(7, 2.4))
axes.step(range(6), [*heights, heights[-1]], where="post", color="#1f5fa8", linewidth=2)
for i, height in enumerate(heights):
    axes.text(i + 0.5, height + 0.5, f"{height:g}", ha="center", color="#1f5fa8")
axes.set_xticks([i + 0.5 for i in range(5)], labels, family="monospace", fontsize=9)
axes.set(ylim=(-0.5, 14), yticks=[0, 4, 8, 12], ylabel="x.grad   (x = 1)")
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** The gradient at $x = 1$ after each call. Every `backward()` adds 4, and `zero_()` sets the
# gradient back to zero. In a training loop, `optimizer.zero_grad()` clears the gradients of all
# parameters; by default it sets them to `None`.

# %% [markdown] lang="zh"
# **图**。每次调用之后 $x = 1$ 处的梯度：每次 `backward()` 加 4，`zero_()` 让它归零。在训练循环里，`optimizer.zero_grad()` 清除所有参数的梯度，默认是把它们设为 `None`。

# %% [markdown] lang="en"
# ## When the output is not a single number
#
# Now let $\mathbf{y}$ be the vector of the squares, $y_i = x_i^2$. We try what worked before.

# %% [markdown] lang="zh"
# ## 输出不止一个数的时候
#
# 现在令 $\mathbf{y}$ 为各元素的平方组成的向量，$y_i = x_i^2$。照刚才的办法试一试。

# %% check="nonscalar_fails" raises="RuntimeError"
x.grad.zero_()
y = x * x
y.backward()

# %% [markdown] lang="en"
# PyTorch refuses for a good reason. The derivatives of a vector with respect to a vector form a matrix,
# the **Jacobian** $J_{ij} = \partial y_i / \partial x_j$, which would be huge for a network.
# Training needs only one row vector, the **vector–Jacobian product** $\mathbf{v}^\top J$, and we must
# choose $\mathbf{v}$. The usual choice is a vector of ones. It gives the gradient of the sum of all
# $y_i$, so we can also compute the sum first:

# %% [markdown] lang="zh"
# PyTorch 拒绝执行，这是有道理的：向量对向量求导，得到一个矩阵，即**雅可比矩阵** $J_{ij} = \partial y_i / \partial x_j$，对一个网络来说它大得惊人。训练只需要一个行向量，即**向量–雅可比积** $\mathbf{v}^\top J$，其中的 $\mathbf{v}$ 要由我们指定。最常用的是全一向量，得到的是各个 $y_i$ 之和的梯度，所以也可以先求和：

# %% check="sum_gradient"
y.sum().backward()
x.grad

# %% [markdown] lang="en"
# Any other $\mathbf{v}$ is passed as `gradient`, in the shape of $\mathbf{y}$. We choose numbers that
# are easy to recognize, $\mathbf{v} = (1, 10, 100, \ldots)$. Then the result $2 x_i v_i$ shows that
# each output has its own weight, and the central difference of $\sum_i v_i y_i$ confirms it.

# %% [markdown] lang="zh"
# 若要用别的 $\mathbf{v}$，就通过 `gradient` 参数传入，形状与 $\mathbf{y}$ 相同。我们取容易辨认的数 $\mathbf{v} = (1, 10, 100, \ldots)$。结果 $2 x_i v_i$ 说明每个输出各有自己的权重，$\sum_i v_i y_i$ 的中心差分也证实了这一点。

# %% check="vector_jacobian"
x.grad.zero_()
v = 10.0 ** (torch.arange(size, dtype=kind, device=device) % 4)  # 1, 10, 100, …
y = x * x
y.backward(gradient=v)
x.grad

# %% check="numeric_vector_jacobian"
slopes(lambda x: (v.double() * x * x).sum(), x64)

# %% tags=["figure"]
J = torch.autograd.functional.jacobian(lambda x: x * x, x.detach())[:4, :4].cpu()
vJ = (v[:4].cpu() @ J).numpy()
row = v[None, :4].cpu().numpy()
pieces = [(row, "$v^T$"), (J.numpy(), "$J$"), (vJ[None], "$v^T J$")]
figure, axes = plt.subplots(1, 3, figsize=(7, 2.2), gridspec_kw={"wspace": 0.5})
for axis, (values, name), sign in zip(axes, pieces, ["×", "=", ""]):
    axis.imshow(np.log10(1 + values), cmap="Blues", vmin=0, vmax=4.5)
    for (i, j), value in np.ndenumerate(values):
        colour = "white" if value > 300 else "#333333"
        axis.text(j, i, f"{value:g}", ha="center", va="center", color=colour, size=8)
    axis.set_title(name)
    axis.set(xticks=[], yticks=[])
    axis.annotate(sign, (1.25, 0.5), xycoords="axes fraction", ha="center", fontsize=15)
plt.show()

# %% [markdown] lang="en"
# **Figure.** The row $\mathbf{v}^\top$ times the Jacobian $J$, here for the first four elements, gives
# the row that `backward` adds to `x.grad`. $J$ is diagonal, because $y_i$ depends on $x_i$ alone;
# `backward` never builds it.

# %% [markdown] lang="zh"
# **图**。行向量 $\mathbf{v}^\top$ 乘以雅可比矩阵 $J$（这里取前四个元素），就是 `backward` 加到 `x.grad` 上的行向量。$y_i$ 只依赖 $x_i$，所以 $J$ 是对角矩阵；`backward` 从不真的构造这个矩阵。

# %% [markdown] lang="en"
# A tensor with one element needs no `gradient`, whether its shape is (1, 1), as here, or `()`.

# %% [markdown] lang="zh"
# 只有一个元素的张量不需要 `gradient`，无论它是标量，还是形状为 (1, 1)（如下例）。

# %% check="one_element"
w = torch.full((1, 1), float(size), dtype=kind, device=device, requires_grad=True)
(w * w).backward()
w.grad

# %% [markdown] lang="en"
# ## Detaching from the graph
#
# Sometimes a value should count as a constant, for example a target, or a weight that is not to be
# trained. `detach()` gives the same values without their history. Let $\mathbf{u}$ be the
# detached $\mathbf{y} = \mathbf{x}^2$, and let $\mathbf{z} = \mathbf{u}\mathbf{x}$. Because
# $\mathbf{u}$ is a constant, $\partial z_i / \partial x_i = u_i = x_i^2$.

# %% [markdown] lang="zh"
# ## 从计算图中分离
#
# 有时要把某个值当作常数，例如目标值，或者不参加训练的权重。`detach()` 把它从计算图中**分离**出来：数值相同，但不带计算历史。令 $\mathbf{u}$ 为分离后的 $\mathbf{y} = \mathbf{x}^2$，再令 $\mathbf{z} = \mathbf{u}\mathbf{x}$。因为 $\mathbf{u}$ 是常数，所以 $\partial z_i / \partial x_i = u_i = x_i^2$。

# %% check="detached"
x.grad.zero_()
y = x * x
u = y.detach()
z = u * x
z.sum().backward()
x.grad, x.grad == u

# %% [markdown] lang="en"
# The numerical test must also keep $\mathbf{u}$ fixed, so that it differentiates the same function.

# %% [markdown] lang="zh"
# 用差分检验时也要让 $\mathbf{u}$ 保持不变，这样求导的才是同一个函数。

# %% check="numeric_detached"
slopes(lambda x: (u.double() * x).sum(), x64)

# %% [markdown] lang="en"
# Without `detach`, the path through $\mathbf{y}$ counts, too: $z_i = x_i^3$, so the gradient is
# $3 x_i^2$.

# %% [markdown] lang="zh"
# 如果不分离，经过 $\mathbf{y}$ 的那条路径也要计入：$z_i = x_i^3$，所以梯度是 $3 x_i^2$。

# %% check="not_detached"
x.grad.zero_()
y = x * x
z = y * x
z.sum().backward()
x.grad

# %% [markdown] lang="en"
# Remember two more things about `detach`. First, the graph of $\mathbf{y}$ stays intact, so
# $\mathbf{y}$ still has the gradient $2\mathbf{x}$. Second, nothing is copied: $\mathbf{u}$ and
# $\mathbf{y}$ share memory, so writing into one of them changes the other.

# %% [markdown] lang="zh"
# 关于 `detach` 还有两点。$\mathbf{y}$ 自己的计算图不受影响，求导仍得 $2\mathbf{x}$。数据也没有复制：$\mathbf{u}$ 与 $\mathbf{y}$ 共用底层存储（共享内存），改动其中一个，另一个也会变。

# %% check="shares_memory"
x.grad.zero_()
y = x * x
u = y.detach()
y.sum().backward()
u[0] = 7
x.grad, y[0].item(), u.requires_grad

# %% tags=["figure"]
t = torch.linspace(0, 2.5, 51, requires_grad=True)
curves = {
    "$x^2$": (t.detach() ** 2 * t, "#1f5fa8", 0.7),
    "$2x$": (t * t, "#7a7a7a", -0.7),
    "$3x^2$": (t * t * t, "#c0392b", 0),
}
figure, axes = plt.subplots(figsize=(7, 2.6))
for label, (z, colour, up) in curves.items():
    (slope,) = torch.autograd.grad(z.sum(), t)
    axes.plot(t.detach(), slope, color=colour, linewidth=2)
    axes.plot(1, slope[20], "o", color=colour)
    axes.text(2.53, slope[-1] + up, label, color=colour, va="center")
axes.set(xlabel="x", ylabel="gradient", xlim=(0, 2.7))
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** Three gradients from the same values: $x^2$ with $\mathbf{u}$ detached, $3x^2$ without
# `detach`, and $2x$ for $\mathbf{y}$ alone. The distance between blue and red is the part that
# flows through $\mathbf{y}$.

# %% [markdown] lang="zh"
# **图**。同样的 $\mathbf{x}$，三种梯度：用分离得到的 $\mathbf{u}$，梯度是 $x^2$；不分离，是 $3x^2$；$\mathbf{y}$ 本身的梯度是 $2x$。蓝线与红线之差，就是经过 $\mathbf{y}$ 的那一部分梯度。

# %% [markdown] lang="en"
# ## A path lost by accident
#
# `detach` cuts a path on purpose, but a path can also be cut by accident. A Python number has no
# history, so `.item()` and `.tolist()` cut the graph, and putting the number back into a tensor
# does not repair it.
#
# Let $s = \sum_j x_j$ and $y = \sum_i s\,x_i$. Then $y = s^2$ and
# $\partial y / \partial x_i = 2s$, because each $x_i$ counts twice: as a term of the sum, and within
# $s$.

# %% [markdown] lang="zh"
# ## 不小心切断的路径
#
# `detach` 是有意切断路径，但路径也可能在无意间被切断。Python 的数没有计算历史，所以 `.item()` 和 `.tolist()` 会切断计算图；再把数放回张量，也无法恢复。
#
# 令 $s = \sum_j x_j$，$y = \sum_i s\,x_i$。于是 $y = s^2$，$\partial y / \partial x_i = 2s$，因为每个 $x_i$ 起两次作用：一次作为求和的一项，一次在 $s$ 里。

# %% check="lost_path"
x.grad.zero_()
s = torch.tensor(x.sum().item(), dtype=kind, device=device)  # rebuilt from a number
y = (s * x).sum()
y.backward()
s.requires_grad, x.grad

# %% [markdown] lang="en"
# There is no error and no warning, and the gradient looks reasonable. Only the numerical test reveals
# that half of it is missing:

# %% [markdown] lang="zh"
# 没有报错，没有警告，梯度看上去也合理。只有用差分检验，才会发现少了一半：

# %% check="numeric_lost_path"
slopes(lambda x: (x.sum() * x).sum(), x64)

# %% [markdown] lang="en"
# The remedy is to use only tensors until the backward pass is over. `requires_grad` tells whether a
# tensor is still connected to the graph.

# %% [markdown] lang="zh"
# 解决办法是：在反向传播结束之前，只用张量。看 `requires_grad`，就知道一个张量是否仍连在计算图上。

# %% check="kept_path"
x.grad.zero_()
s = x.sum()
y = (s * x).sum()
y.backward()
s.requires_grad, x.grad

# %% [markdown] lang="en"
# ## Changing what the graph has saved
#
# The backward pass needs values of the forward pass: to differentiate $a_i^2$, the graph
# **saves** $\mathbf{a}$. Let $\mathbf{a} = 2\mathbf{x}$ and $y = \sum_i a_i^2$, so that
# $\partial y / \partial x_i = 8 x_i$. What happens if we change $\mathbf{a}$ in place before the
# backward pass uses it?

# %% [markdown] lang="zh"
# ## 改动计算图保存的值
#
# 反向传播要用到前向传播时的值：为了对 $a_i^2$ 求导，计算图**保存**了 $\mathbf{a}$。令 $\mathbf{a} = 2\mathbf{x}$，$y = \sum_i a_i^2$，于是 $\partial y / \partial x_i = 8 x_i$。如果在反向传播用到 $\mathbf{a}$ 之前原地改动它，会怎样？

# %% check="saved_is_changed" raises="RuntimeError"
x.grad.zero_()
a = 2 * x
y = (a * a).sum()
a.add_(1)
y.backward()

# %% [markdown] lang="en"
# PyTorch raises an error, which is the better outcome. Each tensor counts its in-place changes, and
# the graph notices that this count has changed since it saved the tensor. But a change through
# `a.data`, another tensor that shares memory with `a`, is not counted. Predict the gradient that
# the next cell computes.

# %% [markdown] lang="zh"
# 报错了，这还算是好的情形。每个张量都记录自己被原地改动的次数，计算图发现这个次数与保存时不同。但是，通过 `a.data`（与 `a` 共享内存的另一个张量）所做的改动不计入次数。先预测梯度，再往下看。

# %% check="saved_is_changed_by_data"
a = 2 * x
y = (a * a).sum()
a.data.add_(1)  # not counted
y.backward()
x.grad

# %% [markdown] lang="en"
# There is no error, and the gradient is wrong: $8 x_i + 4$. The graph saves no copy, so the
# backward pass used the changed values $\mathbf{a} = 2\mathbf{x} + 1$ and computed
# $2 \cdot 2 (2 x_i + 1)$. The remedy is to leave $\mathbf{a}$ alone and to compute a new tensor,
# `b = a + 1`.
#
# A change through a NumPy array that shares the memory is not counted, either. We convert
# $\mathbf{a}$ to NumPy, for example for a plot, and add 1 to the array. We do this twice, with
# `.numpy()` and with a copy. Which of the two gradients is right?

# %% [markdown] lang="zh"
# 没有报错，梯度却错了：$8 x_i + 4$。计算图没有保存副本，所以反向传播用的是改动后的 $\mathbf{a} = 2\mathbf{x} + 1$，得到 $2 \cdot 2 (2 x_i + 1)$。解决办法是不改动 $\mathbf{a}$，另外计算一个新张量 `b = a + 1`。
#
# 通过共用底层存储的 NumPy 数组所做的改动，也不计入次数。例如为了画图，我们把 $\mathbf{a}$ 转换成 NumPy 数组，再给数组加上 1。这样做两次，一次用 `.numpy()`，一次用副本。两个梯度中，哪一个是对的？


# %% check="saved_is_changed_by_numpy"
def gradient_after(convert):
    w = torch.arange(size, dtype=kind, requires_grad=True)  # on the CPU, for NumPy
    a = 2 * w
    y = (a * a).sum()
    array = convert(a.detach())
    array += 1
    y.backward()
    return w.grad


gradient_after(lambda a: a.numpy()), gradient_after(lambda a: a.numpy().copy())

# %% [markdown] lang="en"
# The second gradient is right, because its array was a copy. In the first gradient, each element
# is 4 too large, and again there is no error.
#
# ## Through Python's control flow
#
# A function need not be a formula. The one below doubles its argument until it reaches a limit, and
# then takes one of two branches. The graph records the operations that are really executed.

# %% [markdown] lang="zh"
# 第二个是对的，因为它的数组是副本。第一个梯度的每个元素都大了 4，而且同样不报错。
#
# ## 对含控制流的函数求导
#
# 能求导的不只是公式。下面的函数把参数不断加倍，直到达到界限，然后执行两个分支中的一个。计算图记录的是真正执行过的运算。


# %%
def f(a):
    b = a * 2
    while b.abs() < limit:
        b = b * 2
    return b if b > 0 else 100 * b


# %% [markdown] lang="en"
# We draw $a$ at random and also use $-a$, so that both branches are executed. (If $a$ were zero,
# the loop would never end, and if $a$ were close to zero, the loop would need many steps. In these
# cases we draw again.)

# %% [markdown] lang="zh"
# 随机抽一个 $a$，同时取 $-a$，这样两个分支都会执行。（如果 $a$ 等于零，循环就永远不会结束；如果 $a$ 接近零，循环就要执行很多次。遇到这种情况就重新抽。）

# %% check="control_flow_value"
generator = np.random.default_rng(seed)
number = generator.standard_normal()
while abs(number) < 1e-3:
    number = generator.standard_normal()
a = torch.tensor([number, -number], dtype=kind, device=device, requires_grad=True)
d = torch.stack([f(a[0]), f(a[1])])
a, d

# %% [markdown] lang="en"
# Along the executed path, $f$ multiplies by 2 several times, say $k$ times, and perhaps once by 100.
# Therefore, near $a$, it is a straight line through the origin, with the slope $2^k$ or
# $100 \cdot 2^k$:

# %% [markdown] lang="zh"
# 在执行过的路径上，$f$ 乘了若干次 2（设为 $k$ 次），也许还乘了一次 100。所以在 $a$ 附近，它是一条过原点的直线，斜率为 $2^k$ 或 $100 \cdot 2^k$：

# %% check="control_flow"
d.sum().backward()
a.grad

# %% tags=["figure"]
points = torch.linspace(0.1, 4, 800, dtype=torch.float64)
values = torch.stack([f(p) for p in points])
figure, axes = plt.subplots(figsize=(7, 2.6))
ratio = values / points
for slope in ratio.unique():
    mine = ratio == slope
    axes.plot(points[mine], values[mine], color="#1f5fa8", linewidth=2)
    right = points[mine][-1]
    axes.plot([0, right], [0, slope * right], color="#a9c6de", linewidth=0.8, zorder=0)
    if right > 0.4:
        axes.text(right, slope * right, f"{slope:g}", ha="right", va="bottom", size=8)
axes.set(xlabel="a", ylabel="d = f(a)")
axes.spines[["top", "right"]].set_visible(False)
plt.show()

# %% [markdown] lang="en"
# **Figure.** For positive $a$, the function consists of straight pieces (thick), each on a line through
# the origin (thin); some slopes are written above. At each jump, the number of doublings changes by
# one. Autograd gives the slope of the piece on which $a$ lies, and ignores the jumps. (A central
# difference across a jump would be huge and meaningless.)

# %% [markdown] lang="zh"
# **图**。$a > 0$ 时，函数由一段段线段组成（粗线），每一段都在一条过原点的直线上（细线），上方标出了几个斜率。每跨过一个跳跃点，加倍的次数就相差一次。自动求导给出的是 $a$ 所在那一段的斜率，不考虑跳跃。（如果中心差分的两点分居跳跃点两侧，就会得到一个很大而没有意义的数。）

# %% [markdown] lang="en"
# ## Exact, or close?
#
# On a line through the origin, $d = a \cdot f'(a)$. Is this exactly true in floating-point arithmetic?
# Multiplying by $2^k$ is exact. Multiplying by 100 is rounded once on each side, in the same way.
# Therefore both sides are equal to the last bit:

# %% [markdown] lang="zh"
# ## 精确相等，还是接近？
#
# 在过原点的直线上，$d = a \cdot f'(a)$。在浮点运算里，这个等式精确成立吗？乘以 $2^k$ 是精确的；乘以 100 时，两边各舍入一次，而且舍入的方式相同。所以两边的每一位都相同：

# %% check="control_flow_product"
d == a * a.grad

# %% [markdown] lang="en"
# The quotient $d / a$ is rounded once more, so it may differ from `a.grad` in the last bit. Compare it
# with the gradient above. `allclose` compares the two with a tolerance.

# %% [markdown] lang="zh"
# 商 $d / a$ 又舍入了一次，所以最后一位可能与 `a.grad` 不同。请与上面的梯度比较。`allclose` 按容差比较两者。

# %% check="quotient"
(d / a).detach(), torch.allclose(d / a, a.grad)

# %% [markdown] lang="en"
# How often does this happen? The factor 100 is the reason. Therefore we take a thousand numbers,
# multiply each of them by 100, divide the product by the number again, and compute the share of the
# numbers for which the result is not exactly 100.

# %% [markdown] lang="zh"
# 这种情况多不多？误差来自因子 100，所以只看这一个因子就够了：取一千个数，每个先乘以 100，再除以原来的数，看有多大比例的结果不恰好等于 100。

# %% check="quotient_misses"
many = torch.from_numpy(np.random.default_rng(seed).standard_normal(1000)).to(a)
(100 * many / many != 100).double().mean()

# %% [markdown] lang="en"
# This is often enough to break a program, and rare enough to pass its tests. The quotient is only close
# to the gradient, so compare it with a tolerance. Never test floating-point results with `==`
# unless you can say why they are exact.
#
# > **If your notes** test `d / a == a.grad`: this fails for some negative $a$.

# %% [markdown] lang="zh"
# 这个比例大到足以让程序出错，又小到容易通过测试。商只是接近梯度，所以比较时要给出容差。除非说得出两边为什么都精确，否则不要用 `==` 检验浮点运算的结果。
#
# > **如果笔记上**用 `d / a == a.grad` 检验：对一部分负的 $a$，结果是 `False`。

# %% [markdown] lang="en"
# ## What to remember
#
# 1. Call `requires_grad_()`, compute, call `backward()`, and read `.grad`.
# 2. Clear the gradient before the next pass, because gradients add up.
# 3. Run the forward pass again before each `backward()`, because `backward()` frees the saved values.
# 4. An output with several elements needs `gradient=`, or a sum.
# 5. `detach()` makes a constant, which shares memory with the original.
# 6. A Python number has no history: `.item()` and `.tolist()` cut the graph.
# 7. Never change a tensor that the graph has saved, especially through `.data` or `.numpy()`.
# 8. Autograd differentiates the path that was executed.

# %% [markdown] lang="zh"
# ## 要点
#
# 1. 先 `requires_grad_()`，再计算，再 `backward()`，最后读取 `.grad`。
# 2. 下一次反向传播之前要清零，因为梯度会累积。
# 3. 每次 `backward()` 之前要重新做前向传播，因为 `backward()` 会释放保存的值。
# 4. 输出有多个元素时，给出 `gradient=`，或者先求和。
# 5. `detach()` 得到常数，它与原张量共用底层存储。
# 6. Python 的数没有计算历史：`.item()` 和 `.tolist()` 会切断计算图。
# 7. 不要改动计算图保存的张量，尤其不要通过 `.data` 或 `.numpy()` 改动。
# 8. 自动求导针对的是真正执行过的路径。

# %% [markdown] lang="en"
# ## Exercises
#
# Replace each `...` with your own code. If you doubt a gradient, test it with `slopes`.

# %% [markdown] lang="zh"
# ## 练习
#
# 把每一处 `...` 换成你自己的代码。对哪个梯度有疑问，就用 `slopes` 检验一下。

# %% [markdown] lang="en" tags=["exercise"]
# ### 1. The logistic function
#
# $\sigma(x) = 1 / (1 + e^{-x})$ turns any number into a number between 0 and 1. Find its derivative
# at each of the points in `x`, with a single backward pass. On paper it is
# $\sigma(x)\,(1 - \sigma(x))$: do the two agree?

# %% [markdown] lang="zh" tags=["exercise"]
# ### 1. 逻辑斯谛函数
#
# $\sigma(x) = 1 / (1 + e^{-x})$ 把任何数变成 0 与 1 之间的数。只用一次反向传播，求出它在 `x` 的每个点上的导数。手算的结果是 $\sigma(x)\,(1 - \sigma(x))$：两者一致吗？

# %% tags=["exercise"]
x = torch.linspace(-2, 2, size, dtype=kind, device=device, requires_grad=True)
sigma = ...  # elementwise
...  # one backward pass for all
logistic_slope = x.grad
logistic_slope

# %% tags=["solution"] check="logistic_slope"
x = torch.linspace(-2, 2, size, dtype=kind, device=device, requires_grad=True)
sigma = 1 / (1 + torch.exp(-x))  # elementwise
sigma.sum().backward()  # one backward pass for all
logistic_slope = x.grad
logistic_slope

# %% [markdown] lang="en" tags=["exercise"]
# ### 2. Which v gives the mean?
#
# Let $\mathbf{y} = \mathbf{x}^3$, elementwise. Choose $\mathbf{v}$ so that `backward` leaves the
# gradient of the *mean* of $\mathbf{y}$ in `x.grad`, without computing a mean.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 取什么 v 才得到均值？
#
# 令 $\mathbf{y} = \mathbf{x}^3$（逐元素）。选一个 $\mathbf{v}$，使 `backward` 之后 `x.grad` 是 $\mathbf{y}$ 的**均值**的梯度，但不要真的去求均值。

# %% tags=["exercise"]
x = torch.arange(size, dtype=kind, device=device, requires_grad=True)
y = x**3
v = ...  # in the shape of y
...  # back, with v
mean_gradient = x.grad
mean_gradient

# %% tags=["solution"] check="mean_gradient"
x = torch.arange(size, dtype=kind, device=device, requires_grad=True)
y = x**3
v = torch.full_like(x, 1 / size)  # in the shape of y
y.backward(gradient=v)
mean_gradient = x.grad
mean_gradient

# %% [markdown] lang="en" tags=["exercise"]
# ### 3. Two paths out of three
#
# Write $\mathbf{z}$ so that its values are $x_i^3$ and its gradient is $2 x_i^2$, as if one of the
# three factors were a constant.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 3. 三条路径只算两条
#
# 写出 $\mathbf{z}$，使它的值是 $x_i^3$，而梯度是 $2 x_i^2$，就好像三个因子中有一个是常数。

# %% tags=["exercise"]
x = torch.arange(size, dtype=kind, device=device, requires_grad=True)
z = ...
...  # one backward pass
two_paths = z, x.grad
two_paths

# %% tags=["solution"] check="two_paths"
x = torch.arange(size, dtype=kind, device=device, requires_grad=True)
z = x * x * x.detach()
z.sum().backward()
two_paths = z, x.grad
two_paths

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - `size = 6`: where do the numbers of $\mathbf{v}$ repeat?
# - `seed = 0`, or `dtype = "float64"`: is the quotient exact?
# - `limit = 10`: where are the jumps of the figure then?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `size = 6`：$\mathbf{v}$ 的数从哪里开始重复？
# - `seed = 0`，或 `dtype = "float64"`：商是精确的吗？
# - `limit = 10`：图中的跳跃在哪里？
