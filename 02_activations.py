"""02  Activations: why a network needs a nonlinearity between its layers.

XOR is 1 if exactly one of two inputs is 1. One neuron cannot compute it: let it
say 1 where z = w1 x1 + w2 x2 + b is above 0. For every choice of weights
    z(0,1) + z(1,0) = z(0,0) + z(1,1)
but the left side would have to be positive and the right side not. More layers
alone do not help, because two linear layers are one linear layer. With a
nonlinear function between them, the activation, a network can learn XOR.

Run           python 02_activations.py
Expect        2 to 4 s. Without a nonlinearity at most 75 % on XOR, with one
              100 %; after 20 layers of sigmoids about 1e-13 of the gradient
              is left
Try           --activation=relu   the plane as a network of ReLUs divides it
              --lr=5              a larger rate; what diverges says so in its row
Left out      more than one hidden layer, and why dW = X^T da (04); better
              optimizers (06)
Carried from  01: numeric_gradient, relative_error
"""
import argparse, inspect, math, os, sys

import numpy as np

# N examples, D inputs, K hidden units; X (N, D), y (N, 1)


# ---- new here: activation functions and their derivatives -----------------------------------

def sigmoid(x):
    """1 / (1 + e^-x), computed through tanh, which cannot overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


ROOT = math.sqrt(8 / math.pi)


def gelu(x):
    """x times the probability that a standard normal number is below x (Hendrycks 2016).

    That probability is sigmoid(2 u) within 0.0002, with u = sqrt(2/pi) (x +
    0.044715 x^3).
    """
    return x * sigmoid(ROOT * (x + 0.044715 * x * x * x))  # 2 sqrt(2/pi) = sqrt(8/pi)


def gelu_slope(x):
    """The derivative of gelu, by the product rule and sigmoid' = s (1 - s)."""
    s = sigmoid(ROOT * (x + 0.044715 * x * x * x))
    return s + x * s * (1 - s) * ROOT * (1 + 3 * 0.044715 * x * x)


# The derivatives, with s = sigmoid(x) = 1 / (1 + e^-x):
#   sigmoid     s' = e^-x s^2 = s (1 - s), since e^-x s = 1 - s
#   tanh        2 sigmoid(2x) - 1, so 4 s (1 - s) at 2x, which is 1 - tanh^2
#   softplus    ln(1 + e^x), so s
#   SiLU        x s, so s + x s (1 - s), and 1 - s = sigmoid(-x)
#   ReLU        has none at 0; we take 0


# name:       (f,                                 f')
ACTIVATIONS = {
    "identity": (lambda x: x,                     lambda x: np.ones_like(x)),
    "sigmoid":  (sigmoid,                         lambda x: sigmoid(x) * (1 - sigmoid(x))),
    "tanh":     (np.tanh,                         lambda x: 1 - np.tanh(x) ** 2),
    "relu":     (lambda x: np.maximum(x, 0),      lambda x: 1.0 * (x > 0)),
    "leaky":    (lambda x: np.maximum(x, 0.1 * x), lambda x: np.where(x > 0, 1, 0.1)),
    "softplus": (lambda x: np.logaddexp(0, x),    sigmoid),
    "silu":     (lambda x: x * sigmoid(x),        lambda x: sigmoid(x) * (1 + x * sigmoid(-x))),
    "gelu":     (gelu,                            gelu_slope),
}


