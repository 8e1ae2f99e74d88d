"""06  Optimizers: how to use a gradient well.

Gradient descent, w = w - lr * dw, has two problems. One learning rate has to
serve all directions: it must be small enough for the one with the largest
curvature, and then it is too small for the others (01). And dw is noisy, because
large data sets force us to compute it from a mini-batch, a few examples chosen at
random. All optimizers below but the first remember earlier gradients, and so cope
with one of these problems, or with both.

Three more things decide whether a network learns: how the learning rate
changes during the training, which random weights it starts from, and what is
done about a gradient that is far too large.

Run           python 06_optim.py
Expect        4 s. On a spiral with five arms the loss ends near 0.1 for
              plain gradient descent, 0.003 for Adam and 0.002 for Muon
Try           --steps=50     hardly any time: Adam still reaches 0.08, Muon 0.07,
                             plain gradient descent 0.8
              --steps=1000   20 s: even plain gradient descent comes below 0.01
Left out      methods that use second derivatives; how to choose a learning
              rate without trying several; a real task (07)
Carried from  04: init_net, forward, softmax, mean_loss, backward, spiral
"""
import argparse, inspect, math, os, sys

import numpy as np


# ---- new here: optimizers -------------------------------------------------------------------
# Each optimizer changes the array w in place, given its gradient dw. The dict
# state is its memory: what it keeps there comes back in the next step. Here dw
# comes from 04, by hand; from 07 on it comes from the engine of 05.

def sgd(w, dw, state, lr):
    """Gradient descent; if dw is of a mini-batch, stochastic (random), SGD (Robbins 1951)."""
    w -= lr * dw


# Momentum. Picture a long, narrow valley. With a large lr each step lands on
# the other side (01), so across the valley dw flips its sign in every step;
# along the valley the sign stays. So add the gradients up: what flips cancels,
# and what persists grows. A factor beta below 1 lets old gradients fade.
#     m = beta * m + dw            w = w - lr * m
# If dw stays the same, m grows until beta * m + dw = m, that is, to
# dw / (1 - beta): with beta = 0.9 the steps become ten times as long.

def momentum(w, dw, state, lr, beta=0.9):
    """Momentum (Polyak 1964)."""
    m = state.setdefault("m", np.zeros_like(w))  # 0 at first, then what we left there
    m *= beta                                    # in place, so state keeps it
    m += dw
    w -= lr * m


# RMSProp gives each weight a rate of its own: it divides dw by its usual size,
# sqrt(v), the root of a mean of squares (root mean square).
#     v = beta * v + (1 - beta) * dw^2       w = w - lr * dw / sqrt(v)
# With beta = 0.99, v forgets 1 % in each step and takes in 1 % of the new
# square. This is a running mean, of about the last 100 steps. A weight whose
# gradients are always large moves no farther than one whose gradients are
# always small. The trouble is at the start: v begins at 0, so after one step
# it is 0.01 dw^2 and its root 0.1 dw. The first step is ten times too long.

def rmsprop(w, dw, state, lr, beta=0.99, eps=1e-8):
    """RMSProp (Hinton 2012); eps prevents a division by 0."""
    v = state.setdefault("v", np.zeros_like(w))
    v *= beta
    v += (1 - beta) * dw * dw
    w -= lr * dw / (np.sqrt(v) + eps)


# Adam joins momentum and RMSProp. Its m is a running mean, too; v is as before:
#     m = beta1 * m + (1 - beta1) * dw       w = w - lr * m / sqrt(v)
# But first it corrects both for their start at 0 (bias correction). After the
# first step m is 0.1 dw, ten times too small: dividing by 1 - 0.9 repairs it.
# If dw stays the same, each step leaves 0.9 of the difference between m and
# dw, so after t steps m is (1 - 0.9^t) dw, and we divide by 1 - beta^t. With
# this, the first step is lr up or down, whatever the size of dw, and later
# steps are seldom longer.
#
# PyTorch's beta2 = 0.999 averages over about 1000 steps. In the 200 of the
# race below, the large gradients of its start would count until its end. So
# here it is 0.99.

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


# AdamW also shrinks every weight a little in each step (weight decay): small
# weights make smoother functions, which often do better on new examples. One
# could add decay * w to dw, but then Adam would divide it by sqrt(v), and
# weights with large gradients would hardly shrink. So AdamW shrinks w itself.

