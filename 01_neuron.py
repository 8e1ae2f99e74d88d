"""01  One neuron learns to turn Celsius into Fahrenheit.

New here: the neuron, its loss, the gradient, gradient descent, the gradient check, plots as text.

A neuron multiplies its input x by a weight w and adds a bias b. Over N examples whose right answers
are y, the loss L is the mean square of its errors e:
    a = w x + b            e = a - y            L = mean(e^2)
The gradient says how L changes with w and with b. By the chain rule, d(e^2)/dw = 2 e de/dw:
    dL/dw = mean(2 e x)    as de/dw = x         dL/db = mean(2 e)    as de/db = 1
Gradient descent goes against it in small steps; lr is the learning rate:
    w = w - lr dL/dw       b = b - lr dL/db

How large may lr be? Differentiate again: the second derivatives of L form its Hessian matrix,
    2 [[mean(x^2), mean(x)], [mean(x), 1]]            the same for all w and b: L is a bowl.
At any point, the gradient is this matrix times the way there from the bottom. An eigenvector is a
direction that the matrix only stretches, by its eigenvalue c, the curvature. Along it the gradient
is c times the distance to the bottom, so a step multiplies this distance by 1 - lr c. It shrinks if
|1 - lr c| < 1, that is if lr < 2/c. The most curved direction sets the limit, 2/c_max. With lr near
it, a step leaves 1 - 2 c_min/c_max of the distance in the flattest direction, and c_max / (2 c_min)
steps leave about 1/2.7 of it, because (1 - q)^(1/q) is about 1/2.7 for small q. Scaled to mean 0
and standard deviation 1, x makes the bowl round, [[2, 0], [0, 2]]: the limit is 1, and lr = 0.1
leaves 1 - 2 lr = 0.8 of every distance at every step.

Run       python 01_neuron.py               (--noise=1 for thermometers that err)
Expect    0.2 s. F = 1.8000 C + 32.0000 from scaled input; on raw degrees, after 100 steps, a loss
          of 501 just below the limit (2e-12 after 5000) and of 6 million just above it
Left out  many inputs, many neurons, and functions that are not straight lines (02)
"""
import argparse, inspect, os, re, sys

import numpy as np


def loss_and_gradient(x, y, w, b):
    """Mean square error of w x + b over all examples, and its derivatives by w and by b."""
    e = w * x + b - y
    return np.mean(e ** 2), np.mean(2 * e * x), np.mean(2 * e)


# The gradient check: a derivative is a limit of differences, so differences can test it. Taken on
# one side they err by order eps; on both, central, by order eps^2, as the terms of f'' cancel.

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


def descend(x, y, lr, steps):
    """Gradient descent from w = b = 0; returns w, b, the loss before each step and at the end."""
    w, b, losses = 0.0, 0.0, []
    for _ in range(steps):
        loss, dw, db = loss_and_gradient(x, y, w, b)
        losses.append(loss)
        w, b = w - lr * dw, b - lr * db
    return w, b, losses + [loss_and_gradient(x, y, w, b)[0]]


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


# ---- the experiment -----------------------------------------------------------------------------

def main(steps=100, lr=0.1, noise=0.0, seed=0):
    """Learn the conversion three times: just above the largest lr, just below it, and scaled.

    steps: gradient steps of each run, at most 5000
    lr: learning rate of the scaled run, below its limit 1
    noise: standard deviation of the errors in the targets, in degrees Fahrenheit
    seed: of the noise

    Returns a dict: w and b for degrees, loss, lr_limit, gradient_error, losses of the three runs.
    """
    refuse(not 0 < steps <= 5000, "--steps must be between 1 and 5000")
    refuse(not 0 < lr < 1, "--lr must be between 0 and 1, the limit of the scaled run")
    refuse(not 0 <= noise <= 1000, "--noise must be between 0 and 1000")
    refuse(seed < 0, "--seed must be 0 or more")
    rng = np.random.default_rng(seed)
    x = np.array([-40.0, -10.0, 0.0, 8.0, 15.0, 22.0, 38.0])            # degrees Celsius
    y = 1.8 * x + 32 + noise * rng.standard_normal(len(x))              # degrees Fahrenheit

    some = np.array([0.7, -3.0])                                        # any w and b
    error = relative_error(np.array(loss_and_gradient(x, y, *some)[1:]),
                           numeric_gradient(lambda: loss_and_gradient(x, y, *some)[0], some))
    assert error < 1e-6
    print(f"Gradient against central differences, relative error: {error:.0e}")

    hessian = 2 * np.array([[np.mean(x * x), np.mean(x)], [np.mean(x), 1]])
    c_min, c_max = np.linalg.eigvalsh(hessian)
    limit, scaled, losses = 2 / c_max, (x - x.mean()) / x.std(), {}
    print(f"Curvature from {c_min:.2f} to {c_max:.1f}: lr must stay below {limit:.6f}, and the "
          f"flattest direction\nthen needs about {c_max / c_min / 2:.0f} steps to come 2.7 times "
          "closer to the bottom.\n")
    print(f"log10 of the loss over {steps} steps, cut off at -12")
    for mark, inputs, rate, what in (("x", x, 1.02 * limit, "2 % above the limit"),
                                     (".", x, 0.98 * limit, "2 % below the limit"),
                                     ("o", scaled, lr, "input scaled to mean 0, std 1")):
        w, b, losses[mark] = descend(inputs, y, rate, steps)
        last = losses[mark][-1]
        print(f"  {mark}  lr {rate:.6f}, {what}: loss {last:.3g} at the end"
              f"{', it diverges' if last > losses[mark][0] else ''}")
    print(plot({mark: (range(steps + 1), np.log10(np.maximum(run, 1e-12)))
                for mark, run in losses.items()}))

    w, b = w / x.std(), b - w * x.mean() / x.std()      # w (x - mean) / std + b, as a line in x
    best_w = np.mean(scaled * y) / x.std()              # where the scaled run's gradient is 0
    best_b = y.mean() - best_w * x.mean()
    print(f"\nLearned (o) F = {w:.4f} C + {b:.4f}\nBest line   F = {best_w:.4f} C + {best_b:.4f}")
    if noise:
        spread = noise / np.sqrt(len(x))
        print(f"The truth is 1.8 and 32: off by {w - 1.8:.4f} and {b - 32:.4f}. For errors of std "
              f"{noise:g} in the targets,\nabout {spread / x.std():.4f} and "
              f"{spread * np.sqrt(1 + (x.mean() / x.std()) ** 2):.4f} are to be expected. Once the "
              "best line\nis reached, more steps cannot help; more data can.")
    print("\n  Celsius  predicted      true")
    for celsius in -40, 0, 37, 100:
        print(f"{celsius:9} {w * celsius + b:10.2f} {1.8 * celsius + 32:9.2f}")
    return {"w": w, "b": b, "loss": last, "lr_limit": limit, "gradient_error": error,
            "losses": losses}


if __name__ == "__main__":
    command_line(main)
