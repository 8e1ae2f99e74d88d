"""08  Embeddings: how text becomes numbers.

A network calculates with numbers. Images are numbers already (07), but a text
consists of characters. Two steps turn it into numbers.

    to  be  or  not  to  be      first, cut the text into pieces, the tokens, and
     0   1   2    3   0   1      number them: equal tokens get equal ids
    row 0, row 1, row 2, ...     then let each id pick a row of a matrix, the
                                 embedding, whose numbers are learned

The list of all different tokens is the vocabulary; an id is a place in it.

The network of 07 had weights of its own for each pixel, so it knew where a pixel
stands. Attention, in 09, by itself treats all tokens alike, and does not see their
order. So a third step adds a vector for the position in the text; 09 will replace
it by something better.

Run           python 08_embed.py       downloads 1 MB of Shakespeare's plays to data/
Expect        8 s on two cores. 500 byte-pair merges in 2 s; words such as
              "father" and "son" end up side by side
Try           --merges=2000   longer tokens: 2.9 characters instead of 2.3
              --steps=100     word vectors that have learned next to nothing:
                              "father" is nearest to "prove"
              --data=my.txt   your own text
Left out      how GPT-2 splits a text into words before it merges bytes; word
              analogies, such as king - man + woman = queen
Carried from  01: numeric_gradient, relative_error.  02: sigmoid.
              05: topological_order, unbroadcast, as_rows, Tensor, gradient_error,
              as_tensors.
              06: adam, warmup_linear
"""
import argparse, contextlib, gzip, hashlib, http.client, inspect, itertools, os, re, shutil
import sys, time, urllib.request, zlib
from collections import Counter
from pathlib import Path

import numpy as np

# V tokens in the vocabulary, N tokens in a text, or pairs of words in a batch,
# K random words in a batch, T positions, C numbers (also called channels) in a
# vector; ids (N,) are integers below V, and W is (V, C).


# ---- new here: tokens are characters, words, or byte pairs ----------------------------------
# The simplest tokens are characters: a small vocabulary, but a long sequence.

def encode(text, characters):
    """The ids of text's characters in the vocabulary `characters`; unknown ones are skipped."""
    ids = {character: i for i, character in enumerate(characters)}
    return np.fromiter((ids[character] for character in text if character in ids), np.int32)


# Words make short sequences. But there are very many of them, and a new word
# has no id.

def split_words(text):
    """The words of text, each with the space before it, and single other characters.

    "I do, don't I?" becomes ["I", " do", ",", " don't", " I", "?"].
    """
    return re.findall(r" ?\w+(?:'\w+)*|\W", text)


# Byte-pair encoding (Gage 1994, Sennrich 2016; on bytes, Radford 2019) finds
# tokens of a length between characters and words. A computer stores each
# character as one to four bytes, numbers from 0 to 255 (UTF-8), so bytes can
# write every text. Begin with these 256 tokens. Then, again and again, find
# the pair of neighbours that is most frequent, and turn it into one new token:
#     l o w   l o w e r   ->   lo w   lo w e r   ->   low   low e r
# We keep the ids of a text as a string, with the character chr(i) for the id
# i. Then a merge is one call of str.replace. It goes from left to right, so
# that "aaa" becomes the pair "aa" and a single "a".

def to_ids(text):
    """The bytes of text as a string: chr(b) for each byte b, which is what Latin-1 does."""
    return text.encode("utf-8").decode("latin-1")


def count_pairs(ids, V):
    """How often id a is followed by id b, in row a and column b of a table (V, V).

    For "abab" row a has a 2 in column b, and row b a 1 in column a.
    """
    # The next line is a fast form of np.array([ord(character) for character in
    # ids]), because UTF-32 stores each character as an integer of four bytes.
    codes = np.frombuffer(ids.encode("utf-32-le", "surrogatepass"), np.uint32).astype(int)
    pairs = codes[:-1] * V + codes[1:]  # a number of its own for each pair a, b
    return np.bincount(pairs, minlength=V * V).reshape(V, V)  # counts each number