def adamw(w, dw, state, lr, decay=0.01):
    """AdamW (Loshchilov 2019)."""
    w *= 1 - lr * decay
    adam(w, dw, state, lr)


# Muon treats a matrix as a whole. It is the hardest of them, and only 11 needs
# it: you may skip it at first, up to OPTIMIZERS. The gradient
# G = [[3, 0], [0, 0.1]] would move w far in one direction and hardly at all in
# the other; Muon moves it along [[1, 0], [0, 1]], equally far in both. In this
# example each direction is one entry of w, and Adam could do the same. In
# general a direction is itself a matrix, in which all entries can differ from
# 0, and has to be found first. By the singular value decomposition, every
# matrix is a product
#     G = U S V^T
# of a rotation (perhaps with a reflection), a stretching S, which is 0 but on
# its diagonal, and another rotation (V^T is V.T). The numbers on the diagonal,
# such as 3 and 0.1, are the singular values, which are never negative. Muon
# replaces them by 1, which leaves U V^T. A direction with weak gradients often
# belongs to something that is rare in the data. The hope is that it is now
# learned as fast as the others.
#
# Computing U, S and V would be slow. But for X = U S V^T the product X X^T X has
# the same U and V; only S changes. The columns of U and V have length 1 and are
# perpendicular to each other. So U^T U and V^T V are the identity matrix, with
# 1 on its diagonal and 0 elsewhere, which changes nothing in a product. (If G
# is not square, S is as small as its shorter side.) The transpose of a product
# is the product of the transposes in reverse order, so X^T = V S U^T, and
#     X X^T X = U S V^T  V S U^T  U S V^T = U S^3 V^T
# So 3.4445 X - 4.7750 X X^T X + 2.0315 X X^T X X^T X has the same U and V, and
# each singular value s has become 3.4445 s - 4.7750 s^3 + 2.0315 s^5. (Jordan
# searched for numbers that make small s grow fast, and let none run away.)
# First divide G by its norm, the root of the sum of the squares of all
# entries. Rotations do not change it, so it is also the root of the sum of all
# s^2, and then no s is above 1. In five rounds
#     0.01 becomes 0.03, 0.12, 0.40, 1.09, 0.70
#     0.1  becomes 0.34, 0.99, 0.71, 1.11, 0.71
#     1    becomes 0.70, 1.11, 0.72, 1.09, 0.70
# They do not settle at 1, but whatever starts between 0.01 and 1 ends between
# 0.68 and 1.14, and that will do.

def newton_schulz(G, steps=5):
    """The Newton-Schulz iteration: nearly U V^T for G = U S V^T, by products of matrices only."""
    if G.shape[0] > G.shape[1]:          # so that X X^T is the smaller product
        return newton_schulz(G.T, steps).T
    X = G / (np.linalg.norm(G) + 1e-7)
    for _ in range(steps):
        A = X @ X.T
        X = 3.4445 * X + (2.0315 * (A @ A) - 4.7750 * A) @ X
    return X


# A layer computes x @ w. If w has at least as many outputs as inputs,
# x @ (U V^T) is as long as x, as rotations keep lengths. With more outputs
# this length is spread over more numbers, and each is sqrt(inputs / outputs)
# times as large. `fit` makes up for that. `ahead` is Nesterov's momentum (1983). It
# is not m, but what the next m will be if dw stays the same. If dw flips its
# sign, w brakes one step earlier.

def muon(w, dw, state, lr, decay=0.0, beta=0.9):
    """Muon (Jordan 2024): momentum, made equally long in all directions, for a matrix w."""
    m = state.setdefault("m", np.zeros_like(w))
    m *= beta
    m += (1 - beta) * dw
    ahead = beta * m + (1 - beta) * dw       # Nesterov: the next m if dw stays
    fit = math.sqrt(max(1, w.shape[1] / w.shape[0]))
    w *= 1 - lr * decay
    w -= lr * fit * newton_schulz(ahead)


# Biases are not matrices, so Adam takes care of them. It moves each entry by
# about its rate. In a matrix U V^T of 32 x 32 each column has length 1, so its
# entries are about 1 / sqrt(32), a sixth, and Muon moves each by about lr / 6.
# So that Adam's steps are about as long, it gets a sixth of Muon's rate.

def muon_and_adam(w, dw, state, lr):
    """Muon for matrices, Adam for biases."""
    if w.ndim == 2:
        muon(w, dw, state, lr)
    else:
        adam(w, dw, state, lr / 6)


