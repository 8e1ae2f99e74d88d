"""09  Attention: looking things up by content.

A layer of 04 treats each row by itself. Attention lets each position read from
the others. It is a dictionary whose keys need not fit exactly, and so has a
gradient. Each position has a query, what it looks for; a key, what it can be
found by; and a value, what it hands over. With these as the rows of Q, K, V:

    S = Q K^T / sqrt(D)        scores: how well key j fits query i
    A = softmax of each row    attention: positive, and each row adds up to 1
    Y = A V                    means of all values, weighted by fit

Run           python 09_attention.py
Expect        6 to 9 s on two cores; recall: attention 100 %, others, after as
              many steps, only guess: 12 %
Try           --pairs=10   longer rows to recall from
Left out      positions (08); more layers (10)
Carried from  01: numeric_gradient, relative_error.  04: softmax.
              05: topological_order, unbroadcast, as_rows, Tensor, gradient_error, as_tensors.
              06: adam, warmup_linear, cross_entropy.  08: embedding, heat_map
"""
import argparse, inspect, itertools, math, os, sys

import numpy as np

# B batch, T positions (Tq of queries, Tk of keys), C channels, H heads, D = C/H; N = B*T rows
# Q, K, V queries, keys, values; elsewhere K counts classes, and V the vocabulary


# ---- new here: attention by its formulas ------------------------------------------------------
# Three matrices (C, D) make of each position's x (C,) a query x Wq, a key x Wk and a value x Wv.
#     S = Q K^T / sqrt(D)          S_ij, the score: how well key j fits query i            (T, T)
#     A = softmax of each row      A_ij, the attention: positive, each row adds up to 1    (T, T)
#     Y = A V                      y_i is a mean of all values, weighted by fit            (T, D)
#
# The scaling: q k is a sum of D products. If they are independent, with mean 0 and variance 1, it
# has the variance D. Without 1/sqrt(D), scores grow like sqrt(D), and softmax gives nearly all
# attention to one key. Then all A_ij (1 - A_ij), the derivative of A_ij with respect to S_ij, fade,
# and dS with them.
#
# The mask: a network that learns to predict the next token must not see it. So causal attention
# sets the scores of later keys to minus infinity: their A_ij are 0, and the others add up to 1.

def look_up(Q, K, V, causal=True):
    """Y and A by the formulas, for one head: Q, K and V (T, D)."""
    S = Q @ K.T / math.sqrt(Q.shape[1])
    if causal:
        S = np.where(np.tri(len(S), dtype=bool), S, -np.inf)       # tri: at and below the diagonal
    A = softmax(S)
    return A @ V, A


# Backward, with G = dL/dY. By rules 2 and 4 of 04, because Y = A V,
#     dV = A^T G      dA = G V^T
# Softmax: ln A_ik = S_ik - ln(sum_m e^(S_im)) has the derivative [k = j] - A_ij with respect to
# S_ij, as in rule 1 of 04; [k = j] is 1 if k = j, else 0. As (ln A)' = A' / A, A_ik has the
# derivative A_ik ([k = j] - A_ij). In all,
#     dS_ij = sum_k dA_ik A_ik ([k = j] - A_ij) = A_ij (dA_ij - r_i),      r_i = sum_k A_ik dA_ik
#     dQ = dS K / sqrt(D)      dK = dS^T Q / sqrt(D)                 by rules 4 and 2 again
# And r_i = sum_k A_ik sum_d G_id V_kd = sum_d G_id Y_id, a dot product of two rows that we have.

def look_up_gradients(Q, K, V, A, G):
    """dQ, dK and dV of look_up, by the formulas. Where the mask made A 0, dS is 0 as well."""
    dV = A.T @ G
    dA = G @ V.T
    dS = A * (dA - (A * dA).sum(1, keepdims=True))
    return dS @ K / math.sqrt(Q.shape[1]), dS.T @ Q / math.sqrt(Q.shape[1]), dV


