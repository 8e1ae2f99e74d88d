"""06  Optimizers: how to use a gradient well.

Gradient descent, w = w - lr dw, has two troubles. A learning rate at which steep
directions already diverge may still be too small for flat ones (01). And dw is
noisy, because it is the mean over a mini-batch, a few random examples: all of
them would take too long. Seven optimizers, learning-rate schedules, the
initialization of the weights, and gradient clipping are answers to that.

Run           python 06_optim.py
Expect        9 to 13 s. The race ends near 0.002 for Muon, 0.003 for Adam, 0.01
              for momentum, 0.1 for SGD
Try           --steps=1000   longer trainings
Left out      second-order methods; choosing the rate without trying it
Carried from  01: numeric_gradient, relative_error.  04: init_net, spiral.
              05: topological_order, unbroadcast, as_rows, Tensor, as_tensors
"""
import argparse, inspect, itertools, math, os, sys

import numpy as np

# N examples, D_l units in layer l, K classes; X (N, D_0), y (N,) integers
# below K


# ---- new here: optimizers -----------------------------------------------------------------
# Each changes the array w in place, given its gradient dw; the dict state is
# what it remembers of w from step to step. All but Muon work entry by entry.
# With m = v = 0 at first, the step number t, and beta a little below 1,
#     momentum    m = beta m + dw                         w = w - lr m
#     Nesterov    m = beta m + dw                         w = w - lr (beta m + dw)
#     RMSProp     v = beta v + (1 - beta) dw^2            w = w - lr dw / sqrt(v)
#     Adam        m = beta1 m + (1 - beta1) dw            m' = m / (1 - beta1^t)
#                 v = beta2 v + (1 - beta2) dw^2          v' = v / (1 - beta2^t)
#                                                         w = w - lr m' / sqrt(v')
#     AdamW       w = (1 - lr decay) w, then Adam
#     Muon        m = beta m + (1 - beta) dw              G = beta m + (1 - beta) dw, a matrix
#                                                         w = w - lr U V^T, where G = U S V^T

def sgd(w, dw, state, lr):
    """Gradient descent; stochastic if dw comes from a mini-batch (Robbins 1951)."""
    w -= lr * dw


# Momentum adds up what persists and cancels what flips.

def momentum(w, dw, state, lr, beta=0.9):
    """Momentum (Polyak 1964): where all gradients agree, 1 / (1 - beta) times as fast."""
    m = state.setdefault("m", np.zeros_like(w))
    m *= beta
    m += dw
    w -= lr * m


def nesterov(w, dw, state, lr, beta=0.9):
    """Nesterov's momentum (1983; this form: Bengio 2013): beta m + dw is the next m if dw stays."""
    m = state.setdefault("m", np.zeros_like(w))
    m *= beta
    m += dw
    w -= lr * (beta * m + dw)


# RMSProp and Adam divide by a recent size of dw, and so give each weight a rate
# of its own. (The code adds a tiny eps, against division by 0.)

def rmsprop(w, dw, state, lr, beta=0.99, eps=1e-8):
    """RMSProp (Hinton 2012): dw over its root mean square.

    At first v is still too small, so the first steps are too long.
    """
    v = state.setdefault("v", np.zeros_like(w))
    v *= beta
    v += (1 - beta) * dw * dw
    w -= lr * dw / (np.sqrt(v) + eps)


# Bias correction: after the first step of Adam, m is 0.1 dw, ten times too
# small, because it started at 0; dividing by 1 - 0.9 = 0.1 repairs that. After t
# steps the factor is 1 - beta^t.

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


# AdamW also pulls weights towards 0, so that a network uses no larger ones than
# it needs.

def adamw(w, dw, state, lr, decay=0.01):
    """AdamW (Loshchilov 2019): weight decay that is no part of the gradient."""
    w *= 1 - lr * decay
    adam(w, dw, state, lr)


# Muon looks at a matrix as a whole, by its singular value decomposition: every
# matrix is U S V^T. U and V have perpendicular columns of length 1, the
# directions, and S is diagonal, with the singular values, which say how strongly
# G acts along each. Setting them to 1 moves w equally far in all.
#
# U V^T without a slow decomposition: an odd polynomial of X = U S V^T acts on
# S alone, because X X^T X = U S^3 V^T. G is divided by its length, the root of
# the sum of all s^2: no s is above 1. Then five rounds of the polynomial below
# bring every s in 0.01 .. 1 into 0.68 .. 1.14. It is made for speed and never
# settles at 1. That of Newton and Schulz, 1.5 s - 0.5 s^3, does, but slowly.

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


