"""10  The transformer block: two layers, and what lets us stack many.

Carried, with their helpers, from 01: numeric_gradient, relative_error, refuse, plot, command_line.
02: gelu, gelu_slope.  05: Tensor, gradient_error.  06: adam, linear_decay, cross_entropy.
08: embedding, rotary.  09: attention, leaves.
New here: layer_norm, rms_norm, feed_forward, token_shift, the block, a count of operations.

A stream x has C numbers for each position. A block adds to it what two layers find in it:
    x = x + attend(norm(x))         between positions: fetch what is needed (09)
    x = x + feed(norm(x))           within a position: feed(z) = gelu(z up) down
where up is (C, 4C) and down (4C, C). 11 takes max(z up, 0)^2 (So 2021) in place of gelu(z up).

Norm gives the input of a layer a fixed size. LayerNorm, for a row x of C numbers with mean m:
    y_i = (x_i - m) r,    r = 1 / sqrt(mean of (x - m)^2 + eps),    result = gain * y + bias
Backward. By x_j, m has the derivative 1/C, and the mean of squares 2 (x_j - m) / C, as the x - m
add up to 0. r = s^(-1/2), for s = (mean of squares) + eps, has -r^3 / 2 by s: by x_j, -r^2 y_j / C.
With dy = dL/dy = gain * dL/dresult, the product rule and a sum over i,
    dy_i/dx_j = r ([i = j] - 1/C - y_i y_j / C)          [i = j] is 1 if i = j, else 0
    dx = r (dy - mean(dy) - y mean(dy y))
To shift x, or to scale it up or down, leaves y as it is (if eps is 0), so dx has no part along
(1, .., 1) or y: the last two terms take it out of dy. RMSNorm has m = 0 and, here, no gain:
y = r x, dx = r (dy - y mean(dy y)).

The plus signs are the residual connections. If G is the gradient after a plus, that before it is
G + (G through norm and layer): G itself is passed on, whatever the layer does. Forward, x is passed
on in the same way, so positions, which attention makes alike, become so more slowly. This is
pre-norm. In post-norm, x = norm(x + layer(x)), both x and G must go through a norm after every
layer.

Run       python 10_block.py                    (--seeds=3 for the mean and spread of the table)
Expect    50 s on two cores; 99 % of rows of 8 digits sorted, 10 to 98 % without residuals, by
          seed and even by rounding, and none without attention
Left out  biases of the matrices; a real text (11)
"""
import argparse, inspect, math, os, re, sys

if "numpy" not in sys.modules:                      # one BLAS thread: small matrices need no more
    for threads in "OPENBLAS_NUM", "MKL_NUM", "OMP_NUM", "VECLIB_MAXIMUM":
        os.environ.setdefault(f"{threads}_THREADS", "1")

import numpy as np

# B batch, T positions, C channels, H heads, D = C/H, V vocabulary; N = B*T rows, one per position


# ---- carried from 01, 02, 05, 06, 08 and 09, unchanged ------------------------------------------

def numeric_gradient(f, x, eps=1e-6):
    """(f(x + eps) - f(x - eps)) / (2 eps) by each entry of x, which f() reads when it is called."""
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        kept = x[i]
        x[i] = kept + eps
        above = f()
        x[i] = kept - eps
        gradient[i] = (above - f()) / (2 * eps)
        x[i] = kept
    return gradient


def relative_error(found, expected):
    """The largest difference, relative to the largest expected value."""
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-8)


def refuse(wrong, sentence):
    """If something is wrong, stop with one plain sentence on stderr and exit code 1."""
    if wrong:
        raise SystemExit(f"error: {sentence}")


def plot(curves, width=72, height=14):
    """{mark: (x, y), ...} drawn as text, each curve with its mark, later ones on top."""
    xs, ys = (np.concatenate([curve[axis] for curve in curves.values()]) for axis in (0, 1))
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    canvas = [[" "] * width for _ in range(height)]
    for mark, (x, y) in curves.items():
        column = (np.array(x) - left) / max(right - left, 1e-12) * (width - 1)
        row = (high - np.array(y)) / max(high - low, 1e-12) * (height - 1)
        for i, j in zip(np.rint(row).astype(int), np.rint(column).astype(int)):
            canvas[i][j] = mark
    lines = [f"{label:9.3f} |{''.join(line)}"
             for label, line in zip(np.linspace(high, low, height), canvas)]
    return "\n".join(lines + [f"{'':10}+{'-' * width}", f"{left:>12g}{right:>{width - 1}g}"])


