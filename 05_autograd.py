"""05  Autograd: an engine that differentiates for us.

In 04 we derived the gradient of one kind of network by hand. Change the network,
and the derivation starts over. But every network is made of small operations
(+, *, matrix product, ReLU), and each has a simple derivative. If the result of
every operation remembers what it was computed from, a program can apply the
chain rule for us, from the loss back to every weight.

Run           python 05_autograd.py
Expect        1 s. Every operation agrees with differences to 1e-8, the network
              with 04 to 1e-14
Try           --steps=1000   learn the spiral for longer
Left out      gradients of gradients; whole layers as one operation, which is
              faster (06 to 11)
Carried from  01: numeric_gradient, relative_error.  04, for the data and to
              compare with: init_net, forward, softmax, backward, spiral
"""
import argparse, inspect, itertools, math, os, sys

import numpy as np

# In Tensor, a, b and y are the arrays of one operation, g is the gradient of
# its result. In the experiment: N examples, D_l units in layer l, K classes; X
# (N, D_0), y (N,) below K.


# ---- new here: arrays that remember how they were made ----------------------------------------
# Let y = f(x) be one operation, on arrays, somewhere on the way to a number L,
# and let g = dL/dy, of the shape of y. By the chain rule, summed over all
# paths through y, with i and j running over all entries,
#     dL/dx_j = sum over i of g_i J_ij        with the Jacobian J_ij = dy_i/dx_j
# This is the vector-Jacobian product, vjp(g). J itself is never formed: for y
# = exp(x) it is diagonal and vjp(g) = g * y; for Y = A B, rules 4 and 2 of 04
# say vjp(G) = (G B^T, A^T G). So an engine needs two things (reverse-mode
# differentiation; Linnainmaa 1970):
#  1 The result of each operation keeps the operation's inputs, called its parents, and the vjp.
#    These results are the nodes of a graph. Leaves, such as weights and data, have no parents.
#  2 From L, with dL/dL = 1, walk back through the graph. Each node gives vjp(g) to its parents, and
#    a node that was used twice, so that two paths lead to L, adds up what it is given. A node may
#    pass its gradient on only after every node that was computed from it has contributed. List the
#    nodes so that each stands after its parents, and walk the list backwards. Such a list is in
#    topological order.

# Children are made after their parents, so the order in which the nodes were
# made is topological.

def topological_order(result):
    """The result and every Tensor that it was computed from, each after its parents."""
    nodes, to_visit = {result}, [result]
    while to_visit:
        for parent in to_visit.pop().parents or ():
            if parent not in nodes:
                nodes.add(parent)
                to_visit.append(parent)
    return sorted(nodes, key=lambda node: node.serial)


# Broadcasting copies a smaller array, and the gradients of copies add up, as
# for the biases of 04 (rule 3: the gradient of b is the sum over the rows that
# b was added to).

def unbroadcast(grad, shape):
    """Sum grad over every axis along which an array of this shape was copied by broadcasting."""
    if grad.shape == shape:
        return grad
    grad = grad.sum(tuple(range(grad.ndim - len(shape))))  # axes that were put in front
    axes = tuple(i for i, size in enumerate(shape) if size != grad.shape[i])
    return grad.sum(axes, keepdims=True)        # axes of 1 that were stretched


def as_rows(x):
    """x (..., n) as one tall matrix: all rows of all axes in front."""
    return x.reshape(-1, x.shape[-1])


