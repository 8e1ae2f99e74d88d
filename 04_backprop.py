"""04  Backpropagation: every gradient of a deep network, by hand.

A multilayer perceptron is a chain of layers as in 03, with an activation (02)
between them. To train it we need the slope of the loss with respect to every
weight of every layer. We could measure them as in 01: move each weight up and
down, and compute the loss again. The network below has 1,251 weights and
biases, which would take 2,502 forward passes. Backpropagation finds all the
slopes at once, in the time of two to three forward passes.

It rests on one fact, the chain rule for an x that feeds several numbers u, v, ...
The slope of L with respect to x is then a sum with a term for each of them: how
fast u grows with x, times how fast L grows with u; the same for v; and so on. Let
u = 3 x, v = 5 x and L = u + 2 v. If x grows by a tiny t, u grows by 3 t and v by
5 t, so L grows by 3 t * 1 + 5 t * 2. Divided by t, this is
    dL/dx = 3 * 1 + 5 * 2 = 13        and indeed L = 3 x + 10 x = 13 x

Run           python 04_backprop.py
Expect        1 s. Gradients agree with measured slopes to 1e-8; the network
              learns to tell the three arms of a spiral apart: 100 %
Try           --hidden=4    too few units: 82 % of the points
              --layers=1    no hidden layer, so only straight borders: 58 %
              --lr=3        steps that are too long: all ReLUs of a layer die (02)
Left out      a program that derives the gradients for us (05); better ways to
              use them than plain gradient descent (06)
Carried from  01: numeric_gradient, relative_error
"""
import argparse, inspect, math, os, sys, timeit

import numpy as np

# N examples, K classes; layer l has D_l inputs and D_(l+1) outputs. X (N, D_0)
# holds the examples, y (N,) the right class of each, a number from 0 to K - 1.


# ---- new here: the network forward ----------------------------------------------------------
# A network is a list of layers (W, b), counted from 0 as Python does. Layer l
# takes h_l, the outputs of the layer below it, and computes
#     a_l = h_l @ W_l + b_l        (N, D_l) @ (D_l, D_(l+1)) + (D_(l+1),)
#     h_(l+1) = max(a_l, 0)        ReLU
# with h_0 = X. The last layer has no ReLU. Its a is called z, the logits, one
# for each class: the larger z_k is compared with the others, the more the
# network believes in class k.

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


# Softmax turns the K logits of an example into probabilities: each e^(z_k) is
# positive, and divided by their sum they add up to 1. The logits 2, 1 and 0
# give e^z = 7.39, 2.72 and 1.00, with the sum 11.11, so p = 0.67, 0.24 and
# 0.09. With two classes, whose logits are 0 and z, the second one has the
# probability e^z / (1 + e^z), as e^0 = 1: the sigmoid of 02. If the same m is
# added to all logits of an example, all e^z are multiplied by e^m, and p stays
# as it is. So we may subtract the largest logit of each row from the row
# first. Then no e^z is above 1, and none can overflow. (keepdims=True keeps
# these numbers as a column, (N, 1), so that each is subtracted from its own
# row.)

def softmax(z):
    """Probabilities (N, K) from logits z (N, K)."""
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


# As in 02, the loss is minus the logarithm of the probability p_y of the right
# class y. It is called the cross-entropy. In the example, if class 1 (the
# second one, as we count from 0) is right, it is -ln(2.72 / 11.11) = 1.41. As
# ln(a / b) = ln a - ln b,
#     -ln p_y = ln(sum of e^(z_k)) - z_y
# In this form p_y itself is not needed. It might be rounded to 0, and -ln 0 is
# infinite.

def mean_loss(z, y):
    """The cross-entropy, averaged over the examples: z (N, K), y (N,)."""
    z = z - z.max(1, keepdims=True)       # the shift cancels in the difference
    rows = np.arange(len(y))        # z[rows, y] takes entry y[i] of each row i
    return np.mean(np.log(np.exp(z).sum(1)) - z[rows, y])


