"""Tests of the whole course: every script runs alone, every gradient is right, every law holds.

    python -m pytest -q test_all.py

Nothing here needs the network. Tests that need the real data skip where data/ does not hold it.
"""
import ast, errno, gzip, hashlib, importlib.util, inspect, json, math, os, re, shlex, shutil
import signal, socket, subprocess, sys, time, tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

for threads in "OPENBLAS_NUM", "MKL_NUM", "OMP_NUM", "VECLIB_MAXIMUM":
    os.environ.setdefault(f"{threads}_THREADS", "1")    # on small matrices threads only wait

import numpy as np
import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)     # a shell's background jobs ignore it
HERE = Path(__file__).resolve().parent
SCRIPTS = sorted(HERE.glob("[01][0-9]_*.py"))
EACH_SCRIPT = pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
SHAKESPEARE = HERE / "data" / "tinyshakespeare.txt"
RNG = np.random.default_rng(0)

# A proxy that is a closed port of this machine: no test can reach the network, or waits for long.
OFFLINE = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https")} | {"no_proxy": ""}

TEXT = "To be, or not to be, that is the question:\n" * 20
TINY = dict(steps=6, eval_every=3, batch=4, block=8, layers=2, heads=2, channels=16, tokens=20)
TINY_FLAGS = [f"--{name}={value}" for name, value in TINY.items()]


def load(name):
    """The script as a module; importing it must run nothing."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


autograd, optim, mnist, embed, lookup, blocks, gpt = map(load, (
    "05_autograd", "06_optim", "07_mnist", "08_embed", "09_attention", "10_block", "11_gpt"))
FLAGS = {                                               # what makes each script quick
    "01_neuron": [], "02_activations": ["--steps=20"],
    "03_matmul": ["--batch=2", "--inputs=8", "--neurons=4", "--size=16", "--budget=0"],
    "04_backprop": ["--steps=20", "--points=10", "--hidden=8"],
    "05_autograd": ["--steps=5", "--points=10", "--hidden=8"],
    "06_optim": ["--steps=2", "--seeds=1", "--hidden=4"],
    "07_mnist": ["--epochs=1", "--hidden=8"],
    "08_embed": ["--merges=20", "--words=100", "--channels=8", "--steps=5"],
    "09_attention": ["--longest=64", "--channels=8", "--steps=5"],
    "10_block": ["--deepest=4", "--channels=8", "--steps=3", "--layers=1", "--digits=3"],
    "11_gpt": TINY_FLAGS,
}


# On Apple Silicon NumPy's matmul gives false alarms (its issue 28687).
ALARMS = ["divide by zero", "overflow", "invalid value"] if sys.platform == "darwin" else []
STRICT = ["-W", "error", *(f"-Wignore:{alarm} encountered in matmul" for alarm in ALARMS)]
if ALARMS:
    os.environ["PYTHONWARNINGS"] = ",".join(f"ignore:{alarm} encountered in matmul"
                                            for alarm in ALARMS)
# Open MPI, unlike MPICH, asks to be told that it may start more processes than cores, or as root.
os.environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
               "OMPI_MCA_rmaps_base_oversubscribe": "1",
               "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe"}


def run(script, *arguments, folder, options=STRICT, environment=()):
    """Run a copy of the script in a folder, as a user would, with every warning an error."""
    shutil.copy(HERE / script, folder)
    return subprocess.run([sys.executable, *options, script, *arguments], cwd=folder,
                          env=os.environ | OFFLINE | dict(environment), capture_output=True,
                          stdin=subprocess.DEVNULL, encoding="utf-8", errors="replace", timeout=80)


@pytest.fixture(autouse=True)
def the_same_numbers_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(1).bit_generator.state


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a short text, made the working directory, without a network."""
    monkeypatch.chdir(tmp_path)
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


def train(**changes):
    """11's main at tiny size."""
    return gpt.main(**{"data": "text.txt"} | TINY | changes)


# ---- laws ---------------------------------------------------------------------------------------

