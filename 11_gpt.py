"""11  A GPT learns to write like Shakespeare, one character at a time.

A language model gives each possible next character a probability. p(text) is the
product of all p(character, given all before it); here, all before it in a row of
--context characters. The loss is the mean of -ln p, in nats per character. A
uniform guess among V characters costs ln V.

Every character has a vector x of C numbers, the residual stream. The model:

    x = rms_norm(embedding(embed, ids))
    x = block(x)                            four times; each block is
        x = x + self_attention(rms_norm(x))
        x = x + feed_forward(token_shift(rms_norm(x)))
    logits = rms_norm(x) @ unembed

Self-attention moves information to later positions only. The feed-forward layer
processes it, at each position by itself; token shift adds the position before.

Run           python 11_gpt.py
Expect        4 to 5 minutes on two cores, 0.2 GB; a validation loss of 1.47 to 1.49
Try           --data=my.txt      your own text; --help lists all options
              --resume=gpt.npz --steps=0 --prompt="ROMEO:" --tokens=1000
                                 write more, without training
Left out      dropout; tokens longer than a character (08); half precision
Carried from  05: topological_order, unbroadcast, as_rows, Tensor, as_tensors.
              06: adam, newton_schulz, muon, warmup_linear, cross_entropy.
              08: encode, embedding.  09: attention_weights, row_dot, attention, rms_norm,
              rotary, extend, queries_keys_values, self_attention.
              10: feed_forward, token_shift, block
"""
import argparse, contextlib, gzip, hashlib, http.client, inspect, io, itertools, json, math
import os, shutil, signal, sys, tempfile, time, urllib.request, zipfile, zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

if "numpy" not in sys.modules:  # one BLAS thread, because we split the batch ourselves
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS",
                 "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(name, "1")

import numpy as np

# B rows in a batch, T positions in a row, C channels, H heads, D = C / H, V
# characters


# ---- new here: the parts of the model, explained in 08 to 10 ----------------------------------

def row_dot(a, b):
    """The dot product of each row of a (..., n) with that of b: (..., 1).

    The same as (a * b).sum(axis=-1, keepdims=True), but faster.
    """
    return np.einsum("...i,...i->...", a, b)[..., None]


def embedding(W, ids):
    """The rows of W (V, C) that ids (...) pick: onehot @ W, of shape (..., C).

    Tensor.__getitem__ of 05 has the same gradient; for a small V a product is
    faster.
    """
    def vjp(g):
        onehot = ids.ravel() == np.arange(len(W.data))[:, None]  # (V, N), transposed
        return (onehot.astype(g.dtype) @ as_rows(g),)         # (V, N) @ (N, C)
    return Tensor(W.data[ids], (W,), vjp)


def rms_norm(x, eps=1e-6):
    """x over its root mean square along the last axis (Zhang 2019).

    The tiny eps avoids a division by zero.
    """
    n = x.shape[-1]
    r = 1 / np.sqrt(row_dot(x.data, x.data) / n + eps)
    y = x.data * r
    return Tensor(y, (x,), lambda g: (r * (g - y * (row_dot(g, y) / n)),))


def rotary(x, start=0, base=1000.0):
    """Rotary positions (Su 2021) for queries or keys x (B, T, H, D); D is even.

    start is the position of the first of the T vectors.
    """
    T, D = x.shape[1], x.shape[3]
    speed = base ** (-np.arange(0, D, 2) / D)                   # (D/2,)
    angle = np.arange(start, start + T)[:, None, None] * speed  # (T, 1, D/2)
    turn = np.exp(1j * angle)                                   # cos + i sin

    def rotate(vectors, by):
        arrows = vectors.view(np.result_type(vectors, np.complex64))
        arrows = arrows * by.astype(arrows.dtype)              # (B, T, H, D/2)
        return arrows.view(vectors.dtype)                       # (B, T, H, D)
    return Tensor(rotate(x.data, turn), (x,), lambda g: (rotate(g, turn.conj()),))


