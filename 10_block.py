"""10  The transformer block: two layers, and what lets us stack many of them.

Every position has a vector x of C numbers, called the residual stream. A block
adds to it what two layers compute from it:

    x = x + attend(norm(x))     between positions: fetch what is needed (09)
    x = x + feed(norm(x))       within a position: feed(z) = gelu(z up) down

Norm gives the input of a layer a fixed size, and the plus signs, the residual
connections, pass x forward and its gradient back unchanged. Without them, what
48 blocks compute is lost on the way. A small network sorts digits, with and
without each part.

Run           python 10_block.py
Expect        35 to 50 s on two cores; 99 % of rows of 8 digits sorted, 10 to
              98 % without residuals, by seed and even by rounding, and none
              without attention
Try           --seeds=3   mean and spread of the table
Left out      biases of the matrices; a real text (11)
Carried from  01: numeric_gradient, relative_error.  02: sigmoid, gelu, gelu_slope.
              05: topological_order, unbroadcast, as_rows, Tensor, gradient_error, as_tensors.
              06: adam, warmup_linear, cross_entropy.
              08: embedding, rotations, rotary.  09: row_dot, attention
"""
import argparse, inspect, itertools, math, os, sys

import numpy as np

# B batch, T positions, C channels, H heads, D = C/H, V vocabulary; N = B*T rows, one per position


# ---- new here: norms --------------------------------------------------------------------------
# LayerNorm, for a row x of C numbers with mean m:
#     y_i = (x_i - m) r,    r = 1 / sqrt(mean of (x - m)^2 + eps),    result = gain * y + bias
# Backward. With respect to x_j, m has the derivative 1/C, and the mean of squares 2 (x_j - m) / C,
# as the x - m add up to 0. r = s^(-1/2), for s = (mean of squares) + eps, has -r^3 / 2 with respect
# to s, so -r^2 y_j / C with respect to x_j. With dy = dL/dy = gain * dL/dresult, the product rule
# and a sum over i,
#     dy_i/dx_j = r ([i = j] - 1/C - y_i y_j / C)          [i = j] is 1 if i = j, else 0
#     dx = r (dy - mean(dy) - y mean(dy y))
# Shifting or scaling x leaves y as it is (if eps is 0), so dx has no part along (1, .., 1) or y:
# the last two terms take it out of dy. RMSNorm has m = 0 and, here, no gain:
#     y = r x,              dx = r (dy - y mean(dy y))

def layer_norm(x, gain, bias, eps=1e-5):
    """LayerNorm (Ba 2016): gain * (x - mean) / standard deviation + bias, along the last axis."""
    d = x.data - x.data.mean(-1, keepdims=True)
    r = 1 / np.sqrt((d * d).mean(-1, keepdims=True) + eps)
    y = d * r

    def vjp(g):
        dy = g * gain.data
        dx = r * (dy - dy.mean(-1, keepdims=True) - y * (dy * y).mean(-1, keepdims=True))
        return dx, unbroadcast(g * y, gain.data.shape), unbroadcast(g, bias.data.shape)
    return Tensor(gain.data * y + bias.data, (x, gain, bias), vjp)


def rms_norm(x, eps=1e-6):
    """RMSNorm (Zhang 2019): x over its root mean square along the last axis."""
    C = x.data.shape[-1]
    r = 1 / np.sqrt(row_dot(x.data, x.data) / C + eps)
    y = x.data * r
    return Tensor(y, (x,), lambda g: (r * (g - y * (row_dot(g, y) / C)),))


