"""08  Embeddings: how text becomes numbers.

A network multiplies numbers, and a text has none. Three steps lead from one to
the other. A tokenizer cuts the text into pieces, the tokens, and numbers them:
each gets an id, its place in the vocabulary. An embedding gives each id a row of
numbers, a vector, that training can change. And because attention (09) ignores
order apart from its mask, a vector can also encode its position in the text.

    "to be or not to be" -> the ids 0 1 2 3 0 1 -> six rows of a matrix

A GPT (11) learns its embedding together with all its other weights. Word
vectors, trained here by themselves, show in seconds what such rows can learn.

Run           python 08_embed.py
Expect        16 to 24 s on two cores; 500 merges in some 2 s; 7 of 10 listed
              words have a word of their own kind as the nearest one
Try           --data=my.txt   your own text
Left out      the regular expression by which GPT-2 cuts a text before it merges;
              word analogies
Carried from  01: numeric_gradient, relative_error.  02: sigmoid.
              05: topological_order, unbroadcast, as_rows, Tensor, gradient_error,
              as_tensors.
              06: adam, warmup_linear
"""
import argparse, contextlib, gzip, hashlib, http.client, inspect, itertools, math, os, re, shutil
import sys, time, urllib.request, zlib
from collections import Counter
from pathlib import Path

import numpy as np

# V vocabulary, N tokens, C channels (numbers in a vector); ids (N,) integers
# below V, W (V, C) T positions


# ---- new here: tokens -------------------------------------------------------------------------
# Tokens can be characters (a small vocabulary, long sequences) or words (a
# large vocabulary, and new words have no id). Byte-pair encoding finds pieces
# between them: it begins with the 256 bytes, and again and again turns the
# most frequent pair of neighbours into one new token.

def encode(text, characters):
    """The ids of text's characters in the vocabulary `characters`; unknown ones are skipped."""
    ids = {character: i for i, character in enumerate(characters)}
    return np.fromiter((ids[character] for character in text if character in ids), np.int32)


def split_words(text):
    """The words of text, each with the space before it, and single other characters."""
    return re.findall(r" ?\w+(?:'\w+)*|\W", text)


def to_bytes(text):
    """The text in UTF-8, as ids from 0 to 255: a character takes one to four of them."""
    return np.array(list(text.encode()), np.int64)


def merge(ids, a, b, new):
    """ids with the one id new in place of every pair a, b."""
    hits = np.flatnonzero((ids[:-1] == a) & (ids[1:] == b))
    if a == b:          # in a run of a the pairs overlap: take every other one
        start = np.where(np.diff(hits, prepend=-2) > 1, hits, 0)
        start = np.maximum.accumulate(start)             # where the run begins
        hits = hits[(hits - start) % 2 == 0]
    ids = ids.copy()
    ids[hits] = new
    return np.delete(ids, hits + 1)


def learn_merges(text, count):
    """Byte-pair encoding (Gage 1994, Sennrich 2016); returns pairs and tokens.

    Merge i turns the two ids pairs[i] into the id 256 + i; tokens[id] are the
    bytes of an id. There are fewer than count merges if no pair occurs twice
    any more.
    """
    ids, pairs, tokens = to_bytes(text), [], [bytes([i]) for i in range(256)]
    for new in range(256, 256 + count):
        # All ids are below new, so each pair a, b has a number of its own: a *
        # new + b.
        table = np.bincount(ids[:-1] * new + ids[1:], minlength=new * new).reshape(new, new)
        # A token may begin with white space, but has none later: none spans
        # two words.
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
    ids = to_bytes(text)
    for new, (a, b) in enumerate(pairs, 256):
        ids = merge(ids, a, b, new)
    return ids


def decode_bytes(ids, tokens):
    """The text of ids. Bytes that are not UTF-8, as a net may write, become U+FFFD."""
    return b"".join(tokens[i] for i in ids).decode(errors="replace")


# ---- new here: embedding ----------------------------------------------------------------------
# A matrix W (V, C) has a row of C numbers for each token, and a token's id
# picks its row. This is a matrix product: let row n of onehot (N, V) be 1 in
# the column of the nth id, and 0 elsewhere; then onehot W holds the N rows.
# With g for their gradient, dW = onehot^T g, by rule 2 of 04 (the gradient of
# a weight matrix is its input transposed times the gradient of its result). So
# the row of a token that occurs twice gets the sum of two gradients.

