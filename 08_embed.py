"""08  Embeddings: text becomes vectors.

Carried, with their helpers, from 01: numeric_gradient, relative_error, refuse, command_line.
02: sigmoid.  05: Tensor, gradient_error.  06: adam, linear_decay.
07: keep, fetch, Progress.
New here: three kinds of tokens, embedding, word vectors, three kinds of positions.

A net multiplies numbers, and a text has none. Three steps lead from one to the other:
 1 Tokens. The text is cut into pieces. Each is one of the V in a vocabulary, and its place there,
   from 0 to V-1, is its id. Pieces can be characters (V small, texts long), words (V large, and
   new words have no id), or what byte-pair encoding finds between them: begin with the 256 bytes,
   and again and again turn the most frequent pair of neighbours into one new token.
 2 Embedding. A matrix W (V, C) has a row of C numbers for each token, and a token's id picks its
   row. This is a matrix product: let row n of onehot (N, V) be 1 in the column of the nth id, and
   0 elsewhere; then onehot W holds the N rows. With g for their gradient, dW = onehot^T g, by rule
   2 of 04. So the row of a token that occurs twice gets the sum of two gradients.
 3 Positions. Attention (09), but for its mask, sees a set of vectors and no order, so a vector must
   also say at which position t it stands. Add a vector for t, from a formula or learned like W.
   Or turn what 09 compares: take its numbers in pairs, arrows (a, b), and turn each by the angle
   tw, with another speed w for each pair. 09 compares by dot products, sums over the pairs of
   a a' + b b' = r r' cos(the angle between them), for arrows of lengths r and r'. Turned by tw and
   sw, they keep their lengths, and the angle changes by (t - s)w: only t - s counts. In the code an
   arrow is the complex number a + ib. To turn it by the angle p is to multiply it by e^(ip) =
   cos p + i sin p: the product is (a cos p - b sin p) + i (a sin p + b cos p).
A GPT (11) learns its W together with all its other weights, by the same gradient. Word vectors,
trained here by themselves, show in seconds what such rows can learn.

Run       python 08_embed.py                                (--data=my.txt for your own text)
Expect    16 to 24 s on two cores; 500 merges in some 2 s; 7 of 10 listed words near their kind
Left out  the regular expression by which GPT-2 cuts a text before it merges; word analogies
"""
import argparse, contextlib, gzip, hashlib, http.client, inspect, math, os, re, sys, time
import urllib.request, zlib
from collections import Counter
from pathlib import Path

if "numpy" not in sys.modules:                      # one BLAS thread: small matrices need no more
    for threads in "OPENBLAS_NUM", "MKL_NUM", "OMP_NUM", "VECLIB_MAXIMUM":
        os.environ.setdefault(f"{threads}_THREADS", "1")

import numpy as np

# V vocabulary, N tokens, C channels (numbers in a vector); ids (N,) integers below V, W (V, C)
# B texts, T positions; in rotary x is (B, T, H, D), see 09


# ---- carried from 01, 02, 05, 06 and 07, unchanged ----------------------------------------------

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

    def __mul__(self, other):
        other = self.lift(other)
        a, b = self.data, other.data
        return Tensor(a * b, (self, other),
                      lambda g: (unbroadcast(g * b, a.shape), unbroadcast(g * a, b.shape)))


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


# ---- new here: the text -------------------------------------------------------------------------

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


# ---- new here: tokens ---------------------------------------------------------------------------

def encode(text, characters):
    """The places of text's characters in the vocabulary; those that are not in it are left out."""
    place = {character: i for i, character in enumerate(characters)}
    return np.array([place[character] for character in text if character in place], np.int64)


def words_of(text):
    """The text cut into words, each with the space before it, and single other characters."""
    return re.findall(r" ?\w+(?:'\w+)*|\W", text)


def bytes_of(text):
    """The text in UTF-8, as ids from 0 to 255: a character takes one to four of them."""
    return np.array(list(text.encode()), np.int64)


def merge(ids, a, b, new):
    """ids with the one id new in place of every pair a, b."""
    hits = np.flatnonzero((ids[:-1] == a) & (ids[1:] == b))
    if a == b:                          # in a run of a the pairs overlap: take every other one
        start = np.where(np.diff(hits, prepend=-2) > 1, hits, 0)
        start = np.maximum.accumulate(start)                        # where the run begins
        hits = hits[(hits - start) % 2 == 0]
    ids = ids.copy()
    ids[hits] = new
    return np.delete(ids, hits + 1)