# ---- new here: the network backward ---------------------------------------------------------
# Now walk through the same lines in reverse (Rumelhart 1986), and ask of every
# number on the way how fast the loss L changes with it. We write da for dL/da,
# an array of the same shape as a, and so on.

def backward(net, h, z, y):
    """The gradients [(dW, db), ...] of the mean loss, in the order of the layers."""
    gradients = [None] * len(net)

    # Rule 1, the output. The loss of one example is ln(s) - z_y, where s is
    # the sum of all e^z. If z_k grows, s has the slope e^(z_k), and ln(s) has
    # the slope 1 / s with respect to s. So by the chain rule the first term
    # has the slope e^(z_k) / s = p_k. The second has the slope -1 for k = y,
    # else 0. Together this is p_k - 1 for the right class, and p_k for the
    # others: (0.67, -0.76, 0.09) in the example, the prediction minus the
    # right answer, as in 02. L is the mean of N such losses, so dz is this
    # divided by N.
    da = softmax(z)                             # z is the a of the last layer
    da[np.arange(len(y)), y] -= 1
    da /= len(y)                                # (N, K)

    for l in reversed(range(len(net))):
        W, b = net[l]
        # From here on h, a, W and b are those of layer l; i counts the
        # examples, j the inputs and k the units of this layer.

        # Rule 2, the weights. The weight W_jk occurs in every example i, in
        # a_ik = ... + h_ij * W_jk + ... : if it grows by t, a_ik grows by
        # h_ij * t. So by the fact above dW_jk is the sum over i of
        # h_ij * da_ik. As h_ij is entry (j, i) of h.T, that is row j of h.T
        # times column k of da: entry (j, k) of h.T @ da.
        dW = h[l].T @ da                        # (D_l, N) @ (N, D_(l+1))

        # Rule 3, the biases. b_k is added to a_ik in every example i, with the
        # slope 1. So db_k is the sum over i of da_ik.
        db = da.sum(axis=0)
        gradients[l] = (dW, db)

        if l > 0:                          # h_0 = X is data, and cannot change
            # Rule 4, the layer below. h_ij feeds every unit k of its example,
            # with the slope W_jk. So dh_ij is the sum over k of da_ik * W_jk,
            # row i of da times column j of W.T.
            dh = da @ W.T                       # (N, D_(l+1)) @ (D_(l+1), D_l)
            # h_l is max(a, 0) of the layer below. Its slope is 1 where a > 0,
            # which is where h_l > 0, and 0 elsewhere.
            da = dh * (h[l] > 0)                # and on to that layer
    return gradients

# A layer takes one matrix product forward, h @ W, and two backward, h.T @ da
# and da @ W.T (the first layer only one), each with as many multiplications.
# So forward and backward together cost at most about three forward passes,
# however many weights there are.


# ---- the experiment -------------------------------------------------------------------------

def spiral(rng, n, arms=3, noise=0.15):
    """n points on each of the arms of a spiral: X (n * arms, 2), the arm y (n * arms,)."""
    radius = np.tile(np.linspace(0.1, 1, n), arms)  # the same n radii for each arm
    arm = np.repeat(np.arange(arms), n)             # 0, 0, ..., 1, 1, ...
    angle = 2 * math.pi * arm / arms + 4 * radius + noise * rng.standard_normal(n * arms)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), arm


def check_backward(rng, layers, X, y):
    """Compare backward with measured slopes, on eight points; returns the relative error."""
    net = [(rng.standard_normal(W.shape), rng.standard_normal(b.shape))  # and no b of 0
           for W, b in init_net(rng, [2] + [8] * (layers - 1) + [3])]
    few = rng.choice(len(y), 8)
    X, y = X[few], y[few]

    def loss():
        return mean_loss(forward(net, X)[1], y)
    h, z = forward(net, X)
    found = [array for layer in backward(net, h, z, y) for array in layer]
    measured = [numeric_gradient(loss, array) for layer in net for array in layer]
    error = relative_error(found, measured)
    print(f"Gradients of a small network with {layers} layers against measured slopes: relative "
          f"error {error:.0e}")
    assert error < 1e-6
    return error