# name:       (optimizer,     the learning rates to try)
OPTIMIZERS = {
    "SGD":      (sgd,           (0.1, 0.3, 1.0, 3.0)),
    "momentum": (momentum,      (0.03, 0.1, 0.3, 1.0)),
    "RMSProp":  (rmsprop,       (0.003, 0.01, 0.03, 0.1)),
    "Adam":     (adam,          (0.03, 0.1, 0.3, 1.0)),
    "AdamW":    (adamw,         (0.03, 0.1, 0.3, 1.0)),
    "Muon":     (muon_and_adam, (0.03, 0.1, 0.3, 1.0)),
}


# ---- new here: learning-rate schedules ------------------------------------------------------
# A schedule returns the factor for lr in a step; steps count from 1. All three
# begin with a warm-up, a rise from near 0 to 1, because at first m and v are
# means of only a few noisy gradients. Two fall towards 0 afterwards. With a
# small rate w hardly moves between one mini-batch and the next, so that their
# noise averages out.
#
# Which to use? AdamW with warm-up and a falling rate is the usual choice. 07
# to 10 are small enough for plain Adam, and 11 uses Muon for its blocks.

def constant(step, steps, warmup=20):
    """Constant after the warm-up; steps is not needed."""
    return min(step / warmup, 1)


def cosine(step, steps, warmup=20):
    """Half a cosine wave after the warm-up, from 1 down towards 0 (Loshchilov 2017)."""
    done = max(0, step - warmup) / max(1, steps + 1 - warmup)
    return min(step / warmup, (1 + math.cos(math.pi * done)) / 2)


def warmup_linear(step, steps, warmup=20):
    """The factor of the learning rate in step 1 .. steps: a linear rise, then a linear fall."""
    return min(step / warmup, 1, (steps + 1 - step) / max(1, steps + 1 - warmup))


SCHEDULES = {".": constant, "c": cosine, "l": warmup_linear}


# ---- new here: initialization ---------------------------------------------------------------
# Which random weights should a network start from? Not from equal ones: units
# that start alike stay alike (02). And of what size? An entry of h @ W is a
# sum of d_in terms h_j * W_jk. If the h_j are about 1 and the weights have the
# standard deviation std, the mean square of each term is std^2. For
# independent terms p and q, (p + q)^2 = p^2 + 2 p q + q^2, and 2 p q is 0 on
# average, as it is as often positive as negative. So mean squares add up: the
# sum has d_in * std^2, and its typical size is sqrt(d_in) * std. Each layer
# multiplies by that number, and after 30 layers the values have vanished or
# exploded, unless it is near 1.
#     std = 1 / sqrt(d_in)            keeps the size of h in linear layers
#     std = sqrt(2 / d_in)            He (2015), for ReLU, which sets half of the
#                                     entries to 0: only half of the squares is left
#     std = sqrt(2 / (d_in + d_out))  Glorot (2010), for tanh. On the way back, da @
#                                     W.T is a sum of d_out terms. So this takes
#                                     the mean of d_in and d_out

# name:        the standard deviation of W (d_in, d_out)
INITIALIZATIONS = {
    "zeros":     lambda d_in, d_out: 0,
    "too small": lambda d_in, d_out: 0.05,
    "too large": lambda d_in, d_out: 1,
    "Glorot":    lambda d_in, d_out: math.sqrt(2 / (d_in + d_out)),
    "He":        lambda d_in, d_out: math.sqrt(2 / d_in),
}


# ---- new here: training on mini-batches -----------------------------------------------------

def minibatches(rng, n, size):
    """Yield the indices of shuffled mini-batches of size examples, out of n, forever.

    No example repeats within an epoch, one pass over the examples. What is
    left at its end and does not fill a batch is left out.
    ValueError if there are fewer examples than a batch needs.
    """
    if n < size:
        raise ValueError(f"{n} examples do not fill a mini-batch of {size}")
    while True:
        order = rng.permutation(n)      # so batches differ from epoch to epoch
        for i in range(0, n - size + 1, size):
            yield order[i:i + size]


# One unlucky batch in a steep place, or a rate that is too high, can throw the
# weights so far that all is lost. Gradient clipping limits the norm of the
# gradient, its length if all entries of all arrays are taken as one long
# vector. The direction stays.

