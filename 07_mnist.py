"""07  MNIST: handwritten digits, and what a score is worth.

MNIST (LeCun 1998) is a set of images of handwritten digits, of 28 x 28 pixels
each: 60,000 to learn from, of which 5,000 are held out, and 10,000 to test on.
Our network is a multilayer perceptron: 784 pixels, two hidden layers of 512
units with ReLU, 10 logits. It has 670,000 weights, twelve for each image that it
learns from, and so it could memorize the images instead of learning what a 7
looks like. That is called overfitting. Therefore the network never sees an image
twice in exactly the same shape (data augmentation). And it is never asked to be
certain (label smoothing).

A score means something only if it was measured on new images: the network did
not learn from them, and they were not used to choose a setting. And it needs an
error bar, which says how far off it may be by chance.

Run           python 07_mnist.py       the first run downloads 12 MB into data/
Expect        a minute on two cores, 0.15 GB of memory. 99.3 % of the test
              images right, give or take 0.1 %
Try           --distortion=0               no data augmentation: 98.7 %
              --smoothing=0                no label smoothing: 99.3 % as well
              --epochs=60 --hidden=1024    6 minutes: 99.5 %
              --data=FOLDER                other images in files of the same
                                           names, such as Fashion-MNIST's
Left out      convolutions, layers that look at small neighbourhoods of pixels:
              99.7 % and more; text (08)
Carried from  01: numeric_gradient, relative_error.  04: init_net, softmax.
              05: topological_order, unbroadcast, as_rows, Tensor, mlp, as_tensors.
              06: adam, warmup_linear, minibatches
"""
import argparse, contextlib, gzip, hashlib, http.client, inspect, itertools, math, os, shutil
import sys, time, urllib.request, zlib
from pathlib import Path

import numpy as np

# N images of 784 pixels: X (N, 784), bytes from 0 to 255; y (N,), the digits.


# ---- new here: the network ------------------------------------------------------------------

def init_digit_net(rng, hidden):
    """[(W, b), ...] with two hidden layers, in float32: half the memory of float64 (03)."""
    return [(W.astype(np.float32), b.astype(np.float32))
            for W, b in init_net(rng, [784, hidden, hidden, 10])]


def to_float(X):
    """Bytes as float32 from 0 to 1; one batch at a time, as bytes take a quarter of the memory."""
    return X * np.float32(1 / 255)


def predict_logits(net, X):
    """Logits (N, 10) of the network for images X (N, 784), a thousand at a time."""
    return np.concatenate([mlp(as_tensors(net), to_float(X[i:i + 1000])).data
                           for i in range(0, len(X), 1000)])


# ---- new here: data augmentation ------------------------------------------------------------
# A slightly deformed 7 is still a 7. So we deform the images in a new random
# way whenever we use them. For each pixel of the new image we compute which
# pixel of the old one it shows. (The other way round, some new pixels would
# get two values and some none.) The place in the old image is the place in the
# new one, (row, column) as seen from the middle of the image,
#     times a matrix near [[1, 0], [0, 1]], which rotates, stretches and slants,
#     plus a bend, which changes smoothly from pixel to pixel,
#     plus a shift of up to two pixels, the same for all.
#
# For the bend, draw two random numbers for each pixel, one for its row and one
# for its column. Replace each number by a weighted sum of its neighbours,
# first along the columns, BLUR @ noise, and then along the rows, @ BLUR.T. The
# weights fall off like a bell: four pixels away they are 0.61 of the one in
# the middle. If independent random numbers around 0 are added with the weights
# a, b, .., the mean square of the sum is a^2 + b^2 + .. times that of the
# numbers (06). So each row of BLUR is divided by the root of the sum of its
# squares, and the numbers stay as large as they were.

ROWS = np.arange(28)
# Column 28 r + c of GRID is the pixel (r, c), seen from the middle.
GRID = np.stack(np.meshgrid(ROWS, ROWS, indexing="ij")).reshape(2, 784) - 13.5
BLUR = np.exp(-(ROWS[:, None] - ROWS) ** 2 / (2 * 4.0 ** 2))  # (28, 28), by distance
BLUR /= np.sqrt((BLUR ** 2).sum(1, keepdims=True))


