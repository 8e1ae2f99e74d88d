"""02  Activations: why layers need a bend between them.

Carried from 01: numeric_gradient, relative_error, refuse, plot, command_line.
New here: a hidden layer, activation functions and their derivatives, gradients by hand.

XOR is 1 if just one of two inputs is 1. One neuron, z = w1 x1 + w2 x2 + b, cannot say 1 by z > 0:
z(0,1) + z(1,0) = z(0,0) + z(1,1), but the left side would have to be positive, the right not.
More layers alone do not help: (X W1) W2 = X (W1 W2) is one layer again. An activation f between
them does, if it is not a straight line. The rows of X are N examples of D inputs, the columns of
W1 are K neurons, also called units: the hidden layer. a_ij = (sum over d of X_id W1_dj) + b1_j:
    a = X W1 + b1    (N, K)        h = f(a)    (N, K)        z = h W2 + b2    (N, 1)
z is the logit. With e = 2.718 now, sigmoid(z) = 1 / (1 + e^-z) is the probability that the net
gives to y = 1. The loss is minus the logarithm of the probability given to the right answer:
for y = 1, -ln sigmoid(z) = ln(1 + e^-z) = ln(1 + e^z) - z, and for y = 0, -ln(1 - sigmoid(z)) =
ln(1 + e^z). (With the mean square error of sigmoid(z), a net that is sure and wrong would get
hardly any gradient, as sigmoid' is near 0 there.) In one formula,
    L = mean(ln(1 + e^z) - y z)
Backwards through the same lines, by the chain rule (dz stands for dL/dz, and so on; * multiplies
entry by entry, ^T swaps rows and columns; proof in 04):
    dz = (sigmoid(z) - y) / N      because (ln(1 + e^z))' = e^z / (1 + e^z) = sigmoid(z)
    dW2 = h^T dz      db2 = sum of dz over the examples      dh = dz W2^T
    da = dh * f'(a)   dW1 = X^T da    db1 = sum of da over the examples
The bend has its price: on its way back, the gradient is multiplied by f'(a) and by a matrix in each
layer. If together they shorten it, it vanishes with depth: sigmoid' is at most 1/4; relu' is 0 for
about half of the units, but weights sqrt(2) times as large make up for that (06).

Run       python 02_activations.py          (--activation=relu to see the plane through ReLUs)
Expect    2 to 4 s. Without a bend at most 75 % on XOR, with one 100 %; after 20 layers of sigmoids
          about 1e-13 of the gradient is left
Left out  more than one hidden layer, and why dW = X^T da (04); better optimizers (06)
"""
import argparse, inspect, math, os, re, sys

import numpy as np

# N examples, D inputs, K hidden units; X (N, D), y (N, 1)


# ---- carried from 01, unchanged -----------------------------------------------------------------

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


def plot(curves, width=72, height=14):
    """{mark: (x, y), ...} drawn as text, each curve with its mark, later ones on top."""
    xs, ys = (np.concatenate([curve[axis] for curve in curves.values()]) for axis in (0, 1))
    left, right, low, high = min(xs), max(xs), min(ys), max(ys)
    canvas = [[" "] * width for _ in range(height)]
    for mark, (x, y) in curves.items():
        column = (np.array(x) - left) / max(right - left, 1e-12) * (width - 1)
        row = (high - np.array(y)) / max(high - low, 1e-12) * (height - 1)
        for i, j in zip(np.rint(row).astype(int), np.rint(column).astype(int)):
            canvas[i][j] = mark
    lines = [f"{label:9.3f} |{''.join(line)}"
             for label, line in zip(np.linspace(high, low, height), canvas)]
    return "\n".join(lines + [f"{'':10}+{'-' * width}", f"{left:>12g}{right:>{width - 1}g}"])


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


# ---- new here -----------------------------------------------------------------------------------

def sigmoid(x):
    """1 / (1 + e^-x), through tanh, which overflows nowhere."""
    return 0.5 * (1 + np.tanh(0.5 * x))


ROOT = math.sqrt(8 / math.pi)


