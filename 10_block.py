"""10  The transformer block: how to stack layers.

    31415926=11234569      a small network learns to sort digits, one at a time

Every position of a sequence has a vector x of C numbers, called the residual
stream. A transformer block adds the outputs of two layers to it:

    x = x + self_attention(norm(x))      read from earlier positions (09)
    x = x + feed_forward(norm(x))        process what has been read

This file explains the norms, the plus signs (the residual connections) and the
feed-forward layer, sends random numbers through stacks of up to 48 blocks to see
what each part does, and trains the sorter with and without each part.

Run           python 10_block.py
Expect        40 s on two cores. With attention every variant sorts 98 to 100 %
              of the sequences of 8 digits, without it almost none
Try           --seeds=3   mean and spread of the table
              --blocks=1  one block of 11 sorts 86 %, without its token shift 68 %
Left out      biases of the matrices; a real text (11)
Carried from  01: numeric_gradient, relative_error.  02: sigmoid, gelu, gelu_slope.
              05: topological_order, unbroadcast, as_rows, Tensor, cross_entropy,
              gradient_error, as_tensors.  06: adam, warmup_linear.  08: embedding.
              09: attention_weights, row_dot, attention, rms_norm, rotary, extend,
              queries_keys_values, self_attention
"""
import argparse, inspect, itertools, math, os, sys

import numpy as np

# B sequences in a batch, T positions in a sequence, C channels, V tokens in
# the vocabulary


# ---- new here: LayerNorm ----------------------------------------------------------------------
# The weights of a layer are tuned to inputs of a certain size. While the
# layers below it learn, this size would drift, and in a deep stack it may
# explode or vanish. LayerNorm shifts and scales a vector x of C numbers to
# mean 0 and standard deviation 1:
#     m = mean(x)          r = 1 / sqrt(mean((x - m)^2))          y = (x - m) * r
# Two learned vectors then let each channel have its own scale and mean: the
# result is gain * y + bias. At first gain is 1 and bias 0.

def layer_norm(x, gain, bias, eps=1e-5):
    """gain * y + bias, with y as above, along the last axis of x (..., C) (Ba 2016).

    gain and bias are Tensors (C,). The tiny eps avoids a division by zero.
    """
    centred = x.data - x.data.mean(axis=-1, keepdims=True)
    r = 1 / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + eps)
    y = centred * r

    # Backward. As in RMSNorm (09), with x_i - m in place of x_i. But x_j also
    # changes m: if x_j grows by 1, m grows by 1 / C, which takes 1 / C from
    # every x_i - m. This is the term -1 / C below. (In the slope of r it
    # cancels, as the x_i - m add up to 0.)
    # With [i = j] for 1 if i = j, else 0,
    #     d(r)/d(x_j) = -r^2 * y_j / C
    #     d(y_i)/d(x_j) = r * ([i = j] - 1 / C - y_i * y_j / C)
    # x_j feeds every y_i. With dy for dL/dy, the sum over i has three terms:
    #     dx = r * (dy - mean(dy) - y * mean(dy * y))
    # The last two have a meaning. If all C numbers of x grow by the same
    # amount, or all x - m by the same factor, y does not change, and neither
    # does L: its slope in these two directions is 0. That is, dx has no
    # component along (1, .., 1), and none along y.

    def vjp(g):
        dy = g * gain.data
        dx = r * (dy - dy.mean(axis=-1, keepdims=True)
                  - y * np.mean(dy * y, axis=-1, keepdims=True))
        return dx, unbroadcast(g * y, gain.shape), unbroadcast(g, bias.shape)
    return Tensor(gain.data * y + bias.data, (x, gain, bias), vjp)


# ---- new here: the feed-forward layer and GPT-2's block ---------------------------------------
# Attention only averages values. The feed-forward layer processes what has
# been read: a hidden layer as in 02, the same for every position, each by
# itself. By custom it has 4 C hidden units. GPT-2 uses GELU (02), a smooth
# relative of ReLU.