# ---- new here: a hidden layer, its loss and its gradients -----------------------------------
# The rows of X are N examples of D inputs, the columns of W1 are K neurons,
# also called units: the hidden layer. With a_ij = (sum over d of X_id W1_dj) +
# b1_j,
#     a = X W1 + b1    (N, K)        h = f(a)    (N, K)        z = h W2 + b2    (N, 1)
# z is called the logit, and sigmoid(z) is the probability that the network
# gives to y = 1. The loss is minus the logarithm of the probability that it
# gives to the right answer:
#     for y = 1    -ln sigmoid(z)       = ln(1 + e^-z) = ln(1 + e^z) - z
#     for y = 0    -ln(1 - sigmoid(z))  = ln(1 + e^z)
# In one formula, L = mean(ln(1 + e^z) - y z). (With the mean squared error of
# sigmoid(z), a network that is sure and wrong would get hardly any gradient:
# sigmoid' is near 0 there.)
#
# Backwards through the same lines, by the chain rule. dz stands for dL/dz, and
# so on; * multiplies entry by entry, ^T swaps rows and columns. The products
# with matrices are proved in 04.
#     dz = (sigmoid(z) - y) / N      because d ln(1 + e^z) / dz = e^z / (1 + e^z) = sigmoid(z)
#     dW2 = h^T dz      db2 = sum of dz over the examples      dh = dz W2^T
#     da = dh * f'(a)   dW1 = X^T da    db1 = sum of da over the examples

def loss_and_gradients(weights, X, y, name):
    """Loss of the net on X (N, D) and y (N, 1), and its gradients, named like the weights."""
    f, slope = ACTIVATIONS[name]
    a = X @ weights["W1"] + weights["b1"]
    h = f(a)
    z = h @ weights["W2"] + weights["b2"]
    loss = np.mean(np.logaddexp(0, z) - y * z)

    dz = (sigmoid(z) - y) / len(X)
    da = dz @ weights["W2"].T * slope(a)
    return loss, {"W1": X.T @ da, "b1": da.sum(0), "W2": h.T @ dz, "b2": dz.sum(0)}


def init_two_layers(rng, D, K):
    """Random weights, so that a is about as large as X, and z as h; biases 0."""
    return {"W1": rng.standard_normal((D, K)) / math.sqrt(D), "b1": np.zeros(K),
            "W2": rng.standard_normal((K, 1)) / math.sqrt(K), "b2": np.zeros(1)}


def logits(weights, X, name):
    """z (N, 1) of the network, which says 1 where z > 0, because then sigmoid(z) > 1/2."""
    return ACTIVATIONS[name][0](X @ weights["W1"] + weights["b1"]) @ weights["W2"] + weights["b2"]


def train_two_layers(weights, X, y, name, steps, lr):
    """Gradient descent on the weights, in place; the accuracy, or nan if it diverges."""
    with np.errstate(all="ignore"):              # divergence shows in the loss
        for _ in range(steps):
            loss, gradients = loss_and_gradients(weights, X, y, name)
            if not math.isfinite(loss):
                return math.nan
            for key in weights:
                weights[key] -= lr * gradients[key]
        z = logits(weights, X, name)
    return np.mean((z > 0) == y) if np.isfinite(z).all() else math.nan


def percent(accuracy):
    """The accuracy as text."""
    return "diverges" if math.isnan(accuracy) else f"{accuracy:.0%}"


def circles(rng, n):
    """n points on a disc of radius 1 and n in a ring around it; X (2n, 2), y (2n, 1)."""
    radius = np.concatenate([np.sqrt(rng.random(n)), 1.5 + 0.7 * rng.random(n)])
    angle = rng.uniform(0, 2 * math.pi, 2 * n)
    X = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return X, np.repeat([[0.0], [1.0]], n, 0)


def draw_plane(weights, name, X, y):
    """Draw what the network says of the plane, # for 1, . for 0, and some points, x and o."""
    u, v = np.meshgrid(np.linspace(-2.4, 2.4, 61), np.linspace(2.4, -2.4, 25))
    with np.errstate(all="ignore"):            # the training may have diverged
        z = logits(weights, np.stack([u.ravel(), v.ravel()], 1), name)
    says = z.reshape(u.shape) > 0
    canvas = np.where(says, "#", ".")
    for (a, b), right in zip(X[::4], y[::4, 0]):
        canvas[round((2.4 - b) / 0.2), round((a + 2.4) / 0.08)] = "ox"[int(right)]
    print("\n".join("  " + "".join(row) for row in canvas))