def learn_merges(text, count):
    """Byte-pair encoding: up to `count` merges (a, b, times) and all tokens.

    Merge i turned the ids a and b, which stood side by side `times` times,
    into the id 256 + i. tokens[id] are the bytes of an id. It stops early
    when no pair occurs twice.
    """
    ids = to_ids(text)
    tokens = [bytes([i]) for i in range(256)]
    merges = []
    for new in range(256, 256 + count):
        table = count_pairs(ids, new)
        # A token must not go on past a space into the next word, as in
        # " of the": the same word would be hidden in many different tokens. So
        # skip pairs whose second token begins with white space. argmax numbers
        # the entries row by row, (a, b) as a * new + b.
        table[:, [token[:1].isspace() for token in tokens]] = 0
        a, b = divmod(int(table.argmax()), new)
        if table[a, b] < 2:
            break
        ids = ids.replace(chr(a) + chr(b), chr(new))
        tokens.append(tokens[a] + tokens[b])
        merges.append((a, b, int(table[a, b])))
    return merges, tokens


def encode_bytes(text, merges):
    """The ids of text: its bytes, merged in the order in which the merges were learned.

    With merges of l o and lo w, "low lower" becomes [257, 32, 257, 101, 114].
    """
    ids = to_ids(text)
    for new, (a, b, _) in enumerate(merges, 256):
        ids = ids.replace(chr(a) + chr(b), chr(new))
    return [ord(character) for character in ids]


def decode_bytes(ids, tokens):
    """The text of ids; bytes that make no character become the replacement character U+FFFD."""
    return b"".join(tokens[i] for i in ids).decode(errors="replace")


# ---- new here: embedding --------------------------------------------------------------------
# A matrix W (V, C) has a row of C numbers for each token, and a token's id
# picks its row. That can be written as a product of matrices. Let row n of
# onehot (N, V) be 1 in the column of the nth id, and 0 elsewhere; then onehot
# @ W holds the N picked rows. Let g be their gradient. As for any product, the
# gradient of W is dW = onehot.T @ g (rule 2 of 04). So a token that occurs
# twice in the text gets the sum of two rows of g. W[ids] of 05 has the same
# gradient, by np.add.at. This product is faster for the 65 characters of 11,
# but slower for 1,500 words, so the word vectors below use W[ids].

def embedding(W, ids):
    """The rows of W (V, C) that ids (...) pick: onehot @ W, of shape (..., C)."""
    def vjp(g):
        onehot = ids.ravel() == np.arange(len(W.data))[:, None]  # (V, N), transposed
        return (onehot.astype(g.dtype) @ as_rows(g),)         # (V, N) @ (N, C)
    return Tensor(W.data[ids], (W,), vjp)


# ---- new here: word vectors -----------------------------------------------------------------
# What can such rows learn? Train them to tell which words stand near each
# other: here, at most two words apart in a text without its rare words. Words
# that have the same neighbours ("my father", "my mother") must then give the
# same answers, and so their vectors become similar: "You shall know a word by
# the company it keeps" (Firth 1957).
#
# Each word has two vectors: v for the word itself, and u for the word as a
# neighbour of others. For a pair of words, take v of the one and u of the
# other. Let z = sum of v * u be their dot product, and read sigmoid(z) as the
# probability that the two stand together. (With one vector, z of a word and
# itself would be a sum of squares, so never negative, although a word seldom
# stands near itself.) The probability should be near 1 for a pair from the
# text. That alone would be easy: make all vectors alike and long. So it should
# also be near 0 for v and a random word, which is seldom a neighbour. Call the
# random word's neighbour vector n; then z is the sum of v * n. There are 5
# random words for each pair, so the loss of a pair has six terms, each like
# that of 02:
#     the neighbour        -ln sigmoid(z)       = ln(1 + e^-z)   slope sigmoid(z) - 1
#     5 random words       -ln(1 - sigmoid(z))  = ln(1 + e^z)    slope sigmoid(z)
# At first all z are near 0, each term near ln 2, and the loss near
# 6 ln 2 = 4.16.
#
# From the slope dz, a pair gets dv = dz * u and du = dz * v. To save time, K
# random words are drawn for each step, and all N pairs use them: the mean of
# these K terms, times 5, stands for the 5. With v (N, C) and n (K, C),
# z = v @ n.T (N, K) is a layer with the weights n.T. So rule 4 of 04 gives
# dv = dz @ n, and rule 2 gives v.T @ dz, the gradient of n.T. Transposed, it
# is that of n:
#     dn = dz.T @ v