def gelu(x):
    """x times the share of the standard normal distribution below x (Hendrycks 2016), nearly.

    That share is (1 + tanh u) / 2 = sigmoid(2 u) within 0.0002, u = sqrt(2/pi) (x + 0.044715 x^3).
    """
    return x * sigmoid(ROOT * (x + 0.044715 * x * x * x))           # 2 sqrt(2/pi) = sqrt(8/pi)


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


def new_weights(rng, D, K):
    """Random weights, so that a is about as large as X, and z as h; biases 0."""
    return {"W1": rng.standard_normal((D, K)) / math.sqrt(D), "b1": np.zeros(K),
            "W2": rng.standard_normal((K, 1)) / math.sqrt(K), "b2": np.zeros(1)}


def logits(weights, X, name):
    """z (N, 1) of the net. Above 0 it says 1, as then sigmoid(z) > 1/2."""
    return ACTIVATIONS[name][0](X @ weights["W1"] + weights["b1"]) @ weights["W2"] + weights["b2"]


def learn(weights, X, y, name, steps, lr):
    """Gradient descent on the weights, in place; returns the accuracy."""
    with np.errstate(all="ignore"):                     # divergence shows in the loss
        for step in range(steps):
            loss, gradients = loss_and_gradients(weights, X, y, name)
            refuse(not math.isfinite(loss), f"{name} diverges at step {step}: lower --lr")
            for key in weights:
                weights[key] -= lr * gradients[key]
        z = logits(weights, X, name)
    refuse(not np.isfinite(z).all(), f"{name} diverges: lower --lr")
    return np.mean((z > 0) == y)


def circles(rng, n):
    """n points on a disc of radius 1 and n in a ring around it; X (2n, 2), y (2n, 1)."""
    radius = np.concatenate([np.sqrt(rng.random(n)), 1.5 + 0.7 * rng.random(n)])
    angle = rng.uniform(0, 2 * math.pi, 2 * n)
    X = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return X, np.repeat([[0.0], [1.0]], n, 0)


def draw_plane(weights, name, X, y):
    """What the net says of the plane, # for 1 and . for 0, with some of the points, x and o."""
    u, v = np.meshgrid(np.linspace(-2.4, 2.4, 61), np.linspace(2.4, -2.4, 25))
    says = logits(weights, np.stack([u.ravel(), v.ravel()], 1), name).reshape(u.shape) > 0
    canvas = np.where(says, "#", ".")
    for (a, b), right in zip(X[::4], y[::4, 0]):
        canvas[round((2.4 - b) / 0.2), round((a + 2.4) / 0.08)] = "ox"[int(right)]
    print("\n".join("  " + "".join(row) for row in canvas))


def gradient_left(rng, name, depth, gain=1.0, width=64, samples=256):
    """Length of the gradient at the input of so many random layers over that at their output."""
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


# ---- the experiment -----------------------------------------------------------------------------