def definitions(path):
    """(name, syntax tree) of every top-level function and every method, docstrings aside."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        methods = node.body if isinstance(node, ast.ClassDef) else []
        for member in [node, *methods]:
            if isinstance(member, ast.FunctionDef) and member.name != "main":
                for inner in ast.walk(member):
                    if isinstance(inner, ast.FunctionDef) and ast.get_docstring(inner) is not None:
                        inner.body = inner.body[1:]
                name = member.name if member is node else f"{node.name}.{member.name}"
                yield name, ast.dump(member)


def test_the_same_name_is_the_same_code_in_all_files():
    seen = {}
    for path in SCRIPTS:
        for name, tree in definitions(path):
            assert seen.setdefault(name, tree) == tree, f"{name} in {path.name} is another"


def test_what_is_carried_is_said_and_true():
    """Of "Carried from 01: plot." it is true that plot first appears in 01, and is here too."""
    first = {}
    for path in SCRIPTS:
        here = {name for name, _ in definitions(path) if "." not in name}
        here |= {"Tensor", "Progress"} & set(vars(load(path.stem)))
        text = load(path.stem).__doc__
        carried = text[text.find("Carried"):text.find("New here")] if "Carried" in text else ""
        said = {name: number for number, names in re.findall(r"(\d\d)[^:.]*: ([\w,\s]+)\.", carried)
                for name in names.replace(",", " ").split()}
        for name, number in said.items():
            assert name in here and first[name] == number, f"{path.name}: {name} from {number}"
        section = re.search(r"^# ---- carried from ([\d, and]+), unchanged -+$",
                            path.read_text(encoding="utf-8"), re.M)
        sources = re.findall(r"\d\d", section[1]) if section else []
        assert sources == sorted({first[name] for name in here if name in first}), path.name
        if "helpers" not in carried:
            assert {name for name in here if name in first} == set(said), path.name
        for name in here:
            first.setdefault(name, path.stem[:2])


README = (HERE / "README.md").read_text(encoding="utf-8")


def test_the_readme_names_what_there_is():
    """Functions such as `04: backward`, and the options of commands such as python 11_gpt.py."""
    scripts = {path.stem[:2]: load(path.stem) for path in SCRIPTS}
    names = re.findall(r"`(\d\d): (\w+)`", README)
    assert len(names) > 20 and all(hasattr(scripts[number], name) for number, name in names)
    commands = re.findall(r"python (\d\d_\w+)\.py((?:\s+--[^\s`]+)*)", README)
    assert len(commands) > 8
    for name, flags in commands:
        assert scripts[name[:2]].__spec__.name == f"script_{name}"
        assert set(re.findall(r"--(\w+)", flags)) <= set(
            inspect.signature(scripts[name[:2]].main).parameters)


@EACH_SCRIPT
def test_imports_nothing_but_numpy_and_the_standard_library(path):
    allowed = set(sys.stdlib_module_names) - {"pickle"} | {"numpy"}
    if path.stem == "11_gpt":
        allowed.add("mpi4py")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= allowed
        if isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] in allowed


@EACH_SCRIPT
def test_has_the_common_shape(path):
    text = path.read_text(encoding="utf-8")
    title = ast.get_docstring(ast.parse(text)).splitlines()[0]
    assert title.startswith(path.stem[:2] + "  ")
    assert text.endswith('\n\n\nif __name__ == "__main__":\n    command_line(main)\n')
    assert max(map(len, text.splitlines())) <= 100
    assert text.isascii()                               # so is all that it can print


# ---- gradients ----------------------------------------------------------------------------------

def numeric_gradient(value, x, eps=1e-5):
    """Central differences of the number value() for every entry of the array x, moved in place."""
    gradient = np.empty_like(x)
    for i in np.ndindex(x.shape):
        kept = x[i]
        x[i] = kept + eps
        up = value()
        x[i] = kept - eps
        gradient[i] = (up - value()) / (2 * eps)
        x[i] = kept
    return gradient


def relative_error(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


def normal(*shape):
    return RNG.standard_normal(shape)


TURN = gpt.rotations(2, 3, 4)
OPERATIONS = {
    "add": (lambda a, b: a + b, normal(3, 4), normal(3, 4)),
    "add, broadcast": (lambda a, b: a + b, normal(3, 4), normal(1, 4)),
    "add, broadcast to more axes": (lambda a, b: a + b, normal(4), normal(2, 3, 4)),
    "matmul": (lambda a, b: a @ b, normal(3, 4), normal(4, 5)),
    "matmul, stacked and broadcast": (lambda a, b: a @ b, normal(2, 3, 4), normal(4, 5)),
    "reshape": (lambda a: a.reshape(6, 2), normal(3, 4)),
    "a node used twice": (lambda a: a + a @ a, normal(3, 3)),
    "cross_entropy": (lambda z: gpt.cross_entropy(z, np.array([0, 2, 2, 4])), normal(4, 5)),
    "embedding, ids repeat": (lambda W: gpt.embedding(W, np.array([1, 3, 1, 1])), normal(5, 3)),
    "rotary": (lambda x: gpt.rotary(x, TURN), normal(2, 3, 2, 4)),
    "attention": (gpt.attention, *normal(3, 2, 5, 2, 4)),
    "attention, not causal": (lambda *qkv: gpt.attention(*qkv, causal=False),
                              *normal(3, 2, 5, 2, 4)),
    "attention, fewer queries": (gpt.attention, normal(2, 2, 2, 4), *normal(2, 2, 5, 2, 4)),
    "attention, large scores": (gpt.attention, 30 + normal(1, 3, 1, 2), 30 + normal(1, 3, 1, 2) / 9,
                                normal(1, 3, 1, 2)),
    "token_shift": (lambda x, mix: gpt.token_shift(x, mix, np.ones((2, 1, 3))),
                    normal(2, 4, 3), normal(3)),
    "rms_norm": (gpt.rms_norm, normal(3, 4)),
    "rms_norm by head": (gpt.rms_norm, normal(2, 3, 2, 4)),
    "feed_forward": (gpt.feed_forward, normal(3, 4), normal(4, 6), normal(6, 5)),
    "feed_forward_gelu": (blocks.feed_forward_gelu, normal(3, 4), normal(4, 6), normal(6, 5)),
    "layer_norm": (blocks.layer_norm, normal(3, 4), normal(4), normal(4)),
    "layer_norm by head": (blocks.layer_norm, normal(2, 3, 2, 4), normal(4), normal(4)),
    "skip_gram": (embed.skip_gram, normal(3, 4), normal(3, 4), normal(5, 4)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_gradient_of(name):
    """In float64, weighted with a random cotangent, so that no error can cancel in a plain sum."""
    function, *arrays = OPERATIONS[name]
    inputs = [gpt.Tensor(array) for array in arrays]
    out = function(*inputs)
    cotangent = normal(*out.data.shape)
    gpt.Tensor((out.data * cotangent).sum(), (out,), lambda g: (g * cotangent,)).backward()
    value = lambda: float((function(*map(gpt.Tensor, arrays)).data * cotangent).sum())
    for x, array in zip(inputs, arrays):
        assert x.grad.shape == array.shape
        assert relative_error(x.grad, numeric_gradient(value, array)) < 1e-6


@pytest.mark.parametrize("name", autograd.OPERATIONS)
def test_05_gradient_of(name):
    function, *shapes = autograd.OPERATIONS[name]
    arrays = [normal(*shape) for shape in shapes]
    inputs = [autograd.Tensor(array) for array in arrays]
    cotangent = normal(*function(*inputs).data.shape)
    value = lambda: (function(*map(autograd.Tensor, arrays)).data * cotangent).sum()
    (function(*inputs) * cotangent).backward()
    for x, array in zip(inputs, arrays):
        assert x.grad.shape == array.shape
        assert relative_error(x.grad, numeric_gradient(value, array)) < 1e-6
    single = [autograd.Tensor(array.astype(np.float32)) for array in arrays]
    out = function(*single)
    out.backward()
    assert {array.dtype for array in [out.data, *(x.grad for x in single)]} == {np.dtype("f4")}


def random_weights(V, C, dtype):
    """Weights of two layers at O(1): the zeros of a real start would hide mistakes."""
    return {name: RNG.standard_normal(w.shape).astype(dtype) * 0.7
            for name, w in gpt.initial_weights(RNG, V, C, layers=2).items()}


def test_gradient_of_the_whole_gpt():
    weights, rows = random_weights(5, 8, np.float64), RNG.integers(5, size=(2, 6))
    _, found = gpt.gradients(weights, rows, heads=2)
    value = lambda: gpt.loss_of(gpt.leaves(weights), rows, heads=2).data.item()
    for name, w in weights.items():
        assert relative_error(found[name], numeric_gradient(value, w)) < 1e-6, name


def test_gradients_flow_in_topological_order():
    times = lambda x, y: gpt.Tensor(x.data * y.data, (x, y), lambda g: (g * y.data, g * x.data))
    a, b = gpt.Tensor(2.0), gpt.Tensor(3.0)
    c, d = a + b, times(a, b)
    (c + d + times(c, d)).backward()
    assert (a.grad, b.grad) == (25, 19)                 # the naive recursion finds 29 and 22


def test_a_long_chain_needs_no_recursion():
    x = y = gpt.Tensor(np.ones(2))
    for _ in range(50_000):
        y = y + 1
    y.backward()
    assert x.grad.tolist() == [1, 1]


def test_a_released_graph_is_refused():
    x = gpt.Tensor(np.ones(2))
    y = x + x
    y.backward()
    with pytest.raises(RuntimeError, match="released"):
        (y + 1).backward()
    assert x.grad.tolist() == [2, 2]


def test_memory_stays_flat():
    weights, rows, peaks = random_weights(5, 16, np.float32), RNG.integers(5, size=(4, 17)), []
    gpt.gradients(weights, rows, 2)
    tracemalloc.start()
    for steps in 5, 50:
        tracemalloc.reset_peak()
        for _ in range(steps):
            gpt.gradients(weights, rows, 2)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


# ---- the parts of the GPT -----------------------------------------------------------------------

def test_attention_by_hand():
    """Two positions, one head of two channels; the scores 0 and ln 3 make the weights 1/4, 3/4."""
    q = [[1.0, 0.0], [0.0, math.sqrt(2) * math.log(3)]]
    k = [[1.0, 0.0], [0.0, 1.0]]
    v = [[4.0, 0.0], [0.0, 8.0]]
    y = gpt.attention(*(gpt.Tensor(np.array(x).reshape(1, 2, 1, 2)) for x in (q, k, v)))
    assert np.allclose(y.data.reshape(2, 2), [[4, 0], [1, 6]])


def test_attention_weights_sum_to_one_and_survive_any_score():
    q, k = (gpt.Tensor(x) for x in normal(2, 2, 6, 2, 4))
    assert np.allclose(gpt.attention(q, k, gpt.Tensor(np.ones((2, 6, 2, 4)))).data, 1)
    huge = (gpt.Tensor(x.astype(np.float32)) for x in normal(3, 2, 6, 2, 4) * 1e4)
    assert np.isfinite(gpt.attention(*huge).data).all()


@pytest.mark.parametrize("shift", [0, 1e4, -1e4])
def test_cross_entropy_by_hand(shift):
    logits = np.log([[1.0, 3.0], [1.0, 1.0]]) + [[shift], [-shift]]
    loss = gpt.cross_entropy(gpt.Tensor(logits), np.array([1, 0])).data
    assert np.isclose(loss, -(math.log(3 / 4) + math.log(1 / 2)) / 2)


def test_rotary_scores_know_distances_only():
    q, k = normal(2, 1, 1, 1, 8)
    turned = lambda x, t: gpt.rotary(gpt.Tensor(x), gpt.rotations(t, 1, 8)).data
    score = lambda at, to: (turned(q, at) * turned(k, to)).sum()
    assert np.isclose(score(3, 1), score(103, 101), rtol=1e-9)
    assert not np.isclose(score(3, 1), score(3, 2))


def test_changing_a_character_changes_nothing_before_it():
    weights, ids = gpt.leaves(random_weights(7, 16, np.float32)), RNG.integers(7, size=(1, 9))
    before = gpt.gpt(weights, ids, 2).data
    for t in range(9):
        changed = ids.copy()
        changed[0, t] = (ids[0, t] + 1) % 7
        same = (gpt.gpt(weights, changed, 2).data == before).all(1)
        assert same[:t].all() and not same[t:].any()    # to the last bit


def test_the_cache_changes_nothing():
    weights, ids = gpt.leaves(random_weights(7, 16, np.float32)), RNG.integers(7, size=(1, 9))
    cache, whole = {}, gpt.gpt(weights, ids, 2).data
    parts = [gpt.gpt(weights, part, 2, cache).data for part in np.split(ids, [4, 5], 1)]
    assert relative_error(np.concatenate(parts), whole) < 1e-5


def test_adam_by_hand():
    w, state = np.array([1.0, 1.0]), {}
    gpt.adam(w, np.array([4.0, -0.5]), state, lr=0.1)   # first: lr times the gradient's sign
    assert np.allclose(w, [0.9, 1.1])
    gpt.adam(w, np.array([4.0, 0.0]), state, lr=0.1)
    m, v = 0.9 * 0.1 * -0.5, 0.99 * 0.01 * 0.25
    assert np.isclose(w[1], 1.1 - 0.1 * m / (1 - 0.9 ** 2) / math.sqrt(v / (1 - 0.99 ** 2)))


@pytest.mark.parametrize("shape, stretch", [((8, 20), math.sqrt(20 / 8)), ((20, 8), 1)])
def test_muon_makes_every_direction_equally_long(shape, stretch):
    w, dw = normal(*shape), normal(*shape)
    before = w.copy()
    gpt.muon(w, dw, {}, lr=0.5, decay=0.2)
    moved = np.linalg.svd((before * 0.9 - w) / 0.5 / stretch)[1]
    assert 0.6 < moved.min() and moved.max() < 1.3


def test_schedule_rises_and_falls():
    shares = [gpt.linear_decay(step, 100) for step in range(1, 101)]
    assert shares[0] == 1 / 20 and shares[19] == max(shares) == 1 and shares[-1] == 1 / 81
    assert gpt.linear_decay(10, 10) == 1 / 2            # a run shorter than the warm-up


# ---- 01 to 04 -----------------------------------------------------------------------------------

def test_01_first_step_by_hand():
    """On the points (0, 1) and (1, 3), from w = b = 0: errors -1 and -3."""
    neuron, x, t = load("01_neuron"), np.array([0.0, 1.0]), np.array([1.0, 3.0])
    assert neuron.loss_and_gradient(x, t, 0, 0) == (5, -3, -4)
    w, b, losses = neuron.descend(x, t, lr=0.1, steps=1)
    assert np.allclose([w, b, losses[0]], [0.3, 0.4, 5])


def test_01_learns_the_conversion_and_knows_the_largest_rate(capsys):
    result = load("01_neuron").main()
    assert np.allclose([result["w"], result["b"]], [1.8, 32])
    above, below, _ = result["losses"].values()
    assert above[-1] > 100 * above[0] and below[-1] < below[0]
    noisy = load("01_neuron").main(noise=1.0)
    assert 0.01 < noisy["loss"] < 5 and "it diverges" in capsys.readouterr().out


def test_02_derivatives_by_hand():
    table = load("02_activations").ACTIVATIONS
    for name, f, slope in (("identity", 2, 1), ("relu", 2, 1), ("leaky", 2, 1),
                           ("tanh", 0.9640, 0.0707), ("sigmoid", 0.8808, 0.1050),
                           ("softplus", 2.1269, 0.8808), ("silu", 1.7616, 1.0908),
                           ("gelu", 1.9546, 1.0861)):
        assert np.allclose([g(np.array(2.0)) for g in table[name]], [f, slope], atol=1e-4)
        for g in table[name]:
            assert np.isfinite(g(np.array([-1e4, 1e4]))).all()


def test_02_a_bend_is_needed(capsys):
    result = load("02_activations").main(steps=1000)
    assert max(result["accuracy"].pop("identity")) < 0.8
    assert all(scores == [1, 1] for scores in result["accuracy"].values())
    assert max(result["gradient_error"].values()) < 1e-6
    left = result["gradient_left"]                      # after 20 layers
    assert left["sigmoid"][-1] < 1e-9 < 1e-4 < left["relu"][-1] < left["tanh"][-1] < 0.5


def test_03_four_ways_by_hand():
    matmul = load("03_matmul")
    X, W, b = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[3.0], [4.0]]), np.array([5.0])
    for way in (matmul.layer_by_numbers, matmul.layer_by_neurons, matmul.layer_by_examples,
                matmul.layer):
        assert way(X, W, b).tolist() == [[16], [9]]


def test_04_gradient_of_the_output_by_hand():
    """Probabilities 1/4 and 3/4 where the second class is right: delta is 1/4 and -1/4."""
    backprop, a, y = load("04_backprop"), np.log([[1.0, 3.0]]), np.array([1])
    net, h = [(np.zeros((2, 2)), np.zeros(2))], [np.array([[2.0, 0.0]])]
    [(dW, db)] = backprop.backward(net, h, a, y)
    assert np.allclose(db, [0.25, -0.25]) and np.allclose(dW, [[0.5, -0.5], [0, 0]])
    assert np.isclose(backprop.mean_loss(a + 1e4, y), -math.log(3 / 4))


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_04_gradients_at_any_depth(layers):
    backprop, X, y = load("04_backprop"), normal(6, 2), np.array([0, 1, 2, 0, 1, 2])
    net = [(normal(*W.shape), normal(*b.shape))
           for W, b in backprop.random_net(RNG, [2] + [9] * (layers - 1) + [3])]
    value = lambda: backprop.mean_loss(backprop.forward(net, X)[1], y)
    for arrays, found in zip(net, backprop.backward(net, *backprop.forward(net, X), y)):
        for array, gradient in zip(arrays, found):
            assert relative_error(gradient, numeric_gradient(value, array)) < 1e-6


def test_04_learns_the_spiral(capsys):
    result = load("04_backprop").main(steps=300)
    assert result["accuracy"] > 0.99 and result["gradient_error"] < 1e-7


# ---- 05 to 07 -----------------------------------------------------------------------------------

def test_05_values_by_hand():
    a, row = autograd.Tensor([[1, 2], [3, 4]]), np.array([10.0, 20.0])
    for found, expected in (
            (a + 1, [[2, 3], [4, 5]]), (1 - a, [[0, -1], [-2, -3]]), (-a, [[-1, -2], [-3, -4]]),
            (a - row, [[-9, -18], [-7, -16]]), (row - a, [[9, 18], [7, 16]]),
            (3 * a / 2, [[1.5, 3], [4.5, 6]]), (a ** 2, [[1, 4], [9, 16]]),
            (12 / a, [[12, 6], [4, 3]]), (row / a, [[10, 10], [10 / 3, 5]]),
            (a @ a, [[7, 10], [15, 22]]),
            (np.eye(2) @ a, a.data), (np.float64(2) * a, 2 * a.data),
            (a.sum(), 10), (a.sum(0), [4, 6]), (a.sum(1, keepdims=True), [[3], [7]]),
            (a.mean(), 2.5), (a.max(1), [2, 4]), (a.reshape(4), [1, 2, 3, 4]),
            (a.transpose(), [[1, 3], [2, 4]]), (a[1, 0], 3), (a.exp().log(), a.data),
            (a.tanh(), np.tanh(a.data)), ((a - 2).relu(), [[0, 0], [1, 2]])):
        assert isinstance(found, autograd.Tensor)
        assert found.data.shape == np.shape(expected) and np.allclose(found.data, expected)


def test_05_largest_of_equals_share_the_gradient():
    a = autograd.Tensor([[2.0, 5.0, 5.0], [1.0, 0.0, 1.0]])
    a.max(1).backward()
    assert a.grad.tolist() == [[0, 0.5, 0.5], [0.5, 0, 0.5]]


def test_05_whole_numbers_become_real_ones():
    a = autograd.Tensor([1, 2])
    (a * 0.5).backward()
    assert a.grad.tolist() == [0.5, 0.5]


def test_05_leaves_add_up_and_graphs_are_released():
    a = autograd.Tensor([1.0, 2.0])
    (a * a).backward()
    y = a * a
    y.backward()
    assert a.grad.tolist() == [4, 8]
    with pytest.raises(RuntimeError, match="released"):
        y.backward()
    assert a.grad.tolist() == [4, 8]


def test_05_order_matters():
    a, b = autograd.Tensor(2.0), autograd.Tensor(3.0)
    y = autograd.example(a, b)[-1]
    y.grad = np.ones(())
    autograd.naive(y)
    assert (y.data, a.grad, b.grad) == (41, 29, 22)     # the engine finds 25 and 19: see above


def test_05_learns_the_spiral_with_the_gradients_of_04(capsys):
    result = autograd.main()
    assert result["accuracy"] > 0.99 and result["difference"] < 1e-12
    assert result["memory"][1] < 1.1 * result["memory"][0]
    assert "a = 2 [25]" in capsys.readouterr().out


SECOND = 0.1 * (0.29 / 0.19) / math.sqrt(0.0499 / 0.0199)      # Adam: m = 0.29, v = 0.0499


@pytest.mark.parametrize("name, expected", [
    ("sgd", [0.9, 0.7]), ("momentum", [0.9, 0.61]), ("nesterov", [0.81, 0.349]),
    ("rmsprop", [0, -0.2 / math.sqrt(0.0499)]), ("adam", [0.9, 0.9 - SECOND]),
    ("adamw", [0.899, 0.898101 - SECOND])])
def test_06_two_steps_by_hand(name, expected):
    """From w = 1, with gradients 1 and 2 and a rate of 0.1."""
    w, state = np.ones(1), {}
    for dw, value in zip((1.0, 2.0), expected):
        getattr(optim, name)(w, np.array([dw]), state, 0.1)
        assert np.isclose(w[0], value, atol=1e-7)


def test_06_schedules_by_hand():
    at = lambda schedule, *steps: [schedule(step, 100) for step in steps]
    assert at(optim.constant, 1, 20, 100) == [0.05, 1, 1]
    assert np.allclose(at(optim.staircase, 1, 50, 51, 76), [0.05, 1, 0.1, 0.01])
    assert np.allclose(at(optim.cosine, 1, 20), [0.05, 1])
    assert np.isclose(optim.cosine(60, 99), 0.5) and optim.cosine(99, 99) < 0.001
    for schedule in optim.SCHEDULES.values():
        for steps in 1, 5, 40:
            assert all(0 < schedule(step, steps) <= 1 for step in range(1, steps + 1))


def test_06_clipping_keeps_the_direction():
    shortened = optim.clip([np.array([3.0]), np.array([[4.0]])], 1)
    assert np.allclose([g.item() for g in shortened], [0.6, 0.8])
    assert optim.clip([np.array([3.0])], 5)[0] == 3     # short enough as it is


def test_06_an_epoch_sees_each_example_once():
    places = optim.batches(np.random.default_rng(0), 10, 5)
    first, second = (np.concatenate([next(places), next(places)]) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(10)) and list(first) != list(second)


def test_06_starts():
    W = optim.orthogonal(RNG, 8, 20)
    assert np.allclose(W @ W.T, 2 * np.eye(8))
    he = optim.STARTS["He, ReLU"][1](RNG, 200, 300)
    assert np.isclose(he.std(), math.sqrt(2 / 200), rtol=0.02)


def test_06_what_the_page_says(capsys):
    result = optim.main(steps=100, seeds=1)
    assert max(result["valley"].values()) < 0.2 and len(result["race"]) == 7
    assert max(result["race"]["Adam"], result["race"]["Muon"]) < result["race"]["SGD"]
    starts = result["starts"]
    assert starts["zeros"] == starts["too small"] < 0.34 and starts["He, ReLU"] > 0.9
    assert result["clipping"][0.3][0] < 0.3 < result["clipping"][math.inf][0]
    needed = result["batches"]
    assert 40 < needed[300] < needed[100] < needed[30] < 250
    apart, within = result["decay"]
    assert np.allclose(apart, 0.999 ** 1000, atol=0.01) and within[1] < 1e-3 < 0.3 < within[0]


def idx(array):
    """The bytes of an IDX file."""
    array = np.asarray(array, np.uint8)
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def own_digits(folder, n=60, test=24):
    """Four files in MNIST's format: the label is how many quarters of the image are white."""
    Path(folder).mkdir(exist_ok=True)
    for part, count in (("train", n), ("t10k", test)):
        labels = RNG.integers(5, size=count)
        images = np.zeros((count, 28, 28))
        for image, label in zip(images, labels):
            image[:, :7 * label] = 255
        Path(folder, f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        Path(folder, f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


def test_07_idx_by_hand():
    content = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 7, 8, 9, 255])
    assert mnist.read_idx(content, "images").tolist() == [[[7, 8], [9, 255]]]
    assert mnist.read_idx(idx([3, 1]), "labels").tolist() == [3, 1]