# ---- new here: the feed-forward layer and token shift -----------------------------------------
# The feed-forward layer holds two thirds of a block's weights. With a = x up, h = gelu(a) has the
# derivative gelu_slope(a), and h = max(a, 0)^2 has 2 max(a, 0). The rest is rules 2 and 4 of 04:
# the gradient of a weight matrix is its input transposed times the gradient of its result, and that
# of the input is the gradient of the result times the matrix transposed.

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

    x (N, C), up (C, 4C), down (4C, C). One operation keeps one (N, 4C) array instead of three.
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

    x (B, T, C), mix (C,); before (B, 1, C) is an array, what stands in front of x: no gradient.
    """
    previous = np.concatenate([before, x.data[:, :-1]], 1)

    def vjp(g):
        dx = g.copy()
        dx[:, :-1] += g[:, 1:] * mix.data
        return dx, (g * previous).sum((0, 1))
    return Tensor(x.data + mix.data * previous, (x, mix), vjp)


# ---- new here: the block and the stack --------------------------------------------------------
# The plus signs are the residual connections. If G is the gradient after a plus, that before it is
# G + (G through norm and layer): G itself is passed on, whatever the layer does. In the forward
# pass x itself is carried along, too. Attention averages positions and so makes them similar; the
# residual connections slow this down. This is pre-norm. In post-norm, x = norm(x + layer(x)), both
# x and G must go through a norm after every layer.
#
# A net is a set of parts, so that each can be left out. norm is RMSNorm unless LayerNorm is named;
# feed-forward has a squared ReLU unless GELU is named. In 11, the matrices out, down and head start
# at zero.

GPT2 = {"attention", "feed-forward", "residuals", "norm", "LayerNorm", "GELU", "learned positions"}
GPT11 = {"attention", "feed-forward", "residuals", "norm", "rotary", "normed queries", "shift"}


def init_transformer(rng, V, T, C, layers, parts):
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
    if "LayerNorm" not in parts:                # so that the layers' outputs do not dominate x
        x = norm(x, weights, "first", parts)
    for i in range(layers):
        x = block(x, weights, i, (B, T, heads, C // heads), parts)
    return norm(x, weights, "last", parts) @ weights["head"]


# ---- new here: a task ---------------------------------------------------------------------
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


def train_sorting(seed, parts, digits, layers, heads, channels, steps, lr, batch=32):
    """The weights, the last loss, and the share of 2000 fresh rows sorted without error."""
    rng = np.random.default_rng(seed)
    weights = init_transformer(rng, V, 2 * digits, channels, layers, parts)
    states = {name: {} for name in weights}
    for step in range(1, steps + 1):
        rows = sorting(rng, batch, digits)
        params = as_tensors(weights)
        logits = next_digits(params, rows, layers, heads, parts).reshape(-1, V)
        loss = cross_entropy(logits, rows[:, -digits:].ravel())
        loss.backward()
        for name, w in weights.items():
            adam(w, params[name].grad, states[name], lr * warmup_linear(step, steps))
        if not math.isfinite(loss.data):            # a diverged network is a result, too
            return weights, math.nan, 0.0
    rows = sorting(rng, 2000, digits)
    params = as_tensors(weights)
    found = np.concatenate([next_digits(params, part, layers, heads, parts).data.argmax(2)
                            for part in np.split(rows, 8)])
    return weights, loss.data.item(), (found == rows[:, -digits:]).all(1).mean()


# ---- the experiment -----------------------------------------------------------------------

def show_parts(rng, N=6, C=4):
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
        weights = init_transformer(rng, 12, 5, C, 1, parts)
        checks[f"a net of {name}"] = (
            lambda *tensors, names=list(weights), parts=parts:     # as they are in this pass
                transformer(dict(zip(names, tensors)), ids, 1, 2, parts),
            *(W(*w.shape) for w in weights.values()))
    errors = {name: gradient_error(rng, *check) for name, check in checks.items()}
    print("Gradients against central differences, relative errors")
    for name, error in errors.items():
        print(f"  {name:24} {error:.0e}")
    assert np.max(list(errors.values())) < 1e-6         # Python's max would lose a nan
    one, zero, inputs = Tensor(np.ones(C)), Tensor(np.zeros(C)), Tensor(x)
    y = layer_norm(inputs, one, zero, eps=0)
    same = relative_error(layer_norm(Tensor(3 * x + 5), one, zero, eps=0).data, y.data)
    (y * rng.standard_normal(x.shape)).sum().backward()
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
    weights = init_transformer(rng, 1, T, C, depth, parts)
    weights = as_tensors({name: w.astype(float) for name, w in weights.items()})
    sizes, size = [], lambda array: math.sqrt((array * array).mean())
    x = y = Tensor(rng.standard_normal((T, C)))
    for i in range(depth):
        y = block(y, weights, i, (1, T, H, C // H), parts)
        sizes.append(size(y.data))
    (y * rng.standard_normal((T, C))).sum().backward()
    unit = y.data / np.linalg.norm(y.data, axis=1, keepdims=True)
    cosine = ((unit @ unit.T).sum() - T) / (T * T - T)      # of different positions
    return sizes, size(x.grad) if max(sizes) < 1e7 else math.nan, cosine


def show_depth(rng, deepest, draws=5):
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
    print("With norm, no result explodes or vanishes. Attention averages positions and so makes\n"
          "them similar; least so with pre-norm, where x itself is never rescaled.\n\n"
          "log10 of the size after each block.  n: neither,  r: residuals,  b: both (pre-norm)")
    print(plot({stack[0]: curves[stack] for stack in ("neither", "residuals", "both, pre-norm")}))
    return found


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
    tensors, ids = as_tensors(weights), row[:len(row) // 2 + 1]
    while len(ids) < len(row):
        logits = transformer(tensors, ids[None], layers, heads, parts).data[-1]
        ids = np.append(ids, logits.argmax())       # this recomputes everything; 11 has a KV cache
    return "".join("0123456789="[i] for i in ids)


def show_sorting(seed, seeds, digits, layers, heads, channels, steps, lr):
    """The table of nets: {name: [share of fresh rows sorted without error, by seed]}."""
    print(f"\nSorting {digits} digits: {layers} blocks, {heads} heads, {channels} channels, "
          f"{steps} steps of 32 rows.\nloss: of the last step; right: of 2000 fresh rows, those "
          "without any error.\n\n"
          f"{'net':26}{'weights':>10}{'loss':>9}{'right':>9}")
    right = {}
    for name, parts in NETS.items():
        runs = [train_sorting(s, parts, digits, layers, heads, channels, steps, lr)
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
    """Check the parts, send signals through stacks of blocks, and take apart a network that sorts.

    deepest   number of blocks in the deepest stack that signals go through, up to 48
    digits    digits in a row to sort
    layers    number of transformer blocks
    heads     attention heads in a block
    channels  width of the residual stream
    steps     training steps, each with 32 fresh rows
    lr        highest learning rate
    seeds     trainings of each network in the table, for mean and spread
    seed      the first random seed

    Returns {"gradient_error" by name, "depth": {stack: {depth: (size, gradient, cosine)}},
    "right": {network: [accuracy]}}.
    """
    if channels % heads:
        sys.exit(f"error: {channels} channels do not divide into {heads} heads")
    if channels // heads % 2:
        sys.exit(f"error: {channels} channels in {heads} heads leave an odd number in each, but "
                 "rotary positions rotate pairs")
    if deepest < 2:
        sys.exit("error: --deepest must be at least 2")
    rng = np.random.default_rng(seed)
    errors = show_parts(rng)
    depth = show_depth(rng, deepest)
    with np.errstate(all="ignore"):                 # divergence shows in the loss
        right = show_sorting(seed, seeds, digits, layers, heads, channels, steps, lr)
    return {"gradient_error": errors, "depth": depth, "right": right}


# ---- carried from 01, 02, 05, 06, 08 and 09, code unchanged: explained there ----------------

def numeric_gradient(f, x, eps=1e-6):
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

    found and expected may also be sequences of numbers, or of arrays of different shapes.
    """
    found = np.concatenate([np.ravel(entry) for entry in found])
    expected = np.concatenate([np.ravel(entry) for entry in expected])
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-8)