class Tensor:
    """An array that remembers how it was made, so that its gradient can be found.

    After L.backward(), .grad of every Tensor x that the number L was computed
    from is dL/dx.
    """

    __array_ufunc__ = None  # NumPy leaves array + Tensor to __radd__; so for -, *, /, @
    made = itertools.count()            # gives each Tensor a serial number

    def __init__(self, data, parents=(), vjp=None):
        """vjp turns the gradient of this array into those of its parents, in their order."""
        self.data = np.asarray(data)
        if self.data.dtype.kind in "iub":      # integers have no small changes
            self.data = self.data.astype(float)
        self.grad = None
        self.parents = parents
        self.vjp = vjp
        self.serial = next(Tensor.made)

    def backward(self):
        """Add dL/dx to x.grad for everything that this single number L was computed from.

        The graph is released on the way; what the caller holds keeps its
        .grad. ValueError if there are several numbers, RuntimeError if a part
        of the graph was released before.
        """
        if self.data.size != 1:
            raise ValueError("backward() starts from a single number: sum() the entries first")
        order = topological_order(self)
        if any(node.parents is None for node in order):
            raise RuntimeError("backward() has released this graph: compute it again")
        self.receive(np.ones_like(self.data))           # dL/dL
        while order:
            node = order.pop()  # the newest: all that was computed from it has contributed
            if node.vjp is not None:
                for parent, grad in zip(node.parents, node.vjp(node.grad)):
                    parent.receive(grad)
                node.parents = node.vjp = None        # free the memory at once

    def receive(self, grad):
        """Add grad to .grad; never in place, because a + b hands the same array to a and b."""
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

    # (a + b)' = a' + b', so a and b both get g; (a b)' = b a' + a b', so a
    # gets g b and b gets g a.

    def __add__(self, other):
        other = self.as_tensor(other)
        a, b = self.data, other.data

        def vjp(g):
            return unbroadcast(g, a.shape), unbroadcast(g, b.shape)
        return Tensor(a + b, (self, other), vjp)

    def __mul__(self, other):
        other = self.as_tensor(other)
        a, b = self.data, other.data

        def vjp(g):
            return unbroadcast(g * b, a.shape), unbroadcast(g * a, b.shape)
        return Tensor(a * b, (self, other), vjp)

    def __pow__(self, k):
        """self ** k for a number k."""
        a = self.data
        k = a.dtype.type(float(k))                      # of the same dtype as a

        def vjp(g):
            if k == 0:                      # a ** 0 is constant, also at a = 0
                return (np.zeros_like(a),)
            return (g * k * a ** (k - 1),)
        return Tensor(a ** k, (self,), vjp)

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

    # The matrix product Y = A B: dA = dY B^T and dB = A^T dY, by rules 4 and 2
    # of 04. An array of more than two axes is a stack of matrices. If a whole
    # stack meets the same matrix, all its rows count as rows of one tall
    # matrix.

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

    def __rmatmul__(self, x):
        """x @ self for an array x. It is data, so the usual product saves the gradient for it."""
        x = np.asarray(x, self.data.dtype)
        if x.ndim < 2 or self.data.ndim != 2:
            return Tensor(x) @ self
        return Tensor(x @ self.data, (self,), lambda g: (as_rows(x).T @ as_rows(g),))

    # Functions of each entry: J is diagonal, so g is multiplied by the
    # derivative (see 02).

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

    # The gradient of a sum goes to each of its terms; that of a maximum to the
    # largest entry, in equal parts if several are equally large. axis: None
    # for all, a number, or a tuple.

    def sum(self, axis=None, keepdims=False):
        a = self.data
        y = a.sum(axis, keepdims=True)
        return Tensor(y if keepdims else y.squeeze(axis), (self,),
                      lambda g: (np.ones_like(a) * g.reshape(y.shape),))

    def mean(self, axis=None, keepdims=False):
        total = self.sum(axis, keepdims)
        return total * (total.data.size / self.data.size)

    def max(self, axis=None, keepdims=False):
        y = self.data.max(axis, keepdims=True)
        largest = self.data == y
        part = largest / largest.sum(axis, keepdims=True, dtype=y.dtype)
        return Tensor(y if keepdims else y.squeeze(axis), (self,),
                      lambda g: (part * g.reshape(y.shape),))

    # These only move or pick entries: gradients go back to the old places, and
    # 0 elsewhere.

    def reshape(self, *shape):
        return Tensor(self.data.reshape(*shape), (self,), lambda g: (g.reshape(self.data.shape),))

    def transpose(self, *axes):
        if len(axes) == 1 and isinstance(axes[0], (tuple, list)):
            axes = axes[0]               # transpose((1, 0)) is transpose(1, 0)
        y = self.data.transpose(*axes)
        n = self.data.ndim
        inverse = np.argsort([axis % n for axis in axes or range(n)[::-1]])
        return Tensor(y, (self,), lambda g: (g.transpose(inverse),))

    def __getitem__(self, index):
        def vjp(g):
            da = np.zeros_like(self.data)
            np.add.at(da, index, g)     # da[index] += g counts each place once
            return (da,)
        return Tensor(self.data[index], (self,), vjp)


