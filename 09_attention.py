"""09  Attention: looking things up by content.

Given the row   a3 k7 q1 K?   the answer is 7: the position that asks, K?, must
find the position that holds k, and fetch what stands there. The layers of 04
cannot do that, because they treat every position by itself. Attention lets each
position read from the others. It is like a dictionary whose keys need not fit
exactly: the result is a mean of all values, weighted by how well their keys fit
the query. So it has a gradient, and can be learned.

    S = Q @ K.T / sqrt(D)     scores: how well does each key fit each query?
    A = softmax of each row   attention: positive, and each row adds up to 1
    Y = A @ V                 each row is a mean of the values, weighted by A

Run           python 09_attention.py
Expect        6 s on two cores. Attention recalls 100 % of the answers; a mean
              of all positions cannot, and guesses: 12 %
Try           --steps=100   too short a training: look at the heat map
Left out      several layers, and what they need to be trained (10)
Carried from  01: numeric_gradient, relative_error.  05: topological_order,
              unbroadcast, as_rows, Tensor, gradient_error, as_tensors.
              06: adam, warmup_linear, cross_entropy.  08: embedding, heat_map
"""
import argparse, inspect, itertools, math, os, string, sys

import numpy as np

# B rows in a batch, T positions in a row, C channels (numbers for a position),
# H heads, D = C / H


# ---- new here: attention ----------------------------------------------------------------------
# Each position has a vector x of C numbers. Three matrices make three vectors
# of it: a query, what the position is looking for; a key, what it can be found
# by; and a value, what it hands over.
#     q = x @ Wq        k = x @ Wk        v = x @ Wv
# Why not compare the vectors x themselves? Because what is asked for and what
# is stored look different, K? and k7, and because every x would fit itself
# best. Wq and Wk learn what fits what.
#
# The queries of T positions are the rows of Q (T, D), and so for K and V.
# S_ij, the score, is the dot product of query i and key j: large if they point
# in the same direction. Softmax turns each row of S into positive numbers that
# add up to 1. An example with two keys: the scores 0 and ln 3 become 1 / (1 +
# 3) and 3 / (1 + 3), so y = 1/4 v_0 + 3/4 v_1.
#
# The causal mask: if position i must predict what comes next, it must not see
# it. So the scores of later keys are set to minus infinity. Their A is
# e^(-inf) = 0, and the others still add up to 1.

def attention_weights(Q, K, causal=True):
    """A (..., Tq, Tk), the softmax of the scores of queries Q (..., Tq, D) and keys K (..., Tk, D).

    The queries stand at the last Tq of the Tk positions. If causal, they see
    no later key.
    """
    Tq, Tk = Q.shape[-2], K.shape[-2]
    S = (Q / math.sqrt(Q.shape[-1])) @ K.swapaxes(-1, -2)       # (..., Tq, Tk)
    if causal:
        S += np.triu(np.full((Tq, Tk), -np.inf, S.dtype), 1 + Tk - Tq)  # above the diagonal
    S -= S.max(axis=-1, keepdims=True)     # cancels below; e^S cannot overflow
    A = np.exp(S, out=S)               # in the place of S, which is not needed
    A /= A.sum(axis=-1, keepdims=True)
    return A


def row_dot(a, b):
    """The dot product of each row of a with the same row of b; rows are along the last axis."""
    return np.einsum("...i,...i->...", a, b)[..., None]