# A matrix w is (inputs, outputs). With more outputs than inputs, U V^T spreads
# the length of an input over more entries. The square root in the last line
# gives each of them its size back.

def muon(w, dw, state, lr, decay=0.0, beta=0.95):
    """Muon (Jordan 2024): momentum, made equally long in all directions. Changes the matrix w."""
    m = state.setdefault("m", np.zeros_like(w))
    m *= beta
    m += (1 - beta) * dw
    ahead = beta * m + (1 - beta) * dw       # Nesterov: the next m if dw stays
    fit = math.sqrt(max(1, w.shape[1] / w.shape[0]))  # to the shape, see above
    w *= 1 - lr * decay
    w -= lr * fit * newton_schulz(ahead)


def muon_and_adam(w, dw, state, lr):
    """Muon for matrices; Adam for biases, at a sixth of the rate, as in 11."""
    if w.ndim == 2:
        muon(w, dw, state, lr)
    else:
        adam(w, dw, state, lr / 6)


# name:       (optimizer,     its rates in the race)
OPTIMIZERS = {
    "SGD":      (sgd,           (0.1, 0.3, 1.0, 3.0)),
    "momentum": (momentum,      (0.03, 0.1, 0.3, 1.0)),
    "Nesterov": (nesterov,      (0.03, 0.1, 0.3, 1.0)),
    "RMSProp":  (rmsprop,       (0.003, 0.01, 0.03, 0.1)),
    "Adam":     (adam,          (0.03, 0.1, 0.3, 1.0)),
    "AdamW":    (adamw,         (0.03, 0.1, 0.3, 1.0)),
    "Muon":     (muon_and_adam, (0.03, 0.1, 0.3, 1.0)),
}


# ---- new here: learning-rate schedules --------------------------------------------------------
# Each gives the factor of the learning rate in step 1 .. steps. All rise over
# a warm-up, because the loss is often steepest at first, and running means are
# still made of few gradients. A small rate at the end averages the noise of
# the mini-batches away.

def constant(step, steps, warmup=20):
    """Constant after the warm-up."""
    return min(step / warmup, 1)


def cosine(step, steps, warmup=20):
    """Half a cosine wave after the warm-up, from 1 down towards 0 (Loshchilov 2017)."""
    done = max(0, step - warmup) / max(1, steps + 1 - warmup)
    return min(step / warmup, (1 + math.cos(math.pi * done)) / 2)


def warmup_linear(step, steps, warmup=20):
    """The factor of the learning rate in step 1 .. steps: a linear rise, then a linear fall."""
    return min(step / warmup, 1, (steps + 1 - step) / max(1, steps + 1 - warmup))


SCHEDULES = {".": constant, "c": cosine, "l": warmup_linear}


# ---- new here: initialization -----------------------------------------------------------------
# An entry of h W is a sum of d_in terms, and variances of independent terms
# add up: with entries of h of about 1, and std for W, the sum has the standard
# deviation sqrt(d_in) times std. Layer by layer this grows or vanishes, unless
# std is 1 / sqrt(d_in). ReLU drops half of the mean square: He (2015) has
# sqrt(2 / d_in). On the way back, d_out terms add up; Glorot (2010), for tanh,
# takes the mean of d_in and d_out.

def relu(x):
    """max(x, 0), entry by entry."""
    return x.relu()


def tanh(x):
    """The hyperbolic tangent, entry by entry."""
    return x.tanh()


# name:           (activation, standard deviation of the weights)
INITIALIZATIONS = {
    "zeros":        (relu, lambda d_in, d_out: 0),
    "too small":    (relu, lambda d_in, d_out: 0.05),
    "too large":    (relu, lambda d_in, d_out: 1),
    "Glorot, ReLU": (relu, lambda d_in, d_out: math.sqrt(2 / (d_in + d_out))),
    "Glorot, tanh": (tanh, lambda d_in, d_out: math.sqrt(2 / (d_in + d_out))),
    "He, ReLU":     (relu, lambda d_in, d_out: math.sqrt(2 / d_in)),
}


# ---- new here: training -----------------------------------------------------------------------

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


def activations(params, X, f=relu):
    """The results of all layers of the network [(W, b), ...] for X (N, D), the logits last."""
    h = [X]
    for W, b in params[:-1]:
        h.append(f(h[-1] @ W + b))
    W, b = params[-1]
    return h[1:] + [h[-1] @ W + b]