def gradient_error(rng, f, *arrays):
    """Relative error of the gradients of a randomly weighted sum of the entries of f(*arrays).

    A plain sum can hide an error: the entries of a softmax add up to 1 and
    have gradient 0.
    """
    inputs = [Tensor(array) for array in arrays]  # not copies: loss() sees each change
    y = f(*inputs)
    weights = rng.standard_normal(y.data.shape)
    (y * weights).sum().backward()

    def loss():
        return (f(*map(Tensor, arrays)).data * weights).sum()
    return relative_error([x.grad for x in inputs],
                          [numeric_gradient(loss, x.data) for x in inputs])


# name:          (function,                                shapes of its arguments)
OPERATIONS = {
    "a + row":       (lambda a, b: a + b,                   (3, 4), (4,)),
    "a - column":    (lambda a, b: a - b,                   (3, 4), (3, 1)),
    "a * stack":     (lambda a, b: a * b,                   (3, 4), (2, 1, 4)),
    "a / e^b":       (lambda a, b: a / b.exp(),             (3, 4), (3, 4)),
    "1 - 2 / e^a":   (lambda a: 1 - 2 / a.exp(),            (3, 4)),
    "a ** 3":        (lambda a: a ** 3,                     (3, 4)),
    "a @ b":         (lambda a, b: a @ b,                   (3, 4), (4, 2)),
    "stack @ b":     (lambda a, b: a @ b,                   (5, 3, 4), (4, 2)),
    "stack @ stack": (lambda a, b: a @ b,                   (5, 3, 4), (1, 4, 2)),
    "array @ b":     (lambda b: np.ones((3, 4)) @ b,        (4, 2)),
    "a @ array":     (lambda a: a @ np.ones((4, 2)),        (3, 4)),
    "exp":           (Tensor.exp,                           (3, 4)),
    "log":           (lambda a: (a * a + 1).log(),          (3, 4)),
    "tanh":          (Tensor.tanh,                          (3, 4)),
    "relu":          (Tensor.relu,                          (3, 4)),
    "sum":           (Tensor.sum,                           (3, 4)),
    "sum per row":   (lambda a: a.sum(-1, keepdims=True),   (3, 4)),
    "mean":          (lambda a: a.mean((0, 2)),             (2, 3, 4)),
    "max":           (Tensor.max,                           (3, 4)),
    "max per row":   (lambda a: a.max(1),                   (3, 4)),
    "max, two axes": (lambda a: a.max((0, 2), True),        (2, 3, 4)),
    "reshape":       (lambda a: a.reshape(2, 6),            (3, 4)),
    "transpose":     (lambda a: a.transpose(2, 0, 1),       (2, 3, 4)),
    "a[1:, ::2]":    (lambda a: a[1:, ::2],                 (3, 4)),
    "a[[0, 2, 0]]":  (lambda a: a[[0, 2, 0]],               (3, 4)),
    "used twice":    (lambda a: a * a + a.exp(),            (3, 4)),
}


def small_graph(a, b):
    """c, d, s, p and y of a small graph in which a, b, c and d are each used twice."""
    c = a + b
    d = a * b
    s = c + d
    p = c * d
    return c, d, s, p, s + p


def naive_backward(node):
    """Backward without an order: each node passes on at once what it has so far. Wrong."""
    if node.parents:
        for parent, grad in zip(node.parents, node.vjp(node.grad)):
            parent.receive(grad)
            naive_backward(parent)


def spiral_loss(net, X, y):
    """mean_loss(forward(net, X)[1], y) of 04, with the arrays of the net as Tensors."""
    h = X
    for W, b in net[:-1]:
        h = (h @ W + b).relu()
    W, b = net[-1]
    z = h @ W + b
    z = z - z.max(1, keepdims=True)           # it cancels, in the gradient too
    return (z.exp().sum(1).log() - z[np.arange(len(y)), y]).mean()


