"""09  Attention: looking things up by content.

Given   a3 m7 t1 M?   the answer is 7: the position that asks, M?, must find the
position that holds m, and read its digit. The layers of 04, applied to one
position, see nothing of the others. Attention lets each position read from them.
It is like a dictionary whose keys need not match exactly. What is looked up, the
query, is compared with every key. The result is a mean of the values, weighted by
how well their keys match. The weights have gradients, so matching can be learned.
The rows of Q, K and V, of D numbers each, are the queries, keys and values:

    S = Q @ K.T / sqrt(D)     scores: how well does each key match each query?
    A = softmax of each row   attention: never negative, and each row adds up to 1
    Y = A @ V                 each row is a mean of the values, weighted by A

The file also derives rotary positions, which replace the vectors of 08, and RMSNorm,
which keeps queries and keys at one length.

Run           python 09_attention.py
Expect        4 s on two cores. Attention finds 100 % of the answers; a plain mean
              of all positions stays at chance level, 12 % (1 in 8)
Try           --steps=50    half learned, 89 %: look at the heat map
              --pairs=10    longer sequences, 100 % as well; a mean gets 10 %
Left out      several layers, and what it takes to train them (10)
Carried from  01: numeric_gradient, relative_error.  05: topological_order,
              unbroadcast, as_rows, Tensor, cross_entropy, gradient_error,
              as_tensors.  06: adam, warmup_linear.  08: embedding, heat_map
"""
import argparse, inspect, itertools, math, os, string, sys

import numpy as np

# B sequences in a batch, T positions in a sequence, C channels (numbers for a
# position), H heads, D = C / H. In this file K and V are keys and values.


# ---- new here: attention ----------------------------------------------------------------------
# Each position has a vector x of C numbers. Three matrices (C, C), here
# without biases, turn it into three vectors: a query, what the position is
# looking for; a key, what it can be found by; and a value, what it hands over.
#     q = x @ Wq        k = x @ Wk        v = x @ Wv
# The queries of all positions are the rows of Q, and so for K and V. With one
# head D = C; with several heads (below) each has D of the C channels.
#
# Why not compare the vectors x themselves? M? must match m7, although M and m
# are two symbols that have nothing in common. Wq and Wk learn which match.

def attention_weights(Q, K):
    """A (..., Tq, Tk), the softmax of the scores of Q (..., Tq, D) and K (..., Tk, D).

    The queries are those of the last Tq of the Tk positions. By the causal
    mask no query sees the key of a later position.
    """
    # The score S_ij is the dot product of query i and key j, over sqrt(D). The
    # product alone is a sum of D terms. If these are independent, with mean 0
    # and variance 1, the sum has the variance D (07). Dividing by sqrt(D)
    # keeps scores at about 1, however large D is.
    Tq, Tk = Q.shape[-2], K.shape[-2]
    S = (Q / math.sqrt(Q.shape[-1])) @ K.swapaxes(-1, -2)       # (..., Tq, Tk)

    # The causal mask. A GPT (11) learns a text by predicting, at every
    # position, what comes next. So no query may see the keys of later
    # positions: their scores become minus infinity. For T = 3, add to S
    #     0  -inf  -inf
    #     0    0   -inf
    #     0    0     0
    # For recall it makes no difference: only the last position is asked, and
    # it sees all others. With the KV cache, below, there will be fewer queries
    # than keys: Tq < Tk.
    later = np.arange(Tk) > np.arange(Tk - Tq, Tk)[:, None]         # (Tq, Tk)
    S += np.where(later, -np.inf, 0).astype(S.dtype)

    # Softmax (04) of the scores of each query. The scores 0 and ln 3 give
    # A = 1/4 and 3/4, and the result will be 1/4 v_0 + 3/4 v_1. Where the mask
    # put -inf, A = e^-inf = 0.
    S -= S.max(axis=-1, keepdims=True)  # leaves A as it is; e^S cannot overflow
    A = np.exp(S, out=S)                        # in the memory of S
    A /= A.sum(axis=-1, keepdims=True)
    return A