def learn_merges(text, count):
    """Byte-pair encoding (Gage 1994, Sennrich 2016): pairs and tokens.

    Merge i turns the two ids pairs[i] into 256 + i; tokens[id] are an id's bytes. There are fewer
    than count merges if no pair occurs twice.
    """
    ids, pairs, tokens = bytes_of(text), [], [bytes([i]) for i in range(256)]
    for new in range(256, 256 + count):
        # All ids are below new, so each pair a, b has a number of its own: a * new + b.
        table = np.bincount(ids[:-1] * new + ids[1:], minlength=new * new).reshape(new, new)
        # A token may begin with white space, but has none later: none spans two words.
        table[:, [token[:1].isspace() for token in tokens]] = 0
        a, b = map(int, np.unravel_index(table.argmax(), table.shape))
        if table[a, b] < 2:
            break
        before, ids = len(ids), merge(ids, a, b, new)
        pairs.append((a, b))
        tokens.append(tokens[a] + tokens[b])
        if len(pairs) <= 5 or len(pairs) % 50 == 0:
            parts = [repr(tokens[i].decode(errors="replace")) for i in (a, b, new)]
            print(f"  {len(pairs):5} {before - len(ids):7}  {parts[0]:>9} + {parts[1]:7} "
                  f"= {parts[2]}", flush=True)
    return pairs, tokens


def encode_bytes(text, pairs):
    """The ids of text: its bytes, merged in the order in which the merges were learned."""
    ids = bytes_of(text)
    for new, (a, b) in enumerate(pairs, 256):
        ids = merge(ids, a, b, new)
    return ids


def decode_bytes(ids, tokens):
    """The text of ids. Bytes that are not UTF-8, as a net may write, become U+FFFD."""
    return b"".join(tokens[i] for i in ids).decode(errors="replace")


# ---- new here: embedding and word vectors -------------------------------------------------------

def embedding(W, ids):
    """W[ids], the rows of W (V, C) that ids (N,) pick: onehot W.

    W[ids] of 05 has the same gradient; for small V, as in 09 to 11, this product is faster.
    """
    def vjp(g):
        onehot = ids[:, None] == np.arange(len(W.data))
        return (onehot.T.astype(g.dtype) @ g,)
    return Tensor(W.data[ids], (W,), vjp)


# Words among the same neighbours mean something similar (Firth 1957). So let vectors guess the
# neighbours. Each word has two: v as itself, u as a neighbour. sigmoid(v u), of their dot product,
# is to be near 1 for a pair from the text, and near 0 for v and n, the u of a random word:
#     loss = -ln sigmoid(v u) - 5 times the mean over n of ln(1 - sigmoid(v n))
# With z = v u, the first term is ln(1 + e^-z), which has the derivative -e^-z / (1 + e^-z), that is
# sigmoid(z) - 1. The second, with z = v n, is ln(1 + e^z), as 1 - sigmoid(z) = sigmoid(-z), and has
# the derivative sigmoid(z). With all z at 0 the loss is 6 ln 2 = 4.16.

def skip_gram(v, u, n, weight=5):
    """The mean loss of words v (N, C) and their neighbours u (N, C) against random words n (K, C).

    Skip-gram with negative sampling (Mikolov 2013); here all pairs share the K random words, whose
    mean counts weight times. A softmax over all V words would cost V dot products a pair.
    """
    true, false = (v.data * u.data).sum(1, keepdims=True), v.data @ n.data.T    # (N, 1), (N, K)
    loss = np.logaddexp(0, -true).mean() + weight * np.logaddexp(0, false).mean()

    def vjp(g):
        dtrue = (sigmoid(true) - 1) * (g / true.size)
        dfalse = sigmoid(false) * (g * weight / false.size)
        return dtrue * u.data + dfalse @ n.data, dtrue * v.data, dfalse.T @ v.data
    return Tensor(loss, (v, u, n), vjp)