def skip_gram(v, u, n, weight=5):
    """The mean loss of words v (N, C) and their neighbours u (N, C) against random words n (K, C).

    Skip-gram with negative sampling (Mikolov 2013). Instead of 5 random words
    for each pair, all pairs share K of them, whose mean counts 5 times.
    """
    positive = (v.data * u.data).sum(1, keepdims=True)                 # (N, 1)
    negative = v.data @ n.data.T                                       # (N, K)
    loss = np.logaddexp(0, -positive).mean() + weight * np.logaddexp(0, negative).mean()

    def vjp(g):
        dpositive = (sigmoid(positive) - 1) * (g / positive.size)  # a mean divides by size
        dnegative = sigmoid(negative) * (g * weight / negative.size)
        dv = dpositive * u.data + dnegative @ n.data
        return dv, dpositive * v.data, dnegative.T @ v.data
    return Tensor(loss, (v, u, n), vjp)


def train_word_vectors(rng, ids, V, C, steps, lr, reach=2, batch=1000, negatives=100):
    """Train W (V, C) on the ids of words: each step takes `batch` pairs, at most `reach` apart.

    negatives is the number K of random words in a step. They are drawn in
    proportion to their frequency^0.75, so that rare ones come up a little more
    often (Mikolov 2013).
    """
    weights = {name: 0.1 * rng.standard_normal((V, C), np.float32)
               for name in ("word", "neighbour")}
    states = {name: {} for name in weights}
    frequency = np.bincount(ids, minlength=V) ** 0.75
    frequency /= frequency.sum()
    print("  step     loss")
    for step in range(1, steps + 1):
        places = rng.integers(reach, len(ids) - reach, batch)
        neighbours = places + rng.integers(1, reach + 1, batch) * rng.choice([-1, 1], batch)
        random_words = rng.choice(V, negatives, p=frequency)
        params = as_tensors(weights)
        loss = skip_gram(params["word"][ids[places]], params["neighbour"][ids[neighbours]],
                         params["neighbour"][random_words])
        loss.backward()
        for name, w in weights.items():
            adam(w, params[name].grad, states[name], lr * warmup_linear(step, steps))
        if step == 1 or step % max(1, steps // 5) == 0:
            print(f"{step:6} {loss.data:8.4f}", flush=True)
    return weights["word"]         # the neighbour vectors have done their work


def similarity(W):
    """The dot products of any two rows of W, scaled to length 1: (V, V).

    They are the cosines of the angles between the rows: 1 if two rows have the
    same direction, and 0 if they are perpendicular.
    """
    rows = W / np.linalg.norm(W, axis=1, keepdims=True)
    return rows @ rows.T


# ---- new here: positions --------------------------------------------------------------------
# "Dog bites man" is not "man bites dog": the network must know where a token
# stands. So add a vector for its position t to the token's vector. (The sum
# mixes the two. But among many channels there is room for both: if all token
# vectors are perpendicular to all position vectors, a matrix can pick out
# either part.) GPT-2 learns one such vector for each position, as it learns W.
# The first transformer (10; Vaswani 2017) had a formula instead: a row of
# C / 2 clock hands. Hand j turns by the angle w_j from one position to the
# next, the first one fast, each following one more slowly. The vector holds
# sin(t w_j) and cos(t w_j), the coordinates of the tips of all hands at
# position t. Tokens will be compared by dot products (09). For the vectors of
# two positions t and s the dot product is the sum, over all hands, of
#     sin(t w) sin(s w) + cos(t w) cos(s w) = cos((t - s) w)
# the formula for the cosine of a difference. It depends on t - s only.

def sinusoids(T, C, base=10000.0):
    """The vectors (T, C) of positions 0 to T - 1, with w_j = base^(-2j/C)."""
    angle = np.arange(T)[:, None] * base ** (-np.arange(0, C, 2) / C)  # (T, C/2)
    return np.stack([np.sin(angle), np.cos(angle)], 2).reshape(T, C)  # sin, cos, sin, ...


def heat_map(values, low, high, shades=" .:-=+*#%@"):
    """A matrix as lines of text, two characters for an entry, from blank (low) to @ (high)."""
    levels = (np.clip((values - low) / (high - low), 0, 1) * (len(shades) - 1)).round().astype(int)
    return ["".join(2 * shades[level] for level in row) for row in levels]


# ---- the experiment -------------------------------------------------------------------------

def show_merges(text, count):
    """Learn byte-pair merges from the text, and print some of them."""
    start = time.perf_counter()
    merges, tokens = learn_merges(text, count)
    print(f"Byte-pair encoding: {len(merges)} merges from {len(text):,} characters in "
          f"{time.perf_counter() - start:.1f} s, for example\n   ids           id   times")
    for i, (a, b, times) in enumerate(merges):
        if i < 5 or (i + 1) % 50 == 0:
            first, second, both = [repr(tokens[token].decode(errors="replace"))
                                   for token in (a, b, 256 + i)]
            print(f"  {a:4} {b:4} -> {256 + i:4} {times:7}   {first} + {second} = {both}")
    return merges, tokens


def compare_tokens(text, count):
    """Learn tokens from nine tenths of the text; {name: (V, characters per token in the rest)}."""
    learned = text[:len(text) * 9 // 10]
    rest = text[len(learned):]
    merges, tokens = show_merges(learned, count)
    words = set(split_words(learned))
    pieces = split_words(rest)
    characters = sorted(set(learned))
    lengths = {"characters": (len(characters), len(rest) / len(encode(rest, characters))),
               "words": (len(words), len(rest) / len(pieces))}
    for n in sorted({0, len(merges) // 4, len(merges) // 2, len(merges)}):
        lengths[f"bytes, {n} merges"] = 256 + n, len(rest) / len(encode_bytes(rest, merges[:n]))
    print("\ntokens              vocabulary   characters per token, in the last tenth of the text")
    for name, (V, length) in sorted(lengths.items(), key=lambda item: item[1]):
        print(f"{name:18} {V:11,} {length:11.2f}")
    unknown = np.mean([piece not in words for piece in pieces])
    print("A network that looks back over T tokens sees more text if they are longer. But\n"
          "then the matrix W has more rows, and each is trained less often. A vocabulary of\n"
          f"words lacks {unknown:.1%} of what stands in the last tenth; bytes can write all.\n"
          "A line in words, and in byte pairs:")
    line = next((line for line in rest.splitlines() if 40 < len(line) < 60), rest[:50])
    print("  " + "|".join(split_words(line)))
    print("  " + "|".join(decode_bytes([i], tokens) for i in encode_bytes(line, merges)))
    return lengths


def show_embedding(rng):
    """Show that picking rows is a product; relative errors of the new gradients, by name."""
    words = "to be or not to be".split()
    vocabulary = list(dict.fromkeys(words))     # each word once, in this order
    ids = np.array([vocabulary.index(word) for word in words])
    W = rng.standard_normal((4, 3))
    onehot = np.eye(4)[ids]                             # (6, 4)
    same = "is" if np.array_equal(onehot @ W, W[ids]) else "is not"
    tensor = Tensor(np.zeros((4, 1)))      # one column is enough to count with
    embedding(tensor, ids).sum().backward()       # each of the six rows gets 1
    naive = np.zeros((4, 1))
    naive[ids] += np.ones((6, 1))
    print(f"""
"to be or not to be" has the ids {ids}, and onehot @ W {same} W[ids], to the last bit.
If the gradient of each of the six rows is 1, then dW for {", ".join(vocabulary)} is
  {tensor.grad.ravel()}  by onehot.T @ g
  {naive.ravel()}  by dW[ids] += g, which is wrong: of repeated ids only the last one counts""")
    errors = {"embedding": gradient_error(rng, lambda W: embedding(W, ids), W),
              "skip_gram": gradient_error(rng, skip_gram, *rng.standard_normal((3, 4, 3)))}
    print("Gradients against measured slopes, relative errors: "
          + ", ".join(f"{name} {error:.0e}" for name, error in errors.items()))
    assert all(error < 1e-6 for error in errors.values())
    return errors


def frequent_words(text, V):
    """The V most frequent words, in lower case, and the text as their ids, others left out."""
    words = re.findall(r"[^\W\d_]+(?:'[^\W\d_]+)*", text.lower())  # letters, also with ' inside
    vocabulary = [word for word, _ in Counter(words).most_common(V)]
    word_to_id = {word: i for i, word in enumerate(vocabulary)}
    return vocabulary, np.array([word_to_id[word] for word in words if word in word_to_id])


SHOWN = "thou my king father romeo edward eyes night will two rome love".split()


def show_words(rng, text, V, C, steps, lr):
    """Train word vectors, and show the nearest words of some; returns those, by word."""
    vocabulary, ids = frequent_words(text, V)
    if len(ids) < 1000:
        print(f"\nnote: {len(ids)} words are too few for word vectors")
        return {}
    print(f"\nVectors of {C} numbers for the {len(vocabulary):,} most frequent words, from "
          f"{len(ids):,} occurrences")
    with np.errstate(all="ignore"):        # a training that diverges overflows
        W = train_word_vectors(rng, ids, len(vocabulary), C, steps, lr)
    if not np.abs(W).max() < 1e6:               # also true for nan
        sys.exit("error: the training of word vectors diverges: lower --lr")
    cosines = similarity(W)
    shown = [word for word in SHOWN if word in vocabulary]
    if len(shown) < len(SHOWN):             # another text, perhaps not English
        shown = vocabulary[::max(1, len(vocabulary) // 12)]
    print("\nword        nearest words, by the angle between the vectors")
    nearest = {}
    for word in shown:
        order = np.argsort(-cosines[vocabulary.index(word)])
        nearest[word] = [vocabulary[i] for i in order if vocabulary[i] != word][:6]
        print(f"{word:11} {' '.join(nearest[word])}")
    return nearest


def show_positions(rng, T=16, C=32):
    """Show dot products of position vectors; how much they change if t and s grow by 5, by name."""
    schemes = {"sinusoidal": sinusoids(T, C),
               "random, not yet learned": rng.standard_normal((T, C))}
    tables = {name: p @ p.T for name, p in schemes.items()}            # (T, T)
    print("\nDot products of the vectors for positions t (rows) and s (columns), from low\n"
          "(blank) to high (@). With sinusoids only the distance t - s counts, so each diagonal\n"
          "has one shade.")
    print("  ".join(f"{name:{2 * T}}" for name in tables).rstrip())
    for lines in zip(*(heat_map(table, table.min(), table.max()) for table in tables.values())):
        print("  ".join(lines).rstrip())
    changes = {name: np.abs(table[5:, 5:] - table[:-5, :-5]).max()
               for name, table in tables.items()}
    print("If t and s both move on by five, these products change by at most "
          + " and ".join(f"{change:.0e}" for change in changes.values()) + ".")
    print("But the vectors p_t are added to those of words. For words with the vectors a and b\n"
          "the dot product of a + p_t and b + p_s has the terms a @ p_s and p_t @ b, too, which\n"
          "depend on s and t themselves. 09 finds a way out.")
    return changes


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
    "nearest": the nearest words of some words, "changes" of dot products by kind of position}.
    """
    name, text = read_text(data)
    if len(text) < 1000:
        sys.exit(f"error: {name} has {len(text)} characters, fewer than 1000")
    rng = np.random.default_rng(seed)
    print(f"Text: {name}, {len(text):,} characters, {len(set(text))} different\n")
    return {"tokens": compare_tokens(text, merges),
            "gradient_error": show_embedding(rng),
            "nearest": show_words(rng, text, words, channels, steps, lr),
            "changes": show_positions(rng)}


# ---- carried from 01, 02, 05 and 06, code unchanged: explained there ------------------------

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

    def __mul__(self, other):
        other = self.as_tensor(other)
        a, b = self.data, other.data

        def vjp(g):
            return unbroadcast(g * b, a.shape), unbroadcast(g * a, b.shape)
        return Tensor(a * b, (self, other), vjp)

    def sum(self, axis=None, keepdims=False):
        a = self.data
        y = a.sum(axis, keepdims=True)  # summed axes stay as 1, so g fits a again
        return Tensor(y if keepdims else y.squeeze(axis), (self,),
                      lambda g: (np.ones_like(a) * g.reshape(y.shape),))

    def __getitem__(self, index):
        def vjp(g):
            da = np.zeros_like(self.data)
            np.add.at(da, index, g)
            return (da,)
        return Tensor(self.data[index], (self,), vjp)


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


# ---- plumbing, the same wherever it stands: nothing about neural networks -------------------

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
    command_line(main, may_be_zero=("merges",))