def as_tensors(weights):
    """The weights, a dict of arrays by name or a network [(W, b), ...], as new leaves."""
    if isinstance(weights, dict):
        return {name: Tensor(array) for name, array in weights.items()}
    return [(Tensor(W), Tensor(b)) for W, b in weights]


def train_spiral(net, X, y, lr, steps):
    """Gradient descent on the arrays of the net, in place; the last loss and accuracy."""
    print("  step     loss  accuracy")
    for step in range(steps + 1):
        with np.errstate(all="ignore"):          # divergence shows in the loss
            params = as_tensors(net)            # new ones, whose .grad is None
            loss = spiral_loss(params, X, y)
            accuracy = np.mean(forward(net, X)[1].argmax(1) == y)
        if not loss.data < 1e3:
            sys.exit(f"error: training diverges at step {step}: lower --lr")
        if step % max(1, steps // 5) == 0 or step == steps:
            print(f"{step:6} {loss.data:8.4f} {accuracy:9.1%}", flush=True)
        if step < steps:
            loss.backward()
            for arrays, tensors in zip(net, params):
                for array, tensor in zip(arrays, tensors):
                    array -= lr * tensor.grad
    return loss.data.item(), accuracy


# ---- the experiment ---------------------------------------------------------------------------

def check_operations(rng):
    """The relative error of each operation's gradients against differences, by name."""
    errors = {name: gradient_error(rng, f, *(rng.standard_normal(shape) for shape in shapes))
              for name, (f, *shapes) in OPERATIONS.items()}
    print("Gradients against central differences, relative errors")
    table = [f"  {name:13} {error:.0e}" for name, error in errors.items()]
    for i in range(0, len(table), 3):
        print("   ".join(table[i:i + 3]))
    assert all(error < 1e-6 for error in errors.values())
    return errors


def walk_through():
    """Draw a small graph with its gradients, and show what goes wrong in naive_backward."""
    a, b = Tensor(2.0), Tensor(3.0)
    c, d, s, p, y = small_graph(a, b)
    y.backward()
    shown = [f"{node.data:g} [{node.grad:g}]" for node in (a, b, c, d, s, p, y)]
    print("""
A small graph: each value, and in brackets how fast y changes with it
  a = {} --+-- c = a + b = {} --+-- s = c + d = {} --+
             \\ /                     \\ /                        |
              X                       X                         +-- y = s + p = {}
             / \\                     / \\                        |
  b = {} --+-- d = a * b = {} --+-- p = c * d = {} --+
""".format(*(shown[i] for i in (0, 2, 4, 6, 1, 3, 5))))

    a2, b2 = Tensor(2.0), Tensor(3.0)
    y = small_graph(a2, b2)[-1]
    y.grad = np.ones_like(y.data)
    naive_backward(y)
    print("c and d were each used twice, by s and by p. If each passes on at once what s gave it,\n"
          "and later its whole sum, what s gave counts twice:\na gets "
          f"25 + 1 + 3 = {a2.grad:g}, and b 19 + 1 + 2 = {b2.grad:g}. Hence the order.")

    y = a * b
    y.backward()
    print(f"After a second graph, y = a * b, a has {a.grad:g}: a leaf adds up until you set "
          "a.grad = None.")
    try:
        y.backward()
    except RuntimeError as problem:
        print(f"Twice through one graph: {problem}.\n")


def compare_with_04(net, X, y):
    """The relative difference between the engine's gradients and those by hand."""
    params = as_tensors(net)
    spiral_loss(params, X, y).backward()
    by_hand = backward(net, *forward(net, X), y)
    difference = relative_error([tensor.grad for tensors in params for tensor in tensors],
                                [array for gradients in by_hand for array in gradients])
    print("The spiral network of 04: gradients by hand and by the engine differ by a relative "
          f"{difference:.0e}.")
    assert difference < 1e-12
    return difference


def main(layers=3, hidden=32, steps=200, lr=0.3, points=120, seed=0):
    """Check every operation, walk through a small graph, and learn the spiral of 04 again.

    layers  number of weight layers
    hidden  number of units in each hidden layer
    steps   steps of gradient descent on all points
    lr      learning rate
    points  points on each of the three arms
    seed    random seed of checks, points and weights

    Returns {"gradient_error" by operation, "difference" from the gradients of 04, "accuracy",
    "loss"}.
    """
    rng = np.random.default_rng(seed)
    errors = check_operations(rng)
    walk_through()
    X, y = spiral(rng, points)
    net = [(W, rng.standard_normal(b.shape))  # not 0 as in 04: so b is seen to be added
           for W, b in init_net(rng, [2] + [hidden] * (layers - 1) + [3])]
    difference = compare_with_04(net, X, y)
    loss, accuracy = train_spiral(net, X, y, lr, steps)
    return {"gradient_error": errors, "difference": difference, "accuracy": accuracy,
            "loss": loss}


# ---- carried from 01 and 04, code unchanged: explained there --------------------------------

def numeric_gradient(f, x, eps=1e-7):
    """The slope of f() with respect to each entry of the array x.

    f takes no arguments: it reads x, which is changed in place, one entry at
    a time, and restored: (f(x + eps) - f(x - eps)) / (2 eps).
    """
    slopes = np.empty_like(x)
    for i in np.ndindex(x.shape):       # every index of the array
        original = x[i]
        x[i] = original + eps
        above = f()
        x[i] = original - eps
        below = f()
        x[i] = original
        slopes[i] = (above - below) / (2 * eps)
    return slopes


def relative_error(found, expected):
    """The largest difference between two arrays, relative to the largest expected value.

    found and expected may also be sequences of numbers, or of arrays of
    different shapes.
    """
    found = np.concatenate([np.ravel(entry) for entry in found])
    expected = np.concatenate([np.ravel(entry) for entry in expected])
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-8)


