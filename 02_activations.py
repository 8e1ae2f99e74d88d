"""02  Activations: why a network needs layers, and something curved between them.

XOR is 1 if exactly one of two inputs is 1: (0, 0) and (1, 1) give 0, (0, 1) and
(1, 0) give 1. One neuron cannot learn it. Suppose that it answers 1 where
z(x1, x2) = w1 x1 + w2 x2 + b is above 0. For every choice of weights
    z(0,1) + z(1,0) = (w2 + b) + (w1 + b) = b + (w1 + w2 + b) = z(0,0) + z(1,1)
But for XOR the left side would have to be positive, and the right side not.

Several neurons can, if something curved or bent stands between them. Put two
neurons side by side, apply max(z, 0), which replaces negative numbers by 0, to
each of them, and let a third neuron read the results: a small network.
    h1 = max(x1 + x2, 0)      h2 = max(x1 + x2 - 1, 0)      answer h1 - 2 h2
For x1 + x2 = 0, 1 and 2 the answer is 0, 1 and 0: XOR. This file lets a network
find such weights by itself. Functions like max(z, 0) are called activations;
also nonlinearities, because their graph is not a straight line.

Run           python 02_activations.py
Expect        2 s. Without an activation about half of the answers are
              right; with one, whichever it is, all of them
Try           --activation=relu   the picture has a border of straight pieces
              --lr=5              longer steps: ReLU fails on XOR
Left out      why layers are fast (03); more than one hidden layer, and the proof
              of the gradients (04); better ways to take a step (06)
Carried from  01: numeric_gradient, relative_error
"""
import argparse, inspect, math, os, sys

import numpy as np


# ---- new here: three activations ------------------------------------------------------------
#     sigmoid(x) = 1 / (1 + e^-x)    a smooth step from 0, far left, to 1, far right
#     tanh(x) = 2 sigmoid(2x) - 1    the same, half as wide and twice as high, from -1 to 1
#     relu(x) = max(x, 0)            0 to the left, x itself to the right
# The program draws them. Their slopes, which we shall need:
#     sigmoid    Let u = 1 + e^-x. Then sigmoid(x), call it s, is 1 / u. With
#                respect to x, u has the slope -e^-x = 1 - u, because e^x is its
#                own slope. With respect to u, 1 / u has the slope -1 / u^2. By
#                the chain rule multiply them: (u - 1) / u^2, which is
#                (1 - 1 / u) * (1 / u) = (1 - s) * s. This is largest in the
#                middle, where s = 1/2, and it is 1/4 there.
#     tanh       Let s = sigmoid(2x). By the chain rule its slope is 2 s (1 - s).
#                Hence the slope of 2 s - 1 is 4 s (1 - s). That is 1 - tanh(x)^2,
#                because 1 - (2 s - 1)^2 = 4 s - 4 s^2.
#     relu       1 where x is positive, and 0 where it is negative. At 0 it has
#                a corner and no slope; we take 0.