def gelu_feed_forward(x, params, i):
    """gelu(x @ up) @ down, as in GPT-2 (Radford 2019); x and the result are (B, T, C).

    params are Tensors by name: f"{i}.up" (C, 4C) and f"{i}.down" (4C, C).
    """
    a = x @ params[f"{i}.up"]                                     # (B, T, 4C)
    h = Tensor(gelu(a.data), (a,), lambda g: (g * gelu_slope(a.data),))
    return h @ params[f"{i}.down"]                                 # (B, T, C)


# The block, then, is the two lines of the docstring. Its plus signs are the
# residual connections. For y = x + f(x), the gradient of x is the gradient of
# y, plus what comes back through f. So through any number of blocks there is
# one path on which the gradient reaches x unchanged, whatever the layers do.
# In the other direction, x itself passes to the block above, and a layer needs
# to learn only what to add. Each norm changes only what a layer reads, and the
# residual stream itself stays as it is: this is called pre-norm. (The first
# transformer had post-norm: x = norm(x + f(x)).) GPT-2 itself adds learned
# positions (08) to x at the bottom. Here, self_attention has rotary positions,
# and normalizes queries and keys (09).

def gpt2_block(x, params, i, heads):
    """One transformer block, number i; x and the result are (B, T, C)."""
    h = layer_norm(x, params[f"{i}.gain1"], params[f"{i}.bias1"])
    x = x + self_attention(h, params, i, heads)
    h = layer_norm(x, params[f"{i}.gain2"], params[f"{i}.bias2"])
    x = x + gelu_feed_forward(h, params, i)
    return x


# How many weights has a block? Attention has four matrices (C, C), and the
# feed-forward layer two matrices of 4 C^2 weights each: 12 C^2 in all. Its
# gains and biases are only 4 C more.


# ---- new here: the block of 11 ----------------------------------------------------------------
# The block of 11 differs from GPT-2's in three more ways. First, it has
# RMSNorm (09) instead of LayerNorm, and so no mean, gain and bias. Second, its
# feed-forward layer has the square of ReLU instead of GELU, which is simpler
# to compute. Third, it has a token shift, explained below.
#
# With a = x @ up, relu = max(a, 0) and h = relu^2, the slope of h with respect
# to a is 2 relu, which is 0 where a < 0. The gradients, from y = h @ down
# back:
#     dh = dy @ down.T         da = dh * 2 relu            dx = da @ up.T
#     ddown = h.T @ dy         dup = x.T @ da
# As separate operations, a, relu and h would all be kept for the backward
# pass, each of N x 4C numbers for N positions. Here the layer is one operation
# that keeps only relu, and computes its square again on the way back.

def feed_forward(x, params, i):
    """max(x @ up, 0)^2 @ down (So 2021); x and the result are (B, T, C).

    params are Tensors, f"{i}.up" (C, 4C) and f"{i}.down" (4C, C).
    """
    up, down = params[f"{i}.up"], params[f"{i}.down"]
    X = as_rows(x.data)                                       # (N, C), N = B T
    a = X @ up.data                                             # (N, 4C)
    relu = np.maximum(a, 0, out=a)                         # in the memory of a
    Y = (relu * relu) @ down.data                               # (N, C)

    def vjp(g):
        dY = as_rows(g)
        da = (2 * dY) @ down.data.T        # 2 dh, (N, 4C); times relu it is da
        da *= relu
        dX = da @ up.data.T
        return dX.reshape(x.shape), X.T @ da, (relu * relu).T @ dY
    return Tensor(Y.reshape(x.shape), (x, up, down), vjp)


# The next symbol often depends on the last two. Position t holds the last one.
# To read the one before it, attention would have to learn to look one position
# back. A token shift looks there anyway, and learns only how much to take: it
# adds mix * x_(t-1) to x_t, where mix has one weight for each channel. x_t
# feeds y_t with slope 1 and y_(t+1) with slope mix; mix feeds every y_t with
# slope x_(t-1):
#     y_t = x_t + mix * x_(t-1)
#     dx_t = dy_t + mix * dy_(t+1)      (the last position has only dy_t)
#     dmix = sum of dy_t * x_(t-1) over all positions of all sequences