def clip(gradients, max_norm):
    """Gradient clipping (Pascanu 2013): scale all gradients to a norm of at most max_norm."""
    norm = math.sqrt(sum(np.sum(g * g) for g in gradients))
    return [g * (max_norm / norm) for g in gradients] if norm > max_norm else gradients


def train_net(rng, net, X, y, optimizer, lr, steps, schedule=warmup_linear, batch=60,
              max_norm=math.inf):
    """Train the network [(W, b), ...] in place on mini-batches of X (N, D) and y (N,)."""
    weights = [array for layer in net for array in layer]
    states = [{} for _ in weights]
    batches = minibatches(rng, len(X), batch)
    for step in range(1, steps + 1):
        rows = next(batches)
        h, z = forward(net, X[rows])
        gradients = [array for layer in backward(net, h, z, y[rows]) for array in layer]
        for w, dw, state in zip(weights, clip(gradients, max_norm), states):
            optimizer(w, dw, state, lr * schedule(step, steps))


# ---- the experiment: a valley ---------------------------------------------------------------
# We begin without noise, and with two weights, so that the way can be drawn.
# Let `along` and `across` tell how far w is from the bottom in two directions,
# and let the loss be L = (along^2 + 100 * across^2) / 2: a valley with the
# curvatures 1 and 100, where plain gradient descent must stay below lr = 2/100
# (01). The two directions lie at an angle to the axes of the weights, so that
# Adam, with a rate for each weight, cannot turn the valley into a round bowl.

BOTTOM = np.array([2.0, 0.4])
CURVATURES = np.array([1.0, 100.0])
DIRECTIONS = np.array([[math.cos(0.5), -math.sin(0.5)],  # columns: along, across
                       [math.sin(0.5), math.cos(0.5)]])


def valley(w):
    """The loss (...) and its gradient (..., 2) at any number of places w (..., 2)."""
    away = (w - BOTTOM) @ DIRECTIONS                        # along and across
    return (CURVATURES * away * away).sum(-1) / 2, (CURVATURES * away) @ DIRECTIONS.T


def descend_valley(optimizer, lr, steps=50):
    """The places (steps + 1, 2) that the optimizer visits on its way from w = 0."""
    w = np.zeros(2)
    state = {}
    path = [w.copy()]
    for _ in range(steps):
        _, dw = valley(w)
        optimizer(w, dw, state, lr)
        path.append(w.copy())
    return np.array(path)


def draw_path(path):
    """The valley as 11 lines of 23 characters, with the path in it."""
    places = np.stack(np.meshgrid(np.linspace(-0.2, 2.5, 23), np.linspace(1, -1, 11)), -1)
    height, _ = valley(places)
    canvas = np.where(np.floor(np.log(height) / math.log(6)) % 2, ".", " ")
    marks = [(w, str(step) if step < 10 else "o") for step, w in enumerate(path)]
    for (right, up), mark in marks[::-1] + [(BOTTOM, "+")]:  # the first steps on top
        row, column = round((1 - up) * 5), round((right + 0.2) / 2.7 * 22)
        if 0 <= row < 11 and 0 <= column < 23:
            canvas[row, column] = mark
    return ["".join(line) for line in canvas]


def compare_in_valley(names=("SGD", "momentum", "Adam")):
    """Draw each optimizer's path at the best of 15 rates; the heights at the end, by name."""
    print("A valley, seen from above: dots and blanks take turns where the height grows\n"
          "sixfold. + is the bottom; digits are the places after 0 to 9 steps, o after 10 to\n"
          "50, and earlier ones hide later ones. Each has the best of 15 learning rates.")
    ends = {}
    pictures = []
    for name in names:
        optimizer, _ = OPTIMIZERS[name]
        paths = {lr: descend_valley(optimizer, lr) for lr in 10 ** np.arange(-3, 0.6, 0.25)}
        best = min(paths, key=lambda lr: valley(paths[lr][-1])[0])
        ends[name] = valley(paths[best][-1])[0]
        pictures.append([f"{name}, lr {best:.2g}", f"L at the end {ends[name]:.1e}",
                         *draw_path(paths[best])])
    for lines in zip(*pictures):
        print("".join(f"{line:25}" for line in lines).rstrip())
    print("Plain gradient descent jumps across the valley in every step, and creeps along it.\n"
          "Momentum and Adam swing across it in longer arcs, and get farther.")
    return ends