def sigmoid(x):
    """1 / (1 + e^-x), computed through tanh, because e^-x can overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def relu(x):
    """max(x, 0), entry by entry: the rectified linear unit."""
    return np.maximum(x, 0)


# ---- new here: a hidden layer, its loss, and its gradients ----------------------------------
# A layer is several neurons, also called units, side by side, each with
# weights and a bias of its own. With two inputs and two units, before any
# activation,
#     a_1 = x_1 * W_11 + x_2 * W_21 + b_1
#     a_2 = x_1 * W_12 + x_2 * W_22 + b_2
# so column k of the table W holds the weights of unit k. The matrix product
# X @ W computes these sums, all but the biases, for many examples at once: the
# rows of X. Entry (i, k) is the dot product of row i of X and column k of W:
# multiply entry by entry, add up.
#     [1 2]     [1 0]     [1*1 + 2*3   1*0 + 2*5]     [ 7 10]
#     [3 4]  @  [3 5]  =  [3*1 + 4*3   3*0 + 4*5]  =  [15 20]
# Our network takes N examples with D inputs, and has K units with an
# activation f, and one more neuron that combines them. The units are called
# hidden, because only that last neuron's answer is seen. From here on W1 and
# b1 hold the weights and biases of all units, W2 and b2 those of the last
# neuron.
#     a = X @ W1 + b1       (N, K) = (N, D) @ (D, K) + (K,), b1 added to each row
#     h = f(a)              (N, K), entry by entry
#     z = h @ W2 + b2       (N, 1) = (N, K) @ (K, 1) + (1,)
#
# Without f, and without the biases, z = (X @ W1) @ W2. In a product of
# matrices the brackets may be moved, so z = X @ (W1 @ W2), one layer with the
# weights W1 @ W2. (The biases, too, merge into one.) Layers without an
# activation are called linear: however many we stack, they do no more than
# one.
#
# The right answers y are 1 or 0. z can be any number; sigmoid(z) lies between
# 0 and 1, and we read it as the probability, in the network's opinion, that
# the right answer is 1. (z itself is called the logit.) A good loss is 0 if
# the right answer gets probability 1, and grows without limit as this
# probability goes to 0; the squared error of 01 would never be above 1. Minus
# the natural logarithm does that: -ln 1 = 0, -ln 0.5 = 0.69 and
# -ln 0.01 = 4.6. To compute it, multiply 1 / (1 + e^-z) in numerator and
# denominator by e^z:
#     sigmoid(z) = e^z / (e^z + 1)        1 - sigmoid(z) = 1 / (e^z + 1)
# With ln(p / q) = ln p - ln q this makes
#     y = 1    -ln(sigmoid(z))     = ln(e^z + 1) - ln(e^z) = ln(1 + e^z) - z
#     y = 0    -ln(1 - sigmoid(z)) = ln(e^z + 1) - ln(1)   = ln(1 + e^z)
# In one formula, as y is 1 or 0, it is ln(1 + e^z) - y * z. That is the loss
# of one example; L is the mean over all N. The slope of ln(u) is 1 / u, so for
# the z of each example
#     dL/dz = (e^z / (1 + e^z) - y) / N = (sigmoid(z) - y) / N
#
# From here we go backwards through the network, by the chain rule. Write dz
# for dL/dz, dh for dL/dh, and so on. Call the entries of W2 v_1, v_2, ..., so
# that z = h_1 * v_1 + h_2 * v_2 + ... + b2.
#     v_1 is multiplied by h_1, as w was by x in 01, so its slope is h_1 * dz,
#         added up over the examples, because they all use the same v_1.
#     b2  is added, so its slope is dz, added up as well.
#     h_1 is multiplied by v_1, so dh_1 = v_1 * dz in each example.
#     a_1 goes through f, so da_1 is dh_1 times the slope of f at a_1.
#     W1 and b1 get their slopes from X and da as W2 and b2 do from h and dz.
# In the code .T turns rows into columns, and * goes entry by entry. Row k of
# h.T holds h_k for all examples, so its dot product with dz is the sum above:
# h.T @ dz. And dz @ W2.T multiplies the dz of each example by each v_k. File
# 04 derives this for any layer; here we measure that it is right.

def loss_and_gradients(weights, X, y, name):
    """Loss of the network on X (N, D) and y (N, 1), and its gradients, named like the weights.

    name is that of the activation.
    """
    f, slope = ACTIVATIONS[name]                        # from the table below
    a = X @ weights["W1"] + weights["b1"]               # (N, K)
    h = f(a)                                            # (N, K)
    z = h @ weights["W2"] + weights["b2"]               # (N, 1)
    loss = np.mean(np.logaddexp(0, z) - y * z)  # ln(e^0 + e^z), which cannot overflow

    dz = (sigmoid(z) - y) / len(X)                      # (N, 1)
    dW2 = h.T @ dz                                   # (K, 1) = (K, N) @ (N, 1)
    db2 = dz.sum(0)                                     # over the examples
    dh = dz @ weights["W2"].T                        # (N, K) = (N, 1) @ (1, K)
    da = dh * slope(a)                                  # through f
    dW1 = X.T @ da                                   # (D, K) = (D, N) @ (N, K)
    db1 = da.sum(0)
    return loss, {"W1": dW1, "b1": db1, "W2": dW2, "b2": db2}


# The weights at the start are random, because units that start alike get equal
# gradients and stay alike. A sum of D random terms around 0 is about sqrt(D)
# times as large as one of them (06), so dividing by sqrt(D) keeps a about as
# large as X.

def init_two_layers(rng, D, K):
    """Random weights around 0, of size about 1 / sqrt(inputs); biases 0."""
    return {"W1": rng.standard_normal((D, K)) / math.sqrt(D), "b1": np.zeros(K),
            "W2": rng.standard_normal((K, 1)) / math.sqrt(K), "b2": np.zeros(1)}


def logits(weights, X, name):
    """z (N, 1); the answer is 1 where z > 0, because sigmoid(z) is above 1/2 there."""
    f, _ = ACTIVATIONS[name]
    return f(X @ weights["W1"] + weights["b1"]) @ weights["W2"] + weights["b2"]


def train_two_layers(weights, X, y, name, steps, lr):
    """Gradient descent, in place; returns the fraction of right answers, nan if it diverges."""
    for _ in range(steps):
        _, gradients = loss_and_gradients(weights, X, y, name)
        for key in weights:
            weights[key] -= lr * gradients[key]
    z = logits(weights, X, name)
    return np.mean((z > 0) == y) if np.isfinite(z).all() else math.nan


# ---- new here: more activations -------------------------------------------------------------
# Which one to use? ReLU is the usual first choice: it is cheap, and where its
# input is positive, the gradient passes unchanged. But a unit whose input is
# negative in every example gets no gradient and learns nothing more: a dead
# ReLU. One step that is too long can do that. The functions below avoid the
# flat part or the corner. GPT-2, a language model of 2019, uses GELU, many
# newer networks SiLU. sigmoid belongs at the output, where a probability is
# wanted.
#     identity   x itself: no activation
#     leaky      0.1 x instead of 0 on the left
#     softplus   ln(1 + e^x), a smooth ReLU; slope e^x / (1 + e^x) = sigmoid(x)
#     silu       x * s with s = sigmoid(x). By the product rule its slope is
#                s + x * s * (1 - s). In the code, 1 - s is sigmoid(-x).
#     gelu       x * sigmoid(u), where the numbers in u(x) are such that this comes
#                close to the exact GELU: x times the probability that a standard
#                normal random number is below x (Hendrycks 2016)

ROOT = math.sqrt(8 / math.pi)


def gelu(x):
    """x sigmoid(u) with u = sqrt(8 / pi) (x + 0.044715 x^3), within 0.0005 of the exact GELU."""
    return x * sigmoid(ROOT * (x + 0.044715 * x * x * x))


def gelu_slope(x):
    """The derivative of gelu: s + x s (1 - s) du/dx with s = sigmoid(u)."""
    s = sigmoid(ROOT * (x + 0.044715 * x * x * x))
    return s + x * s * (1 - s) * ROOT * (1 + 3 * 0.044715 * x * x)


# name:       (f,                                  its derivative)
ACTIVATIONS = {
    "identity": (lambda x: x,                      lambda x: np.ones_like(x)),
    "sigmoid":  (sigmoid,                          lambda x: sigmoid(x) * (1 - sigmoid(x))),
    "tanh":     (np.tanh,                          lambda x: 1 - np.tanh(x) ** 2),
    "relu":     (relu,                             lambda x: 1.0 * (x > 0)),
    "leaky":    (lambda x: np.maximum(x, 0.1 * x), lambda x: np.where(x > 0, 1, 0.1)),
    "softplus": (lambda x: np.logaddexp(0, x),     sigmoid),
    "silu":     (lambda x: x * sigmoid(x),         lambda x: sigmoid(x) * (1 + x * sigmoid(-x))),
    "gelu":     (gelu,                             gelu_slope),
}


# ---- new here: vanishing gradients ----------------------------------------------------------
# On its way back the gradient is multiplied in each layer by the slope of f,
# and then by W.T, which hardly changes its length if W is square and drawn as
# above. (The length is the root of the sum of squares.) sigmoid's slope is at
# most 1/4, and twenty factors of 1/4 make 1e-12: the first layers of a deep
# network would learn next to nothing. ReLU's slope is 0 for about half of the
# units. That halves the sum of squares in each layer, so the length shrinks by
# a factor of only sqrt(2). Weights that are larger by this factor make up for
# it (06).

def gradient_left(rng, name, depth, width=64, samples=256):
    """The length of a gradient after `depth` layers, divided by its length before them."""
    f, slope = ACTIVATIONS[name]
    h = rng.standard_normal((samples, width))
    layers = []
    for _ in range(depth):
        W = rng.standard_normal((width, width)) / math.sqrt(width)
        a = h @ W
        layers.append((W, slope(a)))
        h = f(a)
    start = rng.standard_normal(h.shape)  # any gradient that arrives at the output
    dh = start
    for W, slope_of_a in reversed(layers):
        dh = (dh * slope_of_a) @ W.T       # da, and then dh of the layer below
    return np.linalg.norm(dh) / np.linalg.norm(start)


# ---- the experiment -------------------------------------------------------------------------

XOR_X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR_Y = np.array([[0.0], [1.0], [1.0], [0.0]])


def one_neuron_fails(rng):
    """Train one neuron on XOR, with lr = 1."""
    w = rng.standard_normal((2, 1))
    b = np.zeros(1)
    for _ in range(2000):
        dz = (sigmoid(XOR_X @ w + b) - XOR_Y) / 4
        w -= XOR_X.T @ dz
        b -= dz.sum(0)
    p = sigmoid(XOR_X @ w + b)[:, 0]
    print("One neuron on XOR. Its probabilities for (0,0), (0,1), (1,0) and (1,1) end at\n"
          f"{p.round(2)}. No other weights have a lower loss.")


def draw_activations():
    """Draw ReLU, tanh and sigmoid on one scale, and their slopes on another; s hides t and r."""
    u = np.linspace(-2, 2, 72)
    names = {"r": "relu", "t": "tanh", "s": "sigmoid"}
    print("\nActivations from -2 to 2: r is ReLU, t is tanh, s is sigmoid, in front")
    print(plot({mark: (u, ACTIVATIONS[name][0](u)) for mark, name in names.items()}, height=12))
    print("\nTheir slopes")
    print(plot({mark: (u, ACTIVATIONS[name][1](u)) for mark, name in names.items()}, height=12))


# A second task: does a point lie on a disc (0), or in a ring around it (1)? No
# straight line separates the two.

def circles(rng, n):
    """n points on a disc of radius 1 and n in a ring around it; X (2n, 2), y (2n, 1)."""
    radius = np.concatenate([rng.random(n), 1.5 + 0.7 * rng.random(n)])
    angle = rng.uniform(0, 2 * math.pi, 2 * n)
    X = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return X, np.repeat([[0.0], [1.0]], n, 0)   # n rows of 0, then n rows of 1


def check_activation(rng, name, X, y):
    """The relative error of a small network's gradients against measured slopes."""
    weights = {key: rng.standard_normal(w.shape)
               for key, w in init_two_layers(rng, 2, 5).items()}
    _, found = loss_and_gradients(weights, X, y, name)

    def loss():
        return loss_and_gradients(weights, X, y, name)[0]
    error = relative_error([found[key] for key in weights],
                           [numeric_gradient(loss, w) for w in weights.values()])
    assert error < 1e-6
    return error


