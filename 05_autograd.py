"""05  Autograd: a program that derives the gradients for us.

In 04 we derived the gradients of one kind of network by hand. Change the
network, and the derivation starts over. But every network is made of small
operations (+, *, matrix product, ReLU), and each of them has a simple
derivative. If every result remembers what it was computed from, a program can
apply the chain rule for us, from the loss back to every weight. This is called
reverse-mode automatic differentiation (Linnainmaa 1970). From 07 on this course
stands on such an engine, and so do libraries such as PyTorch.

    x = Tensor([1.0, 2.0])
    loss = (x * x).sum()        1 + 4 = 5
    loss.backward()             now x.grad is [2.0, 4.0], the slopes 2 x

Run           python 05_autograd.py
Expect        1 s. The gradients of all operations agree with measured slopes to
              1e-8, and those of the network of 04 with the ones by hand to 1e-14
Try           --activation=tanh   another network: nothing else has to change
              --lr=5              the ReLUs die, as in 04: the loss ends at ln 3,
                                  where each class gets the probability 1/3
Left out      gradients of gradients; whole layers as one operation, which is
              faster (09 and 10); better ways to use a gradient (06)
Carried from  01: numeric_gradient, relative_error.  04: init_net, forward,
              softmax, backward, spiral
"""
import argparse, inspect, itertools, math, os, sys

import numpy as np


# ---- new here: the idea, on single numbers --------------------------------------------------
# Let L be the final result, the loss, and let y be some number on the way to
# it. y.grad will hold dL/dy, how fast L changes with y: its gradient. Suppose
# y = a * b. If a grows by 1, y grows by b: this is the local slope dy/da. By
# the chain rule, y contributes
#     dL/dy * dy/da = y.grad * b to dL/da      and      y.grad * a to dL/db
# So each number has to remember its parents, here a and b, and the local slope
# with respect to each of them, here b and a.

class Value:
    """A number that remembers how it was made."""

    made = itertools.count()            # counts 0, 1, 2, ... for all Values

    def __init__(self, data, parents=(), slopes=()):
        self.data = data
        self.parents = parents
        self.slopes = slopes            # d(self)/d(parent) for each parent
        self.grad = 0.0                 # dL/d(self), once backward has run
        self.serial = next(Value.made)

    def __add__(self, other):
        return Value(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other):
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def backward(self):
        """Add dL/dx to x.grad of every number x that this one, L, comes from; call it once."""
        self.grad = 1.0                                 # dL/dL
        for node in reversed(topological_order(self)):  # from the newest on, see below
            for parent, slope in zip(node.parents, node.slopes):
                parent.grad += node.grad * slope


# The numbers and their parents form a graph; each number is a node of it. We
# walk from L backwards, because then one walk gives the slope of this one
# result with respect to everything. A forward walk starts at one weight and
# computes how fast each later number changes with it, so each weight would
# need a walk of its own.
#
# A number that was used twice collects the sum of two gradients, as in 04:
# hence the +=. It may hand its gradient on only when that sum is complete:
# after every node that was computed from it has handed on its own. A result is
# always made later than its parents, so it is enough to go from the newest
# node to the oldest. An order in which parents come first is called
# topological.

def topological_order(result):
    """The result and every node that it was computed from, each after its parents."""
    nodes, to_visit = {result}, [result]
    while to_visit:
        for parent in to_visit.pop().parents or ():  # a Tensor, below, may have None
            if parent not in nodes:
                nodes.add(parent)
                to_visit.append(parent)
    return sorted(nodes, key=lambda node: node.serial)


def small_graph(a, b):
    """A graph in which a, b, c and d are each used twice."""
    c = a + b
    d = a * b
    s = c + d
    p = c * d
    L = s + p
    return c, d, s, p, L


# What goes wrong without the order? Take a = 2 and b = 3, so c = 5 and d = 6.
# c gets 1 from s, and 6, the value of d, from p: dL/dc = 7. d gets 1 from s,
# and 5, the value of c, from p: dL/dd = 6. So
#     dL/da = 7 * 1 + 6 * b = 25          dL/db = 7 * 1 + 6 * a = 19
# The version below hands on at once whatever a node holds. c hands on the 1
# that it got from s, and later the whole 7, so that the 1 counts twice. The
# same happens to the 1 that d got. So a gets 1 * 1 + 1 * b = 4 too much, 29,
# and b gets 1 * 1 + 1 * a = 3 too much, 22.

