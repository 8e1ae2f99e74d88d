"""11  A GPT learns to write like Shakespeare, one character at a time.

A GPT, or generative pre-trained transformer (10), is a language model: it gives each
possible next character a probability. The loss is the cross-entropy (04), the mean of
-ln p, where p is the probability of the character that does come next. The text is cut
into rows of equal length. To predict a character, the model sees those before it in its
row. For each position of a row it keeps a vector of C numbers. Together these vectors
are x, the residual stream (10). A block only adds to it. The model:

    x = rms_norm(embedding(embed, ids))
    x = block(x)                            four times; each block is
        x = x + self_attention(rms_norm(x))
        x = x + feed_forward(token_shift(rms_norm(x)))
    logits = rms_norm(x) @ unembed

Run           python 11_gpt.py    downloads 1 MB of Shakespeare to data/; saves gpt.npz
Expect        4 to 5 minutes on two cores, 0.17 GB of memory. On the last tenth of the
              text, held out for validation, the loss ends at 1.43. The perplexity is
              e^1.43 = 4.2: as unsure as a choice among four equally likely characters
Try           --data=my.txt      your own text; --help lists all options
              --resume=gpt.npz --steps=0 --prompt="ROMEO:"    write, without training
Left out      tokens longer than a character (08); half precision, numbers of two bytes
Carried from  01: relative_error.  05: topological_order, unbroadcast, as_rows, Tensor,
              cross_entropy, as_tensors.  06: adam, newton_schulz, muon, warmup_linear.
              08: encode, embedding.  09: attention_weights, row_dot, attention, rms_norm,
              rotary, extend, queries_keys_values, self_attention.
              10: feed_forward, token_shift, block
"""
import argparse, contextlib, gzip, hashlib, http.client, inspect, io, itertools, json, math
import os, shutil, signal, sys, threading, time, urllib.request, zipfile, zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from pathlib import Path

# Our own threads share the batch, so BLAS (03) gets one thread. This must be
# said before NumPy is imported, but a notebook may have done that already.
BLAS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
ONE_BLAS_THREAD = "numpy" not in sys.modules or all(os.environ.get(name) == "1" for name in BLAS)
if ONE_BLAS_THREAD:
    os.environ |= dict.fromkeys(BLAS, "1")

import numpy as np

# B rows in a batch, T positions in a row, N = B T, C channels, H heads,
# D = C / H, V characters; weights are arrays, params the same as Tensors


# ---- new here: the model ----------------------------------------------------------------------

def gpt(params, ids, blocks, heads, cache=None):
    """The transformer of 10: logits (B, T, V) for the character that follows each of ids (B, T).

    With a cache, a dict that is empty at first, ids continue those of earlier
    calls.
    """
    x = rms_norm(embedding(params["embed"], ids))               # (B, T, C)
    for i in range(blocks):
        x = block(x, params, i, heads, cache)
    return rms_norm(x) @ params["unembed"]                      # (B, T, V)


def loss_on(params, rows, blocks, heads):
    """The mean loss over rows (B, T+1) of ids.

    A row of T+1 characters holds T predictions. In ROMEO they are O after R,
    M after RO, E after ROM and O after ROME. The causal mask (09) keeps each
    position from seeing the character that it predicts.
    """
    logits = gpt(params, rows[:, :-1], blocks, heads)           # (B, T, V)
    V = logits.shape[-1]
    return cross_entropy(logits.reshape(-1, V), rows[:, 1:].ravel())


def gradients(weights, rows, blocks, heads):
    """The loss on rows (B, T+1), and its gradient for each array of weights by name."""
    params = as_tensors(weights)
    loss = loss_on(params, rows, blocks, heads)
    loss.backward()
    return loss.data.item(), {name: tensor.grad for name, tensor in params.items()}


def init_weights(rng, V, C, blocks):
    """All weights by name.

    out and down are 0, so that at first no block adds anything. unembed is 0,
    so that the first predictions are uniform. In a network of zeros alone only
    a bias can learn (06). This one does learn, because its other matrices are
    random. In step 1 only unembed has a gradient other than 0: the way back to
    all other weights leads through unembed, which is 0. In step 2 embed, out
    and down have one, too, and from step 3 on all weights.
    """
    def matrix(n_in, n_out):
        return rng.standard_normal((n_in, n_out), np.float32) / np.float32(math.sqrt(n_in))

    def zeros(*shape):
        return np.zeros(shape, np.float32)

    weights = {"embed": rng.standard_normal((V, C), np.float32), "unembed": zeros(C, V)}
    for i in range(blocks):
        weights |= {
            f"{i}.query": matrix(C, C),
            f"{i}.key": matrix(C, C),
            f"{i}.value": matrix(C, C),
            f"{i}.out": zeros(C, C),
            f"{i}.mix": zeros(C),
            f"{i}.up": matrix(C, 4 * C),
            f"{i}.down": zeros(4 * C, C),
        }
    return weights


# ---- new here: the parts of the model in one place --------------------------------------------
# They are those of 08, 09 and 10, unchanged. Whoever has read these files can
# go on at "the settings".

def row_dot(a, b):
    """The dot products of the rows of a and b: (a * b).sum(-1, keepdims=True), but faster."""
    return np.einsum("...i,...i->...", a, b)[..., None]