def word_vectors(rng, ids, V, C, steps, lr, reach=2, size=1000, noise=100):
    """Train W (V, C) on the ids of words: a step takes size random pairs, at most reach apart."""
    weights = [rng.standard_normal((V, C), np.float32) * np.float32(0.1) for _ in range(2)]
    states, progress = ({}, {}), Progress(0, steps, "pairs/s")
    often = np.bincount(ids, minlength=V) ** 0.75           # noise: as in the text, but flatter
    often /= often.sum()
    for step in range(1, steps + 1):
        at = rng.integers(reach, len(ids) - reach, size)
        to = at + rng.integers(1, reach + 1, size) * rng.choice([-1, 1], size)
        tensors = [Tensor(w) for w in weights]
        W, U = tensors
        with np.errstate(all="ignore"):                     # divergence shows in the loss
            loss = skip_gram(embedding(W, ids[at]), embedding(U, ids[to]),
                             embedding(U, rng.choice(V, noise, p=often)))
            loss.backward()
            for w, tensor, state in zip(weights, tensors, states):
                adam(w, tensor.grad, state, lr * linear_decay(step, steps))
        refuse(not loss.data < 1e6, f"training diverges at step {step}: lower --lr")
        progress(step, loss.data.item(), size, step == steps)
    refuse(not np.abs(weights[0]).max() < 1e6, "training diverges: lower --lr")
    return weights[0]                                       # U has served its purpose


def similarity(W):
    """The cosine of the angle between any two rows of W; (V, V)."""
    rows = W / np.linalg.norm(W, axis=1, keepdims=True)
    return rows @ rows.T


KINDS = {
    "name": "romeo juliet mercutio tybalt benvolio gloucester clarence hastings buckingham warwick "
            "edward richard henry coriolanus menenius sicinius brutus hermione leontes camillo "
            "paulina katharina petruchio lucentio tranio bianca hortensio angelo isabella lucio "
            "claudio prospero ariel bolingbroke york norfolk clifford",
    "pronoun": "i you he she we they thou me him her us them thee",
    "owner": "my your his our their thy mine thine",
    "family": "father mother brother sister son daughter husband wife uncle cousin",
    "body": "eyes hand heart head face lips tongue hands arms breast blood eye cheeks",
    "question": "who what where why how when which",
    "auxiliary": "will shall would should may might can could must",
    "number": "one two three four five six ten twenty hundred thousand",
    "title": "king queen lord duke prince lady gentleman master sir madam",
    "place": "england france rome london padua verona mantua",
    "time": "day night hour morning morrow year",
    "feeling": "love hate fear joy grief sorrow anger shame hope pity",
}
SHOWN = "thou my king father romeo edward eyes night will two rome love".split()


# ---- new here: positions ------------------------------------------------------------------------

# w_j falls from 1 to about 1 / base over the pairs j: clocks with fast and slow hands.

def sinusoids(T, C, base=10000.0):
    """(T, C): sin(t w_j), cos(t w_j) alternating, w_j = base^(-2j/C) (Vaswani 2017), to be added.

    Their own dot products, sums of cos((t - s) w_j), depend on t - s only; those of sums of a word
    and a position do not.
    """
    angle = np.arange(T)[:, None] * base ** (-np.arange(0, C, 2) / C)
    return np.stack([np.sin(angle), np.cos(angle)], 2).reshape(T, C)


def rotations(start, T, D, base=1000.0):
    """exp(i t w_j) for T positions t from start on and w_j = base^(-2j/D); (T, 1, D/2)."""
    t = np.arange(start, start + T)[:, None, None]
    return np.exp(1j * t * base ** (-np.arange(0, D, 2) / D))


# To turn is linear, a product with a matrix, and its vjp is the product with the transpose (05),
# which turns back: conj makes e^(-itw) of e^(itw).

def rotary(x, turn):
    """Read x (B, T, H, D) as pairs, complex numbers, and turn each by its angle (Su 2021)."""
    def rotate(x, turn):
        pairs = x.view(np.result_type(x, np.complex64))     # the same memory, a + ib for a, b
        return (pairs * turn.astype(pairs.dtype)).view(x.dtype)
    return Tensor(rotate(x.data, turn), (x,), lambda g: (rotate(g, turn.conj()),))


def heat_map(values, low, high, shades=" .:-=+*#%@"):
    """A matrix as lines of text, two characters an entry, from low, blank, to high, @."""
    levels = (np.clip((values - low) / (high - low), 0, 1) * (len(shades) - 1)).round().astype(int)
    return ["".join(2 * shades[level] for level in row) for row in levels]


# ---- the experiment -----------------------------------------------------------------------------

