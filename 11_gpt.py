"""11  A GPT learns to write like Shakespeare, one character at a time.

Carried, with their helpers, from 01: refuse, plot, command_line.  05: Tensor.  06: adam, muon,
linear_decay, cross_entropy.  07: keep, check_writable, fetch, Progress.  08: read_text, encode,
embedding, rotary.  09: attention, leaves.  10: rms_norm, feed_forward, token_shift.
New here: the model, checkpoints, sampling, training on many threads or machines.

A language model gives each possible next character a probability. p(text) is the product of all
p(character, given all before it); here, all before it in a row of --block characters. The loss is
the mean of -ln p, in nats per character. A uniform guess among V characters costs ln V.

All work happens on a stream x of C numbers per character, to which each layer adds its findings:
    x = norm(embed[character])
    x = x + attend(norm(x))           facts move to later positions, never to earlier ones; queries
                                      and keys are normed, and turned by their positions (08)
    x = x + feed(shift(norm(x)))      each position works on what it and the one before it know
    logits = norm(x) @ head           after the last block

Much has improved since GPT-2 (2019). To put one old part back costs, in nats after 300 steps:
AdamW for Muon at most 0.15; learned positions for rotary 0.16; random out, down and head matrices
for zeros 0.04; no token shift 0.04. GELU for squared ReLU costs 0.02, and LayerNorm for RMSNorm, or
queries and keys without norm, less than 0.01: less than another seed may change, 0.03.

Run       python 11_gpt.py            (--help lists the options; --data=my.txt for your own text)
          python 11_gpt.py --resume=gpt.npz --steps=0 --prompt="ROMEO:" --tokens=1000
Expect    4.5 minutes on two cores, 0.2 GB; a validation loss of 1.47 to 1.49
Left out  dropout; tokens longer than a character (08); half precision
"""
import argparse, contextlib, gzip, hashlib, http.client, inspect, json, math, os, re, signal, sys
import time, urllib.request, zipfile, zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

if "numpy" not in sys.modules:                      # one BLAS thread: we split the batch ourselves
    for threads in "OPENBLAS_NUM", "MKL_NUM", "OMP_NUM", "VECLIB_MAXIMUM":
        os.environ.setdefault(f"{threads}_THREADS", "1")

import numpy as np

# B batch, T positions, C channels, H heads, D = C/H, V vocabulary; N = B*T rows, one per character


# ---- carried from 01, 05, 06, 07, 08, 09 and 10, unchanged --------------------------------------

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


def keep(path, write):
    """write(file) into a .part, then rename it: path is always whole, the old or the new."""
    path = os.path.realpath(path)                   # of a link, the file that it points to
    part = f"{path}.{os.getpid()}.part"             # another run may write here, too
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(part)
        raise


def check_writable(path):
    """Refuse a file that cannot or should not be written, before the training and not after it."""
    try:
        if os.path.exists(path):
            ours = os.path.isfile(path) and os.access(path, os.W_OK) and zipfile.is_zipfile(path)
            refuse(not ours, f"cannot write {path}: what is there is not a writable .npz file")
        part = f"{os.path.realpath(path)}.{os.getpid()}.part"
        with open(part, "wb"):
            pass
        os.remove(part)
    except (OSError, ValueError) as problem:
        refuse(True, f"cannot write {path}: {problem}")


def fetch(name, urls, sha256):
    """The bytes of data/name, or if they are missing or wrong, of the first URL that has them.

    A name in .gz is unpacked. Bytes with another SHA-256 (taken unpacked) are never used. None if
    there are no right ones.
    """
    path = Path("data", name)
    for source in [path.absolute().as_uri()] * os.path.exists(path) + list(urls):
        if source in urls:
            print(f"fetching {source}", flush=True)
        try:
            with urllib.request.urlopen(source, timeout=10) as reply:
                packed = reply.read()
            content = gzip.decompress(packed) if name.endswith(".gz") else packed
            if hashlib.sha256(content).hexdigest() != sha256:
                raise OSError("its SHA-256 is wrong: damaged, or another file")
        except (OSError, EOFError, ValueError, zlib.error, http.client.HTTPException) as problem:
            print(f"note: {source}: {problem}")
            continue
        if source in urls:
            with contextlib.suppress(OSError):      # no right to write here: used, but not kept
                path.parent.mkdir(exist_ok=True)
                keep(path, lambda file: file.write(packed))
        return content


