"""01  One neuron learns to turn Celsius into Fahrenheit.

A neuron multiplies its input x by a weight w, adds a bias b, and predicts
w x + b. Ours starts with w = 0 and b = 0: whatever the thermometer shows, it
predicts 0 degrees Fahrenheit. We have seven readings with the right answers,
so we can measure how wrong the predictions are. We put that in one number and
call it the loss. Learning means doing three things again and again:

    find out how the loss changes when w grows a little, and when b does;
    move w and b a little in the direction in which the loss falls;
    start again.

File 11 is a GPT, a program that writes text. It learns in the same way, with
803,584 such numbers (parameters, often all called weights) instead of 2.

Run           python 01_neuron.py
Expect        0.2 s. Three runs: one gets worse and worse, one crawls, and one
              ends at F = 1.8000 C + 32.0000
Try           --lr=0.9    larger steps, which jump across the goal, yet the loss
                          falls exactly as with the default of 0.1
              --lr=1.01   a little too large: the loss grows
              --noise=5   right answers that are off by some 5 degrees: no line
                          goes through all seven, so the loss stays above 0
Left out      several inputs, several neurons, curves instead of lines (02)
"""
import argparse, inspect, os, sys

import numpy as np

CELSIUS = np.array([-40.0, -10.0, 0.0, 8.0, 15.0, 22.0, 38.0])  # seven readings


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


# To know which way to move, we need two slopes (derivatives): how fast the
# loss L grows when w alone is increased, dL/dw, and when b alone is, dL/db.
# The two together are called the gradient. Take one example, with the error
# e = w x + b - y and the loss e^2. The slope of e^2 is 2 e, so by the chain
# rule
#     d(e^2)/dw = 2 e * de/dw = 2 e * x    (if w grows by 1, e grows by x)
#     d(e^2)/db = 2 e * de/db = 2 e        (if b grows by 1, e grows by 1)
# L is the mean over seven examples, and the slope of a sum is the sum of the
# slopes, so L's slopes are the means of these. At w = b = 0 they are
# dL/dw = -2316 and dL/db = -81. Both are negative: the loss falls when w or b
# grows, so both should grow.

def gradient(x, y, w, b):
    """dL/dw and dL/db."""
    error = predict(x, w, b) - y                # one for each example
    return np.mean(2 * error * x), np.mean(2 * error)


# The gradient says in which direction the loss grows. So go the opposite way.
# How far? A simple rule: the steeper, the farther. Subtract from w its slope
# times a small number, the learning rate lr, and from b its own slope times
# lr. Repeat: this is gradient descent. With lr = 0.0001 (why so small, see
# below) the first step makes w = 0.2316 and b = 0.0081, and the loss falls
# from 3380 to 2873.

def gradient_descent(x, y, lr, steps):
    """Learn from w = b = 0. Returns w, b, and the loss at the start and after each step."""
    w = b = 0.0
    losses = [mean_squared_error(x, y, w, b)]
    for _ in range(steps):
        if losses[-1] > 1e12:     # the loss explodes: stop before it overflows
            break
        dw, db = gradient(x, y, w, b)   # the slopes dL/dw and dL/db
        w -= lr * dw        # minus: where the slope is positive, w must shrink
        b -= lr * db
        losses.append(mean_squared_error(x, y, w, b))
    return w, b, losses


# ---- new here: is the gradient right? -------------------------------------------------------
# A slope can be measured: compute the loss for a value that is a tiny eps
# above the present one, and for one that is eps below it. Divide the
# difference by the distance, 2 eps. (If eps were much smaller still, the
# difference would be lost in rounding.) Every gradient that is derived in this
# course is checked in this way.

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