def attention_weights(Q, K, causal=True):
    """A (..., Tq, Tk), the softmax of the scores of Q (..., Tq, D) and K (..., Tk, D).

    The queries stand at the last Tq of the Tk positions. If causal, they do
    not see the keys of later positions.
    """
    Tq, Tk = Q.shape[-2], K.shape[-2]
    S = (Q / math.sqrt(Q.shape[-1])) @ K.swapaxes(-1, -2)       # (..., Tq, Tk)
    if causal:
        later = np.arange(Tk) > np.arange(Tk - Tq, Tk)[:, None]     # (Tq, Tk)
        S += np.where(later, -np.inf, 0).astype(S.dtype)
    S -= S.max(axis=-1, keepdims=True)  # leaves A as it is; e^S cannot overflow
    A = np.exp(S, out=S)                        # in the memory of S
    A /= A.sum(axis=-1, keepdims=True)
    return A


def attention(q, k, v, causal=True):
    """softmax(Q @ K.T / sqrt(D)) @ V, for every head by itself (Vaswani 2017).

    q (B, Tq, H, D); k and v (B, Tk, H, D); the result has the shape of q.
    """
    Q, K, V = (x.data.swapaxes(1, 2) for x in (q, k, v))        # (B, H, T, D)
    A = attention_weights(Q, K, causal)                        # (B, H, Tq, Tk)
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
    """Append new (B, T, H, D) to cache[name]; all that is there, without a gradient."""
    array = new.data
    if name in cache:
        array = np.concatenate([cache[name], array], axis=1)
    cache[name] = array
    return Tensor(array)