# A nonlinearity has its price. On its way back, the gradient is multiplied by
# f'(a) and by a matrix in each layer. If together they make it shorter, it
# vanishes with depth. sigmoid' is at most 1/4; relu' is 0 for about half of
# the units, but weights that are sqrt(2) times as large make up for that (06).

def gradient_left(rng, name, depth, gain=1.0, width=64, samples=256):
    """The gradient's norm at the input of `depth` random layers, divided by that at the output."""
    f, slope = ACTIVATIONS[name]
    h, slopes, weights = rng.standard_normal((samples, width)), [], []
    for _ in range(depth):
        weights.append(rng.standard_normal((width, width)) * gain / math.sqrt(width))
        a = h @ weights[-1]
        slopes.append(slope(a))
        h = f(a)
    dh = start = rng.standard_normal(h.shape)
    for W, slope_of_a in zip(reversed(weights), reversed(slopes)):
        dh = (dh * slope_of_a) @ W.T
    return np.linalg.norm(dh) / np.linalg.norm(start)


# ---- the experiment ---------------------------------------------------------------------------

XOR_X = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
XOR_Y = np.array([[0.0], [1.0], [1.0], [0.0]])


def one_neuron_fails(rng):
    """Train one neuron on XOR; more linear layers would be no more than that."""
    w = rng.standard_normal((2, 1))
    b = np.zeros(1)
    for _ in range(2000):
        dz = (sigmoid(XOR_X @ w + b) - XOR_Y) / 4
        w -= XOR_X.T @ dz
        b -= dz.sum(0)
    z = XOR_X @ w + b
    loss = np.mean(np.logaddexp(0, z) - XOR_Y * z)
    print(f"One neuron on XOR: loss {loss:.4f}, which is ln 2 = {math.log(2):.4f}: it says "
          f"{' '.join(f'{p:.2f}' for p in sigmoid(z)[:, 0])} to the four.\nNo neuron has a lower "
          "loss: L is convex, so it is lowest where its gradient is 0,\nas here.")
    X, W1, W2 = (rng.standard_normal(shape) for shape in ((5, 2), (2, 8), (8, 3)))
    collapse = relative_error(X @ W1 @ W2, X @ (W1 @ W2))
    assert collapse < 1e-12
    print(f"Two linear layers and the one that replaces them differ by {collapse:.0e}.\n")


def check_activation(rng, name, X, y):
    """The relative errors of f' and of the gradients of a small network, against differences."""
    f, slope = ACTIVATIONS[name]
    u = np.linspace(-3, 3, 40)             # without 0, where ReLU has a corner
    slope_error = relative_error(slope(u), (f(u + 1e-6) - f(u - 1e-6)) / 2e-6)
    weights = {key: rng.standard_normal(w.shape)
               for key, w in init_two_layers(rng, 2, 5).items()}
    _, found = loss_and_gradients(weights, X, y, name)

    def loss():
        return loss_and_gradients(weights, X, y, name)[0]
    error = relative_error([found[key] for key in weights],
                           [numeric_gradient(loss, w) for w in weights.values()])
    assert slope_error < 1e-6 and error < 1e-6
    far = np.array([-1e4, 1e4])
    assert np.isfinite([f(far), slope(far)]).all()
    return slope_error, error


def compare_activations(rng, points, labels, hidden, steps, lr):
    """Check and train each activation: accuracies, errors and weights by name."""
    accuracy, errors, trained = {}, {}, {}
    print("Gradients against central differences, relative errors; accuracy after training")
    print("activation   f' error   gradient error   XOR   circles")
    for name in ACTIVATIONS:
        slope_error, errors[name] = check_activation(rng, name, points[::20], labels[::20])
        accuracy[name] = []
        for X, y in ((XOR_X, XOR_Y), (points, labels)):
            trained[name] = init_two_layers(rng, 2, hidden)
            accuracy[name].append(train_two_layers(trained[name], X, y, name, steps, lr))
        xor, circles = map(percent, accuracy[name])
        print(f"{name:10} {slope_error:10.0e} {errors[name]:16.0e} {xor:>5} {circles:>9}")
    return accuracy, errors, trained