def distort(rng, images, strength=1.0):
    """Images (N, 784), all deformed in the same random way (after Simard 2003).

    One deformation for a whole mini-batch costs next to nothing: in the next
    epoch each image is deformed differently. (With a deformation of its own
    for each image, the training takes twice as long, and 99.34 % of the test
    images are right instead of 99.29 %, the means of three seeds.)
    """
    matrix = np.eye(2) + strength * rng.uniform(-0.15, 0.15, (2, 2))
    bend = 0.5 * BLUR @ rng.standard_normal((2, 28, 28)) @ BLUR.T  # about half a pixel
    shift = rng.uniform(-2, 2, (2, 1))
    source = matrix @ GRID + strength * (bend.reshape(2, 784) + shift) + 13.5  # (2, 784)
    row, column = np.rint(source).clip(0, 27).astype(int)  # the nearest pixel of the image
    return images.take(28 * row + column, axis=1)   # its place in a row of 784


# ---- new here: label smoothing --------------------------------------------------------------
# The loss -ln p_y is 0 only if p_y = 1, for which the logit of the right class
# would have to be infinitely far above the others. So no image is ever done:
# the weights go on growing, and the network becomes too sure of itself. Label
# smoothing (Szegedy 2016) asks for a little less. The target is now a row q of
# ten probabilities: 0.95 + 0.005 for the right class, and 0.005 for each of
# the others (smoothing = 0.05 is shared among all ten). The loss of one image
# is
#     L = - sum over k of q_k * ln p_k
# With q = 1 for the right class and 0 for the others it is -ln p_y as before.
# As ln p_k = z_k - ln(sum of e^z), and the q_k add up to 1,
#     L = ln(sum of e^z) - sum over k of q_k * z_k
#     dL/dz_k = p_k - q_k                 for the slope of the first term see 04
# This is 0 for p = q, where L is lowest: 0.282, not 0.
#
# What does it buy? Without augmentation 98.69 % of the test images are right
# with it and 98.58 % without (means of three seeds): perhaps a little, perhaps
# chance (see "what a score is worth"). With augmentation it is 99.29 % both
# times. There is a price: the network is as modest as it was taught to be. On
# average it gives its answers a probability of 95 %, although 99 % of them are
# right. It is here because large networks are often trained with it.

def smoothed_cross_entropy(logits, y, smoothing=0.05):
    """The mean loss of logits (N, 10) against smoothed targets for the classes y (N,)."""
    q = np.full_like(logits.data, smoothing / 10)
    q[np.arange(len(y)), y] += 1 - smoothing
    z = logits.data - logits.data.max(axis=1, keepdims=True)  # the shift cancels (04)
    ln_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    def vjp(g):
        return ((np.exp(ln_p) - q) * (g / len(y)),)          # dz = (p - q) / N
    return Tensor(-(q * ln_p).sum(1).mean(), (logits,), vjp)


# ---- new here: training ---------------------------------------------------------------------
# A step is that of 05, with the mini-batches, Adam and the schedule of 06. New
# are the deformed images, the smoothed targets and, after each epoch, the
# accuracy on images that were held out from the training. The printed loss is
# the mean over the steps of an epoch, so that of deformed images and smoothed
# targets, and never below 0.282.

def train_digits(rng, net, train, held_out, epochs, batch, lr, distortion, smoothing):
    """Train the network in place; its held-out accuracy by epoch, and images per second.

    train and held_out are pairs of images and labels.
    """
    X, y = train
    batches = minibatches(rng, len(X), batch)
    per_epoch = len(X) // batch
    steps = epochs * per_epoch
    step = 0
    weights = [array for layer in net for array in layer]
    states = [{} for _ in weights]
    accuracy = []
    seconds = 0.0
    print("epoch     loss  held-out  time left")
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        losses = []
        for rows in itertools.islice(batches, per_epoch):
            step += 1
            images = to_float(distort(rng, X[rows], distortion))
            params = as_tensors(net)
            loss = smoothed_cross_entropy(mlp(params, images), y[rows], smoothing)
            loss.backward()
            gradients = [tensor.grad for layer in params for tensor in layer]
            for w, dw, state in zip(weights, gradients, states):
                adam(w, dw, state, lr * warmup_linear(step, steps))
            losses.append(loss.data)
        if not np.mean(losses) < 1e3:                       # also true for nan
            sys.exit(f"error: the training diverges in epoch {epoch}: lower --lr")
        seconds += time.perf_counter() - start
        accuracy.append(np.mean(predict_logits(net, held_out[0]).argmax(1) == held_out[1]))
        print(f"{epoch:5} {np.mean(losses):8.4f} {accuracy[-1]:9.2%} "
              f"{seconds / epoch * (epochs - epoch):8.0f} s", flush=True)
    return accuracy, steps * batch / seconds