def row_dot(a, b):
    """The dot products of the rows of a and b: (a * b).sum(-1, keepdims=True), but faster."""
    return np.einsum("...i,...i->...", a, b)[..., None]


# Heads. One softmax makes one weighted mean. Several heads make several: each
# of H heads has its own D = C / H channels of the queries, keys and values.
# The H results are put side by side, and are C numbers again.
#
# Backward. As in 04, dY stands for dL/dY. Y = A @ V is a matrix product, so
#     dV = A.T @ dY
#     dA = dY @ V.T
# Softmax, for one row of S and A, with total = e^S_0 + e^S_1 + ...
#     ln A_m = S_m - ln(total)
#     d(ln total)/d(S_j) = e^S_j / total = A_j
#     d(ln A_m)/d(S_j) = [m = j] - A_j               [m = j] is 1 if m = j, else 0
#     d(A_m)/d(S_j) = A_m * ([m = j] - A_j)          as d(ln A)/d(A) = 1 / A
# S_j feeds every A_m of its row, so its gradient is a sum over m:
#     dS_j = sum_m dA_m * A_m * ([m = j] - A_j)
#          = A_j * dA_j - A_j * sum_m A_m * dA_m
#          = A_j * (dA_j - sum_m A_m * dA_m)
# Where the mask made A 0, dS is 0 as well. Last, S = Q @ K.T / sqrt(D):
#     dQ = dS @ K / sqrt(D)
#     dK = dS.T @ Q / sqrt(D)

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


# ---- new here: queries and keys of one length, and with positions -----------------------------
# Dividing by sqrt(D) is right for random vectors. But in training queries and
# keys may still grow, and the scores with them. So divide each query and each
# key by its root mean square. This is called RMSNorm, and of queries and keys
# also QK normalization. Then all have the length sqrt(D). A dot product is at
# most the product of the two lengths, here D, so no score exceeds
# D / sqrt(D) = sqrt(D). For a vector x of D numbers,
#     r = mean(x^2)^(-1/2)        y = r x
#     d(r)/d(x_j) = -1/2 mean(x^2)^(-3/2) * 2 x_j / D = -r^3 x_j / D = -r^2 y_j / D
#     d(y_i)/d(x_j) = r [i = j] + x_i * d(r)/d(x_j) = r * ([i = j] - y_i * y_j / D)
# x_j feeds every y_i, so dx_j = sum_i dy_i * d(y_i)/d(x_j), and for all of
# them
#     dx = r * (dy - y * mean(dy * y))

def rms_norm(x, eps=1e-6):
    """x over its root mean square along the last axis (Zhang 2019); eps avoids a division by 0."""
    n = x.shape[-1]
    r = 1 / np.sqrt(row_dot(x.data, x.data) / n + eps)
    y = x.data * r
    return Tensor(y, (x,), lambda g: (r * (g - y * (row_dot(g, y) / n)),))


# Without a mask, attention does not know the order of the positions: if they
# change places, the results change places with them. Recall does not need the
# order, but a text does. Rotary positions put it into the scores.
#
# Take a query and a key with two numbers each, two arrows (a, b) in the plane.
# Rotated by the angle p, the arrow (a, b) becomes
#     (a cos p - b sin p, a sin p + b cos p)
# Rotate the query at position t by the angle t, and the key at position s by
# the angle s. Their lengths do not change, and the angle between them changes
# by t - s. A dot product is the product of the lengths and the cosine of the
# angle between them. So it depends on t and s only through t - s.
#
# D numbers are D / 2 arrows, like the clock hands of 08. Arrow j is rotated by
# t * w_j, and the whole score, the sum over the arrows, still depends on t - s
# only. The speeds w_j = base^(-2j/D) fall from 1 towards 1 / base. An arrow of
# speed 1 is back after 2 pi = 6.3 positions: fast arrows tell near positions
# apart, slow ones far.
#
# NumPy rotates many arrows at once as complex numbers, a + ib for (a, b). Here
# i is a number with i i = -1, written 1j in Python, and by Euler's formula
# e^(ip) = cos p + i sin p. So a rotation is a product:
#     (a + ib) * e^(ip) = (a + ib) * (cos p + i sin p)
#                       = (a cos p - b sin p) + i (a sin p + b cos p)
# Backward. As a matrix the rotation is [[cos p, -sin p], [sin p, cos p]], and
# the gradient goes through its transpose (04), where the sines have changed
# their sign: the rotation by -p, a product with e^(-ip). This is called the
# complex conjugate of e^(ip).

