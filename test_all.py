"""Tests of the whole course: every script runs alone, every gradient is right, every law holds.

    python -m pytest -q test_all.py         or, without any set-up, uv run test_all.py

After a short set-up comes a section for each script, then what holds for all of them, at last
what users get wrong and the README. A script is also called a page: its text and what it prints.
Nothing needs the network. Tests that need the real data are skipped where data/ lacks it.
"""
import ast, contextlib, errno, gc, gzip, importlib.util, inspect, json, math, os, re, shlex
import shutil, signal, socket, stat, subprocess, sys, time, zipfile
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import DEFAULT, MagicMock, Mock

for threads in "OPENBLAS_NUM", "MKL_NUM", "OMP_NUM", "VECLIB_MAXIMUM":
    os.environ.setdefault(f"{threads}_THREADS", "1")    # on small matrices threads only wait

import numpy as np
import pytest

# A background job of a shell ignores Ctrl-C; here it must count.
signal.signal(signal.SIGINT, signal.default_int_handler)
HERE = Path(__file__).resolve().parent
SCRIPTS = sorted(HERE.glob("[01][0-9]_*.py"))
EACH_SCRIPT = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
RNG = np.random.default_rng(0)
TEXT = "To be, or not to be, that is the question:\n" * 20

NOT_WINDOWS = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals and links")
HAS_MPI = shutil.which("mpiexec") and importlib.util.find_spec("mpi4py")
NEEDS_MPI = pytest.mark.skipif(not HAS_MPI, reason="there is no MPI here")
NEEDS_TEXT = pytest.mark.skipif(not (HERE / "data/tinyshakespeare.txt").exists(),
                                reason="data/ does not hold tiny Shakespeare")
NEEDS_MNIST = pytest.mark.skipif(len(list(HERE.glob("data/*-idx?-ubyte*"))) < 4,
                                 reason="data/ does not hold MNIST")

# The proxy is a closed port of this machine, so no test reaches the network, or waits for long.
os.environ |= {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9",
               "no_proxy": ""}

# On Apple Silicon NumPy's matmul warns of overflow where there is none (its issue 28687).
FALSE_ALARMS = [f"ignore:{word} encountered in matmul" for word
                in ("divide by zero", "overflow", "invalid value") if sys.platform == "darwin"]
STRICT = ["-W", "error", *(f"-W{alarm}" for alarm in FALSE_ALARMS)]
if FALSE_ALARMS:
    os.environ["PYTHONWARNINGS"] = ",".join(FALSE_ALARMS)

# Open MPI, unlike MPICH, asks to be told that it may start more processes than cores, or as root.
os.environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
               "OMPI_MCA_rmaps_base_oversubscribe": "1",
               "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}


def load(name):
    """The script as a new module; importing it must run nothing."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# 01 to 11 as modules: lookup is 09_attention, blocks is 10_block
(neuron, activations, matmul, backprop, autograd, optim, mnist, embed, lookup, blocks,
 gpt) = (load(path.stem) for path in SCRIPTS)

TINY = dict(steps=6, eval_every=3, batch=4, context=8, blocks=2, heads=2, channels=16, tokens=20)
QUICK = {                                   # arguments that make each script quick
    "01_neuron": dict(steps=100),
    "02_activations": dict(steps=20),
    "03_matmul": dict(batch=2, inputs=8, neurons=4, size=16, budget=0.0),
    "04_backprop": dict(steps=20, points=10, hidden=8),
    "05_autograd": dict(steps=5, hidden=8),
    "06_optim": dict(steps=2, seeds=1, hidden=4),
    "07_mnist": dict(data="own", epochs=1, hidden=8, batch=8),
    "08_embed": dict(data="long.txt", merges=20, words=100, channels=8, steps=5),
    "09_attention": dict(channels=8, steps=5),
    "10_block": dict(deepest=4, channels=8, steps=3, blocks=1, digits=3),
    "11_gpt": dict(data="text.txt") | TINY,
}


def flags(arguments):
    """{"steps": 5} as ["--steps=5"]."""
    return [f"--{name}={value}" for name, value in arguments.items()]


def run(script, *arguments, before=(), options=STRICT, **environment):
    """Run a copy of the script in the working folder, as a user would, with warnings as errors.

    before stands in front of the command: it may be ["mpiexec", "-n", "2"].
    """
    shutil.copy(HERE / f"{script}.py", ".")
    return subprocess.run([*before, sys.executable, *options, f"{script}.py", *arguments],
                          env=os.environ | environment, capture_output=True, timeout=80,
                          stdin=subprocess.DEVNULL, encoding="utf-8", errors="replace")


def start(script, *arguments):
    """Start a copy of the script in the working folder, without a buffer for its output."""
    shutil.copy(HERE / f"{script}.py", ".")
    return subprocess.Popen([sys.executable, "-u", f"{script}.py", *arguments], text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def source(path):
    return path.read_text(encoding="utf-8")


def normal(*shape):
    return RNG.standard_normal(shape)


def idx(array):
    """The bytes of an IDX file, the format of MNIST."""
    array = np.asarray(array, np.uint8)
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def own_digits(folder, n=60, test=24):
    """Four files in MNIST's format: the label is how many quarters of the image are white."""
    rng = np.random.default_rng(0)
    Path(folder).mkdir(exist_ok=True)
    for part, count in (("train", n), ("t10k", test)):
        labels = rng.integers(5, size=count)
        images = np.zeros((count, 28, 28))
        for image, label in zip(images, labels):
            image[:, :7 * label] = 255
        Path(folder, f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        Path(folder, f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


def contents(folder="."):
    """{path: bytes} of all files in the folder."""
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def the_same_numbers_in_any_order():
    """Every test starts RNG afresh, so its numbers do not depend on the tests before it."""
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with texts and images, made the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    Path("long.txt").write_text(TEXT * 9, encoding="utf-8")
    own_digits("own")
    return tmp_path


# ---- how gradients are checked, and that the checks notice what is wrong -------------------------

relative_error = neuron.relative_error


def check_slopes(found, value, array):
    """Compare a gradient with measured slopes of the number value(), which reads the array."""
    assert found.shape == array.shape
    assert relative_error(found, neuron.numeric_gradient(value, array, eps=1e-5)) < 1e-6


def check_gradients(Tensor, function, *arrays):
    """Compare backward() with measured slopes, for each array; L is a sum with random weights."""
    inputs = [Tensor(array) for array in arrays]
    result = function(*inputs)
    weights = normal(*result.data.shape)

    def value():
        """L, from the arrays as they are now."""
        return (function(*map(Tensor, arrays)).data * weights).sum()
    # by hand, because the Tensor of 11 has neither * nor sum
    L = Tensor((result.data * weights).sum(), (result,), lambda g: (g * weights,))
    L.backward()
    for x, array in zip(inputs, arrays):
        check_slopes(x.grad, value, array)


def spoiled(result, which, factor):
    """Multiply gradient number `which` by factor.

    result is what a function for gradients returns (an array, a list, a dict, pairs of arrays),
    or it is a Tensor, whose vjp returns gradients.
    """
    if hasattr(result, "vjp"):
        right = result.vjp
        result.vjp = lambda g: spoiled(right(g), which, factor)
        return result
    if isinstance(result, dict):
        return dict(zip(result, spoiled(list(result.values()), which, factor)))
    if isinstance(result, (list, tuple)):
        found, i = list(result), which % len(result)
        found[i] = spoiled(found[i], which, factor)
        return found
    return factor * result


def test_the_checks_of_this_file_notice_a_wrong_gradient():
    """And they notice nan, which Python's max would lose."""
    y = np.array([1, 2])
    for operation, arrays in ((gpt.rms_norm, [normal(3, 4)]),
                              (lambda z: gpt.cross_entropy(z, y), [normal(2, 3)])):
        check_gradients(gpt.Tensor, operation, *arrays)
        for factor in 1.01, math.nan:
            with pytest.raises(AssertionError):
                check_gradients(gpt.Tensor, lambda *x: spoiled(operation(*x), 0, factor), *arrays)


# script, the function that checks its gradients, and what it must notice
TABLE = """
    01_neuron     main              gradient
    02_activations main             loss_and_gradients
    04_backprop   main              backward
    05_autograd   check_operations  Tensor.__add__ Tensor.__matmul__ cross_entropy
    07_mnist      check_smoothing   smoothed_cross_entropy
    08_embed      show_embedding    embedding skip_gram
    09_attention  check_attention   attention rms_norm rotary self_attention
    10_block      check_parts       layer_norm feed_forward gelu_feed_forward token_shift block
"""
CHECKS_ON_THE_PAGE = [(script, check, name) for script, check, *names
                      in map(str.split, TABLE.strip().splitlines()) for name in names]


@pytest.mark.parametrize("script, check, name", CHECKS_ON_THE_PAGE)
def test_the_check_on_the_page_notices_a_wrong_gradient(script, check, name, monkeypatch, capsys):
    """The first, the second or the last gradient of the last operation of each function."""
    for which, factor in (0, 1), (0, 1.01), (1, 1.01), (-1, 1.01), (-1, math.nan):
        module = load(script)
        owner = module.Tensor if name.startswith("Tensor.") else module
        right = getattr(owner, name.removeprefix("Tensor."))

        def wrong(*arguments, **options):
            result = right(*arguments, **options)
            if name == "loss_and_gradients":                # of 02: only the second is spoiled
                return result[0], spoiled(result[1], which, factor)
            return spoiled(result, which, factor)
        monkeypatch.setattr(owner, name.removeprefix("Tensor."), wrong)
        with contextlib.nullcontext() if factor == 1 else pytest.raises(AssertionError):
            module.main(steps=1) if check == "main" else getattr(module, check)(RNG)


# ---- 01 to 04 -----------------------------------------------------------------------------------

def test_01_first_step_by_hand():
    """On the points (0, 1) and (1, 3), from w = b = 0: errors -1 and -3."""
    x, y = np.array([0.0, 1.0]), np.array([1.0, 3.0])
    assert neuron.mean_squared_error(x, y, 0, 0) == 5
    assert neuron.gradient(x, y, 0, 0) == (-3, -4)
    w, b, losses = neuron.gradient_descent(x, y, lr=0.1, steps=1)
    assert np.allclose([w, b, losses[0]], [0.3, 0.4, 5])


def test_01_converges_just_below_the_largest_rate_and_not_just_above():
    """It is 2/c, and for x = 1 and -1 the curvature c is 2 mean(x^2) = 2."""
    x = np.array([1.0, -1.0])
    for lr, converges in (0.99, True), (1.01, False):
        _, _, losses = neuron.gradient_descent(x, 3 * x, lr, 100)
        assert (losses[-1] < losses[0]) == converges, lr


def test_01_learns_the_conversion(capsys):
    result = neuron.main()
    assert np.allclose([result["w"], result["b"]], [1.8, 32])
    assert capsys.readouterr().out.count("it diverges") == 1
    assert 0.01 < neuron.main(noise=1.0)["loss"] < 5
    assert neuron.main(lr=1.01, steps=500)["loss"] > 1e6


def test_01_plot_draws_what_is_finite_with_the_largest_value_on_top():
    picture = neuron.plot({"x": ([0, 1, 2, 3], [0.0, 1.0, math.nan, math.inf]), "o": ([4], [2.0])},
                          width=5, height=3)
    assert picture.splitlines() == ["    2.000 |    o", "    1.000 | x   ", "    0.000 |x    ",
                                    "          +-----", "           0   4"]
    assert neuron.plot({"x": ([0], [math.nan])}) == "(no finite value to plot)"
    assert neuron.plot({"x": (range(3), [7, 7, 7])}).count("x") == 3


@pytest.mark.parametrize("name, value, slope", [            # name, f(2), f'(2)
    ("identity", 2, 1), ("relu", 2, 1), ("leaky", 2, 1), ("tanh", 0.9640, 0.0707),
    ("sigmoid", 0.8808, 0.1050), ("softplus", 2.1269, 0.8808), ("silu", 1.7616, 1.0908),
    ("gelu", 1.9546, 1.0861)])
def test_02_derivatives_by_hand(name, value, slope):
    f, derivative = activations.ACTIVATIONS[name]
    assert np.isclose(f(np.array(2.0)), value, atol=1e-4)
    assert np.isclose(derivative(np.array(2.0)), slope, atol=1e-4)
    for function in f, derivative:
        assert np.isfinite(function(np.array([-1e4, 1e4]))).all()


def test_02_the_network_of_the_docstring_computes_xor():
    weights = {"W1": np.ones((2, 2)), "b1": np.array([0.0, -1.0]),
               "W2": np.array([[1.0], [-2.0]]), "b2": np.zeros(1)}
    assert np.array_equal(activations.logits(weights, activations.XOR_X, "relu"), activations.XOR_Y)


def test_02_a_nonlinearity_is_needed(capsys):
    result = activations.main(steps=1000)
    assert max(result["accuracy"]["identity"]) < 0.8
    assert all(scores == [1, 1] for name, scores in result["accuracy"].items()
               if name != "identity")
    left = {name: fractions[-1] for name, fractions in result["gradient_left"].items()}
    assert left["sigmoid"] < 1e-9                       # after 20 layers
    assert 1e-4 < left["relu"] < left["tanh"] < 0.5


def test_02_gradient_left_by_hand():
    """It goes back through the last layer first: d = (e * f'(a2)) @ W2.T, then f'(a1) and W1."""
    found = activations.gradient_left(np.random.default_rng(0), "tanh", depth=2, width=2, samples=3)
    rng = np.random.default_rng(0)      # it draws in this order: inputs, W1, W2, last gradient
    h, W1, W2, start = (rng.standard_normal(shape) for shape in ((3, 2), (2, 2), (2, 2), (3, 2)))
    W1, W2 = W1 / math.sqrt(2), W2 / math.sqrt(2)
    h1 = np.tanh(h @ W1)
    h2 = np.tanh(h1 @ W2)
    back = ((start * (1 - h2 ** 2)) @ W2.T * (1 - h1 ** 2)) @ W1.T
    assert np.isclose(found, np.linalg.norm(back) / np.linalg.norm(start))


def test_03_four_ways_by_hand():
    X, W, b = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[3.0], [4.0]]), np.array([5.0])
    for way in (matmul.layer_by_numbers, matmul.layer_by_neurons, matmul.layer_by_examples,
                matmul.layer):
        assert way(X, W, b).tolist() == [[16], [9]]