# ---- new here: what a score is worth --------------------------------------------------------
#  1 A score has to be measured on images that the network has not learned from.
#  2 Settings are choices. If you try many and keep the best, it was partly luck,
#    and the images that decided make that setting look better than it is. So
#    the last 5,000 of the 60,000 images are held out. The network does not
#    learn from them, and we choose settings by the accuracy on them. This is
#    called validation. The test images are for reporting, at the end. The
#    settings below were chosen in this way, and the number of epochs so that a
#    run takes a minute. If you try others, compare the column "held-out".
#  3 The test images are a sample. Another 10,000 would have given another
#    score. Let r be the fraction of all such digits that the network misreads.
#    Count 1 for a misread digit and 0 for the others. The mean is r. A misread
#    digit is 1 - r away from it, the others are r away, so the mean square of
#    the deviation, the variance, is r (1 - r)^2 + (1 - r) r^2 = r (1 - r). For n
#    independent digits the variances, which are mean squares, add up (06) to
#    n r (1 - r). The number of mistakes typically deviates by the root of that.
#    Divided by n, as in the score, this is sqrt(n r (1 - r)) / n =
#    sqrt(r (1 - r) / n), the standard deviation. For r = 0.7 % and n = 10,000 it
#    is 0.08 %. Sums of many numbers follow the bell curve, the normal
#    distribution, so two of three scores are no farther off than that. And
#    another seed changes the score, too. So two networks whose scores differ by
#    0.1 % may well be equally good.

def error_bar(wrong, n):
    """How far, in percentage points, an accuracy measured on n images is typically off."""
    r = (wrong + 1) / (n + 2)  # wrong / n, moved a little towards 1/2: never 0 or 1
    return 100 * math.sqrt(r * (1 - r) / n)


# ---- the experiment: pictures ---------------------------------------------------------------

def picture(image, shades=" .:-=+*#%@"):
    """An image (784,), from 0 to 1, as 11 lines of 22 characters, without its margin."""
    image = image.reshape(28, 28)[3:25, 3:25]
    image = image.reshape(11, 2, 22).mean(1)  # characters are twice as high as wide
    return ["".join(shades[int(value * (len(shades) - 0.01))] for value in row) for row in image]


def side_by_side(pictures, captions):
    """Print four pictures, each below its caption."""
    print("   ".join(f"{caption:22}" for caption in captions).rstrip())
    for lines in zip(*pictures):
        print("   ".join(lines).rstrip())


def show_digits(rng, X, y, distortion):
    """Draw four random digits, and the first of them deformed four times as in training."""
    few = rng.integers(len(X), size=4)
    side_by_side([picture(to_float(X[i])) for i in few], [f"a {y[i]}" for i in few])
    print("\nThe first of them, deformed four times as in training")
    bent = [distort(rng, X[few[:1]], distortion)[0] for _ in range(4)]
    side_by_side([picture(to_float(image)) for image in bent], [""] * 4)


def show_confusion(y, predicted):
    """Print the confusion matrix, how often each digit y was read as each digit; returns it."""
    table = np.zeros((10, 10), int)
    np.add.at(table, (y, predicted), 1)
    print("\nConfusion. Rows: what it is. Columns: what the network reads.\n    " +
          "".join(f"{k:6}" for k in range(10)))
    for k, row in enumerate(table):
        print(f"{k:4}" + "".join(f"{count or '.':>6}" for count in row))
    return table


def show_mistakes(X, y, logits):
    """Draw the four mistakes that the network was surest of."""
    p = softmax(logits)
    predicted = p.argmax(1)
    wrong = np.flatnonzero(predicted != y)        # the indices of the mistakes
    surest = wrong[np.argsort(-p[wrong, predicted[wrong]])][:4]  # by falling probability
    print("\nThe mistakes that the network was surest of:" if len(wrong) else "\nNo mistakes.")
    side_by_side([picture(to_float(X[i])) for i in surest],
                 [f"{y[i]}, but it reads {predicted[i]}, {p[i, predicted[i]]:.0%}"
                  for i in surest])


