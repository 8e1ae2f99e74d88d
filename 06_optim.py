"""06  Optimizers: the same gradient, better used.

Carried from 01: numeric_gradient, relative_error, refuse, plot, command_line.
04: random_net, spiral.  05: unbroadcast, Tensor, tensors.
New here: seven optimizers, schedules, first weights, batches, clipping, cross_entropy.

Gradient descent, w = w - lr dw, has two troubles. A rate at which steep directions already diverge
may still be too small for flat ones (01). And dw is noisy, as it is the mean over few examples, a
random batch: all of them would take too long. The cures, with weights w, gradient dw, step number
t, m and v 0 at first, beta a little below 1, all but Muon entry by entry:
    momentum    m = beta m + dw                         w = w - lr m
    Nesterov    m = beta m + dw                         w = w - lr (beta m + dw)
    RMSProp     v = beta v + (1 - beta) dw^2            w = w - lr dw / sqrt(v)
    Adam        m = beta1 m + (1 - beta1) dw            m' = m / (1 - beta1^t)
                v = beta2 v + (1 - beta2) dw^2          v' = v / (1 - beta2^t)
                                                        w = w - lr m' / sqrt(v')
    AdamW       w = (1 - lr decay) w, then Adam
    Muon        m = beta m + (1 - beta) dw              G = beta m + (1 - beta) dw, a matrix
                                                        w = w - lr U V^T, where G = U S V^T
Momentum adds up what persists and cancels what flips. RMSProp and Adam divide by a recent size of
dw, and so give each weight a rate of its own. (The code adds a tiny eps, against division by 0,
and fits Muon's step to the shape of w.) After t steps, the t shares (1 - beta) beta^i that a mean
is made of add up to 1 - beta^t, not to 1, and Adam divides by that. AdamW also pulls weights
towards 0, so that a net uses no larger ones than it needs. Muon looks at a matrix as a whole, by
its singular value decomposition: every matrix is U S V^T. U and V have perpendicular columns of
length 1, the directions, and S is diagonal, with the singular values, how strongly G acts along
each. Setting them to 1 moves w equally far in all.

Run       python 06_optim.py                (--steps=1000 for longer trainings)
Expect    13 s. The race ends near 0.002 for Muon, 0.003 for Adam, 0.01 for momentum, 0.1 for SGD
Left out  second-order methods; choosing the rate without trying it
"""
import argparse, inspect, math, os, re, sys

import numpy as np

# N examples, D_l units in layer l, K classes; X (N, D_0), y (N,) integers below K


# ---- carried from 01, 04 and 05, unchanged ------------------------------------------------------
# Of Tensor, only the methods that are used here; comments, and some docstrings, are where a thing
# was new.

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


def random_net(rng, sizes):
    """[(W, b), ...] for sizes D_0 .. D_n; std sqrt(2 / d_in) suits ReLU (He 2015; see below)."""
    return [(rng.standard_normal((d_in, d_out)) * math.sqrt(2 / d_in), np.zeros(d_out))
            for d_in, d_out in zip(sizes, sizes[1:])]


def spiral(rng, n, arms=3, noise=0.15):
    """n points on each of the arms that wind around the origin: X (n arms, 2), y (n arms,)."""
    radius, arm = np.tile(np.linspace(0.1, 1, n), arms), np.repeat(np.arange(arms), n)
    angle = 2 * math.pi * arm / arms + 4 * radius + noise * rng.standard_normal(n * arms)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1), arm


def unbroadcast(grad, shape):
    """Sum grad over every axis along which an array of this shape was copied by broadcasting."""
    if grad.shape == shape:
        return grad
    grad = grad.sum(tuple(range(grad.ndim - len(shape))))
    axes = tuple(i for i, size in enumerate(shape) if size != grad.shape[i])
    return grad.sum(axes, keepdims=True)