def command_line(main):
    """Run main with the --name=value of the command line; in a notebook, with its defaults."""
    try:
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="replace")    # what the console cannot show becomes '?'
        title, gloss = (__doc__ or "").split("\n")[0], main.__doc__ or ""      # none under -OO
        gloss = dict(re.findall(r"^ *(\w+): (.+)$", gloss, re.M))
        parser = argparse.ArgumentParser(description=title, allow_abbrev=False)
        for name, argument in inspect.signature(main).parameters.items():
            value = argument.default
            parser.add_argument(f"--{name}", type=type(value), default=value,
                                help=f"{gloss.get(name, '')} (default: {value!r})")
        arguments = parser.parse_args(None if "__file__" in globals() else [])
        main(**vars(arguments))
        print(end="", flush=True)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except MemoryError:
        refuse(True, "there is not enough memory for these sizes")
    except OSError as problem:                      # a full disk; or who read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        gone = isinstance(problem, BrokenPipeError) or os.name == "nt" and problem.errno == 22
        refuse(not gone, problem)


def sigmoid(x):
    """1 / (1 + e^-x), through tanh, which overflows nowhere."""
    return 0.5 * (1 + np.tanh(0.5 * x))


ROOT = math.sqrt(8 / math.pi)


def gelu(x):
    """x times the share of the standard normal distribution below x (Hendrycks 2016), nearly.

    That share is (1 + tanh u) / 2 = sigmoid(2 u) within 0.0002, u = sqrt(2/pi) (x + 0.044715 x^3).
    """
    return x * sigmoid(ROOT * (x + 0.044715 * x * x * x))           # 2 sqrt(2/pi) = sqrt(8/pi)


def gelu_slope(x):
    """The derivative of gelu, by the product rule and sigmoid' = s (1 - s)."""
    s = sigmoid(ROOT * (x + 0.044715 * x * x * x))
    return s + x * s * (1 - s) * ROOT * (1 + 3 * 0.044715 * x * x)


def unbroadcast(grad, shape):
    """Sum grad over every axis along which an array of this shape was copied by broadcasting."""
    if grad.shape == shape:
        return grad
    grad = grad.sum(tuple(range(grad.ndim - len(shape))))
    axes = tuple(i for i, size in enumerate(shape) if size != grad.shape[i])
    return grad.sum(axes, keepdims=True)


class Tensor:
    """An array that remembers how it was made, so that gradients find their way back."""

    def __init__(self, data, parents=(), vjp=None):
        """vjp maps the gradient of this array to those of its parents, in their order."""
        self.data = np.asanyarray(data)
        if self.data.dtype.kind in "iub":
            self.data = self.data.astype(float)
        self.grad, self.parents, self.vjp = None, parents, vjp

    def backward(self):
        """Add the gradient of self.data.sum() to .grad of every leaf; the graph is released."""
        order, seen, stack = [], set(), [(self, False)]
        while stack:
            node, parents_done = stack.pop()
            if parents_done:
                order.append(node)
            elif id(node) not in seen:
                if node.parents is None:
                    raise RuntimeError("backward() has released this graph: compute it again")
                seen.add(id(node))
                stack.append((node, True))
                stack.extend((parent, False) for parent in node.parents)
        self.grad = np.ones_like(self.data)
        while order:
            node = order.pop()
            if node.parents:
                for parent, grad in zip(node.parents, node.vjp(node.grad)):
                    parent.grad = grad if parent.grad is None else parent.grad + grad
                node.grad = node.parents = node.vjp = None

    def lift(self, other):
        """A number or an array as a Tensor of the same dtype."""
        return other if isinstance(other, Tensor) else Tensor(np.asarray(other, self.data.dtype))

    def __add__(self, other):
        other = self.lift(other)
        a, b = self.data, other.data
        return Tensor(a + b, (self, other),
                      lambda g: (unbroadcast(g, a.shape), unbroadcast(g, b.shape)))

    def __mul__(self, other):
        other = self.lift(other)
        a, b = self.data, other.data
        return Tensor(a * b, (self, other),
                      lambda g: (unbroadcast(g * b, a.shape), unbroadcast(g * a, b.shape)))

    def __matmul__(self, other):
        other = self.lift(other)
        a, b = self.data, other.data
        return Tensor(a @ b, (self, other),
                      lambda g: (unbroadcast(g @ b.swapaxes(-1, -2), a.shape),
                                 unbroadcast(a.swapaxes(-1, -2) @ g, b.shape)))

    def reshape(self, *shape):
        return Tensor(self.data.reshape(shape), (self,), lambda g: (g.reshape(self.data.shape),))

    def __getitem__(self, index):
        def vjp(g):
            da = np.zeros_like(self.data)
            np.add.at(da, index, g)                     # da[index] += g counts each place once
            return (da,)
        return Tensor(self.data[index], (self,), vjp)