def sigmoid(x):
    """1 / (1 + e^-x), computed through tanh, which cannot overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


ROOT = math.sqrt(8 / math.pi)

def gelu(x):
    """x times the probability that a standard normal number is below x (Hendrycks 2016).

    That probability is sigmoid(2 u) within 0.0002, with u = sqrt(2/pi) (x + 0.044715 x^3).
    """
    return x * sigmoid(ROOT * (x + 0.044715 * x * x * x))           # 2 sqrt(2/pi) = sqrt(8/pi)


def gelu_slope(x):
    """The derivative of gelu, by the product rule and sigmoid' = s (1 - s)."""
    s = sigmoid(ROOT * (x + 0.044715 * x * x * x))
    return s + x * s * (1 - s) * ROOT * (1 + 3 * 0.044715 * x * x)


def topological_order(result):
    """The result and every Tensor that it was computed from, each after its parents."""
    nodes, to_visit = {result}, [result]
    while to_visit:
        for parent in to_visit.pop().parents or ():
            if parent not in nodes:
                nodes.add(parent)
                to_visit.append(parent)
    return sorted(nodes, key=lambda node: node.serial)


def unbroadcast(grad, shape):
    """Sum grad over every axis along which an array of this shape was copied by broadcasting."""
    if grad.shape == shape:
        return grad
    grad = grad.sum(tuple(range(grad.ndim - len(shape))))           # axes that were put in front
    axes = tuple(i for i, size in enumerate(shape) if size != grad.shape[i])
    return grad.sum(axes, keepdims=True)                            # axes of 1 that were stretched