def test_04_gradient_of_the_output_by_hand():
    """Probabilities 1/4 and 3/4 where the second class is right: dz is 1/4 and -1/4."""
    z, y = np.log([[1.0, 3.0]]), np.array([1])          # z is given: the weights play no part
    net, h = [(np.zeros((2, 2)), np.zeros(2))], [np.array([[2.0, 0.0]])]
    [(dW, db)] = backprop.backward(net, h, z, y)
    assert np.allclose(db, [0.25, -0.25])
    assert np.allclose(dW, [[0.5, -0.5], [0, 0]])
    assert np.isclose(backprop.mean_loss(z + 1e4, y), -math.log(3 / 4))     # no overflow


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_04_gradients_at_any_depth(layers):
    X, y = normal(6, 2), np.array([0, 1, 2, 0, 1, 2])
    net = [(normal(*W.shape), normal(*b.shape))
           for W, b in backprop.init_net(RNG, [2] + [9] * (layers - 1) + [3])]

    def value():
        return backprop.mean_loss(backprop.forward(net, X)[1], y)
    h, z = backprop.forward(net, X)
    for (W, b), (dW, db) in zip(net, backprop.backward(net, h, z, y)):
        check_slopes(dW, value, W)
        check_slopes(db, value, b)


def test_04_learns_the_spiral(capsys):
    result = backprop.main(steps=300)
    assert result["accuracy"] > 0.99
    picture = capsys.readouterr().out.partition("and c on #.\n")[2].splitlines()[:29]
    assert set("".join(picture)) == set(" .:#abc")      # all three regions and all three arms


# ---- 05 -----------------------------------------------------------------------------------------

def test_05_order_matters():
    """The small graph of the page: with an order 25 and 19, without one 29 and 22."""
    for engine in autograd.Value, autograd.Tensor:
        a, b = engine(2.0), engine(3.0)
        c, d, s, p, L = autograd.small_graph(a, b)
        L.backward()
        assert [x.grad for x in (a, b, c, d, s, p, L)] == [25, 19, 7, 6, 1, 1, 1]
    a, b = autograd.Value(2.0), autograd.Value(3.0)
    L = autograd.small_graph(a, b)[-1]
    L.grad = 1.0
    autograd.naive_backward(L)
    assert (L.data, a.grad, b.grad) == (41, 29, 22)


def test_05_values_by_hand():
    a, row = autograd.Tensor([[1, 2], [3, 4]]), np.array([10.0, 20.0])
    for found, expected in (
            (a + 1, [[2, 3], [4, 5]]), (1 - a, [[0, -1], [-2, -3]]), (-a, [[-1, -2], [-3, -4]]),
            (a - row, [[-9, -18], [-7, -16]]), (row - a, [[9, 18], [7, 16]]),
            (3 * a / 2, [[1.5, 3], [4.5, 6]]), (a ** 2, [[1, 4], [9, 16]]),
            (6 / a, [[6, 3], [2, 1.5]]), (row / a, [[10, 10], [10 / 3, 5]]),
            (a @ row, [50, 110]), (row @ a, [70, 100]), (np.eye(2) @ a, a.data),
            (a.sum(), 10), (a.sum(0), [4, 6]), (a.sum((0, 1), keepdims=True), [[10]]),
            (a.mean(), 2.5), (a.reshape(4), [1, 2, 3, 4]), (a.reshape((4,)), [1, 2, 3, 4]),
            (a[1, 0], 3), (a.exp().log(), a.data), (a.tanh(), np.tanh(a.data)),
            ((a - 2).relu(), [[0, 0], [1, 2]])):
        assert isinstance(found, autograd.Tensor)
        assert found.shape == np.shape(expected) and np.allclose(found.data, expected), expected
    assert repr(autograd.Tensor([1.0, 2.0])) == "Tensor([1. 2.])"


@pytest.mark.filterwarnings("error", *FALSE_ALARMS)
@pytest.mark.parametrize("function, values, gradients", [
    (lambda a: (a * 0.5).sum(), [[1, 2]], [[0.5, 0.5]]),        # whole numbers become real ones
    (lambda x: (x ** 0).sum(), [[0.0, 2.0]], [[0, 0]]),
    (lambda x: (x ** 1).sum(), [[0.0, 2.0]], [[1, 1]]),
    (lambda x: (x ** 2).sum(), [[0.0, 2.0]], [[0, 4]]),
    (lambda a, b: a @ b, [[1.0, 2.0], [3.0, 4.0]], [[3, 4], [1, 2]]),
    (lambda a: (a.reshape((4,)) * [1.0, 2, 3, 4]).sum(), [[[1.0, 2], [3, 4]]], [[[1, 2], [3, 4]]])])
def test_05_gradients_by_hand(function, values, gradients):
    inputs = [autograd.Tensor(value) for value in values]
    function(*inputs).backward()
    assert [x.grad.tolist() for x in inputs] == gradients


OPERATIONS = autograd.OPERATIONS | {
    "1 / a": (lambda a: 1 / a.exp(), (3, 4)),
    "vector @ b": (lambda a, b: a @ b, (4,), (4, 2)),
    "a @ vector": (lambda a, b: a @ b, (3, 4), (4,)),
    "a used twice": (lambda a: a * a + a.exp(), (3, 4)),
    "loss": (lambda a: autograd.cross_entropy_in_steps(a, autograd.TARGETS), (3, 4))}


@pytest.mark.parametrize("name", OPERATIONS)
def test_05_gradient_of(name):
    """Against measured slopes in float64; and what is float32 stays float32."""
    function, *shapes = OPERATIONS[name]
    arrays = [normal(*shape) for shape in shapes]
    check_gradients(autograd.Tensor, function, *arrays)
    single = [autograd.Tensor(array.astype(np.float32)) for array in arrays]
    result = function(*single)
    result.sum().backward()
    assert {array.dtype for array in [result.data, *(x.grad for x in single)]} == {np.dtype("f4")}


@pytest.mark.parametrize("a, b", [
    ((3,), (3,)), ((3,), (3, 2)), ((4, 3), (3,)), ((3,), (5, 3, 2)), ((5, 4, 3), (3,)),
    ((5, 4, 3), (3, 2)), ((4, 3), (5, 3, 2)), ((6, 5, 4, 3), (5, 3, 2))])
def test_05_products_of_vectors_matrices_and_stacks_of_matrices(a, b):
    check_gradients(autograd.Tensor, lambda a, b: a @ b, normal(*a), normal(*b))
    array = normal(*a)                  # no Tensor: Python calls the __rmatmul__ of the other side
    check_gradients(autograd.Tensor, lambda b: array @ b, normal(*b))


@pytest.mark.parametrize("values, result, gradients", [
    ((-4.0, 2.0), 13.150261675338314, [-3.086075004997981, 3.0909609139011436]),
    ((0.3, 1.2), 3.3744842929671646, [-0.06383875913999876, -0.189455658550791])])
def test_05_a_long_expression_has_the_values_that_pytorch_gives(values, result, gradients):
    """Nodes are used several times; the numbers are those of the same lines in PyTorch 2.13."""
    x, y = inputs = [autograd.Tensor(value) for value in values]
    a = x + y
    b = x * y + y ** 3
    for _ in range(3):
        b = b + a.relu() * 0.5 - (b / 4) ** 2
        a = 1 - a * b / 10 + (-x).relu()
    L = (a ** 2 + b / (1 + a * a) + 10 / (b * b + 2)).sum()
    L.backward()
    assert np.isclose(L.data, result, rtol=1e-12)
    assert np.allclose([x.grad for x in inputs], gradients, rtol=1e-12)


@pytest.mark.parametrize("shift", [0, 1e4, -1e4])
def test_05_cross_entropy_by_hand(shift):
    logits = np.log([[1.0, 3.0], [1.0, 1.0]]) + [[shift], [-shift]]
    for loss in autograd.cross_entropy, autograd.cross_entropy_in_steps:
        found = loss(autograd.Tensor(logits), np.array([1, 0])).data
        assert np.isclose(found, -(math.log(3 / 4) + math.log(1 / 2)) / 2)


def test_05_numpy_does_not_swallow_a_tensor():
    """It would take it for an object, and the result would have no gradient: TypeError instead."""
    one, two = autograd.Tensor(1.0), autograd.Tensor([1.0, 2.0])
    for call in (lambda: autograd.Tensor([one, one]), lambda: autograd.Tensor(one),
                 lambda: np.dot(np.ones(2), two), lambda: np.ones(2).dot(two),
                 lambda: np.array([one, one]), lambda: np.mean(two), lambda: np.exp(two)):
        with pytest.raises(TypeError):
            call()


def test_05_gradients_add_up_and_graphs_are_released():
    a = autograd.Tensor([1.0, 2.0])
    with pytest.raises(ValueError, match="single number"):
        (a * a).backward()
    assert a.grad is None
    (a * a).sum().backward()
    y = (a * a).sum()
    y.backward()
    for again in y, y + 1:
        with pytest.raises(RuntimeError, match="released"):
            again.backward()
    assert a.grad.tolist() == [4, 8]


def test_05_stays_float32_beside_numbers_of_float64():
    x = autograd.Tensor(np.float32(3))
    for y in x ** np.float64(2), x * np.float64(2), x / np.float64(2):
        y.backward()
        assert y.data.dtype == x.grad.dtype == np.float32


def test_05_a_long_chain_needs_no_recursion():
    x = y = autograd.Tensor(1.0)
    for _ in range(50_000):
        y = y + 1
    y.backward()
    assert x.grad == 1


def test_05_learns_the_spiral_with_the_gradients_of_04(capsys):
    for activation in "relu", "tanh":
        result = autograd.main(activation)
        assert result["accuracy"] > 0.99 and result["difference"] < 1e-12
        assert "a = 2 [25]" in capsys.readouterr().out


# ---- 06 -----------------------------------------------------------------------------------------

# The second step of Adam: m = 0.29 and 1 - 0.9^2 = 0.19, v = 0.0499 and 1 - 0.99^2 = 0.0199.
ADAM_2 = 0.1 * (0.29 / 0.19) / math.sqrt(0.0499 / 0.0199)


@pytest.mark.parametrize("name, expected", [
    ("sgd", [0.9, 0.7]), ("momentum", [0.9, 0.61]),
    ("rmsprop", [0, -0.2 / math.sqrt(0.0499)]), ("adam", [0.9, 0.9 - ADAM_2]),
    ("adamw", [0.899, 0.898101 - ADAM_2])])
def test_06_two_steps_by_hand(name, expected):
    """From w = 1, with gradients 1 and 2 and a rate of 0.1."""
    w, state = np.ones(1), {}
    for dw, value in zip((1.0, 2.0), expected):
        getattr(optim, name)(w, np.array([dw]), state, 0.1)
        assert np.isclose(w[0], value, atol=1e-7)


@pytest.mark.parametrize("shape, stretch", [((8, 20), math.sqrt(20 / 8)), ((20, 8), 1)])
def test_06_muon_makes_every_direction_equally_long(shape, stretch):
    w, dw = normal(*shape), normal(*shape)
    before = w.copy()
    optim.muon(w, dw, {}, lr=0.5, decay=0.2)
    step = (before * (1 - 0.5 * 0.2) - w) / 0.5 / stretch
    singular_values = np.linalg.svd(step)[1]                    # all about 1
    assert 0.6 < singular_values.min() and singular_values.max() < 1.3