@pytest.mark.parametrize("content", [
    b"", b"\0\0\x08", idx([1, 2]), idx(np.ones((2, 2, 2)))[:-1], idx(np.ones((2, 2, 2))) + b"1",
    idx(np.ones((2, 2, 2)))[:9], b"<html>502 Bad Gateway</html>",
    idx(np.ones((2, 2, 2))).replace(b"\x08", b"\x0d", 1)])
def test_07_a_wrong_idx_file_is_refused(content):
    with pytest.raises(SystemExit, match="^error: images"):
        mnist.read_idx(content, "images")


def test_07_distortion():
    images = RNG.random((3, 784), dtype=np.float32)
    same = mnist.distort(np.random.default_rng(0), images, 0)
    assert same.dtype == np.float32 and np.array_equal(same, images)
    a, b, both = (mnist.distort(np.random.default_rng(0), x, 1.0)
                  for x in (images, images[::-1], images + images[::-1]))
    assert np.allclose(a + b, both, atol=1e-5) and not np.allclose(a, images, atol=0.1)
    dot = np.zeros((28, 28), np.float32)
    dot[13:15, 13:15] = 1
    moved = [mnist.distort(RNG, dot.reshape(1, 784)).reshape(28, 28) for _ in range(200)]
    middle = [np.einsum("ij,kij->k", image / image.sum(), mnist.GRID) for image in moved]
    assert np.abs(np.mean(middle, 0)).max() < 0.5 < np.std(middle, 0).min() < 2


