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
# Training changes the parameters of a network a little at a time, in the direction that lowers the
# loss. This direction is opposite to the **gradient**, which holds one derivative for each
# parameter. A network can have billions of parameters, so nobody derives them by hand.
#
# After this lesson you can let PyTorch differentiate any computation that you write, you know
# when gradients add up and where they stop, and you can test a gradient independently.

# %% [markdown] lang="zh"
# # 自动求导
#
# 训练，就是把网络的参数朝着使损失下降的方向一点一点地改，也就是逆着**梯度**走。梯度里每个参数对应一个导数，而参数可能有几十亿个，没有人能逐个手算。
#
# 学完这一课，你写下的任何计算都能交给 PyTorch 求导（**自动求导**，学名自动微分）；你会知道梯度何时累积、在哪里中断，还能独立地检验一个梯度。

# %% tags=["parameters"]
size: int = 4  # length of x, the vector to differentiate with respect to
seed: int = 15  # of the draw of a, where the computation branches
dtype: str = "float32"  # dtype of the tensors
limit: float = 1000.0  # the loop of the last section doubles until it reaches this
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
# is $y = 2\sum_i x_i^2$. Each $x_i$ occurs in only one term, so
#
# $$\frac{\partial y}{\partial x_i} = 4 x_i .$$
#
# Keep this result in mind. First, we need the vector:

# %% [markdown] lang="zh"
# ## 一个梯度
#
# 先看一个能手算的例子。令 $y = 2\,\mathbf{x}^\top \mathbf{x}$，也就是 $y = 2\sum_i x_i^2$。每个 $x_i$ 只出现在一项里，所以
#
# $$\frac{\partial y}{\partial x_i} = 4 x_i .$$
#
# 记住这个结果。先准备好向量：

# %% check="vector"
x = torch.arange(size, dtype=kind, device=device)
x

# %% [markdown] lang="en"
# To differentiate with respect to `x`, PyTorch must record every operation that uses `x`.
# `requires_grad_(True)` asks for this. The gradient will be stored in `x.grad`. What is in it now?

# %% [markdown] lang="zh"
# 要对 `x` 求导，PyTorch 就得记录 `x` 参与的每一步运算，`requires_grad_(True)` 提出这个要求。梯度将存放在 `x.grad` 里。什么都还没算的时候，那里有什么？

# %% check="no_gradient_yet"
x.requires_grad_(True)  # or at once: torch.arange(4.0, requires_grad=True)
x.grad is None

# %% [markdown] lang="en"
# Nothing yet: it is `None`, not zeros. Now the **forward pass** computes $y$, and PyTorch records each
# operation in a **computational graph**. The output shows this record as `grad_fn`: the last
# operation was a multiplication.

# %% [markdown] lang="zh"
# 什么也没有：是 `None`，不是零。现在做**前向传播**，算出 $y$；PyTorch 一边算，一边把每步运算记进**计算图**。输出里的 `grad_fn` 就是这份记录：最后一步是乘法。

# %% check="y"
y = 2 * torch.dot(x, x)
y

# %% [markdown] lang="en"
# The **backward pass** walks the graph from $y$ back to $\mathbf{x}$ and applies the chain
# rule at each step. Predict `x.grad` before you look.

# %% [markdown] lang="zh"
# **反向传播**从 $y$ 出发，沿着计算图反向走回 $\mathbf{x}$，每一步用一次链式法则。先预测 `x.grad`，再往下看。

# %% check="gradient"
y.backward()
x.grad

# %% [markdown] lang="en"
# This is the gradient that we derived. Only a **leaf tensor**, which is not the result of an operation,
# keeps its gradient: `x` does, and `y` does not (unless you call `y.retain_grad()` first).
#
# The computer can compare the two. For this function both sides are exact, because multiplying by 2
# or 4 only changes the exponent of a floating-point number.