class Tensor:
    """An array that remembers how it was made, so that gradients find their way back."""

    __array_ufunc__ = None

    def __init__(self, data, parents=(), vjp=None):
        """vjp maps the gradient of this array to those of its parents, in their order."""
        self.data = np.asanyarray(data)
        if self.data.dtype.kind in "iub":
            self.data = self.data.astype(float)
        self.grad, self.parents, self.vjp = None, parents, vjp

    def backward(self):
        """Add the gradient of self.data.sum() to .grad of every leaf; the graph is released."""
        order, seen, stack = [], set(), [(self, False)]
        while stack:
            node, parents_done = stack.pop()
            if parents_done:
                order.append(node)
            elif id(node) not in seen:
                if node.parents is None:
                    raise RuntimeError("backward() has released this graph: compute it again")
                seen.add(id(node))
                stack.append((node, True))
                stack.extend((parent, False) for parent in node.parents)
        self.grad = np.ones_like(self.data)
        while order:
            node = order.pop()
            if node.parents:
                for parent, grad in zip(node.parents, node.vjp(node.grad)):
                    parent.grad = grad if parent.grad is None else parent.grad + grad
                node.grad = node.parents = node.vjp = None

    def lift(self, other):
        """A number or an array as a Tensor of the same dtype."""
        return other if isinstance(other, Tensor) else Tensor(np.asarray(other, self.data.dtype))

    def __add__(self, other):
        other = self.lift(other)
        a, b = self.data, other.data
        return Tensor(a + b, (self, other),
                      lambda g: (unbroadcast(g, a.shape), unbroadcast(g, b.shape)))

    def __matmul__(self, other):
        other = self.lift(other)
        a, b = self.data, other.data
        return Tensor(a @ b, (self, other),
                      lambda g: (unbroadcast(g @ b.swapaxes(-1, -2), a.shape),
                                 unbroadcast(a.swapaxes(-1, -2) @ g, b.shape)))

    def __rmatmul__(self, x):
        x = np.asarray(x, self.data.dtype)
        return Tensor(x @ self.data, (self,),
                      lambda g: (unbroadcast(x.swapaxes(-1, -2) @ g, self.data.shape),))

    def tanh(self):
        y = np.tanh(self.data)
        return Tensor(y, (self,), lambda g: (g * (1 - y * y),))

    def relu(self):
        y = np.maximum(self.data, 0)
        return Tensor(y, (self,), lambda g: (g * (y > 0),))


def tensors(net):
    """The arrays of the net as leaves."""
    return [(Tensor(W), Tensor(b)) for W, b in net]


# ---- new here: optimizers -----------------------------------------------------------------------
# Each changes the array w in place, given its gradient dw; state is a dict, what it remembers of w.

def sgd(w, dw, state, lr):
    """Gradient descent; stochastic, if dw comes from a random few examples (Robbins 1951)."""
    w -= lr * dw


def momentum(w, dw, state, lr, beta=0.9):
    """Momentum (Polyak 1964): where all gradients agree, 1 / (1 - beta) times as fast."""
    m = state.setdefault("m", np.zeros_like(w))
    m *= beta
    m += dw
    w -= lr * m


def nesterov(w, dw, state, lr, beta=0.9):
    """Nesterov's momentum (1983; this form: Bengio 2013): beta m + dw is the next m if dw stays."""
    m = state.setdefault("m", np.zeros_like(w))
    m *= beta
    m += dw
    w -= lr * (beta * m + dw)


def rmsprop(w, dw, state, lr, beta=0.99, eps=1e-8):
    """RMSProp (Hinton 2012): dw over its root mean square. First v is too small, steps too long."""
    v = state.setdefault("v", np.zeros_like(w))
    v *= beta
    v += (1 - beta) * dw * dw
    w -= lr * dw / (np.sqrt(v) + eps)


def adam(w, dw, state, lr, beta1=0.9, beta2=0.99, eps=1e-8):
    """Adam (Kingma 2015), in place: the mean gradient over the root of the mean square."""
    m = state.setdefault("m", np.zeros_like(w))
    v = state.setdefault("v", np.zeros_like(w))
    t = state["t"] = state.get("t", 0) + 1
    m *= beta1
    m += (1 - beta1) * dw
    v *= beta2
    v += (1 - beta2) * dw * dw
    w -= lr / (1 - beta1 ** t) * m / (np.sqrt(v / (1 - beta2 ** t)) + eps)


def adamw(w, dw, state, lr, decay=0.01):
    """AdamW (Loshchilov 2019): the weights decay by themselves, not by way of the gradient."""
    w *= 1 - lr * decay
    adam(w, dw, state, lr)