# ---- new here: how large may the learning rate be? ------------------------------------------
# Hold b still and draw the loss over w. Each e^2 is the square of a straight
# line in w, a parabola, and the mean of parabolas is one, too: a valley with
# its bottom at the best w. There the slope is 0. If w grows by 1, each error e
# grows by x, so the slope, the mean of 2 e * x, grows by the mean of 2 x * x.
# Call this number c, the curvature. At the distance D from the bottom the
# slope is then c * D. A step goes lr * c * D towards the bottom and leaves the
# distance (1 - lr * c) * D, where a negative number means the other side:
#     lr below 1/c            the step stops short of the bottom;
#     lr = 1/c                it lands on the bottom;
#     lr between 1/c and 2/c  it lands on the other side, but nearer than before;
#     lr above 2/c            it lands farther away each time: training diverges.
# On our readings c is 1119 for w. For b it is 2, because each error grows by 1
# instead of x. So the limit is 2/1119 = 0.0018 for w and 2/2 = 1 for b, and
# the smaller one counts, as both share one learning rate. (When both move,
# each also shifts the best value of the other, which changes little here.) But
# just below that limit a step leaves 1 - 0.0018 * 2 = 99.64 % of the distance
# between b and its best value, 32. After 100 steps 0.9964^100 = 70 % of it is
# left.
#
# The cure is to scale the inputs: x becomes (x - mean) / std. The standard
# deviation std is the typical distance from the mean, the root of the mean of
# (x - mean)^2. The subtraction makes the mean of x 0, and the division makes
# the mean of x^2 1. So c is 2 for w as well as for b, and the limit is 1 for
# both. (And now w and b do not shift each other's best value. The slope of b
# is the mean of 2 (w x + b - y), in which w is multiplied by the mean of x.
# That is 0, so w has no influence on it; and in the slope of w, b is
# multiplied by the same mean.) With lr = 0.1 each step leaves 80 % of both
# distances, and 100 steps leave 0.8^100 = 2e-10 of them. With lr = 0.9 each
# leaves -80 %: it lands on the other side, but the distance shrinks just as
# fast.


# ---- the experiment -------------------------------------------------------------------------

def check_gradient(x, y):
    """Compare gradient with measured slopes, at some w and b; returns the relative error."""
    weights = np.array([0.7, -3.0])

    def loss():                             # reads weights afresh at each call
        return mean_squared_error(x, y, *weights)
    mismatch = relative_error(gradient(x, y, *weights), numeric_gradient(loss, weights))
    print(f"Gradient against measured slopes: relative error {mismatch:.0e}")
    assert mismatch < 1e-6
    return mismatch


def show_runs(runs):
    """Print how each run ended, and plot the losses; runs is {mark: (description, losses)}."""
    print("\nlog10 of the loss (3 means 1000), cut off at -12, by the number of steps")
    for mark, (description, losses) in runs.items():
        verdict = ", it diverges" if losses[-1] > losses[0] else ""
        print(f"  {mark}  {description}: loss {losses[-1]:.3g} at the end{verdict}")
    print(plot({mark: (range(len(losses)), np.log10(np.maximum(losses, 1e-12)))
                for mark, (_, losses) in runs.items()}))


def main(lr=0.1, steps=100, noise=0.0):
    """Learn Fahrenheit three times: a little too fast, a little below the limit, and scaled.

    lr     learning rate of the scaled run; its limit is 1
    steps  steps of gradient descent in each run
    noise  standard deviation of errors that are added to the right answers, in degrees

    Returns {"w", "b": for temperatures in Celsius, "loss": at the end of the scaled run,
    "gradient_error"}.
    """
    x = CELSIUS
    y = 1.8 * x + 32                            # the right answers
    error = check_gradient(x, y)
    y += noise * np.random.default_rng(0).standard_normal(len(x))  # around 0, about 1 in size

    curvature = 2 * np.mean(x * x)
    limit = 2 / curvature
    print(f"Without scaling the curvature is {curvature:.0f} for w and 2 for b, so the learning "
          f"rate must\nstay below {limit:.6f}.")
    _, _, diverging = gradient_descent(x, y, 1.02 * limit, steps)
    _, _, crawling = gradient_descent(x, y, 0.98 * limit, steps)
    scaled = (x - x.mean()) / x.std()
    w, b, converging = gradient_descent(scaled, y, lr, steps)
    show_runs({"x": ("2 % above the limit", diverging),
               ".": ("2 % below the limit", crawling),
               "o": (f"scaled inputs, lr {lr:g}", converging)})

    # Back to degrees:
    # w (x - mean) / std + b = (w / std) x + (b - w mean / std)
    b = b - w * x.mean() / x.std()
    w = w / x.std()
    print(f"\nLearned: F = {w:.4f} C + {b:.4f}. 37 and 100 were not among the readings.\n")
    print("  Celsius  predicted      true")
    for celsius in -40, 0, 37, 100:
        print(f"{celsius:9} {predict(celsius, w, b):10.2f} {1.8 * celsius + 32:9.2f}")
    return {"w": w, "b": b, "loss": converging[-1], "gradient_error": error}


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