# %% [markdown] lang="zh"
# 与手算一致。只有**叶子张量**，也就是不由运算得来的张量，才保存梯度：`x` 是，`y` 不是（除非事先调用 `y.retain_grad()`）。
#
# 也可以让计算机来验证：对这个函数，两边都是精确的，因为乘以 2 和 4 只改变浮点数的指数。

# %% check="gradient_is_4x"
x.grad == 4 * x

# %% [markdown] lang="en"
# ## An independent test
#
# Our derivation could be wrong, too. There is a test that needs no calculus: change one $x_i$ a little
# in both directions, and see how much $y$ changes. This is the **central difference**
#
# $$\frac{\partial y}{\partial x_i} \approx \frac{f(x_i + h) - f(x_i - h)}{2h} .$$
#
# We compute it in `float64`, because subtracting numbers that are close loses digits.

# %% [markdown] lang="zh"
# ## 独立的检验
#
# 我们的推导也可能出错。有一种检验不需要微积分：把某个 $x_i$ 向两边各移一点，看 $y$ 变了多少。这就是**中心差分**
#
# $$\frac{\partial y}{\partial x_i} \approx \frac{f(x_i + h) - f(x_i - h)}{2h} .$$
#
# 相近的数相减会丢失有效数字，所以用 `float64` 来算。


# %% tags=["setup"]
def slopes(f, x, h=2.0**-10):
    """Central differences of the scalar f at x, one for each element."""
    steps = h * torch.eye(len(x)).to(x)  # row i moves x_i alone
    return torch.stack([(f(x + step) - f(x - step)) / (2 * h) for step in steps])


# %% check="numeric_gradient"
x64 = x.detach().double()
slopes(lambda x: 2 * torch.dot(x, x), x64)

# %% [markdown] lang="en"
# The results of all three agree: by hand, by autograd, and numerically. From here on, each new gradient
# gets the same test.

# %% [markdown] lang="zh"
# 手算、自动求导、数值差分，三种方法结果一致。下面每个新梯度都要接受同样的检验。

# %% [markdown] lang="en"
# ## Gradients add up
#
# Call `backward` once more. What do you expect?

# %% [markdown] lang="zh"
# ## 梯度会累积
#
# 再调用一次 `backward`，你预计会怎样？

# %% check="same_graph_twice" raises="RuntimeError"
y.backward()

# %% [markdown] lang="en"
# An error: the backward pass frees the values that the graph has saved for the chain rule, because
# they take memory. To differentiate again, we compute $y$ again, which builds a new graph. (The
# error message suggests `retain_graph=True`, which keeps the values. You need it only if you go
# back through the same graph twice on purpose.)

# %% [markdown] lang="zh"
# 报错了：反向传播会释放计算图为链式法则保存的中间值，以节省内存。想再求一次导，就重新计算 $y$，建立新的计算图。（报错信息里提到的 `retain_graph=True` 会保留这些值，只有确实要在同一张图上反向传播两次时才需要它。）


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
# **图**。$\mathbf{x} = (0, 1, 2)$ 时 $y = 2\,\mathbf{x}^\top \mathbf{x}$ 的计算图，左为 `backward()` 之前，右为之后。箭头是反向传播的方向。每个运算下方的蓝框是它保存的值，虚线框表示已经释放。

# %% check="accumulated"
y = 2 * torch.dot(x, x)
y.backward()
x.grad

# %% [markdown] lang="en"
# Not $4\mathbf{x}$ but $8\mathbf{x}$. PyTorch *adds* a new gradient to what is already in
# `x.grad`, which is called **gradient accumulation**. This is intended, because it lets several small
# batches act as one large batch. But if you forget it, you train with the sum of all gradients so
# far. Therefore we clear the gradient before the next pass:

# %% [markdown] lang="zh"
# 不是 $4\mathbf{x}$，而是 $8\mathbf{x}$。PyTorch 把新梯度**加**到 `x.grad` 已有的值上，这叫**梯度累积**。这样设计是有意的：几个小批量可以合起来当一个大批量用。但如果忘了清零，训练时用的就是历次梯度之和。所以，下一次反向传播之前要做一次**梯度清零**：