# U V^T without a slow decomposition: an odd polynomial of X = U S V^T acts on S alone, because
# X X^T X = U S^3 V^T. G is divided by its length, the root of the sum of all s^2: no s is above 1.
# Then five rounds of the polynomial below bring every s in 0.01 .. 1 into 0.68 .. 1.14. It is made
# for speed and never settles at 1. That of Newton and Schulz, 1.5 s - 0.5 s^3, does, but slowly.

def newton_schulz(G, steps=5):
    """About U V^T of G: a step makes 3.4445 s - 4.7750 s^3 + 2.0315 s^5 of singular values s."""
    if len(G) > len(G.T):
        return newton_schulz(G.T, steps).T              # so that X X^T is the smaller product
    X = G / (np.linalg.norm(G) + 1e-7)
    for _ in range(steps):
        A = X @ X.T
        X = 3.4445 * X + (2.0315 * (A @ A) - 4.7750 * A) @ X
    return X


# A matrix w is (inputs, outputs). With more outputs than inputs, U V^T spreads the length of an
# input over more entries. The square root in the last line gives each of them its size back.

def muon(w, dw, state, lr, decay=0.0, beta=0.95):
    """Muon (Jordan 2024), in place: momentum, made equally long in all directions."""
    m = state.setdefault("m", np.zeros_like(w))
    m *= beta
    m += (1 - beta) * dw
    update = newton_schulz(beta * m + (1 - beta) * dw)              # Nesterov: one look ahead
    w *= 1 - lr * decay
    w -= lr * math.sqrt(max(1, w.shape[1] / w.shape[0])) * update


def muon_and_adam(w, dw, state, lr):
    """Muon for matrices; Adam for biases, at a sixth of the rate, as in 11."""
    if w.ndim == 2:
        muon(w, dw, state, lr)
    else:
        adam(w, dw, state, lr / 6)


# name:       (optimizer,     its rates in the race)
OPTIMIZERS = {
    "SGD":      (sgd,           (0.1, 0.3, 1.0, 3.0)),
    "momentum": (momentum,      (0.03, 0.1, 0.3, 1.0)),
    "Nesterov": (nesterov,      (0.03, 0.1, 0.3, 1.0)),
    "RMSProp":  (rmsprop,       (0.003, 0.01, 0.03, 0.1)),
    "Adam":     (adam,          (0.03, 0.1, 0.3, 1.0)),
    "AdamW":    (adamw,         (0.03, 0.1, 0.3, 1.0)),
    "Muon":     (muon_and_adam, (0.03, 0.1, 0.3, 1.0)),
}


# ---- new here: schedules ------------------------------------------------------------------------
# Each gives the share of the learning rate at step 1 .. steps. All rise over a warm-up, because the
# loss is often steepest at first, and averages are still made of few gradients. At the end a small
# rate averages the noise of the batches away.

def constant(step, steps, warmup=20):
    """The whole rate, once it is warm."""
    return min(step / warmup, 1)


def staircase(step, steps, warmup=20):
    """A tenth in the second half, a hundredth in the last quarter."""
    return min(step / warmup, 0.1 ** (int(2 * step > steps) + int(4 * step > 3 * steps)))


def cosine(step, steps, warmup=20):
    """Half a wave, from 1 down towards 0 (Loshchilov 2017)."""
    done = max(0, step - warmup) / max(1, steps + 1 - warmup)
    return min(step / warmup, (1 + math.cos(math.pi * done)) / 2)


def linear_decay(step, steps, warmup=20):
    """The share of the learning rate at step 1 .. steps: up over the warm-up, then down."""
    return min(step / warmup, 1, (steps + 1 - step) / max(1, steps + 1 - warmup))


SCHEDULES = {".": constant, "s": staircase, "c": cosine, "l": linear_decay}


# ---- new here: first weights --------------------------------------------------------------------
# An entry of h W is a sum of d_in terms, and variances of independent terms add up: with entries of
# h of about 1, and std for W, the sum has the standard deviation sqrt(d_in) times std. Layer by
# layer this grows or vanishes, unless std is 1 / sqrt(d_in). ReLU drops half of the mean square: He
# (2015) has sqrt(2 / d_in). Back, d_out terms add up; Glorot (2010), for tanh, takes the mean of
# d_in and d_out.