def embedding(W, ids):
    """The rows of W (V, C) that ids (...) pick: onehot @ W, of shape (..., C).

    Tensor.__getitem__ of 05 has the same gradient; for a small V a product is
    faster.
    """
    def vjp(g):
        onehot = ids.ravel() == np.arange(len(W.data))[:, None]  # (V, N), transposed
        return (onehot.astype(g.dtype) @ as_rows(g),)         # (V, N) @ (N, C)
    return Tensor(W.data[ids], (W,), vjp)


# ---- new here: word vectors -------------------------------------------------------------------
# Words in similar contexts have similar meanings (Firth 1957). So train
# vectors to predict the neighbours of a word. Each word has two: v as itself,
# u as a neighbour. sigmoid(v u), of their dot product, should be near 1 for a
# pair from the text, and near 0 for v and n, the u of a random word:
#     loss = -ln sigmoid(v u) - 5 times the mean over n of ln(1 - sigmoid(v n))
# With z = v u, the first term is ln(1 + e^-z), which has the derivative -e^-z
# / (1 + e^-z), that is sigmoid(z) - 1. The second, with z = v n, is ln(1 +
# e^z), as 1 - sigmoid(z) = sigmoid(-z), and has the derivative sigmoid(z).
# With all z at 0 the loss is 6 ln 2 = 4.16.

def skip_gram(v, u, n, weight=5):
    """The mean loss of words v (N, C) and their neighbours u (N, C) against random words n (K, C).

    Skip-gram with negative sampling (Mikolov 2013); here all pairs share the K
    random words, whose mean counts weight times. A softmax over all V words
    would cost V dot products a pair.
    """
    positive = (v.data * u.data).sum(1, keepdims=True)                 # (N, 1)
    negative = v.data @ n.data.T                                       # (N, K)
    loss = np.logaddexp(0, -positive).mean() + weight * np.logaddexp(0, negative).mean()

    def vjp(g):
        dpositive = (sigmoid(positive) - 1) * (g / positive.size)
        dnegative = sigmoid(negative) * (g * weight / negative.size)
        return (dpositive * u.data + dnegative @ n.data, dpositive * v.data,
                dnegative.T @ v.data)
    return Tensor(loss, (v, u, n), vjp)