def test_07_stays_float32_and_is_the_same_twice(folder, capsys):
    own_digits("own")
    results = [mnist.main(data="own", hidden=8, batch=10, epochs=20, out=f"{i}.npz", seed=seed)
               for i, seed in enumerate((0, 0, 1))]
    assert results[0]["test_accuracy"] > 0.5 and results[0]["confusion"].sum() == 24
    nets = [[array for pair in mnist.load_net(f"{i}.npz") for array in pair] for i in range(3)]
    assert all(map(np.array_equal, nets[0], nets[1])) and not np.array_equal(nets[0][0], nets[2][0])
    assert {array.dtype for array in nets[0]} == {np.dtype(np.float32)}
    assert mnist.light(np.array([0, 255], np.uint8)).tolist() == [0, 1]
    assert mnist.light(np.zeros(1, np.uint8)).dtype == np.float32
    again = mnist.main(data="own", load="0.npz", out="")
    assert again["test_accuracy"] == results[0]["test_accuracy"]
    assert "test accuracy" in capsys.readouterr().out.splitlines()[-1]


def test_07_divergence_is_named(folder, capsys):
    own_digits("own")
    with pytest.raises(SystemExit, match="diverges at step .*: lower --lr"):
        mnist.main(data="own", hidden=8, batch=10, epochs=20, lr=1e30, out="")


def test_07_smoothed_targets():
    """Logits ln 1, ln 9 and eight 0: the loss is that of the target 0.955 and nine times 0.005."""
    z, y = np.zeros((1, 10)), np.array([1])
    z[0, 1] = math.log(9)
    expected = -0.955 * math.log(9 / 18) - 9 * 0.005 * math.log(1 / 18)
    assert np.isclose(mnist.smoothed(mnist.Tensor(z), y).data, expected)
    z, y = normal(4, 10), np.array([3, 0, 9, 3])
    logits = mnist.Tensor(z)
    mnist.smoothed(logits, y).backward()
    value = lambda: mnist.smoothed(mnist.Tensor(z), y).data.item()
    assert relative_error(logits.grad, numeric_gradient(value, z)) < 1e-6


def test_07_drawn_digits_can_be_learned(folder, capsys, monkeypatch):
    monkeypatch.setattr(mnist, "fetch", lambda *_: None)
    result = mnist.main(epochs=4, hidden=128, batch=64, out="")
    assert result["test_accuracy"] > 0.85 and len(result["held_out"]) == 4
    assert "these are drawn digits" in capsys.readouterr().out
    assert os.listdir() == ["text.txt"]                 # nothing is left behind


@pytest.mark.skipif(not all((HERE / "data" / f"{name}.gz").exists() for name in mnist.FILES),
                    reason="data/ does not hold MNIST")
def test_07_mnist(folder, capsys):
    shutil.copytree(HERE / "data", "data")
    result = mnist.main(epochs=1, hidden=64, out="")
    assert result["test_accuracy"] > 0.9
    assert capsys.readouterr().out.startswith("MNIST: 55,000 images to train on, 5,000 held out")


# ---- 08 to 10 -----------------------------------------------------------------------------------

def test_08_merges_by_hand(capsys):
    """aaabdaaabac: aa becomes Z, ab becomes Y, ZY becomes X, and XdXac remains."""
    pairs, tokens = embed.learn_merges("aaabdaaabac", 3)
    assert tokens[256:] == [b"aa", b"ab", b"aaab"] and pairs[2] == (256, 257)
    assert embed.encode_bytes("aaabdaaabac", pairs).tolist() == [258, 100, 258, 97, 99]
    for run, merged in (([1] * 5, [9, 9, 1]), ([1, 1, 2, 1, 1, 1, 1], [9, 2, 9, 9]), ([1], [1])):
        assert embed.merge(np.array(run), 1, 1, 9).tolist() == merged
    assert len(embed.learn_merges("abcd", 3)[0]) == 0   # no pair occurs twice


def test_08_tokens_are_lossless(capsys):
    strange = ["", "aaaaa", "\0\t\r\n\x7f", "\u0645\u0631\u062d", "\u6f22\u5b57",  # Arabic, Chinese
               "\ufeff\U0010ffff", "\U0001f469\u200d\U0001f680"]              # an emoji of three
    points = [np.setdiff1d(RNG.integers(0x110000, size=9), range(0xd800, 0xe000)) for _ in "x" * 99]
    texts = strange + ["".join(map(chr, code)) for code in points] + [TEXT, TEXT[::-1]]
    pairs, tokens = embed.learn_merges(" ".join(texts), 200)
    assert len(pairs) == 200
    for text in texts:
        ids = embed.encode_bytes(text, pairs)
        assert embed.decode_bytes(ids, tokens) == text
        assert b"".join(tokens[i] for i in ids) == text.encode()
        assert "".join(embed.words_of(text)) == text
    assert not any(token[i:i + 1].isspace() for token in tokens for i in range(1, len(token)))
    assert embed.decode_bytes([0xf0, 97], tokens) == "\ufffda"


def test_08_skip_gram_by_hand():
    """Scores 0 and ln 3: neighbours cost ln 2 and ln(4/3), noise ln 4, five times."""
    w, u, n = (embed.Tensor(np.array(x)) for x in ([[1.0], [1.0]], [[0.0], [math.log(3)]],
                                                   [[math.log(3)]]))
    expected = (math.log(2) + math.log(4 / 3)) / 2 + 5 * math.log(4)
    assert np.isclose(embed.skip_gram(w, u, n).data, expected)


def test_08_words_with_the_same_neighbours_become_similar(capsys):
    """0 and 1 stand between two 2, 3 and 4 between two 5."""
    phrases = np.array([[2, 0, 2], [2, 1, 2], [5, 3, 5], [5, 4, 5]])
    ids = phrases[RNG.integers(4, size=2000)].ravel()
    W = embed.word_vectors(np.random.default_rng(0), ids, 6, 8, 200, 0.05, reach=1)
    cosines = embed.similarity(W) - 2 * np.eye(6)
    assert cosines.argmax(1)[[0, 1, 3, 4]].tolist() == [1, 0, 4, 3] and W.dtype == np.float32