# Heads. One softmax makes one mean. H heads make H means: each has D = C / H
# channels of the queries, keys and values for itself, and the H results stand
# side by side. That is H small attentions for the price of one. In the code,
# the heads are one more axis in front.
#
# Backward, with dY = dL/dY, one step a line. Y = A @ V is a matrix product, so
# as in 04
#     dV = A.T @ dY
#     dA = dY @ V.T
# Softmax, for one row of S and A, where A_k = e^(S_k) / (e^(S_0) + e^(S_1) +
# ...):
#     ln A_k = S_k - ln(e^(S_0) + e^(S_1) + ...)
#     d(ln A_k)/dS_j = [k = j] - A_j                      [k = j] is 1 if k = j, else 0
#     dA_k/dS_j = A_k * ([k = j] - A_j)                   because d(ln A) = dA / A
# S_j feeds every A_k of its row, so its gradient is the sum over k:
#     dS_j = sum_k dA_k * A_k * ([k = j] - A_j)
#          = A_j * dA_j - A_j * sum_k A_k * dA_k
#          = A_j * (dA_j - sum_k A_k * dA_k)
# Where the mask made A 0, dS is 0 as well. And S = Q @ K.T / sqrt(D), so
#     dQ = dS @ K / sqrt(D)
#     dK = dS.T @ Q / sqrt(D)

def attention(q, k, v, causal=True):
    """Softmax(Q @ K.T / sqrt(D)) @ V, for every head by itself (Vaswani 2017).

    q (B, Tq, H, D); k and v (B, Tk, H, D); the result is like q.
    """
    Q, K, V = (x.data.swapaxes(1, 2) for x in (q, k, v))         # (B, H, T, D)
    A = attention_weights(Q, K, causal)                        # (B, H, Tq, Tk)
    Y = A @ V                                                   # (B, H, Tq, D)

    def vjp(g):
        dY = g.swapaxes(1, 2)                                   # (B, H, Tq, D)
        dV = A.swapaxes(2, 3) @ dY
        dA = dY @ V.swapaxes(2, 3)                             # (B, H, Tq, Tk)
        dS = dA - row_dot(A, dA)
        dS *= A
        dQ = dS @ K / math.sqrt(Q.shape[-1])
        dK = dS.swapaxes(2, 3) @ Q / math.sqrt(Q.shape[-1])
        return tuple(d.swapaxes(1, 2) for d in (dQ, dK, dV))     # (B, T, H, D)
    return Tensor(Y.swapaxes(1, 2), (q, k, v), vjp)


# ---- new here: queries and keys of equal length, and with positions ---------------------------
# A score grows with the lengths of its query and its key, and so do all
# gradients. To keep them in bounds, divide both by their root mean square.
# This is RMSNorm: y = r x with r = 1 / sqrt(mean(x^2)). After it, no score
# exceeds sqrt(D). Its gradient, for a row of D numbers:
#     dr/dx_j = -1/2 mean(x^2)^(-3/2) * 2 x_j / D = -r^2 y_j / D
#     dy_i/dx_j = r * [i = j] + x_i * dr/dx_j = r * ([i = j] - y_i * y_j / D)
#     dx_j = sum_i dy_i * dy_i/dx_j, written as rows: dx = r * (dy - y * mean(dy * y))
# (On the left dy_i/dx_j is a slope; in the last line dy is the gradient
# dL/dy.)

def rms_norm(x, eps=1e-6):
    """x over its root mean square along the last axis (Zhang 2019); eps keeps it from 1/0."""
    D = x.shape[-1]
    r = 1 / np.sqrt(row_dot(x.data, x.data) / D + eps)
    y = x.data * r
    return Tensor(y, (x,), lambda g: (r * (g - y * (row_dot(g, y) / D)),))


# Without its mask, attention does not know the order of its inputs: if the
# positions change places, the results change places with them. Rotary
# positions tell it. Take one query and one key, each an arrow (a, b) in the
# plane. Rotated by the angle p, an arrow becomes
#     (a cos p - b sin p, a sin p + b cos p)
# Rotate the query at position t by the angle t, and the key at position s by
# the angle s. Their lengths stay, and the angle between them changes by t - s.
# So their dot product, which is the product of the lengths times the cosine of
# the angle between them, depends on t and s only by the distance t - s. For D
# channels, take them in pairs; pair j is rotated by t * w_j. The speeds w_j
# fall from 1 to about 1/1000: fast pairs tell near positions apart, slow pairs
# far ones.
#
# NumPy rotates fastest with complex numbers. An arrow (a, b) is a + i b, and
# e^(ip) = cos p + i sin p.
#     (a + i b) * (cos p + i sin p) = (a cos p - b sin p) + i (a sin p + b cos p)
# A rotation is linear, and its gradient is the rotation by the opposite angle:
# the complex conjugate.

