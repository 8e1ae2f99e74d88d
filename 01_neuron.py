"""01  One neuron learns to turn Celsius into Fahrenheit.

New here: the neuron, its loss, the gradient, gradient descent, the gradient check, plots as text.

A neuron multiplies its input x by a weight w and adds a bias b. Over N examples with targets t,
the loss L is the mean square of its errors e:
    y = w x + b            e = y - t            L = mean(e^2)
The gradient says how L changes with w and b. By the chain rule, dL/dw = mean(dL/de de/dw):
    dL/dw = mean(2 e x)    since de/dw = x      dL/db = mean(2 e)    since de/db = 1
Gradient descent goes against it in small steps; lr is the learning rate:
    w = w - lr dL/dw       b = b - lr dL/db

How large may lr be? L is a bowl with the same curvature everywhere, its Hessian
    H = 2 [[mean(x^2), mean(x)], [mean(x), 1]].
Along an eigenvector of H with eigenvalue s the gradient is s times the distance to the bottom, so
a step multiplies this distance by 1 - lr s. It shrinks if |1 - lr s| < 1, that is lr < 2/s. The
steepest direction sets the limit, 2/s_max; the flattest then needs about s_max/s_min steps.

Run       python 01_neuron.py               (--noise=1 for thermometers that err)
Expect    0.2 s. F = 1.8000 C + 32.0000 from scaled input; on raw degrees the loss is still 501
          after 100 steps just below the largest lr, and 6 million just above it
Left out  many inputs and many neurons (03); functions that are not straight lines (02)
"""
import argparse, inspect, math, os, re, sys

import numpy as np


def loss_and_gradient(x, t, w, b):
    """Mean square error of w x + b over all examples, and its derivatives by w and by b."""
    e = w * x + b - t
    return np.mean(e ** 2), np.mean(2 * e * x), np.mean(2 * e)


def numeric_gradient(f, x, eps=1e-6):
    """df/dx by central differences; f() is a number; entries of the array x are moved in place."""
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
    return np.abs(found - expected).max() / np.abs(expected).max()


def descend(x, t, lr, steps):
    """Gradient descent from w = b = 0, given up when it diverges; returns w, b and all losses."""
    w = b = 0.0
    losses = [loss_and_gradient(x, t, w, b)[0]]
    while len(losses) <= steps and losses[-1] < 1e12 * losses[0]:
        _, dw, db = loss_and_gradient(x, t, w, b)
        w, b = w - lr * dw, b - lr * db
        losses.append(loss_and_gradient(x, t, w, b)[0])
    return w, b, losses


# ---- plumbing: the same in every file -----------------------------------------------------------

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
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")    # what the console cannot show becomes '?'
    gloss = dict(re.findall(r"^ *(\w+): (.+)$", main.__doc__, re.M))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    for name, argument in inspect.signature(main).parameters.items():
        value = argument.default
        parser.add_argument(f"--{name}", type=type(value), default=value,
                            help=f"{gloss[name]} (default: {value!r})")
    arguments = parser.parse_args(None if "__file__" in globals() else [])
    try:
        main(**vars(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
    except MemoryError:
        refuse(True, "there is not enough memory for these sizes")
    except BrokenPipeError:                         # whoever read our output (say, head) has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


# ---- the experiment -----------------------------------------------------------------------------

def main(steps=100, lr=0.1, noise=0.0, seed=0):
    """Learn the conversion three times: just below the largest lr, just above it, and scaled.

    steps: gradient steps of each run
    lr: learning rate of the scaled run
    noise: standard deviation of the errors of the targets, in degrees Fahrenheit
    seed: of the noise

    Returns a dict: w and b for degrees, loss, lr_limit, gradient_error, losses of the three runs.
    """
    refuse(not 0 < steps <= 10 ** 6, "--steps must be between 1 and a million")
    refuse(not 0 < lr < math.inf, "--lr must be a positive number")
    refuse(not 0 <= noise < 1e100, "--noise must be 0 or a positive number")
    refuse(seed < 0, "--seed must be 0 or a positive number")
    rng = np.random.default_rng(seed)
    x = np.array([-40.0, -10.0, 0.0, 8.0, 15.0, 22.0, 38.0])            # degrees Celsius
    t = 1.8 * x + 32 + noise * rng.standard_normal(len(x))              # degrees Fahrenheit

    p = np.array([0.7, -3.0])                                           # some w and b
    error = relative_error(np.array(loss_and_gradient(x, t, *p)[1:]),
                           numeric_gradient(lambda: loss_and_gradient(x, t, *p)[0], p))
    assert error < 1e-6
    print(f"gradient against central differences: relative error {error:.0e}")

    s_min, s_max = np.linalg.eigvalsh([[2 * np.mean(x * x), 2 * np.mean(x)], [2 * np.mean(x), 2]])
    limit, scaled = 2 / s_max, (x - x.mean()) / x.std()
    print(f"curvature from {s_min:.2f} to {s_max:.1f}, so lr must stay below {limit:.6f}, and then "
          f"the flat\ndirection needs {s_max / s_min / 2:.0f} steps for each factor of e\n")

    runs = {"x": (x, 1.02 * limit), ".": (x, 0.98 * limit), "o": (scaled, lr)}
    fits = {mark: descend(inputs, t, rate, steps) for mark, (inputs, rate) in runs.items()}
    print(f"log10 of the loss over {steps} steps")
    for mark, what in (("x", "2 % above the limit"), (".", "2 % below the limit"),
                       ("o", "input scaled to mean 0, deviation 1")):
        losses = fits[mark][2]
        print(f"  {mark}  lr {runs[mark][1]:.6f}, {what}: {losses[-1]:.3g} at the end"
              f"{', it diverges' if losses[-1] > losses[0] else ''}")
    print(plot({mark: (range(len(losses)), np.log10(np.maximum(losses, 1e-12)))
                for mark, (_, _, losses) in fits.items()}))

    w, b, losses = fits["o"]
    refuse(losses[-1] > losses[0], f"with --lr={lr:g} the scaled run diverges too: its limit is 1")
    w, b = w / x.std(), b - w * x.mean() / x.std()      # the same line, for degrees
    best_w = np.mean((x - x.mean()) * (t - t.mean())) / x.var()
    print(f"\nlearned     F = {w:.4f} C + {b:.4f}\nbest line   F = {best_w:.4f} C "
          f"+ {t.mean() - best_w * x.mean():.4f}   (least squares, in closed form)")
    if noise:
        print(f"The truth is 1.8 and 32. Errors of {noise:g} in {len(x)} targets shift the best w "
              f"by about {noise / x.std() / math.sqrt(len(x)):.4f}\nand leave a loss of about "
              f"{noise ** 2 * (1 - 2 / len(x)):.3g}, here {losses[-1]:.3g}. Not more steps, "
              "only more data can help.")
    print("\n  Celsius  predicted      true")
    for celsius in -40, 0, 37, 100:
        print(f"{celsius:9} {w * celsius + b:10.2f} {1.8 * celsius + 32:9.2f}")
    return {"w": w, "b": b, "loss": losses[-1], "lr_limit": limit, "gradient_error": error,
            "losses": {mark: fit[2] for mark, fit in fits.items()}}


if __name__ == "__main__":
    command_line(main)