# ---- new here: attention for a batch and many heads -------------------------------------------
# One softmax makes one mean. H heads of D = C/H channels make H means for the same work. Side by
# side these have C channels again, and a last matrix, out, mixes them.
#
# The same formulas for all heads at once, with few passes over T x T arrays, the largest by far.
# A = E / total is not formed: E is e^S, total the sums of its rows, and Y = E V / total divides a
# smaller array. With G / total in place of G, dV = E^T G, and dS = E * (G V^T - r) with r from the
# rows of G and Y. As in 04, to take the largest score off each row keeps exp from overflowing. It
# is a pass more, done only if the largest |q| times the largest |k|, over sqrt(D), is above 40: no
# score exceeds that, and e^40 is harmless.

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


# ---- new here: recall ---------------------------------------------------------------------
# A row of pairs, such as a3 k7 q1, and a question, k?. The answer is 7. A pair is one position, the
# embedding of its letter plus that of its digit. All letters of a row differ, and so do its digits:
# knowing the digits but not their letters gives 1 in 8 with 8 pairs: chance level.
# The last position asks for one letter, or for two at once. A letter that is asked for has another
# token than in a pair, and a third if it is asked second: a net must learn what belongs together.

LETTERS = "abcdefghijklmnopqrstuvwxyz"
DIGIT, FIRST, SECOND = 26, 36, 62       # where ids of digits and of letters asked for begin
NONE, TOKENS = 88, 89                   # the id of no second letter; the number of ids


def questions(rng, B, pairs, asked):
    """ids (B, pairs + 1, 2), two tokens per position, the question last; answers (B, asked)."""
    letters = rng.random((B, 26)).argsort(1)[:, :pairs]             # in random order
    digits = rng.random((B, 10)).argsort(1)[:, :pairs]
    which = rng.random((B, pairs)).argsort(1)[:, :asked]            # the places of the answers
    question = np.full((B, 2), NONE)
    question[:, :asked] = np.take_along_axis(letters, which, 1) + [FIRST, SECOND][:asked]
    ids = np.concatenate([np.stack([letters, DIGIT + digits], 2), question[:, None]], 1)
    return ids, np.take_along_axis(digits, which, 1)


def init_recall(rng, T, C, asked, layer):
    """The weights by name of a network with one layer on T positions; see recall_logits."""
    shapes = {"embed": (TOKENS, C), "answer": (C, 10 * asked)}
    if layer in ("attention", "mean"):
        shapes |= {"value": (C, C), "out": (C, C)}
    if layer == "attention":
        shapes |= {"query": (C, C), "key": (C, C)}
    if layer == "hidden layer":
        shapes |= {"up": (T * C, 8 * C), "down": (8 * C, C)}
    weights = {name: rng.standard_normal(shape, np.float32) / np.float32(math.sqrt(shape[0]))
               for name, shape in shapes.items()}
    # Short vectors make small scores: at first the softmax is open to all keys.
    weights["embed"] = 0.3 * rng.standard_normal(shapes["embed"], np.float32)
    return weights


def embed_pairs(weights, ids):
    """x (B, T, C), a vector for each position of ids (B, T, 2)."""
    first, second = (embedding(weights["embed"], ids[..., i].ravel()) for i in (0, 1))
    return (first + second).reshape(*ids.shape[:2], -1)


def queries_and_keys(weights, x, heads):
    """The query of the last position, (B, 1, H, D), and keys for all, (B, T, H, D)."""
    split = lambda x, name: (x @ weights[name]).reshape(*x.data.shape[:2], heads, -1)
    return split(x[:, -1:], "query"), split(x, "key")