def queries_keys_values(x, params, i, heads, start=0):
    """q, k and v, each (B, T, H, D), of x (B, T, C), whose first position is start.

    q and k are normalized and rotated.
    """
    B, T, C = x.shape

    def split(name):
        return (x @ params[f"{i}.{name}"]).reshape(B, T, heads, C // heads)
    q = rotary(rms_norm(split("query")), start)
    k = rotary(rms_norm(split("key")), start)
    return q, k, split("value")


def self_attention(x, params, i, heads, cache=None):
    """Each position of x (B, T, C) reads from itself and from earlier ones.

    The result has the shape of x. params are Tensors (C, C), by name: in
    layer number i, f"{i}.query", f"{i}.key", f"{i}.value" and f"{i}.out". With
    a cache, a dict, x continues the sequence of earlier calls.
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
    """max(x @ up, 0)^2 @ down (So 2021); x (B, T, C), and so the result.

    params are Tensors, f"{i}.up" (C, 4C) and f"{i}.down" (4C, C).
    """
    up, down = params[f"{i}.up"], params[f"{i}.down"]
    X = as_rows(x.data)                                       # (N, C), N = B T
    a = X @ up.data                                             # (N, 4C)
    relu = np.maximum(a, 0, out=a)                         # in the memory of a
    Y = (relu * relu) @ down.data                               # (N, C)

    def vjp(g):
        dY = as_rows(g)
        da = (2 * dY) @ down.data.T                             # 2 dh, (N, 4C)
        da *= relu
        dX = da @ up.data.T
        return dX.reshape(x.shape), X.T @ da, (relu * relu).T @ dY
    return Tensor(Y.reshape(x.shape), (x, up, down), vjp)


def token_shift(x, params, i, cache=None):
    """x_t + mix * x_(t-1) for every position of x (B, T, C) (after So 2021, Peng 2023).

    mix is the Tensor f"{i}.mix" (C,). In front of x stand zeros or, with a
    cache, the last position of the call before.
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
    """Transformer block number i, as 11 has it; x (B, T, C), and so the result.

    With a cache, a dict, x continues the sequence of earlier calls (09).
    """
    x = x + self_attention(rms_norm(x), params, i, heads, cache)
    x = x + feed_forward(token_shift(rms_norm(x), params, i, cache), params, i)
    return x


# ---- new here: the model ----------------------------------------------------------------------

def init_weights(rng, V, C, blocks):
    """All weights by name.

    out and down are 0, so that at first no block adds anything. So is unembed,
    so that the first predictions are uniform. Unlike in 06 these zeros do
    receive gradients: first unembed, then out and down.
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


def gpt(params, ids, blocks, heads, cache=None):
    """Logits (B, T, V) of the character after each of ids (B, T).

    With a cache, a dict that is empty at first, ids continue those of earlier
    calls.
    """
    x = rms_norm(embedding(params["embed"], ids))               # (B, T, C)
    for i in range(blocks):
        x = block(x, params, i, heads, cache)
    return rms_norm(x) @ params["unembed"]                      # (B, T, V)


def loss_on(params, rows, blocks, heads):
    """The mean loss over rows (B, T+1) of ids: each character predicts the next one."""
    logits = gpt(params, rows[:, :-1], blocks, heads)           # (B, T, V)
    V = logits.shape[-1]
    return cross_entropy(logits.reshape(-1, V), rows[:, 1:].ravel())


def gradients(weights, rows, blocks, heads):
    """The loss on rows, and its gradient for each weight by name; weights are arrays."""
    params = as_tensors(weights)
    loss = loss_on(params, rows, blocks, heads)
    loss.backward()
    return loss.data.item(), {name: tensor.grad for name, tensor in params.items()}


# ---- new here: sampling -----------------------------------------------------------------------

def sample(run, prompt, tokens, temperature, top_k, seed):
    """Yield characters that the best weights so far write after the prompt.

    Each is drawn from softmax(logits / temperature) among the top_k likeliest.
    """
    rng = np.random.default_rng(seed)
    params = as_tensors(run.best or run.weights)
    context = run.settings["context"]
    ids = list(encode(prompt, run.characters)) or [0]
    new = ids[-context:]                    # ids that are not in the cache yet
    cache, cached = {}, 0
    for _ in range(tokens):
        if cached + len(new) > context:     # full: restart from the newer half
            new = ids[-max(1, context // 2):]
            cache, cached = {}, 0
        with np.errstate(all="ignore"):
            logits = gpt(params, np.array([new]), run.settings["blocks"], run.settings["heads"],
                         cache).data[0, -1].astype(float)
        if not np.isfinite(logits).all():
            sys.exit("error: the weights are too large: lower --lr")
        cached += len(new)
        if 0 < top_k < len(logits):
            logits[logits < np.sort(logits)[-top_k]] = -np.inf
        p = np.exp((logits - logits.max()) / max(temperature, 1e-9))  # at 0 only the best is left
        new = [int(rng.choice(len(p), p=p / p.sum()))]
        ids += new
        yield run.characters[new[0]]


# ---- new here: training on many threads or machines -------------------------------------------

SHARD = 512                        # characters that one thread takes at a time


def average(arrays, comm):
    """Replace each array by its mean over the processes of MPI, if there are several."""
    if comm:
        for array in arrays:
            comm.Allreduce(array.copy(), array)
            array /= comm.size


def mean_gradients(weights, rows, blocks, heads, pool, comm):
    """gradients() of all rows: the mean over shards, which the threads share, and over machines.

    NumPy releases Python's global lock (the GIL), so threads do work side by
    side, and a shard's arrays stay in the processor's cache. Its size does not
    depend on the threads, so neither do the sums.
    """
    B, T = len(rows), rows.shape[1] - 1
    size = max(n for n in range(1, max(1, SHARD // T) + 1) if B % n == 0)
    results = list(pool.map(lambda shard: gradients(weights, shard, blocks, heads),
                            np.split(rows, B // size)))
    loss = np.array(sum(loss for loss, _ in results) / len(results))
    mean = pool.map(lambda name: sum(grads[name] for _, grads in results) / len(results), weights)
    grads = dict(zip(weights, mean))
    average([loss, *grads.values()], comm)
    return loss.item(), grads


def update(run, grads, factor, pool):
    """Muon for the matrices in the blocks, Adam with a sixth of its rate for all else.

    A row of embed, or a column of unembed, belongs to one character, frequent
    or rare: directions there should not all get the same length (after Jordan
    2024).
    """
    lr = factor * run.settings["lr"]
    decay = run.settings["decay"]

    def step(name):
        w, dw, state = run.weights[name], grads[name], run.states[name]
        if name in ("embed", "unembed") or w.ndim == 1:
            adam(w, dw, state, lr / 6)
        else:
            muon(w, dw, state, lr, decay)
    list(pool.map(step, grads))                  # list() waits for all of them


def validate(run, s, ids, pool):
    """Measure the loss on all whole rows of ids, keep the best weights, show what they write."""
    rows = np.lib.stride_tricks.sliding_window_view(ids, s.context + 1)[::s.context]
    size = max(1, SHARD // s.context)
    shards = [rows[i:i + size] for i in range(0, len(rows), size)]
    params = as_tensors(run.weights)

    def total(shard):
        return len(shard) * loss_on(params, shard, s.blocks, s.heads).data.item()
    loss = sum(pool.map(total, shards)) / len(rows)
    if not math.isfinite(loss):
        sys.exit(f"error: training diverges at step {len(run.losses)}: lower --lr")
    if loss <= min((earlier for _, earlier in run.validation), default=loss):
        run.best = {name: w.copy() for name, w in run.weights.items()}
    run.validation.append([len(run.losses), loss])
    line = "".join(sample(run, "\n", 60, 0.8, 0, s.seed)).replace("\n", " / ")
    print(f"  validation {loss:.4f}   {line}", flush=True)


@contextlib.contextmanager
def interrupts():
    """A list that Ctrl-C adds to: nothing stops within a step."""
    caught = []
    default = signal.signal(signal.SIGINT, lambda *_: caught.append(True))
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, default)


def train(run, s, last, ids, validation_ids, pool, comm):
    """Train up to step last; returns the seconds that the steps took, without validation."""
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    first = shown = len(run.losses)
    seconds = 0.0
    halt = np.zeros(1)                 # above 0 if any process was interrupted
    print(f"{'step':>7} {'loss':>8} {'char/s':>9} {'left':>6}")
    with interrupts() as caught:
        for step in range(first + 1, last + 1):
            began = time.perf_counter()
            starts = run.rng.integers(len(ids) - s.context, size=(ranks, s.batch, 1))
            rows = ids[starts[rank] + np.arange(s.context + 1)]
            loss, grads = mean_gradients(run.weights, rows, s.blocks, s.heads, pool,
                                         comm)
            update(run, grads, warmup_linear(step, s.steps), pool)
            run.losses.append(loss)
            seconds += time.perf_counter() - began

            halt[:] = len(caught)
            average([halt], comm)
            early = step in (s.eval_every // 20, s.eval_every // 4)  # noise turns into words
            measure = early or step % s.eval_every == 0 or step == s.steps
            pause = step == last or halt.any()
            if measure or pause or step == first + 1 or step % max(1, s.eval_every // 10) == 0:
                speed = (step - first) * ranks * s.batch * s.context / seconds
                left = int(seconds / (step - first) * (last - step))
                print(f"{step:7} {np.mean(run.losses[shown:]):8.4f} {speed:9.0f} "
                      f"{left // 60:3}:{left % 60:02}", flush=True)
                shown = step
            finite = all(np.isfinite(w).all() for w in run.weights.values())
            if not (finite and loss < 1e3):
                sys.exit(f"error: training diverges at step {step}, with a loss of {loss:.4g}: "
                         "lower --lr")
            if measure:
                validate(run, s, validation_ids, pool)
            if s.out and (measure or pause):
                save(run, s.out)
            if halt.any():
                break
    if halt.any() or caught:
        if rank == 0:
            kept = f"kept in {s.out}" if s.out else "not kept"
            print(f"interrupted after step {len(run.losses)}, {kept}", file=sys.stderr)
        sys.exit(130)
    return seconds


# ---- new here: checkpoints ----------------------------------------------------------------

TRAINING = dict(data=str, steps=int, batch=int, context=int, blocks=int, heads=int, channels=int,
                lr=float, decay=float, eval_every=int, seed=int)


def new_run(settings, characters):
    """All that training changes, or needs to go on as if it had never stopped."""
    rng = np.random.default_rng(settings["seed"])
    weights = init_weights(rng, len(characters), settings["channels"], settings["blocks"])
    return SimpleNamespace(settings=settings, characters=characters, rng=rng, weights=weights,
                           best={}, states={name: {} for name in weights}, losses=[],
                           validation=[])


def save(run, path):
    """Write the run to path, an .npz file without pickle."""
    arrays = {f"weights/{name}": w for name, w in run.weights.items()}
    arrays |= {f"best/{name}": w for name, w in run.best.items()}
    arrays |= {f"{part}/{name}": run.states[name][part] for name in run.states
               for part in run.states[name]}
    record = {key: getattr(run, key) for key in "settings characters losses validation".split()}
    record["rng"] = run.rng.bit_generator.state
    content = io.BytesIO()
    np.savez(content, record=np.array(json.dumps(record)), **arrays)
    try:
        write_file(path, content.getbuffer())
    except OSError as problem:
        sys.exit(f"error: cannot write the checkpoint {path}: {problem}")


def check_out(path):
    """Stop if path cannot be written, or if it holds anything but a checkpoint of this script."""
    try:
        if os.path.exists(path):
            ours = zipfile.is_zipfile(path) and "record.npy" in zipfile.ZipFile(path).namelist()
            if not (ours and os.access(path, os.W_OK)):
                sys.exit(f"error: cannot write {path}: what is there is not a writable checkpoint "
                         "of 11_gpt.py")
        with tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(path))):
            pass                                    # the folder can be written
    except (OSError, ValueError) as problem:
        sys.exit(f"error: cannot write {path}: {problem}")


def load(path):
    """The run that save() wrote to path."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            arrays = dict(arrays)
        record = json.loads(arrays.pop("record").item())
        settings = {name: kind(record["settings"][name]) for name, kind in TRAINING.items()}
        run = new_run(settings, record["characters"])
        run.losses = [float(loss) for loss in record["losses"]]
        run.validation = [[int(step), float(loss)] for step, loss in record["validation"]]
        run.rng.bit_generator.state = record["rng"]
        for key, value in arrays.items():
            part, name = key.split("/")
            if part == "t":
                run.states[name]["t"] = int(value)
            else:
                home = {"weights": run.weights, "best": run.best}.get(part, run.states[name])
                key = name if part in ("weights", "best") else part
                home[key] = value.astype(np.float32).reshape(run.weights[name].shape)
        missing = {f"weights/{name}" for name in run.weights} - arrays.keys()
        missing |= run.best.keys() ^ run.weights.keys() if run.best else set()
        numbers = [run.losses, run.validation, *run.weights.values(), *run.best.values()]
        if missing or not all(np.isfinite(array).all() for array in numbers):
            raise ValueError
        return run
    except OSError as problem:
        sys.exit(f"error: cannot read the checkpoint {path}: {problem}")
    except Exception:                       # a damaged file may raise anything
        sys.exit(f"error: {path} is not a whole checkpoint of 11_gpt.py")


def merge_settings(asked, parameters, run, path):
    """Settings of a resumed run: what it was trained with, except what is now asked to differ."""
    changed = {name: value for name, value in asked.items() if value != parameters[name].default}
    for name in "blocks", "heads", "channels":
        if changed.get(name, run.settings[name]) != run.settings[name]:
            sys.exit(f"error: {path} holds a GPT with {name}={run.settings[name]}, "
                     f"not {asked[name]}")
    run.settings |= {name: changed[name] for name in TRAINING if name in changed}
    if asked["steps"] and {"data", "context"} & changed.keys():  # the old losses are void
        run.validation, run.best = [], {}
    return asked | run.settings


# ---- the experiment -----------------------------------------------------------------------

def mpi_processes():
    """All processes that mpiexec has started, or None; and how many run on this machine."""
    if not {"PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"} & set(os.environ):
        return None, 1
    try:
        from mpi4py import MPI
        return MPI.COMM_WORLD, MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED).size
    except (ImportError, RuntimeError) as problem:
        sys.exit(f"error: started under MPI, but mpi4py does not work: {problem}")