def percent(accuracy):
    """The accuracy as text."""
    return "diverges" if math.isnan(accuracy) else f"{accuracy:.0%}"


def compare_activations(rng, points, labels, hidden, steps, lr):
    """Check and train each activation: accuracies, errors and the last weights by name."""
    accuracy, errors, trained = {}, {}, {}
    print("\nRelative error of the network's gradients; right answers on the training points")
    print("activation  gradients    XOR   circles")
    for name in ACTIVATIONS:
        errors[name] = check_activation(rng, name, points[::20], labels[::20])
        accuracy[name] = []
        for X, y in ((XOR_X, XOR_Y), (points, labels)):
            trained[name] = init_two_layers(rng, 2, hidden)
            accuracy[name].append(train_two_layers(trained[name], X, y, name, steps, lr))
        xor, rings = map(percent, accuracy[name])
        print(f"{name:10} {errors[name]:10.0e} {xor:>6} {rings:>9}")
    return accuracy, errors, trained


def draw_plane(weights, name, X, y):
    """Draw the network's answers over the plane, and every fourth of the points."""
    u, v = np.meshgrid(np.linspace(-2.4, 2.4, 61), np.linspace(2.4, -2.4, 25))
    z = logits(weights, np.stack([u.ravel(), v.ravel()], 1), name)
    canvas = np.where(z.reshape(u.shape) > 0, "#", ".")
    for (right, up), label in zip(X[::4], y[::4, 0]):
        canvas[round((2.4 - up) / 0.2), round((right + 2.4) / 0.08)] = "ox"[int(label)]
    print(f"\nThe answers of the network with {name}: . is 0 and # is 1.\n"
          "The points o belong on . and the points x on #.")
    print("\n".join("  " + "".join(row) for row in canvas))