def net_gradients(net, X, y, f=relu):
    """The mean loss of a network of arrays, [(W, b), ...], and its gradients for W1, b1, W2, ..."""
    params = as_tensors(net)
    loss = cross_entropy(activations(params, X, f)[-1], y)
    loss.backward()
    return loss.data.item(), [tensor.grad for pair in params for tensor in pair]


def minibatches(rng, n, size):
    """Yield the indices of shuffled mini-batches of n examples, forever.

    No example repeats within an epoch, which is one pass over the examples.
    ValueError if there are fewer examples than a batch needs.
    """
    if n < size:
        raise ValueError(f"{n} examples do not fill a mini-batch of {size}")
    while True:
        order = rng.permutation(n)      # so batches differ from epoch to epoch
        for i in range(0, n - size + 1, size):
            yield order[i:i + size]


def clip(gradients, max_norm):
    """Gradient clipping (Pascanu 2013): scale all gradients to a norm of at most max_norm.

    The norm is that of all gradients together. So one steep place cannot throw
    the weights far.
    """
    norm = math.sqrt(sum(np.vdot(g, g) for g in gradients))
    return [g * (max_norm / norm) for g in gradients] if norm > max_norm else gradients


def train_net(rng, net, X, y, optimizer, lr, steps, schedule=warmup_linear, batch=60,
              max_norm=math.inf, f=relu):
    """Train the network in place on mini-batches; returns the loss of each."""
    weights = [array for pair in net for array in pair]
    states = [{} for _ in weights]
    losses = []
    with np.errstate(all="ignore"):   # some of these runs are meant to diverge
        for step, rows in zip(range(1, steps + 1), minibatches(rng, len(X), batch)):
            loss, gradients = net_gradients(net, X[rows], y[rows], f)
            losses.append(loss)
            for w, dw, state in zip(weights, clip(gradients, max_norm), states):
                optimizer(w, dw, state, lr * schedule(step, steps))
    return losses


# ---- the experiment -----------------------------------------------------------------------

def descend_valley(optimizer, lr, hessian, bottom, steps):
    """The path from w = 0, and its heights, L = away hessian away^T / 2 with away = w - bottom."""
    w, state, path, heights = np.zeros((1, 2)), {}, [], []
    for step in range(1, steps + 2):
        away = w - bottom
        path.append(w[0].copy())
        heights.append((away @ hessian @ away.T).item() / 2)
        if not heights[-1] < 10 * heights[0]:
            return path, [math.inf]                     # it diverges
        optimizer(w, away @ hessian, state, lr * warmup_linear(step, steps, 1))
    return path, heights


def valley(steps=50):
    """Draw each optimizer's path at its best rate; returns the height that it ends at."""
    turn = np.array([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])
    hessian, bottom = turn @ np.diag([1, 30]) @ turn.T, np.array([2.0, 0.4])
    places = np.stack(np.meshgrid(np.linspace(-0.2, 2.5, 23), np.linspace(1, -1, 11)), -1) - bottom
    height = (places @ hessian * places).sum(-1) / 2
    bands = np.where(np.floor(np.log(height) / math.log(6)) % 2, ".", " ")
    ends, pictures = {}, []
    for name, (optimizer, _) in OPTIMIZERS.items():
        runs = [(*descend_valley(optimizer, lr, hessian, bottom, steps), lr)
                for lr in 10 ** np.arange(-3, 0.6, 0.25)]
        path, heights, lr = min(runs, key=lambda run: run[1][-1])
        canvas, ends[name] = bands.copy(), heights[-1]
        for step, (a, b) in reversed(list(enumerate(path))):  # the first steps on top
            i, j = round((1 - b) * 5), round((a + 0.2) / 2.7 * 22)
            if 0 <= i < 11 and 0 <= j < 23:
                canvas[i, j] = str(step) if step < 10 else "o"
        canvas[3, 18] = "+"
        pictures.append([f"{name} {ends[name]:.0e} at {lr:.2g}", *map("".join, canvas)])
    for group in pictures[:4], pictures[4:]:
        for row in zip(*group):
            print("".join(f"{line:25}" for line in row).rstrip())
        print()
    return ends


def five_arms(seed, hidden):
    """A generator, points on a spiral with five arms, and a network of three layers for them."""
    rng = np.random.default_rng(seed)
    X, y = spiral(rng, 60, arms=5)
    return rng, X, y, init_net(rng, [2, hidden, hidden, 5])