def prepare(s, run):
    """Read the text and start a run, unless one is resumed; returns the run and all ids."""
    name, text = read_text(s.data)
    characters = "".join(sorted(set(text)))
    needed = 10 * (s.context + 1)
    if len(text) < needed:
        sys.exit(f"error: {name} has {len(text)} characters, but --context={s.context} needs "
                 f"{needed}, because a tenth is kept for validation")
    if run and run.characters != characters:
        sys.exit(f"error: {name} has other characters than the text of the checkpoint")
    run = run or new_run({key: getattr(s, key) for key in TRAINING}, characters)
    size = sum(w.size for w in run.weights.values())
    print(f"Text: {name}, {len(text):,} characters, {len(characters)} different; "
          "its last tenth is for validation.\n"
          f"GPT: {s.blocks} blocks, {s.heads} heads, {s.channels} channels, {size:,} parameters.\n"
          f"A uniform guess costs ln {len(characters)} = {math.log(len(characters)):.4f}.")
    return run, encode(text, characters)


def show(run):
    """Draw the training loss, averaged over some 70 stretches, and the validation losses."""
    stretches = np.array_split(run.losses, min(72, len(run.losses)))
    steps = np.cumsum([len(stretch) for stretch in stretches])
    curves = {".": (steps, [stretch.mean() for stretch in stretches])}
    if run.validation:
        curves["o"] = np.array(run.validation).T
    print("\nLoss by step: . in training, o on the whole validation text")
    print(plot(curves))