# %% check="cleared"
x.grad.zero_()

# %% check="after_clearing"
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
# **Figure.** The gradient at $x = 1$ after each call. Every `backward()` adds 4, which gives 4, 8, 12;
# `zero_()` sets it back to zero. In a training loop `optimizer.zero_grad()` clears the gradients of
# all parameters; by default it sets them to `None`.

# %% [markdown] lang="zh"
# **图**。每次调用之后 $x = 1$ 处的梯度：每次 `backward()` 加 4，形成 4、8、12 的台阶；`zero_()` 让它归零。在训练循环里，`optimizer.zero_grad()` 为所有参数清除梯度，默认是把它们重新设为 `None`。

# %% [markdown] lang="en"
# ## When the output is not a single number
#
# Now let $\mathbf{y}$ be the vector of the squares, $y_i = x_i^2$. We try what worked before.

# %% [markdown] lang="zh"
# ## 输出不是一个数的时候
#
# 现在令 $\mathbf{y}$ 为各元素的平方组成的向量，$y_i = x_i^2$。照刚才的办法试一试。

# %% check="nonscalar_fails" raises="RuntimeError"
x.grad.zero_()
y = x * x
y.backward()

# %% [markdown] lang="en"
# PyTorch refuses for a good reason: the derivatives of a vector with respect to a vector form a matrix,
# the **Jacobian** $J_{ij} = \partial y_i / \partial x_j$, which would be huge for a network.
# Training needs only one row, $\mathbf{v}^\top J$, the **vector–Jacobian product**, and we must
# say which $\mathbf{v}$. The usual choice is a vector of ones. It gives the gradient of the sum,
# so that we can also sum first:

# %% [markdown] lang="zh"
# PyTorch 拒绝了，而且有道理：向量对向量求导得到一个矩阵，即**雅可比矩阵** $J_{ij} = \partial y_i / \partial x_j$，对一个网络来说它大得惊人。训练需要的只是一行 $\mathbf{v}^\top J$，叫**向量–雅可比积**，而 $\mathbf{v}$ 要由我们指定。最常用的是全一向量，那正是对各元素之和求导，所以先求和也一样：

# %% check="sum_gradient"
y.sum().backward()
x.grad

# %% check="numeric_sum"
slopes(lambda x: (x * x).sum(), x64)

# %% [markdown] lang="en"
# Any other $\mathbf{v}$ is passed as `gradient`, in the shape of $\mathbf{y}$. With numbers that are
# easy to recognise, $\mathbf{v} = (1, 10, 100, \ldots)$, we see that each output has its own
# weight: $2 x_i v_i$.

# %% [markdown] lang="zh"
# 换一个 $\mathbf{v}$，就用 `gradient` 参数传进去，形状与 $\mathbf{y}$ 相同。取容易辨认的数 $\mathbf{v} = (1, 10, 100, \ldots)$，就能看出每个输出各有各的权重：$2 x_i v_i$。

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
# **图**。行向量 $\mathbf{v}^\top$ 乘以雅可比矩阵 $J$（这里取前四个元素），就是 `backward` 加进 `x.grad` 的那一行。$y_i$ 只依赖 $x_i$，所以 $J$ 是对角的；`backward` 从不真的构造这个矩阵。

# %% [markdown] lang="en"
# A tensor with one element needs no `gradient`: the shape (1, 1) is as clear as a scalar.

# %% [markdown] lang="zh"
# 只有一个元素的张量不必给出 `gradient`：形状为 (1, 1) 的张量和标量一样，梯度没有歧义。

# %% check="one_element"
w = torch.full((1, 1), float(size), dtype=kind, device=device, requires_grad=True)
(w * w).backward()
w.grad