def train_word_vectors(rng, ids, V, C, steps, lr, reach=2, batch=1000, noise=100):
    """Train W (V, C) on the ids of words; a step takes `batch` random pairs, at most reach apart.

    Returns None if the training diverges.
    """
    weights = {name: rng.standard_normal((V, C), np.float32) * np.float32(0.1)
               for name in ("word", "neighbour")}
    states = {name: {} for name in weights}
    often = np.bincount(ids, minlength=V) ** 0.75  # noise: as in the text, but flatter
    often /= often.sum()
    print("  step     loss")
    for step in range(1, steps + 1):
        at = rng.integers(reach, len(ids) - reach, batch)
        to = at + rng.integers(1, reach + 1, batch) * rng.choice([-1, 1], batch)
        params = as_tensors(weights)
        loss = skip_gram(embedding(params["word"], ids[at]),
                         embedding(params["neighbour"], ids[to]),
                         embedding(params["neighbour"], rng.choice(V, noise, p=often)))
        loss.backward()
        for name, w in weights.items():
            adam(w, params[name].grad, states[name], lr * warmup_linear(step, steps))
        if step == 1 or step % max(1, steps // 5) == 0:
            print(f"{step:6} {loss.data:8.4f}", flush=True)
    W = weights["word"]                      # the other has served its purpose
    return W if np.abs(W).max() < 1e6 else None            # False for nan, too


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


# ---- new here: positions ------------------------------------------------------------------

# Add to each vector a vector for its position t, from a formula or learned
# like W. In the formula w_j falls from 1 to about 1 / base over the pairs j,
# as with clocks that have fast and slow hands.

def sinusoids(T, C, base=10000.0):
    """(T, C): sin(t w_j) and cos(t w_j) in turn, w_j = base^(-2j/C), to be added (Vaswani 2017).

    Their own dot products, sums of cos((t - s) w_j), depend on t - s only;
    those of sums of a word and a position do not.
    """
    angle = np.arange(T)[:, None] * base ** (-np.arange(0, C, 2) / C)
    return np.stack([np.sin(angle), np.cos(angle)], 2).reshape(T, C)


def heat_map(values, low, high, shades=" .:-=+*#%@"):
    """A matrix as lines of text, two characters for an entry, from blank (low) to @ (high)."""
    levels = (np.clip((values - low) / (high - low), 0, 1) * (len(shades) - 1)).round().astype(int)
    return ["".join(2 * shades[level] for level in row) for row in levels]


# ---- the experiment -----------------------------------------------------------------------

def show_tokens(rng, text, count):
    """Learn tokens from nine tenths of the text; {name: (V, characters per token in the rest)}."""
    learned, held = text[:len(text) * 9 // 10], text[len(text) * 9 // 10:]
    print("Byte-pair encoding: some of the merges\n  merge   times")
    start = time.perf_counter()
    pairs, tokens = learn_merges(learned, count)
    print(f"{len(pairs)} merges from {len(learned):,} characters in "
          f"{time.perf_counter() - start:.1f} s")
    codes = rng.integers(0xd800, size=(100, 20))  # any characters up to 0xd7ff
    for strange in ("".join(map(chr, code)) for code in codes):
        assert decode_bytes(encode_bytes(strange, pairs), tokens) == strange

    characters, words, pieces = sorted(set(learned)), set(split_words(learned)), split_words(held)
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
    print("  " + "|".join(split_words(line)))
    print("  " + "|".join(decode_bytes([i], tokens) for i in encode_bytes(line, pairs)))
    return lengths


def show_embedding(rng):
    """W[ids] and its gradient are matrix products; relative errors of all gradients, by name."""
    words = "to be or not to be".split()
    word_to_id = {word: i for i, word in enumerate(dict.fromkeys(words))}
    ids = np.array([word_to_id[word] for word in words])
    W, onehot = rng.standard_normal((4, 3)), np.eye(4)[ids]
    assert np.array_equal(onehot @ W, W[ids])
    errors = {"embedding": gradient_error(rng, lambda W: embedding(W, ids), W),
              "skip_gram": gradient_error(rng, skip_gram, *rng.standard_normal((3, 4, 3)))}
    assert np.max(list(errors.values())) < 1e-6  # Python's max would lose a nan
    right = Tensor(np.zeros((4, 1)))
    embedding(right, ids).sum().backward()  # with a gradient of 1 for each word
    naive = np.zeros((4, 1))
    naive[ids] += np.ones((6, 1))
    assert right.grad.ravel().tolist() == [2, 2, 1, 1]
    print(f"""
"to be or not to be" has the ids {ids}. W[ids] is onehot W, to the last bit.
With a gradient of 1 for each of the six words, dW for to, be, or, not is
  {right.grad.ravel()}  onehot^T g
  {naive.ravel()}  dW[ids] += g: with repeated ids this keeps only the last addition
Gradients against central differences, relative errors:""")
    print("  " + "   ".join(f"{name} {error:.0e}" for name, error in errors.items()))
    return errors


def frequent_words(text, V):
    """The V most frequent words in lower case, and the ids of all that are among them."""
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text.lower())  # letters only
    vocabulary = [word for word, _ in Counter(words).most_common(V)]
    word_to_id = {word: i for i, word in enumerate(vocabulary)}
    return word_to_id, np.array([word_to_id[word] for word in words if word in word_to_id])


def show_neighbours(cosines, word_to_id, words):
    """Print the six words nearest to each of some words."""
    vocabulary = list(word_to_id)
    print("\nword        nearest words, by the angle between vectors")
    for word in words:
        nearest = np.argsort(-cosines[word_to_id[word]])[:6]
        print(f"{word:11} {' '.join(vocabulary[i] for i in nearest)}")


def same_kind(cosines, word_to_id):
    """The fraction of the listed words nearest to one of their own kind, and that by chance."""
    kind = {word: kind for kind in KINDS for word in KINDS[kind].split() if word in word_to_id}
    listed = [word_to_id[word] for word in kind]
    kinds = np.array(list(kind.values()))
    same = kinds == kinds[:, None]
    nearest = cosines[np.ix_(listed, listed)].argmax(1)
    fraction = same[np.arange(len(same)), nearest].mean()
    chance = ((same.sum(1) - 1) / (len(same) - 1)).mean()
    print(f"\nAmong {len(listed)} words in {len(KINDS)} kinds, from names to feelings, "
          f"{fraction:.0%} are nearest to one of their\nown kind. By chance it would be "
          f"{chance:.0%}.")
    return fraction, chance


def show_words(rng, text, V, C, steps, lr):
    """Train word vectors and show neighbours; results of same_kind, nan if there are none."""
    word_to_id, ids = frequent_words(text, V)
    if len(ids) < 1000:
        print(f"\nnote: {len(ids)} words are too few for word vectors")
        return math.nan, math.nan
    print(f"\nVectors of {C} numbers for the {len(word_to_id):,} most frequent words, from "
          f"{len(ids):,} occurrences")
    with np.errstate(all="ignore"):           # divergence shows in the weights
        W = train_word_vectors(rng, ids, len(word_to_id), C, steps, lr)
    if W is None:
        print("\nnote: the training of word vectors diverges: lower --lr")
        return math.nan, math.nan
    cosines = similarity(W)
    np.fill_diagonal(cosines, -1)
    if not all(word in word_to_id for word in SHOWN):  # another text, perhaps not English
        show_neighbours(cosines, word_to_id, list(word_to_id)[::max(1, len(word_to_id) // 12)])
        return math.nan, math.nan
    show_neighbours(cosines, word_to_id, SHOWN)
    return same_kind(cosines, word_to_id)


def show_positions(rng, T=16, C=32):
    """Dot products of two vectors at all positions; their largest change if both move by five."""
    q, k, learned = rng.standard_normal(C), rng.standard_normal(C), rng.standard_normal((T, C))
    schemes = {"sinusoidal": sinusoids(T, C), "learned, at first": learned}
    products = {name: (q + at) @ (k + at).T for name, at in schemes.items()}  # (T, T)
    print("\nDot products of a vector q at position t, the row, with k at s, the column; blank for "
          "the lowest,\n@ for the highest.")
    print("  ".join(f"{name:{2 * T}}" for name in products).rstrip())
    for lines in zip(*(heat_map(table, table.min(), table.max()) for table in products.values())):
        print("  ".join(lines).rstrip())
    print(f"\n{'Both moved on by five':29}(t, s) = (5, 2)    at (10, 7)   largest change")
    moved = {}
    for name, table in products.items():
        moved[name] = np.abs(table[5:, 5:] - table[:-5, :-5]).max()
        print(f"  {name:26} {table[5, 2]:15.4f} {table[10, 7]:13.4f} {moved[name]:16.2g}")
    print("With neither does the product depend on the distance t - s alone. With rotary\n"
          "positions (09) it does.")
    return moved


def main(data="", merges=500, words=1500, channels=64, steps=1500, lr=0.02, seed=0):
    """Cut a text into tokens, turn tokens into vectors, and give the vectors positions.

    data      a UTF-8 text file; without one, tiny Shakespeare
    merges    number of byte-pair merges
    words     number of words that get vectors, the most frequent ones
    channels  length of a word vector
    steps     training steps of the word vectors
    lr        highest learning rate
    seed      random seed

    Returns {"tokens": {name: (vocabulary size, characters per token)}, "gradient_error" by name,
    "same_kind": fraction of words nearest to one of their kind, nan for other texts, "chance",
    "moved": largest change of a dot product if both vectors move, by kind of position}.
    """
    name, text = read_text(data)
    if len(text) < 1000:
        sys.exit(f"error: {name} has {len(text)} characters, fewer than 1000")
    rng = np.random.default_rng(seed)
    print(f"Text: {name}, {len(text):,} characters, {len(set(text))} different\n")
    tokens = show_tokens(rng, text, merges)
    error = show_embedding(rng)
    fraction, chance = show_words(rng, text, words, channels, steps, lr)
    moved = show_positions(rng)
    return {"tokens": tokens, "gradient_error": error, "same_kind": fraction, "chance": chance,
            "moved": moved}


# ---- carried from 01, 02, 05 and 06, code unchanged: explained there ------------------------

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


def sigmoid(x):
    """1 / (1 + e^-x), computed through tanh, which cannot overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


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

    def __mul__(self, other):
        other = self.as_tensor(other)
        a, b = self.data, other.data

        def vjp(g):
            return unbroadcast(g * b, a.shape), unbroadcast(g * a, b.shape)
        return Tensor(a * b, (self, other), vjp)

    def sum(self, axis=None, keepdims=False):
        a = self.data
        y = a.sum(axis, keepdims=True)
        return Tensor(y if keepdims else y.squeeze(axis), (self,),
                      lambda g: (np.ones_like(a) * g.reshape(y.shape),))


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


def warmup_linear(step, steps, warmup=20):
    """The factor of the learning rate in step 1 .. steps: a linear rise, then a linear fall."""
    return min(step / warmup, 1, (steps + 1 - step) / max(1, steps + 1 - warmup))


# ---- plumbing, the same in every file: nothing about neural networks ------------------------

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
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # who read our output has left: be silent


# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy"]
# ///

if __name__ == "__main__":
    command_line(main, may_be_zero=("merges",))