def show_first_layer(W):
    """Draw the weights of four units of the first hidden layer, those with the largest weights."""
    units = np.argsort(W.max(0))[-4:]
    print("\nThe weights of four units of the first layer, drawn as pictures; of all units, these\n"
          "have the largest. Ink in an image raises the unit's value where + or # stands, and\n"
          "lowers it where - or = stands (# and = are strong).")
    levels = (np.clip(W / (4 * W.std(0) + 1e-12), -1, 1) + 1) / 2  # 0 for -4 std, 1 for 4
    side_by_side([picture(levels[:, i], "==--    ++##") for i in units],
                 [f"unit {i}" for i in units])


# ---- the experiment -------------------------------------------------------------------------

def check_smoothing(rng):
    """Check the gradient of smoothed_cross_entropy, in float64; returns the relative error."""
    z = rng.standard_normal((6, 10))
    y = rng.integers(10, size=6)
    logits = Tensor(z)
    smoothed_cross_entropy(logits, y).backward()

    def loss():
        return smoothed_cross_entropy(Tensor(z), y).data
    error = relative_error(logits.grad, numeric_gradient(loss, z))
    print(f"\nGradient of the smoothed loss against measured slopes: relative error {error:.0e}")
    assert error < 1e-6
    return error


def main(data="data", epochs=24, batch=256, hidden=512, lr=0.002, distortion=1.0, smoothing=0.05,
         seed=0):
    """Train a network on handwritten digits, test it, and look at what it got wrong.

    data        folder with four files named as MNIST's; data/ is filled by a download
    epochs      passes over the training images
    batch       number of images in a mini-batch
    hidden      number of units in each of the two hidden layers
    lr          highest learning rate
    distortion  strength of the data augmentation; 0 for none
    smoothing   part of the target that is shared among all classes; 0 for none
    seed        random seed

    Returns {"test_accuracy", "seconds" of training and validation, "images_per_second" of the
    training, "held_out": accuracy by epoch, "confusion" (10, 10), "gradient_error"}.
    """
    X, y, test_X, test_y = load_digits(str(data), seed)
    cut = len(X) - len(X) // 12   # the rest is held out, to choose settings by
    if batch > cut:
        sys.exit(f"error: --batch must be at most {cut}, the images to train on")
    print(f"{cut:,} images to train on, {len(X) - cut:,} held out, {len(test_X):,} to test on.\n")
    rng = np.random.default_rng(seed)
    show_digits(rng, X, y, distortion)
    error = check_smoothing(np.random.default_rng(seed))

    net = init_digit_net(rng, hidden)
    size = sum(array.size for layer in net for array in layer)
    print(f"\n784-{hidden}-{hidden}-10, {size:,} weights; {epochs} epochs of "
          f"{cut // batch} steps of {batch} images\n")
    start = time.perf_counter()
    with np.errstate(all="ignore"):        # a training that diverges overflows
        accuracy, speed = train_digits(rng, net, (X[:cut], y[:cut]), (X[cut:], y[cut:]),
                                       epochs, batch, lr, distortion, smoothing)
        seconds = time.perf_counter() - start
        logits = predict_logits(net, test_X)
    if not np.isfinite(logits).all():
        sys.exit("error: the training diverges in its last step: lower --lr")
    confusion = show_confusion(test_y, logits.argmax(1))
    show_mistakes(test_X, test_y, logits)
    show_first_layer(net[0][0])
    n = len(test_y)
    wrong = n - int(np.trace(confusion))    # the diagonal counts what is right
    print(f"\n{wrong} of {n:,} test images are misread: test accuracy "
          f"{100 * (1 - wrong / n):.2f} %, give or take {error_bar(wrong, n):.2f} %\n"
          f"{epochs} epochs in {seconds:.1f} s, with validation; without it {speed:.0f} images/s")
    return {"test_accuracy": 1 - wrong / n, "seconds": seconds, "images_per_second": speed,
            "held_out": accuracy, "confusion": confusion, "gradient_error": error}


# ---- carried from 01, 04, 05 and 06, code unchanged: explained there ------------------------

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


def init_net(rng, sizes):
    """The layers [(W, b), ...] of a network; sizes counts its inputs, then the units by layer.

    The weights are random, with a standard deviation of sqrt(2 / inputs),
    which suits ReLU (He 2015; derived in 06). The biases are 0.
    """
    return [(rng.standard_normal((d_in, d_out)) * math.sqrt(2 / d_in), np.zeros(d_out))
            for d_in, d_out in zip(sizes, sizes[1:])]