def init_net(rng, sizes):
    """Random weights [(W, b), ...] of a network with layers of these sizes, the inputs first.

    A standard deviation of sqrt(2 / inputs) suits ReLU (He 2015; 06 shows
    why).
    """
    return [(rng.standard_normal((d_in, d_out)) * math.sqrt(2 / d_in), np.zeros(d_out))
            for d_in, d_out in zip(sizes, sizes[1:])]


def forward(net, X):
    """The inputs h_0, h_1, ... of all layers, which backward needs, and the logits z (N, K)."""
    h = [X]
    for W, b in net[:-1]:
        h.append(np.maximum(h[-1] @ W + b, 0))          # (N, D_l)
    W, b = net[-1]
    return h, h[-1] @ W + b                             # (N, K)


def softmax(z):
    """Probabilities (N, K) from logits z (N, K)."""
    e = np.exp(z - z.max(1, keepdims=True))  # the shift cancels; exp cannot overflow
    return e / e.sum(1, keepdims=True)


def backward(net, h, z, y):
    """Gradients [(dW, db), ...] of mean_loss: the lines of forward in reverse order."""
    da = softmax(z)
    da[np.arange(len(y)), y] -= 1
    da /= len(y)                                        # rule 1: (N, K)
    gradients = []                      # net[l] is layer l + 1, h[l] its input
    for l in reversed(range(len(net))):
        gradients.append((h[l].T @ da, da.sum(0)))              # rules 2 and 3
        if l:
            da = (da @ net[l][0].T) * (h[l] > 0)    # rule 4; h > 0 where a > 0
    return gradients[::-1]


def spiral(rng, n, arms=3, noise=0.15):
    """n points on each of the arms of a spiral: X (n * arms, 2), the arm y (n * arms,)."""
    radius, arm = np.tile(np.linspace(0.1, 1, n), arms), np.repeat(np.arange(arms), n)
    angle = 2 * math.pi * arm / arms + 4 * radius + noise * rng.standard_normal(n * arms)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), arm


# ---- plumbing, the same in every file: nothing about neural networks ------------------------

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
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # who read our output has left: be silent


# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy"]
# ///

if __name__ == "__main__":
    command_line(main)