def naive_backward(node):
    """Backward without an order: wrong where a number that has parents was used twice."""
    for parent, slope in zip(node.parents, node.slopes):
        parent.grad += node.grad * slope
        naive_backward(parent)


# ---- new here: the same for arrays ----------------------------------------------------------
# We call an array that remembers how it was made a Tensor, like that of
# PyTorch. (Elsewhere a tensor is any array.) Let the array y be computed from
# the array x. The local slopes dy_i/dx_j, one for each entry of y and each
# entry of x, are a large table, the Jacobian. In 04 a layer makes 360 x 32
# numbers (360 points, 32 units) out of 360 x 32 others. Its Jacobian has
# 11,520 * 11,520 = 133 million entries, nearly all of them 0, because a row of
# y depends on one row of x. Nobody stores that. All that backward needs is, by
# the fact at the top of 04,
#     dL/dx_j = sum over i of dL/dy_i * dy_i/dx_j
# a product of a vector, the entries of dL/dy in one long row, and this table:
# the vector-Jacobian product. Each operation has a short formula for it. Write
# g for dL/dy, an array of the shape of y. Then
#     y = exp(x)       dL/dx = g * exp(x)       each y_i depends on x_i alone
#     y = A @ B        dL/dA = g @ B.T          dL/dB = A.T @ g          (04)
# So a Tensor remembers its parents and, in place of the slopes, a function
# vjp. It takes the gradient of the Tensor and returns those of its parents.
#
# One thing is new with arrays: broadcasting (03). In X + b a single row b is
# added to each of N rows, as the biases of 04 are. It feeds N rows, so its
# gradient is the sum of N rows. What was copied forward is summed backward.
# NumPy copies in two steps. To fit the shape (2, 3, 4), an array of
# shape (3, 1) first gets a new axis in front, (1, 3, 1). Then its axes of
# length 1 are stretched.

def unbroadcast(grad, shape):
    """grad, summed over the copies that broadcasting has made of an array of this shape."""
    if grad.shape == shape:
        return grad
    grad = grad.sum(tuple(range(grad.ndim - len(shape))))  # the new axes; () sums none
    axes = tuple(i for i, size in enumerate(shape) if size != grad.shape[i])
    return grad.sum(axes, keepdims=True)                # the stretched axes


# An array of more than two axes is a stack of matrices. In a shape, ... stands
# for any number of axes.

def as_rows(x):
    """x (..., n) as one tall matrix (M, n): the matrices of a stack, one below the other."""
    return x.reshape(-1, x.shape[-1])