def rotary(x, start=0, base=1000.0):
    """Rotary positions (Su 2021): rotate the pairs of x (B, T, H, D); its first position is start.

    Pair j, the channels 2j and 2j + 1, is rotated by t * base^(-2j/D) at
    position t; D is even.
    """
    T, D = x.shape[1], x.shape[3]
    speed = base ** (-np.arange(0, D, 2) / D)                       # (D/2,)
    angle = np.arange(start, start + T)[:, None, None] * speed    # (T, 1, D/2)
    turn = np.exp(1j * angle)                       # cos(angle) + i sin(angle)

    def rotate(x, turn):
        arrows = x.view(np.result_type(x, np.complex64))  # (B, T, H, D/2), a + i b
        return (arrows * turn.astype(arrows.dtype)).view(x.dtype)  # (B, T, H, D)
    return Tensor(rotate(x.data, turn), (x,), lambda g: (rotate(g, turn.conj()),))


# ---- new here: the self-attention layer -------------------------------------------------------
# In self-attention, queries, keys and values come from the same positions. The
# last matrix, out, takes the results of the heads, which so far each keep to
# channels of their own, and mixes them.
#
# The KV cache. A text is written position by position (11). Each new position
# needs the keys and values of all earlier ones, which do not change any more.
# So keep them, and compute only those of the new position. In training there
# is no cache: all positions are there at once.

def extend(cache, name, new):
    """new (B, T, H, D) behind what the dict cache holds under name; the cache then holds both."""
    array = new.data
    if name in cache:
        array = np.concatenate([cache[name], array], axis=1)
    cache[name] = array
    return Tensor(array)