def gaussian(std):
    """Independent weights with standard deviation std(d_in, d_out)."""
    return lambda rng, d_in, d_out: rng.standard_normal((d_in, d_out)) * std(d_in, d_out)


def orthogonal(rng, d_in, d_out):
    """All singular values sqrt(2): unless d_out < d_in, no direction shrinks (Saxe 2014)."""
    U, _, Vt = np.linalg.svd(rng.standard_normal((d_in, d_out)), full_matrices=False)
    return math.sqrt(2) * U @ Vt


# name:           (activation,  first weights)
STARTS = {
    "zeros":        (Tensor.relu, gaussian(lambda d_in, d_out: 0)),
    "too small":    (Tensor.relu, gaussian(lambda d_in, d_out: 0.05)),
    "too large":    (Tensor.relu, gaussian(lambda d_in, d_out: 1)),
    "Glorot, ReLU": (Tensor.relu, gaussian(lambda d_in, d_out: math.sqrt(2 / (d_in + d_out)))),
    "Glorot, tanh": (Tensor.tanh, gaussian(lambda d_in, d_out: math.sqrt(2 / (d_in + d_out)))),
    "He, ReLU":     (Tensor.relu, gaussian(lambda d_in, d_out: math.sqrt(2 / d_in))),
    "orthogonal":   (Tensor.relu, orthogonal),
}


# ---- new here: training -------------------------------------------------------------------------

def cross_entropy(logits, targets):
    """Mean of -ln softmax(logits)[target] over N rows; logits (N, K), targets (N,) integers."""
    n = np.arange(len(targets))
    z = logits.data - logits.data.max(1, keepdims=True)
    p = np.exp(z)
    total = p.sum(1, keepdims=True)
    p /= total

    def vjp(g):
        dz = p.copy()                                       # dz = p - onehot(target): rule 1 of 04
        dz[n, targets] -= 1
        return (dz * (g / len(n)),)
    return Tensor((np.log(total[:, 0]) - z[n, targets]).mean(), (logits,), vjp)


def layers_of(leaves, X, f=Tensor.relu):
    """h_1 .. h_(n-1) and the logits of the net [(W, b), ...], in Tensors."""
    h = [X]
    for W, b in leaves[:-1]:
        h.append(f(h[-1] @ W + b))
    W, b = leaves[-1]
    return h[1:] + [h[-1] @ W + b]


def net_gradients(net, X, y, f=Tensor.relu):
    """The mean loss of a net of arrays, [(W, b), ...], and its gradients for W1, b1, W2, ..."""
    leaves = tensors(net)
    loss = cross_entropy(layers_of(leaves, X, f)[-1], y)
    loss.backward()
    return loss.data.item(), [leaf.grad for pair in leaves for leaf in pair]


def batches(rng, n, size):
    """For ever: the places of the next size examples out of n, each at most once in a pass."""
    while True:                                         # a pass is also called an epoch
        order = rng.permutation(n)                      # so batches differ from pass to pass
        for i in range(0, n - size + 1, size):
            yield order[i:i + size]


def clip(gradients, longest):
    """All gradients shortened by one factor, if together they are longer than this (Pascanu 2013).

    So one steep place cannot throw the weights far away.
    """
    length = math.sqrt(sum(np.vdot(g, g) for g in gradients))
    return [g * (longest / length) for g in gradients] if length > longest else gradients


def fit(rng, net, X, y, optimizer, lr, steps, schedule=linear_decay, size=60, longest=math.inf,
        f=Tensor.relu):
    """Train the net in place, size examples at a time; returns the loss of each batch."""
    weights = [array for pair in net for array in pair]
    states, losses = [{} for _ in weights], []
    with np.errstate(all="ignore"):                     # some of these runs are meant to diverge
        for step, few in zip(range(1, steps + 1), batches(rng, len(X), size)):
            loss, gradients = net_gradients(net, X[few], y[few], f)
            losses.append(loss)
            for w, dw, state in zip(weights, clip(gradients, longest), states):
                optimizer(w, dw, state, lr * schedule(step, steps))
    return losses