class Tensor:
    """An array that remembers how it was made, so that its gradient can be found."""

    __array_ufunc__ = None  # tells NumPy to leave array @ Tensor, and so on, to us
    made = itertools.count()            # gives each Tensor a serial number

    def __init__(self, data, parents=(), vjp=None):
        """vjp turns the gradient of this array into those of its parents, in their order."""
        self.data = np.asarray(data)
        if self.data.dtype.kind in "iub":  # integers and booleans become floats
            self.data = self.data.astype(float)
        self.grad = None
        self.parents = parents
        self.vjp = vjp
        self.serial = next(Tensor.made)

    def backward(self):
        """Add dL/dx to x.grad for everything that this single number L was computed from.

        On the way each node forgets its parents, which frees the memory. So a
        second call raises a RuntimeError. ValueError if there are several
        numbers.
        """
        if self.data.size != 1:
            raise ValueError("backward() starts from a single number: sum() the entries first")
        order = topological_order(self)
        if any(node.parents is None for node in order):
            raise RuntimeError("backward() has released this graph: compute it again")
        self.receive(np.ones_like(self.data))           # dL/dL
        while order:
            node = order.pop()          # the newest: its sum is complete
            if node.vjp is not None:
                for parent, grad in zip(node.parents, node.vjp(node.grad)):
                    parent.receive(grad)
                node.parents = node.vjp = None        # free the memory at once

    def receive(self, grad):
        """Add grad to .grad. (Not by +=: a + b gives the same array to a and to b.)"""
        self.grad = grad if self.grad is None else self.grad + grad

    def as_tensor(self, other):
        """other as a Tensor; a number or an array becomes one of the same dtype."""
        return other if isinstance(other, Tensor) else Tensor(np.asarray(other, self.data.dtype))

    def __array__(self, *arguments, **options):
        """NumPy asks for this in np.dot(array, Tensor) or np.array([Tensor, Tensor])."""
        raise TypeError("as an array, a Tensor would lose its graph: use .data, or @, +, ...")

    def __repr__(self):
        return f"Tensor({self.data})"

    @property
    def shape(self):
        return self.data.shape

    # y = a + b has the slope 1 with respect to a and to b: both get g. The
    # inner function vjp keeps a and b until backward calls it.

    def __add__(self, other):
        other = self.as_tensor(other)
        a, b = self.data, other.data

        def vjp(g):
            return unbroadcast(g, a.shape), unbroadcast(g, b.shape)
        return Tensor(a + b, (self, other), vjp)

    # y = a * b has the slope b with respect to a, and a with respect to b.

    def __mul__(self, other):
        other = self.as_tensor(other)
        a, b = self.data, other.data

        def vjp(g):
            return unbroadcast(g * b, a.shape), unbroadcast(g * a, b.shape)
        return Tensor(a * b, (self, other), vjp)

    # y = a^k has the slope k a^(k-1). A vjp returns a tuple, here of one.

    def __pow__(self, k):
        """self ** k for a number k."""
        a = self.data
        k = a.dtype.type(float(k))                      # float32 stays float32

        def vjp(g):
            if k == 0:              # the formula would give 0 * inf at a = 0
                return (np.zeros_like(a),)
            return (g * k * a ** (k - 1),)
        return Tensor(a ** k, (self,), vjp)

    # The other operations of arithmetic are made of these three, and so they
    # need no vjp. Python calls __radd__ and so on if the left side, a number
    # or an array, does not know what a Tensor is.

    __radd__, __rmul__ = __add__, __mul__    # number + Tensor, number * Tensor

    def __neg__(self):
        return self * -1

    def __sub__(self, other):
        return self + -self.as_tensor(other)

    def __rsub__(self, other):
        return -self + other

    def __truediv__(self, other):
        return self * self.as_tensor(other) ** -1

    def __rtruediv__(self, other):
        return self ** -1 * other

    # The matrix product y = A @ B: dA = g @ B.T and dB = A.T @ g, as in rules
    # 4 and 2 of 04. Both stand under B.ndim == 2, where as_rows leaves a matrix
    # as it is. The rest only arranges shapes; skip it at first. A vector counts
    # as a matrix of one row or one column: as an index, None adds an axis of
    # length 1, and ... stands for all axes in front. .swapaxes(-1, -2)
    # transposes each matrix of a stack. If all of them are multiplied by the
    # same matrix, their rows count as one tall matrix, because one large
    # product is faster than many small ones (03).

    def __matmul__(self, other):
        other = self.as_tensor(other)
        a, b = self.data, other.data

        def vjp(g):
            A, B, G = a, b, g
            if b.ndim == 1:                 # a vector on the right is a column
                B, G = b[:, None], g[..., None]
            if a.ndim == 1:                     # a vector on the left is a row
                A, G = a[None, :], G[..., None, :]
            if B.ndim == 2:
                dA = as_rows(G) @ B.T
                dB = as_rows(A).T @ as_rows(G)
            else:
                dA = unbroadcast(G @ B.swapaxes(-1, -2), A.shape)
                dB = unbroadcast(A.swapaxes(-1, -2) @ G, B.shape)
            return dA.reshape(a.shape), dB.reshape(b.shape)
        if a.ndim > 2 and b.ndim == 2:
            y = (as_rows(a) @ b).reshape(*a.shape[:-1], -1)
        else:
            y = a @ b
        return Tensor(y, (self, other), vjp)

    # In X @ W, X is often data: an array whose gradient nobody wants.

    def __rmatmul__(self, x):
        """x @ self for an array x; its gradient, a large product, is left out if possible."""
        x = np.asarray(x, self.data.dtype)
        if x.ndim < 2 or self.data.ndim != 2:
            return Tensor(x) @ self
        return Tensor(x @ self.data, (self,), lambda g: (as_rows(x).T @ as_rows(g),))

    # Functions of each entry: g is multiplied by the function's slope, entry
    # by entry. Those of tanh and ReLU are derived in 02.

    def exp(self):
        y = np.exp(self.data)
        return Tensor(y, (self,), lambda g: (g * y,))

    def log(self):
        return Tensor(np.log(self.data), (self,), lambda g: (g / self.data,))

    def tanh(self):
        y = np.tanh(self.data)
        return Tensor(y, (self,), lambda g: (g * (1 - y * y),))

    def relu(self):
        y = np.maximum(self.data, 0)
        return Tensor(y, (self,), lambda g: (g * (y > 0),))

    # A sum has the slope 1 with respect to each of its terms, so each gets the
    # gradient of its sum. axis: None for all, a number, or a tuple.

    def sum(self, axis=None, keepdims=False):
        a = self.data
        y = a.sum(axis, keepdims=True)  # summed axes stay as 1, so g fits a again
        return Tensor(y if keepdims else y.squeeze(axis), (self,),
                      lambda g: (np.ones_like(a) * g.reshape(y.shape),))

    def mean(self, axis=None, keepdims=False):
        total = self.sum(axis, keepdims)
        return total * (total.data.size / self.data.size)  # 1 / the terms in each sum

    # These only move or pick entries, so each gradient goes back to where its
    # entry came from. In a[[0, 0]] two gradients go to one place, and add up:
    # np.add.at does that, while da[index] += g would add only the last one.

    def reshape(self, *shape):
        return Tensor(self.data.reshape(*shape), (self,), lambda g: (g.reshape(self.data.shape),))

    def __getitem__(self, index):
        def vjp(g):
            da = np.zeros_like(self.data)
            np.add.at(da, index, g)
            return (da,)
        return Tensor(self.data[index], (self,), vjp)