class Progress:
    """A line about every 4 seconds: step, mean loss since the last line, speed, time left."""

    def __init__(self, done, last, unit):
        self.first, self.last, self.start = done, last, time.perf_counter()
        print(f"{'step':>7} {'loss':>8} {unit:>9} {'left':>6}")
        self.restart()

    def restart(self):
        self.losses, self.count, self.shown = [], 0, time.perf_counter()

    def __call__(self, step, loss, count, show=False):
        """After a step over count things: print a line if it is time, or if show."""
        self.losses.append(loss)
        self.count += count
        now = time.perf_counter()
        if show or now - self.shown > 4 or step == self.first + 1:
            mean, speed = sum(self.losses) / len(self.losses), self.count / (now - self.shown)
            left = int((now - self.start) / (step - self.first) * (self.last - step))
            print(f"{step:7} {mean:8.4f} {speed:9.0f} {left // 60:3}:{left % 60:02}", flush=True)
            self.restart()


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

    def __matmul__(self, other):
        other = self.lift(other)
        a, b = self.data, other.data
        return Tensor(a @ b, (self, other),
                      lambda g: (unbroadcast(g @ b.swapaxes(-1, -2), a.shape),
                                 unbroadcast(a.swapaxes(-1, -2) @ g, b.shape)))

    def reshape(self, *shape):
        return Tensor(self.data.reshape(shape), (self,), lambda g: (g.reshape(self.data.shape),))


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


def newton_schulz(G, steps=5):
    """About U V^T of G: a step makes 3.4445 s - 4.7750 s^3 + 2.0315 s^5 of singular values s."""
    if len(G) > len(G.T):
        return newton_schulz(G.T, steps).T              # so that X X^T is the smaller product
    X = G / (np.linalg.norm(G) + 1e-7)
    for _ in range(steps):
        A = X @ X.T
        X = 3.4445 * X + (2.0315 * (A @ A) - 4.7750 * A) @ X
    return X


def muon(w, dw, state, lr, decay=0.0, beta=0.95):
    """Muon (Jordan 2024), in place: momentum, made equally long in all directions."""
    m = state.setdefault("m", np.zeros_like(w))
    m *= beta
    m += (1 - beta) * dw
    update = newton_schulz(beta * m + (1 - beta) * dw)              # Nesterov: one look ahead
    w *= 1 - lr * decay
    w -= lr * math.sqrt(max(1, w.shape[1] / w.shape[0])) * update


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


COMMIT = "6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
SHAKESPEARE = [f"https://{host}/data/tinyshakespeare/input.txt" for host in
               (f"raw.githubusercontent.com/karpathy/char-rnn/{COMMIT}",
                f"cdn.jsdelivr.net/gh/karpathy/char-rnn@{COMMIT}")]
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"


def read_text(path):
    """A name and a text: the file at path; tiny Shakespeare; or, offline, Python's own help."""
    if path:
        try:
            return path, Path(path).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            refuse(True, f"{path} is not UTF-8 text")
        except (OSError, ValueError) as problem:
            refuse(True, f"cannot read {path}: {problem}")
    content = fetch("tinyshakespeare.txt", SHAKESPEARE, SHA256)
    if content:
        return "tiny Shakespeare", content.decode()
    from pydoc_data.topics import topics
    print("Tiny Shakespeare is neither in data/ nor to be downloaded: learning from Python's own "
          f"help texts.\nTo have it, save {SHAKESPEARE[0]}\nas data/tinyshakespeare.txt\n")
    return "Python's help texts", "\n".join(topics[name] for name in sorted(topics))


def encode(text, characters):
    """The places of text's characters in the vocabulary; those that are not in it are left out."""
    place = {character: i for i, character in enumerate(characters)}
    return np.array([place[character] for character in text if character in place], np.int64)


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


def rms_norm(x, eps=1e-6):
    """x over its root mean square along the last axis (Zhang 2019)."""
    C = x.data.shape[-1]
    r = 1 / np.sqrt(row_dot(x.data, x.data) / C + eps)
    y = x.data * r
    return Tensor(y, (x,), lambda g: (r * (g - y * (row_dot(g, y) / C)),))