def softmax(z):
    """Probabilities (N, K) from logits z (N, K)."""
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def topological_order(result):
    """The result and every node that it was computed from, each after its parents."""
    nodes, to_visit = {result}, [result]
    while to_visit:
        for parent in to_visit.pop().parents or ():  # a Tensor, below, may have None
            if parent not in nodes:
                nodes.add(parent)
                to_visit.append(parent)
    return sorted(nodes, key=lambda node: node.serial)


def unbroadcast(grad, shape):
    """grad, summed over the copies that broadcasting has made of an array of this shape."""
    if grad.shape == shape:
        return grad
    grad = grad.sum(tuple(range(grad.ndim - len(shape))))  # the new axes; () sums none
    axes = tuple(i for i, size in enumerate(shape) if size != grad.shape[i])
    return grad.sum(axes, keepdims=True)                # the stretched axes


def as_rows(x):
    """x (..., n) as one tall matrix (M, n): the matrices of a stack, one below the other."""
    return x.reshape(-1, x.shape[-1])


class Tensor:
    """An array that remembers how it was made, so that its gradient can be found."""

    __array_ufunc__ = None  # tells NumPy to leave array @ Tensor, and so on, to us
    made = itertools.count()            # gives each Tensor a serial number

    def __init__(self, data, parents=(), vjp=None):
        """vjp turns the gradient of this array into those of its parents, in their order."""
        self.data = np.asarray(data)
        if self.data.dtype.kind in "iub":  # integers and booleans become floats
            self.data = self.data.astype(float)
        self.grad = None
        self.parents = parents
        self.vjp = vjp
        self.serial = next(Tensor.made)

    def backward(self):
        """Add dL/dx to x.grad for everything that this single number L was computed from.

        On the way each node forgets its parents, which frees the memory. So a
        second call raises a RuntimeError. ValueError if there are several
        numbers.
        """
        if self.data.size != 1:
            raise ValueError("backward() starts from a single number: sum() the entries first")
        order = topological_order(self)
        if any(node.parents is None for node in order):
            raise RuntimeError("backward() has released this graph: compute it again")
        self.receive(np.ones_like(self.data))           # dL/dL
        while order:
            node = order.pop()          # the newest: its sum is complete
            if node.vjp is not None:
                for parent, grad in zip(node.parents, node.vjp(node.grad)):
                    parent.receive(grad)
                node.parents = node.vjp = None        # free the memory at once

    def receive(self, grad):
        """Add grad to .grad. (Not by +=: a + b gives the same array to a and to b.)"""
        self.grad = grad if self.grad is None else self.grad + grad

    def as_tensor(self, other):
        """other as a Tensor; a number or an array becomes one of the same dtype."""
        return other if isinstance(other, Tensor) else Tensor(np.asarray(other, self.data.dtype))

    def __add__(self, other):
        other = self.as_tensor(other)
        a, b = self.data, other.data

        def vjp(g):
            return unbroadcast(g, a.shape), unbroadcast(g, b.shape)
        return Tensor(a + b, (self, other), vjp)

    def __matmul__(self, other):
        other = self.as_tensor(other)
        a, b = self.data, other.data

        def vjp(g):
            A, B, G = a, b, g
            if b.ndim == 1:                 # a vector on the right is a column
                B, G = b[:, None], g[..., None]
            if a.ndim == 1:                     # a vector on the left is a row
                A, G = a[None, :], G[..., None, :]
            if B.ndim == 2:
                dA = as_rows(G) @ B.T
                dB = as_rows(A).T @ as_rows(G)
            else:
                dA = unbroadcast(G @ B.swapaxes(-1, -2), A.shape)
                dB = unbroadcast(A.swapaxes(-1, -2) @ G, B.shape)
            return dA.reshape(a.shape), dB.reshape(b.shape)
        if a.ndim > 2 and b.ndim == 2:
            y = (as_rows(a) @ b).reshape(*a.shape[:-1], -1)
        else:
            y = a @ b
        return Tensor(y, (self, other), vjp)

    def __rmatmul__(self, x):
        """x @ self for an array x; its gradient, a large product, is left out if possible."""
        x = np.asarray(x, self.data.dtype)
        if x.ndim < 2 or self.data.ndim != 2:
            return Tensor(x) @ self
        return Tensor(x @ self.data, (self,), lambda g: (as_rows(x).T @ as_rows(g),))

    def relu(self):
        y = np.maximum(self.data, 0)
        return Tensor(y, (self,), lambda g: (g * (y > 0),))