def test_08_positions_by_hand():
    assert np.allclose(embed.sinusoids(2, 4), [[0, 1, 0, 1], [math.sin(1), math.cos(1),
                                                              math.sin(0.01), math.cos(0.01)]])
    turned = embed.rotary(embed.Tensor(np.array([1.0, 0.0]).reshape(1, 1, 1, 2)),
                          np.full((1, 1, 1), 1j)).data
    assert np.allclose(turned.ravel(), [0, 1])          # a quarter of a turn
    assert embed.heat_map(np.array([[-9, 0.6, 9]]), 0, 1) == ["  ++@@"]


def test_08_a_text_of_few_words(folder, capsys):
    Path("numbers").write_text("1234567890 " * 100, encoding="utf-8")
    result = embed.main(data="numbers", merges=5, steps=5)
    assert math.isnan(result["same_kind"]) and "too few" in capsys.readouterr().out


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="data/tinyshakespeare.txt is not there")
def test_08_shakespeare(folder, capsys):
    shutil.copytree(HERE / "data", "data")
    result = embed.main(merges=50, steps=250)
    assert 0.95 > result["same_kind"] > 0.4 > 0.15 > result["chance"]
    lengths = [length for _, length in result["tokens"].values()]
    assert 1.3 < result["tokens"]["bytes, 50 merges"][1] < max(lengths) < 5
    *others, rotary = result["moved"].values()
    assert rotary < 1e-6 < 0.1 < min(others)