# ---- the experiment: a network --------------------------------------------------------------

def final_losses(seeds, hidden, optimizer, lr, steps, **options):
    """The loss on all points of a spiral with five arms after training, for each seed."""
    losses = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        X, y = spiral(rng, 60, arms=5)
        net = init_net(rng, [2, hidden, hidden, 5])
        train_net(rng, net, X, y, optimizer, lr, steps, **options)
        loss = mean_loss(forward(net, X)[1], y)
        losses.append(loss if math.isfinite(loss) else math.inf)
    return losses


def race(steps, seeds, hidden):
    """Train with each optimizer at each of its rates; the mean loss at its best rate, by name."""
    print(f"\nA network on a spiral with five arms of 60 points, {steps} steps on mini-batches of\n"
          f"60. Mean, lowest and highest loss of {len(seeds)} seeds, at the best learning rate of\n"
          f"each optimizer. A uniform guess has the loss ln 5 = {math.log(5):.4f}.")
    print("optimizer   best rate     loss   lowest  highest   mean loss at each rate")
    results = {}
    for name, (optimizer, rates) in OPTIMIZERS.items():
        losses = {lr: final_losses(seeds, hidden, optimizer, lr, steps) for lr in rates}
        means = {lr: np.mean(losses[lr]) for lr in rates}
        best = min(rates, key=means.get)
        results[name] = means[best]
        row = "  ".join(f"{lr:g}: {means[lr]:.2g}" for lr in rates)
        print(f"{name:10} {best:10g} {means[best]:9.2g} {min(losses[best]):8.2g} "
              f"{max(losses[best]):8.2g}   {row}", flush=True)
    print("Do not compare the rates of different optimizers: SGD multiplies dw by its rate,\n"
          "while Adam moves each weight by about its rate. AdamW's decay is meant to help on\n"
          "new examples, but these are those of the training.")
    return results


def compare_schedules(steps, seeds, hidden):
    """Draw the schedules; the best loss of momentum with each, by name."""
    print("\nSchedules: the factor of the learning rate in each of 200 steps")
    at = range(1, 201)
    print(plot({mark: (at, [schedule(step, 200) for step in at])
                for mark, schedule in SCHEDULES.items()}, height=9))
    print("and the loss of momentum with each of them, at three rates")
    results = {}
    for mark, schedule in SCHEDULES.items():
        means = {lr: np.mean(final_losses(seeds, hidden, momentum, lr, steps, schedule=schedule))
                 for lr in (0.03, 0.1, 0.3)}
        results[schedule.__name__] = min(means.values())
        row = "  ".join(f"{lr:g}: {mean:.4f}" for lr, mean in means.items())
        print(f"  {mark} {schedule.__name__:14} {row}", flush=True)
    print("A rate that falls makes shorter steps, a loss if it was low or the training is short.\n"
          "But it bears a higher rate, and then, in a long training, it reaches a lower loss.")
    return results


def compare_initializations(seed, steps, width=32):
    """What each initialization does to values and gradients in 30 layers; accuracies by name."""
    print("\nInitializations of a network with 30 layers: standard deviations before the\n"
          "training, numbered as in 04, and the accuracy after it (Adam, lr 0.001)\n"
          "                      h_1     h_15     h_29     dW_1    dW_15    dW_29   accuracy")
    X, y = spiral(np.random.default_rng(seed), 60)
    sizes = [2] + [width] * 29 + [3]
    accuracy = {}
    for name, std in INITIALIZATIONS.items():
        rng = np.random.default_rng(seed)
        net = [(rng.standard_normal((d_in, d_out)) * std(d_in, d_out), np.zeros(d_out))
               for d_in, d_out in zip(sizes, sizes[1:])]
        h, z = forward(net, X)
        gradients = backward(net, h, z, y)
        values = [h[l].std() for l in (1, 15, 29)] + [gradients[l][0].std() for l in (1, 15, 29)]
        train_net(rng, net, X, y, adam, 0.001, steps)
        accuracy[name] = np.mean(forward(net, X)[1].argmax(1) == y)
        print(f"  {name:14}" + "".join(f"{value:9.0e}" for value in values)
              + f"{accuracy[name]:11.0%}", flush=True)
    print("From zeros every h but X is 0, and every da is 0 but that of the last layer. So\n"
          "every dW = h.T @ da is 0, and nothing but the last bias can learn. 'Too small'\n"
          "gives gradients far below Adam's eps of 1e-8. 'Too large' has gradients of 1e15,\n"
          "and learns because Adam divides by their size. Glorot loses half of the squares\n"
          "at each ReLU.")
    return accuracy