def test_06_the_momentum_of_muon_by_hand():
    """Nesterov's: a step goes along 0.9 m + 0.1 dw, with the m to which dw was added already."""
    w, state, dw, other = np.zeros((2, 2)), {}, normal(2, 2), normal(2, 2)
    optim.muon(w, dw, state, lr=1)
    after_one = w.copy()
    optim.muon(w, other, state, lr=1)
    m = 0.9 * 0.1 * dw + 0.1 * other
    assert np.allclose(after_one - w, optim.newton_schulz(0.9 * m + 0.1 * other))


def test_06_the_table_of_singular_values_on_the_page():
    """0.01 becomes 0.03, 0.12, 0.40, 1.09, 0.70, and so on."""
    rows = re.findall(r"#     ([\d.]+) +becomes (.*)", source(HERE / "06_optim.py"))
    assert len(rows) == 3
    for start, values in rows:
        G = np.diag([float(start), math.sqrt(1 - float(start) ** 2)])        # of norm 1
        found = [np.abs(optim.newton_schulz(G, steps)[0, 0]) for steps in range(1, 6)]
        assert [f"{value:.2f}" for value in found] == values.split(", ")


def test_06_schedules_by_hand():
    """Up to 1 at step 20, then down, to reach 0 at step 101."""
    def at(schedule, *steps):
        return [schedule(step, 100) for step in steps]
    assert at(optim.constant, 1, 20, 100) == [0.05, 1, 1]
    assert at(optim.warmup_linear, 1, 20, 100) == [0.05, 1, 1 / 81]
    assert np.allclose(at(optim.cosine, 1, 20), [0.05, 1])
    assert np.isclose(optim.cosine(60, 99), 0.5)        # half-way from 20 to 100
    assert optim.cosine(99, 99) < 0.001
    for schedule in optim.SCHEDULES.values():
        for steps in 1, 5, 40:                  # also of a run that is shorter than the warm-up
            assert all(0 < schedule(step, steps) <= 1 for step in range(1, steps + 1))


def test_06_clipping_keeps_the_direction():
    shortened = optim.clip([np.array([3.0]), np.array([[4.0]])], 1)
    assert np.allclose([g.item() for g in shortened], [0.6, 0.8])
    assert optim.clip([np.array([3.0])], 5)[0] == 3     # short enough as it is


def test_06_an_epoch_sees_each_example_once():
    batches = optim.minibatches(np.random.default_rng(0), 10, 5)
    first = np.concatenate([next(batches), next(batches)])      # an epoch is two batches
    second = np.concatenate([next(batches), next(batches)])
    assert sorted(first) == sorted(second) == list(range(10))
    assert list(first) != list(second)
    with pytest.raises(ValueError, match="50 examples do not fill a mini-batch of 60"):
        next(optim.minibatches(np.random.default_rng(0), 50, 60))


def test_06_the_gradient_of_the_valley():
    w = normal(2)
    check_slopes(optim.valley(w)[1], lambda: optim.valley(w)[0], w)
    assert optim.valley(optim.BOTTOM)[0] == 0


def test_06_what_the_page_says(capsys):
    result = optim.main(steps=100, seeds=1)
    assert result["valley"]["SGD"] == max(result["valley"].values())        # the slowest
    assert result["valley"]["SGD"] < 0.5                                    # but it arrives
    race = result["race"]
    assert max(race["Adam"], race["Muon"]) < race["SGD"]
    accuracy = result["initializations"]
    assert accuracy["zeros"] == accuracy["too small"] < 0.34
    assert accuracy["He"] > 0.9
    clipped, free = (result["clipping"][max_norm][0] for max_norm in (0.3, math.inf))
    assert clipped < 0.3 < free                                             # losses of seed 0


# ---- 07 -----------------------------------------------------------------------------------------

def test_07_idx_by_hand():
    content = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 7, 8, 9, 255])
    assert mnist.read_idx(content, "images").tolist() == [[[7, 8], [9, 255]]]
    assert mnist.read_idx(idx([3, 1]), "labels").tolist() == [3, 1]
    for wrong in (b"", b"\0\0\x08", content[:9],                # cut in the head
                  content[:-1], content + b"1",                 # too short, too long
                  idx([1, 2]),                                  # labels, not images
                  b"<html>502 Bad Gateway</html>",              # the answer of a server
                  content.replace(b"\x08", b"\x0d", 1)):        # type 13: numbers of float32
        with pytest.raises(SystemExit, match="^error: images"):
            mnist.read_idx(wrong, "images")


def test_07_smoothed_targets_by_hand():
    """Logits ln 1, ln 9 and eight 0: the loss is that of the target 0.955 and nine times 0.005."""
    z, y = np.zeros((1, 10)), np.array([1])
    z[0, 1] = math.log(9)
    expected = -0.955 * math.log(9 / 18) - 9 * 0.005 * math.log(1 / 18)
    assert np.isclose(mnist.smoothed_cross_entropy(mnist.Tensor(z), y).data, expected)
    assert np.isclose(mnist.smoothed_cross_entropy(mnist.Tensor(z), y, 0).data, math.log(2))


def test_07_error_bar_by_hand():
    """Of 98 images half are wrong: sqrt(1/4 / 98) is 5.05 %."""
    assert np.isclose(mnist.error_bar(49, 98), 100 * math.sqrt(0.25 / 98))
    assert mnist.error_bar(0, 10) > 0           # ten right answers are no proof of a perfect score


def test_07_all_images_of_a_batch_are_deformed_alike():
    def distort(images, strength=1.0):
        return mnist.distort(np.random.default_rng(0), images, strength)
    images = RNG.random((3, 784), dtype=np.float32)
    assert np.array_equal(distort(images[::-1]), distort(images)[::-1])
    assert not np.allclose(distort(images), images, atol=0.1)
    assert np.array_equal(distort(images, 0), images)
    assert distort(images, 0).dtype == np.float32


def test_07_a_distortion_moves_a_dot_by_about_a_pixel_to_all_sides():
    dot = np.zeros((28, 28), np.float32)
    dot[13:15, 13:15] = 1
    moved = [mnist.distort(RNG, dot.reshape(1, 784))[0] for _ in range(200)]
    centres = np.array([mnist.GRID @ image / image.sum() for image in moved])       # row, column
    assert np.abs(centres.mean(0)).max() < 0.5
    assert 0.5 < centres.std(0).min() and centres.std(0).max() < 2


def test_07_pixels_become_numbers_from_0_to_1():
    images = mnist.to_float(np.array([0, 255], np.uint8))
    assert images.tolist() == [0, 1] and images.dtype == np.float32


def test_07_stays_float32_and_is_the_same_twice(folder, capsys, monkeypatch):
    nets, init = [], mnist.init_digit_net

    def remember(*arguments):
        net = init(*arguments)
        nets.append(net)
        return net
    monkeypatch.setattr(mnist, "init_digit_net", remember)
    results = [mnist.main(data="own", hidden=8, batch=10, epochs=20, seed=seed)
               for seed in (0, 0, 1)]
    assert results[0]["test_accuracy"] > 0.5 and results[0]["confusion"].sum() == 24
    first, again, other = ([array for layer in net for array in layer] for net in nets)
    for a, b in zip(first, again):
        assert a.dtype == np.float32 and np.array_equal(a, b)
    assert not np.array_equal(first[0], other[0])


def test_07_drawn_digits_can_be_learned(folder, capsys):
    """There is no network here, so it draws digits by itself, and leaves no file behind."""
    before = contents()
    result = mnist.main(epochs=4, hidden=128, batch=64)
    assert result["test_accuracy"] > 0.85 and len(result["held_out"]) == 4
    said = capsys.readouterr().out
    assert "drawn digits instead" in said and "test accuracy" in said.splitlines()[-2]
    assert contents() == before


@pytest.mark.parametrize("part, array, sentence", [
    ("train-images-idx3", np.zeros((60, 28, 27)), "training images do not have 28 x 28"),
    ("t10k-images-idx3", np.zeros((23, 28, 28)), "23 test images, 24 labels"),
    ("train-labels-idx1", np.full(60, 10), "training labels are above 9"),     # EMNIST's letters
    ("train-labels-idx1", np.zeros((60, 2)), "not an IDX file of bytes with 1 axes")])   # QMNIST
def test_07_own_files_that_do_not_fit_are_refused(part, array, sentence, folder):
    Path("own", f"{part}-ubyte").write_bytes(idx(array))
    with pytest.raises(SystemExit, match=sentence):
        mnist.main(data="own")


@NEEDS_MNIST
def test_07_mnist(folder, capsys):
    shutil.copytree(HERE / "data", "data")
    assert mnist.main(epochs=1, hidden=64)["test_accuracy"] > 0.9
    assert capsys.readouterr().out.startswith("55,000 images to train on, 5,000 held out")


# ---- 08 -----------------------------------------------------------------------------------------

def test_08_merges_by_hand():
    """aaabdaaabac: aa becomes Z, ab becomes Y, ZY becomes X, and XdXac remains."""
    merges, tokens = embed.learn_merges("aaabdaaabac", 3)
    assert tokens[256:] == [b"aa", b"ab", b"aaab"]
    assert merges == [(97, 97, 4), (97, 98, 2), (256, 257, 2)]
    assert embed.encode_bytes("aaabdaaabac", merges) == [258, 100, 258, 97, 99]
    assert embed.encode_bytes("aaaaa", merges) == [256, 256, 97]        # from left to right
    low = [(108, 111, 2), (256, 119, 2)]                                # l o, and then lo w
    assert embed.encode_bytes("low lower", low) == [257, 32, 257, 101, 114]
    assert embed.learn_merges("abcd", 3)[0] == []       # no pair occurs twice
    table = embed.count_pairs("abab", 128)
    assert table[97, 98] == 2 and table[98, 97] == 1 and table.sum() == 3
    assert embed.split_words("I do, don't I?") == ["I", " do", ",", " don't", " I", "?"]
    assert embed.encode("abca!", "abc").tolist() == [0, 1, 2, 0]


def test_08_tokens_are_lossless():
    def random_text():
        codes = RNG.integers(0x110000, size=9)
        return "".join(chr(code) for code in codes if not 0xd800 <= code < 0xe000)  # no surrogates
    strange = ["", "aaaaa", "\0\t\r\n\x7f", "\u0645\u0631\u062d", "\u6f22\u5b57",  # Arabic, Chinese
               "\ufeff\U0010ffff", "\U0001f469\u200d\U0001f680"]              # an emoji of three
    texts = strange + [random_text() for _ in range(99)] + [TEXT, TEXT[::-1]]
    merges, tokens = embed.learn_merges(" ".join(texts), 200)
    assert len(merges) == 200
    for text in texts:
        ids = embed.encode_bytes(text, merges)
        assert embed.decode_bytes(ids, tokens) == text
        assert "".join(embed.split_words(text)) == text
    for token in tokens:                        # white space stands only where a token begins
        assert not any(token[i:i + 1].isspace() for i in range(1, len(token)))
    assert embed.decode_bytes([0xf0, 97], tokens) == "\ufffd" + "a"     # a part of a character


@pytest.mark.parametrize("ids", [[1, 3, 1, 1], [[1, 3, 1], [0, 1, 4]]])
def test_08_embedding_picks_rows_and_adds_their_gradients(ids):
    ids, W = np.array(ids), normal(5, 3)
    assert np.array_equal(embed.embedding(embed.Tensor(W), ids).data, W[ids])
    check_gradients(embed.Tensor, lambda W: embed.embedding(W, ids), W)


def test_08_skip_gram_by_hand():
    """Scores 0 and ln 3: neighbours cost ln 2 and ln(4/3), random words ln 4, five times."""
    words, neighbours, others = [[1.0], [1.0]], [[0.0], [math.log(3)]], [[math.log(3)]]
    loss = embed.skip_gram(*(embed.Tensor(np.array(x)) for x in (words, neighbours, others)))
    assert np.isclose(loss.data, (math.log(2) + math.log(4 / 3)) / 2 + 5 * math.log(4))


def test_08_words_with_the_same_neighbours_become_similar(capsys):
    """0 and 1 stand between two 2, 3 and 4 between two 5."""
    phrases = np.array([[2, 0, 2], [2, 1, 2], [5, 3, 5], [5, 4, 5]])
    ids = phrases[RNG.integers(4, size=2000)].ravel()
    W = embed.train_word_vectors(np.random.default_rng(0), ids, 6, 8, 200, 0.05, reach=1)
    cosines = embed.similarity(W) - 2 * np.eye(6)       # so that none is most similar to itself
    assert cosines.argmax(1)[[0, 1, 3, 4]].tolist() == [1, 0, 4, 3]
    assert W.dtype == np.float32