def gradient_error(rng, f, *arrays):
    """Relative error of the gradients of a randomly weighted sum of the entries of f(*arrays).

    A plain sum can hide an error: the entries of a softmax add up to 1 and have gradient 0.
    """
    inputs = [Tensor(array) for array in arrays]        # not copies: value() sees each nudge
    y = f(*inputs)
    weights = rng.standard_normal(y.data.shape)
    (y * weights).backward()
    value = lambda: (f(*map(Tensor, arrays)).data * weights).sum()
    return np.max([relative_error(x.grad, numeric_gradient(value, x.data)) for x in inputs])


def adam(w, dw, state, lr, beta1=0.9, beta2=0.99, eps=1e-8):
    """Adam (Kingma 2015), in place: the mean gradient over the root of the mean square."""
    m = state.setdefault("m", np.zeros_like(w))
    v = state.setdefault("v", np.zeros_like(w))
    t = state["t"] = state.get("t", 0) + 1
    m *= beta1
    m += (1 - beta1) * dw
    v *= beta2
    v += (1 - beta2) * dw * dw
    w -= lr / (1 - beta1 ** t) * m / (np.sqrt(v / (1 - beta2 ** t)) + eps)


def linear_decay(step, steps, warmup=20):
    """The share of the learning rate at step 1 .. steps: up over the warm-up, then down."""
    return min(step / warmup, 1, (steps + 1 - step) / max(1, steps + 1 - warmup))


def cross_entropy(logits, targets):
    """Mean of -ln softmax(logits)[target] over N rows; logits (N, K), targets (N,) integers."""
    n = np.arange(len(targets))
    z = logits.data - logits.data.max(1, keepdims=True)
    p = np.exp(z)
    total = p.sum(1, keepdims=True)
    p /= total

    def vjp(g):
        dz = p.copy()                                               # dz = p - onehot(target)
        dz[n, targets] -= 1
        return (dz * (g / len(n)),)
    return Tensor((np.log(total[:, 0]) - z[n, targets]).mean(), (logits,), vjp)


def embedding(W, ids):
    """W[ids], the rows of W (V, C) that ids (N,) pick: onehot W."""
    def vjp(g):
        onehot = ids[:, None] == np.arange(len(W.data))
        return (onehot.T.astype(g.dtype) @ g,)
    return Tensor(W.data[ids], (W,), vjp)


def rotations(start, T, D, base=1000.0):
    """exp(i t w_j) for T positions t from start on and w_j = base^(-2j/D); (T, 1, D/2)."""
    t = np.arange(start, start + T)[:, None, None]
    return np.exp(1j * t * base ** (-np.arange(0, D, 2) / D))


def rotary(x, turn):
    """Read x (B, T, H, D) as pairs, complex numbers, and turn each by its angle (Su 2021)."""
    def rotate(x, turn):
        pairs = x.view(np.result_type(x, np.complex64))
        return (pairs * turn.astype(pairs.dtype)).view(x.dtype)
    return Tensor(rotate(x.data, turn), (x,), lambda g: (rotate(g, turn.conj()),))


def row_dot(a, b):
    """The dot product of each row of a with the same row of b, rows being the last axis."""
    return np.einsum("...i,...i->...", a, b)[..., None]


def attention(q, k, v, causal=True):
    """Look up by content: softmax(q k^T / sqrt(D)) v, every head on its own (Vaswani 2017).

    q (B, Tq, H, D); k, v (B, Tk, H, D). The queries stand at the last Tq of the Tk positions.
    """
    Q, K, V = (x.data.swapaxes(1, 2) for x in (q, k, v))            # (B, H, T, D)
    Tq, Tk, scale = Q.shape[2], K.shape[2], 1 / math.sqrt(Q.shape[3])
    Q = Q * scale
    E = Q @ K.swapaxes(2, 3)                                        # (B, H, Tq, Tk)
    if causal:
        E += np.triu(np.full((Tq, Tk), -np.inf, E.dtype), 1 + Tk - Tq)
    if row_dot(Q, Q).max() * row_dot(K, K).max() > 40 ** 2:
        E -= E.max(3, keepdims=True)
    np.exp(E, out=E)
    total = E.sum(3, keepdims=True)                 # A = E / total is never formed: total divides
    Y = E @ V / total                               # Y and g instead, which are smaller

    def vjp(g):
        G = g.swapaxes(1, 2) / total
        dS = G @ V.swapaxes(2, 3)
        dS -= row_dot(G, Y)
        dS *= E                                     # dS = A * (dA - row sums of A * dA)
        grads = dS @ K * scale, dS.swapaxes(2, 3) @ Q, E.swapaxes(2, 3) @ G
        return tuple(grad.swapaxes(1, 2) for grad in grads)
    return Tensor(Y.swapaxes(1, 2), (q, k, v), vjp)