def feed_forward(x, up, down):
    """max(x up, 0)^2 down: two matrices with a squared ReLU between them (So 2021).

    x (N, C), up (C, 4C), down (4C, C). One operation, to keep one (N, 4C) array instead of three.
    """
    root = x.data @ up.data
    np.maximum(root, 0, out=root)

    def vjp(g):
        da = (2 * g) @ down.data.T                  # 2 goes to g, the smaller array
        da *= root
        return da @ up.data.T, x.data.T @ da, (root * root).T @ g
    return Tensor((root * root) @ down.data, (x, up, down), vjp)


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


# ---- new here: the model ------------------------------------------------------------------------

def initial_weights(rng, V, C, layers):
    """All weights by name. out and down are 0: at first no layer adds anything. So is head: each
    guess is uniform. Unlike zeros in 06 they learn: head at once, from norm(x); then out and down.
    """
    def matrix(n_in, n_out):
        return rng.standard_normal((n_in, n_out), np.float32) / np.float32(math.sqrt(n_in))

    def zeros(*shape):
        return np.zeros(shape, np.float32)

    weights = {"embed": rng.standard_normal((V, C), np.float32), "head": zeros(C, V)}
    for i in range(layers):
        weights |= {f"{i}.query": matrix(C, C), f"{i}.key": matrix(C, C),
                    f"{i}.value": matrix(C, C), f"{i}.out": zeros(C, C), f"{i}.mix": zeros(C),
                    f"{i}.up": matrix(C, 4 * C), f"{i}.down": zeros(4 * C, C)}
    return weights