# ---- the experiment -----------------------------------------------------------------------------

def descend_valley(optimizer, lr, hessian, bottom, steps):
    """The path from w = 0, and its heights, L = away hessian away^T / 2 with away = w - bottom."""
    w, state, path, heights = np.zeros((1, 2)), {}, [], []
    for step in range(1, steps + 2):
        away = w - bottom
        path.append(w[0].copy())
        heights.append((away @ hessian @ away.T).item() / 2)
        if not heights[-1] < 10 * heights[0]:
            return path, [math.inf]                     # it diverges
        optimizer(w, away @ hessian, state, lr * linear_decay(step, steps, 1))
    return path, heights


def valley(steps=50):
    """Draw each optimizer's path at its best rate; returns the height that it ends at."""
    turn = np.array([[math.cos(0.5), -math.sin(0.5)], [math.sin(0.5), math.cos(0.5)]])
    hessian, bottom = turn @ np.diag([1, 30]) @ turn.T, np.array([2.0, 0.4])
    places = np.stack(np.meshgrid(np.linspace(-0.2, 2.5, 23), np.linspace(1, -1, 11)), -1) - bottom
    height = (places @ hessian * places).sum(-1) / 2
    bands = np.where(np.floor(np.log(height) / math.log(6)) % 2, ".", " ")
    ends, pictures = {}, []
    for name, (optimizer, _) in OPTIMIZERS.items():
        runs = [(*descend_valley(optimizer, lr, hessian, bottom, steps), lr)
                for lr in 10 ** np.arange(-3, 0.6, 0.25)]
        path, heights, lr = min(runs, key=lambda run: run[1][-1])
        canvas, ends[name] = bands.copy(), heights[-1]
        for step, (a, b) in reversed(list(enumerate(path))):        # the first steps on top
            i, j = round((1 - b) * 5), round((a + 0.2) / 2.7 * 22)
            if 0 <= i < 11 and 0 <= j < 23:
                canvas[i, j] = str(step) if step < 10 else "o"
        canvas[3, 18] = "+"
        pictures.append([f"{name} {ends[name]:.0e} at {lr:.2g}", *map("".join, canvas)])
    for group in pictures[:4], pictures[4:]:
        for row in zip(*group):
            print("".join(f"{line:25}" for line in row).rstrip())
        print()
    return ends


def task(seed, hidden):
    """A generator, points on a spiral with five arms, and a net of three layers for them."""
    rng = np.random.default_rng(seed)
    X, y = spiral(rng, 60, arms=5)
    return rng, X, y, random_net(rng, [2, hidden, hidden, 5])


def check_gradients(seed):
    """Relative error of the gradients of a small net on a few points, at random biases."""
    rng, X, y, net = task(seed, 4)
    X, y, net = X[::20], y[::20], [(W, rng.standard_normal(b.shape)) for W, b in net]
    value = lambda: net_gradients(net, X, y)[0]
    weights = [array for pair in net for array in pair]
    return np.max([relative_error(dw, numeric_gradient(value, w))
                   for w, dw in zip(weights, net_gradients(net, X, y)[1])])


def final_losses(seeds, hidden, *how, **more):
    """The loss on all points after training with each of the seeds; divergence is infinite."""
    losses = []
    for seed in seeds:
        rng, X, y, net = task(seed, hidden)
        fit(rng, net, X, y, *how, **more)
        with np.errstate(all="ignore"):
            loss = net_gradients(net, X, y)[0]
        losses.append(loss if math.isfinite(loss) else math.inf)
    return losses


def race(steps, seeds, hidden):
    """Each optimizer with each of its rates and each seed; the rate with the best mean counts."""
    print("optimizer   best rate      loss  spread   mean loss at each rate")
    results = {}
    for name, (optimizer, rates) in OPTIMIZERS.items():
        tries = {lr: final_losses(seeds, hidden, optimizer, lr, steps) for lr in rates}
        best = min(tries, key=lambda lr: np.mean(tries[lr]))
        results[name] = np.mean(tries[best])
        spread = np.std(tries[best], ddof=min(1, len(seeds) - 1))
        row = "  ".join(f"{lr:g}: {np.mean(losses):.2g}" for lr, losses in tries.items())
        print(f"{name:10} {best:10g} {results[name]:10.4f} {spread:7.4f}   {row}", flush=True)
    return results