def rotary(x, start=0, base=1000.0):
    """Rotary positions, from start on, for queries or keys x (B, T, H, D), D even (Su 2021)."""
    T, D = x.shape[1], x.shape[3]
    speed = base ** (-np.arange(0, D, 2) / D)                   # (D/2,)
    angle = np.arange(start, start + T)[:, None, None] * speed  # (T, 1, D/2)
    turn = np.exp(1j * angle)                                   # cos + i sin

    def rotate(vectors, by):
        # A view reads each two neighbouring numbers as one complex number, of
        # the same precision.
        arrows = vectors.view(np.result_type(vectors, np.complex64))
        arrows = arrows * by.astype(arrows.dtype)              # (B, T, H, D/2)
        return arrows.view(vectors.dtype)                       # (B, T, H, D)
    return Tensor(rotate(x.data, turn), (x,), lambda g: (rotate(g, turn.conj()),))


# ---- new here: the self-attention layer -------------------------------------------------------
# In self-attention, queries, keys and values come from the same sequence. So
# far the results of the heads lie in separate channels; a last matrix, out,
# mixes them.
#
# The KV cache. A text is written one position after the other (11). Each new
# position needs the keys and values of all earlier ones. These do not change
# any more, because by the mask no position reads from later ones. So keep
# them, and compute only those of the new position. Queries need not be kept:
# only the new position asks. Training needs no cache: all positions are there
# at once.

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


# ---- new here: recall -------------------------------------------------------------------------
# Each position of a3 m7 t1 M? holds two symbols. Its vector is the sum of two
# embeddings, one for each, so it knows both the letter and the digit. Capital
# letters ask: M? for one digit, MT for two.

SYMBOLS = string.ascii_lowercase + string.digits + string.ascii_uppercase + "?"


def make_batch(rng, B, pairs, questions):
    """ids (B, pairs + 1, 2) of B random sequences, and the answers (B, questions)."""
    # argsort of random numbers is a random permutation: no letter or digit occurs twice.
    letters = rng.random((B, 26)).argsort(axis=1)[:, :pairs]
    digits = rng.random((B, 10)).argsort(axis=1)[:, :pairs]
    asked = rng.random((B, pairs)).argsort(axis=1)[:, :questions]  # which of the pairs
    ids = np.full((B, pairs + 1, 2), SYMBOLS.index("?"))
    ids[:, :-1, 0] = SYMBOLS.index("a") + letters
    ids[:, :-1, 1] = SYMBOLS.index("0") + digits
    ids[:, -1, :questions] = SYMBOLS.index("A") + np.take_along_axis(letters, asked, axis=1)
    return ids, np.take_along_axis(digits, asked, axis=1)


def as_symbols(ids):
    """The positions of one sequence, ids (T, 2), as text: ["a3", "m7", "t1", "M?"]."""
    return [SYMBOLS[first] + SYMBOLS[second] for first, second in ids]


def embed_symbols(params, ids):
    """x (B, T, C) for ids (B, T, 2)."""
    return embedding(params["first"], ids[..., 0]) + embedding(params["second"], ids[..., 1])


