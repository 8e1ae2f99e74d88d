"""01  One neuron learns to turn Celsius into Fahrenheit.

A neuron multiplies its input x by a weight w, adds a bias b, and predicts
w x + b. Ours starts with w = 0 and b = 0: whatever the thermometer shows, it
predicts 0 degrees Fahrenheit. We have seven readings with the right answers,
so we can measure how wrong that is, in one number, the loss. Learning is this:

    ask how the loss would change if w were a little larger; ask the same
    for b; move each a little in the direction that makes the loss smaller;
    repeat.

The GPT of file 11 learns by the same loop, with 803,584 such numbers
(parameters) instead of 2.

Run           python 01_neuron.py
Expect        0.2 s; F = 1.8000 C + 32.0000 after 100 steps, on input that was
              scaled to mean 0 and standard deviation 1
Try           --lr=0.9    every step overshoots, yet the loss falls exactly as
                          with 0.1
              --lr=1.01   just beyond the limit: the loss grows
              --noise=5   with measurement errors: the loss cannot reach 0
Left out      several inputs, several neurons, curves instead of lines (02)
"""
import argparse, inspect, os, sys

import numpy as np

CELSIUS = np.array([-40.0, -10.0, 0.0, 8.0, 15.0, 22.0, 38.0])


# ---- new here: prediction, loss, gradient, descent ------------------------------------------

def predict(x, w, b):
    """The neuron's output for the input x, a number or an array of them."""
    return w * x + b


# The loss is the mean of the squared errors. Squared, because errors of +5
# and -5 degrees are equally bad and must not cancel, and because one large
# error should count more than several small ones.

def mean_squared_error(x, y, w, b):
    """The loss over all examples: inputs x, right answers y."""
    return np.mean((predict(x, w, b) - y) ** 2)


# The gradient holds two slopes: how fast the loss L grows when w alone is
# increased, dL/dw, and when b alone is, dL/db. For one example the loss is
# e^2, with the error e = w x + b - y. By the chain rule,
#     d(e^2)/dw = 2 e * de/dw = 2 e x      (if w grows by 1, e grows by x)
#     d(e^2)/db = 2 e * de/db = 2 e        (if b grows by 1, e grows by 1)
# and the slope of a mean is the mean of the slopes. At w = b = 0 our seven
# readings give dL/dw = -2316 and dL/db = -81: both w and b should grow.

def gradient(x, y, w, b):
    """dL/dw and dL/db."""
    error = predict(x, w, b) - y
    return np.mean(2 * error * x), np.mean(2 * error)


# Is the derivation right? A slope can be measured: move one number up and
# down by a tiny eps and see how much the loss changes. Every file of this
# course checks its gradients in this way before it uses them.

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


# The gradient says in which direction to move, and how steep it is there, but
# not how far to go. So move by the slope times a small number, the learning
# rate lr. With lr = 0.0001 the first step gives w = 0.2316 and b = 0.0081,
# and the loss falls from 3380 to 2873.

def gradient_descent(x, y, lr, steps):
    """Learn from w = b = 0 with the learning rate lr.

    Returns w, b, and the loss before every step and after the last; fewer
    steps if the training diverges.
    """
    w = b = 0.0
    losses = [mean_squared_error(x, y, w, b)]
    for _ in range(steps):
        if losses[-1] > 1e12:           # it diverges: stop before it overflows
            break
        dw, db = gradient(x, y, w, b)   # the slopes dL/dw and dL/db
        w -= lr * dw                    # minus: the gradient points uphill
        b -= lr * db
        losses.append(mean_squared_error(x, y, w, b))
    return w, b, losses


# How large may the learning rate be? Hold b still. If w grows by 1, each error
# grows by x, so the slope mean(2 e x) grows by c = 2 mean(x^2), the curvature,
# the same for every w. At the bottom the slope is 0, so at the distance d from
# it the slope is c d. A step moves by lr c d and leaves (1 - lr c) d:
#     lr < 1/c            it stops short of the bottom;
#     1/c < lr < 2/c      it lands beyond the bottom, but nearer to it;
#     2/c < lr            it lands farther away each time: training diverges.
# For w, c is 1119; for b it is 2 mean(1^2) = 2. One learning rate must serve
# both. Just below 2/1119, a step leaves 1 - 2 * 2/1119 = 99.6 % of b's
# distance, so after 100 steps 70 % are still there, some 22 of 32 degrees: a
# loss of about 500.
#
# The cure is to scale the input to mean 0 and standard deviation 1: x becomes
# (x - mean) / std. With mean 0, w no longer enters b's slope mean(2 e), nor b
# that of w. And mean(x^2) = 1: both curvatures are 2, and the limit is
# 2/2 = 1. With lr = 0.1 every step leaves 80 % of both distances: after 100
# steps, 0.8^100 = 2e-10 of them.


# ---- the experiment -------------------------------------------------------------------------

def check_gradient(x, y):
    """The error of gradient against measured slopes, at w = 0.7, b = -3."""
    weights = np.array([0.7, -3.0])
    measured = numeric_gradient(        # reads weights afresh at each call
        lambda: mean_squared_error(x, y, *weights), weights)
    return relative_error(gradient(x, y, *weights), measured)


def show_runs(runs):
    """Print how each run ended, {mark: (description, losses)}; plot all."""
    for mark, (description, losses) in runs.items():
        verdict = ", it diverges" if losses[-1] > losses[0] else ""
        print(f"  {mark}  {description}: loss {losses[-1]:.3g} at the end{verdict}")
    print(plot({mark: (range(len(losses)), np.log10(np.maximum(losses, 1e-12)))
                for mark, (_, losses) in runs.items()}))


def main(lr=0.1, steps=100, noise=0.0):
    """Learn Fahrenheit three times: too fast, as fast as possible, scaled.

    lr     learning rate of the scaled run; its limit is 1
    steps  steps of gradient descent in each run
    noise  standard deviation of the errors of the thermometers, in degrees

    Returns {"w", "b", "loss"} of the scaled run, in degrees.
    """
    x = CELSIUS
    y = 1.8 * x + 32
    error = check_gradient(x, y)
    print(f"The gradient agrees with measured slopes: relative error {error:.0e}")
    assert error < 1e-6
    y += noise * np.random.default_rng(0).standard_normal(len(x))

    curvature = 2 * np.mean(x * x)
    limit = 2 / curvature
    print(f"Curvature {curvature:.0f} for w and 2 for b: "
          f"the learning rate must stay below {limit:.6f}.")
    print()
    print("log10 of the loss (3 means 1000), cut off at -12")
    _, _, diverging = gradient_descent(x, y, 1.02 * limit, steps)
    _, _, crawling = gradient_descent(x, y, 0.98 * limit, steps)
    scaled = (x - x.mean()) / x.std()
    w, b, converging = gradient_descent(scaled, y, lr, steps)
    show_runs({"x": ("2 % above the limit", diverging),
               ".": ("2 % below the limit", crawling),
               "o": (f"scaled input, lr {lr:g}", converging)})

    # w (x - mean) / std + b = (w / std) x + (b - w mean / std)
    b -= w * x.mean() / x.std()
    w /= x.std()
    print()
    print(f"Learned: F = {w:.4f} C + {b:.4f}")
    print()
    print("  Celsius  predicted      true")
    for celsius in -40, 0, 37, 100:
        print(f"{celsius:9} {predict(celsius, w, b):10.2f} {1.8 * celsius + 32:9.2f}")
    return {"w": w, "b": b, "loss": converging[-1]}


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