def draw_schedules(steps, seeds, hidden):
    """The four curves over 200 steps, and the loss of momentum with each, at three rates."""
    at = range(1, 201)
    print(plot({mark: (at, [share(step, 200) for step in at]) for mark, share in SCHEDULES.items()},
               height=9))
    results = {}
    for mark, share in SCHEDULES.items():
        name = share.__name__.replace("_", " ")
        tries = {lr: np.mean(final_losses(seeds, hidden, momentum, lr, steps, share))
                 for lr in (0.03, 0.1, 0.3)}
        results[name] = min(tries.values())
        row = "  ".join(f"{lr:g}: {loss:.4f}" for lr, loss in tries.items())
        print(f"  {mark} {name:14} {row}", flush=True)
    return results


def depth_of_starts(seed, steps, layers=30, width=32):
    """What each start does to values and gradients in a deep net, and whether it then learns."""
    X, y = spiral(np.random.default_rng(seed), 60)
    sizes = [2] + [width] * (layers - 1) + [3]
    print("           std of layer              of the gradient of W in layer             accuracy")
    print("start               1       15       29        30       15        1    after training")
    accuracy = {}
    for name, (f, start) in STARTS.items():
        rng = np.random.default_rng(seed)
        net = [(start(rng, i, o), np.zeros(o)) for i, o in zip(sizes, sizes[1:])]
        values = [layer.data.std() for layer in layers_of(tensors(net), X, f)]
        slopes = [g.std() for g in net_gradients(net, X, y, f)[1][::2]]
        fit(rng, net, X, y, adam, 0.001, steps, f=f)
        accuracy[name] = np.mean(layers_of(tensors(net), X, f)[-1].data.argmax(1) == y)
        numbers = [values[0], values[14], values[28], slopes[29], slopes[14], slopes[0]]
        print(f"{name:14}" + "".join(f"{number:9.0e}" for number in numbers)
              + f"{accuracy[name]:13.0%}", flush=True)
    return accuracy


def batch_sizes(seed, steps, hidden, target=0.1):
    """Steps until the mean loss of a pass is below the target, at the best of five rates."""
    print("batch   steps   passes    at rate")
    needed = {}
    for size in 10, 30, 100, 300:
        needed[size], best, batches_in = math.inf, math.nan, 300 // size
        for lr in 1.0, 0.3, 0.1, 0.03, 0.01:
            rng, X, y, net = task(seed, hidden)
            enough = min(steps, needed[size])           # more would not make it the best
            losses = fit(rng, net, X, y, momentum, lr, enough, constant, size)
            means = np.convolve(losses, np.ones(batches_in) / batches_in, "valid")
            if (means < target).any():
                needed[size], best = batches_in + int((means < target).argmax()), lr
        print(f"{size:5} {needed[size]:7} {needed[size] / batches_in:8.1f} {best:10g}", flush=True)
    return needed


def two_decays(steps=1000, lr=0.01, decay=0.1):
    """Two weights whose gradients flip between +1 and -1, and between +0.01 and -0.01."""
    apart, within = np.ones(2), np.ones(2)
    apart_state, within_state = {}, {}
    for step in range(steps):
        dw = np.array([1.0, 0.01]) * (-1) ** step
        adamw(apart, dw, apart_state, lr, decay)
        adam(within, dw + decay * within, within_state, lr)         # the gradient of decay w^2 / 2
    return apart, within


