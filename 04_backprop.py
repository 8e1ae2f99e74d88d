"""04  Backpropagation: the gradient of a network of any depth, by hand.

A multi-layer perceptron is a chain of layers as in 03, with a nonlinearity
between them. To train it we need dL/dW for every weight of every layer. Four
rules, applied from the last layer back to the first, give all of them at once,
for the price of two to three forward passes, however many weights there are.

Run           python 04_backprop.py
Expect        1 s. Gradients agree with differences to 1e-8; 99 % after 100 steps
Try           --layers=2 --hidden=8   a network that is too small for the spiral
Left out      an engine that differentiates for us (05); better steps than plain
              gradient descent (06)
Carried from  01: numeric_gradient, relative_error
"""
import argparse, inspect, math, os, sys, timeit

import numpy as np

# N examples, D_l units in layer l, K classes; X (N, D_0), y (N,) integers
# below K


# ---- new here: the network forward ------------------------------------------------------------
# The layers are l = 1 .. n. With h_0 = X, the N examples as rows,
#     a_l = h_(l-1) W_l + b_l     (N, D_l)      h_l = max(a_l, 0), except after the last layer
#     z = a_n, the logits (N, K)           p = softmax(z), that is p_k = e^(z_k) / sum_j e^(z_j)
#     L = mean over examples of -ln p_y, the cross-entropy; y is the right class of an example

def init_net(rng, sizes):
    """Random weights [(W, b), ...] of a network with layers of these sizes, the inputs first.

    A standard deviation of sqrt(2 / inputs) suits ReLU (He 2015; 06 shows
    why).
    """
    return [(rng.standard_normal((d_in, d_out)) * math.sqrt(2 / d_in), np.zeros(d_out))
            for d_in, d_out in zip(sizes, sizes[1:])]


def forward(net, X):
    """The inputs h_0, h_1, ... of all layers, which backward needs, and the logits z (N, K)."""
    h = [X]
    for W, b in net[:-1]:
        h.append(np.maximum(h[-1] @ W + b, 0))          # (N, D_l)
    W, b = net[-1]
    return h, h[-1] @ W + b                             # (N, K)


def softmax(z):
    """Probabilities (N, K) from logits z (N, K)."""
    e = np.exp(z - z.max(1, keepdims=True))  # the shift cancels; exp cannot overflow
    return e / e.sum(1, keepdims=True)


def mean_loss(z, y):
    """Mean of -ln p_y, as ln(sum_j e^(z_j)) - z_y: p, which may round to 0, is never formed."""
    z = z - z.max(1, keepdims=True)
    return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y])


# ---- new here: the network backward -----------------------------------------------------------
# da_l stands for dL/da_l, and so on; z_k is entry k of an example's row of z.
#  1 The output. For one example, -ln p_y = ln(sum_j e^(z_j)) - z_y. Its first term has the
#    derivative e^(z_k) / sum_j e^(z_j) = p_k with respect to z_k, its second -1 for k = y, else 0.
#    With the 1/N of the mean, dz = (p - onehot(y)) / N, where onehot(y) is 1 in column y, else 0.
#  2 The weights. Let h be h_(l-1), and a that of layer l. If W_jk grows by a small eps, then in
#    every example i, a_ik grows by eps h_ij, and L by the sum of eps h_ij da_ik over i: gradients
#    add up over all paths to L. So dW_jk = sum_i h_ij da_ik, that is dW_l = h_(l-1)^T da_l.
#  3 The biases. b_k was copied to all N rows (broadcast): db_l = sum of da_l over the rows.
#  4 The layer below. h_ij feeds every unit k of its row, by W_jk: dh_ij = sum_k da_ik W_jk, that is
#    dh_(l-1) = da_l W_l^T. ReLU passes it on where a_(l-1) > 0:
#    da_(l-1) = dh_(l-1) * (a_(l-1) > 0).
# Rules 2 and 4 are one product each, of as many operations as the forward one.
# So, counted in products, loss and gradients cost three forward passes at
# most.

def backward(net, h, z, y):
    """Gradients [(dW, db), ...] of mean_loss: the lines of forward in reverse order."""
    da = softmax(z)
    da[np.arange(len(y)), y] -= 1
    da /= len(y)                                        # rule 1: (N, K)
    gradients = []                      # net[l] is layer l + 1, h[l] its input
    for l in reversed(range(len(net))):
        gradients.append((h[l].T @ da, da.sum(0)))              # rules 2 and 3
        if l:
            da = (da @ net[l][0].T) * (h[l] > 0)    # rule 4; h > 0 where a > 0
    return gradients[::-1]


