"""10  The transformer block: two layers, and what lets us stack many.

Carried from 01: numeric_gradient, relative_error, refuse, command_line, plot.  02: sigmoid, gelu.
05: Tensor, gradient_error.  06: adam, linear_decay, cross_entropy.  08: embedding, rotary.
09: attention, leaves.
New here: layer_norm, rms_norm, feed_forward, token_shift, the block, and what each part is worth.

A block adds to a stream x, of C numbers at each position, what two layers find in it:
    x = x + attention(norm(x)) @ out         between positions: fetch what is needed (09)
    x = x + feed_forward(norm(x))            within a position: max(x up, 0)^2 down, 4C wide
Norm gives each layer inputs of one size. LayerNorm, entry i of a row of C, with its mean m:
    y_i = (x_i - m) r,    r = 1 / sqrt(mean of (x - m)^2 + eps),    result = gain * y + bias
Backward. By x_j, m has the derivative 1/C, and r has -r^3 (x_j - m) / C = -r^2 y_j / C. So
    dy_i/dx_j = r ([i = j] - 1/C - y_i y_j / C), and with g = dL/dy
    dx = r (g - mean(g) - y mean(g y))       three terms: one for x_i itself, one for m, one for r
The last two take from g its parts along (1, .., 1) and along y: to shift x, or to scale it, changes
nothing. RMSNorm leaves out m, gain and bias. What remains is dx = r (g - y mean(g y)).

The plus signs are the residuals. They make the gradient at the input of a layer g + (g times its
Jacobian), so that g itself reaches all depths. Norm may stand before a layer, inside the residual,
as above (pre-norm), or after it (post-norm): x = norm(x + layer(x)).

Run       python 10_block.py                    (--seeds=3 for the mean and spread of the table)
Expect    45 s on two cores; 99 % of sequences sorted
Left out  dropout; biases in the matrices; the text (11)
"""
import argparse, inspect, math, os, re, sys, time

import numpy as np

# B batch, T positions, C channels, H heads, D = C/H; N = B*T rows, one per position
# V vocabulary; x (N, C) except where (B, T, ..) is said


# ---- carried from 01, 02, 05, 06, 08 and 09, unchanged, as far as it is needed ------------------

def numeric_gradient(f, x, eps=1e-6):
    """(f(x + eps) - f(x - eps)) / (2 eps) for each entry of x; f() is a number and depends on x."""
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