def compare_clipping(steps, seeds, hidden):
    """Momentum at a rate of 1, with and without clipping: the losses by max_norm."""
    print("\nClipping: momentum with a rate of 1, which is too high. The loss of each seed")
    losses = {}
    for max_norm in math.inf, 0.3:
        losses[max_norm] = final_losses(seeds, hidden, momentum, 1.0, steps, max_norm=max_norm)
        print(f"  norm of the gradient at most {max_norm:3}: "
              + "  ".join(f"{loss:.4f}" for loss in losses[max_norm]))
    print("Clipped, this rate does better than each rate of momentum in the race.")
    return losses


def main(steps=200, hidden=32, seeds=3, seed=0):
    """Draw paths in a valley; race six optimizers; compare schedules, initializations, clipping.

    steps   steps of each training; half as many for the deep networks
    hidden  number of units in each hidden layer; the deep networks always have 32
    seeds   number of runs that each loss is the mean of
    seed    the first random seed

    Returns {"valley": loss by optimizer, "race": loss by optimizer, "schedules": loss by name,
    "initializations": accuracy by name, "clipping": losses by max_norm}.
    """
    runs = range(seed, seed + seeds)
    with np.errstate(all="ignore"):   # some of these runs are meant to diverge
        return {"valley": compare_in_valley(),
                "race": race(steps, runs, hidden),
                "schedules": compare_schedules(steps, runs, hidden),
                "initializations": compare_initializations(seed, steps // 2),
                "clipping": compare_clipping(steps, runs, hidden)}


# ---- carried from 04, code unchanged: explained there ---------------------------------------

def init_net(rng, sizes):
    """The layers [(W, b), ...] of a network; sizes counts its inputs, then the units by layer.

    The weights are random, with a standard deviation of sqrt(2 / inputs),
    which suits ReLU (He 2015; derived in 06). The biases are 0.
    """
    return [(rng.standard_normal((d_in, d_out)) * math.sqrt(2 / d_in), np.zeros(d_out))
            for d_in, d_out in zip(sizes, sizes[1:])]


def forward(net, X):
    """The inputs h_0, h_1, ... of all layers, which backward needs, and the logits z (N, K)."""
    h = [X]
    for W, b in net[:-1]:
        a = h[-1] @ W + b                       # (N, D_(l+1))
        h.append(np.maximum(a, 0))              # ReLU
    W, b = net[-1]
    return h, h[-1] @ W + b                     # no ReLU after the last layer


def softmax(z):
    """Probabilities (N, K) from logits z (N, K)."""
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def mean_loss(z, y):
    """The cross-entropy, averaged over the examples: z (N, K), y (N,)."""
    z = z - z.max(1, keepdims=True)       # the shift cancels in the difference
    rows = np.arange(len(y))        # z[rows, y] takes entry y[i] of each row i
    return np.mean(np.log(np.exp(z).sum(1)) - z[rows, y])


def backward(net, h, z, y):
    """The gradients [(dW, db), ...] of the mean loss, in the order of the layers."""
    gradients = [None] * len(net)
    da = softmax(z)                             # z is the a of the last layer
    da[np.arange(len(y)), y] -= 1
    da /= len(y)                                # (N, K)
    for l in reversed(range(len(net))):
        W, b = net[l]
        dW = h[l].T @ da                        # (D_l, N) @ (N, D_(l+1))
        db = da.sum(axis=0)
        gradients[l] = (dW, db)
        if l > 0:                          # h_0 = X is data, and cannot change
            dh = da @ W.T                       # (N, D_(l+1)) @ (D_(l+1), D_l)
            da = dh * (h[l] > 0)                # and on to that layer
    return gradients


def spiral(rng, n, arms=3, noise=0.15):
    """n points on each of the arms of a spiral: X (n * arms, 2), the arm y (n * arms,)."""
    radius = np.tile(np.linspace(0.1, 1, n), arms)  # the same n radii for each arm
    arm = np.repeat(np.arange(arms), n)             # 0, 0, ..., 1, 1, ...
    angle = 2 * math.pi * arm / arms + 4 * radius + noise * rng.standard_normal(n * arms)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), arm


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