# For those who know PyTorch:
#     x = torch.from_numpy(array).requires_grad_()     x = Tensor(array)
#     loss.backward(), then x.grad                     the same
#     optimizer.zero_grad()                            new Tensors in every step
#     x.detach().numpy()                               x.data


# ---- new here: one loss, twice --------------------------------------------------------------
# With these operations the loss of 04, the mean of ln(sum of e^z) - z_y, is
# a matter of two lines, and the engine finds its gradient.

def cross_entropy_in_steps(logits, targets):
    """cross_entropy, made of small operations."""
    z = logits - logits.data.max(axis=1, keepdims=True)  # changes nothing, so has no gradient
    return (z.exp().sum(1).log() - z[np.arange(len(targets)), targets]).mean()


# But we know a shorter way to the gradient: rule 1 of 04 gives it at once,
# dz = (p - onehot(y)) / N, where each row of onehot(y) has 1 for the right
# class, and 0 for the others. A whole formula may be one operation if we write
# down its vjp. Then fewer arrays are computed and kept.

def cross_entropy(logits, targets):
    """The mean of -ln p_target over N rows; logits (N, K), targets (N,) integers below K.

    p = softmax(logits); the result is a Tensor with one entry.
    """
    examples = np.arange(len(targets))
    z = logits.data - logits.data.max(axis=1, keepdims=True)  # the shift cancels in p
    p = np.exp(z)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    loss = np.mean(np.log(total[:, 0]) - z[examples, targets])  # ln(total) - z = -ln p

    def vjp(g):
        dz = p.copy()                           # dz = (p - onehot(target)) / N
        dz[examples, targets] -= 1
        return (dz * (g / len(targets)),)
    return Tensor(loss, (logits,), vjp)


# ---- new here: a check of any function ------------------------------------------------------
# To check an operation we need one number L made of its result y. The plain
# sum of y would not do. Its g is 1 everywhere, so a vjp that confuses the
# entries of g would pass. Give each entry of y a random weight instead.