def leaves(weights):
    """The weights, which are arrays, as Tensors that can collect a gradient."""
    return {name: Tensor(w) for name, w in weights.items()}


# ---- new here: the parts ------------------------------------------------------------------------

def layer_norm(x, gain, bias, eps=1e-5):
    """gain * (x - its mean) / its standard deviation + bias, along the last axis (Ba 2016)."""
    d = x.data - x.data.mean(-1, keepdims=True)
    r = 1 / np.sqrt((d * d).mean(-1, keepdims=True) + eps)
    y = d * r

    def vjp(g):
        dy = g * gain.data
        dx = r * (dy - dy.mean(-1, keepdims=True) - y * (dy * y).mean(-1, keepdims=True))
        return dx, unbroadcast(g * y, gain.data.shape), unbroadcast(g, bias.data.shape)
    return Tensor(gain.data * y + bias.data, (x, gain, bias), vjp)


def rms_norm(x, eps=1e-6):
    """x over its root mean square along the last axis (Zhang 2019)."""
    C = x.data.shape[-1]
    r = 1 / np.sqrt(row_dot(x.data, x.data) / C + eps)
    y = x.data * r
    return Tensor(y, (x,), lambda g: (r * (g - y * (row_dot(g, y) / C)),))


# The feed-forward layer holds two thirds of a block's weights. With a = x up, h = gelu(a) has the
# derivative gelu_slope(a), and h = max(a, 0)^2 has 2 max(a, 0). The rest is rules 2 and 4 of 04.

def feed_forward_gelu(x, up, down):
    """gelu(x up) down, as in GPT-2 (Radford 2019); x (N, C), up (C, 4C), down (4C, C)."""
    a = x.data @ up.data
    h = gelu(a)

    def vjp(g):
        da = (g @ down.data.T) * gelu_slope(a)
        return da @ up.data.T, x.data.T @ da, h.T @ g
    return Tensor(h @ down.data, (x, up, down), vjp)


def feed_forward(x, up, down):
    """max(x up, 0)^2 down: two matrices with a squared ReLU between them (So 2021).

    x (N, C), up (C, 4C), down (4C, C). One operation, to keep one (N, 4C) array instead of three.
    """
    root = x.data @ up.data                         # after the next line, the root of h
    np.maximum(root, 0, out=root)

    def vjp(g):
        da = (2 * g) @ down.data.T                  # 2 goes to g, the smaller array
        da *= root
        return da @ up.data.T, x.data.T @ da, (root * root).T @ g
    return Tensor((root * root) @ down.data, (x, up, down), vjp)


# What follows often depends on what came just before. Attention must learn to look there; a shift
# always does, for C weights: dx_t = g_t + mix g_(t+1), and dmix adds up g_t x_(t-1).

def token_shift(x, mix, before):
    """y_t = x_t + mix * x_(t-1): each position sees the one before it (after So 2021, Peng 2023).

    x (B, T, C), mix (C,), before (B, 1, C): the array in front of x; it gets no gradient.
    """
    previous = np.concatenate([before, x.data[:, :-1]], 1)

    def vjp(g):
        dx = g.copy()
        dx[:, :-1] += g[:, 1:] * mix.data
        return dx, (g * previous).sum((0, 1))
    return Tensor(x.data + mix.data * previous, (x, mix), vjp)


# ---- new here: the block and the stack ----------------------------------------------------------
# A net is a set of parts, so that each can be left out. norm is RMSNorm unless LayerNorm is named;
# feed-forward has a squared ReLU unless GELU is named. In 11, the matrices out, down and head start
# at zero.

GPT2 = {"attention", "feed-forward", "residuals", "norm", "LayerNorm", "GELU", "learned positions"}
GPT11 = {"attention", "feed-forward", "residuals", "norm", "rotary", "normed queries", "shift"}