# %% [markdown] lang="en"
# ## Detaching from the graph
#
# Sometimes a value should count as a constant, for example a target, or a weight that is not to be
# trained. `detach()` gives the same values without their history. Let $\mathbf{u}$ be the
# detached $\mathbf{y} = \mathbf{x}^2$ and $\mathbf{z} = \mathbf{u}\mathbf{x}$. As
# $\mathbf{u}$ is a constant, $\partial z_i / \partial x_i = u_i = x_i^2$.

# %% [markdown] lang="zh"
# ## 从计算图中分离
#
# 有时想让某个值只当常数用：比如目标值，或不参加训练的权重。`detach()` 把它从计算图中**分离**出来：数值相同，但不再带有计算历史。令 $\mathbf{u}$ 为分离后的 $\mathbf{y} = \mathbf{x}^2$，$\mathbf{z} = \mathbf{u}\mathbf{x}$。既然 $\mathbf{u}$ 是常数，$\partial z_i / \partial x_i = u_i = x_i^2$。

# %% check="detached"
x.grad.zero_()
y = x * x
u = y.detach()
z = u * x
z.sum().backward()
x.grad

# %% check="detached_is_u"
x.grad == u

# %% [markdown] lang="en"
# The numerical test must keep $\mathbf{u}$ fixed as well: it must differentiate the same function.

# %% [markdown] lang="zh"
# 用差分检验时也要让 $\mathbf{u}$ 保持不变，这样求导的才是同一个函数。

# %% check="numeric_detached"
slopes(lambda x: (u.double() * x).sum(), x64)

# %% [markdown] lang="en"
# Without `detach` the path through $\mathbf{y}$ counts, too: $z_i = x_i^3$, so the gradient is
# $3 x_i^2$.

# %% [markdown] lang="zh"
# 不分离，经过 $\mathbf{y}$ 的那条路径也要算：$z_i = x_i^3$，梯度就是 $3 x_i^2$。

# %% check="not_detached"
x.grad.zero_()
y = x * x
z = y * x
z.sum().backward()
x.grad

# %% check="numeric_not_detached"
slopes(lambda x: (x * x * x).sum(), x64)

# %% [markdown] lang="en"
# Two things are worth knowing. Detaching leaves the graph of $\mathbf{y}$ itself intact, which still
# gives $2\mathbf{x}$. And nothing is copied: $\mathbf{u}$ and $\mathbf{y}$ share memory, so
# writing into one changes the other.

# %% [markdown] lang="zh"
# 还有两点要知道。分离并不破坏 $\mathbf{y}$ 自己的计算图：对它求导仍得 $2\mathbf{x}$。分离也不复制数据：$\mathbf{u}$ 与 $\mathbf{y}$ 共用底层存储，改一个，另一个也变。

# %% check="y_keeps_its_graph"
x.grad.zero_()
y = x * x
u = y.detach()
y.sum().backward()
x.grad

# %% check="shares_memory"
u[0] = 7
y[0].item(), u.data_ptr() == y.data_ptr(), u.requires_grad

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
# **图**。同样的值，三种梯度：分离 $\mathbf{u}$ 得 $x^2$，不分离得 $3x^2$，单看 $\mathbf{y}$ 得 $2x$。蓝线与红线之差，就是从 $\mathbf{y}$ 流过来的那一部分。

# %% [markdown] lang="en"
# ## A path lost by accident
#
# `detach` cuts a path on purpose, but a path can also be cut by accident. A Python number has no
# history, so `.item()` and `.tolist()` cut the graph, and putting the number back into a tensor
# does not repair it.
#
# Let $s = \sum_j x_j$ and $y = \sum_i s\,x_i$. Then $y = s^2$ and
# $\partial y / \partial x_i = 2s$: each $x_i$ counts twice, as a term of the sum and within $s$.

# %% [markdown] lang="zh"
# ## 不小心切断的路径
#
# `detach` 是有意分离，但路径也会在无意间被切断。Python 的数没有计算历史，所以 `.item()` 和 `.tolist()` 会切断计算图；把数放回张量里，也接不回去。
#
# 令 $s = \sum_j x_j$，$y = \sum_i s\,x_i$，于是 $y = s^2$，$\partial y / \partial x_i = 2s$：每个 $x_i$ 都起两次作用，一次是作为求和的一项，一次是在 $s$ 里。

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
# 没有报错，没有警告，梯度看上去也合理。只有用差分检验，才发现少了一半：