def mlp(params, X, activation=Tensor.relu):
    """The logits (N, K) of a multilayer perceptron, Tensors [(W, b), ...], for X (N, D)."""
    h = X
    for W, b in params[:-1]:
        h = activation(h @ W + b)
    W, b = params[-1]
    return h @ W + b


def as_tensors(weights):
    """The weights, a network [(W, b), ...] or a dict of arrays (from 08 on), as new Tensors."""
    if isinstance(weights, dict):
        return {name: Tensor(array) for name, array in weights.items()}
    return [(Tensor(W), Tensor(b)) for W, b in weights]


def adam(w, dw, state, lr, beta1=0.9, beta2=0.99, eps=1e-8):
    """Adam (Kingma 2015): divides the mean of dw by the root of the mean of dw^2."""
    m = state.setdefault("m", np.zeros_like(w))
    v = state.setdefault("v", np.zeros_like(w))
    t = state.get("t", 0) + 1
    state["t"] = t
    m *= beta1
    m += (1 - beta1) * dw
    v *= beta2
    v += (1 - beta2) * dw * dw
    mean = m / (1 - beta1 ** t)                          # with bias correction
    mean_square = v / (1 - beta2 ** t)
    w -= lr * mean / (np.sqrt(mean_square) + eps)


def warmup_linear(step, steps, warmup=20):
    """The factor of the learning rate in step 1 .. steps: a linear rise, then a linear fall."""
    return min(step / warmup, 1, (steps + 1 - step) / max(1, steps + 1 - warmup))


def minibatches(rng, n, size):
    """Yield the indices of shuffled mini-batches of size examples, out of n, forever.

    No example repeats within an epoch, one pass over the examples. What is
    left at its end and does not fill a batch is left out.
    ValueError if there are fewer examples than a batch needs.
    """
    if n < size:
        raise ValueError(f"{n} examples do not fill a mini-batch of {size}")
    while True:
        order = rng.permutation(n)      # so batches differ from epoch to epoch
        for i in range(0, n - size + 1, size):
            yield order[i:i + size]


# ---- plumbing: MNIST's files, and drawn digits where there are none ---------------------------

HOSTS = ("https://ossci-datasets.s3.amazonaws.com/mnist/",
         "https://storage.googleapis.com/cvdf-datasets/mnist/")