def queries_keys_values(x, weights, i, heads, start=0):
    """q, k and v, each (B, T, H, D), of x (B, T, C), whose first position is start."""
    B, T, C = x.shape
    q, k, v = ((x @ weights[f"{i}.{name}"]).reshape(B, T, heads, C // heads)
               for name in ("query", "key", "value"))
    return rotary(rms_norm(q), start), rotary(rms_norm(k), start), v


def self_attention(x, weights, i, heads, cache=None):
    """Each position of x (B, T, C) reads from itself and from earlier ones; the result is like x.

    weights are Tensors (C, C): f"{i}.query", f"{i}.key", f"{i}.value" and
    f"{i}.out". With a cache, a dict, x follows on the positions of earlier
    calls.
    """
    start = 0
    if cache is not None and f"{i}.key" in cache:
        start = cache[f"{i}.key"].shape[1]
    q, k, v = queries_keys_values(x, weights, i, heads, start)   # (B, T, H, D)
    if cache is not None:
        k = extend(cache, f"{i}.key", k)                 # (B, start + T, H, D)
        v = extend(cache, f"{i}.value", v)
    y = attention(q, k, v).reshape(*x.shape)    # (B, T, C), heads side by side
    return y @ weights[f"{i}.out"]


# ---- new here: recall -------------------------------------------------------------------------
# A row of pairs and a question, such as a3 k7 q1 K?. Each position is two
# symbols, and its vector is the sum of two embeddings, one for each. Capital
# letters ask: K? for one digit, KQ for two. All letters of a row differ, and
# so do its digits. Whoever knows the digits of the row but not their letters
# is right in 1 of 8 cases, if there are 8 pairs: chance level.

SYMBOLS = string.ascii_lowercase + string.digits + string.ascii_uppercase + "?"


def make_batch(rng, B, pairs, questions):
    """ids (B, pairs + 1, 2) of B random rows, and the answers (B, questions), which are digits."""
    letters = rng.random((B, 26)).argsort(axis=1)[:, :pairs]  # random and all different
    digits = rng.random((B, 10)).argsort(axis=1)[:, :pairs]
    asked = rng.random((B, pairs)).argsort(axis=1)[:, :questions]  # which of the pairs
    ids = np.full((B, pairs + 1, 2), SYMBOLS.index("?"))
    ids[:, :-1, 0] = SYMBOLS.index("a") + letters
    ids[:, :-1, 1] = SYMBOLS.index("0") + digits
    ids[:, -1, :questions] = SYMBOLS.index("A") + np.take_along_axis(letters, asked, axis=1)
    return ids, np.take_along_axis(digits, asked, axis=1)


def as_symbols(ids):
    """One row of ids (T, 2) as text, such as ["a3", "k7", "q1", "K?"]."""
    return [SYMBOLS[first] + SYMBOLS[second] for first, second in ids]


def embed_symbols(params, ids):
    """x (B, T, C) for ids (B, T, 2)."""
    return embedding(params["first"], ids[..., 0]) + embedding(params["second"], ids[..., 1])


# Two layers that make y (B, C), from which the answer is read: attention, and for
# comparison a mean, which is attention with equal weights.

def attention_layer(x, params, heads):
    """What the last position, the question, has read."""
    return self_attention(x, params, 0, heads)[:, -1]


def mean_layer(x, params, heads):
    """The same with equal attention to all positions."""
    B, T, C = x.shape
    A = np.full((B, 1, T), 1 / T, np.float32)
    return (Tensor(A) @ (x @ params["0.value"])).reshape(B, C) @ params["0.out"]


def init_recall(rng, C, questions):
    """The weights by name, for vectors of C numbers."""
    def matrix(n_in, n_out):
        return rng.standard_normal((n_in, n_out), np.float32) / np.float32(math.sqrt(n_in))

    weights = {f"0.{name}": matrix(C, C) for name in ("query", "key", "value", "out")}
    weights |= {name: matrix(len(SYMBOLS), C) for name in ("first", "second")}
    return weights | {"answer": matrix(C, 10 * questions)}


def recall_logits(params, ids, layer, heads):
    """Logits (B * questions, 10) of the digits that answer."""
    y = layer(embed_symbols(params, ids), params, heads)            # (B, C)
    return (y @ params["answer"]).reshape(-1, 10)


def train_recall(seed, layer, pairs, questions, heads, channels, steps, lr, batch=64):
    """Train on ever new rows; the weights, and the accuracies on 2000 more rows.

    There is an accuracy for each question, or nan if the training diverges.
    """
    rng = np.random.default_rng(seed)
    weights = init_recall(rng, channels, questions)
    states = {name: {} for name in weights}
    for step in range(1, steps + 1):
        ids, answers = make_batch(rng, batch, pairs, questions)
        params = as_tensors(weights)
        loss = cross_entropy(recall_logits(params, ids, layer, heads), answers.ravel())
        loss.backward()
        for name, tensor in params.items():
            if tensor.grad is not None:            # of weights that are in use
                adam(weights[name], tensor.grad, states[name], lr * warmup_linear(step, steps))
    ids, answers = make_batch(rng, 2000, pairs, questions)
    logits = recall_logits(as_tensors(weights), ids, layer, heads).data
    if not np.isfinite(logits).all():
        return weights, np.full(questions, np.nan)
    return weights, (logits.argmax(axis=1).reshape(-1, questions) == answers).mean(axis=0)


# ---- the experiment ---------------------------------------------------------------------------

def check_attention(rng, C=8, H=2):
    """Every new gradient against central differences; relative errors by name."""
    qkv = rng.standard_normal((3, 2, 5, H, C // H))
    x = rng.standard_normal((2, 5, C))
    names = ["query", "key", "value", "out"]

    def layer(x, *matrices):
        return self_attention(x, {f"0.{name}": W for name, W in zip(names, matrices)}, 0, H)
    errors = {
        "attention, causal": gradient_error(rng, attention, *qkv),
        "attention, no mask": gradient_error(rng, lambda *x: attention(*x, causal=False), *qkv),
        "rms_norm": gradient_error(rng, rms_norm, x),
        "rotary": gradient_error(rng, lambda x: rotary(x, start=3), qkv[0]),
        "self_attention": gradient_error(rng, layer, x, *rng.standard_normal((4, C, C)) / 3),
    }
    print("Gradients against central differences, relative errors")
    for name, error in errors.items():
        print(f"  {name:20} {error:.0e}")
    assert all(error < 1e-6 for error in errors.values())
    return errors


# The scaling. A score is a sum of D products. If they are independent, with
# mean 0 and variance 1, the sum has the variance D: without 1/sqrt(D), scores
# grow like sqrt(D). Then softmax gives nearly all attention to one key, and
# A_k * (1 - A_k), the slope of A_k with respect to its own score, is near 0
# for every key, because A_k is near 0 or near 1. No gradient reaches the
# scores any more.

def measure_scaling(rng, T=64, n=100):
    """Entropy of the attention to T random keys, {D: (with scaling, without)}."""
    entropy = {}
    for D in 1, 4, 16, 64, 256, 1024:
        Q = rng.standard_normal((n, 1, D))
        K = rng.standard_normal((n, T, D))
        scaled = attention_weights(Q, K, causal=False)
        unscaled = attention_weights(Q * math.sqrt(D), K, causal=False)
        entropy[D] = tuple(-(A * np.log(A + 1e-300)).sum(axis=-1).mean()
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
    """What the mask, rotary positions and the cache promise, as differences by name."""
    q, k, v = rng.standard_normal((3, 1, T, H, D))

    def score(t, s):
        """The score of a query at position t and a key at position s."""
        return (rotary(Tensor(q[:, :1]), t).data * rotary(Tensor(k[:, :1]), s).data).sum()

    before = attention(Tensor(q), Tensor(k), Tensor(v)).data
    v[:, -1] += 1                                   # another value at the last position
    after = attention(Tensor(q), Tensor(k), Tensor(v)).data

    x = rng.standard_normal((1, T, H * D))
    weights = {f"0.{name}": Tensor(rng.standard_normal((H * D, H * D)))
               for name in ("query", "key", "value", "out")}
    whole = self_attention(Tensor(x), weights, 0, H).data
    cache = {}
    parts = [self_attention(Tensor(x[:, t:t + 1]), weights, 0, H, cache).data for t in range(T)]
    return {"leak": np.abs(after - before)[:, :-1].max(),
            "same distance": abs(score(105, 102) - score(5, 2)),
            "other distance": abs(score(5, 3) - score(5, 2)),
            "cache": relative_error(np.concatenate(parts, axis=1), whole)}


def show_facts(facts):
    """Print the results of measure_facts."""
    print(f"""
Mask: another last value changes the results before it by {facts["leak"]:g}.
Rotary: the scores of positions 5, 2 and 105, 102 differ by {facts["same distance"]:.0e},
        those of 5, 2 and 5, 3 by {facts["other distance"]:.2f}.
Cache: one position at a time gives the same as all at once, within {facts["cache"]:.0e}.""")
    assert max(facts["leak"], facts["same distance"], facts["cache"]) < 1e-9


def compare_layers(seed, pairs, channels, steps, lr):
    """Train both layers to answer one question; weights and accuracy of each, by name."""
    ids, answers = make_batch(np.random.default_rng(seed), 1, pairs, 1)
    print(f"\nRecall: {' '.join(as_symbols(ids[0]))}   The answer is {answers[0, 0]}.\n"
          f"To guess among the digits of the row gives {1 / pairs:.1%}. After {steps} steps:")
    results = {}
    for layer in mean_layer, attention_layer:
        weights, [accuracy] = train_recall(seed, layer, pairs, 1, 1, channels, steps, lr)
        results[layer.__name__] = weights, accuracy
        print(f"  {layer.__name__:16} {accuracy:8.1%} of 2000 new rows", flush=True)
    return results


def draw_recall(weights, rng, pairs):
    """Draw what each question about one row attends to, and what the trained network answers."""
    ids, _ = make_batch(rng, 1, pairs, 1)
    ids = np.repeat(ids, pairs, axis=0)             # the same row, pairs times
    ids[:, -1, 0] = SYMBOLS.index("A") + ids[0, :-1, 0]  # with all its questions
    params = as_tensors(weights)
    q, k, _ = queries_keys_values(embed_symbols(params, ids), params, 0, 1)
    A = attention_weights(q.data[:, -1:, 0], k.data[:, :, 0])[:, 0]    # (B, T)
    answers = recall_logits(params, ids, attention_layer, 1).data.argmax(axis=1)
    print("\nWhat each question attends to, from blank for 0 to @ for 1; the last column is itself")
    print("       " + "  ".join(as_symbols(ids[0, :-1])) + "   ?    answer")
    for row, marks, answer in zip(ids, heat_map(A, 0, 1), answers):
        cells = "  ".join(marks[i:i + 2] for i in range(0, len(marks), 2))
        print(f"  {as_symbols(row)[-1]}   {cells}    {answer}")


def compare_heads(seed, pairs, channels, steps, lr):
    """Ask two questions at once, with one head and with two; accuracies by number of heads."""
    print("\nTwo questions at once          first         second")
    accuracies = {}
    for heads in 1, 2:
        _, accuracies[heads] = train_recall(seed, attention_layer, pairs, 2, heads, channels,
                                            steps, lr)
        first, second = accuracies[heads]
        print(f"  heads: {heads} {first:26.1%} {second:14.1%}", flush=True)
    print("Both networks have the same number of weights. But one head returns one weighted\n"
          "mean. It can contain both digits, but not which letter each belongs to.")
    return accuracies


def main(pairs=8, channels=64, steps=500, lr=0.005, seed=0):
    """Check attention, measure its properties, and compare it with other layers at recall.

    pairs     number of letter-digit pairs in a row, from 2 to 10
    channels  length of the vectors, a multiple of 4
    steps     training steps, each with 64 new rows
    lr        highest learning rate
    seed      random seed

    Returns {"gradient_error" by name, "scaling": {D: (entropy, unscaled)}, "facts"
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
        y = a.sum(axis, keepdims=True)
        return Tensor(y if keepdims else y.squeeze(axis), (self,),
                      lambda g: (np.ones_like(a) * g.reshape(y.shape),))

    def reshape(self, *shape):
        return Tensor(self.data.reshape(*shape), (self,), lambda g: (g.reshape(self.data.shape),))

    def __getitem__(self, index):
        def vjp(g):
            da = np.zeros_like(self.data)
            np.add.at(da, index, g)     # da[index] += g counts each place once
            return (da,)
        return Tensor(self.data[index], (self,), vjp)


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


def embedding(W, ids):
    """The rows of W (V, C) that ids (...) pick: onehot @ W, of shape (..., C).

    Tensor.__getitem__ of 05 has the same gradient; for a small V a product is
    faster.
    """
    def vjp(g):
        onehot = ids.ravel() == np.arange(len(W.data))[:, None]  # (V, N), transposed
        return (onehot.astype(g.dtype) @ as_rows(g),)         # (V, N) @ (N, C)
    return Tensor(W.data[ids], (W,), vjp)


def heat_map(values, low, high, shades=" .:-=+*#%@"):
    """A matrix as lines of text, two characters for an entry, from blank (low) to @ (high)."""
    levels = (np.clip((values - low) / (high - low), 0, 1) * (len(shades) - 1)).round().astype(int)
    return ["".join(2 * shades[level] for level in row) for row in levels]


# ---- plumbing, the same in every file: nothing about neural networks ------------------------

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
    command_line(main)