# %% check="numeric_lost_path"
slopes(lambda x: (x.sum() * x).sum(), x64)

# %% [markdown] lang="en"
# The remedy is to keep tensors until the backward pass is over. `requires_grad` tells whether a
# tensor is still connected to the graph.

# %% [markdown] lang="zh"
# 办法是：反向传播结束之前，一直用张量。张量是否仍连在计算图上，看 `requires_grad` 就知道。

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
# $\partial y / \partial x_i = 8 x_i$. What if $\mathbf{a}$ is changed in place before it
# is needed?

# %% [markdown] lang="zh"
# ## 改动计算图保存的值
#
# 反向传播要用到前向传播时的值：为了对 $a_i^2$ 求导，计算图**保存**了 $\mathbf{a}$。令 $\mathbf{a} = 2\mathbf{x}$，$y = \sum_i a_i^2$，于是 $\partial y / \partial x_i = 8 x_i$。如果在用到 $\mathbf{a}$ 之前就把它原地改了，会怎样？

# %% check="changed"
x.grad.zero_()
a = 2 * x
y = (a * a).sum()
a.add_(1)
y, a

# %% check="saved_is_changed" raises="RuntimeError"
y.backward()

# %% [markdown] lang="en"
# An error, and this is the good case. A tensor counts its changes in place. The graph records this
# count when it saves the tensor, and compares it before it uses the tensor. We can look at the
# count, too. (The underscore of `_version` warns that it may change.) We add 1 in three ways.
# Which of them are counted?

# %% [markdown] lang="zh"
# 报错了，这还是好的情形。张量会记录自己被原地改了几次；计算图保存它时记下次数，使用之前再核对一遍。我们也来看看这个次数。（`_version` 开头的下划线提醒我们，它以后可能会变。）下面用三种办法各加一次 1，哪几次会被记下？

# %% check="changes_counted"
a = 2 * x
counts = []
for add in (a.add_, a.detach().add_, a.data.add_):
    add(1)
    counts.append(a._version)
counts, a

# %% [markdown] lang="en"
# All three changed the values, but only two were counted: `detach()` shares the counter, but `.data`
# does not, so the graph cannot notice the change. Predict the gradient.

# %% [markdown] lang="zh"
# 三次都写进去了，却只记下两次：`detach()` 得到的张量与原张量共用计数，`.data` 则不然，计算图也就无从知晓。先预测梯度，再往下看。

# %% check="saved_is_changed_by_data"
a = 2 * x
y = (a * a).sum()
a.data.add_(1)  # not counted
y.backward()
x.grad

# %% [markdown] lang="en"
# There is no error, and the gradient is wrong: $8 x_i + 4$. The backward pass used the changed
# $\mathbf{a} = 2\mathbf{x} + 1$ instead of the one that it had saved, which gives
# $2 \cdot 2 (2 x_i + 1)$. The remedy is to leave $\mathbf{a}$ alone and to compute a new tensor.

# %% [markdown] lang="zh"
# 没有报错，梯度却错了：$8 x_i + 4$。反向传播把改过的 $\mathbf{a} = 2\mathbf{x} + 1$ 当成了当初保存的那个，算出 $2 \cdot 2 (2 x_i + 1)$。办法是不去动 $\mathbf{a}$，另算一个新张量。

# %% check="saved_is_left_alone"
x.grad.zero_()
a = 2 * x
y = (a * a).sum()
b = a + 1  # a new tensor
y.backward()
b, x.grad

# %% check="numeric_saved"
slopes(lambda x: (2 * x * 2 * x).sum(), x64)

# %% [markdown] lang="en"
# A NumPy array that shares the memory bypasses the counter, too. We convert $\mathbf{a}$ to NumPy, for
# example for a plot, and add 1 to the array. (This tensor is on the CPU, because NumPy uses no
# other memory.)