def print_progress(step, z, y):
    """Print a line on the logits z of all examples; returns loss and accuracy."""
    loss = mean_loss(z, y)
    accuracy = np.mean(z.argmax(1) == y)     # the class with the largest logit
    print(f"{step:6} {loss:8.4f} {accuracy:9.1%}", flush=True)
    return loss, accuracy


def train_by_hand(net, X, y, lr, steps):
    """Gradient descent on the arrays of the network, in place; the last loss and accuracy."""
    print("\n  step     loss  accuracy")
    for step in range(steps):
        h, z = forward(net, X)
        gradients = backward(net, h, z, y)
        for (W, b), (dW, db) in zip(net, gradients):
            W -= lr * dW                     # in place: net holds these arrays
            b -= lr * db
        if step % max(1, steps // 10) == 0:
            print_progress(step, z, y)
    return print_progress(steps, forward(net, X)[1], y)


def draw_regions(net, X, y):
    """Draw the class that the network gives to each place, and every fourth of the points."""
    u, v = np.meshgrid(np.linspace(-1.1, 1.1, 67), np.linspace(1.1, -1.1, 29))
    places = np.stack([u.ravel(), v.ravel()], 1)
    _, z = forward(net, places)
    canvas = np.array(list(".:#"))[z.argmax(1)].reshape(u.shape)
    for (right, up), arm in zip(X[::4], y[::4]):
        canvas[round((1.1 - up) / 2.2 * 28), round((right + 1.1) / 2.2 * 66)] = "abc"[arm]
    print("\nThe class that the network gives to each place from -1.1 to 1.1: . : or #\n"
          "Every fourth point is drawn: a belongs on ., b on :, and c on #.")
    print("\n".join("  " + "".join(row) for row in canvas))


def cost_of_gradients(net, X, y):
    """Time a forward pass, and forward and backward together; returns their ratio."""
    size = sum(W.size + b.size for W, b in net)
    once = min(timeit.repeat(lambda: mean_loss(forward(net, X)[1], y), number=1, repeat=200))
    both = min(timeit.repeat(lambda: backward(net, *forward(net, X), y), number=1, repeat=200))
    print(f"\nA forward pass, with the loss, takes {once * 1e6:.0f} microseconds. Forward and "
          f"backward take\nas long as {both / once:.1f} of them, and give all {size:,} slopes. To "
          f"measure these takes\n{2 * size:,} forward passes, {2 * size * once / both:,.0f} times "
          "as long.")
    return both / once


def main(layers=3, hidden=32, steps=1000, lr=0.3, points=120, seed=0):
    """Check the gradients, learn a spiral, draw the result, and time backpropagation.

    layers  number of layers, the last one included
    hidden  number of units in each hidden layer
    steps   steps of gradient descent, each on all points
    lr      learning rate
    points  points on each of the three arms
    seed    random seed of points and weights

    Returns {"accuracy", "loss", "gradient_error", "forward_passes": the cost of all gradients}.
    """
    rng = np.random.default_rng(seed)
    X, y = spiral(rng, points)
    error = check_backward(rng, min(layers, 4), X, y)  # of more layers it takes long
    net = init_net(rng, [2] + [hidden] * (layers - 1) + [3])
    with np.errstate(all="ignore"):        # a training that diverges overflows
        loss, accuracy = train_by_hand(net, X, y, lr, steps)
    if not loss < 1e3:                          # also true for nan
        sys.exit("error: the training diverges: lower --lr")
    draw_regions(net, X, y)
    return {"accuracy": accuracy, "loss": loss, "gradient_error": error,
            "forward_passes": cost_of_gradients(net, X, y)}


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