def vanishing_gradients(rng, depths=(1, 2, 5, 10, 20)):
    """What is left of the gradient after so many layers, by activation."""
    left = {name: [gradient_left(rng, name, depth) for depth in depths]
            for name in ("sigmoid", "tanh", "relu")}
    print("\nWhat is left of a gradient's length, by the number of random layers it went through")
    print(f"{'layers':10}" + "".join(f"{depth:10}" for depth in depths))
    for name, fractions in left.items():
        print(f"{name:10}" + "".join(f"{fraction:10.1e}" for fraction in fractions))
    return left


def main(hidden=16, steps=2000, lr=0.5, activation="tanh", seed=0):
    """XOR and circles with each activation, and vanishing gradients in deep networks.

    hidden      number of hidden units
    steps       steps of gradient descent in each training
    lr          learning rate
    activation  the activation whose answers are drawn
    seed        random seed of the weights and points

    Returns {"accuracy", "gradient_error" by activation, "gradient_left" by activation and depth}.
    """
    if activation not in ACTIVATIONS:
        sys.exit(f"error: --activation must be one of {', '.join(ACTIVATIONS)}")
    rng = np.random.default_rng(seed)
    one_neuron_fails(rng)
    draw_activations()
    points, labels = circles(rng, 100)
    with np.errstate(all="ignore"):        # a training that diverges overflows
        accuracy, errors, trained = compare_activations(rng, points, labels, hidden, steps, lr)
        draw_plane(trained[activation], activation, points, labels)
        left = vanishing_gradients(rng)
    return {"accuracy": accuracy, "gradient_error": errors, "gradient_left": left}


# ---- carried from 01, code unchanged: explained there ---------------------------------------

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