def main(hidden=16, steps=2000, lr=0.5, activation="tanh", seed=0):
    """XOR and circles, with each activation; what f' does to gradients in deep nets; dead ReLUs.

    hidden: units of the hidden layer
    steps: gradient steps of each training
    lr: learning rate
    activation: the one whose decision regions are drawn
    seed: of weights and points

    Returns a dict: accuracy and gradient_error by activation, gradient_left by activation and
    depth, dead (units) by learning rate.
    """
    refuse(not 2 <= hidden <= 1000, "--hidden must be between 2 and 1000")
    refuse(not 0 < steps <= 10 ** 5, "--steps must be between 1 and 100000")
    refuse(not 0 < lr < math.inf, "--lr must be positive")
    refuse(activation not in ACTIVATIONS, f"--activation must be one of {', '.join(ACTIVATIONS)}")
    refuse(seed < 0, "--seed must be 0 or more")
    rng = np.random.default_rng(seed)

    xor, xor_y = np.array([[0., 0], [0, 1], [1, 0], [1, 1]]), np.array([[0.], [1], [1], [0]])
    w, b = rng.standard_normal((2, 1)), np.zeros(1)
    for _ in range(2000):
        dz = (sigmoid(xor @ w + b) - xor_y) / 4
        w, b = w - xor.T @ dz, b - dz.sum(0)
    z = xor @ w + b
    print(f"One neuron on XOR: loss {np.mean(np.logaddexp(0, z) - xor_y * z):.4f}, which is ln 2 = "
          f"{math.log(2):.4f}: it says "
          f"{' '.join(f'{p:.2f}' for p in sigmoid(z)[:, 0])} to the four.\nNo neuron has a lower "
          "loss: L is convex. Like the bowl of 01, it is lowest where its\ngradient is 0, as here.")

    X, W1, W2 = (rng.standard_normal(shape) for shape in ((5, 2), (2, 8), (8, 3)))
    collapse = relative_error(X @ W1 @ W2, X @ (W1 @ W2))
    assert collapse < 1e-12
    print(f"Two linear layers and the one that replaces them differ by {collapse:.0e}.\n")

    points, right = circles(rng, 100)
    accuracy, errors, trained = {}, {}, {}
    print("Gradients against central differences, relative errors; accuracy after training")
    print("activation   f' error   gradient error   XOR   circles")
    for name, (f, slope) in ACTIVATIONS.items():
        u = np.linspace(-3, 3, 40)                                  # without 0, where ReLU bends
        numeric = (f(u + 1e-6) - f(u - 1e-6)) / 2e-6
        weights = {key: rng.standard_normal(w.shape) for key, w in new_weights(rng, 2, 5).items()}
        few = points[::20], right[::20]                             # few, to keep off the bends
        _, found = loss_and_gradients(weights, *few, name)
        value = lambda: loss_and_gradients(weights, *few, name)[0]
        errors[name] = max(relative_error(found[key], numeric_gradient(value, weights[key]))
                           for key in weights)
        assert errors[name] < 1e-6 and relative_error(slope(u), numeric) < 1e-6
        far = np.array([-1e4, 1e4])
        assert np.isfinite([f(far), slope(far)]).all()
        scores = []
        for X, y in ((xor, xor_y), (points, right)):
            weights = new_weights(rng, 2, hidden)
            scores.append(learn(weights, X, y, name, steps, lr))
        accuracy[name], trained[name] = scores, weights
        print(f"{name:10} {relative_error(slope(u), numeric):10.0e} {errors[name]:16.0e}"
              f" {scores[0]:5.0%} {scores[1]:9.0%}")

    print("\nf as *, f' as o where * does not hide it, from -3 to 3; each has a scale of its own")
    u = np.linspace(-3, 3, 61)
    for group in list(ACTIVATIONS)[:4], list(ACTIVATIONS)[4:]:
        print("".join(f"{'':10}{name:14}" for name in group))
        pictures = [plot({"o": (u, slope(u)), "*": (u, f(u))}, width=12, height=7).split("\n")
                    for f, slope in map(ACTIVATIONS.get, group)]
        for row in zip(*pictures):
            print("".join(line[3:].ljust(24) for line in row))
        print()

    print(f"The plane as the net with {hidden} {activation} units sees it: . is 0 and # is 1. The "
          "points o belong on .\nand the points x on #.")
    draw_plane(trained[activation], activation, points, right)

    depths = [1, 2, 5, 10, 20]
    left = {name: [gradient_left(rng, name, depth) for depth in depths]
            for name in ("sigmoid", "tanh", "relu")}
    left["relu, weights * sqrt(2)"] = [gradient_left(rng, "relu", depth, math.sqrt(2))
                                       for depth in depths]
    print("\nShare of the gradient that is left after so many random layers")
    print(f"{'layers':24}" + "".join(f"{depth:10}" for depth in depths))
    for name, shares in left.items():
        print(f"{name:24}" + "".join(f"{share:10.1e}" for share in shares))

    print("\nReLUs that are 0 for every point get no gradient: they are dead for good")
    dead = {}
    for rate in (1, 10, 100):
        weights = new_weights(rng, 2, 64)
        share = learn(weights, points, right, "relu", 200, rate * lr)
        dead[rate * lr] = int(((points @ weights["W1"] + weights["b1"]) <= 0).all(0).sum())
        print(f"  lr {rate * lr:5g}: {dead[rate * lr]:2} of 64 are dead, accuracy {share:.0%}")
    return {"accuracy": accuracy, "gradient_error": errors, "gradient_left": left, "dead": dead}


if __name__ == "__main__":
    command_line(main)