def as_rows(x):
    """x (..., n) as one tall matrix: all rows of all axes in front."""
    return x.reshape(-1, x.shape[-1])


class Tensor:
    """An array that remembers how it was made, so that its gradient can be found.

    After L.backward(), .grad of every Tensor x that the number L was computed from is dL/dx.
    """

    made = itertools.count()            # gives each Tensor a serial number

    def __init__(self, data, parents=(), vjp=None):
        """vjp turns the gradient of this array into those of its parents, in their order."""
        self.data = np.asarray(data)
        if self.data.dtype.kind in "iub":               # integers have no small changes
            self.data = self.data.astype(float)
        self.grad = None
        self.parents = parents
        self.vjp = vjp
        self.serial = next(Tensor.made)

    def backward(self):
        """Add dL/dx to x.grad for everything that this single number L was computed from.

        The graph is released on the way; what the caller holds keeps its .grad. ValueError if there
        are several numbers, RuntimeError if a part of the graph was released before.
        """
        if self.data.size != 1:
            raise ValueError("backward() starts from a single number: sum() the entries first")
        order = topological_order(self)
        if any(node.parents is None for node in order):
            raise RuntimeError("backward() has released this graph: compute it again")
        self.receive(np.ones_like(self.data))           # dL/dL
        while order:
            node = order.pop()          # the newest: all that was computed from it has contributed
            if node.vjp is not None:
                for parent, grad in zip(node.parents, node.vjp(node.grad)):
                    parent.receive(grad)
                node.parents = node.vjp = None          # free the memory at once

    def receive(self, grad):
        """Add grad to .grad; never in place, because a + b hands the same array to a and b."""
        self.grad = grad if self.grad is None else self.grad + grad

    def as_tensor(self, other):
        """other as a Tensor; a number or an array becomes one of the same dtype."""
        return other if isinstance(other, Tensor) else Tensor(np.asarray(other, self.data.dtype))

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

    def __matmul__(self, other):
        other = self.as_tensor(other)
        a, b = self.data, other.data

        def vjp(g):
            A, B, G = a, b, g
            if b.ndim == 1:                             # a vector on the right is a column
                B, G = b[:, None], g[..., None]
            if a.ndim == 1:                             # a vector on the left is a row
                A, G = a[None, :], G[..., None, :]
            dA = unbroadcast(G @ B.swapaxes(-1, -2), A.shape)
            if B.ndim == 2:
                dB = as_rows(A).T @ as_rows(G)
            else:
                dB = unbroadcast(A.swapaxes(-1, -2) @ G, B.shape)
            return dA.reshape(a.shape), dB.reshape(b.shape)
        return Tensor(a @ b, (self, other), vjp)

    def sum(self, axis=None, keepdims=False):
        a = self.data
        y = a.sum(axis, keepdims=True)
        return Tensor(y if keepdims else y.squeeze(axis), (self,),
                      lambda g: (np.ones_like(a) * g.reshape(y.shape),))

    def reshape(self, *shape):
        return Tensor(self.data.reshape(*shape), (self,), lambda g: (g.reshape(self.data.shape),))

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
    inputs = [Tensor(array) for array in arrays]        # not copies: loss() sees each change
    y = f(*inputs)
    weights = rng.standard_normal(y.data.shape)
    (y * weights).sum().backward()

    def loss():
        return (f(*map(Tensor, arrays)).data * weights).sum()
    return relative_error([x.grad for x in inputs],
                          [numeric_gradient(loss, x.data) for x in inputs])