def check_gradients(seed):
    """Relative error of the gradients of a small network on a few points, at random biases."""
    rng, X, y, net = five_arms(seed, 4)
    X, y, net = X[::20], y[::20], [(W, rng.standard_normal(b.shape)) for W, b in net]

    def loss():
        return net_gradients(net, X, y)[0]
    return relative_error(net_gradients(net, X, y)[1],
                          [numeric_gradient(loss, array) for pair in net for array in pair])


def final_losses(seeds, hidden, *how, **more):
    """The loss on all points after training, for each seed; infinite if it diverges."""
    losses = []
    for seed in seeds:
        rng, X, y, net = five_arms(seed, hidden)
        train_net(rng, net, X, y, *how, **more)
        with np.errstate(all="ignore"):
            loss = net_gradients(net, X, y)[0]
        losses.append(loss if math.isfinite(loss) else math.inf)
    return losses


def race(steps, seeds, hidden):
    """Train with each optimizer at each of its rates; the loss at its best rate, by name."""
    print("optimizer   best rate      loss  spread   mean loss at each rate")
    results = {}
    for name, (optimizer, rates) in OPTIMIZERS.items():
        tries = {lr: final_losses(seeds, hidden, optimizer, lr, steps) for lr in rates}
        best = min(tries, key=lambda lr: np.mean(tries[lr]))
        results[name] = np.mean(tries[best])
        spread = np.std(tries[best], ddof=min(1, len(seeds) - 1))
        row = "  ".join(f"{lr:g}: {np.mean(losses):.2g}" for lr, losses in tries.items())
        print(f"{name:10} {best:10g} {results[name]:10.4f} {spread:7.4f}   {row}", flush=True)
    return results


def compare_schedules(steps, seeds, hidden):
    """Draw the schedules; the best loss of momentum with each, by name."""
    at = range(1, 201)
    print(plot({mark: (at, [schedule(step, 200) for step in at])
                for mark, schedule in SCHEDULES.items()}, height=9))
    results = {}
    for mark, schedule in SCHEDULES.items():
        name = schedule.__name__.replace("_", " ")
        tries = {lr: np.mean(final_losses(seeds, hidden, momentum, lr, steps, schedule))
                 for lr in (0.03, 0.1, 0.3)}
        results[name] = min(tries.values())
        row = "  ".join(f"{lr:g}: {loss:.4f}" for lr, loss in tries.items())
        print(f"  {mark} {name:14} {row}", flush=True)
    return results


def compare_initializations(seed, steps, layers=30, width=32):
    """What each initialization does to values and gradients in a deep network; its accuracy."""
    X, y = spiral(np.random.default_rng(seed), 60)
    sizes = [2] + [width] * (layers - 1) + [3]
    print("           std of layer              of the gradient of W in layer             accuracy")
    print("weights             1       15       29        30       15        1    after training")
    accuracy = {}
    for name, (f, std) in INITIALIZATIONS.items():
        rng = np.random.default_rng(seed)
        net = [(rng.standard_normal((d_in, d_out)) * std(d_in, d_out), np.zeros(d_out))
               for d_in, d_out in zip(sizes, sizes[1:])]
        values = [layer.data.std() for layer in activations(as_tensors(net), X, f)]
        slopes = [g.std() for g in net_gradients(net, X, y, f)[1][::2]]
        train_net(rng, net, X, y, adam, 0.001, steps, f=f)
        logits = activations(as_tensors(net), X, f)[-1].data
        accuracy[name] = np.mean(logits.argmax(1) == y)
        numbers = [values[0], values[14], values[28], slopes[29], slopes[14], slopes[0]]
        print(f"{name:14}" + "".join(f"{number:9.0e}" for number in numbers)
              + f"{accuracy[name]:13.0%}", flush=True)
    return accuracy


def compare_clipping(seeds, hidden, steps):
    """Momentum at a rate of 1, with and without clipping: the losses by max_norm."""
    losses = {}
    print("\nClipping: momentum at a rate of 1, too high without it. The loss of each seed:")
    for max_norm in math.inf, 0.3:
        losses[max_norm] = final_losses(seeds, hidden, momentum, 1.0, steps, max_norm=max_norm)
        print(f"  gradients of norm {max_norm:3} at most: "
              + "  ".join(f"{loss:.4f}" for loss in losses[max_norm]))
    return losses