def random_weights(rng, V, T, C, layers, parts):
    """The weights by name; a std of 1 / sqrt(inputs) makes x @ matrix as large as x (06)."""
    def matrix(n_in, n_out):
        return rng.standard_normal((n_in, n_out), np.float32) / np.float32(math.sqrt(n_in))

    weights = {"embed": 0.3 * rng.standard_normal((V, C), np.float32),       # short, as in 09
               "head": matrix(C, V)}
    norms = ["last"]
    if "learned positions" in parts:
        weights["places"] = 0.3 * rng.standard_normal((T, C), np.float32)
    for i in range(layers):
        if "attention" in parts:
            weights |= {f"{i}.{name}": matrix(C, C) for name in ("query", "key", "value", "out")}
            norms.append(f"{i}.attention")
        if "feed-forward" in parts:
            weights |= {f"{i}.up": matrix(C, 4 * C), f"{i}.down": matrix(4 * C, C)}
            norms.append(f"{i}.feed-forward")
        if "shift" in parts:
            weights[f"{i}.mix"] = np.zeros(C, np.float32)
    if {"norm", "LayerNorm"} <= parts:
        for name in norms:
            weights[f"{name}.gain"] = np.ones(C, np.float32)
            weights[f"{name}.bias"] = np.zeros(C, np.float32)
    return weights


def norm(x, weights, name, parts):
    """x with the norm that parts name; gains and biases, if any, are among the weights."""
    if "norm" not in parts:
        return x
    if "LayerNorm" in parts:
        return layer_norm(x, weights[f"{name}.gain"], weights[f"{name}.bias"])
    return rms_norm(x)


def attend(x, weights, i, shape, parts):
    """The attention layer of block i (09), with rotary positions (08) if they are a part."""
    B, T, H, D = shape
    q, k, v = ((x @ weights[f"{i}.{name}"]).reshape(*shape) for name in ("query", "key", "value"))
    if "normed queries" in parts:                   # and keys: no score exceeds sqrt(D)
        q, k = rms_norm(q), rms_norm(k)
    if "rotary" in parts:
        turn = rotations(0, T, D)
        q, k = rotary(q, turn), rotary(k, turn)
    return attention(q, k, v).reshape(B * T, H * D) @ weights[f"{i}.out"]


def feed(x, weights, i, shape, parts):
    """The feed-forward layer of block i, after a token shift if that is a part."""
    B, T, H, D = shape
    if "shift" in parts:
        before = np.zeros((B, 1, H * D), x.data.dtype)
        x = token_shift(x.reshape(B, T, H * D), weights[f"{i}.mix"], before).reshape(B * T, H * D)
    layer = feed_forward_gelu if "GELU" in parts else feed_forward
    return layer(x, weights[f"{i}.up"], weights[f"{i}.down"])


def block(x, weights, i, shape, parts):
    """Block i on x (N, C): x + layer(norm(x)), or post-norm, twice; shape is (B, T, H, D)."""
    for part, layer in ("attention", attend), ("feed-forward", feed):
        if part in parts:
            name, post = f"{i}.{part}", "post-norm" in parts
            y = layer(x if post else norm(x, weights, name, parts), weights, i, shape, parts)
            y = x + y if "residuals" in parts else y
            x = norm(y, weights, name, parts) if post else y
    return x