def recall_logits(weights, ids, heads):
    """Logits (B, 10 * asked) of the answers; the weights tell which layer makes them."""
    x = embed_pairs(weights, ids)
    B, T, C = x.data.shape
    if "up" in weights:                             # all positions side by side, like pixels in 07
        y = (x.reshape(B, T * C) @ weights["up"]).relu() @ weights["down"]
    else:
        v = (x @ weights["value"]).reshape(B, T, heads, -1)
        if "query" in weights:
            q, k = queries_and_keys(weights, x, heads)
        else:                                       # equal scores: a mean
            q, k = Tensor(np.zeros_like(v.data[:, -1:])), Tensor(np.zeros_like(v.data))
        y = attention(q, k, v).reshape(B, C) @ weights["out"]       # the last position sees all
    return y @ weights["answer"]


def train_recall(seed, layer, pairs, asked, heads, channels, steps, lr, batch=64):
    """Weights, losses, and which answers are right in 2000 fresh rows, (2000, asked).

    If the training diverges, the losses end with it, and no answer is right.
    """
    rng = np.random.default_rng(seed)
    weights = init_recall(rng, pairs + 1, channels, asked, layer)
    states = {name: {} for name in weights}
    losses = []
    for step in range(1, steps + 1):
        ids, answers = questions(rng, batch, pairs, asked)          # never the same rows again
        params = as_tensors(weights)
        logits = recall_logits(params, ids, heads).reshape(-1, 10)
        loss = cross_entropy(logits, answers.ravel())
        loss.backward()
        for name, w in weights.items():
            adam(w, params[name].grad, states[name], lr * warmup_linear(step, steps))
        losses.append(loss.data.item())
        if not math.isfinite(losses[-1]):
            return weights, losses, np.zeros((2000, asked), bool)
    ids, answers = questions(rng, 2000, pairs, asked)
    logits = recall_logits(as_tensors(weights), ids, heads).data.reshape(-1, asked, 10)
    if not np.isfinite(logits).all():
        return weights, losses + [math.nan], np.zeros((2000, asked), bool)
    return weights, losses, logits.argmax(2) == answers


def draw_recall(weights, pairs):
    """Where the attention of one head goes: one row of pairs, asked for each letter in turn."""
    ids, _ = questions(np.random.default_rng(0), 1, pairs, 1)
    ids = np.repeat(ids, pairs, 0)
    ids[:, -1, 0] = FIRST + ids[0, :-1, 0]
    params, T = as_tensors(weights), pairs + 1
    q, k = queries_and_keys(params, embed_pairs(params, ids), 1)
    v = Tensor(np.broadcast_to(np.eye(T)[:, None], (pairs, T, 1, T)))
    A = attention(q, k, v).data[:, 0, 0]                # with V = I, Y = A V is A itself
    answers = recall_logits(params, ids, 1).data.argmax(1)
    shown = [LETTERS[letter] + str(digit - DIGIT) for letter, digit in ids[0, :-1]]
    print("       " + "  ".join(shown) + "   ?    answer")
    for letter, marks, answer in zip(shown, heat_map(A, 0, 1), answers):
        cells = "  ".join(marks[i:i + 2] for i in range(0, len(marks), 2))
        print(f"  {letter[0]}?   {cells}    {answer}")


# ---- the experiment -----------------------------------------------------------------------

def show_gradients(rng, T=6, D=4):
    """Formulas, fast code and central differences agree; relative errors by name."""
    Q, K, V, G = rng.standard_normal((4, T, D))
    errors, one_head = {}, lambda x: x.reshape(1, T, 1, D)
    for name, Q in ("", Q), (" (large scores)", 30 * Q):
        Y, A = look_up(Q, K, V)
        inputs = [Tensor(one_head(x)) for x in (Q, K, V)]
        y = attention(*inputs)
        (y * one_head(G)).sum().backward()
        pairs = [(y.data, Y), *zip([x.grad for x in inputs], look_up_gradients(Q, K, V, A, G))]
        errors["fast code against formulas, Y, dQ, dK, dV" + name] = np.max(
            [relative_error(found, one_head(right)) for found, right in pairs])
    qkv = rng.standard_normal((3, 2, T, 2, D))
    errors["gradients against differences, 2 heads, mask"] = gradient_error(rng, attention, *qkv)
    errors["gradients against differences, 2 heads, no mask"] = gradient_error(
        rng, lambda *qkv: attention(*qkv, causal=False), *qkv)
    weights, (ids, _) = init_recall(rng, 3, 4, 1, "attention"), questions(rng, 3, 2, 1)
    errors["gradients against differences, all of a net"] = gradient_error(
        rng, lambda *tensors: recall_logits(dict(zip(weights, tensors)), ids, 2),
        *(rng.standard_normal(w.shape) for w in weights.values()))
    print("Relative errors")
    for name, error in errors.items():
        print(f"  {name:57} {error:.0e}")
    assert np.max(list(errors.values())) < 1e-6         # Python's max would lose a nan
    return errors