def spiral(rng, n, arms=3, noise=0.15):
    """n points on each of the arms of a spiral: X (n * arms, 2), the arm y (n * arms,)."""
    radius, arm = np.tile(np.linspace(0.1, 1, n), arms), np.repeat(np.arange(arms), n)
    angle = 2 * math.pi * arm / arms + 4 * radius + noise * rng.standard_normal(n * arms)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), arm


def draw_regions(net, X, y):
    """Draw the class that the network gives to each place, . : or #, and points a, b and c."""
    u, v = np.meshgrid(np.linspace(-1.1, 1.1, 67), np.linspace(1.1, -1.1, 29))
    canvas = np.array(list(".:#"))[forward(net, np.stack([u.ravel(), v.ravel()], 1))[1].argmax(1)]
    canvas = canvas.reshape(u.shape)
    for (a, b), label in zip(X[::4], y[::4]):
        canvas[round((1.1 - b) / 2.2 * 28), round((a + 1.1) / 2.2 * 66)] = "abc"[label]
    print("\n".join("  " + "".join(row) for row in canvas))


# ---- the experiment ---------------------------------------------------------------------------

def check_backward(rng, layers, X, y):
    """Compare backward with central differences on eight points; the largest relative error."""
    net = [(rng.standard_normal(W.shape), rng.standard_normal(b.shape))
           for W, b in init_net(rng, [2] + [8] * (layers - 1) + [3])]
    few = rng.choice(len(y), 8)
    X, y = X[few], y[few]
    def loss():
        return mean_loss(forward(net, X)[1], y)
    found = [array for layer in backward(net, *forward(net, X), y) for array in layer]
    expected = [numeric_gradient(loss, array) for layer in net for array in layer]
    largest = np.max([np.abs(array).max() for array in expected])
    print("Gradients against central differences, relative to the largest of all")
    for i, (gradient, numeric) in enumerate(zip(found, expected)):
        error = np.abs(gradient - numeric).max() / largest
        print(f"  {'Wb'[i % 2]}{i // 2 + 1} {str(gradient.shape):9} {error:.0e}")
    error = relative_error(found, expected)
    assert error < 1e-6
    return error


def train_by_hand(net, X, y, lr, steps):
    """Gradient descent on the network, in place; returns the last loss and accuracy."""
    print(f"\n  step     loss  accuracy   (a guess: {math.log(3):.4f}, 33.3%)")
    for step in range(steps + 1):
        with np.errstate(all="ignore"):          # divergence shows in the loss
            h, z = forward(net, X)
            loss = mean_loss(z, y)
        if not loss < 1e3:
            sys.exit(f"error: training diverges at step {step}: lower --lr")
        accuracy = np.mean(z.argmax(1) == y)
        if step % max(1, steps // 10) == 0 or step == steps:
            print(f"{step:6} {loss:8.4f} {accuracy:9.1%}", flush=True)
        if step < steps:
            for (W, b), (dW, db) in zip(net, backward(net, h, z, y)):
                W -= lr * dW
                b -= lr * db
    return loss, accuracy


def price_of_gradients(net, X, y):
    """How many forward passes backpropagation takes, and how many differences would."""
    size = sum(W.size + b.size for W, b in net)
    once = min(timeit.repeat(lambda: mean_loss(forward(net, X)[1], y), number=1, repeat=200))
    both = min(timeit.repeat(lambda: backward(net, *forward(net, X), y), number=1, repeat=200))
    print(f"\nA forward pass takes {once * 1e6:.0f} us. All {size:,} derivatives take "
          f"{both / once:.1f} forward passes by\nbackpropagation, the forward pass included; "
          f"central differences take {2 * size:,} of them,\nwhich is "
          f"{2 * size * once / both:,.0f} times as long.")
    return both / once


def main(layers=3, hidden=32, steps=1000, lr=0.3, points=120, seed=0):
    """Check the gradients, learn the spiral, and compare the price of two ways to a gradient.

    layers  number of weight layers
    hidden  number of units in each hidden layer
    steps   steps of gradient descent on all points
    lr      learning rate
    points  points on each of the three arms
    seed    random seed of points and weights

    Returns {"accuracy", "loss", "gradient_error", "forward_passes": what all gradients cost}.
    """
    rng = np.random.default_rng(seed)
    X, y = spiral(rng, points)
    error = check_backward(rng, min(layers, 4), X, y)
    net = init_net(rng, [2] + [hidden] * (layers - 1) + [3])
    loss, accuracy = train_by_hand(net, X, y, lr, steps)
    print("\nThe plane as the network sees it, in three classes . : and #. The points a belong on\n"
          "., b on : and c on #.")
    draw_regions(net, X, y)
    return {"accuracy": accuracy, "loss": loss, "gradient_error": error,
            "forward_passes": price_of_gradients(net, X, y)}


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