def command_line(main):
    """Run main with the --name=value of the command line; in a notebook, with its defaults."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")    # what the console cannot show becomes '?'
    gloss = dict(re.findall(r"^ *(\w+): (.+)$", main.__doc__, re.M))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    for name, argument in inspect.signature(main).parameters.items():
        value = argument.default
        parser.add_argument(f"--{name}", type=type(value), default=value,
                            help=f"{gloss[name]} (default: {value!r})")
    arguments = parser.parse_args(None if "__file__" in globals() else [])
    try:
        main(**vars(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except MemoryError:
        refuse(True, "there is not enough memory for these sizes")
    except OSError as problem:                      # a full disk; or who read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        refuse(not isinstance(problem, BrokenPipeError), problem)


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


def sigmoid(x):
    """1 / (1 + e^-x), through tanh, which overflows nowhere."""
    return 0.5 * (1 + np.tanh(0.5 * x))


ROOT = math.sqrt(8 / math.pi)


def gelu(x):
    """GELU in its tanh form (Hendrycks 2016): x (1 + tanh u) / 2, which is x sigmoid(2 u),
    with u = sqrt(2 / pi) (x + 0.044715 x^3)."""
    return x * sigmoid(ROOT * (x + 0.044715 * x * x * x))


def gelu_slope(x):
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
    """The share of the learning rate at step 1 .. steps: up over the warm-up, then down to 0."""
    return min(step / warmup, 1, (steps + 1 - step) / max(1, steps + 1 - warmup))


def cross_entropy(logits, targets):
    """Mean of -ln softmax(logits)[target] over N rows; logits (N, V), targets (N,) integers."""
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
    """Rows ids (N,) of W (V, C): the product of a one-hot matrix (N, V) with W."""
    def vjp(g):
        onehot = ids[:, None] == np.arange(len(W.data))
        return (onehot.T.astype(g.dtype) @ g,)
    return Tensor(W.data[ids], (W,), vjp)


def rotations(start, T, D, base=1000.0):
    """exp(i t w_j) for positions t from start on and w_j = base^(-2j/D); (T, 1, D/2)."""
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
    if row_dot(Q, Q).max() * row_dot(K, K).max() > 80 ** 2:
        E -= E.max(3, keepdims=True)                # else |score| <= |Q||K| <= 80 cannot overflow
    np.exp(E, out=E)
    total = E.sum(3, keepdims=True)                 # A = E / total is never formed: total divides
    Y = E @ V / total                               # Y and dY instead, which are smaller

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

    def vjp(dout):
        g = dout * gain.data
        dx = r * (g - g.mean(-1, keepdims=True) - y * (g * y).mean(-1, keepdims=True))
        return dx, unbroadcast(dout * y, gain.data.shape), unbroadcast(dout, bias.data.shape)
    return Tensor(gain.data * y + bias.data, (x, gain, bias), vjp)


def rms_norm(x, eps=1e-6):
    """x over its root mean square along the last axis (Zhang 2019)."""
    C = x.data.shape[-1]
    r = 1 / np.sqrt(row_dot(x.data, x.data) / C + eps)
    y = x.data * r
    return Tensor(y, (x,), lambda g: (r * (g - y * (row_dot(g, y) / C)),))


# The feed-forward layer holds two thirds of a block's weights. r is max(x up, 0), and r^2 has the
# derivative 2 r, so that dr = dL/dr * 2 r; the rest is rules 2 and 4 of 04.

def feed_forward(x, up, down):
    """max(x up, 0)^2 down: two matrices with a squared ReLU between them (So 2021).

    x (N, C), up (C, 4C), down (4C, C). One operation, to keep one (N, 4C) array instead of three.
    """
    r = x.data @ up.data
    np.maximum(r, 0, out=r)

    def vjp(g):
        dr = (2 * g) @ down.data.T
        dr *= r
        return dr @ up.data.T, x.data.T @ dr, (r * r).T @ g
    return Tensor((r * r) @ down.data, (x, up, down), vjp)


def feed_forward_gelu(x, up, down):
    """gelu(x up) down, as in GPT-2 (Radford 2019)."""
    a = x.data @ up.data
    h = gelu(a)

    def vjp(g):
        da = (g @ down.data.T) * gelu_slope(a)
        return da @ up.data.T, x.data.T @ da, h.T @ g
    return Tensor(h @ down.data, (x, up, down), vjp)


def token_shift(x, mix, before):
    """y_t = x_t + mix * x_(t-1): each position sees the one before it (after So 2021, Peng 2023).

    x (B, T, C), mix (C,), before (B, 1, C): an array, what stands in front of x.
    """
    previous = np.concatenate([before, x.data[:, :-1]], 1)

    def vjp(g):
        dx = g.copy()
        dx[:, :-1] += g[:, 1:] * mix.data
        return dx, (g * previous).sum((0, 1))
    return Tensor(x.data + mix.data * previous, (x, mix), vjp)


# ---- new here: the block and the stack ----------------------------------------------------------
# A net is described by the set of its parts, so that any one can be left out or replaced.

GPT2 = {"attention", "feed-forward", "residuals", "norm", "LayerNorm", "GELU", "learned positions"}
MODERN = {"attention", "feed-forward", "residuals", "norm", "rotary", "shift"}


def random_weights(rng, V, T, C, layers, parts):
    """The weights by name: matrices of std 1 / sqrt(fan-in), so that results are as large as x."""
    def matrix(n_in, n_out):
        return rng.standard_normal((n_in, n_out), np.float32) / np.float32(math.sqrt(n_in))

    weights = {"embed": 0.3 * rng.standard_normal((V, C), np.float32), "head": matrix(C, V)}
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
    """Attention layer of block i: H heads (09), with rotary positions (08) if parts say so."""
    B, T, H, D = shape
    q, k, v = ((x @ weights[f"{i}.{name}"]).reshape(*shape) for name in ("query", "key", "value"))
    if "rotary" in parts:
        turn = rotations(0, T, D)
        q, k = rotary(rms_norm(q), turn), rotary(rms_norm(k), turn)     # all of one length
    return attention(q, k, v).reshape(B * T, H * D) @ weights[f"{i}.out"]


def feed(x, weights, i, shape, parts):
    """Feed-forward layer of block i, with a token shift before it if parts say so."""
    B, T, H, D = shape
    if "shift" in parts:
        before = np.zeros((B, 1, H * D), x.data.dtype)
        x = token_shift(x.reshape(B, T, H * D), weights[f"{i}.mix"], before).reshape(B * T, H * D)
    layer = feed_forward_gelu if "GELU" in parts else feed_forward
    return layer(x, weights[f"{i}.up"], weights[f"{i}.down"])


def block(x, weights, i, shape, parts):
    """Block i on x (N, C), of the parts that are named; shape is (B, T, H, D)."""
    for part, layer in ("attention", attend), ("feed-forward", feed):
        if part in parts:
            normed = lambda x: norm(x, weights, f"{i}.{part}", parts)
            y = layer(x if "post-norm" in parts else normed(x), weights, i, shape, parts)
            y = x + y if "residuals" in parts else y
            x = normed(y) if "post-norm" in parts else y
    return x


def transformer(weights, ids, layers, heads, parts):
    """Logits (N, V) of what follows each of ids (B, T)."""
    (B, T), C = ids.shape, weights["embed"].data.shape[1]
    x = embedding(weights["embed"], ids.ravel())
    if "learned positions" in parts:
        x = x + embedding(weights["places"], np.tile(np.arange(T), B))
    if "LayerNorm" not in parts:                    # GPT-2 has none here
        x = norm(x, weights, "first", parts)
    for i in range(layers):
        x = block(x, weights, i, (B, T, heads, C // heads), parts)
    return norm(x, weights, "last", parts) @ weights["head"]


# ---- new here: a task ---------------------------------------------------------------------------
# 271+845=6111: add two numbers. The answer begins with its last digit, as on paper, because each
# digit depends on a carry from those to its right. Each guess sees all characters before it.

CHARACTERS = "0123456789+="


def sums(pairs, digits):
    """ids (B, 3 digits + 3) of the sums of pairs (B,): 271845, of three digits, is 271+845=6111."""
    a, b = np.divmod(pairs[:, None], 10 ** digits)
    place = 10 ** np.arange(digits + 1)
    number = lambda x: x // place[-2::-1] % 10
    sign = lambda character: np.full_like(a, CHARACTERS.index(character))
    ids = [number(a), sign("+"), number(b), sign("="), (a + b) // place % 10]
    return np.concatenate(ids, 1)


def answer_logits(weights, rows, digits, layers, heads, parts):
    """Logits (B, digits + 1, V) of the answers in rows, each from all characters before it."""
    B, T = rows[:, :-1].shape
    logits = transformer(weights, rows[:, :-1], layers, heads, parts)
    return logits.reshape(B, T, len(CHARACTERS))[:, -digits - 1:]


def learn_sums(seed, parts, digits, layers, heads, channels, steps, lr, batch=64):
    """The weights, the last loss, and the share of unseen sums of which all digits are right."""
    rng = np.random.default_rng(seed)
    held = rng.integers(10 ** (2 * digits), size=2000)
    weights = random_weights(rng, len(CHARACTERS), 3 * digits + 2, channels, layers, parts)
    states = {name: {} for name in weights}
    for step in range(1, steps + 1):
        pairs = rng.integers(10 ** (2 * digits), size=batch)
        rows, tensors = sums(pairs[~np.isin(pairs, held)], digits), leaves(weights)
        with np.errstate(all="ignore"):                 # divergence shows in the loss
            logits = answer_logits(tensors, rows, digits, layers, heads, parts)
            loss = cross_entropy(logits.reshape(-1, len(CHARACTERS)), rows[:, -digits - 1:].ravel())
            loss.backward()
            for name, w in weights.items():
                adam(w, tensors[name].grad, states[name], lr * linear_decay(step, steps))
        if not math.isfinite(loss.data):
            return weights, math.nan, 0.0
    rows = sums(held, digits)
    found = answer_logits(leaves(weights), rows, digits, layers, heads, parts).data.argmax(2)
    return weights, loss.data.item(), (found == rows[:, -digits - 1:]).all(1).mean()


# ---- new here: counting -------------------------------------------------------------------------

class Counted(np.ndarray):
    """An array that adds up the operations of all matrix products it takes part in."""

    total = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **how):
        """NumPy calls this in place of each of its functions: do the same, and count."""
        plain = lambda arrays: tuple(array.view(np.ndarray) if isinstance(array, Counted)
                                     else array for array in arrays)
        if out:
            how["out"] = plain(out)
        result = getattr(ufunc, method)(*plain(inputs), **how)
        if ufunc is np.matmul:                      # per entry a product and a sum for each term
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
    for name, parts in ("GPT-2", GPT2), ("modern", MODERN):
        weights = random_weights(rng, 12, 5, C, 1, parts)
        checks[f"a whole net, {name}"] = (
            lambda *arrays, names=list(weights), parts=parts:
                transformer(dict(zip(names, arrays)), ids, 1, 2, parts),
            *(W(*w.shape) for w in weights.values()))
    errors = {name: gradient_error(rng, *check) for name, check in checks.items()}
    print("Gradients against central differences, relative errors")
    for name, error in errors.items():
        print(f"  {name:20} {error:.0e}")
    assert max(errors.values()) < 1e-6
    one, zero, inputs = Tensor(np.ones(C)), Tensor(np.zeros(C)), Tensor(x)
    y = layer_norm(inputs, one, zero, eps=0)
    same = relative_error(layer_norm(Tensor(3 * x + 5), one, zero, eps=0).data, y.data)
    rows = y.data
    (y * rng.standard_normal(x.shape)).backward()
    along = max(np.abs(row_dot(inputs.grad, other)).max() for other in (rows, np.ones((N, C))))
    assert same < 1e-12 and along < 1e-12
    print(f"LayerNorm of 3 x + 5 is that of x, within {same:.0e}; its dx has no part along y or\n"
          f"(1, .., 1), within {along:.0e}.")
    return errors


STACKS = {
    "neither": ("n", set()), "residuals": ("r", {"residuals"}), "norm": ("m", {"norm"}),
    "both, post-norm": ("p", {"residuals", "norm", "post-norm"}),
    "both, pre-norm": ("b", {"residuals", "norm"}),
}


def tell_depth(rng, deepest, B=2, T=32, H=4, C=64):
    """What stacks do to a signal and a gradient: {kind: [(size, gradient, cosine) by depth]}."""
    rows, size = {}, lambda array: math.sqrt((array * array).mean())
    depths = [depth for depth in (2, 4, 6, 12, 24, 48) if depth <= deepest]
    for kind, (_, parts) in STACKS.items():
        rows[kind] = []
        for depth in depths:
            parts = parts | {"attention", "feed-forward", "GELU"}
            weights = leaves({name: w.astype(float) for name, w in
                              random_weights(rng, 1, 1, C, depth, parts).items()})
            x = y = Tensor(rng.standard_normal((B * T, C)))
            for i in range(depth):
                y = block(y, weights, i, (B, T, H, C // H), parts)
            (y * rng.standard_normal(y.data.shape)).backward()
            rows_of = y.data.reshape(B, T, C) / np.linalg.norm(y.data, axis=1).reshape(B, T, 1)
            cosines = rows_of @ rows_of.swapaxes(1, 2)
            alike = (cosines.sum() / B - T) / (T * T - T)
            rows[kind].append((size(y.data), size(x.grad), alike))
    print("\nRandom x of size 1 (root mean square) through stacks of blocks, and a random gradient "
          "of size 1 back")
    for place, title in enumerate(("size of the result", "size of the gradient at the start",
                                   "cosine between positions: 1 if all vectors point one way")):
        print(f"\n{title}\n{'blocks':18}" + "".join(f"{depth:>9}" for depth in depths))
        for kind, found in rows.items():
            cells = [triple[place] for triple in found]
            print(f"{kind:18}" + "".join(f"{cell:9.2f}" if place == 2 else f"{cell:9.0e}"
                                         for cell in cells))
    print("\nlog10 of the size of the result, by blocks: n neither, r residuals, m norm, "
          "p post-norm, b pre-norm")
    print(plot({mark: (depths, [math.log10(found[0]) for found in rows[kind]])
                for kind, (mark, _) in STACKS.items()}))
    return rows


def tell_size(rng, C=64, T=32, H=4, B=2):
    """Weights and operations of a block, by formula and by code: {parts: (weights, operations)}."""
    N = B * T
    print(f"\nOne block with C = {C}, T = {T}, N = {N}; what formulas say, and what is counted")
    counted = {}
    for name, parts, more in ("GPT-2", GPT2, 4 * C), ("modern", MODERN, C):
        weights = {key: w.view(Counted) for key, w in
                   random_weights(rng, 1, T, C, 1, parts).items() if key.startswith("0.")}
        tensors = leaves(weights)
        x = Tensor(rng.standard_normal((N, C), np.float32).view(Counted))
        forward = operations(lambda: block(x, tensors, 0, (B, T, H, C // H), parts))
        both = operations(lambda: block(x, tensors, 0, (B, T, H, C // H), parts).backward())
        size = sum(w.size for w in weights.values())
        assert size == 12 * C * C + more
        assert forward == 24 * N * C * C + 4 * N * T * C and both == 3 * forward
        counted[name] = size, forward, both
        print(f"  {name:7} {size:,} weights, 12 C^2 + {more // C} C; in matrix products\n"
              f"          {forward:,} operations, 24 N C^2 + 4 N T C; with all gradients\n"
              f"          {both:,}, three times as many")
    share = lambda T, C: T / (6 * C + T)
    print("The products of T x T scores take T / (6 C + T) of the operations: "
          f"{share(128, 128):.0%} in 11, {share(1024, 768):.0%} in GPT-2.")
    return counted


ABLATIONS = {
    "GPT-2's parts": GPT2,
    "no attention": GPT2 - {"attention"},
    "no feed-forward": GPT2 - {"feed-forward"},
    "no residuals": GPT2 - {"residuals"},
    "no norm": GPT2 - {"norm"},
    "post-norm": GPT2 | {"post-norm"},
    "rotary for learned positions": GPT2 - {"learned positions"} | {"rotary"},
    "11's parts": MODERN,
    "11's, learned positions": MODERN - {"rotary"} | {"learned positions"},
}


def write_answer(weights, row, digits, layers, heads, parts):
    """The sum in row as text, with an answer that the net writes digit by digit."""
    tensors, ids = leaves(weights), row[:-digits - 1]
    while len(ids) < len(row):
        logits = transformer(tensors, ids[None], layers, heads, parts).data[-1]
        ids = np.append(ids, logits.argmax())
    return "".join(CHARACTERS[i] for i in ids)


def tell_sums(seed, seeds, digits, layers, heads, channels, steps, lr):
    """The table of ablations: {name: [share of new sums that are all right, by seed]}."""
    rows = sums(np.random.default_rng(seed).integers(10 ** (2 * digits), size=4), digits)
    print(f"\nSums such as {''.join(CHARACTERS[i] for i in rows[0])}, the answer from its last "
          f"digit on.\n{layers} blocks, {heads} heads, {channels} channels; {steps} steps of 64 "
          "sums; right: all digits, among 2000 unseen sums\n\n"
          f"{'net':28}{'weights':>10}{'loss':>9}{'right':>9}")
    right = {}
    for name, parts in ABLATIONS.items():
        runs = [learn_sums(s, parts, digits, layers, heads, channels, steps, lr)
                for s in range(seed, seed + seeds)]
        right[name] = [share for _, _, share in runs]
        spread = f" +- {np.std(right[name], ddof=1):.1%}" if seeds > 1 else ""
        print(f"{name:28} {sum(w.size for w in runs[0][0].values()):9,} "
              f"{np.mean([loss for _, loss, _ in runs]):8.4f} {np.mean(right[name]):9.1%}{spread}",
              flush=True)
        if parts == GPT2:
            kept = runs[0][0]
    print("\nThe first net writes: " +
          " ".join(write_answer(kept, row, digits, layers, heads, GPT2) for row in rows))
    return right


def main(deepest=48, digits=3, layers=2, heads=4, channels=32, steps=1000, lr=0.01, seeds=1,
         seed=0):
    """Check the parts, send signals through stacks of blocks, and take apart a net that adds.

    deepest: blocks in the deepest stack that signals go through, up to 48
    digits: of the numbers to add
    layers: blocks in the net
    heads: attention heads in a block
    channels: width of the stream
    steps: of training, each with 64 new sums
    lr: highest learning rate
    seeds: runs of each row of the table, for mean and spread
    seed: the first of them

    Returns a dict: gradient_error by name, depth ({stack: [(size, gradient, cosine), ...]}),
    counted ({parts: (weights, operations, those with all gradients)}), right ({net: [share]}).
    """
    for name, value in dict(layers=layers, heads=heads, channels=channels, steps=steps,
                            seeds=seeds).items():
        refuse(not 0 < value <= 10 ** 5, f"--{name} must be between 1 and 100000")
    refuse(not 2 <= deepest <= 48, "--deepest must be between 2 and 48")
    refuse(not 2 <= digits <= 9, "--digits must be between 2 and 9")
    refuse(channels % heads, f"{channels} channels do not divide into {heads} heads")
    refuse(channels // heads % 2, f"{channels} channels in {heads} heads leave an odd number in "
           "each, but rotary positions turn pairs")
    refuse(not 0 < lr < math.inf, "--lr must be positive")
    refuse(seed < 0, "--seed must be 0 or more")
    rng = np.random.default_rng(seed)
    errors, depth, counted = tell_parts(rng), tell_depth(rng, deepest), tell_size(rng)
    right = tell_sums(seed, seeds, digits, layers, heads, channels, steps, lr)
    return {"gradient_error": errors, "depth": depth, "counted": counted, "right": right}


if __name__ == "__main__":
    command_line(main)