def show_scaling(rng, T=64, n=100):
    """Entropy of the attention to T keys, {D: (with, without the scaling)}."""
    print(f"\nRandom queries, {T} random keys. entropy: the sum of -A ln A, {math.log(T):.2f} if "
          "all A are equal,\n0 if one is 1. slope: the sum of A (1 - A), by which gradients reach "
          "the scores.\n              with 1/sqrt(D)        without\n"
          "      D      entropy   slope   entropy   slope")
    entropy = {}
    for D in 1, 4, 16, 64, 256, 1024:
        q, K = rng.standard_normal((n, D)), rng.standard_normal((n, T, D))
        scores = np.einsum("nd,ntd->nt", q, K)
        both = [softmax(scores / math.sqrt(D)), softmax(scores)]
        entropy[D] = [-(A * np.log(A + 1e-300)).sum(1).mean() for A in both]
        slopes = [(A * (1 - A)).sum(1).mean() for A in both]
        print(f"  {D:5} " + "".join(f"{a:10.2f}{b:8.2f}" for a, b in zip(entropy[D], slopes)))
    return entropy


def show_facts(rng, T=8):
    """Attention without a mask knows no order; with it, it knows no later position."""
    qkv = rng.standard_normal((3, 1, T, 2, 4))
    run = lambda qkv, causal: attention(*map(Tensor, qkv), causal=causal).data
    order = rng.permutation(T)
    shuffled = relative_error(run(qkv[:, :, order], False), run(qkv, False)[:, order])
    before, leaked = run(qkv, True), 0.0
    for t in range(T):
        changed = qkv.copy()
        changed[:, :, t] += rng.standard_normal((3, 1, 2, 4))
        difference = np.abs(run(changed, True) - before)
        leaked = max(leaked, difference[:, :t].max(initial=0))
        assert difference[:, t:].min() > 0
    _, A = look_up(*qkv[:, 0, :, 0])
    assert shuffled < 1e-12 and leaked < 1e-12 and not np.triu(A, 1).any()
    print(f"""
No mask: if the positions change places, the results change places with them, within {shuffled:.0e}.
So without mask or positions (08) attention cannot know the order of its inputs.
Mask: a change at any position t moves the results before t by {leaked:.0e}, and all from t on.
Attention of one head with the mask, a row for each query, from blank for 0 to @ for 1; right of the
diagonal it is exactly 0:""")
    print("\n".join("  " + line.rstrip() for line in heat_map(A, 0, 1)))
    return shuffled


def result_of(losses, right):
    """How a training ended, as text."""
    return f"{right.mean():7.1%}" if math.isfinite(losses[-1]) else "diverges"


