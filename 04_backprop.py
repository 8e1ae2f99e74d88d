"""04  Backpropagation: the gradient of a net of any depth, derived and written by hand.

Carried from 01: numeric_gradient, relative_error, refuse, command_line.  03: seconds.
New here: the multi-layer perceptron, softmax and cross-entropy, the four rules of backpropagation.

A multi-layer perceptron has layers l = 1 .. n. Forward, with h_0 = X, the N examples as rows:
    a_l = h_(l-1) W_l + b_l        (N, D_l)        h_l = max(a_l, 0), except after the last layer
    z = a_n, the logits (N, K)     p = softmax(z), that is p_k = e^(z_k) / sum_j e^(z_j)
    L = mean over examples of -ln p_y, the cross-entropy; y is the example's right class
Backward, da_l stands for dL/da_l, and so on; z_k is entry k of an example's row of z:
 1 The output. For one example, -ln p_y = ln(sum_j e^(z_j)) - z_y. By z_k, its first term has the
   derivative e^(z_k) / sum_j e^(z_j) = p_k, its second -1 for k = y, else 0. With the 1/N of the
   mean, dz = (p - onehot(y)) / N, where onehot(y) is 1 in column y and 0 elsewhere.
 2 The weights. Let h be h_(l-1), and a that of layer l. Nudge W_jk by a small eps: in every example
   i, a_ik moves by eps h_ij, and L by the sum of eps h_ij da_ik over i. So gradients add up over
   all paths to L: dW_jk = sum_i h_ij da_ik, that is dW_l = h_(l-1)^T da_l.
 3 The biases. b_k was copied to all N rows (broadcast): db_l = sum of da_l over the rows.
 4 The layer below. h_ij feeds every unit k of its row, by W_jk: dh_ij = sum_k da_ik W_jk, that is
   dh_(l-1) = da_l W_l^T. The max passes it on where a_(l-1) > 0:
   da_(l-1) = dh_(l-1) * (a_(l-1) > 0).
Rules 2 and 4 are one product each, of as many operations as the forward one. So, counted in
products, loss and gradients cost three forward passes at most, however many weights there are.

Run       python 04_backprop.py             (--layers=2 --hidden=8 for a net that is too small)
Expect    1 s. Gradients agree with differences to 1e-8; 99 % after 100 steps; all gradients
          for 2 to 3 forward passes
Left out  an engine that differentiates for us (05); better steps than plain descent (06)
"""
import argparse, inspect, math, os, re, sys, time

import numpy as np

# N examples, D_l units in layer l, K classes; X (N, D_0), y (N,) integers below K


# ---- carried from 01 and 03, unchanged ----------------------------------------------------------

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


def seconds(work, budget=0.2):
    """The least time of work(), in as many calls as fit the budget: disturbances only add time."""
    least, end = math.inf, time.perf_counter() + budget
    while least == math.inf or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - start)
    return least


# ---- new here -----------------------------------------------------------------------------------

def random_net(rng, sizes):
    """[(W, b), ...] for sizes D_0 .. D_n; the std sqrt(2 / d_in) suits ReLU (He 2015; why: 06)."""
    return [(rng.standard_normal((d_in, d_out)) * math.sqrt(2 / d_in), np.zeros(d_out))
            for d_in, d_out in zip(sizes, sizes[1:])]


def forward(net, X):
    """h_0 .. h_(n-1), which backward will need, and the logits z (N, K)."""
    h = [X]
    for W, b in net[:-1]:
        h.append(np.maximum(h[-1] @ W + b, 0))          # (N, D_l)
    W, b = net[-1]
    return h, h[-1] @ W + b                             # (N, K)


def softmax(z):
    """Probabilities (N, K) from logits z (N, K)."""
    e = np.exp(z - z.max(1, keepdims=True))             # the shift cancels; exp cannot overflow
    return e / e.sum(1, keepdims=True)


def mean_loss(z, y):
    """Mean of -ln p_y, as ln(sum_j e^(z_j)) - z_y: p, which may round to 0, is never formed."""
    z = z - z.max(1, keepdims=True)
    return np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y])


def backward(net, h, z, y):
    """[(dW, db), ...]: the lines of forward in reverse order, by the four rules."""
    da = softmax(z)
    da[np.arange(len(y)), y] -= 1
    da /= len(y)                                        # rule 1: (N, K)
    gradients = []                                      # net[l] is layer l + 1, h[l] its input
    for l in reversed(range(len(net))):
        gradients.append((h[l].T @ da, da.sum(0)))                      # rules 2 and 3
        if l:
            da = (da @ net[l][0].T) * (h[l] > 0)                        # rule 4; h > 0 where a > 0
    return gradients[::-1]