def tell_tokens(rng, text, count):
    """Learn tokens from nine tenths of the text; {name: (V, characters per token in the rest)}."""
    learned, held = text[:len(text) * 9 // 10], text[len(text) * 9 // 10:]
    print("Byte-pair encoding: some of the merges\n  merge   times")
    start = time.perf_counter()
    pairs, tokens = learn_merges(learned, count)
    print(f"{len(pairs)} merges from {len(learned):,} characters in "
          f"{time.perf_counter() - start:.1f} s")
    codes = rng.integers(0xd800, size=(100, 20))        # any characters up to 0xd7ff
    for strange in ("".join(map(chr, code)) for code in codes):
        assert decode_bytes(encode_bytes(strange, pairs), tokens) == strange

    characters, words, pieces = sorted(set(learned)), set(words_of(learned)), words_of(held)
    unknown = np.mean([piece not in words for piece in pieces])
    cuts = {"characters": (len(characters), len(encode(held, characters))),
            "words": (len(words), len(pieces))}
    for n in sorted({0, len(pairs) // 4, len(pairs) // 2, len(pairs)}):
        cuts[f"bytes, {n} merges"] = 256 + n, len(encode_bytes(held, pairs[:n]))
    lengths = {name: (V, len(held) / max(1, n)) for name, (V, n) in cuts.items()}
    print("\ntokens              vocabulary   characters per token, in the last tenth of the text")
    for name, (V, length) in sorted(lengths.items(), key=lambda item: item[1]):
        print(f"{name:18} {V:11,} {length:11.2f}")
    print("Longer tokens: a net that looks back over T of them sees more text, but W has more "
          f"rows, and\neach is trained less often. {unknown:.1%} of the words and signs in the "
          "last tenth are not in their\nvocabulary. Bytes can write all: "
          f"{len(codes)} texts of random characters, up to three bytes each,\ncame back from their "
          "ids unchanged. A line in words, and in merged bytes:")
    line = next((line for line in held.splitlines() if 40 < len(line) < 60), held[:50])
    print("  " + "|".join(words_of(line)))
    print("  " + "|".join(decode_bytes([i], tokens) for i in encode_bytes(line, pairs)))
    return lengths


def tell_embedding(rng):
    """W[ids] and its gradient are matrix products; relative errors of all gradients, by name."""
    words = "to be or not to be".split()
    places = {word: i for i, word in enumerate(dict.fromkeys(words))}
    ids = np.array([places[word] for word in words])
    W, onehot = rng.standard_normal((4, 3)), np.eye(4)[ids]
    assert np.array_equal(onehot @ W, W[ids])
    errors = {"embedding": gradient_error(rng, lambda W: embedding(W, ids), W),
              "skip_gram": gradient_error(rng, skip_gram, *rng.standard_normal((3, 4, 3))),
              "rotary": gradient_error(rng, lambda x: rotary(x, rotations(2, 3, 4)),
                                       rng.standard_normal((2, 3, 2, 4)))}
    assert max(errors.values()) < 1e-6
    right = Tensor(np.zeros((4, 1)))
    embedding(right, ids).backward()                    # with a gradient of 1 for each word
    naive = np.zeros((4, 1))
    naive[ids] += np.ones((6, 1))
    assert right.grad.ravel().tolist() == [2, 2, 1, 1]
    print(f"""
"to be or not to be" has the ids {ids}. W[ids] is onehot W, to the last bit.
With a gradient of 1 for each of the six words, dW for to, be, or, not is
  {right.grad.ravel()}  onehot^T g
  {naive.ravel()}  dW[ids] += g: it reads all rows first, so of two sums for one row the last stays
Gradients against central differences, relative errors:""")
    print("  " + "   ".join(f"{name} {error:.0e}" for name, error in errors.items()))
    return errors


def tell_words(rng, text, V, C, steps, lr):
    """Train word vectors; the share of listed words nearest to one of their kind, and by chance."""
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text.lower())          # letters only
    vocabulary = [word for word, _ in Counter(words).most_common(V)]
    places = {word: i for i, word in enumerate(vocabulary)}
    ids = np.array([places[word] for word in words if word in places])      # rare ones close up
    if len(ids) < 1000:
        print(f"\nnote: {len(ids)} words are too few for word vectors")
        return math.nan, math.nan
    print(f"\nVectors of {C} numbers for the {len(vocabulary):,} most frequent words, from "
          f"{len(ids):,} occurrences")
    cosines = similarity(word_vectors(rng, ids, len(vocabulary), C, steps, lr))
    np.fill_diagonal(cosines, -1)
    english = all(word in places for word in SHOWN)
    print("\nword        nearest words, by the angle between vectors")
    for word in SHOWN if english else vocabulary[::max(1, len(vocabulary) // 12)]:
        nearest = np.argsort(-cosines[places[word]])[:6]
        print(f"{word:11} {' '.join(vocabulary[i] for i in nearest)}")
    if not english:
        return math.nan, math.nan

    kind = {word: kind for kind in KINDS for word in KINDS[kind].split() if word in places}
    listed, kinds = [places[word] for word in kind], np.array(list(kind.values()))
    same = kinds == kinds[:, None]
    nearest = cosines[np.ix_(listed, listed)].argmax(1)
    share = same[np.arange(len(same)), nearest].mean()
    chance = ((same.sum(1) - 1) / (len(same) - 1)).mean()
    print(f"\nAmong {len(listed)} words in {len(KINDS)} kinds, from names to feelings, {share:.0%} "
          f"are nearest to one of their\nown kind. By chance it would be {chance:.0%}.")
    return share, chance


def tell_positions(rng, T=16, C=32):
    """Dot products of two vectors at all positions; their largest change if both move by five."""
    q, k, learned = rng.standard_normal(C), rng.standard_normal(C), rng.standard_normal((T, C))
    turn = lambda x: rotary(Tensor(np.tile(x, (1, T, 1, 1))), rotations(0, T, C)).data[0, :, 0]
    schemes = {"sinusoidal": (q + sinusoids(T, C), k + sinusoids(T, C)),
               "learned, at first": (q + learned, k + learned), "rotary": (turn(q), turn(k))}
    products = {name: at_t @ at_s.T for name, (at_t, at_s) in schemes.items()}      # (T, T)
    print("\nDot products of a vector q at position t, the row, with k at s, the column; blank for "
          "the lowest,\n@ for the highest. Rotary: one value on each diagonal, one t - s.")
    print("  ".join(f"{name:{2 * T}}" for name in products).rstrip())
    for lines in zip(*(heat_map(table, table.min(), table.max()) for table in products.values())):
        print("  ".join(lines).rstrip())
    print(f"\n{'Both moved on by five':29}(t, s) = (5, 2)    at (10, 7)   largest change")
    moved = {}
    for name, table in products.items():
        moved[name] = np.abs(table[5:, 5:] - table[:-5, :-5]).max()
        print(f"  {name:26} {table[5, 2]:15.4f} {table[10, 7]:13.4f} {moved[name]:16.2g}")
    assert moved["rotary"] < 1e-6
    return moved


def main(data="", merges=500, words=1500, channels=64, steps=1500, lr=0.02, seed=0):
    """Cut a text into tokens, turn tokens into vectors, and give the vectors positions.

    data: a UTF-8 text; empty for tiny Shakespeare, from data/ or downloaded
    merges: of byte-pair encoding
    words: that get vectors, the most frequent ones
    channels: numbers in a word's vector
    steps: of the training of word vectors
    lr: highest learning rate
    seed: of all that is random

    Returns a dict: tokens ({name: (vocabulary, characters per token)}), gradient_error by
    name, same_kind (share of words nearest to one of their kind; nan for other texts),
    chance, moved (largest change of a dot product if both vectors move, by kind of position).
    """
    for name, value in dict(words=words, channels=channels, steps=steps).items():
        refuse(not 0 < value <= 10 ** 5, f"--{name} must be between 1 and 100000")
    refuse(not 0 <= merges <= 4000, "--merges must be between 0 and 4000")
    refuse(not 0 < lr < math.inf, "--lr must be positive")
    refuse(seed < 0, "--seed must be 0 or more")
    name, text = read_text(data)
    refuse(len(text) < 1000, f"{name} has {len(text)} characters, fewer than 1000")
    rng = np.random.default_rng(seed)
    print(f"Text: {name}, {len(text):,} characters, {len(set(text))} different\n")
    tokens = tell_tokens(rng, text, merges)
    error = tell_embedding(rng)
    same_kind, chance = tell_words(rng, text, words, channels, steps, lr)
    moved = tell_positions(rng)
    return {"tokens": tokens, "gradient_error": error, "same_kind": same_kind, "chance": chance,
            "moved": moved}


if __name__ == "__main__":
    command_line(main)