# A layer makes y (B, C), from which the answer is read. We compare two such
# layers. One is attention. The other is attention with equal weights, a plain
# mean. It cannot succeed: the sum of a3 and m7 is the same as that of a7 and
# m3.

def attention_layer(x, params, heads):
    """What the last position, the question, has read."""
    return self_attention(x, params, 0, heads)[:, -1]


def mean_layer(x, params, heads):
    """The same with equal attention to all positions: the plain mean of the values."""
    mean = (x @ params["0.value"]).sum(axis=1) * (1 / x.shape[1])   # (B, C)
    return mean @ params["0.out"]


def init_recall(rng, C, questions):
    """The weights by name, for vectors of C numbers."""
    def matrix(n_in, n_out):
        return rng.standard_normal((n_in, n_out), np.float32) / np.float32(math.sqrt(n_in))

    weights = {f"0.{name}": matrix(C, C) for name in ("query", "key", "value", "out")}
    weights |= {name: rng.standard_normal((len(SYMBOLS), C), np.float32)
                for name in ("first", "second")}
    return weights | {"answer": matrix(C, 10 * questions)}


def recall_logits(params, ids, layer, heads):
    """Logits (B * questions, 10) of the ten digits, for every question."""
    y = layer(embed_symbols(params, ids), params, heads)            # (B, C)
    return (y @ params["answer"]).reshape(-1, 10)


def train_recall(seed, layer, pairs, questions, heads, channels, steps, lr, batch=64):
    """Train on new sequences at every step; the weights, and the accuracy of each question."""
    rng = np.random.default_rng(seed)
    weights = init_recall(rng, channels, questions)
    states = {name: {} for name in weights}
    for step in range(1, steps + 1):
        ids, answers = make_batch(rng, batch, pairs, questions)
        params = as_tensors(weights)
        loss = cross_entropy(recall_logits(params, ids, layer, heads), answers.ravel())
        loss.backward()
        for name, tensor in params.items():
            if tensor.grad is not None:            # mean_layer uses no query and key
                adam(weights[name], tensor.grad, states[name], lr * warmup_linear(step, steps))
    ids, answers = make_batch(rng, 2000, pairs, questions)
    logits = recall_logits(as_tensors(weights), ids, layer, heads).data
    if not np.isfinite(logits).all():
        return weights, np.full(questions, np.nan)
    return weights, (logits.argmax(axis=1).reshape(-1, questions) == answers).mean(axis=0)


# ---- the experiment ---------------------------------------------------------------------------