def main(steps=200, hidden=32, seeds=3, seed=0):
    """Race seven optimizers, then look at the other choices in a training.

    steps: of a training; half as many for deep nets, three times as many to compare batches
    hidden: units in each hidden layer, but for the deep nets
    seeds: trainings for each result of race, schedules and clipping
    seed: the first of them

    Returns a dict: gradient_error, valley and race (loss by optimizer), schedules (loss by name),
    starts (accuracy by name), batches (steps by size), clipping (losses by length), decay (what is
    left of two weights, apart from the gradient and within), shards (difference of gradients).
    """
    for name, value in dict(steps=steps, hidden=hidden, seeds=seeds).items():
        refuse(not 0 < value <= 10 ** 4, f"--{name} must be between 1 and 10000")
    refuse(seed < 0, "--seed must be 0 or more")
    runs = range(seed, seed + seeds)

    error = check_gradients(seed)
    assert error < 1e-6
    print("Gradients of a net with cross_entropy against central differences, relative error: "
          f"{error:.0e}\n")

    print("A long valley, 30 times as curved across as along, with no noise. Each optimizer's way\n"
          "to the bottom, +, in steps 0 to 9 and then o, at the best of 15 rates to start with,\n"
          "and its loss after 50 steps. A path may leave a picture. A band, of dots or blank,\n"
          "is 6 times as high as the next one inward. The valley lies askew, so that a rate for\n"
          "each weight does not make it round. Muon's matrix has one row here: it only sets the\n"
          "length of a step.\n")
    result = {"gradient_error": error, "valley": valley()}

    print(f"300 points on a spiral with five arms; {steps} steps on batches of 60, at rates that "
          f"fall.\nLoss on all points at the end (a guess: ln 5 = {math.log(5):.4f}), mean and "
          f"spread of {seeds} seeds.\nRates do not compare: SGD multiplies dw by its rate, while "
          "Adam's is about what each weight moves.")
    result["race"] = race(steps, runs, hidden)
    print("AdamW's decay costs loss on these points: it is meant for points that are new.")

    print("\nSchedules: share of the rate by step, and the loss of momentum at three rates.")
    result["schedules"] = draw_schedules(steps, runs, hidden)
    print("Those that fall bear a larger rate, and end lower.")

    print("\nFirst weights of a net with 30 layers, trained by Adam at a rate of 0.001:")
    result["starts"] = depth_of_starts(seed, steps // 2 + 1)
    print("From zeros no W gets a gradient: every h but X is 0, and every da but the last. Adam\n"
          "divides by the size of a gradient, so even 'too large' learns; 'too small' does not:\n"
          "its gradients are far below eps, 1e-8. Gradients of W are about alike in all layers:\n"
          "in h^T da, h fades or grows forward, and da backward.")

    print("\nThe batch: steps to a loss below 0.1, with momentum at the best of five rates")
    result["batches"] = batch_sizes(seed, 3 * steps, hidden)
    print("A larger batch has less noise: it needs fewer steps, but more passes over the points.")

    print("\nClipping: momentum at a rate of 1, too high without it. The loss of each seed:")
    result["clipping"] = {longest: final_losses(runs, hidden, momentum, 1.0, steps, longest=longest)
                          for longest in (math.inf, 0.3)}
    for longest, losses in result["clipping"].items():
        print(f"  gradients of length {longest:3} at most: "
              + "  ".join(f"{loss:.4f}" for loss in losses))

    print("\nWeight decay of 0.1 on two weights of 1, in 1000 steps at a rate of 0.01. The\n"
          "gradient of the first flips between +1 and -1, of the second between +0.01 and\n"
          "-0.01: they cancel, and the decay remains.")
    result["decay"] = two_decays()
    for name, left in zip(("AdamW", "Adam, decay in the gradient"), result["decay"]):
        print(f"  {name:28} leaves {left[0]:.3f} and {left[1]:.3f}")
    print("As a part of the gradient, the decay is divided by the gradient's size, too: where\n"
          "gradients are small, it is strongest.")

    _, X, y, net = task(seed, hidden)
    whole = net_gradients(net, X, y)[1]
    parts = [net_gradients(net, X[i::4], y[i::4])[1] for i in range(4)]
    mean = [sum(part) / 4 for part in zip(*parts)]
    result["shards"] = off = np.max([relative_error(m, g) for m, g in zip(mean, whole)])
    assert off < 1e-12
    print(f"""
The mean of the gradients of four shards of 75 points is that of all 300: {off:.0e} off.
One after the other, this is gradient accumulation: a large batch in a small memory. Side by side
on several machines, each needs the mean of all; to compute it is called an all-reduce. 11 does
this twice: over the threads of a machine and, with MPI, over machines.""")
    return result


if __name__ == "__main__":
    command_line(main)