def test_09_formulas_by_hand():
    """The weights are 1/4 and 3/4, as above; for G = [0, 1] in row 2, dS is 3/16 * (8 - 0)."""
    Q, K = np.array([[1.0, 0.0], [0.0, math.sqrt(2) * math.log(3)]]), np.eye(2)
    V, G = np.array([[4.0, 0.0], [0.0, 8.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])
    Y, A = lookup.look_up(Q, K, V)
    assert np.allclose(Y, [[4, 0], [1, 6]]) and np.allclose(A, [[1, 0], [0.25, 0.75]])
    assert A[0, 1] == 0                                 # exactly
    dQ, dK, dV = lookup.look_up_gradients(Q, K, V, A, G)
    dS = 0.75 * 0.25 * 8 / math.sqrt(2)
    assert np.allclose(dQ, [[0, 0], [-dS, dS]]) and np.allclose(dV, [[0, 0.25], [0, 0.75]])
    assert np.allclose(dK, dS * Q[1, 1] * np.array([[0, -1], [0, 1]]))


@pytest.mark.parametrize("asked", [1, 2])
def test_09_questions_have_answers(asked):
    ids, answers = lookup.questions(RNG, 50, 6, asked)
    assert ids.shape == (50, 7, 2) and answers.shape == (50, asked)
    for row, answer in zip(ids, answers):
        known = {letter: digit - 26 for letter, digit in row[:-1]}
        assert len(known) == len(set(known.values())) == 6
        assert [known[row[-1, i] - 36 - 26 * i] for i in range(asked)] == answer.tolist()
    assert asked == 2 or (ids[:, -1, 1] == lookup.NONE).all()


def test_09_what_the_page_says(capsys):
    result = lookup.main(longest=1024, channels=32, steps=300, lr=0.01)
    accuracy, both, price = (result[name] for name in ("accuracy", "both", "price"))
    assert accuracy["attention"] > 0.99
    assert max(accuracy["mean"], accuracy["hidden layer"]) < 0.2
    assert both[1] < 0.3 < 0.9 < both[2]
    with_root, without = zip(*result["entropy"].values())
    assert min(with_root) > 3.5 and without[-1] < 0.3
    assert 3.5 < price[1024][1] / price[512][1] < 4.5
    picture = capsys.readouterr().out.split("attends to")[1].splitlines()[2:10]
    for i, line in enumerate(picture):                  # the darkest mark is on the diagonal
        marks = [" .:-=+*#%@".index(line[7 + 4 * j]) for j in range(8)]
        assert marks.index(max(marks)) == i and marks[i] > 5


def test_10_layer_norm_by_hand():
    y = blocks.layer_norm(*map(blocks.Tensor, ([[1.0, 3.0]], [2.0, 2.0], [1.0, 1.0])), eps=0)
    assert np.allclose(y.data, [[-1, 3]])


def test_10_its_stack_is_the_gpt_of_11():
    weights, ids = random_weights(7, 16, np.float64), RNG.integers(7, size=(2, 9))
    stack = blocks.transformer(blocks.leaves(weights), ids, 2, 2, blocks.GPT11)
    assert np.allclose(stack.data, gpt.gpt(gpt.leaves(weights), ids, 2).data, rtol=1e-10)


def test_10_rows_by_hand():
    rows = blocks.sorting(RNG, 3, 4)
    assert rows.shape == (3, 9) and (rows[:, 4] == 10).all() and rows[:, :4].max() < 10
    assert rows[:, 5:].tolist() == [sorted(row) for row in rows[:, :4].tolist()]


def test_10_counts_by_hand():
    a, b = np.ones((3, 4)).view(blocks.Counted), np.ones((4, 5))
    assert blocks.operations(lambda: a @ b) == 2 * 3 * 4 * 5
    assert blocks.operations(lambda: (a + 1) * 2) == 0
    assert blocks.operations(lambda: b.T @ a.swapaxes(0, 1)) == 2 * 3 * 4 * 5


def test_10_what_the_page_says(capsys):
    result = blocks.main(channels=16, digits=4, steps=2)
    sizes, gradients, cosines = ({stack: by_depth[48][place] for stack, by_depth
                                  in result["depth"].items()} for place in range(3))
    assert sizes["neither"] < 1e-10 and gradients["neither"] < 1e-10
    assert sizes["residuals"] > 1e6 and math.isnan(gradients["residuals"])
    assert result["depth"]["residuals"][24][1] > 1e4
    assert all(0.1 < sizes[stack] < 20 for stack in sizes if "norm" in stack)
    assert cosines["both, pre-norm"] < 0.9 < 0.95 < min(cosines["norm"], cosines["both, post-norm"])
    assert max(cosines.values()) < 1 + 1e-9 and set(result["right"]) == set(blocks.NETS)


def test_10_two_blocks_learn_to_sort():
    learn = lambda parts: blocks.learn_sorting(0, parts, 3, 2, 2, 32, 150, 0.01)
    weights, _, right = learn(blocks.GPT2)
    assert right > 0.9 and learn(blocks.GPT2 - {"attention"})[2] < 0.1
    assert {w.dtype for w in weights.values()} == {np.dtype(np.float32)}
    row = np.array([7, 0, 4, 10, 0, 4, 7])
    assert blocks.write_sorted(weights, row, 2, 2, blocks.GPT2) == "704=047"


# ---- 11: training, checkpoints, sampling --------------------------------------------------------

def test_training_stays_float32_and_learns(folder):
    train(steps=40, out="a.npz")
    kept, ids = gpt.load("a.npz"), RNG.integers(3, size=(2, 9))
    arrays = [gpt.gpt(gpt.leaves(kept.weights), ids, 2).data, *kept.weights.values(),
              *kept.best.values(), *gpt.gradients(kept.weights, ids, 2)[1].values(),
              *(state[part] for state in kept.states.values() for part in state if part != "t")]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert kept.losses[-1] < kept.losses[0] - 0.5


def same_run(a, b):
    """Whether two checkpoints agree to the last bit."""
    with np.load(a) as a, np.load(b) as b:
        return a.files == b.files and all(np.array_equal(a[key], b[key]) for key in a.files)


def test_same_seed_same_run_whatever_the_threads(folder, monkeypatch):
    monkeypatch.setattr(gpt, "SHARD", TINY["block"])    # each of the rows is a shard of its own
    for name, threads, seed in (("one", 1, 0), ("three", 3, 0), ("other", 1, 1)):
        train(threads=threads, seed=seed, out=name)
    assert same_run("one", "three")
    assert not np.array_equal(*(gpt.load(name).weights["embed"] for name in ("one", "other")))


def test_a_thread_for_each_core_that_is_ours(folder, monkeypatch, capsys):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    for cores in 1, 3:
        monkeypatch.setattr(gpt.os, "sched_getaffinity", lambda _: range(cores), raising=False)
        train()
        assert f"on {cores} thread{'s' * (cores > 1)}," in capsys.readouterr().out
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")     # BLAS has the cores, as in a notebook
    train()
    assert "on 1 thread," in capsys.readouterr().out


@pytest.mark.parametrize("script", ["08_embed", "09_attention", "10_block", "11_gpt"])
def test_blas_gets_one_thread_before_numpy_is_loaded(script):
    clean = {name: value for name, value in os.environ.items() if not name.endswith("_THREADS")}
    code = (f"import os, runpy; runpy.run_path('{script}.py'); "
            "print(os.environ['OPENBLAS_NUM_THREADS'])")
    told = subprocess.run([sys.executable, "-c", code], cwd=HERE, env=clean, capture_output=True,
                          text=True, timeout=80)
    assert told.stdout == "1\n"


def test_resuming_equals_never_having_stopped(folder):
    whole = train(steps=20, eval_every=7, out="whole.npz")
    train(steps=20, eval_every=7, stop=10, out="parts.npz")
    assert len(gpt.load("parts.npz").losses) == 10
    parts = gpt.main(resume="parts.npz", out="parts.npz", tokens=20)   # with its own settings
    assert parts["steps"] == 20 and parts["sample"] == whole["sample"]
    assert same_run("whole.npz", "parts.npz")


def test_a_pause_tells_what_was_measured_last(folder, capsys):
    train(steps=12, eval_every=5, stop=7, out="a.npz")
    assert "after 5 steps," in capsys.readouterr().out
    Path("other.txt").write_text(TEXT[::-1], encoding="utf-8")
    gpt.main(resume="a.npz", data="other.txt", stop=9, out="b.npz", tokens=20)
    kept = gpt.load("b.npz")                            # of another text, nothing was measured yet
    assert "val loss nan after 9 steps" in capsys.readouterr().out
    assert len(kept.losses) == 9 and not kept.validation and not kept.best


def test_ten_steps_and_ten_more_are_twenty(folder):
    train(steps=10, out="parts.npz")                    # all within the warm-up
    gpt.main(resume="parts.npz", out="parts.npz", steps=20, tokens=0)
    train(steps=20, out="whole.npz")
    parts, whole = gpt.load("parts.npz"), gpt.load("whole.npz")
    assert parts.losses == whole.losses
    assert all(np.array_equal(parts.weights[name], whole.weights[name]) for name in whole.weights)


def test_sampling_from_a_checkpoint(folder, capsys):
    train(out="a.npz")
    before = Path("a.npz").read_bytes()
    Path("text.txt").unlink()                           # it is not needed any more
    sample = lambda **how: gpt.main(resume="a.npz", steps=0, tokens=30, **how)["sample"]
    assert sample(prompt="To be").startswith("To be") and len(sample(prompt="To be")) == 35
    assert sample(temperature=0.0) == sample(top_k=1) != sample(temperature=2.0)
    assert len(sample(prompt="\u00e9\u6f22\U0001f600")) == 30
    assert r"not in the vocabulary: '\xe9' '\u6f22' '\U0001f600'" in capsys.readouterr().out
    assert Path("a.npz").read_bytes() == before


def test_the_best_weights_are_kept(folder):
    for stop, last_is_best in (10, False), (40, True):  # at this rate the loss rises at first
        train(steps=40, eval_every=10, lr=3.0, stop=stop, out="a.npz")
        kept = gpt.load("a.npz")
        losses = [loss for _, loss in kept.validation]
        same = all(np.array_equal(kept.best[name], kept.weights[name]) for name in kept.weights)
        assert same == (losses[-1] == min(losses)) == last_is_best


def test_divergence_is_named_and_the_last_good_checkpoint_stays(folder):
    train(out="a.npz")
    before = Path("a.npz").read_bytes()
    with pytest.raises(SystemExit, match="at step .*: lower --lr"):
        train(resume="a.npz", steps=30, lr=1e30)
    assert Path("a.npz").read_bytes() == before


def endless_training(folder, *flags):
    shutil.copy(HERE / "11_gpt.py", folder)
    command = [sys.executable, "-u", "11_gpt.py", "--data=text.txt", *TINY_FLAGS, *flags]
    return subprocess.Popen([*command, "--steps=100000"], cwd=folder, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("delay", [0, 0.03, 0.1])
def test_a_killed_run_leaves_a_whole_checkpoint(folder, delay):
    with endless_training(folder, "--eval_every=1") as process:
        while not Path("gpt.npz").exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(delay)
        process.kill()
    assert gpt.main(resume="gpt.npz", steps=0, tokens=5)["steps"] > 0


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot interrupt one process alone")
def test_ctrl_c_keeps_the_run_after_a_whole_step(folder):
    with endless_training(folder) as process:
        for line in process.stdout:
            if line.split()[:1] == ["1"]:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130 and errors.count("\n") == 1
    assert errors == f"interrupted after step {len(gpt.load('gpt.npz').losses)}, kept in gpt.npz\n"


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="data/tinyshakespeare.txt is not there")
def test_shakespeare(folder):
    Path("data").mkdir()
    shutil.copy(SHAKESPEARE, "data")
    result = gpt.main(**TINY | dict(steps=100, eval_every=100, batch=8, block=64, channels=32))
    assert result["val_loss"] < 2.6     # a uniform guess costs 4.17, character frequencies 3.35


@pytest.mark.skipif(not shutil.which("mpiexec") or not importlib.util.find_spec("mpi4py"),
                    reason="there is no MPI here")
@pytest.mark.parametrize("ranks", [2, 4])
def test_processes_equal_one_with_all_their_batches(ranks, folder):
    shutil.copy(HERE / "11_gpt.py", folder)
    alone = [sys.executable, "11_gpt.py", "--data=text.txt", *TINY_FLAGS, "--steps=20"]
    for command in ([*alone, "--batch=8", "--out=one.npz"],
                    ["mpiexec", "-n", str(ranks), *alone, f"--batch={8 // ranks}",
                     "--out=many.npz"]):
        subprocess.run(command, check=True, capture_output=True, timeout=80)
    one, many = gpt.load("one.npz").losses, gpt.load("many.npz").losses
    assert len(one) == 20 and np.abs(np.subtract(one, many)).max() < 1e-4


# ---- trouble ------------------------------------------------------------------------------------

# What a user can type, and a part of the sentence that answers it, by script.
TROUBLE = """
01_neuron
    --steps=0                       --steps must be between 1 and 5000
    --steps=99999999999999999999    --steps must be between 1 and 5000
    --lr=0                          --lr must be between 0 and 1
    --lr=nan                        --lr must be between 0 and 1
    --noise=-1                      --noise must be between 0 and 1000
    --noise=inf                     --noise must be between 0 and 1000
02_activations
    --steps=0                       --steps must be between 1 and 100000
    --hidden=1000000                --hidden must be between 2 and 1000
    --lr=-1                         --lr must be positive
    --lr=1e9                        identity diverges at step 18: lower --lr
    --steps=1 --lr=1e300            identity diverges: lower --lr
    --activation=none               --activation must be one of identity, sigmoid, tanh
    --activation=                   --activation must be one of identity, sigmoid, tanh
03_matmul
    --batch=0                       --batch must be between 1 and 4096
    --inputs=-1                     --inputs must be between 1 and 4096
    --neurons=99999                 --neurons must be between 1 and 4096
    --size=0                        --size must be between 1 and 4096
    --batch=4096 --neurons=4096     must be at most 1e8, since three loops in Python
    --budget=nan                    --budget must be between 0 and 60 seconds
04_backprop
    --steps=0                       --steps must be between 1 and 100000
    --layers=0                      --layers must be between 1 and 20
    --hidden=-1                     --hidden must be between 1 and 100000
    --points=0                      --points must be between 1 and 100000
    --lr=nan                        --lr must be positive
    --lr=1e9                        training diverges at step 1: lower --lr
05_autograd
    --steps=0                       --steps must be between 1 and 100000
    --layers=21                     --layers must be between 1 and 20
    --hidden=0                      --hidden must be between 1 and 100000
    --points=-5                     --points must be between 1 and 100000
    --lr=-inf                       --lr must be positive
    --lr=1e9                        training diverges at step 1: lower --lr
06_optim
    --steps=0                       --steps must be between 1 and 10000
    --hidden=20000                  --hidden must be between 1 and 10000
    --seeds=0                       --seeds must be between 1 and 10000
07_mnist
    --epochs=0                      --epochs must be between 1 and 10000
    --hidden=-1                     --hidden must be between 1 and 10000
    --batch=0                       --batch must be between 1 and 10000
    --batch=60                      --batch must be at most 55, the images to train on
    --lr=0                          --lr must be positive
    --lr=1e20                       training diverges at step
    --distortion=nan                --distortion must be between 0 and 10
    --data=absent                   cannot read absent/train-images-idx3-ubyte
    --data=text.txt                 cannot read text.txt/train-images-idx3-ubyte
    --out=.                         cannot write .: what is there is not a writable .npz file
    --out=text.txt                  cannot write text.txt: what is there is not a writable .npz file
    --out=absent/x                  cannot write absent/x: [Errno 2]
    --load=absent                   cannot read the weights absent: [Errno 2]
    --load=.                        cannot read the weights .
    --load=text.txt                 text.txt does not hold the weights of 07_mnist.py
08_embed
    --merges=-1                     --merges must be between 0 and 4000
    --merges=5000                   --merges must be between 0 and 4000
    --words=0                       --words must be between 1 and 100000
    --channels=0                    --channels must be between 1 and 100000
    --steps=0                       --steps must be between 1 and 100000
    --lr=nan                        --lr must be positive
    --lr=1e30                       training diverges at step 2: lower --lr
    --steps=1 --lr=1e25             training diverges: lower --lr
    --data=absent                   cannot read absent: [Errno 2]
    --data=.                        cannot read .
    --data=empty                    empty has 0 characters, fewer than 1000
    --data=binary                   binary is not UTF-8 text
09_attention
    --longest=7                     --longest must be between 8 and 100000
    --longest=1000000000            --longest must be between 8 and 100000
    --pairs=11                      --pairs must be between 2 and 10: there are ten digits
    --channels=7                    --channels must be even, for two heads
    --steps=0                       --steps must be between 1 and 100000
    --lr=-1                         --lr must be positive
    --lr=1e30                       training diverges at step 2: lower --lr
    --steps=1 --lr=1e20             training diverges: lower --lr
10_block
    --deepest=49                    --deepest must be between 2 and 48
    --digits=0                      --digits must be between 1 and 100000
    --layers=0                      --layers must be between 1 and 100000
    --heads=3                       8 channels do not divide into 3 heads
    --heads=8                       8 channels in 8 heads leave an odd number in each
    --channels=0                    --channels must be between 1 and 100000
    --steps=0                       --steps must be between 1 and 100000
    --lr=nan                        --lr must be positive
    --seeds=0                       --seeds must be between 1 and 100000
11_gpt
    --batch=0                       --batch must be positive
    --layers=-1                     --layers must be positive
    --channels=10000000000          --channels must be positive and below 2^31
    --channels=9000000 --data=abc.txt   there is not enough memory for these sizes
    --steps=-1                      --steps must be 0 or more
    --lr=nan                        --lr must be positive
    --lr=1e30                       training diverges at step 2
    --steps=3 --lr=1e10             training diverges at step 3: lower --lr
    --decay=-1                      --decay must be 0 or more
    --temperature=inf               --temperature must be 0 or more, and finite
    --heads=3                       16 channels do not divide into 3 heads
    --heads=16                      16 channels in 16 heads leave an odd number in each
    --block=900                     880 characters, but --block=900 needs 9010
    --tokens=-1                     --tokens must be 0 or more
    --top_k=-1                      --top_k must be 0 or more
    --threads=100000                --threads must be at most 256
    --eval_every=0                  --eval_every must be positive
    --data=absent                   cannot read absent: [Errno 2]
    --data=.                        cannot read .
    --data=empty                    empty has 0 characters
    --data=binary                   binary is not UTF-8 text
    --resume=absent                 cannot read the checkpoint absent: [Errno 2]
    --resume=.                      cannot read the checkpoint .
    --resume=empty                  empty is not a whole checkpoint of 11_gpt.py
    --resume=binary                 binary is not a whole checkpoint of 11_gpt.py
    --resume=cut                    cut is not a whole checkpoint of 11_gpt.py
    --resume=other.npz              other.npz is not a whole checkpoint of 11_gpt.py
    --resume=wide.npz               wide.npz holds a GPT with channels=32, not 16
    --resume=abc.npz --steps=9      text.txt has other characters than the text of the checkpoint
    --out=.                         cannot write .: what is there is not a writable .npz file
    --out=text.txt                  cannot write text.txt: what is there is not a writable .npz file
    --out=absent/gpt.npz            cannot write absent/gpt.npz: [Errno 2]
"""


def troubles():
    """(script, flags, sentence) of each line of the table."""
    for line in TROUBLE.strip().splitlines():
        if not line.startswith(" "):
            script = line
        else:
            yield (script, *re.split("  +", line.strip()))


@pytest.fixture(scope="module")
def troubled(tmp_path_factory):
    """A folder with a text of 880 characters, few digits, and all that can be wrong with a file."""
    folder = tmp_path_factory.mktemp("troubled")
    (folder / "text.txt").write_text(TEXT + "1234567890 & so on.\n", encoding="utf-8")
    (folder / "abc.txt").write_text("abc" * 300, encoding="utf-8")
    (folder / "empty").write_bytes(b"")
    (folder / "binary").write_bytes(bytes(range(256)))
    for flags in (["--data=text.txt", "--channels=32", "--out=wide.npz"],
                  ["--data=abc.txt", "--out=abc.npz"]):
        run("11_gpt.py", *TINY_FLAGS, *flags, folder=folder)
    (folder / "cut").write_bytes((folder / "wide.npz").read_bytes()[:-500])
    np.savez(folder / "other.npz", W=np.ones(3))
    own_digits(folder / "own")
    return folder


@pytest.mark.parametrize("script, flags, sentence", list(troubles()))
@pytest.mark.filterwarnings("error", *(f"ignore:{alarm} encountered in matmul" for alarm in ALARMS))
def test_what_cannot_be_done_ends_in_one_sentence(script, flags, sentence, troubled, monkeypatch):
    """And changes no file. SystemExit with a sentence prints it on stderr and exits with 1."""
    module = load(script)
    monkeypatch.chdir(troubled)
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    usual = {"07_mnist": ["--data=own", "--epochs=1", "--hidden=8", "--batch=8"],
             "11_gpt": ["--data=text.txt", *TINY_FLAGS]}.get(script, FLAGS[script])
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *usual, *flags.split()])
    contents = lambda: {path: path.read_bytes() for path in troubled.rglob("*") if path.is_file()}
    before = contents()
    with pytest.raises(SystemExit) as caught:
        module.command_line(module.main)
    said = caught.value.code.replace("\\", "/")         # as Windows writes its paths
    assert said.startswith("error: ") and sentence in said and "\n" not in said
    assert contents() == before