def token_shift(x, params, i, cache=None):
    """x_t + mix * x_(t-1) for every position of x (B, T, C) (after So 2021, Peng 2023).

    mix is the Tensor f"{i}.mix" (C,). Before the first position come zeros
    or, with a cache, the last position of the call before.
    """
    mix = params[f"{i}.mix"]
    before = np.zeros_like(x.data[:, :1])                       # (B, 1, C)
    if cache is not None:
        before = cache.get(f"{i}.last", before)
        cache[f"{i}.last"] = x.data[:, -1:]
    previous = np.concatenate([before, x.data[:, :-1]], axis=1)     # (B, T, C)

    def vjp(g):
        dx = g.copy()
        dx[:, :-1] += g[:, 1:] * mix.data
        return dx, (g * previous).sum(axis=(0, 1))
    return Tensor(x.data + mix.data * previous, (x, mix), vjp)


def block(x, params, i, heads, cache=None):
    """Transformer block number i of the GPT in 11; x and the result are (B, T, C).

    With a cache, a dict, x continues the sequence of earlier calls (09).
    """
    x = x + self_attention(rms_norm(x), params, i, heads, cache)
    x = x + feed_forward(token_shift(rms_norm(x), params, i, cache), params, i)
    return x


# ---- new here: the stack ----------------------------------------------------------------------
# With pre-norm every block adds to x and nothing scales x back, so x grows
# from block to block. One last norm brings it back to a fixed size, for the
# output matrix, unembed. The first norm does the same for the embedding, which
# may grow in training.

def transformer(params, ids, kind, blocks, heads):
    """Logits (B, T, V) of the next token at each position of ids (B, T).

    An embedding, a stack of blocks and an output matrix are together called a
    transformer. kind is the function for a block, blocks the number of them.
    """
    x = rms_norm(embedding(params["embed"], ids))               # (B, T, C)
    for i in range(blocks):
        x = kind(x, params, i, heads)
    return rms_norm(x) @ params["unembed"]                      # (B, T, V)


def init_transformer(rng, V, C, blocks):
    """The weights of a transformer, by name. A variant of the block may leave some unused."""
    def matrix(n_in, n_out):
        return rng.standard_normal((n_in, n_out), np.float32) / np.float32(math.sqrt(n_in))

    weights = {"embed": rng.standard_normal((V, C), np.float32), "unembed": matrix(C, V)}
    for i in range(blocks):
        weights |= {f"{i}.{name}": matrix(C, C) for name in ("query", "key", "value", "out")}
        weights |= {f"{i}.up": matrix(C, 4 * C), f"{i}.down": matrix(4 * C, C)}
        weights |= {f"{i}.{name}": np.ones(C, np.float32) for name in ("gain1", "gain2")}
        weights |= {f"{i}.{name}": np.zeros(C, np.float32) for name in ("bias1", "bias2", "mix")}
    return weights


# What is each part good for? Leave it out and see: an ablation. All of these
# blocks but the last are GPT-2's with a part left out or moved. Where they have
# norms, these are RMSNorm, which needs no weights. The last one is the block of
# 11 without its token shift. (without_norm and without_both leave out only the
# norms of the block. Those of queries and keys stay, and in training also the
# first and the last of the stack.)

def without_attention(x, params, i, heads):
    return x + gelu_feed_forward(rms_norm(x), params, i)


def without_feed_forward(x, params, i, heads):
    return x + self_attention(rms_norm(x), params, i, heads)


def without_residuals(x, params, i, heads):
    x = self_attention(rms_norm(x), params, i, heads)
    return gelu_feed_forward(rms_norm(x), params, i)


def without_norm(x, params, i, heads):
    x = x + self_attention(x, params, i, heads)
    return x + gelu_feed_forward(x, params, i)


def without_both(x, params, i, heads):
    """Without norm and without residuals."""
    x = self_attention(x, params, i, heads)
    return gelu_feed_forward(x, params, i)


def post_norm(x, params, i, heads):
    x = rms_norm(x + self_attention(x, params, i, heads))
    return rms_norm(x + gelu_feed_forward(x, params, i))


def without_token_shift(x, params, i, heads):
    x = x + self_attention(rms_norm(x), params, i, heads)
    return x + feed_forward(rms_norm(x), params, i)