def draw_activations():
    """Thumbnails of the activations and their derivatives, four in a row."""
    print("\nf as *, f' as o where * does not hide it, from -3 to 3; each has a scale of its own")
    u = np.linspace(-3, 3, 61)
    for group in list(ACTIVATIONS)[:4], list(ACTIVATIONS)[4:]:
        print("".join(f"{'':10}{name:14}" for name in group))
        pictures = [plot({"o": (u, slope(u)), "*": (u, f(u))}, width=12, height=7).split("\n")
                    for f, slope in map(ACTIVATIONS.get, group)]
        for row in zip(*pictures):
            print("".join(line[3:].ljust(24) for line in row))
        print()


def vanishing_gradients(rng, depths=(1, 2, 5, 10, 20)):
    """What is left of the gradient after so many layers, by activation."""
    left = {name: [gradient_left(rng, name, depth) for depth in depths]
            for name in ("sigmoid", "tanh", "relu")}
    left["relu, weights * sqrt(2)"] = [gradient_left(rng, "relu", depth, math.sqrt(2))
                                       for depth in depths]
    print("\nFraction of the gradient that is left after so many random layers")
    print(f"{'layers':24}" + "".join(f"{depth:10}" for depth in depths))
    for name, fractions in left.items():
        print(f"{name:24}" + "".join(f"{fraction:10.1e}" for fraction in fractions))
    return left


def dead_relus(rng, points, labels, lr):
    """How many hidden units are 0 for every point after training at a large rate, by rate."""
    print("\nReLUs that are 0 for every point get no gradient: they are dead for good")
    dead = {}
    for rate in lr, 10 * lr, 100 * lr:
        weights = init_two_layers(rng, 2, 64)
        accuracy = train_two_layers(weights, points, labels, "relu", 200, rate)
        if math.isnan(accuracy):
            print(f"  lr {rate:5g}: diverges")
            continue
        a = points @ weights["W1"] + weights["b1"]
        dead[rate] = int((a <= 0).all(0).sum())
        print(f"  lr {rate:5g}: {dead[rate]:2} of 64 are dead, accuracy {percent(accuracy)}")
    return dead


def main(hidden=16, steps=2000, lr=0.5, activation="tanh", seed=0):
    """XOR and circles with each activation; vanishing gradients in deep networks; dead ReLUs.

    hidden      number of hidden units
    steps       steps of gradient descent in each training
    lr          learning rate
    activation  the activation whose decision regions are drawn
    seed        random seed of the weights and points

    Returns {"accuracy", "gradient_error" by activation, "gradient_left" by activation and depth,
    "dead": the number of dead units by learning rate}.
    """
    if activation not in ACTIVATIONS:
        sys.exit(f"error: --activation must be one of {', '.join(ACTIVATIONS)}")
    rng = np.random.default_rng(seed)
    one_neuron_fails(rng)
    points, labels = circles(rng, 100)
    accuracy, errors, trained = compare_activations(rng, points, labels, hidden, steps, lr)
    draw_activations()
    print(f"The plane as the network with {hidden} {activation} units sees it: . is 0 and # is 1. "
          "The points o belong\non . and the points x on #.")
    draw_plane(trained[activation], activation, points, labels)
    left = vanishing_gradients(rng)
    dead = dead_relus(rng, points, labels, lr)
    return {"accuracy": accuracy, "gradient_error": errors, "gradient_left": left, "dead": dead}


# ---- carried from 01, code unchanged: explained there ---------------------------------------

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