def as_tensors(weights):
    """The weights, a dict of arrays by name or a network [(W, b), ...], as new leaves."""
    if isinstance(weights, dict):
        return {name: Tensor(array) for name, array in weights.items()}
    return [(Tensor(W), Tensor(b)) for W, b in weights]


def adam(w, dw, state, lr, beta1=0.9, beta2=0.99, eps=1e-8):
    """Adam (Kingma 2015): the running mean of dw over the root of that of dw^2. Changes w."""
    m = state.setdefault("m", np.zeros_like(w))
    v = state.setdefault("v", np.zeros_like(w))
    t = state.get("t", 0) + 1
    state["t"] = t
    m *= beta1
    m += (1 - beta1) * dw
    v *= beta2
    v += (1 - beta2) * dw * dw
    mean = m / (1 - beta1 ** t)                             # with bias correction
    mean_square = v / (1 - beta2 ** t)
    w -= lr * mean / (np.sqrt(mean_square) + eps)


def warmup_linear(step, steps, warmup=20):
    """The factor of the learning rate in step 1 .. steps: a linear rise, then a linear fall."""
    return min(step / warmup, 1, (steps + 1 - step) / max(1, steps + 1 - warmup))


def cross_entropy(logits, targets):
    """The mean of -ln p_target over N rows; logits (N, K), targets (N,) integers below K.

    p = softmax(logits); the result is a Tensor with one entry.
    """
    examples = np.arange(len(targets))
    z = logits.data - logits.data.max(axis=1, keepdims=True)    # the shift cancels in p
    p = np.exp(z)
    total = p.sum(axis=1, keepdims=True)
    p /= total
    loss = np.mean(np.log(total[:, 0]) - z[examples, targets])  # ln(total) - z = -ln p

    def vjp(g):
        dz = p.copy()                                       # dz = (p - onehot(target)) / N
        dz[examples, targets] -= 1
        return (dz * (g / len(targets)),)
    return Tensor(loss, (logits,), vjp)


def embedding(W, ids):
    """W[ids], the rows of W (V, C) that ids (N,) pick: onehot W, of shape (N, C).

    Tensor.__getitem__ of 05 has the same gradient; for a small V a product is faster.
    """
    def vjp(g):
        onehot = ids[:, None] == np.arange(len(W.data))
        return (onehot.T.astype(g.dtype) @ g,)
    return Tensor(W.data[ids], (W,), vjp)


def rotations(start, T, D, base=1000.0):
    """exp(i t w_j) for T positions t from start on, w_j = base^(-2j/D); complex, (T, 1, D/2)."""
    t = np.arange(start, start + T)[:, None, None]
    return np.exp(1j * t * base ** (-np.arange(0, D, 2) / D))