def gradient_error(rng, f, *arrays):
    """Relative error of f's gradients at these arrays; L is a sum with random weights."""
    inputs = [Tensor(array) for array in arrays]
    y = f(*inputs)
    weights = rng.standard_normal(y.data.shape)
    (y * weights).sum().backward()

    def loss():                          # reads the arrays afresh at each call
        return (f(*map(Tensor, arrays)).data * weights).sum()
    return relative_error([x.grad for x in inputs],
                          [numeric_gradient(loss, array) for array in arrays])


TARGETS = np.array([2, 0, 2])

# b.exp() and a * a + 1 are above 0, as a divisor and the argument of log should be
# name:          (function,                               shapes of its arguments)
OPERATIONS = {
    "a + row":       (lambda a, b: a + b,                  (3, 4), (4,)),
    "a - column":    (lambda a, b: a - b,                  (3, 4), (3, 1)),
    "a * stack":     (lambda a, b: a * b,                  (3, 4), (2, 1, 4)),
    "a / row":       (lambda a, b: a / b.exp(),            (3, 4), (4,)),
    "a ** 3":        (lambda a: a ** 3,                    (3, 4)),
    "a @ b":         (lambda a, b: a @ b,                  (3, 4), (4, 2)),
    "stack @ b":     (lambda a, b: a @ b,                  (5, 3, 4), (4, 2)),
    "stack @ stack": (lambda a, b: a @ b,                  (5, 3, 4), (1, 4, 2)),
    "array @ b":     (lambda b: np.ones((3, 4)) @ b,       (4, 2)),
    "log":           (lambda a: (a * a + 1).log(),         (3, 4)),
    "tanh":          (Tensor.tanh,                         (3, 4)),
    "relu":          (Tensor.relu,                         (3, 4)),
    "a * row sums":  (lambda a: (5 - a) * a.sum(1, keepdims=True), (3, 4)),
    "mean":          (lambda a: a.mean((0, 2)),            (2, 3, 4)),
    "reshape":       (lambda a: a.reshape(2, 6),           (3, 4)),
    "a[[0, 2, 0]]":  (lambda a: a[[0, 2, 0]],              (3, 4)),
    "cross_entropy": (lambda a: cross_entropy(a, TARGETS), (3, 4)),
}


# ---- new here: the network of 04 ------------------------------------------------------------

def mlp(params, X, activation=Tensor.relu):
    """The logits (N, K) of a multilayer perceptron, Tensors [(W, b), ...], for X (N, D)."""
    h = X
    for W, b in params[:-1]:
        h = activation(h @ W + b)
    W, b = params[-1]
    return h @ W + b


def as_tensors(weights):
    """The weights, a network [(W, b), ...] or a dict of arrays (from 08 on), as new Tensors."""
    if isinstance(weights, dict):
        return {name: Tensor(array) for name, array in weights.items()}
    return [(Tensor(W), Tensor(b)) for W, b in weights]


# The weights themselves stay plain arrays; params are Tensors that hold them.
# As backward adds to .grad, the old gradients would have to be cleared before
# each step. Instead, each step wraps the arrays in new Tensors, whose .grad is
# empty.