def test_a_checkpoint_is_read_with_care(folder):
    """Settings that are none, a file name among them, losses that are none, weights that miss."""
    train(out="a.npz")
    with np.load("a.npz") as arrays:
        arrays = dict(arrays)
    record = json.loads(arrays["record"].item())
    damages = [({"settings": record["settings"] | {key: value}}, {}) for key, value in (
        ("steps", "many"), ("batch", None), ("channels", -2), ("heads", [2]))]
    damages += [({"losses": 5}, {}), ({"losses": [math.nan]}, {}), ({"validation": [[1]]}, {}),
                ({"settings": {}}, {}), ({}, {"best/embed": np.full((30, 16), np.nan)}),
                ({}, {"weights/embed": None}), ({}, {"best/head": None})]
    for entries, changed in damages:
        damaged = {key: value for key, value in (arrays | changed).items() if value is not None}
        damaged["record"] = json.dumps(record | entries)
        np.savez("b.npz", **damaged)
        with pytest.raises(SystemExit, match="not a whole checkpoint"):
            gpt.main(resume="b.npz", steps=9, out="")
    record["settings"]["out"] = "text.txt"
    np.savez("b.npz", **arrays | {"record": json.dumps(record)})
    gpt.main(resume="b.npz", steps=9, out="c.npz")
    assert Path("text.txt").read_text(encoding="utf-8") == TEXT and Path("c.npz").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows lets few users make links")
def test_files_are_kept_whole(folder):
    """Behind a link, and in a .part that no other run writes to."""
    Path("real.npz").write_bytes(b"")
    os.symlink("real.npz", "link.npz")
    parts = []

    def write(file):
        parts.extend(Path().glob("*.part"))
        np.savez(file, W=np.ones(3))
    gpt.keep("link.npz", write)
    assert Path("link.npz").is_symlink() and Path("real.npz").stat().st_size > 100
    gpt.check_writable("link.npz")
    assert parts == [Path(f"real.npz.{os.getpid()}.part")] and not list(Path().glob("*.part"))


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused_before_training(folder):
    shutil.copy(HERE / "11_gpt.py", folder)
    folder.chmod(0o500)
    with pytest.raises(SystemExit, match="cannot write gpt.npz"):
        train()
    folder.chmod(0o700)


def test_07_a_full_disk_leaves_the_old_weights(folder, capsys, monkeypatch):
    own_digits("own")
    mnist.main(data="own", hidden=8, batch=10, epochs=1, out="kept.npz")
    before = Path("kept.npz").read_bytes()

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(mnist.os, "fsync", full)
    with pytest.raises(SystemExit, match="cannot write the weights kept.npz"):
        mnist.main(data="own", hidden=8, batch=10, epochs=1, out="kept.npz")
    assert Path("kept.npz").read_bytes() == before and not list(Path().glob("*.part"))


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "flag", "method", "shape", "nan"])
def test_07_damaged_weights_are_refused(damage, folder, capsys):
    own_digits("own")
    net = mnist.new_net(RNG, 4)
    if damage == "nan":
        net[1][0][0, 0] = np.nan
    if damage == "shape":
        net[1] = (np.ones((3, 4), np.float32), net[1][1])
    mnist.save_net(net, "w.npz")
    content = bytearray(Path("w.npz").read_bytes())
    entry = content.index(b"PK\x01\x02")                # the first file in zip's table of contents
    if damage == "flag":
        content[entry + 8] |= 1                         # says that it is encrypted
    if damage == "method":
        content[entry + 10] = 99                        # an unknown way to pack
    content = {"empty": b"", "text": b"no weights", "cut": content[:-300]}.get(damage, content)
    Path("w.npz").write_bytes(content)
    with pytest.raises(SystemExit, match="does not hold the weights"):
        mnist.main(data="own", load="w.npz")