# %% [markdown] lang="zh"
# 共用底层存储的 NumPy 数组也会绕过计数。比如为了画图，把 $\mathbf{a}$ 转换成 NumPy 数组，再给数组加上 1。（NumPy 只能使用 CPU 的内存，所以这个张量放在 CPU 上。）

# %% check="saved_is_changed_by_numpy"
w = torch.arange(size, dtype=kind, requires_grad=True)
a = 2 * w
y = (a * a).sum()
array = a.detach().numpy()
array += 1  # and so is a
y.backward()
array, w.grad

# %% [markdown] lang="en"
# The gradient is wrong in the same way, 4 too large everywhere, and again there is no error. The remedy
# is a copy: then you can change the array, and the gradient stays right.

# %% [markdown] lang="zh"
# 同样的错误梯度，每个元素都大了 4，而且同样不报错。办法是复制一份：这样改动数组，梯度仍然正确。

# %% check="copied_to_numpy"
w.grad.zero_()
a = 2 * w
y = (a * a).sum()
array = a.detach().numpy().copy()
array += 1
y.backward()
array, w.grad

# %% [markdown] lang="en"
# ## Through Python's control flow
#
# A function need not be a formula. The one below doubles its argument until it reaches a limit, and then
# takes one of two branches. The graph records the operations that were really executed.

# %% [markdown] lang="zh"
# ## 对控制流求导
#
# 能求导的不只是公式。下面的函数不断加倍，直到达到界限，再走两个分支之一。计算图记下的是真正执行过的运算。


# %%
def f(a):
    b = a * 2
    while b.abs() < limit:
        b = b * 2
    return b if b > 0 else 100 * b


# %% [markdown] lang="en"
# We draw $a$ at random and also use $-a$, so that both branches are executed. (A value near zero would
# be doubled many times, and zero itself forever; therefore we draw again.)

# %% [markdown] lang="zh"
# 随机抽一个 $a$，同时取 $-a$，这样两个分支都会执行。（离零太近要加倍很多次，等于零则永远不停，遇到就重抽。）

# %% check="draw"
generator = np.random.default_rng(seed)
number = generator.standard_normal()
while abs(number) < 1e-3:
    number = generator.standard_normal()
a = torch.tensor([number, -number], dtype=kind, device=device, requires_grad=True)
a

# %% check="control_flow_value"
d = torch.stack([f(a[0]), f(a[1])])
d

# %% [markdown] lang="en"
# Along the executed path, $f$ multiplies $k$ times by 2, and perhaps once by 100. Therefore, near $a$,
# it is a straight line through the origin, with the slope $2^k$ or $100 \cdot 2^k$:

# %% [markdown] lang="zh"
# 在执行过的路径上，$f$ 只是乘 $k$ 次 2，也许再乘一次 100。所以在 $a$ 附近它是一条过原点的直线，斜率为 $2^k$ 或 $100 \cdot 2^k$：

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
# **Figure.** For positive $a$ the function consists of straight pieces (dark), each on a line through
# the origin (light); some slopes are written above. At each jump the number of doublings changes by
# one. Autograd gives the slope of the piece on which $a$ lies, and ignores the jumps.

# %% [markdown] lang="zh"
# **图**。对正的 $a$，函数由一段段直线组成（深色），每一段都在一条过原点的直线上（浅色），上方标了几个斜率。每到跳跃处，加倍的次数就差一次。自动求导给出的是 $a$ 所在那一段的斜率，与跳跃无关。

# %% [markdown] lang="en"
# ## Exact, or close?
#
# On a line through the origin, $d = a \cdot f'(a)$. Is this exactly true in floating-point arithmetic?
# The factor $2^k$ is exact, and the product with 100 is rounded once on each side, in the same way.
# Therefore the two are equal to the last bit:

# %% [markdown] lang="zh"
# ## 精确相等，还是接近？
#
# 既然 $f$ 在这里是过原点的直线，就有 $d = a \cdot f'(a)$。在浮点运算里，这个等式精确成立吗？乘以 $2^k$ 是精确的；乘以 100 在两边各舍入一次，而且舍入得一样。所以两边每一位都相同：

# %% check="control_flow_product"
d == a * a.grad

# %% [markdown] lang="en"
# The quotient $d / a$ is different. It is rounded a second time, so that it may differ from `a.grad` in
# the last bit. Compare it with the gradient above:

# %% [markdown] lang="zh"
# 商 $d / a$ 就不同了：它多舍入一次，最后一位可能与 `a.grad` 不同。请与上面的梯度比较：

# %% check="quotient"
(d / a).detach()

# %% [markdown] lang="en"
# How often does this happen? The factor 100 is the reason. Therefore we take a thousand numbers,
# multiply each by 100, divide the product by the number again, and compute the share that does not
# give exactly 100.

# %% [markdown] lang="zh"
# 这种情况多不多？问题出在因子 100 上。取一千个数，每个先乘 100，再除以自己，看有多大比例不恰好等于 100。

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
# 这个比例大到足以让程序出错，又小到容易躲过测试。商只是接近梯度，比较时就要给出容差。除非说得出为什么精确，否则不要用 `==` 检验浮点结果。
#
# > **如果笔记上**用 `d / a == a.grad` 检验：对一部分负的 $a$，结果是 `False`。

# %% check="quotient_is_close"
torch.allclose(d / a, a.grad)

# %% [markdown] lang="en"
# ## What to remember
#
# 1. `requires_grad_()`, compute, `backward()`, read `.grad`.
# 2. Clear the gradient before the next pass, because gradients add up.
# 3. Run the forward pass again before each `backward()`, because it frees the graph.
# 4. An output with several elements needs `gradient=`, or a sum.
# 5. `detach()` makes a constant, which shares memory with the original.
# 6. A Python number has no history: `.item()` and `.tolist()` cut the graph.
# 7. Never change a tensor that the graph has saved, especially through `.data` or `.numpy()`.
# 8. Autograd differentiates the path that was executed.

# %% [markdown] lang="zh"
# ## 要点
#
# 1. `requires_grad_()`，计算，`backward()`，读 `.grad`。
# 2. 下一次反向传播之前先清零：梯度会累积。
# 3. 每次 `backward()` 之前重新做前向传播：计算图用过就释放了。
# 4. 输出有多个元素时，给出 `gradient=`，或先求和。
# 5. `detach()` 得到常数，但与原张量共用底层存储。
# 6. Python 的数没有计算历史：`.item()` 和 `.tolist()` 会切断计算图。
# 7. 不要改动计算图保存的张量，尤其不要通过 `.data` 或 `.numpy()` 去改。
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
# $\sigma(x) = 1 / (1 + e^{-x})$ turns any number into one between 0 and 1. Find its derivative at
# each of the points in `x`, with a single backward pass. On paper it is
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
# ### 2. Two steps downhill
#
# Let the loss be $\sum_i w_i^2$. Take two steps of **gradient descent**: each subtracts 0.1 times
# the gradient from `w`. Under `torch.no_grad()` nothing is recorded, so `w` may be changed in
# place. (If the last element ends below half of its first value, you forgot something between the
# steps.)

# %% [markdown] lang="zh" tags=["exercise"]
# ### 2. 两步梯度下降
#
# 设损失为 $\sum_i w_i^2$。做两步**梯度下降**：每一步，从 `w` 中减去梯度的 0.1 倍。在 `torch.no_grad()` 之下，运算不记入计算图，所以可以原地改动 `w`。（如果末尾的元素最后不到原值的一半，那就是两步之间忘了做一件事。）

# %% tags=["exercise"]
w = torch.arange(size, dtype=kind, device=device, requires_grad=True)
for _ in range(2):
    ...  # forward pass and backward pass
    with torch.no_grad():
        ...  # the step, in place
    ...  # before the next pass