def embedding(W, ids):
    """The rows of W (V, C) that ids (...) pick: onehot @ W, of shape (..., C)."""
    def vjp(g):
        onehot = ids.ravel() == np.arange(len(W.data))[:, None]  # (V, N), transposed
        return (onehot.astype(g.dtype) @ as_rows(g),)         # (V, N) @ (N, C)
    return Tensor(W.data[ids], (W,), vjp)


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


# ---- new here: the settings -------------------------------------------------------------------

@dataclass(kw_only=True)
class Settings:
    """The options with their defaults; the docstring of main, below, explains each of them."""
    data: str = ""
    out: str = "gpt.npz"
    resume: str = ""
    prompt: str = ""
    tokens: int = 500
    temperature: float = 0.8
    top_k: int = 0
    steps: int = 1000
    stop: int = 0
    batch: int = 16
    context: int = 256
    blocks: int = 4
    heads: int = 2
    channels: int = 128
    lr: float = 0.03
    decay: float = 0.2
    eval_every: int = 250
    seed: int = 0
    threads: int = 0

    def __post_init__(self):
        for option in fields(self):     # each of the type of its default
            setattr(self, option.name, converted(option, getattr(self, option.name)))


# ---- new here: writing ------------------------------------------------------------------------

def sample(weights, settings, characters, prompt, length):
    """Yield characters that continue the prompt, one by one.

    Each is drawn from softmax(logits / temperature). A temperature below 1
    makes likely characters even likelier. If top_k is not 0, only the top_k
    likeliest can be drawn.
    """
    rng = np.random.default_rng(settings.seed)
    params = as_tensors(weights)
    ids = encode(prompt, characters).tolist() or [0]  # there must be a first id
    new = ids[-settings.context:]           # ids that are not in the cache yet
    cache, cached = {}, 0
    for _ in range(length):
        # In training the model saw at most `context` characters. So when the
        # cache holds that many, empty it, and start again with the newer half
        # of them. Why not drop only the oldest one? The others have read from
        # it. Without it they would have other keys and values in all blocks
        # but the first, to be computed anew for each new character.
        if cached + len(new) > settings.context:
            new = ids[-max(1, settings.context // 2):]
            cache, cached = {}, 0
        logits = gpt(params, np.array([new]), settings.blocks, settings.heads, cache)
        cached += len(new)
        z = logits.data[0, -1].astype(float)                    # (V,)
        if 0 < settings.top_k < len(z):
            z[z < np.sort(z)[-settings.top_k]] = -np.inf  # so that p is 0
        temperature = max(settings.temperature, 1e-9)  # 0: always the likeliest
        p = np.exp((z - z.max()) / temperature)
        new = [int(rng.choice(len(p), p=p / p.sum()))]
        ids += new
        yield characters[new[0]]


# ---- new here: one gradient from many threads and machines ------------------------------------
# The loss is a mean over rows. So a batch can be cut into parts, called
# shards, and the mean of their gradients, weighted by their numbers of rows,
# is the gradient of the whole batch. To compute them one after the other is
# called gradient accumulation: it fits a large batch into a small memory. To
# compute them side by side is called data parallelism. Here we do both: the
# threads work side by side, and each takes one shard after the other. (A lock,
# the GIL, lets only one thread at a time run Python code, but NumPy releases
# it while it computes.)
#
# With MPI, a standard for programs of several processes, and the package
# mpi4py, as in
#     mpiexec -n 4 python 11_gpt.py
# each process, perhaps on a machine of its own, takes a batch of its own. Then
# all of them need the mean of their gradients. To add them up and hand the sum
# to all is called an all-reduce. Here comm, the communicator, stands for all
# the processes: comm.size is their number, comm.rank the index of this one.

SHARD = 512     # characters; so each array of a shard fits into the cache of a core


def split_rows(rows, shard=SHARD):
    """Cut rows (B, T+1) into nearly equal parts: of `shard` characters or less, or of one row."""
    T = rows.shape[1] - 1
    size = max(1, shard // T)
    return np.array_split(rows, math.ceil(len(rows) / size))


def mean_gradients(weights, rows, settings, pool, comm=None, shard=SHARD):
    """The loss on rows, and its gradients by name; with comm, their means over all processes.

    The threads of the pool take one shard after the other. Their results come
    in the order of the rows, whichever is done first. So the sum is the same
    to the last bit, whatever the number of threads.
    """
    def work(part):
        loss, grads = gradients(weights, part, settings.blocks, settings.heads)
        for grad in grads.values():
            grad *= len(part)           # from a mean to a sum over its rows
        return loss * len(part), grads
    results = pool.map(work, split_rows(rows, shard))
    loss, total = next(results)
    for part_loss, grads in results:
        loss += part_loss
        for name, grad in grads.items():
            total[name] += grad
    count = len(rows)
    if comm:     # allreduce takes a number, Allreduce an array; both give sums
        loss = comm.allreduce(loss)
        for array in total.values():
            comm.Allreduce(array.copy(), array)  # sends the copy, fills array
        count *= comm.size
    for array in total.values():
        array /= count
    return loss / count, total


def check_shards(settings, pool):
    """Relative error of the mean over three shards, in a small GPT."""
    rng = np.random.default_rng(settings.seed)
    weights = {name: rng.standard_normal(w.shape)
               for name, w in init_weights(rng, 5, 2 * settings.heads, settings.blocks).items()}
    rows = rng.integers(5, size=(5, 9))             # shards of 2, 2 and 1 rows
    _, whole = gradients(weights, rows, settings.blocks, settings.heads)
    _, mean = mean_gradients(weights, rows, settings, pool, shard=16)
    error = relative_error(mean.values(), whole.values())
    assert error < 1e-6
    return error


# ---- new here: training -----------------------------------------------------------------------
# Helpers for Ctrl-C, files and processes stand below, under plumbing.
# check_loss stops the program if the training has diverged.

@dataclass
class State:
    """A training: with its settings and its text, all that is needed to continue it exactly."""
    text_hash: str         # a fingerprint (SHA-256) of the text that it learns
    context: int           # context length for which the validation losses hold
    characters: str        # the vocabulary: character number i has the id i
    weights: dict
    optimizer: dict        # what adam and muon remember, by name of the weights
    best: dict = field(default_factory=dict)   # those of the best validation
    losses: list = field(default_factory=list)      # of each step
    validation: list = field(default_factory=list)  # [step, loss] of each one
    rows_used: int = 0     # rows of text in all steps so far
    saved: str = ""        # SHA-256 of the checkpoint, as last written or read
    saved_steps: int = 0   # steps made when this call last saved


def new_state(settings, text):
    """The state before the first step."""
    characters = "".join(sorted(set(text)))
    rng = np.random.default_rng(settings.seed)
    weights = init_weights(rng, len(characters), settings.channels, settings.blocks)
    return State(sha256_of(text), settings.context, characters, weights,
                 optimizer={name: {} for name in weights})


def shuffled_starts(length, T, seed):
    """Yield, without end, where rows start in a text of `length` characters.

    For each epoch (06) the text is cut, at a random offset, into rows of T + 1
    characters. Each row begins with the last character of the one before,
    because no row predicts its first. Each comes once, in random order.

    To draw every start at random would be simpler. But then chance picks some
    passages often and others hardly ever. In a trial that held out a tenth of
    the training text, the loss on that tenth was 1.420 with random starts and
    1.403 with epochs (means of five seeds).
    """
    rng = np.random.default_rng(seed)
    while True:
        offset = rng.integers(T)
        count = (length - 1 - offset) // T
        yield from offset + T * rng.permutation(count)


def batches(ids, settings, used, rank=0, ranks=1):
    """Yield the rows (B, T+1) of one step after the other.

    The first `used` rows are skipped, because earlier steps have used them.
    With several processes, `ranks` of them, a step takes ranks * B rows. All
    draw the same starts, because they have the same seed, and each takes B.
    """
    B, T = settings.batch, settings.context
    starts = itertools.islice(shuffled_starts(len(ids), T, settings.seed), used, None)
    while True:
        of_step = np.fromiter(itertools.islice(starts, ranks * B), int).reshape(ranks, B)
        yield ids[of_step[rank][:, None] + np.arange(T + 1)]    # (B, T+1)


def update(state, grads, lr, decay, pool):
    """One step: of Muon for the matrices in the blocks, of Adam for all others.

    The rows of embed and the columns of unembed stand for single characters.
    For such matrices Adam has proved better (Jordan 2024). By the reasoning of
    06, Adam's rate would be lr / 11 for 128 channels, as sqrt(128) = 11. In
    trials lr / 6 was better, and lr itself for the vectors mix of the shift.
    """
    def update_one(name):
        w, dw, memory = state.weights[name], grads[name], state.optimizer[name]
        if by_adam(name, w):
            adam(w, dw, memory, lr if name.endswith("mix") else lr / 6)
        else:
            muon(w, dw, memory, lr, decay)
    list(pool.map(update_one, grads))           # list waits for all of them


def by_adam(name, w):
    """Whether Adam, and not Muon, trains these weights."""
    return name in ("embed", "unembed") or w.ndim == 1


VALIDATION = 120_000  # characters at most; the last tenth of tiny Shakespeare has 111,540


def evaluate(weights, ids, settings, pool):
    """The mean loss over ids, cut into rows that predict each character once.

    What does not fill a row at the end is left out. If there are more than
    VALIDATION characters, only some of the rows are used, spread evenly.
    """
    T = settings.context
    starts = np.arange(0, len(ids) - T, T)
    if len(starts) * T > VALIDATION:
        starts = starts[np.linspace(0, len(starts) - 1, max(1, VALIDATION // T)).astype(int)]
    rows = ids[starts[:, None] + np.arange(T + 1)]
    params = as_tensors(weights)

    def loss_times_rows(part):
        return loss_on(params, part, settings.blocks, settings.heads).data.item() * len(part)
    return sum(pool.map(loss_times_rows, split_rows(rows))) / len(rows)


def validate(state, settings, val_ids, pool):
    """Measure the validation loss, and keep a copy of the weights if it is the lowest so far.

    Later weights may have overfitted (07). Early stopping would end the
    training at the best ones; here it goes on. As a score, the lowest of
    several validation losses is a little too good (07).
    """
    loss = evaluate(state.weights, val_ids, settings, pool)
    check_loss(state, loss)
    state.validation.append([len(state.losses), loss])
    if loss == min(value for _, value in state.validation):
        state.best = {name: w.copy() for name, w in state.weights.items()}


def train(state, settings, last, ids, val_ids, pool, comm=None):
    """Train up to step last; returns the seconds of the steps, without validating and saving.

    ids are those of the training text, val_ids those for validation. With
    --stop, last may be below settings.steps. The learning rate then falls as
    if the training went on, because it can be resumed.
    """
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    first = len(state.losses)
    rows_of_step = batches(ids, settings, state.rows_used, rank, ranks)
    every = settings.eval_every
    seconds = 0.0
    print(f"{'step':>7} {'loss':>8} {'char/s':>9} {'left':>6}")
    with interrupts(rank) as interrupted:
        for step in range(first + 1, last + 1):
            start = time.perf_counter()
            rows = next(rows_of_step)
            loss, grads = mean_gradients(state.weights, rows, settings, pool, comm)
            lr = settings.lr * warmup_linear(step, settings.steps)  # up, then down
            update(state, grads, lr, settings.decay, pool)
            state.losses.append(loss)
            state.rows_used += ranks * len(rows)
            seconds += time.perf_counter() - start

            # The step is made. The rest checks, validates, saves and reports.
            check_loss(state, loss)
            early = step in (every // 20, every // 4)  # while the loss falls fast
            measure = early or step % every == 0 or step == settings.steps
            if measure:
                validate(state, settings, val_ids, pool)
            stop = any_of(interrupted, comm)
            if settings.out and rank == 0 and (measure or stop or step == last):
                save(state, settings, rows[:1])
            if measure or stop or step in (first + 1, last) or step % max(1, every // 10) == 0:
                show_progress(state, seconds / (step - first), last, ranks * rows[:, 1:].size)
            if measure:
                show_validation(state, settings)
            if stop:
                break
        if any_of(interrupted, comm):  # also by a Ctrl-C since the last check
            leave(state, settings, rank)
    return seconds


# ---- new here: checkpoints --------------------------------------------------------------------
# A checkpoint is a file from which a training can be continued. Here it is an
# .npz file, NumPy's format for arrays with names. It holds the weights
# (weights/embed, best/embed, ...) and what the optimizers remember (06):
# m/0.query, for Muon, and m/embed, v/embed and t/embed, for Adam. All else is
# one record in JSON.

# the settings that are saved in a checkpoint
TRAINING = "data steps batch context blocks heads channels lr decay eval_every seed".split()


def save(state, settings, rows):
    """Write a checkpoint to settings.out. If that fails, print a note: the next save tries again.

    The loss of a step is measured before its update. So first the loss on
    rows, a single row, shows whether the update has made the training diverge.
    """
    params = as_tensors(state.weights)
    check_loss(state, loss_on(params, rows, settings.blocks, settings.heads).data.item())
    arrays = {f"weights/{name}": w for name, w in state.weights.items()}
    arrays |= {f"best/{name}": w for name, w in state.best.items()}
    for name, memory in state.optimizer.items():
        arrays |= {f"{part}/{name}": value for part, value in memory.items()}
    record = {name: getattr(state, name)
              for name in "text_hash context characters losses validation rows_used".split()}
    record["settings"] = {name: getattr(settings, name) for name in TRAINING}
    content = io.BytesIO()
    np.savez(content, record=json.dumps(record), **arrays)
    try:
        with one_run_at_a_time(settings.out):
            make_room(state, settings)
            write_file(settings.out, content.getvalue())
        state.saved, state.saved_steps = sha256_of(content.getvalue()), len(state.losses)
    except OSError as problem:
        print(f"note: cannot write {settings.out}: {problem}")


def load(path):
    """The state in the checkpoint at path, and the settings of its training by name."""
    try:
        content = Path(path).read_bytes()
        with np.load(io.BytesIO(content)) as file:
            arrays = dict(file)
        record = json.loads(arrays.pop("record").item())
        stored = record.pop("settings")
        state = State(**record, weights={}, optimizer={})
        for key, array in arrays.items():
            kind, name = key.split("/")
            if kind in ("weights", "best"):
                getattr(state, kind)[name] = array
            else:                               # m, v or t of an optimizer
                value = int(array) if kind == "t" else array
                state.optimizer.setdefault(name, {})[kind] = value
        check_state(state, Settings(**stored))
        state.saved = sha256_of(content)
    except OSError as problem:
        sys.exit(f"error: cannot read the checkpoint: {problem}")
    except MemoryError:
        raise
    except Exception:    # of many kinds, as the file may hold anything
        sys.exit(f"error: {path} is not a whole checkpoint of 11_gpt.py")
    return state, stored


# ---- the experiment ---------------------------------------------------------------------------

def prepare(settings, state, comm):
    """Read the text; returns the state, made if None, and the ids for training and validation."""
    name, text = from_first(comm, read_text, settings.data)
    needed = 10 * (settings.context + 1)
    if len(text) < needed:
        sys.exit(f"error: {name} has {len(text)} characters, but --context={settings.context} "
                 f"needs {needed}, because a tenth is kept for validation")
    if state is None:
        state = new_state(settings, text)
    unknown = sorted(set(text) - set(state.characters))
    if unknown:
        sys.exit(f"error: {name} has characters that the text of the checkpoint lacks: "
                 f"{' '.join(map(ascii, unknown[:10]))}")
    if (state.text_hash, state.context) != (sha256_of(text), settings.context):
        print("note: another text or context length: the best weights and the validation losses "
              "so far\nare discarded")
        state.text_hash, state.context = sha256_of(text), settings.context
        state.best, state.validation, state.saved = {}, [], ""
    ids = encode(text, state.characters)
    cut = int(0.9 * len(ids))
    V = len(state.characters)
    predicted = min(VALIDATION, len(ids) - cut - 1) // settings.context * settings.context
    print(f"Text: {name}, {len(text):,} characters. Validation predicts {predicted:,} of its last "
          f"tenth.\nVocabulary: {V} characters.\n"
          f"GPT: {settings.blocks} blocks, {settings.heads} heads, {settings.channels} channels, "
          f"{sum(w.size for w in state.weights.values()):,} parameters.\n"
          f"A uniform guess has the loss ln {V} = {math.log(V):.4f}.")
    return state, ids[:cut], ids[cut:]


def show(state):
    """Plot the training loss, as means over up to 72 groups of steps, and the validation losses."""
    groups = np.array_split(state.losses, min(72, len(state.losses)))
    steps = np.cumsum([len(group) for group in groups])
    curves = {".": (steps, [group.mean() for group in groups])}
    if state.validation:
        curves["o"] = np.array(state.validation).T
    print("\nLoss by step: . in training, o in validation")
    print(plot(curves))
    if state.validation:
        step, best = min(state.validation, key=lambda pair: pair[1])
        _, latest = state.validation[-1]
        print(f"The best validation loss is {best:.4f}, after step {step}; the text below is "
              "written with those weights.")
        training_loss_then = np.mean(state.losses[max(0, step - 25):step])  # of 25 steps
        if latest > best + 0.05 and np.mean(state.losses[-25:]) < training_loss_then:
            print("Since then the network has overfitted: the training loss has fallen, and the "
                  "validation loss\nhas risen. More text helps, or fewer steps.")
        elif latest > best + 0.05:
            print("Since then both losses have risen. A lower --lr may help.")


def write(state, settings):
    """Print the prompt and its continuation, character by character; returns the text."""
    text = "".join(character for character in settings.prompt if character in state.characters)
    if text != settings.prompt:
        missing = sorted(set(settings.prompt) - set(text))
        print(f"note: not in the vocabulary: {' '.join(map(ascii, missing))}")
    print(text, end="")
    for character in sample(state.best or state.weights, settings, state.characters, text or "\n",
                            settings.tokens):
        print(character, end="", flush=True)
        text += character
    print()
    return text


def main(**typed):
    """Train a GPT on a text, save it in a file, and continue a prompt in the style of the text.

    data         a UTF-8 text file to learn from; without one, tiny Shakespeare
    out          the checkpoint file to write; default: gpt.npz or that of --resume; empty for none
    resume       a checkpoint to go on from, with its training settings unless they are given anew
    prompt       text to continue
    tokens       number of characters to write
    temperature  below 1 likely characters become likelier; 0 always takes the likeliest
    top_k        draw from this many of the likeliest characters; 0 for all
    steps        training steps in all; the learning rate rises, then falls; 0 only writes
    stop         end after this step, to go on later with --resume; 0 for all steps at once
    batch        rows of text in a step (under MPI, in each process)
    context      context length: the most characters that a prediction is made from
    blocks       number of transformer blocks
    heads        attention heads in a block
    channels     width of the residual stream
    lr           highest learning rate; for embed and unembed a sixth of it
    decay        weight decay of the matrices in the blocks: w *= 1 - lr * decay at each step
    eval_every   steps from one validation, which also saves, to the next; up to two come early
    seed         random seed of weights, batches and samples
    threads      number of worker threads, at most one per shard; 0 means one per core

    Returns {"val_loss": the last one, "best_val_loss", "train_loss" (of the last step's batch),
    "steps", "seconds" (of this call's training steps), "parameters", "sample"}.
    """
    comm = mpi_processes()
    with all_end_together(comm):
        settings, state = choose(typed, comm)  # state is None without --resume
        saves = settings.out and not (comm and comm.rank)   # only the first process
        done = len(state.losses) if state else 0
        last = min(settings.steps, settings.stop or settings.steps)
        trains = done < last
        seconds = 0.0
        if trains:
            if saves:
                check_out(state, settings)
            state, ids, val_ids = prepare(settings, state, comm)
            with workers(settings, comm) as pool:
                print("Check: averaging the gradients of shards gives the gradient of the batch, "
                      f"relative error {check_shards(settings, pool):.0e}.\n", flush=True)
                seconds = train(state, settings, last, ids, val_ids, pool, comm)
            show(state)
            print(f"{seconds:.1f} s of training\n")
        elif state is None:
            state, *_ = prepare(settings, None, comm)   # an untrained GPT writes
        elif settings.steps:
            print(f"note: {done} steps are made already; to train on, raise --steps, and --stop if "
                  "you give it\n")
        text = write(state, settings)
        if trains and saves and state.saved_steps < last:
            sys.exit(f"error: the last steps could not be saved in {settings.out}")
        val_losses = [loss for _, loss in state.validation] or [math.nan]
        return {"val_loss": val_losses[-1], "best_val_loss": min(val_losses),
                "seconds": seconds, "steps": len(state.losses),
                "train_loss": state.losses[-1] if state.losses else math.nan,
                "parameters": sum(w.size for w in state.weights.values()), "sample": text}


main.__signature__ = inspect.signature(Settings)  # command_line reads the options from it


# ---- carried from 01, 05, 06 and 08, code unchanged: explained there ------------------------

def relative_error(found, expected):
    """The largest difference between two arrays, divided by the largest expected value.

    found and expected may also be sequences of numbers, or of arrays of
    different shapes.
    """
    found = np.concatenate([np.ravel(entry) for entry in found])  # all entries in one row
    expected = np.concatenate([np.ravel(entry) for entry in expected])
    return np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-8)  # not by 0


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

    def reshape(self, *shape):
        return Tensor(self.data.reshape(*shape), (self,), lambda g: (g.reshape(self.data.shape),))


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


def newton_schulz(G, steps=5):
    """The Newton-Schulz iteration: nearly U V^T for G = U S V^T, by products of matrices only."""
    if G.shape[0] > G.shape[1]:          # so that X X^T is the smaller product
        return newton_schulz(G.T, steps).T
    X = G / (np.linalg.norm(G) + 1e-7)
    for _ in range(steps):
        A = X @ X.T
        X = 3.4445 * X + (2.0315 * (A @ A) - 4.7750 * A) @ X
    return X


def muon(w, dw, state, lr, decay=0.0, beta=0.9):
    """Muon (Jordan 2024): momentum, made equally long in all directions, for a matrix w."""
    m = state.setdefault("m", np.zeros_like(w))
    m *= beta
    m += (1 - beta) * dw
    ahead = beta * m + (1 - beta) * dw       # Nesterov: the next m if dw stays
    fit = math.sqrt(max(1, w.shape[1] / w.shape[0]))
    w *= 1 - lr * decay
    w -= lr * fit * newton_schulz(ahead)


def warmup_linear(step, steps, warmup=20):
    """The factor of the learning rate in step 1 .. steps: a linear rise, then a linear fall."""
    return min(step / warmup, 1, (steps + 1 - step) / max(1, steps + 1 - warmup))


def encode(text, characters):
    """The ids of text's characters in the vocabulary `characters`; unknown ones are skipped."""
    ids = {character: i for i, character in enumerate(characters)}
    return np.fromiter((ids[character] for character in text if character in ids), np.int32)


# ---- plumbing: settings, progress, Ctrl-C, files, cores and processes --------------------------

# 0 is allowed for these options and for those whose default is 0
MAY_BE_ZERO = "steps", "tokens", "temperature", "decay"


def converted(option, given):
    """The value that was given for an option, in the type of its default.

    So NumPy's numbers become Python's, and paths strings. ValueError if it
    cannot be converted, or is not allowed. An option that is None counts as
    not given (see choose).
    """
    try:
        value = type(option.default)(given)
    except (ValueError, TypeError, OverflowError):
        value = None
    if isinstance(value, str) and not isinstance(given, (str, os.PathLike)):
        value = None                    # out=False would write a file called False
    if value is None or isinstance(value, int) and value != given:
        raise ValueError(f"{option.name} cannot be {given!r}")
    zero_too = option.default == 0 or option.name in MAY_BE_ZERO
    if not (isinstance(value, str) or 0 < value < 1e9 or zero_too and value == 0):
        least = "0 or more" if zero_too else "above 0"
        raise ValueError(f"{option.name} must be {least} and below 1e9")
    return value


def check_loss(state, loss):
    """Stop if the training has diverged."""
    finite = all(np.isfinite(w).all() for w in state.weights.values())
    if not (finite and loss < 1e3):
        sys.exit(f"error: the training diverges at step {len(state.losses)}, with a loss of "
                 f"{loss:.4g}: lower --lr")


def show_progress(state, seconds, last, count):
    """A line: step, mean loss of the last 25 steps, characters per second, time left.

    seconds and count, of characters, are those of one step.
    """
    step = len(state.losses)
    left = round(seconds * (last - step))
    print(f"{step:7} {np.mean(state.losses[-25:]):8.4f} {count / seconds:9.0f} "
          f"{left // 60:3}:{left % 60:02}", flush=True)


def show_validation(state, settings):
    """A line: the validation loss, and what the same weights write."""
    line = "".join(sample(state.weights, settings, state.characters, "\n", 60))
    print(f"  validation {state.validation[-1][1]:.4f}   {line}".replace("\n", " / "), flush=True)


@contextlib.contextmanager
def interrupts(rank):
    """A list that the first Ctrl-C adds to; the second stops at once."""
    caught = []

    def note(*_):
        caught.append(True)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if rank == 0:
            print("finishing this step; Ctrl-C again stops at once", file=sys.stderr)
    ignored = signal.getsignal(signal.SIGINT) in (signal.SIG_IGN, None)
    if ignored or threading.current_thread() is not threading.main_thread():
        yield caught                    # only the main thread may handle signals
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, before)


def leave(state, settings, rank):
    """End after Ctrl-C, with the status that shells give it: 128 + SIGINT."""
    kept = f"kept in {settings.out}" if state.saved_steps == len(state.losses) else "not kept"
    if rank == 0:
        print(f"interrupted after step {len(state.losses)}, {kept}", file=sys.stderr)
    sys.exit(130)


def choose(typed, comm):
    """The settings, and the state of the run that is resumed, or None.

    Options that were typed take precedence over those of the checkpoint, and these over the
    defaults.
    """
    state, stored = None, {}
    typed = {name: value for name, value in typed.items()
             if value is not None or not hasattr(Settings, name)}
    if typed.get("resume"):
        state, stored = from_first(comm, load, typed["resume"])
        stored["out"] = typed["resume"]
    try:
        settings = Settings(**stored | typed)
    except ValueError as problem:
        sys.exit(f"error: {problem}")
    for name in "blocks", "heads", "channels":
        if state and getattr(settings, name) != stored[name]:
            sys.exit(f"error: {settings.resume} holds a GPT with {name}={stored[name]}")
    if settings.channels % (2 * settings.heads):
        sys.exit(f"error: --channels={settings.channels} must be a multiple of "
                 f"{2 * settings.heads}: {settings.heads} heads, each with pairs to rotate")
    return settings, state


def check_state(state, settings):
    """ValueError unless all arrays have their names and shapes, and all numbers are finite."""
    new = init_weights(np.random.default_rng(0), len(state.characters), settings.channels,
                       settings.blocks)
    optimizer = {name: {"m": w, "v": w, "t": 0} if by_adam(name, w) else {"m": w}
              for name, w in new.items()}
    whole = shapes(state.weights) == shapes(new)
    whole &= not state.best or shapes(state.best) == shapes(new)
    whole &= not state.losses or shapes(state.optimizer) == shapes(optimizer)
    whole &= isinstance(state.rows_used, int) and state.rows_used >= 0
    logits = gpt(as_tensors(state.weights), np.array([[0]]), settings.blocks, settings.heads).data
    numbers = [logits, state.losses, state.validation, *state.weights.values(),
               *state.best.values(), *(slot for memory in state.optimizer.values()
                                       for slot in memory.values())]
    if not (whole and all(np.isfinite(array).all() for array in numbers)):
        raise ValueError


def shapes(arrays):
    """The shapes and types of all arrays in a dict, or a dict of dicts, by name."""
    if isinstance(arrays, dict):
        return {name: shapes(value) for name, value in arrays.items()}
    return np.shape(arrays), np.result_type(arrays).kind


def sha256_of(content):
    """A fingerprint of a text or of bytes."""
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path):
    """Tells whether the file at path is still the one that we wrote; None if there is none."""
    try:
        return sha256_of(Path(path).read_bytes())
    except FileNotFoundError:
        return None


def check_out(state, settings):
    """Stop if settings.out cannot be written, or holds anything but a checkpoint of ours."""
    path = settings.out
    try:
        if not os.path.basename(path) or os.path.exists(os.path.realpath(path)):
            if os.path.exists(path) and not os.path.isfile(path):
                raise ValueError                # a folder, or a pipe that would never end
            with zipfile.ZipFile(os.path.realpath(path)) as file:
                if "record.npy" not in file.namelist() or not os.access(path, os.W_OK):
                    raise ValueError
        trial = f"{os.path.realpath(path)}.{os.getpid()}.part"
        open(trial, "ab").close()
        os.remove(trial)
        found = sha256_of_file(path)
        if state and state.saved != found:
            state.saved = ""                    # another run lies there, or none
    except (ValueError, zipfile.BadZipFile, NotImplementedError, IsADirectoryError):
        sys.exit(f"error: cannot write {path}: what is there is not a writable checkpoint of "
                 "11_gpt.py")
    except OSError as problem:
        sys.exit(f"error: cannot write {path}: {problem.strerror}")
    if os.path.exists(path) and not (state and state.saved):
        print(f"note: {path} holds another run; at the first save that file gets another name")


def make_room(state, settings):
    """Do not overwrite another run.

    What lies there at the first save gets another name. What has come there since, perhaps from a
    run beside this one, keeps it, and this run takes another.
    """
    if sha256_of_file(settings.out) in (None, state.saved):
        return
    path = settings.out
    if os.path.islink(path):
        path = os.path.realpath(path)
    stem, suffix = os.path.splitext(path)
    free = next(name for n in itertools.count(1)
                if not os.path.lexists(name := f"{stem}.{n}{suffix}"))
    if not state.saved:
        os.replace(path, free)
        print(f"note: the earlier checkpoint {settings.out} is now called {free}")
    else:
        print(f"note: {settings.out} is not what this run wrote any more, so it goes on in {free}")
        settings.out = free


@contextlib.contextmanager
def one_run_at_a_time(path):
    """Lets only one process at a time save in the folder of path (but not on Windows)."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(ImportError, OSError):  # OSError: a folder without locks
            import fcntl
            folder = os.open(os.path.dirname(os.path.realpath(path)), os.O_RDONLY)
            stack.callback(os.close, folder)            # which releases the lock
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield


def mpi_processes():
    """What mpi4py calls a communicator: all processes that mpiexec started. None for one."""
    if not {"PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"} & set(os.environ):
        return None
    many = {os.environ.get(name, "1") for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE")} != {"1"}
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as problem:
        if many:
            sys.exit(f"error: started under MPI, but mpi4py does not work: {problem}")
        return None                      # a cluster's shell, but not under MPI
    if MPI.COMM_WORLD.size > 1:
        return MPI.COMM_WORLD
    if many:
        sys.exit("error: started as several processes, but mpi4py sees only one: it belongs to "
                 "another MPI than this mpiexec")
    return None


@contextlib.contextmanager
def all_end_together(comm):
    """Only the first of the processes prints; if one fails, all end instead of waiting for it."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")        # for letters that a console lacks
    silence = contextlib.nullcontext()
    if comm and comm.rank:
        silence = contextlib.redirect_stdout(open(os.devnull, "w", encoding="utf-8"))
    try:
        with silence:
            yield
    except BaseException as problem:
        if comm and getattr(problem, "code", 1) != 130:  # 130: all were interrupted
            time.sleep(min(comm.rank, 1))       # the first may have the same to say
            print(problem if isinstance(problem, SystemExit) else f"error: {problem!r}",
                  file=sys.stderr, flush=True)
            time.sleep(0.3)                     # for mpiexec to pass that on
            comm.Abort(1)
            sys.exit(1)                         # Abort may take a moment to end this process
        raise


def from_first(comm, function, *arguments):
    """The result of function(*arguments), which only the first of the processes calls."""
    if not comm:
        return function(*arguments)
    return comm.bcast(function(*arguments) if comm.rank == 0 else None)


def any_of(interrupted, comm):
    """Whether any of the processes has been interrupted."""
    return bool(comm.allreduce(len(interrupted)) if comm else interrupted)


def usable_cores(comm):
    """The cores for this process."""
    affinity = getattr(os, "sched_getaffinity", None)  # on Linux: those that are ours
    cores = set(affinity(0)) if affinity else set(range(os.cpu_count() or 1))
    if not comm:
        return len(cores)
    from mpi4py import MPI
    here = comm.Split_type(MPI.COMM_TYPE_SHARED)        # the processes of this machine
    sharing = here.allgather(cores).count(cores)        # all must call it, or all wait
    return max(1, len(cores) // sharing)


@contextlib.contextmanager
def workers(settings, comm):
    """A pool of threads, one for each core, while BLAS uses one thread for each product.

    In a notebook that has loaded NumPy before, BLAS has its threads already.
    They can be taken from it with threadpoolctl, if that is installed. If not,
    one thread is ours.
    """
    # This array is freed at once. After that, malloc on Linux keeps freed memory of up to this size
    # for what comes next. Else it would give it back to the system, and get it anew, for each
    # shard: that made 300,000 page faults in 40 steps, now 33,000.
    np.empty(30_000_000, np.uint8)
    limits = contextlib.nullcontext()
    threads = settings.threads or usable_cores(comm)
    if not ONE_BLAS_THREAD:
        try:
            from threadpoolctl import threadpool_limits
            limits = threadpool_limits(1)
        except ImportError:
            threads = settings.threads or 1
    shards = math.ceil(settings.batch / max(1, SHARD // settings.context))
    threads = min(threads, shards)          # no more can work at a time
    with limits, ThreadPoolExecutor(threads, initializer=np.seterr, initargs=("ignore",)) as pool:
        print(f"Training on {threads} thread{'s' * (threads > 1)}"
              f"{f' in each of {comm.size} processes' if comm else ''}.")
        yield pool


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


def write_file(path, content):
    """Write bytes to a temporary file, then rename it, so that path is never half-written."""
    path = os.path.realpath(path)       # of a link, the file that it points to
    part = f"{path}.{os.getpid()}.part"  # another run may be writing here, too
    try:
        with open(part, "wb") as file:
            if os.path.exists(path):
                shutil.copymode(path, part)     # a private file stays private
            file.write(content)
            file.flush()
            os.fsync(file.fileno())      # on the disk before the old file goes
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)      # of a write that failed


def unpack(content):
    """The bytes themselves, or if they are a gzip file, what is packed in it."""
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def download(name, urls, sha256):
    """The unpacked bytes of data/name, which is downloaded if it is missing; None if that fails.

    What lies in data/ is the user's: it is used as it is and never written to.
    Only what comes from the network is checked: by SHA-256 of the unpacked
    bytes.
    """
    path = Path("data", name)
    broken = (OSError, EOFError, zlib.error, http.client.HTTPException)
    if os.path.exists(path):
        try:
            content = unpack(path.read_bytes())
        except broken as problem:
            sys.exit(f"error: cannot read {path}: {problem}")
        if hashlib.sha256(content).hexdigest() != sha256:
            print(f"note: {path} is not the original file; it is used as it is")
        return content
    for url in urls:
        print(f"downloading {url}", flush=True)
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:  # 10 seconds for each read
                received = reply.read()
            content = unpack(received)
            if hashlib.sha256(content).hexdigest() != sha256:
                raise OSError("its SHA-256 is wrong, so it is not used")
        except broken as problem:
            print(f"note: {problem}")
            continue
        with contextlib.suppress(OSError):  # where we may not write, it is used all the same
            path.parent.mkdir(exist_ok=True)
            write_file(path, received)
        return content
    return None


COMMIT = "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
SHAKESPEARE = [
    f"https://raw.githubusercontent.com/karpathy/char-rnn/{COMMIT}/data/tinyshakespeare/input.txt",
    f"https://cdn.jsdelivr.net/gh/karpathy/char-rnn@{COMMIT}/data/tinyshakespeare/input.txt",
]
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def read_text(path):
    """The name and the text of the UTF-8 file at path; without a path, of tiny Shakespeare.

    If that is neither in data/ nor can be downloaded, Python's own help texts
    take its place.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # the text may have letters that it lacks
    if path:
        try:
            content = Path(path).read_bytes()
        except (OSError, ValueError) as problem:
            sys.exit(f"error: cannot read the text: {problem}")
    else:
        path = os.path.join("data", "tinyshakespeare.txt")
        content = download("tinyshakespeare.txt", SHAKESPEARE, SHA256)
    if content is None:
        from pydoc_data.topics import topics
        print("Tiny Shakespeare is not in data/, and the download failed. Here are Python's own "
              f"help texts instead.\nTo have Shakespeare, save {SHAKESPEARE[0]}\nas {path}\n")
        return "Python's help texts", "\n".join(topics[name] for name in sorted(topics))
    try:
        text = content.decode("utf-8-sig")
        if "\0" in text:                        # UTF-16 without its mark, or no text at all
            raise ValueError
    except ValueError:
        utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")       # the mark at its beginning
        what, encoding = ("UTF-16", "utf-16") if utf16 else ("not UTF-8", "latin1")
        sys.exit(f"error: {path} is {what} text; if it is {encoding}, this converts it: "
                 f"iconv -f {encoding} -t utf-8 {path} > utf8.txt")
    return str(path), text.replace("\r\n", "\n").replace("\r", "\n")


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
    command_line(main, may_be_zero=MAY_BE_ZERO)