def gpt(weights, ids, heads, cache=None):
    """Logits (N, V) of the character after each of ids (B, T); weights are Tensors.

    cache: a dict in which block i keeps what later positions need of earlier ones. With it, ids
    are the characters that have come since the last call.
    """
    (B, T), C = ids.shape, weights["embed"].data.shape[1]
    past = cache[0][0].data.shape[1] if cache else 0                # positions in the cache
    turn, before = rotations(past, T, C // heads), np.zeros((B, 1, C), np.float32)
    x = rms_norm(embedding(weights["embed"], ids.ravel()))          # (N, C)
    for i in range(len(weights) // 7):                              # 7 arrays in a block
        h = rms_norm(x)
        q, k, v = ((h @ weights[f"{i}.{name}"]).reshape(B, T, heads, C // heads)
                   for name in ("query", "key", "value"))
        q, k = rotary(rms_norm(q), turn), rotary(rms_norm(k), turn)
        if past:
            keys, values, before = cache[i]
            k = Tensor(np.concatenate([keys.data, k.data], 1))
            v = Tensor(np.concatenate([values.data, v.data], 1))
        x = x + attention(q, k, v).reshape(B * T, C) @ weights[f"{i}.out"]
        h = rms_norm(x).reshape(B, T, C)
        if cache is not None:
            cache[i] = k, v, h.data[:, -1:]
        h = token_shift(h, weights[f"{i}.mix"], before).reshape(B * T, C)
        x = x + feed_forward(h, weights[f"{i}.up"], weights[f"{i}.down"])
    return rms_norm(x) @ weights["head"]


def loss_of(weights, rows, heads):
    """Mean loss over rows (B, T+1) of ids, each character predicting the next."""
    return cross_entropy(gpt(weights, rows[:, :-1], heads), rows[:, 1:].ravel())


def gradients(weights, rows, heads):
    """The loss over rows, and its gradient for each weight by name; weights are arrays."""
    weights = leaves(weights)
    loss = loss_of(weights, rows, heads)
    loss.backward()
    return loss.data.item(), {name: w.grad for name, w in weights.items()}


# ---- new here: checkpoints ----------------------------------------------------------------------

TRAINING = dict(data=str, steps=int, batch=int, block=int, layers=int, heads=int, channels=int,
                lr=float, decay=float, eval_every=int, seed=int)


def new_run(settings, characters):
    """All that training changes, or needs to go on as if it had never stopped."""
    rng = np.random.default_rng(settings["seed"])
    weights = initial_weights(rng, len(characters), settings["channels"], settings["layers"])
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
    try:
        keep(path, lambda file: np.savez(file, record=np.array(json.dumps(record)), **arrays))
    except OSError as problem:
        refuse(True, f"cannot write the checkpoint {path}: {problem}")


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
        refuse(True, f"cannot read the checkpoint {path}: {problem}")
    except Exception:                               # a damaged file may raise anything
        refuse(True, f"{path} is not a whole checkpoint of 11_gpt.py")


def settle(asked, parameters, run, path):
    """Settings of a resumed run: what it was trained with, except what is now asked to differ."""
    changed = {name: value for name, value in asked.items() if value != parameters[name].default}
    for name in "layers", "heads", "channels":
        refuse(changed.get(name, run.settings[name]) != run.settings[name],
               f"{path} holds a GPT with {name}={run.settings[name]}, not {asked[name]}")
    run.settings |= {name: changed[name] for name in TRAINING if name in changed}
    if asked["steps"] and {"data", "block"} & changed.keys():   # old losses, and the best, are void
        run.validation, run.best = [], {}
    return asked | run.settings


# ---- new here: sampling and training ------------------------------------------------------------

def sample(run, prompt, tokens, temperature, top_k, seed):
    """Yield characters that the best weights so far write after the prompt.

    Each is drawn from softmax(logits / temperature) among the top_k likeliest.
    """
    rng, weights = np.random.default_rng(seed), leaves(run.best or run.weights)
    block, heads = run.settings["block"], run.settings["heads"]
    context = list(encode(prompt, run.characters)) or [0]
    fresh, cache, seen = context[-block:], {}, 0    # characters not in the cache yet; those in it
    for _ in range(tokens):
        if seen + len(fresh) > block:               # it is full: begin anew with its newer half
            fresh, cache, seen = context[-max(1, block // 2):], {}, 0
        with np.errstate(all="ignore"):
            logits = gpt(weights, np.array([fresh]), heads, cache).data[-1].astype(float)
        refuse(not np.isfinite(logits).all(), "the weights are too large: lower --lr")
        seen += len(fresh)
        if 0 < top_k < len(logits):
            logits[logits < np.sort(logits)[-top_k]] = -np.inf
        p = np.exp((logits - logits.max()) / max(temperature, 1e-9))    # at 0 only the best is left
        fresh = [int(rng.choice(len(p), p=p / p.sum()))]
        context += fresh
        yield run.characters[fresh[0]]


SHARD = 512                                         # characters that one thread takes at a time


def average(arrays, comm):
    """Replace each array by its mean over the processes of MPI, if there are several."""
    if comm:
        for array in arrays:
            comm.Allreduce(array.copy(), array)
            array /= comm.size


def mean_gradients(weights, rows, heads, pool, comm):
    """gradients() of all rows: the mean over shards, shared by the threads, and over machines (06).

    NumPy lets go of Python's lock, so threads do work side by side, and a shard's arrays stay in
    the processor's cache. Its size does not depend on the threads, so neither do the sums.
    """
    B, T = len(rows), rows.shape[1] - 1
    size = max(n for n in range(1, max(1, SHARD // T) + 1) if B % n == 0)
    results = list(pool.map(lambda shard: gradients(weights, shard, heads),
                            np.split(rows, B // size)))
    loss = np.array(sum(loss for loss, _ in results) / len(results))
    mean = pool.map(lambda name: sum(grads[name] for _, grads in results) / len(results), weights)
    grads = dict(zip(weights, mean))
    average([loss, *grads.values()], comm)
    return loss.item(), grads


def update(run, grads, share, pool):
    """Muon for the matrices in the blocks, Adam with a sixth of its rate for all else.

    A row of embed, or a column of head, belongs to one character, frequent or rare: directions
    there should not all get the same length (after Jordan 2024).
    """
    lr, decay = share * run.settings["lr"], run.settings["decay"]

    def step(name):
        w, dw, state = run.weights[name], grads[name], run.states[name]
        if name in ("embed", "head") or w.ndim == 1:
            adam(w, dw, state, lr / 6)
        else:
            muon(w, dw, state, lr, decay)
    list(pool.map(step, grads))                     # list() waits for all of them


def validate(run, s, ids, pool):
    """The loss over all whole rows of ids; remember the best weights; show what they write."""
    rows = np.lib.stride_tricks.sliding_window_view(ids, s.block + 1)[::s.block]
    size = max(1, SHARD // s.block)
    shards = [rows[i:i + size] for i in range(0, len(rows), size)]
    total = lambda shard: len(shard) * loss_of(leaves(run.weights), shard, s.heads).data.item()
    loss = sum(pool.map(total, shards)) / len(rows)
    refuse(not math.isfinite(loss), f"training diverges at step {len(run.losses)}: lower --lr")
    if loss <= min((earlier for _, earlier in run.validation), default=loss):
        run.best = {name: w.copy() for name, w in run.weights.items()}
    run.validation.append([len(run.losses), loss])
    line = "".join(sample(run, "\n", 60, 0.8, 0, s.seed)).replace("\n", " / ")
    print(f"  validation {loss:.4f}   {line}", flush=True)


def train(run, s, last, ids, validation_ids, pool, comm):
    """Train up to step last; returns the seconds that the steps took, without validation."""
    rank, ranks = (comm.rank, comm.size) if comm else (0, 1)
    progress, seconds, caught = Progress(len(run.losses), last, "tok/s"), 0.0, []
    halt = np.zeros(1)                              # how many processes have been interrupted
    default = signal.signal(signal.SIGINT, lambda *_: caught.append(True))  # never within a step
    try:
        for step in range(len(run.losses) + 1, last + 1):
            began = time.perf_counter()
            starts = run.rng.integers(len(ids) - s.block, size=(ranks, s.batch, 1))
            rows = ids[starts[rank] + np.arange(s.block + 1)]
            loss, grads = mean_gradients(run.weights, rows, s.heads, pool, comm)
            update(run, grads, linear_decay(step, s.steps), pool)
            run.losses.append(loss)
            seconds += time.perf_counter() - began

            halt[:] = len(caught)
            average([halt], comm)
            early = step in (s.eval_every // 20, s.eval_every // 4)     # noise turns into words
            measure = early or step % s.eval_every == 0 or step == s.steps
            pause = step == last or halt.any()
            progress(step, loss, ranks * s.batch * s.block, measure or pause)
            sound = all(np.isfinite(w).all() for w in run.weights.values())
            refuse(not (sound and math.isfinite(loss)),
                   f"training diverges at step {step}, with a loss of {loss:.4g}: lower --lr")
            if measure:
                validate(run, s, validation_ids, pool)
                progress.restart()
            if s.out and (measure or pause):
                save(run, s.out)
            if halt.any():
                break
    finally:
        signal.signal(signal.SIGINT, default)
    if caught or halt.any():
        if rank == 0:
            print(f"interrupted after step {len(run.losses)}, "
                  f"{'kept in ' + s.out if s.out else 'not kept'}", file=sys.stderr)
        raise SystemExit(130)
    return seconds


# ---- the experiment -----------------------------------------------------------------------------

def check(s):
    """Refuse settings that make no sense, each with its own sentence."""
    for name in "batch block layers heads channels eval_every".split():
        refuse(not 0 < getattr(s, name) < 2 ** 31, f"--{name} must be positive and below 2^31")
    refuse(s.threads > 256, "--threads must be at most 256")
    for name in "steps stop tokens top_k seed threads".split():
        refuse(not 0 <= getattr(s, name) < 2 ** 31, f"--{name} must be 0 or more and below 2^31")
    for name in "temperature", "decay":
        refuse(not 0 <= getattr(s, name) < math.inf, f"--{name} must be 0 or more, and finite")
    refuse(not 0 < s.lr < math.inf, "--lr must be positive")
    refuse(s.channels % s.heads, f"{s.channels} channels do not divide into {s.heads} heads")
    refuse(s.channels // s.heads % 2, f"{s.channels} channels in {s.heads} heads leave an odd "
           "number in each, but rotary positions turn pairs")


def world():
    """All processes that mpiexec has started, or None; and how many run on this machine."""
    if not {"PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"} & set(os.environ):
        return None, 1
    try:
        from mpi4py import MPI
        return MPI.COMM_WORLD, MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED).size
    except (ImportError, RuntimeError) as problem:
        refuse(True, f"started under MPI, but mpi4py does not work: {problem}")


def prepare(s, run):
    """Read the text and start a run, unless one is resumed; returns the run and all ids."""
    name, text = read_text(s.data)
    characters, needed = "".join(sorted(set(text))), 10 * (s.block + 1)
    refuse(len(text) < needed, f"{name} has {len(text)} characters, but --block={s.block} "
           f"needs {needed}, because a tenth is kept for validation")
    refuse(run and run.characters != characters,
           f"{name} has other characters than the text of the checkpoint")
    run = run or new_run({key: getattr(s, key) for key in TRAINING}, characters)
    size = sum(w.size for w in run.weights.values())
    print(f"Text: {name}, {len(text):,} characters, {len(characters)} different; "
          "its last tenth is for validation.\n"
          f"GPT: {s.layers} layers, {s.heads} heads, {s.channels} channels, {size:,} parameters.\n"
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
    affinity = getattr(os, "sched_getaffinity", None)       # on Linux: the cores that we may use
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        cores = 1                                   # in a notebook, BLAS has the threads already
    threads, ranks = s.threads or max(1, cores // here), comm.size if comm else 1
    left = last - len(run.losses)
    with ThreadPoolExecutor(threads, initializer=np.seterr, initargs=("ignore",)) as pool:
        start = time.perf_counter()
        mean_gradients(run.weights, np.tile(ids[:s.block + 1], (s.batch, 1)), s.heads, pool, None)
        minutes = (time.perf_counter() - start) * left / 60
        print(f"Training: {left} steps of {ranks * s.batch} x {s.block} characters on {threads} "
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
         steps=1000, stop=0, batch=32, block=128, layers=4, heads=4, channels=128, lr=0.03,
         decay=0.3, eval_every=250, seed=0, threads=0):
    """Train a GPT on a text, keep it in a file, and write on in the manner of the text.

    data: a UTF-8 text to learn from; empty for tiny Shakespeare, from data/ or downloaded
    out: the checkpoint to write; empty for none
    resume: a checkpoint to go on from; its settings hold where yours are the defaults
    prompt: text to go on from
    tokens: characters to write
    temperature: below 1 the likely characters become likelier; 0 takes the likeliest each time
    top_k: draw among so many of the likeliest characters; 0 for all
    steps: updates in all, over which the learning rate falls to 0; with --resume, 0 only writes
    stop: pause after this step, to be resumed; 0 for no pause
    batch: rows of text in an update (under MPI, in each process)
    block: characters in a row, the longest memory
    layers: transformer blocks (10), each of two layers
    heads: attention heads in a block
    channels: width of the stream
    lr: highest learning rate of Muon; Adam's is a sixth of it
    decay: of the matrices in the blocks: each step takes lr times this share off them
    eval_every: steps from one validation, which also saves, to the next
    seed: of weights, batches and samples
    threads: that share the work; 0 for one on each core

    Returns a dict: val_loss (the last one), best_val_loss, train_loss (nats per character), steps,
    seconds (of this call's training, validation included), tokens_per_second (of the steps),
    parameters, sample.
    """
    s, run, seconds, stepping = dict(locals()), None, 0.0, math.nan
    if resume:
        run = load(resume)
        s = settle(s, inspect.signature(main).parameters, run, resume)
    s = SimpleNamespace(**s)
    check(s)
    comm, here = world()
    if comm and comm.rank:                          # one process speaks and writes for all
        s.out, sys.stdout = "", open(os.devnull, "w", encoding="utf-8")
    done, last = len(run.losses) if run else 0, min(s.steps, s.stop or s.steps)
    if done < last and s.out:
        check_writable(s.out)
    if done < last or not run:
        run, ids = prepare(s, run)
    if done < last:
        seconds, stepping = train_on_threads(run, s, last, ids, comm, here)
        show(run)
    measured, losses = zip(*(run.validation or [[len(run.losses), math.nan]]))
    speed = (last - done) * (comm.size if comm else 1) * s.batch * s.block / stepping
    if done < last:
        print(f"val loss {losses[-1]:.4f} after {measured[-1]} steps, {seconds:.1f} s, "
              f"{speed:.0f} tok/s\n")
    return {"val_loss": losses[-1], "best_val_loss": min(losses), "seconds": seconds,
            "train_loss": (run.losses or [math.nan])[-1], "steps": len(run.losses),
            "tokens_per_second": speed, "parameters": sum(w.size for w in run.weights.values()),
            "sample": write(run, s)}


if __name__ == "__main__":
    command_line(main)