def check_attention(rng, C=8, H=2):
    """Every new gradient against measured slopes; relative errors by name."""
    qkv = rng.standard_normal((3, 2, 5, H, C // H))
    x = rng.standard_normal((2, 5, C))
    names = ["query", "key", "value", "out"]

    def layer(x, *matrices):
        return self_attention(x, {f"0.{name}": W for name, W in zip(names, matrices)}, 0, H)
    errors = {
        "attention": gradient_error(rng, attention, *qkv),
        "rms_norm": gradient_error(rng, rms_norm, x),
        "rotary": gradient_error(rng, lambda x: rotary(x, start=3), qkv[0]),
        "self_attention": gradient_error(rng, layer, x, *rng.standard_normal((4, C, C)) / 3),
    }
    print("Gradients against measured slopes, relative errors")
    for name, error in errors.items():
        print(f"  {name:14} {error:.0e}")
    assert all(error < 1e-6 for error in errors.values())
    return errors


# Is the scaling needed? The entropy of a query's attention, the sum of
# -A ln A, is ln n if n keys get 1/n each and the others nothing. So it tells
# over how many keys the attention is spread. Without scaling it falls as D
# grows, until one key gets nearly everything. Then every A_j is near 0 or 1,
# and A_j * (1 - A_j), its slope with respect to its own score, is near 0:
# hardly any gradient reaches the queries and keys.

def measure_scaling(rng, T=64, n=100):
    """Entropy of the attention to T random keys, {D: (with scaling, without)}."""
    entropy = {}
    for D in 1, 4, 16, 64, 256, 1024:
        Q = rng.standard_normal((n, 1, D))
        K = rng.standard_normal((n, T, D))
        scaled = attention_weights(Q, K)
        unscaled = attention_weights(Q * math.sqrt(D), K)  # undoes the division
        entropy[D] = tuple(-(A * np.log(np.maximum(A, 1e-300))).sum(axis=-1).mean()
                           for A in (scaled, unscaled))
    return entropy


def show_scaling(entropy, T=64):
    """Print the table of measure_scaling."""
    print(f"\nEntropy of the attention of random queries to {T} random keys: ln {T} = "
          f"{math.log(T):.2f} if all\nget the same, 0 if one gets all.\n"
          "      D   with 1/sqrt(D)   without")
    for D, (scaled, unscaled) in entropy.items():
        print(f"  {D:5} {scaled:14.2f} {unscaled:11.2f}")


def measure_facts(rng, T=8, H=2, D=4):
    """Do the mask, rotary positions and the cache do what they should? Differences by name."""
    q, k, v = rng.standard_normal((3, 1, T, H, D))

    def score(t, s):
        """The score of a query and a key of the first head, if they stand at t and s."""
        q_t = rotary(Tensor(q[:, :1]), t).data[0, 0, 0]
        k_s = rotary(Tensor(k[:, :1]), s).data[0, 0, 0]
        return q_t @ k_s / math.sqrt(D)

    before = attention(Tensor(q), Tensor(k), Tensor(v)).data
    k[:, -1] += 1                   # another key and value at the last position
    v[:, -1] += 1
    after = attention(Tensor(q), Tensor(k), Tensor(v)).data

    x = rng.standard_normal((1, T, H * D))
    params = {f"0.{name}": Tensor(rng.standard_normal((H * D, H * D)))
              for name in ("query", "key", "value", "out")}
    whole = self_attention(Tensor(x), params, 0, H).data
    cache = {}
    parts = [self_attention(Tensor(x[:, t:t + 1]), params, 0, H, cache).data for t in range(T)]
    return {"leak": np.abs(after - before)[:, :-1].max(),
            "same distance": abs(score(105, 102) - score(5, 2)),
            "other distance": abs(score(5, 3) - score(5, 2)),
            "cache": relative_error(np.concatenate(parts, axis=1), whole)}


def show_facts(facts):
    """Print the results of measure_facts."""
    print(f"""
Mask: if the last key and value change, the results before them change by {facts["leak"]:g}.
Rotary: the scores of a query at 5 and a key at 2, and of both 100 positions later, differ
        by {facts["same distance"]:.0e}; with the key at 3, not 2, by {facts["other distance"]:.2f}.
Cache: one position at a time gives the same as all at once, within {facts["cache"]:.0e}.""")
    assert all(facts[name] < 1e-9 for name in ("leak", "same distance", "cache"))


def compare_layers(seed, pairs, channels, steps, lr):
    """Train both layers to answer one question; weights and accuracy of each, by name."""
    ids, answers = make_batch(np.random.default_rng(seed), 1, pairs, 1)
    print(f"\nRecall: {' '.join(as_symbols(ids[0]))}   The answer is {answers[0, 0]}.\n"
          f"Guessing among the digits of the sequence gives {1 / pairs:.1%}. After {steps} steps:")
    results = {}
    for layer in mean_layer, attention_layer:
        weights, [accuracy] = train_recall(seed, layer, pairs, 1, 1, channels, steps, lr)
        results[layer.__name__] = weights, accuracy
        print(f"  {layer.__name__:16} {accuracy:8.1%} of 2000 new sequences", flush=True)
    return results


def draw_recall(weights, rng, pairs):
    """Draw the attention of every question that one sequence can be asked."""
    ids, _ = make_batch(rng, 1, pairs, 1)
    ids = np.repeat(ids, pairs, axis=0)             # the sequence, pairs times
    ids[:, -1, 0] = SYMBOLS.index("A") + ids[0, :-1, 0]  # each time another question
    params = as_tensors(weights)
    q, k, _ = queries_keys_values(embed_symbols(params, ids), params, 0, 1)
    A = attention_weights(q.data[:, -1:, 0], k.data[:, :, 0])[:, 0]    # (B, T)
    answers = recall_logits(params, ids, attention_layer, 1).data.argmax(axis=1)
    print("\nWhat each question attends to, from blank for 0 to @ for 1; the column ? is the\n"
          "question's attention to itself")
    print("       " + "  ".join(as_symbols(ids[0, :-1])) + "   ?    answer")
    for sequence, marks, answer in zip(ids, heat_map(A, 0, 1), answers):
        cells = "  ".join(marks[i:i + 2] for i in range(0, len(marks), 2))
        print(f"  {as_symbols(sequence)[-1]}   {cells}    {answer}")


def compare_heads(seed, pairs, channels, steps, lr):
    """Ask two questions at once, with one head and with two; accuracies by number of heads."""
    print("\nTwo questions at once          first         second")
    accuracies = {}
    for heads in 1, 2:
        _, accuracies[heads] = train_recall(seed, attention_layer, pairs, 2, heads, channels,
                                            steps, lr)
        first, second = accuracies[heads]
        print(f"  heads: {heads} {first:26.1%} {second:14.1%}", flush=True)
    print("Both networks have the same number of weights. One head makes one mean, and the last\n"
          "layer would have to read two digits from it, in their order, which is hard to learn.\n"
          "(If one digit is known, a guess at the other among the rest is right in "
          f"{1 / (pairs - 1):.0%}.)")
    return accuracies


def main(pairs=8, channels=64, steps=500, lr=0.005, seed=0):
    """Check attention, measure its properties, and compare it with a plain mean at recall.

    pairs     number of letter-digit pairs in a sequence, from 2 to 10
    channels  numbers for a position, a multiple of 4
    steps     training steps, each with 64 new sequences
    lr        highest learning rate
    seed      random seed

    Returns {"gradient_error" by name, "scaling": {D: (entropy, without)}, "facts"
    by name, "accuracy" by layer, "two_questions": accuracies by number of heads}.
    """
    if not 2 <= pairs <= 10:
        sys.exit("error: --pairs must be between 2 and 10: there are ten digits")
    if channels % 4:
        sys.exit("error: --channels must be a multiple of 4: two heads, each with pairs to rotate")
    rng = np.random.default_rng(seed)
    errors = check_attention(rng)
    scaling = measure_scaling(rng)
    show_scaling(scaling)
    facts = measure_facts(rng)
    show_facts(facts)
    with np.errstate(all="ignore"):             # divergence shows in the table
        results = compare_layers(seed, pairs, channels, steps, lr)
        weights, _ = results["attention_layer"]
        draw_recall(weights, rng, pairs)
        two_questions = compare_heads(seed, pairs, channels, steps, lr)
    return {"gradient_error": errors, "scaling": scaling, "facts": facts,
            "accuracy": {name: accuracy for name, (_, accuracy) in results.items()},
            "two_questions": two_questions}


# ---- carried from 01, 05, 06 and 08, code unchanged: explained there ------------------------

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


def heat_map(values, low, high, shades=" .:-=+*#%@"):
    """A matrix as lines of text, two characters for an entry, from blank (low) to @ (high)."""
    levels = (np.clip((values - low) / (high - low), 0, 1) * (len(shades) - 1)).round().astype(int)
    return ["".join(2 * shades[level] for level in row) for row in levels]


# ---- plumbing, the same wherever it stands: nothing about neural networks -------------------

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