# ---- new here: sorting ------------------------------------------------------------------------
# A sequence is digits, =, and the same digits in order. From = on, the network
# must predict each next digit from all that stands before it, as a GPT does.
# For 31=13, it sees 31=1 and must predict, at = and at the last 1, the digits
# 1 and 3.

SYMBOLS = "0123456789="


def sorting_batch(rng, B, digits):
    """ids (B, 2 * digits + 1) of random sequences such as 3141=1134."""
    unsorted = rng.integers(10, size=(B, digits))
    equals = np.full((B, 1), SYMBOLS.index("="))
    return np.concatenate([unsorted, equals, np.sort(unsorted, axis=1)], axis=1)


def sorting_logits(params, ids, kind, blocks, heads):
    """Logits (B, digits, V) of the sorted digits of ids, each from what stands before it."""
    digits = ids.shape[1] // 2
    return transformer(params, ids[:, :-1], kind, blocks, heads)[:, digits:]


def train_sorting(seed, kind, digits, blocks, heads, channels, steps, lr, batch=32):
    """Train on new random sequences at every step: the weights, the last loss, the accuracy.

    The accuracy is the fraction of 2000 other sequences in which every digit
    is predicted correctly from the right ones before it. In such a sequence it
    would also write every digit correctly by itself.
    """
    rng = np.random.default_rng(seed)
    weights = init_transformer(rng, len(SYMBOLS), channels, blocks)
    states = {name: {} for name in weights}
    for step in range(1, steps + 1):
        ids = sorting_batch(rng, batch, digits)
        params = as_tensors(weights)
        logits = sorting_logits(params, ids, kind, blocks, heads).reshape(-1, len(SYMBOLS))
        loss = cross_entropy(logits, ids[:, -digits:].ravel())
        loss.backward()
        for name, tensor in params.items():
            if tensor.grad is not None:       # of weights that this block uses
                adam(weights[name], tensor.grad, states[name], lr * warmup_linear(step, steps))
    ids = sorting_batch(rng, 2000, digits)
    params = as_tensors(weights)
    guessed = np.concatenate([sorting_logits(params, part, kind, blocks, heads).data.argmax(axis=2)
                              for part in np.split(ids, 8)])
    return weights, loss.data.item(), (guessed == ids[:, -digits:]).all(axis=1).mean()