def train_spiral(net, X, y, lr, steps, activation):
    """Gradient descent on the arrays of the network, in place; the last loss and accuracy."""
    print("  step     loss  accuracy")
    for step in range(steps + 1):
        params = as_tensors(net)
        logits = mlp(params, X, activation)
        loss = cross_entropy(logits, y)
        accuracy = np.mean(logits.data.argmax(1) == y)
        if step % max(1, steps // 5) == 0 or step == steps:
            print(f"{step:6} {loss.data:8.4f} {accuracy:9.1%}", flush=True)
        if step < steps:
            loss.backward()
            for (W, b), (W_tensor, b_tensor) in zip(net, params):
                W -= lr * W_tensor.grad
                b -= lr * b_tensor.grad
    return loss.data.item(), accuracy


# ---- the experiment -------------------------------------------------------------------------

def show_small_graph():
    """Draw the small graph with its gradients, and what naive_backward makes of it."""
    a, b = Value(2.0), Value(3.0)
    c, d, s, p, L = small_graph(a, b)
    L.backward()
    a1, b1, c1, d1, s1, p1, L1 = [f"{node.data:g} [{node.grad:g}]"
                                  for node in (a, b, c, d, s, p, L)]
    print(f"""A small graph: each value, and in brackets its gradient
  a = {a1} --+-- c = a + b = {c1} --+-- s = c + d = {s1} --+
             \\ /                     \\ /                        |
              X                       X                         +-- L = s + p = {L1}
             / \\                     / \\                        |
  b = {b1} --+-- d = a * b = {d1} --+-- p = c * d = {p1} --+
""")
    a2, b2 = Value(2.0), Value(3.0)
    L = small_graph(a2, b2)[-1]
    L.grad = 1.0
    naive_backward(L)
    print(f"Without the order, a gets {a2.grad:g} instead of {a.grad:g}, and b {b2.grad:g} "
          f"instead of {b.grad:g}.\n")


def check_operations(rng):
    """The relative error of each operation's gradients against measured slopes, by name."""
    errors = {name: gradient_error(rng, f, *(rng.standard_normal(shape) for shape in shapes))
              for name, (f, *shapes) in OPERATIONS.items()}
    print("Gradients against measured slopes, relative errors")
    table = [f"  {name:13} {error:.0e}" for name, error in errors.items()]
    for i in range(0, len(table), 3):
        print("   ".join(table[i:i + 3]))
    assert all(error < 1e-6 for error in errors.values())
    return errors


def compare_with_04(net, X, y):
    """The relative difference between the engine's gradients and those by hand."""
    params = as_tensors(net)
    cross_entropy_in_steps(mlp(params, X), y).backward()
    by_hand = backward(net, *forward(net, X), y)
    difference = relative_error([tensor.grad for tensors in params for tensor in tensors],
                                [array for gradients in by_hand for array in gradients])
    print("\nThe network of 04 on its spiral: the gradients by hand and by the engine differ by\n"
          f"{difference:.0e} of the largest.")
    assert difference < 1e-12
    return difference


def main(activation="relu", hidden=32, steps=200, lr=0.3, seed=0):
    """Walk through a small graph, check every operation, and learn the spiral of 04 again.

    activation  relu or tanh, of the network that is trained
    hidden      number of units in each of the two hidden layers
    steps       steps of gradient descent on all points
    lr          learning rate
    seed        random seed of checks, points and weights

    Returns {"gradient_error" by operation, "difference" from the gradients of 04, "accuracy",
    "loss"}.
    """
    if activation not in ("relu", "tanh"):
        sys.exit("error: --activation must be relu or tanh")
    rng = np.random.default_rng(seed)
    show_small_graph()
    errors = check_operations(rng)
    X, y = spiral(rng, 120)
    net = [(W, rng.standard_normal(b.shape))  # biases other than 0, to count in the comparison
           for W, b in init_net(rng, [2, hidden, hidden, 3])]
    difference = compare_with_04(net, X, y)
    with np.errstate(all="ignore"):        # a training that diverges overflows
        loss, accuracy = train_spiral(net, X, y, lr, steps, getattr(Tensor, activation))
    if not loss < 1e3:                          # or nan
        sys.exit("error: the training diverges: lower --lr")
    return {"gradient_error": errors, "difference": difference, "accuracy": accuracy,
            "loss": loss}


# ---- carried from 01 and 04, code unchanged: explained there --------------------------------

def numeric_gradient(f, values, eps=1e-7):
    """The slope of f() with respect to each entry of the array values, measured.

    f takes no arguments: it computes its result from this same array. So we
    change one entry at a time, call f(), and put the entry back.
    """
    slopes = np.empty_like(values)   # an array of the same shape, to be filled
    for i in np.ndindex(values.shape):  # every index of the array
        original = values[i]
        values[i] = original + eps
        above = f()
        values[i] = original - eps
        below = f()
        values[i] = original
        slopes[i] = (above - below) / (2 * eps)
    return slopes


def relative_error(found, expected):
    """The largest difference between two arrays, divided by the largest expected value.

    found and expected may also be sequences of numbers, or of arrays of
    different shapes.
    """
    found = np.concatenate([np.ravel(entry) for entry in found])  # all entries in one row
    expected = np.concatenate([np.ravel(entry) for entry in expected])
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-8)  # not by 0