def spiral(rng, n, arms=3, noise=0.15):
    """n points on each of the arms that wind around the origin: X (n arms, 2), y (n arms,)."""
    radius, arm = np.tile(np.linspace(0.1, 1, n), arms), np.repeat(np.arange(arms), n)
    angle = 2 * math.pi * arm / arms + 4 * radius + noise * rng.standard_normal(n * arms)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), arm


def draw_regions(net, X, y):
    """The class that the net gives to each place, . : or #, and some points of each, a b c."""
    u, v = np.meshgrid(np.linspace(-1.1, 1.1, 67), np.linspace(1.1, -1.1, 29))
    canvas = np.array(list(".:#"))[forward(net, np.stack([u.ravel(), v.ravel()], 1))[1].argmax(1)]
    canvas = canvas.reshape(u.shape)
    for (a, b), label in zip(X[::4], y[::4]):
        canvas[round((1.1 - b) / 2.2 * 28), round((a + 1.1) / 2.2 * 66)] = "abc"[label]
    print("\n".join("  " + "".join(row) for row in canvas))


# ---- the experiment -----------------------------------------------------------------------------

def main(layers=3, hidden=32, steps=1000, lr=0.3, points=120, seed=0):
    """Check the gradients, learn the spiral, and compare the price of two ways to a gradient.

    layers: of weights
    hidden: units in each hidden layer
    steps: of gradient descent on all points
    lr: learning rate
    points: on each of the three arms
    seed: of points and weights

    Returns a dict: accuracy, loss, gradient_error, forward_passes (what backpropagation costs).
    """
    for name, value in dict(hidden=hidden, steps=steps, points=points).items():
        refuse(not 0 < value <= 10 ** 5, f"--{name} must be between 1 and 100000")
    refuse(not 0 < layers <= 20, "--layers must be between 1 and 20")
    refuse(not 0 < lr < math.inf, "--lr must be positive")
    refuse(seed < 0, "--seed must be 0 or more")
    rng = np.random.default_rng(seed)
    X, y = spiral(rng, points)

    net = [(rng.standard_normal(W.shape), rng.standard_normal(b.shape))
           for W, b in random_net(rng, [2] + [8] * (min(layers, 4) - 1) + [3])]
    few = rng.choice(len(y), 8)
    gradients, worst = backward(net, *forward(net, X[few]), y[few]), 0.0
    print("Gradients against central differences, relative errors")
    for l, (arrays, found) in enumerate(zip(net, gradients), 1):
        for name, array, gradient in zip(("W", "b"), arrays, found):
            numeric = numeric_gradient(lambda: mean_loss(forward(net, X[few])[1], y[few]), array)
            error = relative_error(gradient, numeric)
            print(f"  {name}{l} {str(array.shape):9} {error:.0e}")
            worst = np.maximum(worst, error)            # max would lose NaN
    assert worst < 1e-7

    net = random_net(rng, [2] + [hidden] * (layers - 1) + [3])
    print(f"\n  step     loss  accuracy   (a guess: {math.log(3):.4f}, 33.3%)")
    for step in range(steps + 1):
        with np.errstate(all="ignore"):
            h, z = forward(net, X)
            loss, accuracy = mean_loss(z, y), np.mean(z.argmax(1) == y)
        refuse(not loss < 1e3, f"training diverges at step {step}: lower --lr")
        if step % max(1, steps // 10) == 0 or step == steps:
            print(f"{step:6} {loss:8.4f} {accuracy:9.1%}", flush=True)
        if step < steps:
            for (W, b), (dW, db) in zip(net, backward(net, h, z, y)):
                W -= lr * dW
                b -= lr * db
    print("\nThe plane as the net sees it, in three classes . : and #. The points a belong on .,\n"
          "b on : and c on #.")
    draw_regions(net, X, y)

    size = sum(W.size + b.size for W, b in net)
    once = seconds(lambda: mean_loss(forward(net, X)[1], y))
    both = seconds(lambda: backward(net, *forward(net, X), y))
    print(f"\nA forward pass takes {once * 1e6:.0f} us. All {size:,} derivatives take "
          f"{both / once:.1f} forward passes by\nbackpropagation, the forward pass included; "
          f"central differences take {2 * size:,} of them,\nwhich is "
          f"{2 * size * once / both:,.0f} times as long.")
    return {"accuracy": accuracy, "loss": loss, "gradient_error": worst,
            "forward_passes": both / once}


if __name__ == "__main__":
    command_line(main)