def test_08_positions_by_hand():
    assert np.allclose(embed.sinusoids(2, 4), [[0, 1, 0, 1], [math.sin(1), math.cos(1),
                                                              math.sin(0.01), math.cos(0.01)]])
    assert embed.heat_map(np.array([[-9, 0.6, 9]]), 0, 1) == ["  ++@@"]


def test_08_a_text_of_few_words(folder, capsys):
    Path("numbers").write_text("1234567890 " * 100, encoding="utf-8")
    result = embed.main(data="numbers", merges=5, steps=5)
    assert result["nearest"] == {} and "too few" in capsys.readouterr().out


@NEEDS_TEXT
def test_08_shakespeare(folder, capsys):
    os.mkdir("data")
    shutil.copy(HERE / "data/tinyshakespeare.txt", "data")
    result = embed.main(merges=50, steps=500)
    for word, others in {"thou": "wilt hast dost", "father": "mother son daughter brother",
                         "will": "shall must can"}.items():
        assert set(result["nearest"][word]) & set(others.split()), word
    lengths = [length for _, length in result["tokens"].values()]
    assert 1.3 < result["tokens"]["bytes, 50 merges"][1] < max(lengths) < 5
    assert result["changes"]["sinusoidal"] < 1e-12


# ---- 09 -----------------------------------------------------------------------------------------

def test_09_attention_by_hand():
    """The scores 0 and ln 3 make the weights 1/4 and 3/4, the slopes for dY = [0, 1] in row 2."""
    Q, K = np.array([[1.0, 0.0], [0.0, math.sqrt(2) * math.log(3)]]), np.eye(2)
    V, dY = np.array([[4.0, 0.0], [0.0, 8.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])
    A = lookup.attention_weights(Q, K)
    assert np.allclose(A, [[1, 0], [0.25, 0.75]]) and A[0, 1] == 0          # exactly
    q, k, v = (lookup.Tensor(x.reshape(1, 2, 1, 2)) for x in (Q, K, V))
    y = lookup.attention(q, k, v)
    assert np.allclose(y.data.reshape(2, 2), [[4, 0], [1, 6]])
    (y * dY.reshape(1, 2, 1, 2)).sum().backward()
    dS = 0.75 * 0.25 * (8 - 0) / math.sqrt(2)   # slope of softmax, values, 1 / sqrt(D)
    assert np.allclose(q.grad.reshape(2, 2), [[0, 0], [-dS, dS]])
    assert np.allclose(k.grad.reshape(2, 2), dS * Q[1, 1] * np.array([[0, -1], [0, 1]]))
    assert np.allclose(v.grad.reshape(2, 2), [[0, 0.25], [0, 0.75]])


def test_09_rms_norm_by_hand():
    """The root mean square of 1 and 7 is 5."""
    assert np.allclose(lookup.rms_norm(lookup.Tensor([[1.0, 7.0]])).data, [[0.2, 1.4]])


def test_09_rotary_by_hand():
    """At position t the first pair is rotated by t; with D = 4, the second by t / sqrt(1000)."""
    y = lookup.rotary(lookup.Tensor(np.tile([1.0, 0.0], (1, 3, 1, 2))), start=4).data
    for t in range(3):
        angles = (4 + t) * np.array([1, 1000 ** -0.5])
        assert np.allclose(y[0, t, 0], np.stack([np.cos(angles), np.sin(angles)], 1).ravel())


@pytest.mark.parametrize("shapes, shift", [
    ([(2, 2, 2, 4), (2, 5, 2, 4), (2, 5, 2, 4)], 1),        # two queries, five keys
    ([(1, 3, 1, 2)] * 3, 30)])                              # scores over 1000: e^1000 is infinite
def test_09_gradients_that_the_page_does_not_check(shapes, shift):
    """k / shift keeps the scores near each other: only there the softmax has a slope."""
    q, k, v = (normal(*shape) / 2 for shape in shapes)
    check_gradients(lookup.Tensor, lambda q, k, v: lookup.attention(q + shift, k + shift, v),
                    q, k / shift, v)


@pytest.mark.parametrize("questions", [1, 2])
def test_09_questions_have_answers(questions):
    """A position has two symbols: M? asks for m alone, MT for m and t."""
    ids, answers = lookup.make_batch(RNG, 50, 6, questions)
    assert ids.shape == (50, 7, 2) and answers.shape == (50, questions)
    for row, answer in zip(ids, answers):
        *pairs, question = lookup.as_symbols(row)
        known = {letter: int(digit) for letter, digit in pairs}
        assert len(known) == len(set(known.values())) == 6
        assert question == question.upper() and question.count("?") == 2 - questions
        assert [known[letter.lower()] for letter in question[:questions]] == answer.tolist()


def test_09_what_the_page_says(capsys):
    result = lookup.main(steps=300, lr=0.01)
    assert result["accuracy"]["attention_layer"] > 0.99
    assert result["accuracy"]["mean_layer"] < 0.2
    assert min(result["two_questions"][1]) < 0.3        # one head
    assert min(result["two_questions"][2]) > 0.9        # two heads
    scaled, unscaled = zip(*result["scaling"].values())     # entropies: ln 64 = 4.16 is uniform
    assert min(scaled) > 3.5 and unscaled[-1] < 0.3
    assert result["facts"]["leak"] == 0                 # what a later position changes before it
    assert result["facts"]["other distance"] > 0.01
    picture = capsys.readouterr().out.split("attends to")[1].splitlines()[3:11]
    for i, line in enumerate(picture):                  # the darkest mark is on the diagonal
        marks = [" .:-=+*#%@".index(line[7 + 4 * j]) for j in range(8)]     # a column is 4 wide
        assert marks.index(max(marks)) == i and marks[i] > 5


# ---- 10 -----------------------------------------------------------------------------------------

def test_10_layer_norm_by_hand():
    """1 and 3 have the mean 2 and the standard deviation 1: -1 and 1, then 2 y + 1."""
    y = blocks.layer_norm(*map(blocks.Tensor, ([[1.0, 3.0]], [2.0, 2.0], [1.0, 1.0])), eps=0)
    assert np.allclose(y.data, [[-1, 3]])


def test_10_token_shift_by_hand():
    x, params, cache = blocks.Tensor([[[1.0], [2.0]]]), {"0.mix": blocks.Tensor([10.0])}, {}
    assert blocks.token_shift(x, params, 0).data.ravel().tolist() == [1, 2 + 10]
    assert blocks.token_shift(x, params, 0, cache).data.ravel().tolist() == [1, 12]
    assert blocks.token_shift(x, params, 0, cache).data.ravel().tolist() == [1 + 20, 12]


def test_10_its_stack_is_the_gpt_of_11():
    weights, ids = random_weights(7, 16, np.float64), RNG.integers(7, size=(2, 9))
    stack = blocks.transformer(blocks.as_tensors(weights), ids, blocks.block, 2, 2)
    assert np.array_equal(stack.data, gpt.gpt(gpt.as_tensors(weights), ids, 2, 2).data)


def test_10_rows_by_hand():
    """Four digits, the sign = with the id 10, and the digits in their order."""
    rows = blocks.sorting_batch(RNG, 3, 4)
    assert rows.shape == (3, 9) and (rows[:, 4] == 10).all() and rows[:, :4].max() < 10
    assert rows[:, 5:].tolist() == [sorted(row) for row in rows[:, :4].tolist()]


def test_10_what_the_page_says(monkeypatch, capsys):
    right = blocks.measure_depth
    monkeypatch.setattr(blocks, "measure_depth", lambda rng, deepest: right(rng, deepest, draws=5))
    result = blocks.main(channels=16, digits=4, steps=2)
    assert set(result["sorted"]) == {kind.__name__ for kind in blocks.VARIANTS}
    for kind in blocks.STACKS:
        name = kind.__name__
        sizes, gradient, cosine = result["depth"][name, 48]     # after 48 blocks
        if name == "without_both":
            assert sizes[-1] < 1e-10 and gradient < 1e-10       # all vanishes
        elif name == "without_norm":
            assert sizes[-1] > 1e6 and gradient > 1e6           # all explodes
        else:
            assert 0.1 < sizes[-1] < 20 and 0.01 < gradient < 20
        assert (cosine < 0.9) == (name == "gpt2_block") and not 0.9 <= cosine <= 0.95


def test_10_two_blocks_learn_to_sort():
    def learn(kind):
        return blocks.train_sorting(seed=0, kind=kind, digits=3, blocks=2, heads=2, channels=32,
                                    steps=150, lr=0.01)
    weights, _, accuracy = learn(blocks.gpt2_block)
    assert accuracy > 0.9
    assert learn(blocks.without_attention)[2] < 0.1
    assert {w.dtype for w in weights.values()} == {np.dtype(np.float32)}
    row = np.array([7, 0, 4, 10, 0, 4, 7])
    assert blocks.write_sorted(weights, row, blocks.gpt2_block, 2, 2) == "704=047"


# ---- 11: the model and its training -------------------------------------------------------------

def train(**changes):
    """11's main at tiny size; it writes no checkpoint, unless out names a file."""
    return gpt.main(**{"data": "text.txt", "out": ""} | TINY | changes)


def state_of(path):
    """The state in a checkpoint."""
    return gpt.load(path)[0]


def settings_of(path):
    """The settings in a checkpoint, by name."""
    return gpt.load(path)[1]


def steps_by_file(pattern="*.npz"):
    """{file name: steps that its run has made} of the checkpoints here."""
    return {path.name: len(state_of(path).losses) for path in Path().glob(pattern)}


def same_run(a, b):
    """Whether two checkpoints agree to the last bit."""
    with np.load(a) as first, np.load(b) as second:
        return first.files == second.files and all(np.array_equal(first[key], second[key])
                                                   for key in first.files)


def random_weights(V, C, dtype):
    """Weights of two blocks at O(1): the zeros of a real start would hide mistakes."""
    return {name: RNG.standard_normal(w.shape).astype(dtype) * 0.7
            for name, w in gpt.init_weights(RNG, V, C, blocks=2).items()}


def test_11_gradient_of_the_whole():
    weights, rows = random_weights(5, 8, np.float64), RNG.integers(5, size=(2, 6))
    _, found = gpt.gradients(weights, rows, blocks=2, heads=2)

    def value():
        return gpt.loss_on(gpt.as_tensors(weights), rows, 2, 2).data.item()
    for name, w in weights.items():
        check_slopes(found[name], value, w)


def test_11_changing_a_character_changes_nothing_before_it():
    weights, ids = gpt.as_tensors(random_weights(7, 16, np.float32)), RNG.integers(7, size=(1, 9))
    before = gpt.gpt(weights, ids, 2, 2).data
    for t in range(9):
        changed = ids.copy()
        changed[0, t] = (ids[0, t] + 1) % 7
        same = (gpt.gpt(weights, changed, 2, 2).data == before).all(axis=(0, 2))
        assert same[:t].all() and not same[t:].any()    # to the last bit


def test_11_the_cache_changes_nothing():
    weights, ids = gpt.as_tensors(random_weights(7, 16, np.float32)), RNG.integers(7, size=(1, 9))
    cache, whole = {}, gpt.gpt(weights, ids, 2, 2).data
    parts = [gpt.gpt(weights, part, 2, 2, cache).data for part in np.split(ids, [4, 5], 1)]
    assert relative_error(np.concatenate(parts, 1), whole) < 1e-5


def test_11_stays_float32_and_learns(folder):
    train(steps=40, out="a.npz")
    state, ids = state_of("a.npz"), RNG.integers(3, size=(2, 9))
    _, grads = gpt.gradients(state.weights, ids, 2, 2)
    remembered = [memory[part] for memory in state.optimizer.values() for part in memory
                  if part != "t"]
    arrays = [gpt.gpt(gpt.as_tensors(state.weights), ids, 2, 2).data, *state.weights.values(),
              *state.best.values(), *grads.values(), *remembered]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert state.losses[-1] < state.losses[0] - 0.5


def test_11_a_pass_that_is_not_trained_on_is_freed_at_once():
    """As in sampling: no node may be held by its own vjp, or passes would pile up."""
    params, rows = gpt.as_tensors(random_weights(5, 16, np.float32)), RNG.integers(5, size=(4, 17))
    gpt.loss_on(params, rows, 2, 2)
    before = sum(isinstance(thing, gpt.Tensor) for thing in gc.get_objects())
    gc.disable()                                        # which would find such circles, later
    try:
        gpt.loss_on(params, rows, 2, 2)
        assert sum(isinstance(thing, gpt.Tensor) for thing in gc.get_objects()) == before
    finally:
        gc.enable()


def test_11_an_epoch_has_every_row_once():
    starts = list(islice(gpt.shuffled_starts(100, 8, seed=0), 22))
    first, second = starts[:11], starts[11:]            # with this seed an epoch has 11 rows
    assert sorted(first) == list(range(min(first), min(first) + 88, 8)) and min(first) < 8
    assert first != sorted(first)                                           # in random order
    assert not set(first) & set(second)                 # the next epoch cuts at other places


def test_11_rows_of_steps_and_processes():
    settings = gpt.Settings(**TINY | dict(batch=2))     # rows of 8

    def take(steps, used=0, rank=0, ranks=1):
        return np.array(list(islice(gpt.batches(np.arange(100), settings, used, rank, ranks),
                                    steps)))
    rows = take(400)                                    # (steps, B, T+1)
    starts = islice(gpt.shuffled_starts(100, 8, settings.seed), 800)
    assert rows[:, :, 0].ravel().tolist() == list(starts)
    assert (np.diff(rows) == 1).all() and (rows.min(), rows.max()) == (0, 99)
    assert np.array_equal(rows[7:], take(393, used=14))
    assert np.array_equal(rows[0::2], take(200, rank=0, ranks=2))       # two processes
    assert np.array_equal(rows[1::2], take(200, rank=1, ranks=2))       # share the rows
    assert np.array_equal(rows[15::2], take(193, used=28, rank=1, ranks=2))


def test_11_a_long_text_is_validated_in_part(monkeypatch):
    weights, settings = random_weights(3, 16, np.float32), gpt.Settings(**TINY)
    ids = np.concatenate([np.zeros(4000, int), np.ones(4000, int)])     # two halves
    seen = []

    def loss_on(_, rows, *__):                          # in place of the loss: the mean of the ids
        seen.append(rows)
        return gpt.Tensor(float(rows.mean()))
    monkeypatch.setattr(gpt, "VALIDATION", 400)
    monkeypatch.setattr(gpt, "loss_on", loss_on)
    with ThreadPoolExecutor(1) as pool:
        loss = gpt.evaluate(weights, ids, settings, pool)
    assert sum(rows[:, 1:].size for rows in seen) == 400
    assert abs(loss - 0.5) < 0.03


def test_11_the_best_loss_and_the_last(folder, capsys, monkeypatch):
    losses = [4.5, 4.0, 3.0, 3.5]                                   # after steps 1, 4, 8 and 12
    monkeypatch.setattr(gpt, "evaluate", Mock(side_effect=losses))
    result = train(steps=12, eval_every=4)
    said = capsys.readouterr().out
    assert "The best validation loss is 3.0000, after step 8" in said and "overfitted" in said
    assert (result["val_loss"], result["best_val_loss"]) == (3.5, 3.0)


@pytest.mark.parametrize("losses, validation, said", [
    ([3.0, 2.0, 1.0], [[1, 2.0], [3, 2.5]], "overfitted"),
    ([3.0, 2.5, 2.0], [[1, 1.4], [3, 1.5]], "overfitted"),  # the text for validation is easier
    ([1.0, 2.0, 3.0], [[1, 1.0], [3, 3.0]], "both losses have risen"),
    ([3.0, 2.0, 1.0], [[1, 2.0], [3, 1.5]], "")])
def test_11_overfitting_is_named_and_rising_losses_are_not(losses, validation, said, capsys):
    gpt.show(gpt.State("", 8, "abcde", gpt.init_weights(RNG, 5, 16, 2), {}, losses=losses,
                       validation=validation))
    out = capsys.readouterr().out
    assert [hint for hint in ("overfitted", "both losses have risen") if hint in out] == (
        [said] if said else [])


def test_11_the_best_weights_are_kept_and_write(folder, monkeypatch):
    """The sample beside a validation is from the weights just measured, the text from the best."""
    sample = Mock(return_value="")
    monkeypatch.setattr(gpt, "sample", sample)
    monkeypatch.setattr(gpt, "evaluate", Mock(side_effect=[1.0, 2.0]))
    train(steps=6, eval_every=3, out="a.npz")
    state = state_of("a.npz")
    at_3, at_6, for_the_text = (call.args[0]["embed"] for call in sample.call_args_list)
    assert at_3 is at_6             # the very array that training changes, so both show step 6 now
    assert np.array_equal(at_6, state.weights["embed"])
    assert np.array_equal(for_the_text, state.best["embed"])
    assert not np.array_equal(at_6, for_the_text)


@NEEDS_TEXT
def test_11_shakespeare(folder):
    Path("data").mkdir()
    shutil.copy(HERE / "data/tinyshakespeare.txt", "data")
    result = gpt.main(**TINY | dict(steps=100, eval_every=100, batch=8, context=64, channels=32))
    assert result["val_loss"] < 2.6     # a uniform guess costs 4.17, character frequencies 3.35


# ---- 11: threads and machines -------------------------------------------------------------------

@pytest.fixture
def small_shards(monkeypatch):
    """A shard for each row, so that a tiny batch is work for several threads."""
    monkeypatch.setattr(gpt, "SHARD", 1)
    monkeypatch.setattr(gpt, "split_rows", lambda rows, shard=0: np.split(rows, len(rows)))


def test_11_same_seed_same_run_whatever_the_threads(folder, small_shards):
    for name, threads, seed in (("one", 1, 0), ("three", 3, 0), ("other", 1, 1)):
        train(threads=threads, seed=seed, out=name)
    assert same_run("one", "three")
    assert not np.array_equal(*(state_of(name).weights["embed"] for name in ("one", "other")))


def test_11_shards_are_nearly_equal_in_size_and_add_up_to_the_batch():
    """Of 512 characters at most, or one row."""
    for B, T, sizes in ((32, 128, [4] * 8), (16, 64, [8, 8]), (3, 1000, [1] * 3), (7, 100, [4, 3]),
                        (17, 64, [6, 6, 5])):
        rows = np.arange(B * (T + 1)).reshape(B, T + 1)
        parts = gpt.split_rows(rows)
        assert [len(part) for part in parts] == sizes
        assert np.array_equal(np.concatenate(parts), rows)
    with ThreadPoolExecutor(2) as pool:
        assert gpt.check_shards(gpt.Settings(), pool) < 1e-12


def pretend_to_have(cores, monkeypatch):
    monkeypatch.setattr(gpt.os, "sched_getaffinity", lambda _: range(cores), raising=False)


@pytest.mark.parametrize("mine, of_all, threads", [
    ([0, 1, 2, 3], [[0, 1, 2, 3]] * 2, 2),              # two processes share four cores
    ([0, 1], [[0, 1], [2, 3]], 2),                      # each has two of its own
    ([0], [[0]] * 3, 1)])                               # more processes than cores
def test_11_processes_of_a_machine_share_its_cores(mine, of_all, threads, monkeypatch):
    monkeypatch.setattr(gpt.os, "sched_getaffinity", lambda _: mine, raising=False)
    monkeypatch.setattr(gpt.os, "cpu_count", lambda: 64)
    monkeypatch.setitem(sys.modules, "mpi4py", MagicMock())
    comm = MagicMock()
    comm.Split_type.return_value.allgather.return_value = [set(cores) for cores in of_all]
    assert gpt.usable_cores(comm) == threads


@pytest.mark.parametrize("cores, said", [(1, "on 1 thread."), (3, "on 3 threads."),
                                         (16, "on 4 threads.")])      # a tiny batch has four rows
def test_11_a_thread_for_each_core_that_has_work(cores, said, folder, small_shards, monkeypatch,
                                                 capsys):
    monkeypatch.setattr(gpt, "ONE_BLAS_THREAD", True)
    pretend_to_have(cores, monkeypatch)
    train()
    assert said in capsys.readouterr().out


def test_11_in_a_notebook_the_cores_belong_to_blas(folder, small_shards, monkeypatch, capsys):
    """Unless threadpoolctl takes them from it, as long as the training lasts."""
    pretend_to_have(3, monkeypatch)
    monkeypatch.setattr(gpt, "ONE_BLAS_THREAD", False)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)     # import threadpoolctl fails
    train()
    assert "on 1 thread." in capsys.readouterr().out
    limits, right = MagicMock(), gpt.train                      # a MagicMock can stand after with
    monkeypatch.setitem(sys.modules, "threadpoolctl", SimpleNamespace(threadpool_limits=limits))

    def while_limited(*arguments):
        limits.assert_called_once_with(1)
        limits.return_value.__exit__.assert_not_called()
        return right(*arguments)
    monkeypatch.setattr(gpt, "train", while_limited)
    train()
    assert "on 3 threads." in capsys.readouterr().out
    limits.return_value.__exit__.assert_called_once()