def init_net(rng, sizes):
    """The layers [(W, b), ...] of a network; sizes counts its inputs, then the units by layer.

    The weights are random, with a standard deviation of sqrt(2 / inputs),
    which suits ReLU (He 2015; derived in 06). The biases are 0.
    """
    return [(rng.standard_normal((d_in, d_out)) * math.sqrt(2 / d_in), np.zeros(d_out))
            for d_in, d_out in zip(sizes, sizes[1:])]


def forward(net, X):
    """The inputs h_0, h_1, ... of all layers, which backward needs, and the logits z (N, K)."""
    h = [X]
    for W, b in net[:-1]:
        a = h[-1] @ W + b                       # (N, D_(l+1))
        h.append(np.maximum(a, 0))              # ReLU
    W, b = net[-1]
    return h, h[-1] @ W + b                     # no ReLU after the last layer


def softmax(z):
    """Probabilities (N, K) from logits z (N, K)."""
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def backward(net, h, z, y):
    """The gradients [(dW, db), ...] of the mean loss, in the order of the layers."""
    gradients = [None] * len(net)
    da = softmax(z)                             # z is the a of the last layer
    da[np.arange(len(y)), y] -= 1
    da /= len(y)                                # (N, K)
    for l in reversed(range(len(net))):
        W, b = net[l]
        dW = h[l].T @ da                        # (D_l, N) @ (N, D_(l+1))
        db = da.sum(axis=0)
        gradients[l] = (dW, db)
        if l > 0:                          # h_0 = X is data, and cannot change
            dh = da @ W.T                       # (N, D_(l+1)) @ (D_(l+1), D_l)
            da = dh * (h[l] > 0)                # and on to that layer
    return gradients


def spiral(rng, n, arms=3, noise=0.15):
    """n points on each of the arms of a spiral: X (n * arms, 2), the arm y (n * arms,)."""
    radius = np.tile(np.linspace(0.1, 1, n), arms)  # the same n radii for each arm
    arm = np.repeat(np.arange(arms), n)             # 0, 0, ..., 1, 1, ...
    angle = 2 * math.pi * arm / arms + 4 * radius + noise * rng.standard_normal(n * arms)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), arm


# ---- plumbing, the same wherever it stands: nothing about neural networks -------------------

def number_like(default, may_be_zero):
    """A converter for argparse: numbers above 0 and below 1e9, and 0 where it has a meaning."""
    def number(text):
        value = type(default)(text)
        if 0 < value < 1e9 or (value == 0 and may_be_zero):
            return value
        least = "0 or more" if may_be_zero else "above 0"
        raise argparse.ArgumentTypeError(f"must be {least} and below 1e9, not {text}")
    number.__name__ = type(default).__name__  # argparse says: invalid int value
    return number


def command_line(main, may_be_zero=()):
    """Call main with the --name=value of the command line; in a notebook, with its defaults."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False,
                                     argument_default=argparse.SUPPRESS,  # pass what was typed
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, parameter in inspect.signature(main).parameters.items():
        kind = str
        if not isinstance(parameter.default, str):
            kind = number_like(parameter.default, parameter.default == 0 or name in may_be_zero)
        parser.add_argument(f"--{name}", type=kind, help=f"default: {parameter.default!r}")
    this_file = os.path.basename(globals().get("__file__", "a notebook"))
    typed = None if os.path.basename(sys.argv[0]) == this_file else []
    try:
        main(**vars(parser.parse_args(typed)))
        print(end="", flush=True)  # a closed pipe shows here, and not after the end
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except MemoryError:
        sys.exit("error: there is not enough memory for these sizes")
    except OSError as problem:
        if not isinstance(problem, BrokenPipeError) and (os.name, problem.errno) != ("nt", 22):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read our output has left: be silent


# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy"]
# ///

if __name__ == "__main__":
    command_line(main)