def rotary(x, turn):
    """Rotary positions (Su 2021): each pair of entries of x (B, T, H, D), rotated by its angle."""
    def rotate(x, turn):
        pairs = x.view(np.result_type(x, np.complex64))     # the same memory, a + ib for a, b
        return (pairs * turn.astype(pairs.dtype)).view(x.dtype)
    return Tensor(rotate(x.data, turn), (x,), lambda g: (rotate(g, turn.conj()),))


def row_dot(a, b):
    """The dot product of each row of a with the same row of b; a row is along the last axis."""
    return np.einsum("...i,...i->...", a, b)[..., None]


def attention(q, k, v, causal=True):
    """softmax(q k^T / sqrt(D)) v, for every head on its own (Vaswani 2017).

    q (B, Tq, H, D); k, v (B, Tk, H, D); the result is like q. The queries stand at the last Tq of
    the Tk positions; if causal, they see no later ones.
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
    total = E.sum(3, keepdims=True)
    Y = E @ V / total

    def vjp(g):
        G = g.swapaxes(1, 2) / total
        dS = G @ V.swapaxes(2, 3)
        dS -= row_dot(G, Y)
        dS *= E                                     # dS = A * (dA - row sums of A * dA)
        grads = dS @ K * scale, dS.swapaxes(2, 3) @ Q, E.swapaxes(2, 3) @ G     # Q has its scale
        return tuple(grad.swapaxes(1, 2) for grad in grads)
    return Tensor(Y.swapaxes(1, 2), (q, k, v), vjp)


# ---- plumbing, the same in every file: nothing about neural networks ------------------------

def plot(curves, width=72, height=14):
    """Curves {mark: (x, y), ...} as text, later ones on top, without what is not finite."""
    curves = {mark: np.array(curve, float) for mark, curve in curves.items()}
    curves = {mark: curve[:, np.isfinite(curve).all(0)] for mark, curve in curves.items()}
    points = np.concatenate(list(curves.values()), axis=1)          # (2, all points)
    if points.size == 0:
        return "(no finite value to plot)"
    left, low = points.min(axis=1)
    right, high = points.max(axis=1)
    canvas = np.full((height, width), " ")
    for mark, (x, y) in curves.items():
        column = np.interp(x, [left, right], [0, width - 1])
        row = np.interp(y, [low, high], [height - 1, 0])
        canvas[np.rint(row).astype(int), np.rint(column).astype(int)] = mark
    labels = np.linspace(high, low, height)
    lines = [f"{label:9.3f} |{''.join(marks)}" for label, marks in zip(labels, canvas)]
    return "\n".join(lines + [f"{'':10}+{'-' * width}", f"{left:>12g}{right:>{width - 1}g}"])


def number_like(default, may_be_zero):
    """A converter for argparse: numbers above 0 and below 1e9, and 0 where it has a meaning."""
    def number(text):
        value = type(default)(text)
        if 0 < value < 1e9 or (value == 0 and may_be_zero):
            return value
        least = "0 or more" if may_be_zero else "above 0"
        raise argparse.ArgumentTypeError(f"must be {least} and below 1e9, not {text}")
    number.__name__ = type(default).__name__    # argparse says: invalid int value
    return number


def command_line(main, may_be_zero=()):
    """Call main with the --name=value of the command line; in a notebook, with its defaults."""
    parser = argparse.ArgumentParser(description=main.__doc__, allow_abbrev=False,
                                     argument_default=argparse.SUPPRESS,    # pass what was typed
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
        print(end="", flush=True)               # a closed pipe shows here, and not after the end
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except MemoryError:
        sys.exit("error: there is not enough memory for these sizes")
    except OSError as problem:
        if not isinstance(problem, BrokenPipeError) and (os.name, problem.errno) != ("nt", 22):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)    # who read our output has left: be silent


# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy"]
# ///

if __name__ == "__main__":
    command_line(main)