def test_11_gives_blas_one_thread_whatever_the_shell_says():
    code = "import os, runpy; runpy.run_path('11_gpt.py'); print(os.environ['MKL_NUM_THREADS'])"
    told = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True,
                          env=os.environ | {"MKL_NUM_THREADS": "16"}, timeout=80)
    assert told.stdout == "1\n"


@pytest.mark.parametrize("before, expected", [("1", True), ("8", False)])
def test_11_run_again_in_a_notebook_it_still_has_its_threads(before, expected, monkeypatch):
    """NumPy is loaded then; the environment tells whether BLAS got one thread."""
    for name in gpt.BLAS:
        monkeypatch.setenv(name, before)
    assert load("11_gpt").ONE_BLAS_THREAD == expected


def test_11_trains_in_a_thread_that_is_not_the_main_one(folder):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train).result()["steps"] == 6


@NEEDS_MPI
@pytest.mark.parametrize("ranks", [2, 4])
def test_11_processes_equal_one_with_all_their_batches(ranks, folder):
    for mpi, batch, out in (([], 8, "one"), (["mpiexec", "-n", str(ranks)], 8 // ranks, "many")):
        arguments = QUICK["11_gpt"] | dict(steps=20, batch=batch, out=out)
        assert run("11_gpt", *flags(arguments), before=mpi, options=[]).returncode == 0
    one, many = state_of("one").losses, state_of("many").losses
    assert len(one) == 20 and np.abs(np.subtract(one, many)).max() < 1e-4


@NEEDS_MPI
@pytest.mark.parametrize("flag, sentence", [
    ("--out=absent/x.npz", "cannot write absent/x.npz"), ("--lr=1e8", "the training diverges"),
    ("--data=absent.txt", "cannot read the text")])
def test_11_if_one_process_fails_all_end(flag, sentence, folder):
    result = run("11_gpt", *flags(QUICK["11_gpt"] | dict(steps=200)), flag, options=[],
                 before=["mpiexec", "-n", "2"])
    assert result.returncode != 0 and sentence in result.stderr
    assert result.stderr.count("error:") == 1


def test_11_a_clusters_shell_is_no_mpi(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)    # import mpi4py fails
    monkeypatch.setenv("PMI_RANK", "0")
    assert train()["steps"] == 6
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(SystemExit, match="started under MPI, but mpi4py does not work"):
        train()
    other = SimpleNamespace(MPI=SimpleNamespace(COMM_WORLD=SimpleNamespace(size=1)))
    monkeypatch.setitem(sys.modules, "mpi4py", other)   # mpiexec of one MPI, mpi4py of another
    with pytest.raises(SystemExit, match="mpi4py sees only one"):
        train()


# ---- 11: stopping, resuming, keeping ------------------------------------------------------------

def test_11_resuming_equals_never_having_stopped(folder, capsys):
    """Bit for bit; the command typed again, with its text and all else, changes nothing."""
    how = dict(steps=20, eval_every=7)
    whole = train(**how, out="whole.npz")
    for again in {"tokens": 20}, {"data": "text.txt"} | TINY | how:
        train(**how, stop=10, out="parts.npz")
        assert steps_by_file("parts.npz") == {"parts.npz": 10}
        capsys.readouterr()
        parts = gpt.main(resume="parts.npz", **again)   # into its own file
        assert parts["steps"] == 20 and parts["sample"] == whole["sample"]
        assert same_run("whole.npz", "parts.npz") and "note" not in capsys.readouterr().out
        Path("parts.npz").unlink()


def test_11_resuming_obeys_what_is_typed(folder, capsys, monkeypatch):
    """Also where it equals a default, such as --steps=1000 after a run of fewer steps."""
    train(steps=6, lr=0.05, out="a.npz")
    capsys.readouterr()
    gpt.main(resume="a.npz", tokens=5)
    assert "note: 6 steps are made already" in capsys.readouterr().out
    typed = ["--resume=a.npz", "--steps=1000", "--stop=9", "--lr=0.03", "--tokens=0"]
    monkeypatch.setattr(sys, "argv", ["11_gpt.py", *typed])
    gpt.command_line(gpt.main, may_be_zero=gpt.MAY_BE_ZERO)
    assert steps_by_file() == {"a.npz": 9}
    assert settings_of("a.npz")["lr"] == 0.03 and settings_of("a.npz")["steps"] == 1000
    runs = [gpt.main(resume="a.npz", out="", stop=12, tokens=50, seed=seed) for seed in (0, 1, 1)]
    for name in "train_loss", "sample":                 # another seed, other batches
        first, other, again = (run[name] for run in runs)
        assert first != other and other == again


def test_11_resuming_with_another_batch_goes_on_where_the_text_was_left(folder, monkeypatch):
    train(steps=3, stop=2, out="a.npz")                 # two steps of four rows
    used, right = [], gpt.batches

    def batches(ids, settings, rows_used, rank, ranks):
        used.append(rows_used)
        return right(ids, settings, rows_used, rank, ranks)
    monkeypatch.setattr(gpt, "batches", batches)
    for batch in 6, 1:
        gpt.main(resume="a.npz", batch=batch, steps=2 + len(used) + 1, tokens=0)
    assert used == [8, 14]


@pytest.mark.parametrize("changed", [{"data": "other.txt"}, {"context": 6}])
def test_11_another_text_or_context_discards_what_does_not_compare(changed, folder, capsys):
    Path("other.txt").write_text(TEXT[::-1], encoding="utf-8")
    train(steps=12, eval_every=5, stop=7, out="a.npz")
    assert state_of("a.npz").validation[-1][0] == 5
    result = gpt.main(resume="a.npz", stop=9, tokens=20, out="b.npz", **changed)
    assert "another text or context length" in capsys.readouterr().out
    assert math.isnan(result["val_loss"]) and math.isnan(result["best_val_loss"])
    state = state_of("b.npz")
    assert len(state.losses) == 9 and not state.validation and not state.best


def test_11_a_text_with_fewer_characters_can_go_on(folder):
    train(out="a.npz")
    Path("fewer.txt").write_text(TEXT.replace("q", "t"), encoding="utf-8")
    assert gpt.main(resume="a.npz", data="fewer.txt", steps=10, tokens=0)["steps"] == 10


def test_11_an_earlier_run_is_never_lost(folder, capsys):
    train(out="gpt.npz", steps=20)
    train(out="gpt.npz")                                # a fresh run in the same folder
    assert "gpt.npz holds another run" in capsys.readouterr().out
    assert steps_by_file() == {"gpt.1.npz": 20, "gpt.npz": 6}
    train(out="a.npz", seed=1)
    gpt.main(resume="a.npz", out="gpt.npz", steps=9, tokens=0)      # over another run
    gpt.main(resume="gpt.npz", steps=12, tokens=0)                  # over itself
    assert steps_by_file() == {"a.npz": 6, "gpt.1.npz": 20, "gpt.2.npz": 6, "gpt.npz": 12}


def meanwhile(monkeypatch, name, other_run):
    """When the function of this name is called first, let another run come in between."""
    right = getattr(gpt, name)

    def after_the_other(*arguments):
        monkeypatch.setattr(gpt, name, right)
        other_run()
        return right(*arguments)
    monkeypatch.setattr(gpt, name, after_the_other)


def test_11_two_runs_in_one_folder_keep_both(folder, monkeypatch, capsys):
    """The other one saves in the same file, after our save in step 3 and before that in step 6.

    It moves what we saved to gpt.1.npz, so our next save goes to gpt.2.npz.
    """
    meanwhile(monkeypatch, "show_validation", lambda: train(out="gpt.npz", steps=9))
    train(out="gpt.npz", steps=12)
    assert "not what this run wrote any more, so it goes on in gpt.2.npz" in capsys.readouterr().out
    assert steps_by_file() == {"gpt.npz": 9, "gpt.1.npz": 3, "gpt.2.npz": 12}


def test_11_a_file_that_was_only_touched_is_still_ours(folder, monkeypatch, capsys):
    """As by a program that copies it to a cloud."""
    def touch():
        shutil.copy("gpt.npz", "copy")
        os.replace("copy", "gpt.npz")
        os.utime("gpt.npz", (1, 1))
    meanwhile(monkeypatch, "show_validation", touch)
    train(out="gpt.npz", steps=12)
    assert steps_by_file() == {"gpt.npz": 12} and "note" not in capsys.readouterr().out


def test_11_a_run_that_saves_while_we_load_its_file_is_not_lost(folder, monkeypatch):
    """load calls check_state after it has read the file."""
    train(out="a.npz", steps=3)
    meanwhile(monkeypatch, "check_state", lambda: gpt.main(resume="a.npz", steps=20, tokens=0))
    gpt.main(resume="a.npz", steps=6, tokens=0)
    assert steps_by_file() == {"a.npz": 6, "a.1.npz": 20}


@NOT_WINDOWS
def test_11_two_runs_do_not_save_at_the_same_moment(folder, monkeypatch):
    """Else one could overwrite what the other has written since it looked."""
    import fcntl
    locked, right = [], gpt.write_file

    def write_file(*arguments):
        other = os.open(".", os.O_RDONLY)               # as another process would
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked.append(other)
        right(*arguments)
    monkeypatch.setattr(gpt, "write_file", write_file)
    train(out="a.npz")
    fcntl.flock(locked[0], fcntl.LOCK_EX | fcntl.LOCK_NB)               # now it is free
    for descriptor in locked:
        os.close(descriptor)


@NOT_WINDOWS
def test_11_pipes_and_links_that_lead_nowhere(folder):
    os.mkfifo("pipe")
    os.symlink("loop", "loop")
    os.symlink("absent/file", "a.1.npz")
    for path in "pipe", "loop":
        with pytest.raises(SystemExit, match=f"cannot write {path}: "):
            train(out=path)
    for steps in 3, 6:                                  # the first one gets another name
        train(out="a.npz", steps=steps)
    assert Path("a.1.npz").is_symlink()
    assert len(state_of("a.2.npz").losses) == 3


@NOT_WINDOWS
def test_11_a_link_stays_a_link_and_a_leftover_is_no_obstacle(folder):
    os.mkdir("disk")
    Path(f"disk/real.npz.{os.getpid()}.part").write_bytes(b"half")      # of a run that was killed
    os.symlink("disk/real.npz", "link.npz")
    for steps in 3, 6:
        train(out="link.npz", steps=steps)
    assert Path("link.npz").is_symlink() and not list(Path("disk").glob("*.part"))
    assert steps_by_file("disk/*") == {"real.npz": 6, "real.1.npz": 3}


@NOT_WINDOWS
def test_11_a_file_keeps_its_permissions_and_on_a_full_disk_its_content(folder, monkeypatch):
    Path("real").write_bytes(b"old")
    os.chmod("real", 0o600)
    gpt.write_file("real", b"new")
    assert stat.S_IMODE(os.stat("real").st_mode) == 0o600
    written = []

    def disk_full(_):
        written.extend(Path().glob("real.*.part"))
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(gpt.os, "fsync", disk_full)
    with pytest.raises(OSError):
        gpt.write_file("real", b"newer")
    assert len(written) == 1                            # it was written beside the file
    assert Path("real").read_bytes() == b"new" and not list(Path().glob("*.part"))


def test_11_check_out_tries_without_changing_a_file(folder):
    train(out="a.npz")
    before = contents(), os.stat("a.npz").st_mtime_ns
    for path in "a.npz", "new.npz":
        gpt.check_out(None, gpt.Settings(out=path))
    assert before == (contents(), os.stat("a.npz").st_mtime_ns)


@pytest.mark.parametrize("may_not", [
    pytest.param("folder", marks=pytest.mark.skipif(
        os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")), "open"])
def test_11_a_read_only_folder_is_refused_before_training(may_not, folder, monkeypatch):
    if may_not == "folder":
        folder.chmod(0o500)
    else:                                               # as root: let the system refuse
        refuse = Mock(side_effect=PermissionError(errno.EACCES, "Permission denied"))
        monkeypatch.setattr(gpt, "open", refuse, raising=False)
    with pytest.raises(SystemExit, match="cannot write gpt.npz: Permission denied"):
        train(out="gpt.npz")
    folder.chmod(0o700)


def test_11_a_save_that_fails_is_tried_again(folder, capsys, monkeypatch):
    denied = PermissionError(errno.EACCES, "Access is denied")
    write_file = Mock(wraps=gpt.write_file, side_effect=[denied, DEFAULT])  # DEFAULT: the real one
    monkeypatch.setattr(gpt, "write_file", write_file)
    train(out="a.npz")
    assert write_file.call_count == 2 and steps_by_file() == {"a.npz": 6}
    assert "note: cannot write a.npz" in capsys.readouterr().out


def test_11_if_the_last_save_fails_the_text_is_written_all_the_same(folder, capsys, monkeypatch):
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(gpt, "write_file", Mock(side_effect=full))
    with pytest.raises(SystemExit, match="the last steps could not be saved in b.npz"):
        train(out="b.npz", tokens=30)
    said = capsys.readouterr().out
    assert "cannot write b.npz: " in said and "No space left" in said
    assert len(said.split("of training\n\n")[1]) > 30


def test_11_writing_stays_within_the_context(monkeypatch):
    """When the cache is full, it begins again with the newer half of the context, here 4 of 8."""
    lengths, right = [], gpt.gpt

    def remember(params, ids, blocks, heads, cache):
        logits = right(params, ids, blocks, heads, cache)
        lengths.append(cache["0.key"].shape[1])
        return logits
    monkeypatch.setattr(gpt, "gpt", remember)
    weights, settings = random_weights(5, 16, np.float32), gpt.Settings(**TINY)
    assert len(list(gpt.sample(weights, settings, "abcde", "abc", 15))) == 15
    assert lengths == [3, 4, 5, 6, 7, 8, 4, 5, 6, 7, 8, 4, 5, 6, 7]


def test_11_sampling_from_a_checkpoint(folder, capsys):
    train(out="a.npz")
    Path("text.txt").unlink()                           # it is not needed any more
    before = contents()

    def sample(**how):
        return gpt.main(resume="a.npz", steps=0, tokens=30, **how)["sample"]
    assert sample(prompt="To be").startswith("To be") and len(sample(prompt="To be")) == 35
    assert sample(temperature=0.0) == sample(top_k=1)
    assert sample(temperature=0.0) != sample(temperature=2.0)
    assert len(sample(prompt="\u00e9\u6f22\U0001f600")) == 30
    assert r"not in the vocabulary: '\xe9' '\u6f22' '\U0001f600'" in capsys.readouterr().out
    assert contents() == before


@NOT_WINDOWS
def test_11_ctrl_c_keeps_the_run_after_a_whole_step(folder):
    with start("11_gpt", *flags(QUICK["11_gpt"] | dict(steps=100000))) as process:
        for line in process.stdout:
            if line.split()[:1] == ["1"]:               # the line of the first step
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == ("finishing this step; Ctrl-C again stops at once\n"
                      f"interrupted after step {steps_by_file()['gpt.npz']}, kept in gpt.npz\n")


@NOT_WINDOWS
@pytest.mark.parametrize("function", ["evaluate", "save", "show_validation"])
def test_11_ctrl_c_in_the_last_step_is_heard(function, folder, monkeypatch, capsys):
    """Also in the validation after it, and while it is saved."""
    right, calls = getattr(gpt, function), []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:                             # after steps 3, 6 and 9, the last one
            signal.raise_signal(signal.SIGINT)
        return right(*arguments)
    monkeypatch.setattr(gpt, function, interrupted)
    with pytest.raises(SystemExit) as caught:
        train(out="a.npz", steps=9)
    assert caught.value.code == 130
    assert "interrupted after step 9, kept in a.npz" in capsys.readouterr().err
    assert steps_by_file() == {"a.npz": 9}


def test_11_a_second_ctrl_c_stops_at_once(folder, monkeypatch, capsys):
    """Also in a validation that would take for ever."""
    def forever(*_):
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        time.sleep(60)
    monkeypatch.setattr(gpt, "evaluate", forever)
    with pytest.raises(KeyboardInterrupt):
        train()
    assert capsys.readouterr().err == "finishing this step; Ctrl-C again stops at once\n"


def test_11_a_checkpoint_is_read_with_care(folder):
    """Wrong settings, wrong losses; arrays missing, not finite, misshapen, too many."""
    train(out="a.npz")
    with np.load("a.npz") as arrays:
        arrays = dict(arrays)
    record = json.loads(arrays["record"].item())
    wrong_records = [{"settings": record["settings"] | {name: value}} for name, value in (
        ("steps", "many"), ("batch", None), ("channels", -2), ("heads", [2]))]
    wrong_records += [{"settings": {}}, {"losses": [math.nan]}, {"more": 1}, {"rows_used": -1}]
    wrong_arrays = [{name: value} for name, value in (                      # None: it is missing
        *((name, np.full_like(arrays[name], np.nan)) for name in ("best/embed", "m/embed")),
        ("weights/embed", None), ("best/unembed", None),
        ("weights/0.up", np.ones((16, 63), np.float32)), ("v/embed", None), ("m/0.up", None),
        ("t/embed", None), ("weights/more", np.ones(3)))]

    def save(in_record, in_arrays):
        damaged = arrays | {"record": json.dumps(record | in_record)} | in_arrays
        np.savez("b.npz", **{name: value for name, value in damaged.items() if value is not None})
    for in_record, in_arrays in [*((wrong, {}) for wrong in wrong_records),
                                 *(({}, wrong) for wrong in wrong_arrays)]:
        save(in_record, in_arrays)
        with pytest.raises(SystemExit, match="not a whole checkpoint"):
            gpt.main(resume="b.npz", steps=9, out="")
    save({"settings": record["settings"] | {"out": "text.txt"}}, {})    # not damaged, but tricky
    gpt.main(resume="b.npz", steps=9, tokens=0)
    assert steps_by_file() == {"a.npz": 6, "b.npz": 9}
    assert Path("text.txt").read_text(encoding="utf-8") == TEXT


@pytest.mark.parametrize("name, value, sentence", [
    ("steps", math.inf, "cannot be"), ("steps", [3], "cannot be"), ("steps", 2.7, "cannot be"),
    ("out", False, "cannot be"), ("data", b"text.txt", "cannot be"),
    ("lr", "abc", "cannot be"), ("lr", -1e4, "must be above 0"), ("lr", math.nan, "must be above"),
    ("lr", math.inf, "must be above 0 and below 1e9"), ("batch", 0, "must be above 0"),
    ("temperature", -1.0, "must be 0 or more"), ("temperature", math.inf, "must be 0 or more"),
    ("tokens", -1, "must be 0 or more"), ("heads", 0, "must be above 0")])
def test_11_values_that_an_option_cannot_have_in_a_notebook(name, value, sentence, folder):
    with pytest.raises(SystemExit, match=f"error: {name} {sentence}"):
        train(**{name: value})


def test_11_none_counts_as_not_given(folder):
    with pytest.raises(TypeError, match="stepz"):
        train(stepz=None)
    train(out="a.npz", lr=0.01, temperature=None)
    gpt.main(resume="a.npz", lr=None, batch=None, steps=9, tokens=None)
    assert settings_of("a.npz")["lr"] == 0.01
    assert settings_of("a.npz")["batch"] == TINY["batch"]


def test_11_a_text_in_other_letters_runs_on_an_ascii_console(folder):
    russian = "\u0411\u044b\u0442\u044c \u0438\u043b\u0438 \u043d\u0435\r\n"      # to be or not
    Path("text.txt").write_text(russian * 30, encoding="utf-8")
    result = run("11_gpt", *flags(QUICK["11_gpt"]), PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")


# ---- files from the network, in 07, 08 and 11 ---------------------------------------------------

RIGHT = gpt.sha256_of("right bytes")


def test_a_download_is_checked_and_the_next_host_tried(folder):
    right = gzip.compress(b"right bytes")
    for name, content in (("right", right), ("cut", right[:-5]), ("page", b"<html>502</html>"),
                          ("other", gzip.compress(b"other bytes"))):
        Path(name).write_bytes(content)
    bad = [Path(name).absolute().as_uri() for name in ("absent", "cut", "page", "other")]
    good = Path("right").absolute().as_uri()
    assert gpt.download("x.gz", bad, RIGHT) is None and not Path("data").exists()
    Path("data").touch()                                # a file, so nothing can be kept in it
    assert gpt.download("x.gz", [good], RIGHT) == b"right bytes"
    Path("data").unlink()
    assert gpt.download("x.gz", [*bad, good], RIGHT) == b"right bytes"
    assert contents("data") == {Path("data/x.gz"): right}


def test_a_host_that_hangs_is_given_up(folder, monkeypatch):
    asked, urlopen = [], gpt.urllib.request.urlopen

    def impatient(source, timeout):
        asked.append(timeout)
        return urlopen(source, timeout=min(timeout, 0.2))
    monkeypatch.setattr(gpt.urllib.request, "urlopen", impatient)
    monkeypatch.setenv("no_proxy", "*")
    Path("right").write_bytes(b"right bytes")
    with socket.create_server(("127.0.0.1", 0)) as silent:      # it accepts, and never answers
        urls = [f"http://127.0.0.1:{silent.getsockname()[1]}/x", Path("right").absolute().as_uri()]
        assert gpt.download("x", urls, RIGHT) == b"right bytes"
    assert asked == [10, 10] and os.listdir("data") == ["x"]


def test_a_file_in_data_is_used_as_it_is_and_never_written_to(folder, capsys, monkeypatch):
    monkeypatch.setattr(gpt.urllib.request, "urlopen", lambda *a, **k: pytest.fail("not asked for"))
    Path("data").mkdir()
    for content in b"my own novel", gzip.compress(b"my own novel"):
        Path("data/x").write_bytes(content)
        assert gpt.download("x", ["http://127.0.0.1:9/x"], RIGHT) == b"my own novel"
        assert Path("data/x").read_bytes() == content
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and "is not the original file; it is used as it is" in said
        gpt.download("x", [], gpt.sha256_of("my own novel"))
        assert capsys.readouterr().out == ""
    Path("data/x").write_bytes(gzip.compress(b"my own novel")[:-9])
    with pytest.raises(SystemExit, match="^error: cannot read data.x: "):    # data/x or data\x
        gpt.download("x", [], RIGHT)


@pytest.mark.parametrize("script, files, sentence", [
    ("07_mnist", 4, "24 to test on"), ("08_embed", 1, f"{2 * len(TEXT):,} characters"),
    ("11_gpt", 1, f"{2 * len(TEXT):,} characters")])
def test_files_of_ones_own_in_data(script, files, sentence, folder, capsys):
    """One's own text as tinyshakespeare.txt, or Fashion-MNIST under MNIST's names."""
    own_digits("data")
    Path("data/tinyshakespeare.txt").write_text(TEXT * 2, encoding="utf-8")
    before = contents("data")
    module = load(script)
    own = {name: value for name, value in QUICK[script].items() if name != "data"}
    module.main(**own)
    said = capsys.readouterr().out
    assert said.count("is not the original file; it is used as it is") == files
    assert sentence in said
    assert contents("data") == before


@pytest.mark.parametrize("script", ["08_embed", "11_gpt"])
@pytest.mark.parametrize("content, sentence", [
    ("caf\u00e9".encode("latin1"), "not UTF-8 text.*iconv -f latin1"),
    ("To be".encode("utf-16"), "UTF-16 text.*iconv -f utf-16"),
    ("To be".encode("utf-16-le"), "not UTF-8 text")])
def test_a_text_in_another_encoding_is_refused(script, content, sentence, folder):
    Path("other.txt").write_bytes(content)
    with pytest.raises(SystemExit, match=f"other.txt is {sentence}"):
        load(script).main(data="other.txt")


# ---- every script: laws -------------------------------------------------------------------------

def docstring(path):
    return ast.get_docstring(ast.parse(source(path)))


def described(path, word):
    """What the docstring of a script says under Run, Expect or Try."""
    return re.search(rf"(?ms)^{word}  +(.*?)(?=^\w)", docstring(path))[1]


def sections(path):
    """{header: the lines below it} of a script; what stands before the first has the header ""."""
    parts = re.split(r"(?m)^# ---- (.+?) -+$", source(path))   # text, header, text, header, text
    headers, texts = ["", *parts[1::2]], parts[::2]
    return dict(zip(headers, texts))


def definitions(text):
    """{name: its code} of functions, classes and Class.method.

    The code is a syntax tree without docstrings, so comments do not count either.
    """
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = ast.dump(node)
        if isinstance(node, ast.ClassDef):
            found[node.name] = ""                       # its methods are compared one by one
            found |= {f"{node.name}.{member.name}": ast.dump(member) for member in node.body
                      if isinstance(member, ast.FunctionDef)}
    return found


def names_of(text):
    """The names of functions and classes that the text defines, but for main."""
    return {name for name in definitions(text)
            if "." not in name and name != "main"}


def test_the_same_name_is_the_same_code_in_all_files():
    seen = {}
    for path in SCRIPTS:
        for name, code in definitions(source(path)).items():
            if name != "main":
                first = seen.setdefault(name, code)
                assert code == first, f"{name} in {path.name} differs from the first one"


@EACH_SCRIPT
def test_has_the_common_shape(path):
    """Title, order of the sections, new code within 50 lines, last lines, width, ASCII."""
    text = source(path)
    assert docstring(path).startswith(path.stem[:2] + "  ")
    order = ["new here", "the experiment", "carried", "plumbing"]
    kinds = [re.match("|".join(order), header)[0] for header in sections(path) if header]
    assert kinds == sorted(kinds, key=order.index)
    assert {"new here", "the experiment", "plumbing"} <= set(kinds)     # 01 carries nothing
    lines = [node.lineno for node in ast.parse(text).body
             if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
    assert min(lines) <= 50
    assert re.search(r'\nif __name__ == "__main__":\n    command_line\(main[^:]*\)\n$', text)
    assert max(map(len, text.splitlines())) <= 100 and text.isascii()
    metadata = re.search(r"(?m)^# /// script\n((?:# .+\n)+)# ///\n", text)[1]    # for uv and pipx
    assert metadata.splitlines() == ['# requires-python = ">=3.10"', '# dependencies = ["numpy"]']


def said_to_be_carried(path):
    """{"plot": "01"} for "Carried from  01: plot." in the docstring."""
    origin = {}
    said = docstring(path).partition("Carried from")[2]
    for number, names in re.findall(r"(\d\d)[^:.]*: ([\w,\s]+)", said):
        for name in re.findall(r"[A-Za-z_]\w+", names):
            origin[name] = number
    return origin


def test_what_is_carried_is_said_and_true():
    """Carried from 01 is what stands in 01 first. Plumbing, the same everywhere, is not listed."""
    origin = {}                                         # of the names in earlier scripts
    for path in SCRIPTS:
        here = {header: names_of(text) for header, text in sections(path).items()
                if not header.startswith("plumbing")}
        everything = set().union(*here.values())
        assert said_to_be_carried(path) == {name: origin[name] for name in everything
                                            if name in origin}, path.name
        for header, names in here.items():
            if header.startswith("carried from"):
                scripts = {origin[name] for name in names}
                assert sorted(scripts) == re.findall(r"\d\d", header), path.name
        for name in everything:
            origin.setdefault(name, path.stem[:2])


@EACH_SCRIPT
def test_what_is_carried_or_imported_is_used(path):
    """Every import, and every function of the carried and plumbing sections."""
    tree = ast.parse(source(path))
    used = {node.id for part in tree.body for node in ast.walk(part)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
            and node.id != getattr(part, "name", "")}           # not only by itself
    imported = {alias.asname or alias.name.split(".")[0] for node in tree.body
                if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}
    carried = set().union(*(names_of(text) for header, text in sections(path).items()
                            if header.startswith(("carried", "plumbing"))))
    assert imported | carried <= used


@EACH_SCRIPT
def test_imports_nothing_but_numpy_and_the_standard_library(path):
    allowed = set(sys.stdlib_module_names) - {"pickle"} | {"numpy"}
    if path.stem == "11_gpt":
        allowed |= {"mpi4py", "threadpoolctl"}          # both optional
    for node in ast.walk(ast.parse(source(path))):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        if isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] in allowed


# ---- every script: wherever people run it -------------------------------------------------------

SURROUNDINGS = {                                        # options of Python, environment
    "ascii": (STRICT, dict(PYTHONIOENCODING="ascii", TERM="dumb", LC_ALL="C")),
    "cp1252, no asserts": (["-OO"], dict(PYTHONIOENCODING="cp1252", COLUMNS="20")),
}


@EACH_SCRIPT
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_runs_alone_offline_anywhere(path, surroundings, tmp_path, monkeypatch):
    """In a folder with nothing else and an odd name, whatever the console, without any input."""
    odd = tmp_path / "a caf\u00e9 #%&"
    odd.mkdir()
    monkeypatch.chdir(odd)
    options, environment = SURROUNDINGS[surroundings]
    quick = {name: value for name, value in QUICK[path.stem].items() if name != "data"}
    result = run(path.stem, *flags(quick), options=options, PYTHONUTF8="0", **environment)
    assert (result.returncode, result.stderr) == (0, "")
    if path.stem in ("08_embed", "11_gpt"):
        assert "help texts instead" in result.stdout    # the network is closed
    if path.stem == "07_mnist":
        assert "drawn digits instead" in result.stdout


@EACH_SCRIPT
@pytest.mark.parametrize("editor", ["Jupyter", "VS Code"])
def test_a_notebook_runs_the_cell_twice_and_calls_main_from_the_next(path, editor, folder,
                                                                     monkeypatch, capsys):
    """sys.argv belongs to the kernel; the interactive window of VS Code sets __file__, too."""
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "/x/kernel.json"])

    def shorten(function):
        """Make the quick values its defaults: a cell calls main with nothing else."""
        quick = {name: QUICK[path.stem].get(name, parameter.default)
                 for name, parameter in inspect.signature(function).parameters.items()
                 if name != "self"}
        if path.stem == "11_gpt":
            function.__kwdefaults__ = quick             # of Settings, all by keyword
        else:
            function.__defaults__ = tuple(quick.values())
    names = {"__name__": "__main__", "shorten": shorten}
    if editor == "VS Code":
        names["__file__"] = str(path)
    target = "Settings.__init__" if path.stem == "11_gpt" else "main"
    call = "    command_line(main"                      # the last line of the script
    cell = source(path).replace(call, f"    shorten({target})\n{call}")
    for code in cell, cell, "result = main()":
        exec(code, names)
        assert len(capsys.readouterr().out) > 100
    assert isinstance(names["result"], dict)


@EACH_SCRIPT
def test_numbers_from_numpy_and_paths(path, folder, capsys):
    """main(steps=np.int64(6)) and main(data=Path("my.txt")) work; each carried method is called."""
    script, called = load(path.stem), set()
    convert = {int: np.int64, float: np.float64, str: Path}
    arguments = {name: convert[type(value)](value) for name, value in QUICK[path.stem].items()}
    sys.setprofile(lambda frame, *_: called.add(frame.f_code))
    try:
        assert isinstance(script.main(**arguments), dict)
    finally:
        sys.setprofile(None)
    if hasattr(script, "Tensor") and path.stem != "05_autograd":      # there they are new
        for name, member in vars(script.Tensor).items():
            function = getattr(member, "fget", member)          # of a property, what gets it
            assert not inspect.isfunction(function) or function.__code__ in called, name


@EACH_SCRIPT
def test_help_explains_every_option_and_a_wrong_one_is_refused(path, folder, capsys, monkeypatch):
    script = load(path.stem)
    last_lines = source(path).rpartition("# ///\n")[2]

    def call(flag):
        monkeypatch.setattr(sys, "argv", [path.name, flag])
        with pytest.raises(SystemExit) as caught:
            exec(last_lines, vars(script) | {"__name__": "__main__"})
        output = capsys.readouterr()
        return caught.value.code, output.out, output.err
    status, listed, _ = call("--help")
    assert status == 0
    options = inspect.signature(script.main).parameters
    for name, option in options.items():
        default = re.escape(repr(option.default))
        assert re.search(rf"--{name} [A-Z_]+\s+default:\s+{default}", listed)
        assert re.search(rf"(?m)^ *{name}  +\w+", script.main.__doc__), f"{name} is not explained"
        if type(option.default) is float:
            status, _, said = call(f"--{name}=nan")
            assert status == 2 and "below 1e9, not nan" in said
    name = list(options)[-1]
    for wrong in "more", f"--{name[:-1]}=1", f"--{name}_=1":    # no option, too short, too long
        status, _, said = call(wrong)
        assert status == 2 and f"unrecognized arguments: {wrong}" in said


@pytest.mark.parametrize("flag, sentence", [
    ("--steps=one", "invalid int value: 'one'"), ("--steps=", "invalid int value: ''"),
    ("--steps=1.5", "invalid int value: '1.5'"), ("--steps=" + "9" * 5000, "invalid int value"),
    ("--steps=-1", "must be above 0 and below 1e9, not -1"),
    ("--steps=1000000000", "below 1e9, not 1000000000"), ("--lr=inf", "below 1e9, not inf"),
    ("--lr=0", "must be above 0 and below 1e9, not 0"), ("--noise=-1", "must be 0 or more")])
def test_the_one_rule_for_numbers(flag, sentence, folder):
    result = run("01_neuron", flag)
    assert result.returncode == 2 and sentence in result.stderr


@pytest.mark.parametrize("script, arguments, row", [
    ("02_activations", dict(lr=5.0, steps=500), "identity .* diverges"),
    ("02_activations", dict(lr=1e8), "identity .* diverges"),
    ("10_block", dict(lr=9e8), "without_norm .* nan")])
def test_divergence_is_a_row_of_the_table(script, arguments, row, folder):
    result = run(script, *flags(QUICK[script] | arguments))
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(f"(?m)^ *{row}", result.stdout)


@NOT_WINDOWS
@EACH_SCRIPT
def test_ctrl_c_ends_in_one_line(path, tmp_path, monkeypatch):
    """At the first line of output."""
    monkeypatch.chdir(tmp_path)
    more = ["--steps=5000"] if path.stem == "01_neuron" else []
    with start(path.stem, *more) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    if path.stem == "01_neuron" and process.returncode == 0:
        pytest.skip("it was done before the signal came")
    assert process.returncode == 130
    [line] = errors.strip().splitlines()
    assert line.startswith("interrupted")


@NOT_WINDOWS
@pytest.mark.parametrize("script", ["01_neuron", "07_mnist", "11_gpt"])
@pytest.mark.parametrize("output", [">&-", "2>&- >&-", "<&-", "| head -1", "| true"])
def test_a_closed_stream_or_pipe_makes_no_trouble(script, output, folder):
    """The shell puts the exit status of Python, not that of head, into a file."""
    shutil.copy(HERE / f"{script}.py", folder)
    endless = dict(steps=100000) if script == "11_gpt" and "|" in output else {}
    command = shlex.join([sys.executable, f"{script}.py", *flags(QUICK[script] | endless)])
    streams, bar, reader = output.partition("|")
    with_status = f"{{ {command} {streams}; echo $? >status; }} {bar}{reader}"
    result = subprocess.run(["sh", "-c", with_status], capture_output=True, text=True, timeout=80)
    assert (Path("status").read_text(), result.stderr) == ("0\n", "")


@EACH_SCRIPT
def test_every_line_of_try_runs(path, folder):
    """Shortened: what takes long is left out, what is in QUICK is added."""
    shutil.copy("long.txt", "my.txt")
    shutil.copytree("own", "FOLDER")
    if path.stem == "11_gpt":
        train(out="gpt.npz")
    tries = re.findall(r"--\w+=.*?(?=  |\n|$)", described(path, "Try"))
    assert tries
    takes_long = {"06_optim": ["steps"], "07_mnist": ["epochs", "hidden"], "08_embed": ["merges"],
                  "09_attention": ["steps"], "10_block": ["seeds"], "11_gpt": ["tokens"]}
    for tried in tries:
        typed = dict(flag.removeprefix("--").split("=", 1) for flag in shlex.split(tried))
        for name in takes_long.get(path.stem, []):
            typed.pop(name, None)
        quick = {} if "resume" in typed else QUICK[path.stem]
        if path.stem == "09_attention" and "pairs" not in typed:
            quick = quick | dict(pairs=3)
        result = run(path.stem, *flags(quick | typed))
        assert (result.returncode, result.stderr) == (0, ""), tried


# ---- what users get wrong: one sentence, and no file is changed ---------------------------------

# script, what is typed, a part of the sentence
TROUBLE = """
02_activations  --activation=none       --activation must be one of identity, sigmoid, tanh
04_backprop     --lr=1e8                the training diverges: lower --lr
05_autograd     --activation=sin        --activation must be relu or tanh
05_autograd     --lr=1e8                the training diverges: lower --lr
07_mnist        --batch=60              --batch must be at most 55, the images to train on
07_mnist        --lr=1e8                the training diverges in epoch 1: lower --lr
07_mnist        --data=absent           cannot read absent/train-images-idx3-ubyte.gz: [Errno 2]
08_embed        --data=empty            empty has 0 characters, fewer than 1000
08_embed        --data=binary           binary is not UTF-8 text
08_embed        --lr=1e8                the training of word vectors diverges: lower --lr
09_attention    --pairs=11              --pairs must be between 2 and 10: there are ten digits
09_attention    --channels=6            --channels must be a multiple of 4
10_block        --deepest=1             --deepest must be at least 2
10_block        --heads=3               --channels=8 must be a multiple of 6
11_gpt          --channels=9000000 --data=abc.txt   there is not enough memory for these sizes
11_gpt          --lr=1e8                the training diverges at step
11_gpt          --heads=3               --channels=16 must be a multiple of 6
11_gpt          --context=900           860 characters, but --context=900 needs 9010
11_gpt          --data=absent           cannot read the text: [Errno 2]
11_gpt          --resume=absent         cannot read the checkpoint: [Errno 2]
11_gpt          --resume=cut            cut is not a whole checkpoint of 11_gpt.py
11_gpt          --resume=other.npz      other.npz is not a whole checkpoint of 11_gpt.py
11_gpt          --resume=wide.npz       wide.npz holds a GPT with channels=32
11_gpt          --resume=first.npz      first.npz is not a whole checkpoint of 11_gpt.py
11_gpt          --resume=abc.npz --steps=9  text.txt has characters that the text of the checkpoint
11_gpt          --resume=abc.npz --steps=30 --data=abc.txt --lr=9e8     the training diverges at
11_gpt          --out=.                 cannot write .: what is there is not a writable checkpoint
11_gpt          --out=own/              cannot write own/: what is there is not a writable
11_gpt          --out=new/             cannot write new/: No such file
11_gpt          --out=other.npz         cannot write other.npz: what is there is not a writable
11_gpt          --out=cut               cannot write cut: what is there is not a writable
11_gpt          --out=text.txt          cannot write text.txt: what is there is not a writable
11_gpt          --out=thesis.docx       cannot write thesis.docx: what is there is not a writable
11_gpt          --out=absent/gpt.npz    cannot write absent/gpt.npz: No such file
"""


@pytest.fixture
def troubled(folder):
    """A folder with all that can be wrong with a file."""
    Path("abc.txt").write_text("abc" * 300, encoding="utf-8")
    Path("empty").write_bytes(b"")
    Path("binary").write_bytes(bytes(range(256)))
    train(channels=32, out="wide.npz", tokens=0)
    train(data="abc.txt", out="abc.npz", tokens=0)
    Path("cut").write_bytes(Path("wide.npz").read_bytes()[:-500])
    np.savez("other.npz", W=np.ones(3))
    np.savez("first.npz", record=json.dumps({"settings": {"layers": 4, "block": 128}}))
    with zipfile.ZipFile("thesis.docx", "w") as thesis:             # a .docx is a zip file
        thesis.writestr("word/document.xml", "three years of work")
    return folder


@pytest.mark.parametrize("script, typed, sentence",
                         [re.split("  +", line) for line in TROUBLE.strip().splitlines()])
@pytest.mark.filterwarnings("error", *FALSE_ALARMS)
def test_what_cannot_be_done_ends_in_one_sentence(script, typed, sentence, troubled, monkeypatch):
    """SystemExit with a sentence prints it on stderr and exits with 1."""
    module, before = load(script), contents()
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *flags(QUICK[script]), *typed.split()])
    with pytest.raises(SystemExit) as caught:
        module.command_line(module.main)
    said = caught.value.code.replace("\\", "/")         # as Windows writes its paths
    assert said.startswith("error: ") and sentence in said and "\n" not in said
    assert contents() == before


# ---- README -------------------------------------------------------------------------------------

README = (HERE / "README.md").read_text(encoding="utf-8")


def test_the_readme_names_what_there_is():
    """Each function that is named after # in its formulas."""
    pages = dict(re.findall(r"(?ms)^```\n(\d\d_\w+)\.py(.*?)^```", README))
    assert sorted(pages) == [path.stem for path in SCRIPTS]
    for script, formulas in pages.items():
        names = re.findall(r"(?m) # (\w+)$", formulas)
        assert names
        for name in names:
            assert hasattr(load(script), name), f"{script} has no {name}"


def test_every_command_of_the_readme_runs(folder):
    """Those with --resume as they are; flags that come last make the others end sooner."""
    shutil.copy("long.txt", "my.txt")
    os.rename("own", "folder")
    shorter = {"07_mnist": flags(QUICK["07_mnist"] | dict(data="folder")),
               "08_embed": flags(QUICK["08_embed"]),
               "11_gpt": flags(dict(data="my.txt", steps=6, eval_every=3, batch=4, context=8,
                                    tokens=20))}
    commands = re.findall(r"(mpiexec -n \d )?python ([01]\d_\w+)\.py([^`|\n]*)", README)
    assert len(commands) > 9
    for mpi, script, typed in commands:
        if not mpi or HAS_MPI:
            more = [] if "--resume" in typed else shorter.get(script, [])
            result = run(script, *shlex.split(typed), *more, before=mpi.split(), options=[])
            assert (result.returncode, result.stderr) == (0, ""), (script, typed)


def test_times_in_the_readme_are_those_in_the_docstrings():
    """The last but one column of the table of files is what stands first under Expect."""
    times = dict(re.findall(r"(?m)^\| \[(\d\d_\w+)\.py.*\| ([^|]+) \| [^|]+ \|$", README))
    assert len(times) == 11
    for path in SCRIPTS:
        assert described(path, "Expect").startswith(times[path.stem]), path.stem


# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy", "pytest"]
# ///

if __name__ == "__main__":
    sys.exit(pytest.main(["-q", __file__]))