two_steps = w.detach()
two_steps

# %% tags=["solution"] check="two_steps"
w = torch.arange(size, dtype=kind, device=device, requires_grad=True)
for _ in range(2):
    (w * w).sum().backward()
    with torch.no_grad():
        w -= 0.1 * w.grad
    w.grad.zero_()
two_steps = w.detach()
two_steps

# %% [markdown] lang="en" tags=["exercise"]
# ### 3. Which v gives the mean?
#
# Let $\mathbf{y} = \mathbf{x}^3$, elementwise. Choose $\mathbf{v}$ so that `backward` leaves the
# gradient of the *mean* of $\mathbf{y}$ in `x.grad`, without computing a mean.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 3. 取什么 v 才得到均值？
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
# ### 4. Two paths out of three
#
# Write $\mathbf{z}$ so that its values are $x_i^3$ and its gradient is $2 x_i^2$, as if one of the
# three factors were a constant.

# %% [markdown] lang="zh" tags=["exercise"]
# ### 4. 三条路径只算两条
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
# ## For the curious
#
# This section is optional. The numerical test is valid only if there is no jump between $a - h$ and
# $a + h$. To see why, we look for a jump: at $e$ = `limit`$/2^{10}$ the tenth doubling reaches the
# limit exactly, and a little below $e$ it does not. Which gradient does autograd give at $e$?

# %% [markdown] lang="zh"
# ## 选读
#
# 这一节可以略过。只有当 $a - h$ 与 $a + h$ 之间没有跳跃时，差分检验才成立。为了看清原因，我们去找一处跳跃：在 $e$ = `limit`$/2^{10}$ 处，第十次加倍恰好达到界限，而比 $e$ 小一点就达不到。在 $e$ 处，自动求导会给出什么？

# %% check="beside_a_jump"
e = torch.tensor(max(limit, 1.0) / 2**10, dtype=torch.float64, device=device)
e.requires_grad_()
f(e).backward()
e, f(e), e.grad

# %% [markdown] lang="en"
# It gives $2^{10}$, the slope of the piece on which $e$ itself lies. Now we move $a$, $-a$ and $e$ a
# little to both sides. If there is no jump in between, the ratio $f(p)/p$ is the same on both
# sides:

# %% [markdown] lang="zh"
# 给出的是 $2^{10}$，即 $e$ 自己所在那一段的斜率。现在让 $a$、$-a$ 和 $e$ 向两边各走一小步。如果中间没有跳跃，两边的比值 $f(p)/p$ 就相同：

# %%
points = torch.stack([*a.detach().double(), e.detach()])
h = points.abs() * 2**-20
low, high = (torch.stack([f(p) for p in side]) for side in (points - h, points + h))

# %% check="numeric_jump"
torch.isclose(low / (points - h), high / (points + h), rtol=1e-9)

# %% check="numeric_control_flow"
(high - low) / (2 * h)

# %% [markdown] lang="en"
# Where there is no jump, the differences confirm autograd. At $e$ the height of the jump is divided by a
# tiny step, which gives a huge number without any meaning. A test is only as good as its
# assumptions.

# %% [markdown] lang="zh"
# 在中间没有跳跃的地方，差分的结果与自动求导一致。而在 $e$ 处，是用跳跃的高度除以极小的步长，得到一个很大而没有意义的数。检验是否可靠，要看它的前提是否成立。

# %% [markdown] lang="en"
# ## Change this and run it again
#
# - `size = 6`: where do the numbers of $\mathbf{v}$ repeat?
# - `seed = 0`, or `dtype = "float64"`: is the quotient exact?
# - `limit = 10`: where are the jumps of the figure then?

# %% [markdown] lang="zh"
# ## 改一改，再运行
#
# - `size = 6`：$\mathbf{v}$ 的数字从哪里开始重复？
# - `seed = 0`，或 `dtype = "float64"`：商是精确的吗？
# - `limit = 10`：图中的跳跃在哪里？