def transformer(weights, ids, layers, heads, parts):
    """Logits (N, V) of what follows each of ids (B, T)."""
    (B, T), C = ids.shape, weights["embed"].data.shape[1]
    x = embedding(weights["embed"], ids.ravel())
    if "learned positions" in parts:
        x = x + embedding(weights["places"], np.tile(np.arange(T), B))
    if "LayerNorm" not in parts:                # x is short at first: do not let layers drown it
        x = norm(x, weights, "first", parts)
    for i in range(layers):
        x = block(x, weights, i, (B, T, heads, C // heads), parts)
    return norm(x, weights, "last", parts) @ weights["head"]


# ---- new here: a task ---------------------------------------------------------------------------
# 31415926=11234569: sort digits. From = on the net must guess each next digit from all that stands
# before it, as a GPT does.

EQUALS, V = 10, 11                                  # a digit is its own id


def sorting(rng, B, digits):
    """ids (B, 2 * digits + 1): random digits, =, and the same digits sorted."""
    row = rng.integers(10, size=(B, digits))
    return np.concatenate([row, np.full((B, 1), EQUALS), np.sort(row, 1)], 1)


def next_digits(weights, rows, layers, heads, parts):
    """Logits (B, digits, V) of the sorted digits in rows, each from what stands before it."""
    B, T = rows[:, :-1].shape
    logits = transformer(weights, rows[:, :-1], layers, heads, parts)
    return logits.reshape(B, T, V)[:, T // 2:]


def learn_sorting(seed, parts, digits, layers, heads, channels, steps, lr, batch=32):
    """The weights, the last loss, and the share of 2000 fresh rows sorted without error."""
    rng = np.random.default_rng(seed)
    weights = random_weights(rng, V, 2 * digits, channels, layers, parts)
    states = {name: {} for name in weights}
    for step in range(1, steps + 1):
        rows, tensors = sorting(rng, batch, digits), leaves(weights)
        with np.errstate(all="ignore"):             # divergence shows in the loss
            logits = next_digits(tensors, rows, layers, heads, parts).reshape(-1, V)
            loss = cross_entropy(logits, rows[:, -digits:].ravel())
            loss.backward()
            for name, w in weights.items():
                adam(w, tensors[name].grad, states[name], lr * linear_decay(step, steps))
        if not math.isfinite(loss.data):            # not refused: what fails is a row of the table
            return weights, math.nan, 0.0
    rows, weights_now = sorting(rng, 2000, digits), leaves(weights)
    with np.errstate(all="ignore"):
        found = np.concatenate([next_digits(weights_now, part, layers, heads, parts).data.argmax(2)
                                for part in np.split(rows, 8)])
    return weights, loss.data.item(), (found == rows[:, -digits:]).all(1).mean()


# ---- new here: counting -------------------------------------------------------------------------
# Attention has 4 matrices (C, C), feed-forward 2 of 4 C^2: 12 C^2 weights. A product of N rows with
# them takes a multiplication and an addition for each row and weight: 24 N C^2 operations. The
# scores and the means of values take 2 C each for each of N queries and T keys: 4 N T C. Backward,
# each product Z = X W needs two such products, dZ W^T and X^T dZ: in all three times as many.

class Counted(np.ndarray):
    """An array that adds up the operations of all matrix products it takes part in."""

    total = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **how):
        """NumPy calls this in place of its ufuncs (+, exp, @ ..): do the same, and count @."""
        plain = lambda arrays: tuple(array.view(np.ndarray) if isinstance(array, Counted)
                                     else array for array in arrays)
        if out:
            how["out"] = plain(out)
        result = getattr(ufunc, method)(*plain(inputs), **how)
        if ufunc is np.matmul:
            Counted.total += 2 * result.size * inputs[0].shape[-1]
        return out[0] if out else np.asarray(result).view(Counted)


def operations(work):
    """How many operations the matrix products of work() need."""
    Counted.total = 0
    work()
    return Counted.total


# ---- the experiment -----------------------------------------------------------------------------

def tell_parts(rng, N=6, C=4):
    """Every part and a whole net against central differences; relative errors by name."""
    x = rng.standard_normal((N, C))
    W = lambda *shape: rng.standard_normal(shape)
    ids = rng.integers(12, size=(2, 5))
    checks = {
        "layer_norm": (layer_norm, x, W(C), W(C)), "rms_norm": (rms_norm, x),
        "feed_forward": (feed_forward, x, W(C, 10), W(10, C)),
        "feed_forward_gelu": (feed_forward_gelu, x, W(C, 10), W(10, C)),
        "token_shift": (lambda x, mix: token_shift(x, mix, np.ones((2, 1, C))), W(2, 3, C), W(C))}
    for name, parts in ("GPT-2's parts", GPT2), ("11's parts", GPT11):
        weights = random_weights(rng, 12, 5, C, 1, parts)
        checks[f"a net of {name}"] = (
            lambda *tensors, names=list(weights), parts=parts:     # as they are in this pass
                transformer(dict(zip(names, tensors)), ids, 1, 2, parts),
            *(W(*w.shape) for w in weights.values()))
    errors = {name: gradient_error(rng, *check) for name, check in checks.items()}
    print("Gradients against central differences, relative errors")
    for name, error in errors.items():
        print(f"  {name:24} {error:.0e}")
    assert max(errors.values()) < 1e-6
    one, zero, inputs = Tensor(np.ones(C)), Tensor(np.zeros(C)), Tensor(x)
    y = layer_norm(inputs, one, zero, eps=0)
    same = relative_error(layer_norm(Tensor(3 * x + 5), one, zero, eps=0).data, y.data)
    (y * rng.standard_normal(x.shape)).backward()
    along = max(np.abs(row_dot(inputs.grad, other)).max() for other in (y.data, np.ones((N, C))))
    assert same < 1e-12 and along < 1e-12
    print(f"LayerNorm (eps 0) makes the same y of x and 3 x + 5, within {same:.0e}. So dx has no "
          f"part along\ny or (1, .., 1): at most {along:.0e}.")
    return errors


STACKS = {"neither": set(), "residuals": {"residuals"}, "norm": {"norm"},
          "both, post-norm": {"residuals", "norm", "post-norm"},
          "both, pre-norm": {"residuals", "norm"}}


def through(rng, parts, depth, T=16, H=2, C=32):
    """Random x through a stack of blocks, a random gradient back: sizes after each block, the size
    of the gradient at the start, the mean cosine between the results of two positions.

    The gradient is nan where scores, which grow with the square of x, are so large that float64
    loses the differences between them.
    """
    parts = parts | {"attention", "feed-forward", "GELU"}
    weights = random_weights(rng, 1, T, C, depth, parts)
    weights = leaves({name: w.astype(float) for name, w in weights.items()})
    sizes, size = [], lambda array: math.sqrt((array * array).mean())
    x = y = Tensor(rng.standard_normal((T, C)))
    for i in range(depth):
        y = block(y, weights, i, (1, T, H, C // H), parts)
        sizes.append(size(y.data))
    (y * rng.standard_normal((T, C))).backward()
    unit = y.data / np.linalg.norm(y.data, axis=1, keepdims=True)
    cosine = ((unit @ unit.T).sum() - T) / (T * T - T)      # of different positions
    return sizes, size(x.grad) if max(sizes) < 1e7 else math.nan, cosine


def tell_depth(rng, deepest, draws=5):
    """What stacks do to a signal and a gradient: {stack: {depth: (size, gradient, cosine)}}."""
    depths = [depth for depth in (2, 4, 6, 12, 24, 48) if depth <= deepest]
    found, curves = {stack: {} for stack in STACKS}, {}
    for stack, parts in STACKS.items():
        for depth in depths:
            sizes, gradients, cosines = zip(*(through(rng, parts, depth) for _ in range(draws)))
            sizes = np.median(sizes, 0)                     # after each block
            found[stack][depth] = sizes[-1], np.median(gradients), np.median(cosines)
        curves[stack] = np.arange(1, depth + 1), np.log10(sizes)        # of the deepest stack
    print("\nRandom x, and on the way back a random gradient, both of root mean square 1, in "
          f"stacks of\nblocks (RMSNorm, GELU, no positions); medians of {draws}; nan: too much for "
          "float64")
    for place, title in enumerate(("size of the result", "size of the gradient at the start",
                                   "cosine between positions: 1 if all vectors point one way")):
        print(f"\n{title}\n{'  blocks':18}" + "".join(f"{depth:>9}" for depth in depths))
        for stack, by_depth in found.items():
            print(f"  {stack:16}" + "".join(f"{by_depth[depth][place]:9.3g}" for depth in depths))
    print("With norm, no result explodes or vanishes. Attention makes means, so positions grow\n"
          "alike, slowest in pre-norm, where x stays a term of the sum: post-norm divides x each\n"
          "time.\n\n"
          "log10 of the size after each block.  n: neither,  r: residuals,  b: both (pre-norm)")
    print(plot({stack[0]: curves[stack] for stack in ("neither", "residuals", "both, pre-norm")}))
    return found


def tell_size(rng, C=64, T=32, H=4, B=3):
    """Count the weights and operations of a block, and compare with the formulas."""
    N = B * T
    counted = {}
    for name, parts, more in ("GPT-2's", GPT2, 4 * C), ("11's", GPT11, C):      # + gains, or mix
        weights = {key: w.view(Counted) for key, w in
                   random_weights(rng, 1, T, C, 1, parts).items() if key.startswith("0.")}
        tensors = leaves(weights)
        x = Tensor(rng.standard_normal((N, C), np.float32).view(Counted))
        forward = operations(lambda: block(x, tensors, 0, (B, T, H, C // H), parts))
        both = operations(lambda: block(x, tensors, 0, (B, T, H, C // H), parts).backward())
        counted[name] = sum(w.size for w in weights.values()), forward, both
        assert counted[name][0] == 12 * C * C + more
        assert forward == 24 * N * C * C + 4 * N * T * C and both == 3 * forward
    print(f"\nOne block, C = {C}, T = {T}, N = {N}, counted, and equal to the formulas: "
          f"{12 * C * C:,} weights in\nmatrices, 12 C^2; {forward:,} operations in products, "
          f"24 N C^2 + 4 N T C; {both:,} with all\ngradients, three times as many. Scores and "
          "means of values take T / (6 C + T) of\nall operations: "
          f"{128 / (6 * 128 + 128):.0%} in 11 (T = C = 128), {1024 / (6 * 768 + 1024):.0%} in the "
          "smallest GPT-2 (T = 1024, C = 768).")
    return counted


NETS = {
    "GPT-2's parts": GPT2,
    "no attention": GPT2 - {"attention"},
    "no feed-forward": GPT2 - {"feed-forward"},
    "no residuals": GPT2 - {"residuals"},
    "no norm": GPT2 - {"norm"},
    "post-norm": GPT2 | {"post-norm"},
    "11's parts": GPT11,
    "11's, no norm at all": GPT11 - {"norm", "normed queries"},
    "11's, no token shift": GPT11 - {"shift"},
}


def write_sorted(weights, row, layers, heads, parts):
    """row up to =, and what the net writes behind it, digit by digit."""
    tensors, ids = leaves(weights), row[:len(row) // 2 + 1]
    while len(ids) < len(row):
        with np.errstate(all="ignore"):
            logits = transformer(tensors, ids[None], layers, heads, parts).data[-1]
        ids = np.append(ids, logits.argmax())       # all is computed anew; 11 keeps keys and values
    return "".join("0123456789="[i] for i in ids)


def tell_sorting(seed, seeds, digits, layers, heads, channels, steps, lr):
    """The table of nets: {name: [share of fresh rows sorted without error, by seed]}."""
    print(f"\nSorting {digits} digits: {layers} blocks, {heads} heads, {channels} channels, "
          f"{steps} steps of 32 rows.\nloss: of the last step; right: of 2000 fresh rows, those "
          "without any error.\n\n"
          f"{'net':26}{'weights':>10}{'loss':>9}{'right':>9}")
    right = {}
    for name, parts in NETS.items():
        runs = [learn_sorting(s, parts, digits, layers, heads, channels, steps, lr)
                for s in range(seed, seed + seeds)]
        right[name] = [share for _, _, share in runs]
        spread = f" +- {np.std(right[name], ddof=1):.1%}" if seeds > 1 else ""
        print(f"{name:26}{sum(w.size for w in runs[0][0].values()):10,}"
              f"{np.mean([loss for _, loss, _ in runs]):9.4f}{np.mean(right[name]):9.1%}{spread}",
              flush=True)
        if parts == GPT2:
            kept = runs[0][0]
    print("Differences of a percent are chance, as --seeds=3 shows. Few blocks can do without\n"
          "norm; in deep stacks sizes explode or vanish without it, as above.")
    fresh = sorting(np.random.default_rng(seed), 3, digits)
    print("\nThe first net writes: " + "  ".join(write_sorted(kept, row, layers, heads, GPT2)
                                                 for row in fresh))
    return right


def main(deepest=48, digits=8, layers=4, heads=2, channels=32, steps=600, lr=0.005, seeds=1,
         seed=0):
    """Check the parts, send signals through stacks of blocks, and take apart a net that sorts.

    deepest: blocks in the deepest stack that signals go through, up to 48
    digits: in a row to sort
    layers: blocks in the net
    heads: attention heads in a block
    channels: width of the stream
    steps: of training, each with 32 fresh rows
    lr: highest learning rate
    seeds: runs of each net in the table, for mean and spread
    seed: the first of them

    Returns a dict: gradient_error by name, depth ({stack: {depth: (size, gradient, cosine)}}),
    counted ({parts: (weights, operations, those with all gradients)}), right ({net: [share]}).
    """
    for name, value in dict(digits=digits, layers=layers, heads=heads, channels=channels,
                            steps=steps, seeds=seeds).items():
        refuse(not 0 < value <= 10 ** 5, f"--{name} must be between 1 and 100000")
    refuse(not 2 <= deepest <= 48, "--deepest must be between 2 and 48")
    refuse(channels % heads, f"{channels} channels do not divide into {heads} heads")
    refuse(channels // heads % 2, f"{channels} channels in {heads} heads leave an odd number in "
           "each, but rotary positions turn pairs")
    refuse(not 0 < lr < math.inf, "--lr must be positive")
    refuse(seed < 0, "--seed must be 0 or more")
    rng = np.random.default_rng(seed)
    errors, depth, counted = tell_parts(rng), tell_depth(rng, deepest), tell_size(rng)
    right = tell_sorting(seed, seeds, digits, layers, heads, channels, steps, lr)
    return {"gradient_error": errors, "depth": depth, "counted": counted, "right": right}


if __name__ == "__main__":
    command_line(main)