def write_sorted(weights, ids, kind, blocks, heads):
    """One sequence up to =, and what the network writes after it, digit by digit, as text."""
    params = as_tensors(weights)
    written = ids[:len(ids) // 2 + 1]
    while len(written) < len(ids):
        logits = transformer(params, written[None], kind, blocks, heads).data[0, -1]
        written = np.append(written, logits.argmax())  # 11 is faster, with a KV cache
    return "".join(SYMBOLS[i] for i in written)


# ---- the experiment ---------------------------------------------------------------------------

def check_parts(rng, C=4):
    """New parts, alone and in whole networks, against measured slopes; relative errors by name."""
    def normal(*shape):
        return rng.standard_normal(shape)
    x = normal(2, 3, C)
    errors = {
        "layer_norm": gradient_error(rng, layer_norm, x, normal(C), normal(C)),
        "feed_forward": gradient_error(
            rng, lambda x, up, down: feed_forward(x, {"0.up": up, "0.down": down}, 0),
            x, normal(C, 4 * C), normal(4 * C, C)),
        "token_shift": gradient_error(
            rng, lambda x, mix: token_shift(x, {"0.mix": mix}, 0), x, normal(C)),
    }
    ids = rng.integers(12, size=(2, 5))
    weights = init_transformer(rng, 12, C, 1)
    for kind in gpt2_block, block:
        unused = ["0.mix"] if kind is gpt2_block else ["0.gain1", "0.gain2", "0.bias1", "0.bias2"]
        names = [name for name in weights if name not in unused]

        def network(*tensors):
            return transformer(dict(zip(names, tensors)), ids, kind, 1, 2)
        errors[f"a network of {kind.__name__}"] = gradient_error(
            rng, network, *(normal(*weights[name].shape) for name in names))
    print("Gradients against measured slopes, relative errors")
    for name, error in errors.items():
        print(f"  {name:24} {error:.0e}")
    assert all(error < 1e-6 for error in errors.values())
    return errors


STACKS = without_both, without_norm, without_residuals, post_norm, gpt2_block


def root_mean_square(array):
    """The size of the entries of an array."""
    return math.sqrt(np.mean(array * array))


def send_through(rng, kind, depth, T=16, H=2, C=32):
    """Send random x through a stack of untrained blocks, and a random gradient back.

    Returns the size of x after each block, the size of the gradient of the
    first x, and the mean cosine of the angle between the results at two
    different positions.
    """
    weights = {name: w.astype(float) for name, w in init_transformer(rng, 1, C, depth).items()}
    params = as_tensors(weights)
    x = y = Tensor(rng.standard_normal((1, T, C)))
    sizes = []
    for i in range(depth):
        y = kind(y, params, i, H)
        sizes.append(root_mean_square(y.data))
    (y * rng.standard_normal(y.shape)).sum().backward()  # a random gradient of y
    unit = y.data[0] / np.linalg.norm(y.data[0], axis=1, keepdims=True)  # (T, C)
    cosine = ((unit @ unit.T).sum() - T) / (T * T - T)  # without each with itself
    return sizes, root_mean_square(x.grad), cosine


def measure_depth(rng, deepest, draws=15):
    """Medians of what send_through returns, {(kind, depth): [sizes, gradient, cosine]}."""
    found = {}
    for kind in STACKS:
        for depth in [depth for depth in (2, 4, 6, 12, 24, 48) if depth <= deepest]:
            runs = zip(*(send_through(rng, kind, depth) for _ in range(draws)))
            found[kind.__name__, depth] = [np.median(run, axis=0) for run in runs]
    return found


def show_table(title, found, number):
    """Print one number of found for each kind of block and depth."""
    depths = sorted({depth for _, depth in found})
    print(f"\n{title}\n{'  blocks':22}" + "".join(f"{depth:>9}" for depth in depths))
    for kind in STACKS:
        print(f"  {kind.__name__:20}" + "".join(
            f"{number(*found[kind.__name__, depth]):9.2g}" for depth in depths))


def show_depth(found):
    """Print the tables of measure_depth, and plot the sizes in the deepest stacks."""
    print("\nRandom x forward, and a random gradient back, through stacks of untrained blocks.\n"
          "The size is the root of the mean square, 1 at first; medians of 15 stacks.")
    show_table("size of the result", found, lambda sizes, gradient, cosine: sizes[-1])
    print("If each block multiplies the size by some factor, 48 blocks multiply it by factor^48:\n"
          "0.47^48 is 2e-16, and 1.68^48 is 7e10. Norms stop that.")
    show_table("size of the gradient of the first x", found,
               lambda sizes, gradient, cosine: gradient)
    print("On the way back, too, with norms it neither vanishes nor explodes.")
    show_table("cosine of the angle between the results at two positions, 1 for one direction",
               found, lambda sizes, gradient, cosine: cosine)
    print("Attention averages, and GELU has a positive mean, so positions become more and more\n"
          "alike. It takes longest with residuals and pre-norm: there x grows, and each block\n"
          "adds about as much as the one before, so it changes x less and less.\n\n"
          "log10 of the size after each block:  n: neither norm nor residuals,\n"
          "r: residuals only,  b: both (gpt2_block)")
    marks = {"n": "without_both", "r": "without_norm", "b": "gpt2_block"}
    deepest = max(depth for _, depth in found)
    print(plot({mark: (range(1, deepest + 1), np.log10(found[name, deepest][0]))
                for mark, name in marks.items()}))


VARIANTS = (gpt2_block, without_attention, without_feed_forward, without_residuals, without_norm,
            post_norm, block, without_token_shift)


def compare_variants(seed, seeds, digits, blocks, heads, channels, steps, lr):
    """Train a sorter with each kind of block; accuracies by name, and the weights of the first."""
    print(f"\nSorting {digits} digits: {blocks} blocks, {heads} heads, {channels} channels, "
          f"{steps} steps of 32 sequences.\nloss: of the last step. sorted: of 2000 new sequences, "
          f"those without any error.\n\n{'block':24}{'loss':>9}{'sorted':>9}")
    accuracies = {}
    first = None
    for kind in VARIANTS:
        runs = [train_sorting(s, kind, digits, blocks, heads, channels, steps, lr)
                for s in range(seed, seed + seeds)]
        first = first or runs[0][0]
        accuracies[kind.__name__] = [accuracy for _, _, accuracy in runs]
        spread = f" +- {np.std(accuracies[kind.__name__], ddof=1):.1%}" if seeds > 1 else ""
        print(f"{kind.__name__:24}{np.mean([loss for _, loss, _ in runs]):9.4f}"
              f"{np.mean(accuracies[kind.__name__]):9.1%}{spread}", flush=True)
    print("Without attention, no position knows the digits of the others. For the other parts\n"
          "this task may be too easy: with four blocks and 600 steps all sort nearly everything,\n"
          "and differences of a percent can be chance (try --seeds=3, or --blocks=1).")
    return accuracies, first


def main(deepest=48, digits=8, blocks=4, heads=2, channels=32, steps=600, lr=0.005, seeds=1,
         seed=0):
    """Check the parts, send signals through stacks of blocks, and train networks that sort.

    deepest   number of blocks in the deepest stack that signals go through, from 2 to 48
    digits    digits to sort in a sequence
    blocks    number of transformer blocks in the sorter
    heads     attention heads in a block
    channels  width of the residual stream
    steps     training steps, each with 32 new sequences
    lr        highest learning rate
    seeds     trainings of each network in the table, for mean and spread
    seed      the first random seed

    Returns {"gradient_error" by name, "depth": {(kind, depth): [sizes, gradient,
    cosine]}, "sorted": accuracies by kind of block}.
    """
    if deepest < 2:
        sys.exit("error: --deepest must be at least 2")
    if channels % (2 * heads):
        sys.exit(f"error: --channels={channels} must be a multiple of {2 * heads}: {heads} heads, "
                 "each with pairs to rotate")
    rng = np.random.default_rng(seed)
    errors = check_parts(rng)
    depth = measure_depth(rng, deepest)
    show_depth(depth)
    with np.errstate(all="ignore"):  # a network that diverges has the loss nan
        accuracies, weights = compare_variants(seed, seeds, digits, blocks, heads, channels, steps,
                                               lr)
        print("\nThe first network writes: " + "  ".join(
            write_sorted(weights, ids, gpt2_block, blocks, heads)
            for ids in sorting_batch(np.random.default_rng(seed), 3, digits)))
    return {"gradient_error": errors, "depth": depth, "sorted": accuracies}


# ---- carried from 01, 02, 05, 06, 08 and 09, code unchanged: explained there ----------------

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


def sigmoid(x):
    """1 / (1 + e^-x), computed through tanh, because e^-x can overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


ROOT = math.sqrt(8 / math.pi)

def gelu(x):
    """x sigmoid(u) with u = sqrt(8 / pi) (x + 0.044715 x^3), within 0.0005 of the exact GELU."""
    return x * sigmoid(ROOT * (x + 0.044715 * x * x * x))


def gelu_slope(x):
    """The derivative of gelu: s + x s (1 - s) du/dx with s = sigmoid(u)."""
    s = sigmoid(ROOT * (x + 0.044715 * x * x * x))
    return s + x * s * (1 - s) * ROOT * (1 + 3 * 0.044715 * x * x)


def topological_order(result):
    """The result and every node that it was computed from, each after its parents."""
    nodes, to_visit = {result}, [result]
    while to_visit:
        for parent in to_visit.pop().parents or ():  # a Tensor, below, may have None
            if parent not in nodes:
                nodes.add(parent)
                to_visit.append(parent)
    return sorted(nodes, key=lambda node: node.serial)


def unbroadcast(grad, shape):
    """grad, summed over the copies that broadcasting has made of an array of this shape."""
    if grad.shape == shape:
        return grad
    grad = grad.sum(tuple(range(grad.ndim - len(shape))))  # the new axes; () sums none
    axes = tuple(i for i, size in enumerate(shape) if size != grad.shape[i])
    return grad.sum(axes, keepdims=True)                # the stretched axes


def as_rows(x):
    """x (..., n) as one tall matrix (M, n): the matrices of a stack, one below the other."""
    return x.reshape(-1, x.shape[-1])


class Tensor:
    """An array that remembers how it was made, so that its gradient can be found."""

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

    @property
    def shape(self):
        return self.data.shape

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

    def sum(self, axis=None, keepdims=False):
        a = self.data
        y = a.sum(axis, keepdims=True)  # summed axes stay as 1, so g fits a again
        return Tensor(y if keepdims else y.squeeze(axis), (self,),
                      lambda g: (np.ones_like(a) * g.reshape(y.shape),))

    def reshape(self, *shape):
        return Tensor(self.data.reshape(*shape), (self,), lambda g: (g.reshape(self.data.shape),))

    def __getitem__(self, index):
        def vjp(g):
            da = np.zeros_like(self.data)
            np.add.at(da, index, g)
            return (da,)
        return Tensor(self.data[index], (self,), vjp)


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


def as_tensors(weights):
    """The weights, a network [(W, b), ...] or a dict of arrays (from 08 on), as new Tensors."""
    if isinstance(weights, dict):
        return {name: Tensor(array) for name, array in weights.items()}
    return [(Tensor(W), Tensor(b)) for W, b in weights]


def adam(w, dw, state, lr, beta1=0.9, beta2=0.99, eps=1e-8):
    """Adam (Kingma 2015): divides the mean of dw by the root of the mean of dw^2."""
    m = state.setdefault("m", np.zeros_like(w))
    v = state.setdefault("v", np.zeros_like(w))
    t = state.get("t", 0) + 1
    state["t"] = t
    m *= beta1
    m += (1 - beta1) * dw
    v *= beta2
    v += (1 - beta2) * dw * dw
    mean = m / (1 - beta1 ** t)                          # with bias correction
    mean_square = v / (1 - beta2 ** t)
    w -= lr * mean / (np.sqrt(mean_square) + eps)


def warmup_linear(step, steps, warmup=20):
    """The factor of the learning rate in step 1 .. steps: a linear rise, then a linear fall."""
    return min(step / warmup, 1, (steps + 1 - step) / max(1, steps + 1 - warmup))


def embedding(W, ids):
    """The rows of W (V, C) that ids (...) pick: onehot @ W, of shape (..., C)."""
    def vjp(g):
        onehot = ids.ravel() == np.arange(len(W.data))[:, None]  # (V, N), transposed
        return (onehot.astype(g.dtype) @ as_rows(g),)         # (V, N) @ (N, C)
    return Tensor(W.data[ids], (W,), vjp)


def attention_weights(Q, K):
    """A (..., Tq, Tk), the softmax of the scores of Q (..., Tq, D) and K (..., Tk, D).

    The queries are those of the last Tq of the Tk positions. By the causal
    mask no query sees the key of a later position.
    """
    Tq, Tk = Q.shape[-2], K.shape[-2]
    S = (Q / math.sqrt(Q.shape[-1])) @ K.swapaxes(-1, -2)       # (..., Tq, Tk)
    later = np.arange(Tk) > np.arange(Tk - Tq, Tk)[:, None]         # (Tq, Tk)
    S += np.where(later, -np.inf, 0).astype(S.dtype)
    S -= S.max(axis=-1, keepdims=True)  # leaves A as it is; e^S cannot overflow
    A = np.exp(S, out=S)                        # in the memory of S
    A /= A.sum(axis=-1, keepdims=True)
    return A


def row_dot(a, b):
    """The dot products of the rows of a and b: (a * b).sum(-1, keepdims=True), but faster."""
    return np.einsum("...i,...i->...", a, b)[..., None]


def attention(q, k, v):
    """softmax(Q @ K.T / sqrt(D) + mask) @ V, for every head by itself (Vaswani 2017).

    q (B, Tq, H, D); k and v (B, Tk, H, D); the result has the shape of q.
    """
    Q, K, V = (x.data.swapaxes(1, 2) for x in (q, k, v))        # (B, H, T, D)
    A = attention_weights(Q, K)                                # (B, H, Tq, Tk)
    Y = A @ V                                                   # (B, H, Tq, D)

    def vjp(g):
        dY = g.swapaxes(1, 2)                                   # (B, H, Tq, D)
        dV = A.swapaxes(2, 3) @ dY
        dA = dY @ V.swapaxes(2, 3)                             # (B, H, Tq, Tk)
        dS = A * (dA - row_dot(A, dA))
        dQ = dS @ K / math.sqrt(Q.shape[-1])
        dK = dS.swapaxes(2, 3) @ Q / math.sqrt(Q.shape[-1])
        return tuple(d.swapaxes(1, 2) for d in (dQ, dK, dV))    # (B, T, H, D)
    return Tensor(Y.swapaxes(1, 2), (q, k, v), vjp)


def rms_norm(x, eps=1e-6):
    """x over its root mean square along the last axis (Zhang 2019); eps avoids a division by 0."""
    n = x.shape[-1]
    r = 1 / np.sqrt(row_dot(x.data, x.data) / n + eps)
    y = x.data * r
    return Tensor(y, (x,), lambda g: (r * (g - y * (row_dot(g, y) / n)),))


def rotary(x, start=0, base=1000.0):
    """Rotary positions, from start on, for queries or keys x (B, T, H, D), D even (Su 2021)."""
    T, D = x.shape[1], x.shape[3]
    speed = base ** (-np.arange(0, D, 2) / D)                   # (D/2,)
    angle = np.arange(start, start + T)[:, None, None] * speed  # (T, 1, D/2)
    turn = np.exp(1j * angle)                                   # cos + i sin

    def rotate(vectors, by):
        arrows = vectors.view(np.result_type(vectors, np.complex64))
        arrows = arrows * by.astype(arrows.dtype)              # (B, T, H, D/2)
        return arrows.view(vectors.dtype)                       # (B, T, H, D)
    return Tensor(rotate(x.data, turn), (x,), lambda g: (rotate(g, turn.conj()),))


def extend(cache, name, new):
    """Append new (B, T, H, D) to cache[name]; returns all that is there, without a gradient."""
    array = new.data
    if name in cache:
        array = np.concatenate([cache[name], array], axis=1)
    cache[name] = array
    return Tensor(array)


def queries_keys_values(x, params, i, heads, start=0):
    """q, k and v, each (B, T, H, D), of x (B, T, C) from position start on, in layer number i."""
    B, T, C = x.shape

    def split(name):
        return (x @ params[f"{i}.{name}"]).reshape(B, T, heads, C // heads)
    q = rotary(rms_norm(split("query")), start)
    k = rotary(rms_norm(split("key")), start)
    return q, k, split("value")


def self_attention(x, params, i, heads, cache=None):
    """Each position of x (B, T, C) reads from itself and from earlier ones.

    params are Tensors (C, C), by name: in layer number i, f"{i}.query",
    f"{i}.key", f"{i}.value" and f"{i}.out". With a cache, a dict, x continues
    the sequence of earlier calls.
    """
    start = 0
    if cache is not None and f"{i}.key" in cache:
        start = cache[f"{i}.key"].shape[1]
    q, k, v = queries_keys_values(x, params, i, heads, start)  # (B, T, H, D)
    if cache is not None:
        k = extend(cache, f"{i}.key", k)                 # (B, start + T, H, D)
        v = extend(cache, f"{i}.value", v)
    y = attention(q, k, v).reshape(*x.shape)                    # (B, T, C)
    return y @ params[f"{i}.out"]                              # (B, T, C)


# ---- plumbing, the same wherever it stands: nothing about neural networks -------------------

def plot(curves, width=72, height=14):
    """Curves {mark: (x, y), ...} as text, later ones on top, without what is not finite."""
    curves = {mark: np.array(curve, float) for mark, curve in curves.items()}
    curves = {mark: curve[:, np.isfinite(curve).all(0)] for mark, curve in curves.items()}
    points = np.concatenate(list(curves.values()), axis=1)    # (2, all points)
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