FILES = {                                 # name: SHA-256 of the unpacked bytes
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def read_idx(content, name):
    """The array in the bytes of an IDX file.

    It begins with 0, 0, 8 (for bytes) and the number of axes. The length of
    each axis follows in four bytes, the highest first, and then the entries.
    """
    axes = 3 if "images" in name else 1
    if content[:4] != bytes([0, 0, 8, axes]):
        sys.exit(f"error: {name} is not an IDX file of bytes with {axes} axes")
    shape = np.frombuffer(content[4:4 + 4 * axes].ljust(4 * axes, b"\0"), ">u4").tolist()
    if 0 in shape or len(content) != 4 + 4 * axes + math.prod(shape):
        sys.exit(f"error: {name} has {len(content)} bytes, not what its sizes {shape} ask for")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def read_file(folder, name):
    """The unpacked bytes of a file in the folder, with or without .gz; None if it is missing."""
    packed = name if os.path.exists(Path(folder, name)) else f"{name}.gz"
    if folder == "data":
        return download(packed, [f"{host}{name}.gz" for host in HOSTS], FILES[name])
    try:
        return unpack(Path(folder, packed).read_bytes())
    except (OSError, EOFError, ValueError, zlib.error) as problem:
        sys.exit(f"error: cannot read {Path(folder, packed)}: {problem}")


def load_digits(folder, seed):
    """X, y, test_X, test_y from the folder; drawn digits if MNIST is unavailable."""
    contents = []
    for name in FILES:
        contents.append(read_file(folder, name))
        if contents[-1] is None:
            print("MNIST is not in data/, and the download failed. Here are drawn digits instead.\n"
                  "To have MNIST, save these files in data/:\n  "
                  + "\n  ".join(f"{HOSTS[0]}{name}.gz" for name in FILES) + "\n")
            rng = np.random.default_rng(seed)
            return *draw_digits(rng, 6_000), *draw_digits(rng, 1_000)
    arrays = [read_idx(content, name) for content, name in zip(contents, FILES)]
    for part, least, images, labels in ("training", 12, *arrays[:2]), ("test", 1, *arrays[2:]):
        if images.shape[1:] != (28, 28):
            sys.exit(f"error: the {part} images do not have 28 x 28 pixels")
        if len(images) != len(labels):
            sys.exit(f"error: {len(images)} {part} images, {len(labels)} labels")
        if len(labels) < least:
            sys.exit(f"error: fewer than {least} {part} images")
        if labels.max() > 9:
            sys.exit(f"error: some {part} labels are above 9")
    return [array.astype(int) if array.ndim == 1 else array.reshape(-1, 784) for array in arrays]


GLYPHS = """
.###. ..#.. .###. .###. ...#. ##### .###. ##### .###. .###.
#...# .##.. #...# #...# ..##. #.... #.... ....# #...# #...#
#..## ..#.. ....# ....# .#.#. ####. #.... ...#. #...# #...#
#.#.# ..#.. ...#. ..##. #..#. ....# ####. ..#.. .###. .####
##..# ..#.. ..#.. ....# ##### ....# #...# ..#.. #...# ....#
#...# ..#.. .#... #...# ...#. #...# #...# .#... #...# ...#.
.###. .###. ##### .###. ...#. .###. .###. .#... .###. .##..
"""


def draw_digits(rng, n):
    """n images (n, 784) of drawn digits, bent, thick or thin, with noise; and their labels (n,)."""
    lines = np.array([list(word) for word in GLYPHS.split()]).reshape(7, 10, 5) == "#"
    near = np.exp(-(ROWS[:, None] - ROWS) ** 2.0)  # spreads ink; the loop takes some off
    labels, images = rng.integers(10, size=n), []
    for label in labels:
        image = np.pad(np.kron(lines[:, label], np.ones((3, 3))), ((3, 4), (6, 7)))
        image = near @ distort(rng, image.reshape(1, 784), 1.5).reshape(28, 28) @ near.T
        image = image - rng.uniform(0.5, 1.5) + 0.2 * rng.standard_normal((28, 28))
        images.append(255 * image.clip(0, 1).ravel())
    return np.array(images).astype(np.uint8), labels


# ---- plumbing, the same wherever it stands: nothing about neural networks -------------------

def write_file(path, content):
    """Write bytes to a temporary file, then rename it, so that path is never half-written."""
    path = os.path.realpath(path)       # of a link, the file that it points to
    part = f"{path}.{os.getpid()}.part"  # another run may be writing here, too
    try:
        with open(part, "wb") as file:
            if os.path.exists(path):
                shutil.copymode(path, part)     # a private file stays private
            file.write(content)
            file.flush()
            os.fsync(file.fileno())      # on the disk before the old file goes
        os.replace(part, path)
    finally:
        Path(part).unlink(missing_ok=True)      # of a write that failed


def unpack(content):
    """The bytes themselves, or if they are a gzip file, what is packed in it."""
    return gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content


def download(name, urls, sha256):
    """The unpacked bytes of data/name, which is downloaded if it is missing; None if that fails.

    What lies in data/ is the user's: it is used as it is and never written to.
    Only what comes from the network is checked: by SHA-256 of the unpacked
    bytes.
    """
    path = Path("data", name)
    broken = (OSError, EOFError, zlib.error, http.client.HTTPException)
    if os.path.exists(path):
        try:
            content = unpack(path.read_bytes())
        except broken as problem:
            sys.exit(f"error: cannot read {path}: {problem}")
        if hashlib.sha256(content).hexdigest() != sha256:
            print(f"note: {path} is not the original file; it is used as it is")
        return content
    for url in urls:
        print(f"downloading {url}", flush=True)
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:  # 10 seconds for each read
                received = reply.read()
            content = unpack(received)
            if hashlib.sha256(content).hexdigest() != sha256:
                raise OSError("its SHA-256 is wrong, so it is not used")
        except broken as problem:
            print(f"note: {problem}")
            continue
        with contextlib.suppress(OSError):  # where we may not write, it is used all the same
            path.parent.mkdir(exist_ok=True)
            write_file(path, received)
        return content
    return None


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
    command_line(main, may_be_zero=("distortion", "smoothing"))