@pytest.mark.parametrize("part, array, sentence", [
    ("train-images-idx3", np.zeros((60, 28, 27)), "training images do not have 28 x 28"),
    ("t10k-images-idx3", np.zeros((23, 28, 28)), "23 test images, 24 labels"),
    ("train-labels-idx1", np.full(60, 10), "training labels are above 9"),
    ("train-labels-idx1", np.zeros((60, 2)), "not an IDX file of bytes with 1 axes")])
def test_07_own_files_that_do_not_fit_are_refused(part, array, sentence, folder):
    own_digits("own")
    Path("own", f"{part}-ubyte").write_bytes(idx(array))
    with pytest.raises(SystemExit, match=sentence):
        mnist.main(data="own", out="")


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
        assert gpt.fetch("x", urls, hashlib.sha256(b"right bytes").hexdigest()) == b"right bytes"
    assert asked == [10, 10] and os.listdir("data") == ["x"]


def test_fetch_uses_only_the_right_bytes_and_tries_the_next_host(folder):
    right, digest = gzip.compress(b"right bytes"), hashlib.sha256(b"right bytes").hexdigest()
    for name, content in (("right", right), ("cut", right[:-5]), ("page", b"<html>502</html>"),
                          ("other", gzip.compress(b"other bytes"))):
        Path(name).write_bytes(content)
    bad = [Path(name).absolute().as_uri() for name in ("absent", "cut", "page", "other")]
    good = Path("right").absolute().as_uri()
    assert gpt.fetch("x.gz", bad, digest) is None and not Path("data").exists()
    assert gpt.fetch("x.gz", [*bad, good], digest) == b"right bytes"
    assert os.listdir("data") == ["x.gz"]
    assert gpt.fetch("x.gz", [], digest) == b"right bytes"      # from data/
    Path("data/x.gz").write_bytes(right[:-5])
    assert gpt.fetch("x.gz", bad, digest) is None
    assert gpt.fetch("x.gz", [*bad, good], digest) == b"right bytes"
    assert Path("data/x.gz").read_bytes() == right                  # mended


# ---- wherever people run it ---------------------------------------------------------------------

SURROUNDINGS = {                                        # flags of Python, environment
    "ascii": (STRICT, dict(PYTHONIOENCODING="ascii", TERM="dumb", LC_ALL="C")),
    "cp1252": (["-OO"], dict(PYTHONIOENCODING="cp1252", COLUMNS="20")),
}


@EACH_SCRIPT
def test_runs_alone_offline_anywhere(path, tmp_path):
    """In a folder with nothing else and an odd name, whatever the console, without any input."""
    def go(surroundings):
        options, environment = SURROUNDINGS[surroundings]
        folder = tmp_path / f"a caf\u00e9 #%& {surroundings}"
        folder.mkdir()
        return run(path.name, *FLAGS[path.stem], folder=folder, options=options,
                   environment=environment | {"PYTHONUTF8": "0"})
    with ThreadPoolExecutor(len(SURROUNDINGS)) as pool:         # side by side
        for name, result in zip(SURROUNDINGS, pool.map(go, SURROUNDINGS)):
            assert (name, result.returncode, result.stderr) == (name, 0, "")
            if path.stem in ("08_embed", "11_gpt"):
                assert "Python's own help texts" in result.stdout


WRONG_FLAGS = {
    "--sede=1": (2, "unrecognized arguments: --sede=1"),
    "--see=1": (2, "unrecognized arguments: --see=1"),          # not abbreviated
    "--seed=one": (2, "invalid int value: 'one'"), "--seed=": (2, "invalid int value: ''"),
    "--seed=1e3": (2, "invalid int value: '1e3'"), "more": (2, "unrecognized arguments: more"),
    "--seed=" + "9" * 5000: (2, "invalid int value"), "--seed=-1": (1, "--seed must be 0 or more"),
}


@EACH_SCRIPT
def test_help_lists_every_option_and_a_wrong_one_is_refused(path, folder, capsys, monkeypatch):
    script = load(path.stem)

    def call(flag):
        monkeypatch.setattr(sys, "argv", [path.name, flag])
        with pytest.raises(SystemExit) as caught:
            script.command_line(script.main)
        output = capsys.readouterr()
        return caught.value.code, output.out, output.err
    status, listed, _ = call("--help")
    assert status == 0 and path.stem[:2] in listed
    for name in inspect.signature(script.main).parameters:
        assert re.search(rf"--{name} [A-Z_]+\s+[^\s(]((?!\n  --).)*\(default:\s", listed, re.S)
    for flag, (status, sentence) in WRONG_FLAGS.items():
        code, _, said = call(flag)
        assert sentence in said if status == 2 else sentence in code
        assert status == 1 or code == 2
    assert os.listdir() == ["text.txt"]


def test_exit_codes(folder):
    for flag, (status, sentence) in WRONG_FLAGS.items():
        result = run("01_neuron.py", flag, folder=folder)
        assert result.returncode == status and sentence in result.stderr
        assert status == 2 or result.stderr.count("\n") == 1


def test_every_command_of_the_readme_runs(folder):
    """In their order, shortened by flags that come later, but for those with --resume."""
    Path("my.txt").write_text(TEXT * 2, encoding="utf-8")
    own_digits("folder")
    shorter = {"07": ["--data=folder", "--epochs=1", "--hidden=8", "--batch=8"],
               "08": ["--data=my.txt", "--merges=5", "--words=50", "--steps=5"],
               "11": ["--data=my.txt", "--steps=6", "--eval_every=3", "--batch=4", "--block=8",
                      "--tokens=20"]}
    commands = re.findall(r"(mpiexec -n \d )?python ([01]\d_\w+\.py)([^`|\n]*)", README)
    assert len(commands) > 9
    for mpi, script, flags in commands:
        if not mpi or shutil.which("mpiexec") and importlib.util.find_spec("mpi4py"):
            shutil.copy(HERE / script, folder)
            command = [*mpi.split(), sys.executable, script, *shlex.split(flags),
                       *([] if "--resume" in flags else shorter[script[:2]])]
            result = subprocess.run(command, capture_output=True, text=True, timeout=80)
            assert (result.returncode, result.stderr) == (0, ""), command


def test_a_text_in_other_letters_runs_on_an_ascii_console(folder):
    russian = "\u0411\u044b\u0442\u044c \u0438\u043b\u0438 \u043d\u0435\r\n"      # to be or not
    Path("text.txt").write_text(russian * 30, encoding="utf-8")
    result = run("11_gpt.py", "--data=text.txt", *TINY_FLAGS, folder=folder,
                 environment={"PYTHONIOENCODING": "ascii"})
    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot interrupt one process alone")
@EACH_SCRIPT
def test_ctrl_c_ends_in_one_line(path, tmp_path):
    """At the first line of output; 01 may be done before the signal comes."""
    shutil.copy(path, tmp_path)
    longer = ["--steps=5000"] * (path.stem == "01_neuron")
    with subprocess.Popen([sys.executable, "-u", path.name, *longer], cwd=tmp_path, text=True,
                          env=os.environ | OFFLINE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 or path.stem == "01_neuron"
    assert errors.strip().startswith("interrupted") or not process.returncode
    assert len(errors.strip().splitlines()) <= 1


@EACH_SCRIPT
def test_pasted_into_a_notebook_cell(path, folder, monkeypatch):
    """The cell runs main with its defaults, though sys.argv belongs to the kernel."""
    monkeypatch.setattr(sys, "argv", ["kernel.py", "-f", "/x/kernel.json"])
    calls = []

    def main(steps=3):
        """steps: how many"""
        calls.append(steps)
    cell = path.read_text(encoding="utf-8").removesuffix("command_line(main)\n")
    exec(cell + "command_line(spy)", {"__name__": "__main__", "spy": main})
    assert calls == [3]


def test_output_that_nobody_reads_to_its_end(folder):
    with endless_training(folder) as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(timeout=20) == 0


@pytest.mark.skipif(os.name == "nt", reason="the shell of Windows is another")
@pytest.mark.parametrize("script", ["01_neuron", "07_mnist", "11_gpt"])
@pytest.mark.parametrize("output, status, said", [
    (">&-", 0, ""), ("2>&- >&-", 0, ""), ("<&-", 0, ""), ("> file", 0, ""), ("| head -1", 0, ""),
    ("| true", 0, ""), (">/dev/full", 1, "error: [Errno 28] No space left on device\n")])
def test_output_that_goes_nowhere(script, output, status, said, folder):
    if "full" in output and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full here")
    shutil.copy(HERE / f"{script}.py", folder)
    own_digits("own")
    flags = {"07_mnist": ["--data=own", "--epochs=1", "--hidden=8", "--batch=8"],
             "11_gpt": ["--data=text.txt", *TINY_FLAGS]}.get(script, [])
    command = shlex.join([sys.executable, f"{script}.py", *flags])
    result = subprocess.run(["sh", "-c", f"{command} {output}"], capture_output=True, text=True,
                            timeout=80)
    assert (result.returncode, result.stderr) == (status, said)