def compare_layers(pairs, channels, steps, lr, seed):
    """Networks with three kinds of layers learn to answer one question; accuracy by layer."""
    ids, answers = questions(np.random.default_rng(seed), 1, pairs, 1)
    row = " ".join(LETTERS[a] + str(b - DIGIT) for a, b in ids[0, :-1])
    print(f"\nRecall: {row}, {LETTERS[ids[0, -1, 0] - FIRST]}? The answer is {answers[0, 0]}.\n"
          f"To guess among the digits shown gives {1 / pairs:.1%}, and a loss of ln {pairs} = "
          f"{math.log(pairs):.2f}. Networks with one layer:")
    curves, accuracy = {}, {}
    for mark, layer in ("h", "hidden layer"), ("m", "mean"), (".", "attention"):
        weights, losses, right = train_recall(seed, layer, pairs, 1, 1, channels, steps, lr)
        accuracy[layer] = right.mean()
        chunk = max(1, len(losses) // 72)
        means = np.reshape(losses[:len(losses) // chunk * chunk], (-1, chunk)).mean(1)
        curves[mark] = chunk * np.arange(1, len(means) + 1), means
        size = sum(w.size for w in weights.values())
        print(f"  {layer:12} {size:8,} weights {result_of(losses, right)} of 2000 fresh rows",
              flush=True)
    print("Loss by step: . attention, m mean, h hidden layer, which m may hide")
    print(plot(curves))
    if math.isfinite(losses[-1]):
        print("\nWhat each question attends to, from blank for 0 to @ for 1; ? is its own position")
        draw_recall(weights, pairs)                     # of the last network, attention
    return accuracy


def compare_heads(pairs, channels, steps, lr, seed):
    """Attention answers two questions at once, with one head and with two; accuracy by heads."""
    print("\nTwo letters asked at once      first right   second right     both right")
    both = {}
    for heads in 1, 2:
        _, losses, right = train_recall(seed, "attention", pairs, 2, heads, channels, steps, lr)
        both[heads] = right.all(1).mean()
        first, second = right.mean(0)
        if math.isfinite(losses[-1]):
            print(f"  heads: {heads} {first:32.1%} {second:14.1%} {both[heads]:14.1%}")
        else:
            print(f"  heads: {heads} {'diverges':>32}")
    print("Both networks have the same number of weights. But one head returns one weighted mean.\n"
          "It can contain both digits, but not which letter each belongs to: one question is\n"
          "answered at the cost of the other.")
    return both


def main(pairs=8, channels=64, steps=500, lr=0.005, seed=0):
    """Check attention, measure its properties, and compare it with other layers at recall.

    pairs     number of letter-digit pairs in a row, from 2 to 10
    channels  length of the vectors, an even number
    steps     training steps, each with 64 fresh rows
    lr        highest learning rate
    seed      random seed

    Returns {"gradient_error" by name, "entropy": {D: (with scaling, without)}, "shuffled": relative
    error after positions change places, "accuracy" by layer, "both": {heads: accuracy with two
    questions at once}}.
    """
    if not 2 <= pairs <= 10:
        sys.exit("error: --pairs must be between 2 and 10: there are ten digits")
    if channels % 2:
        sys.exit("error: --channels must be even, for two heads")
    rng = np.random.default_rng(seed)
    errors = show_gradients(rng)
    entropy = show_scaling(rng)
    shuffled = show_facts(rng)
    with np.errstate(all="ignore"):                     # divergence shows in the table
        accuracy = compare_layers(pairs, channels, steps, lr, seed)
        both = compare_heads(pairs, channels, steps, lr, seed)
    return {"gradient_error": errors, "entropy": entropy, "shuffled": shuffled,
            "accuracy": accuracy, "both": both}


# ---- carried from 01, 04, 05, 06 and 08, code unchanged: explained there --------------------

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


def softmax(z):
    """Probabilities (N, K) from logits z (N, K)."""
    e = np.exp(z - z.max(1, keepdims=True))             # the shift cancels; exp cannot overflow
    return e / e.sum(1, keepdims=True)


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

    def relu(self):
        y = np.maximum(self.data, 0)
        return Tensor(y, (self,), lambda g: (g * (y > 0),))

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


def heat_map(values, low, high, shades=" .:-=+*#%@"):
    """A matrix as lines of text, two characters for an entry, from blank (low) to @ (high)."""
    levels = (np.clip((values - low) / (high - low), 0, 1) * (len(shades) - 1)).round().astype(int)
    return ["".join(2 * shades[level] for level in row) for row in levels]


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