def train_on_threads(run, s, last, ids, comm, here):
    """Time a step, say how long all will take, and train; returns seconds, in all and of steps.

    Of the processes in comm, here is the number that shares this machine.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # on Linux: the cores that we may use
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        cores = 1                 # in a notebook, BLAS has the threads already
    threads, ranks = s.threads or max(1, cores // here), comm.size if comm else 1
    left = last - len(run.losses)
    with ThreadPoolExecutor(threads, initializer=np.seterr, initargs=("ignore",)) as pool:
        start = time.perf_counter()
        rows = np.tile(ids[:s.context + 1], (s.batch, 1))
        mean_gradients(run.weights, rows, s.blocks, s.heads, pool, None)
        minutes = (time.perf_counter() - start) * left / 60
        print(f"Training: {left} steps of {ranks * s.batch} x {s.context} characters on {threads} "
              f"thread{'s' * (threads > 1)}, about {minutes:.1f} minutes.\n", flush=True)
        cut, start = int(0.9 * len(ids)), time.perf_counter()
        stepping = train(run, s, last, ids[:cut], ids[cut:], pool, comm)
        return time.perf_counter() - start, stepping


def write(run, s):
    """Print the prompt and what the GPT makes of it, as it comes; returns the text."""
    text = "".join(character for character in s.prompt if character in run.characters)
    if text != s.prompt:
        left_out = sorted(set(s.prompt) - set(text))
        print(f"note: not in the vocabulary: {' '.join(map(ascii, left_out))}")
    print(text, end="")
    for character in sample(run, text or "\n", s.tokens, s.temperature, s.top_k, s.seed):
        print(character, end="", flush=True)
        text += character
    print()
    return text


def main(data="", out="gpt.npz", resume="", prompt="", tokens=500, temperature=0.8, top_k=0,
         steps=1000, stop=0, batch=32, context=128, blocks=4, heads=4, channels=128, lr=0.03,
         decay=0.3, eval_every=250, seed=0, threads=0):
    """Train a GPT on a text, keep it in a file, and write on in the manner of the text.

    data         a UTF-8 text file to learn from; without one, tiny Shakespeare
    out          the checkpoint file to write; empty for none
    resume       a checkpoint to go on from; its settings hold where yours are the defaults
    prompt       text to continue
    tokens       number of characters to write
    temperature  below 1 likely characters become likelier; 0 always takes the likeliest
    top_k        draw from this many of the likeliest characters; 0 for all
    steps        updates in all, over which the learning rate falls to 0; 0 only writes
    stop         pause after this step, to be resumed; 0 for no pause
    batch        rows of text in an update (under MPI, in each process)
    context      context length: characters in a row
    blocks       number of transformer blocks
    heads        attention heads in a block
    channels     width of the residual stream
    lr           highest learning rate of Muon; Adam's is a sixth of it
    decay        weight decay of the matrices in the blocks: w *= 1 - lr * decay at each step
    eval_every   steps from one validation, which also saves, to the next
    seed         random seed of weights, batches and samples
    threads      number of worker threads; 0 means one per core

    Returns {"val_loss": the last one, "best_val_loss", "train_loss" (nats per character), "steps",
    "seconds" of this call's training, validation included, "tokens_per_second" of the steps,
    "parameters", "sample"}.
    """
    typed = dict(locals())
    parameters = inspect.signature(main).parameters
    s = {name: type(p.default)(typed[name]) for name, p in parameters.items()}  # from NumPy, too
    run = None
    if resume:
        run = load(resume)
        s = merge_settings(s, parameters, run, resume)
    s = SimpleNamespace(**s)
    if s.channels % s.heads:
        sys.exit(f"error: {s.channels} channels do not divide into {s.heads} heads")
    if s.channels // s.heads % 2:
        sys.exit(f"error: {s.channels} channels in {s.heads} heads leave an odd number in each, "
                 "but rotary positions rotate pairs")
    seconds, stepping = 0.0, math.nan
    comm, here = mpi_processes()
    if comm and comm.rank:              # one process speaks and writes for all
        s.out, sys.stdout = "", open(os.devnull, "w", encoding="utf-8")
    done = len(run.losses) if run else 0
    last = min(s.steps, s.stop or s.steps)
    if done < last and s.out:
        check_out(s.out)
    if done < last or not run:
        run, ids = prepare(s, run)
    if done < last:
        seconds, stepping = train_on_threads(run, s, last, ids, comm, here)
        show(run)
    measured, losses = zip(*(run.validation or [[len(run.losses), math.nan]]))
    speed = (last - done) * (comm.size if comm else 1) * s.batch * s.context / stepping
    if done < last:
        print(f"val loss {losses[-1]:.4f} after {measured[-1]} steps, {seconds:.1f} s, "
              f"{speed:.0f} char/s\n")
    return {"val_loss": losses[-1], "best_val_loss": min(losses), "seconds": seconds,
            "train_loss": (run.losses or [math.nan])[-1], "steps": len(run.losses),
            "tokens_per_second": speed, "parameters": sum(w.size for w in run.weights.values()),
            "sample": write(run, s)}


# ---- carried from 05, 06 and 08, code unchanged: explained there ----------------------------

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
    mean = m / (1 - beta1 ** t)                          # with bias correction
    mean_square = v / (1 - beta2 ** t)
    w -= lr * mean / (np.sqrt(mean_square) + eps)


def newton_schulz(G, steps=5):
    """Nearly U V^T for the matrix G = U S V^T, by products of matrices only.

    A step makes 3.4445 s - 4.7750 s^3 + 2.0315 s^5 of each singular value s.
    """
    if G.shape[0] > G.shape[1]:          # so that X X^T is the smaller product
        return newton_schulz(G.T, steps).T
    X = G / (np.linalg.norm(G) + 1e-7)
    for _ in range(steps):
        A = X @ X.T
        X = 3.4445 * X + (2.0315 * (A @ A) - 4.7750 * A) @ X
    return X


def muon(w, dw, state, lr, decay=0.0, beta=0.95):
    """Muon (Jordan 2024): momentum, made equally long in all directions. Changes the matrix w."""
    m = state.setdefault("m", np.zeros_like(w))
    m *= beta
    m += (1 - beta) * dw
    ahead = beta * m + (1 - beta) * dw       # Nesterov: the next m if dw stays
    fit = math.sqrt(max(1, w.shape[1] / w.shape[0]))  # to the shape, see above
    w *= 1 - lr * decay
    w -= lr * fit * newton_schulz(ahead)


def warmup_linear(step, steps, warmup=20):
    """The factor of the learning rate in step 1 .. steps: a linear rise, then a linear fall."""
    return min(step / warmup, 1, (steps + 1 - step) / max(1, steps + 1 - warmup))


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


def encode(text, characters):
    """The ids of text's characters in the vocabulary `characters`; unknown ones are skipped."""
    ids = {character: i for i, character in enumerate(characters)}
    return np.array([ids[character] for character in text if character in ids], np.int64)


# ---- plumbing, the same in every file: nothing about neural networks ------------------------

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
            sys.exit(f"error: cannot read {path}: {problem}")
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
    except UnicodeDecodeError:
        sys.exit(f"error: {path} is not UTF-8 text")
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # who read our output has left: be silent


# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy"]
# ///

if __name__ == "__main__":
    command_line(main,
                 may_be_zero=("steps", "tokens", "temperature", "decay"))