def main(steps=200, hidden=32, seeds=3, seed=0):
    """Race seven optimizers, then compare schedules, initializations, and clipping.

    steps   steps of each training; half as many for the deep networks
    hidden  number of units in each hidden layer, but for the deep networks
    seeds   number of trainings for each result of race, schedules and clipping
    seed    the first random seed

    Returns {"gradient_error", "valley" and "race": loss by optimizer, "schedules": loss by name,
    "initializations": accuracy by name, "clipping": losses by max_norm}.
    """
    error = check_gradients(seed)
    assert error < 1e-6
    print("Gradients of a network with cross_entropy against central differences, relative error: "
          f"{error:.0e}\n")
    result = {"gradient_error": error}

    print("A long valley, 30 times as curved across as along, with no noise. Each optimizer's way\n"
          "to the bottom, +, in steps 0 to 9 and then o, at the best of 15 rates to start with,\n"
          "and its loss after 50 steps. A path may leave a picture. A band, of dots or blank,\n"
          "is 6 times as high as the next one inward. The valley lies askew, so that a rate for\n"
          "each weight does not make it round. Muon's matrix has one row here: it only sets the\n"
          "length of a step.\n")
    result["valley"] = valley()

    runs = range(seed, seed + seeds)
    print(f"300 points on a spiral with five arms; {steps} steps on batches of 60, at rates that "
          f"fall.\nLoss on all points at the end (a guess: ln 5 = {math.log(5):.4f}), mean and "
          f"spread of {seeds} seeds.\nRates do not compare: SGD multiplies dw by its rate, while "
          "Adam's is about what each weight moves.")
    result["race"] = race(steps, runs, hidden)
    print("AdamW's decay costs loss on these points: it is meant for points that are new.")

    print("\nSchedules: factor of the rate by step, and the loss of momentum at three rates.")
    result["schedules"] = compare_schedules(steps, runs, hidden)
    print("Decaying schedules tolerate a larger learning rate and reach a lower loss.")

    print("\nInitializations of a network with 30 layers, trained by Adam at a rate of 0.001:")
    result["initializations"] = compare_initializations(seed, steps // 2 + 1)
    print("From zeros no W gets a gradient: every h but X is 0, and every da but the last. Adam\n"
          "divides by the size of a gradient, so even 'too large' learns; 'too small' does not:\n"
          "its gradients are far below eps, 1e-8. Gradients of W are about alike in all layers:\n"
          "in h^T da, h fades or grows forward, and da backward.")
    result["clipping"] = compare_clipping(runs, hidden, steps)
    return result


# ---- carried from 01, 04 and 05, code unchanged: explained there ----------------------------

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


def init_net(rng, sizes):
    """Random weights [(W, b), ...] of a network with layers of these sizes, the inputs first.

    A standard deviation of sqrt(2 / inputs) suits ReLU (He 2015; 06 shows
    why).
    """
    return [(rng.standard_normal((d_in, d_out)) * math.sqrt(2 / d_in), np.zeros(d_out))
            for d_in, d_out in zip(sizes, sizes[1:])]


def spiral(rng, n, arms=3, noise=0.15):
    """n points on each of the arms of a spiral: X (n * arms, 2), the arm y (n * arms,)."""
    radius, arm = np.tile(np.linspace(0.1, 1, n), arms), np.repeat(np.arange(arms), n)
    angle = 2 * math.pi * arm / arms + 4 * radius + noise * rng.standard_normal(n * arms)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), arm


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

    __array_ufunc__ = None  # NumPy leaves array + Tensor to __radd__; so for -, *, /, @
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

    def __rmatmul__(self, x):
        """x @ self for an array x. It is data, so the usual product saves the gradient for it."""
        x = np.asarray(x, self.data.dtype)
        if x.ndim < 2 or self.data.ndim != 2:
            return Tensor(x) @ self
        return Tensor(x @ self.data, (self,), lambda g: (as_rows(x).T @ as_rows(g),))

    def tanh(self):
        y = np.tanh(self.data)
        return Tensor(y, (self,), lambda g: (g * (1 - y * y),))

    def relu(self):
        y = np.maximum(self.data, 0)
        return Tensor(y, (self,), lambda g: (g * (y > 0),))


def as_tensors(weights):
    """The weights, a dict of arrays by name or a network [(W, b), ...], as new leaves."""
    if isinstance(weights, dict):
        return {name: Tensor(array) for name, array in weights.items()}
    return [(Tensor(W), Tensor(b)) for W, b in weights]


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
