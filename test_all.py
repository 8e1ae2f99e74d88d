"""Tests of the whole course: every script runs alone, every gradient is right, every law holds.

    python -m pytest -q test_all.py         or, without any set-up, uv run test_all.py

First comes what holds for every script, then one section for each of them, at last what users
get wrong and the README. Nothing needs the network. Tests that need the real data are skipped
where data/ does not hold it.
"""
import ast, errno, gzip, hashlib, importlib.util, inspect, json, math, os, re, shlex, shutil
import signal, socket, stat, subprocess, sys, time, tracemalloc, zipfile
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

for threads in "OPENBLAS_NUM", "MKL_NUM", "OMP_NUM", "VECLIB_MAXIMUM":
    os.environ.setdefault(f"{threads}_THREADS", "1")    # on small matrices threads only wait

import numpy as np
import pytest

signal.signal(signal.SIGINT, signal.default_int_handler)    # a shell's background jobs ignore it
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

# A proxy that is a closed port of this machine: no test can reach the network, or waits for long.
OFFLINE = {f"{kind}_proxy": "http://127.0.0.1:9" for kind in ("http", "https")} | {"no_proxy": ""}

# On Apple Silicon NumPy's matmul gives false alarms (its issue 28687).
ALARMS = ["divide by zero", "overflow", "invalid value"] if sys.platform == "darwin" else []
ALARMS = [f"ignore:{alarm} encountered in matmul" for alarm in ALARMS]
STRICT = ["-W", "error", *(f"-W{alarm}" for alarm in ALARMS)]
if ALARMS:
    os.environ["PYTHONWARNINGS"] = ",".join(ALARMS)

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


(neuron, activations, matmul, backprop, autograd, optim, mnist, embed, lookup, blocks,
 gpt) = (load(path.stem) for path in SCRIPTS)

TINY = dict(steps=6, eval_every=3, batch=4, context=8, blocks=2, heads=2, channels=16, tokens=20)
QUICK = {                                   # arguments that make each script quick
    "01_neuron": {},
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


def run(script, *arguments, options=STRICT, **environment):
    """Run a copy of the script here, as a user would, with every warning an error."""
    shutil.copy(HERE / f"{script}.py", ".")
    return subprocess.run([sys.executable, *options, f"{script}.py", *arguments],
                          env=os.environ | OFFLINE | environment, capture_output=True,
                          stdin=subprocess.DEVNULL, encoding="utf-8", errors="replace", timeout=80)


def start(script, *arguments):
    """Start the script here, without a buffer for its output."""
    shutil.copy(HERE / f"{script}.py", ".")
    return subprocess.Popen([sys.executable, "-u", f"{script}.py", *arguments], text=True,
                            env=os.environ | OFFLINE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)


@pytest.fixture(autouse=True)
def the_same_numbers_in_any_order():
    RNG.bit_generator.state = np.random.default_rng(1).bit_generator.state


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with texts and images, made the working directory, without a network."""
    monkeypatch.chdir(tmp_path)
    for name, value in OFFLINE.items():
        monkeypatch.setenv(name, value)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    Path("long.txt").write_text(TEXT * 9, encoding="utf-8")
    own_digits("own")
    return tmp_path


def normal(*shape):
    return RNG.standard_normal(shape)


# ---- gradients: what all sections below check them with -----------------------------------------

def numeric_gradient(value, x, eps=1e-5):
    """Central differences of the number value() for each entry of the array x, moved in place."""
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


def check_gradients(Tensor, function, *arrays):
    """Of the function's result, weighted with random numbers, with respect to each array."""
    inputs = [Tensor(array) for array in arrays]
    result = function(*inputs)
    weights = normal(*result.data.shape)
    Tensor((result.data * weights).sum(), (result,), lambda g: (g * weights,)).backward()
    value = lambda: (function(*map(Tensor, arrays)).data * weights).sum()
    for x, array in zip(inputs, arrays):
        assert x.grad.shape == array.shape
        assert relative_error(x.grad, numeric_gradient(value, array)) < 1e-6


def spoiled(operation, factor):
    """The operation, with each of its gradients multiplied by the factor."""
    def wrong(*arguments, **options):
        result = operation(*arguments, **options)
        right = result.vjp
        result.vjp = lambda g: tuple(factor * gradient for gradient in right(g))
        return result
    return wrong


def by_name(layer, *names, **more):
    """The layer as a function of x and its weights, one by one, which it takes by name."""
    def function(x, *weights):
        return layer(x, {f"0.{name}": W for name, W in zip(names, weights)}, 0, **more)
    return function


def test_the_checks_of_this_file_notice_a_wrong_gradient():
    """And they notice nan, which Python's max would lose."""
    for factor in 1.01, math.nan:
        for operation, arrays in ((gpt.rms_norm, [normal(3, 4)]),
                                  (lambda z: gpt.cross_entropy(z, np.array([1, 2])),
                                   [normal(2, 3)])):
            check_gradients(gpt.Tensor, operation, *arrays)
            with pytest.raises(AssertionError):
                check_gradients(gpt.Tensor, spoiled(operation, factor), *arrays)


CHECKS_ON_THE_PAGE = [              # script, what is spoiled, what must notice it
    ("05_autograd", "Tensor.__add__", lambda m: m.check_operations(RNG)),
    ("05_autograd", "Tensor.__matmul__", lambda m: m.check_operations(RNG)),
    ("05_autograd", "cross_entropy", lambda m: m.check_operations(RNG)),
    ("07_mnist", "smoothed_cross_entropy", lambda m: m.check_smoothing(RNG)),
    ("08_embed", "embedding", lambda m: m.show_embedding(RNG)),
    ("08_embed", "skip_gram", lambda m: m.show_embedding(RNG)),
    ("09_attention", "attention", lambda m: m.check_attention(RNG)),
    ("09_attention", "rms_norm", lambda m: m.check_attention(RNG)),
    ("09_attention", "rotary", lambda m: m.check_attention(RNG)),
    ("09_attention", "self_attention", lambda m: m.check_attention(RNG)),
    ("10_block", "layer_norm", lambda m: m.check_parts(RNG)),
    ("10_block", "feed_forward", lambda m: m.check_parts(RNG)),
    ("10_block", "gelu_feed_forward", lambda m: m.check_parts(RNG)),
    ("10_block", "token_shift", lambda m: m.check_parts(RNG)),
]


@pytest.mark.parametrize("factor", [1.01, math.nan])
@pytest.mark.parametrize("script, name, check", CHECKS_ON_THE_PAGE)
def test_the_check_on_the_page_notices_a_wrong_gradient(script, name, check, factor, monkeypatch,
                                                        capsys):
    module = load(script)
    owner, _, attribute = name.rpartition(".")
    owner = getattr(module, owner) if owner else module
    monkeypatch.setattr(owner, attribute, spoiled(getattr(owner, attribute), factor))
    with pytest.raises(AssertionError):
        check(module)


@pytest.mark.parametrize("factor", [1.01, math.nan])
@pytest.mark.parametrize("script, name, spoil", [
    ("01_neuron", "gradient", lambda dw, db, factor: (factor * dw, db)),
    ("02_activations", "loss_and_gradients",
     lambda loss, gradients, factor: (loss, gradients | {"b1": factor * gradients["b1"]})),
    ("04_backprop", "backward",
     lambda *layers, factor: [(factor * layers[0][0], layers[0][1]), *layers[1:]])])
def test_the_check_on_the_page_notices_a_wrong_formula(script, name, spoil, factor, monkeypatch,
                                                       capsys):
    module = load(script)
    right = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *arguments: spoil(*right(*arguments), factor=factor))
    with pytest.raises(AssertionError):
        module.main(steps=1)


# ---- every script: laws -------------------------------------------------------------------------

def source(path):
    return path.read_text(encoding="utf-8")


def sections(path):
    """{header: the lines below it} of a script; what stands before the first has the header ""."""
    parts = re.split(r"(?m)^# ---- (.+?) -+$", source(path))
    return dict(zip(["", *parts[1::2]], parts[::2]))


def definitions(text):
    """{name: syntax tree, without docstrings} of functions, classes, constants, Class.method."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = ast.dump(node)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = ast.dump(node)
        if isinstance(node, ast.ClassDef):
            found[node.name] = ""
            found |= {f"{node.name}.{member.name}": ast.dump(member) for member in node.body
                      if isinstance(member, ast.FunctionDef)}
    return found


def test_the_same_name_is_the_same_code_in_all_files():
    seen = {}
    for path in SCRIPTS:
        for name, tree in definitions(source(path)).items():
            if name != "main" and not name.isupper():
                assert seen.setdefault(name, tree) == tree, f"{name} in {path.name} is another"


@EACH_SCRIPT
def test_has_the_common_shape(path):
    """Title, order of the sections, new code within 50 lines, last lines, width, ASCII."""
    text = source(path)
    tree = ast.parse(text)
    assert ast.get_docstring(tree).startswith(path.stem[:2] + "  ")
    kinds = [header.split(",")[0].split(":")[0].split(" from")[0]
             for header in sections(path) if header]
    order = ["new here", "the experiment", "carried", "plumbing"]
    assert kinds == sorted(kinds, key=order.index) and set(kinds) >= set(order) - {"carried"}
    assert min(node.lineno for node in tree.body
               if isinstance(node, (ast.FunctionDef, ast.ClassDef))) <= 50
    assert re.search(r'\nif __name__ == "__main__":\n    command_line\(main[^:]*\)\n$', text)
    assert max(map(len, text.splitlines())) <= 100 and text.isascii()
    metadata = re.search(r"(?m)^# /// script\n((?:# .+\n)+)# ///\n", text)[1]    # for uv and pipx
    assert metadata.splitlines() == ['# requires-python = ">=3.10"', '# dependencies = ["numpy"]']


def test_what_is_carried_is_said_and_true():
    """Of "Carried from  01: plot." it is true that plot is new in 01, and is here too.

    Plumbing is the same everywhere, and not listed.
    """
    first = {}
    for path in SCRIPTS:
        parts = sections(path)
        here = {name for header, text in parts.items() if not header.startswith("plumbing")
                for name in definitions(text) if "." not in name and name != "main"}
        said = ast.get_docstring(ast.parse(source(path))).partition("Carried from")[2]
        said = {name: number for number, names in re.findall(r"(\d\d)[^:.]*: ([\w,\s]+)", said)
                for name in re.findall(r"[A-Za-z_]\w+", names)}
        assert said == {name: first[name] for name in here if name in first
                        and not name.isupper()}, path.name
        for header, text in parts.items():
            if header.startswith("carried from"):
                sources = {first[name] for name in definitions(text) if "." not in name}
                assert sorted(sources) == re.findall(r"\d\d", header), path.name
        for name in here:
            first.setdefault(name, path.stem[:2])


@EACH_SCRIPT
def test_what_is_carried_or_imported_is_used(path):
    """Every import, and every function and method of the carried and plumbing sections."""
    tree = ast.parse(source(path))
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Load)}
    used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imported = {alias.asname or alias.name.split(".")[0] for node in tree.body
                if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names}
    carried = {name for header, text in sections(path).items()
               if header.startswith(("carried", "plumbing")) for name in definitions(text)}
    for name in imported | {name.split(".")[-1] for name in carried}:
        assert name in used or name.startswith("__"), f"{path.name} does not use {name}"


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


def test_plot_draws_what_is_finite_the_right_way_up():
    picture = neuron.plot({"x": ([0, 1, 2, 3], [0.0, 1.0, math.nan, math.inf]), "o": ([4], [2.0])},
                          width=5, height=3)
    assert picture.splitlines() == ["    2.000 |    o", "    1.000 | x   ", "    0.000 |x    ",
                                    "          +-----", "           0   4"]
    assert neuron.plot({"x": ([0], [math.nan])}) == "(no finite value to plot)"
    assert neuron.plot({"x": (range(3), [7, 7, 7])}).count("x") == 3


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
    head, call, tail = source(path).rpartition("    command_line(main")
    target = "Settings.__init__" if path.stem == "11_gpt" else "main"
    cell = f"{head}    shorten({target})\n{call}{tail}"
    exec(cell, names)
    exec(cell, names)
    once = capsys.readouterr().out
    exec("result = main()", names)
    assert isinstance(names["result"], dict) and len(once) > len(capsys.readouterr().out) > 100


def watch(cls):
    """The names of the methods of a class, and a set of those that are called from now on."""
    methods, called = set(), set()

    def watched(name, function):
        def method(*arguments, **options):
            called.add(name)
            return function(*arguments, **options)
        return method
    for name, member in list(vars(cls).items()):
        if isinstance(member, property):
            setattr(cls, name, property(watched(name, member.fget)))
        elif inspect.isfunction(member):
            setattr(cls, name, watched(name, member))
        else:
            continue
        methods.add(name)
    return methods, called


@EACH_SCRIPT
def test_numbers_from_numpy_and_paths(path, folder, capsys):
    """main(steps=np.int64(6)) and main(data=Path("my.txt")) work; each carried method is called."""
    script = load(path.stem)
    convert = {int: np.int64, float: np.float64, str: Path}
    arguments = {name: convert[type(value)](value) for name, value in QUICK[path.stem].items()}
    methods, called = watch(script.Tensor) if hasattr(script, "Tensor") else (set(), set())
    script.main(**arguments)
    called |= {"relu"} & methods                        # the default activation of 07's mlp
    assert called == methods or path.stem == "05_autograd"


@EACH_SCRIPT
def test_help_explains_every_option_and_a_wrong_one_is_refused(path, folder, capsys, monkeypatch):
    script = load(path.stem)

    def call(flag):
        monkeypatch.setattr(sys, "argv", [path.name, flag])
        with pytest.raises(SystemExit) as caught:       # as the last lines of the script do
            exec(source(path).rpartition("# ///\n")[2], vars(script) | {"__name__": "__main__"})
        output = capsys.readouterr()
        return caught.value.code, output.out, output.err
    status, listed, _ = call("--help")
    assert status == 0
    for name, parameter in inspect.signature(script.main).parameters.items():
        assert re.search(rf"--{name} [A-Z_]+\s+default:\s+{re.escape(repr(parameter.default))}",
                         listed)
        assert re.search(rf"(?m)^ *{name}  +\w+", script.main.__doc__), f"{name} is not explained"
        if type(parameter.default) is float:
            status, _, said = call(f"--{name}=nan")
            assert status == 2 and "below 1e9, not nan" in said
    for flag in "more", f"--{name[:-1]}=1", f"--{name}_=1":     # an abbreviation is none
        status, _, said = call(flag)
        assert status == 2 and f"unrecognized arguments: {flag}" in said


@pytest.mark.parametrize("flag, sentence", [
    ("--steps=one", "invalid int value: 'one'"), ("--steps=", "invalid int value: ''"),
    ("--steps=1.5", "invalid int value: '1.5'"), ("--steps=" + "9" * 5000, "invalid int value"),
    ("--steps=-1", "must be above 0 and below 1e9, not -1"),
    ("--steps=1000000000", "below 1e9, not 1000000000"), ("--lr=inf", "below 1e9, not inf"),
    ("--lr=0", "must be above 0 and below 1e9, not 0"), ("--noise=-1", "must be 0 or more")])
def test_the_one_rule_for_numbers(flag, sentence, folder):
    result = run("01_neuron", flag)
    assert result.returncode == 2 and sentence in result.stderr


def test_only_what_was_typed_reaches_main(monkeypatch):
    given = []

    def main(steps=3, lr=0.5, name="x", seed=0):
        """main"""

    def spy(**arguments):
        given.append(arguments)
    spy.__signature__ = inspect.signature(main)
    for typed, expected in (([], {}), (["--steps=3", "--name="], {"steps": 3, "name": ""}),
                            (["--seed=0", "--lr=1e-3"], {"seed": 0, "lr": 0.001})):
        monkeypatch.setattr(sys, "argv", ["01_neuron.py", *typed])
        neuron.command_line(spy)
        assert given.pop() == expected


@NOT_WINDOWS
@EACH_SCRIPT
def test_ctrl_c_ends_in_one_line(path, tmp_path, monkeypatch):
    """At the first line of output; 01 may be done before the signal comes."""
    monkeypatch.chdir(tmp_path)
    with start(path.stem, *(["--steps=5000"] * (path.stem == "01_neuron"))) as process:
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 or path.stem == "01_neuron"
    assert errors.strip().startswith("interrupted") or not process.returncode
    assert len(errors.strip().splitlines()) <= 1


@NOT_WINDOWS
@pytest.mark.parametrize("script", ["01_neuron", "07_mnist", "11_gpt"])
@pytest.mark.parametrize("output", [">&-", "2>&- >&-", "<&-", "> file", "| head -1", "| true"])
def test_output_that_goes_nowhere(script, output, folder):
    shutil.copy(HERE / f"{script}.py", folder)
    command = shlex.join([sys.executable, f"{script}.py", *flags(QUICK[script])])
    result = subprocess.run(["sh", "-c", f"{command} {output}"], capture_output=True, text=True,
                            timeout=80)
    assert (result.returncode, result.stderr) == (0, "")


def described(path, word):
    """What the docstring of a script says under Run, Expect or Try."""
    text = ast.get_docstring(ast.parse(source(path)))
    return re.search(rf"(?ms)^{word}  +(.*?)(?=^\w)", text)[1]


@EACH_SCRIPT
def test_every_line_of_try_runs(path, folder):
    """With what would take long shortened."""
    shutil.copy("long.txt", "my.txt")
    shutil.copytree("own", "FOLDER")
    if path.stem == "11_gpt":
        train(out="gpt.npz")
    tries = re.findall(r"--\w+=.*?(?=  |\n|$)", described(path, "Try"))
    assert tries
    long = {"06_optim": ["steps"], "07_mnist": ["epochs", "hidden"], "08_embed": ["merges"],
            "09_attention": ["steps"], "10_block": ["seeds"], "11_gpt": ["tokens"]}
    for tried in tries:
        typed = dict(flag.removeprefix("--").split("=", 1) for flag in shlex.split(tried))
        for name in long.get(path.stem, []):
            typed.pop(name, None)
        quick = {} if "resume" in typed else QUICK[path.stem]
        if path.stem == "09_attention":
            quick = quick | dict(pairs=3) if "pairs" not in typed else quick
        result = run(path.stem, *flags(quick | typed))
        assert (result.returncode, result.stderr) == (0, ""), tried


# ---- 01 to 04 -----------------------------------------------------------------------------------

def test_01_first_step_by_hand():
    """On the points (0, 1) and (1, 3), from w = b = 0: errors -1 and -3."""
    x, y = np.array([0.0, 1.0]), np.array([1.0, 3.0])
    assert neuron.mean_squared_error(x, y, 0, 0) == 5
    assert neuron.gradient(x, y, 0, 0) == (-3, -4)
    w, b, losses = neuron.gradient_descent(x, y, lr=0.1, steps=1)
    assert np.allclose([w, b, losses[0]], [0.3, 0.4, 5])


def test_01_knows_the_largest_rate():
    """The limit is 2/c with the curvature c = 2 mean(x^2), here 2 for x = 1 and -1."""
    x = np.array([1.0, -1.0])
    for lr, converges in (0.99, True), (1.01, False):
        _, _, losses = neuron.gradient_descent(x, 3 * x, lr, 100)
        assert (losses[-1] < losses[0]) == converges


def test_01_learns_the_conversion(capsys):
    result = neuron.main()
    assert np.allclose([result["w"], result["b"]], [1.8, 32])
    assert capsys.readouterr().out.count("it diverges") == 1
    assert 0.01 < neuron.main(noise=1.0)["loss"] < 5
    assert neuron.main(lr=1.01, steps=500)["loss"] > 1e6


def test_02_derivatives_by_hand():
    for name, f, slope in (("identity", 2, 1), ("relu", 2, 1), ("leaky", 2, 1),
                           ("tanh", 0.9640, 0.0707), ("sigmoid", 0.8808, 0.1050),
                           ("softplus", 2.1269, 0.8808), ("silu", 1.7616, 1.0908),
                           ("gelu", 1.9546, 1.0861)):
        pair = activations.ACTIVATIONS[name]
        assert np.allclose([g(np.array(2.0)) for g in pair], [f, slope], atol=1e-4)
        assert all(np.isfinite(g(np.array([-1e4, 1e4]))).all() for g in pair)


def test_02_the_network_of_the_docstring_computes_xor():
    weights = {"W1": np.ones((2, 2)), "b1": np.array([0.0, -1.0]),
               "W2": np.array([[1.0], [-2.0]]), "b2": np.zeros(1)}
    assert np.array_equal(activations.logits(weights, activations.XOR_X, "relu"), activations.XOR_Y)


def test_02_a_nonlinearity_is_needed(capsys):
    result = activations.main(steps=1000)
    assert max(result["accuracy"].pop("identity")) < 0.8
    assert all(scores == [1, 1] for scores in result["accuracy"].values())
    assert max(result["gradient_error"].values()) < 1e-6
    left = result["gradient_left"]                      # after 20 layers
    assert left["sigmoid"][-1] < 1e-9 < 1e-4 < left["relu"][-1] < left["tanh"][-1] < 0.5


def test_02_a_gradient_goes_back_through_the_last_layer_first():
    """The same two layers by hand: d = (e * f'(a2)) @ W2.T, and then with f'(a1) and W1."""
    found = activations.gradient_left(np.random.default_rng(0), "tanh", 2, width=2, samples=3)
    rng = np.random.default_rng(0)
    h, W1, W2, start = (rng.standard_normal(shape) for shape in ((3, 2), (2, 2), (2, 2), (3, 2)))
    W1, W2 = W1 / math.sqrt(2), W2 / math.sqrt(2)
    h1 = np.tanh(h @ W1)
    h2 = np.tanh(h1 @ W2)
    back = ((start * (1 - h2 ** 2)) @ W2.T * (1 - h1 ** 2)) @ W1.T
    assert np.isclose(found, np.linalg.norm(back) / np.linalg.norm(start))


@pytest.mark.parametrize("arguments", [dict(lr=5.0, steps=500), dict(lr=1e8)])
def test_02_divergence_is_a_row_of_the_table(arguments, folder):
    result = run("02_activations", *flags(QUICK["02_activations"] | arguments))
    assert (result.returncode, result.stderr) == (0, "") and "diverges" in result.stdout


def test_03_four_ways_by_hand():
    X, W, b = np.array([[1.0, 2.0], [0.0, 1.0]]), np.array([[3.0], [4.0]]), np.array([5.0])
    for way in (matmul.layer_by_numbers, matmul.layer_by_neurons, matmul.layer_by_examples,
                matmul.layer):
        assert way(X, W, b).tolist() == [[16], [9]]


def test_04_gradient_of_the_output_by_hand():
    """Probabilities 1/4 and 3/4 where the second class is right: da is 1/4 and -1/4."""
    z, y = np.log([[1.0, 3.0]]), np.array([1])
    net, h = [(np.zeros((2, 2)), np.zeros(2))], [np.array([[2.0, 0.0]])]
    [(dW, db)] = backprop.backward(net, h, z, y)
    assert np.allclose(db, [0.25, -0.25]) and np.allclose(dW, [[0.5, -0.5], [0, 0]])
    assert np.isclose(backprop.mean_loss(z + 1e4, y), -math.log(3 / 4))


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_04_gradients_at_any_depth(layers):
    X, y = normal(6, 2), np.array([0, 1, 2, 0, 1, 2])
    net = [(normal(*W.shape), normal(*b.shape))
           for W, b in backprop.init_net(RNG, [2] + [9] * (layers - 1) + [3])]
    value = lambda: backprop.mean_loss(backprop.forward(net, X)[1], y)
    for arrays, found in zip(net, backprop.backward(net, *backprop.forward(net, X), y)):
        for array, gradient in zip(arrays, found):
            assert relative_error(gradient, numeric_gradient(value, array)) < 1e-6


def test_04_learns_the_spiral(capsys):
    result = backprop.main(steps=300)
    assert result["accuracy"] > 0.99 and result["gradient_error"] < 1e-7
    assert "a" in capsys.readouterr().out.split("The points a")[1]


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
        assert found.shape == np.shape(expected) and np.allclose(found.data, expected)
    assert repr(autograd.Tensor([1.0, 2.0])) == "Tensor([1. 2.])"


@pytest.mark.filterwarnings("error")
def test_05_gradients_by_hand():
    for f, values, expected in (
            (lambda a: (a * 0.5).sum(), [[1, 2]], [[0.5, 0.5]]),        # whole numbers become real
            (lambda x: (x ** 0).sum(), [[0.0, 2.0]], [[0, 0]]),
            (lambda x: (x ** 1).sum(), [[0.0, 2.0]], [[1, 1]]),
            (lambda x: (x ** 2).sum(), [[0.0, 2.0]], [[0, 4]]),
            (lambda a, b: a @ b, [[1.0, 2.0], [3.0, 4.0]], [[3, 4], [1, 2]]),
            (lambda a, b: (a @ b).sum(), [[[1.0, 2], [3, 4]], [5.0, 6]],
             [[[5, 6], [5, 6]], [4, 6]]),
            (lambda a: (np.ones(2) @ a).sum(), [[[1.0, 2], [3, 4]]], [[[1, 1], [1, 1]]]),
            (lambda a: np.array([2.0, 3]) @ a, [[1.0, 1.0]], [[2, 3]]),
            (lambda a: (a.reshape((4,)) * [1.0, 2, 3, 4]).sum(), [[[1.0, 2], [3, 4]]],
             [[[1, 2], [3, 4]]])):
        inputs = [autograd.Tensor(value) for value in values]
        f(*inputs).backward()
        assert [x.grad.tolist() for x in inputs] == expected


@pytest.mark.parametrize("name", autograd.OPERATIONS)
def test_05_gradient_of(name):
    """Against differences in float64; and what is float32 stays float32."""
    function, *shapes = autograd.OPERATIONS[name]
    arrays = [normal(*shape) for shape in shapes]
    check_gradients(autograd.Tensor, function, *arrays)
    single = [autograd.Tensor(array.astype(np.float32)) for array in arrays]
    result = function(*single)
    result.sum().backward()
    assert {array.dtype for array in [result.data, *(x.grad for x in single)]} == {np.dtype("f4")}


def test_05_vectors_and_stacks_on_either_side_of_a_product():
    for a, b in (((3,), (3,)), ((3,), (3, 2)), ((4, 3), (3,)), ((3,), (5, 3, 2)), ((5, 4, 3), (3,)),
                 ((5, 4, 3), (3, 2)), ((4, 3), (5, 3, 2)), ((6, 5, 4, 3), (5, 3, 2))):
        check_gradients(autograd.Tensor, lambda a, b: a @ b, normal(*a), normal(*b))
        x = normal(*a)
        check_gradients(autograd.Tensor, lambda b: x @ b, normal(*b))


def test_05_expressions_with_the_values_that_pytorch_gives():
    """Two long expressions of + * ** / and relu; the values are those of PyTorch 2.13."""
    def first(x, y):
        z = x * y + x ** 2 - 3 * y
        q = (z.relu() + z * x) / (y ** 2 + 1)
        h = (q * q - 2 / x).relu() + 1.5 * q
        return (h + q + q * x) / 2

    def second(x, y):
        a = x + y
        b = x * y + y ** 3
        for _ in range(3):
            b = b + a.relu() * 0.5 - (b / 4) ** 2
            a = 1 - a * b / 10 + (-x).relu()
        return (a ** 2 + b / (1 + a * a) + 10 / (b * b + 2)).sum()
    for f, values, result, gradients in (
            (first, (-4.0, 2.0), 1.87, [-8.337499999999999, -10.062]),
            (first, (1.5, -0.7), 25.73586024653544, [48.990793707991145, 20.241809955353]),
            (second, (-4.0, 2.0), 13.150261675338314, [-3.086075004997981, 3.0909609139011436]),
            (second, (0.3, 1.2), 3.3744842929671646, [-0.06383875913999876, -0.189455658550791])):
        inputs = [autograd.Tensor(value) for value in values]
        y = f(*inputs)
        y.backward()
        assert np.isclose(y.data, result, rtol=1e-12)
        assert np.allclose([x.grad for x in inputs], gradients, rtol=1e-12)


@pytest.mark.parametrize("shift", [0, 1e4, -1e4])
def test_05_cross_entropy_by_hand(shift):
    logits = np.log([[1.0, 3.0], [1.0, 1.0]]) + [[shift], [-shift]]
    for loss in autograd.cross_entropy, autograd.cross_entropy_in_steps:
        found = loss(autograd.Tensor(logits), np.array([1, 0])).data
        assert np.isclose(found, -(math.log(3 / 4) + math.log(1 / 2)) / 2)


def test_05_a_graph_is_never_lost_in_silence():
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
    assert a.grad.tolist() == [4, 8]
    for again in y, y + 1:
        with pytest.raises(RuntimeError, match="released"):
            again.backward()
    assert a.grad.tolist() == [4, 8] and y.grad == 1
    single = autograd.Tensor(np.float32(3))             # stays float32 beside a float64
    for y in single ** np.float64(2), single * np.float64(2), single / np.float64(2):
        y.backward()
        assert y.data.dtype == single.grad.dtype == np.float32


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


@pytest.mark.parametrize("shape, stretch", [((8, 20), math.sqrt(20 / 8)), ((20, 8), 1)])
def test_06_muon_makes_every_direction_equally_long(shape, stretch):
    w, dw = normal(*shape), normal(*shape)
    before = w.copy()
    optim.muon(w, dw, {}, lr=0.5, decay=0.2)
    moved = np.linalg.svd((before * 0.9 - w) / 0.5 / stretch)[1]
    assert 0.6 < moved.min() and moved.max() < 1.3


def test_06_the_table_of_singular_values_on_the_page():
    """0.01 becomes 0.03, 0.12, 0.40, 1.09, 0.70, and so on."""
    rows = re.findall(r"#     ([\d.]+) +becomes (.*)", source(HERE / "06_optim.py"))
    assert len(rows) == 3
    for start, values in rows:
        G = np.diag([float(start), math.sqrt(1 - float(start) ** 2)])        # of norm 1
        found = [np.abs(optim.newton_schulz(G, steps)[0, 0]) for steps in range(1, 6)]
        assert [f"{value:.2f}" for value in found] == values.split(", ")


def test_06_schedules_by_hand():
    at = lambda schedule, *steps: [schedule(step, 100) for step in steps]
    assert at(optim.constant, 1, 20, 100) == [0.05, 1, 1]
    assert np.allclose(at(optim.cosine, 1, 20), [0.05, 1])
    assert np.isclose(optim.cosine(60, 99), 0.5) and optim.cosine(99, 99) < 0.001
    assert at(optim.warmup_linear, 1, 20, 100) == [0.05, 1, 1 / 81]
    for schedule in optim.SCHEDULES.values():           # also of a run shorter than the warm-up
        for steps in 1, 5, 40:
            assert all(0 < schedule(step, steps) <= 1 for step in range(1, steps + 1))


def test_06_clipping_keeps_the_direction():
    shortened = optim.clip([np.array([3.0]), np.array([[4.0]])], 1)
    assert np.allclose([g.item() for g in shortened], [0.6, 0.8])
    assert optim.clip([np.array([3.0])], 5)[0] == 3     # short enough as it is


def test_06_an_epoch_sees_each_example_once():
    batches = optim.minibatches(np.random.default_rng(0), 10, 5)
    first, second = (np.concatenate([next(batches), next(batches)]) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(10)) and list(first) != list(second)
    with pytest.raises(ValueError, match="50 examples do not fill a mini-batch of 60"):
        next(optim.minibatches(np.random.default_rng(0), 50, 60))


def test_06_the_gradient_of_the_valley():
    w = normal(2)
    value = lambda: optim.valley(w)[0]
    assert relative_error(optim.valley(w)[1], numeric_gradient(value, w)) < 1e-6
    assert optim.valley(optim.BOTTOM)[0] == 0


def test_06_what_the_page_says(capsys):
    result = optim.main(steps=100, seeds=1)
    assert max(result["valley"].values()) == result["valley"]["SGD"] < 0.5
    assert len(result["race"]) == 7 and len(result["singular_values"]) == 16
    assert max(result["race"]["Adam"], result["race"]["Muon"]) < result["race"]["SGD"]
    accuracy = result["initializations"]
    assert accuracy["zeros"] == accuracy["too small"] < 0.34 and accuracy["He"] > 0.9
    assert result["clipping"][0.3][0] < 0.3 < result["clipping"][math.inf][0]


# ---- 07 -----------------------------------------------------------------------------------------

def idx(array):
    """The bytes of an IDX file."""
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


def test_07_idx_by_hand():
    content = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 2, 7, 8, 9, 255])
    assert mnist.read_idx(content, "images").tolist() == [[[7, 8], [9, 255]]]
    assert mnist.read_idx(idx([3, 1]), "labels").tolist() == [3, 1]
    for wrong in (b"", b"\0\0\x08", idx([1, 2]), content[:-1], content + b"1", content[:9],
                  b"<html>502 Bad Gateway</html>", content.replace(b"\x08", b"\x0d", 1)):
        with pytest.raises(SystemExit, match="^error: images"):
            mnist.read_idx(wrong, "images")


def test_07_smoothed_targets_by_hand():
    """Logits ln 1, ln 9 and eight 0: the loss is that of the target 0.955 and nine times 0.005."""
    z, y = np.zeros((1, 10)), np.array([1])
    z[0, 1] = math.log(9)
    expected = -0.955 * math.log(9 / 18) - 9 * 0.005 * math.log(1 / 18)
    assert np.isclose(mnist.smoothed_cross_entropy(mnist.Tensor(z), y).data, expected)
    assert np.isclose(mnist.smoothed_cross_entropy(mnist.Tensor(z), y, 0).data, math.log(2))
    check_gradients(mnist.Tensor, lambda z: mnist.smoothed_cross_entropy(z, np.array([3, 0, 9, 3])),
                    normal(4, 10))


def test_07_error_bar_by_hand():
    """Of 98 images half are wrong: sqrt(1/4 / 98) is 5.05 %."""
    assert np.isclose(mnist.error_bar(49, 98), 100 * math.sqrt(0.25 / 98))
    assert mnist.error_bar(0, 10) > 0


def test_07_distortion():
    images = RNG.random((3, 784), dtype=np.float32)
    same = mnist.distort(np.random.default_rng(0), images, 0)
    assert same.dtype == np.float32 and np.array_equal(same, images)
    a, b, both = (mnist.distort(np.random.default_rng(0), x, 1.0)
                  for x in (images, images[::-1], images + images[::-1]))
    assert np.allclose(a + b, both, atol=1e-5) and not np.allclose(a, images, atol=0.1)
    dot = np.zeros((28, 28), np.float32)
    dot[13:15, 13:15] = 1
    moved = [mnist.distort(RNG, dot.reshape(1, 784))[0] for _ in range(200)]
    middle = [mnist.GRID @ image / image.sum() for image in moved]
    assert np.abs(np.mean(middle, 0)).max() < 0.5 < np.std(middle, 0).min() < 2


def test_07_stays_float32_and_is_the_same_twice(folder, capsys, monkeypatch):
    nets, init = [], mnist.init_digit_net
    monkeypatch.setattr(mnist, "init_digit_net", lambda *a: nets.append(init(*a)) or nets[-1])
    results = [mnist.main(data="own", hidden=8, batch=10, epochs=20, seed=seed)
               for seed in (0, 0, 1)]
    assert results[0]["test_accuracy"] > 0.5 and results[0]["confusion"].sum() == 24
    nets = [[array for layer in net for array in layer] for net in nets]
    assert all(map(np.array_equal, nets[0], nets[1])) and not np.array_equal(nets[0][0], nets[2][0])
    assert {array.dtype for array in nets[0]} == {np.dtype(np.float32)}
    images = mnist.to_float(np.array([0, 255], np.uint8))
    assert images.tolist() == [0, 1] and images.dtype == np.float32
    assert "test accuracy" in capsys.readouterr().out.splitlines()[-2]


def test_07_drawn_digits_can_be_learned(folder, capsys, monkeypatch):
    monkeypatch.setattr(mnist, "download", lambda *_: None)
    before = sorted(os.listdir())
    result = mnist.main(epochs=4, hidden=128, batch=64)
    assert result["test_accuracy"] > 0.85 and len(result["held_out"]) == 4
    assert "drawn digits instead" in capsys.readouterr().out
    assert sorted(os.listdir()) == before               # nothing is left behind


def test_07_files_of_ones_own_in_data(folder, capsys):
    """Other images under MNIST's names, such as Fashion-MNIST's, packed and not, are used."""
    own_digits("data")
    before = {path: path.read_bytes() for path in Path("data").iterdir()}
    assert mnist.main(hidden=8, batch=10, epochs=1)["confusion"].sum() == 24
    said = capsys.readouterr().out
    assert said.count("is not the original file; it is used as it is") == 4
    assert before == {path: path.read_bytes() for path in Path("data").iterdir()}


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
    strange = ["", "aaaaa", "\0\t\r\n\x7f", "\u0645\u0631\u062d", "\u6f22\u5b57",  # Arabic, Chinese
               "\ufeff\U0010ffff", "\U0001f469\u200d\U0001f680"]              # an emoji of three
    points = [np.setdiff1d(RNG.integers(0x110000, size=9), range(0xd800, 0xe000)) for _ in "x" * 99]
    texts = strange + ["".join(map(chr, code)) for code in points] + [TEXT, TEXT[::-1]]
    merges, tokens = embed.learn_merges(" ".join(texts), 200)
    assert len(merges) == 200
    for text in texts:
        ids = embed.encode_bytes(text, merges)
        assert embed.decode_bytes(ids, tokens) == text
        assert b"".join(tokens[i] for i in ids) == text.encode()
        assert "".join(embed.split_words(text)) == text
    assert not any(token[i:i + 1].isspace() for token in tokens for i in range(1, len(token)))
    assert embed.decode_bytes([0xf0, 97], tokens) == "\ufffda"


@pytest.mark.parametrize("ids", [[1, 3, 1, 1], [[1, 3, 1], [0, 1, 4]]])
def test_08_embedding_picks_rows_and_adds_their_gradients(ids):
    ids, W = np.array(ids), normal(5, 3)
    assert np.array_equal(embed.embedding(embed.Tensor(W), ids).data, W[ids])
    check_gradients(embed.Tensor, lambda W: embed.embedding(W, ids), W)


def test_08_skip_gram_by_hand():
    """Scores 0 and ln 3: neighbours cost ln 2 and ln(4/3), random words ln 4, five times."""
    w, u, n = (embed.Tensor(np.array(x)) for x in ([[1.0], [1.0]], [[0.0], [math.log(3)]],
                                                   [[math.log(3)]]))
    expected = (math.log(2) + math.log(4 / 3)) / 2 + 5 * math.log(4)
    assert np.isclose(embed.skip_gram(w, u, n).data, expected)
    check_gradients(embed.Tensor, embed.skip_gram, normal(3, 4), normal(3, 4), normal(5, 4))


def test_08_words_with_the_same_neighbours_become_similar(capsys):
    """0 and 1 stand between two 2, 3 and 4 between two 5."""
    phrases = np.array([[2, 0, 2], [2, 1, 2], [5, 3, 5], [5, 4, 5]])
    ids = phrases[RNG.integers(4, size=2000)].ravel()
    W = embed.train_word_vectors(np.random.default_rng(0), ids, 6, 8, 200, 0.05, reach=1)
    cosines = embed.similarity(W) - 2 * np.eye(6)
    assert cosines.argmax(1)[[0, 1, 3, 4]].tolist() == [1, 0, 4, 3] and W.dtype == np.float32


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
        assert set(result["nearest"][word]) & set(others.split())
    lengths = [length for _, length in result["tokens"].values()]
    assert 1.3 < result["tokens"]["bytes, 50 merges"][1] < max(lengths) < 5
    assert result["changes"]["sinusoidal"] < 1e-12


# ---- 09 -----------------------------------------------------------------------------------------

def test_09_attention_by_hand():
    """The scores 0 and ln 3 make the weights 1/4, 3/4; for dY = [0, 1] in row 2, dS is 3/16 * 8."""
    Q, K = np.array([[1.0, 0.0], [0.0, math.sqrt(2) * math.log(3)]]), np.eye(2)
    V, dY = np.array([[4.0, 0.0], [0.0, 8.0]]), np.array([[0.0, 0.0], [0.0, 1.0]])
    A = lookup.attention_weights(Q, K)
    assert np.allclose(A, [[1, 0], [0.25, 0.75]]) and A[0, 1] == 0          # exactly
    q, k, v = (lookup.Tensor(x.reshape(1, 2, 1, 2)) for x in (Q, K, V))
    y = lookup.attention(q, k, v)
    assert np.allclose(y.data.reshape(2, 2), [[4, 0], [1, 6]])
    (y * dY.reshape(1, 2, 1, 2)).sum().backward()
    dS = 0.75 * 0.25 * 8 / math.sqrt(2)
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
    q, k = normal(2, 1, 1, 1, 8)
    at = lambda x, t: lookup.rotary(lookup.Tensor(x), t).data
    score = lambda t, s: (at(q, t) * at(k, s)).sum()
    assert np.isclose(score(3, 1), score(103, 101), rtol=1e-9)          # it knows distances only
    assert not np.isclose(score(3, 1), score(3, 2))


QKVO = "query", "key", "value", "out"


@pytest.mark.parametrize("function, shapes", [
    (lookup.attention, [(2, 5, 2, 4)] * 3),
    (lambda *qkv: lookup.attention(*qkv, causal=False), [(2, 5, 2, 4)] * 3),
    (lookup.attention, [(2, 2, 2, 4), (2, 5, 2, 4), (2, 5, 2, 4)]),         # fewer queries
    (lambda q, k, v: lookup.attention(q + 30, k + 30, v), [(1, 3, 1, 2)] * 3),  # large scores
    (by_name(lookup.self_attention, *QKVO, heads=2), [(2, 5, 8)] + [(8, 8)] * 4),
    (lookup.rotary, [(2, 3, 2, 4)]), (lambda x: lookup.rotary(x, 7), [(2, 3, 2, 4)]),
    (lookup.rms_norm, [(3, 4)]), (lookup.rms_norm, [(2, 3, 2, 4)])])
def test_09_gradients(function, shapes):
    check_gradients(lookup.Tensor, function, *(normal(*shape) / 2 for shape in shapes))


def test_09_attention_weights_sum_to_one_and_survive_any_score():
    q, k = (lookup.Tensor(x) for x in normal(2, 2, 6, 2, 4))
    ones = lookup.Tensor(np.ones((2, 6, 2, 4)))
    assert np.allclose(lookup.attention(q, k, ones).data, 1)
    huge = (lookup.Tensor(x.astype(np.float32)) for x in normal(3, 2, 6, 2, 4) * 1e4)
    assert np.isfinite(lookup.attention(*huge).data).all()


@pytest.mark.parametrize("questions", [1, 2])
def test_09_questions_have_answers(questions):
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
    assert result["accuracy"]["attention_layer"] > 0.99 > 0.2 > result["accuracy"]["mean_layer"]
    assert min(result["two_questions"][1]) < 0.3 and min(result["two_questions"][2]) > 0.9
    scaled, unscaled = zip(*result["scaling"].values())
    assert min(scaled) > 3.5 and unscaled[-1] < 0.3
    assert result["facts"]["leak"] == 0 and result["facts"]["other distance"] > 0.01
    picture = capsys.readouterr().out.split("attends to")[1].splitlines()[3:11]
    for i, line in enumerate(picture):                  # the darkest mark is on the diagonal
        marks = [" .:-=+*#%@".index(line[7 + 4 * j]) for j in range(8)]
        assert marks.index(max(marks)) == i and marks[i] > 5


# ---- 10 -----------------------------------------------------------------------------------------

def test_10_layer_norm_by_hand():
    y = blocks.layer_norm(*map(blocks.Tensor, ([[1.0, 3.0]], [2.0, 2.0], [1.0, 1.0])), eps=0)
    assert np.allclose(y.data, [[-1, 3]])
    x, gain, bias = normal(6, 5), blocks.Tensor(np.ones(5)), blocks.Tensor(np.zeros(5))
    inputs = blocks.Tensor(x)                           # shifting and scaling change nothing
    y = blocks.layer_norm(inputs, gain, bias, eps=0)
    assert np.allclose(blocks.layer_norm(blocks.Tensor(3 * x + 5), gain, bias, eps=0).data, y.data)
    (y * normal(6, 5)).sum().backward()
    assert np.abs(inputs.grad.sum(1)).max() < 1e-12 > np.abs((inputs.grad * y.data).sum(1)).max()


def test_10_token_shift_by_hand():
    x, params, cache = blocks.Tensor([[[1.0], [2.0]]]), {"0.mix": blocks.Tensor([10.0])}, {}
    assert blocks.token_shift(x, params, 0).data.ravel().tolist() == [1, 2 + 10]
    assert blocks.token_shift(x, params, 0, cache).data.ravel().tolist() == [1, 12]
    assert blocks.token_shift(x, params, 0, cache).data.ravel().tolist() == [1 + 20, 12]


@pytest.mark.parametrize("function, shapes", [
    (blocks.layer_norm, [(3, 4), (4,), (4,)]), (blocks.layer_norm, [(2, 3, 2, 4), (4,), (4,)]),
    (by_name(blocks.feed_forward, "up", "down"), [(2, 3, 4), (4, 6), (6, 4)]),
    (by_name(blocks.gelu_feed_forward, "up", "down"), [(2, 3, 4), (4, 6), (6, 4)]),
    (by_name(blocks.token_shift, "mix"), [(2, 4, 3), (3,)]),
    (by_name(blocks.block, *QKVO, "mix", "up", "down", heads=2),
     [(2, 5, 8)] + [(8, 8)] * 4 + [(8,), (8, 12), (12, 8)]),
    (by_name(blocks.gpt2_block, *QKVO, "gain1", "bias1", "gain2", "bias2", "up", "down", heads=2),
     [(2, 5, 8)] + [(8, 8)] * 4 + [(8,)] * 4 + [(8, 12), (12, 8)])])
def test_10_gradients(function, shapes):
    check_gradients(blocks.Tensor, function, *(normal(*shape) / 2 for shape in shapes))


def test_10_its_stack_is_the_gpt_of_11():
    weights, ids = random_weights(7, 16, np.float64), RNG.integers(7, size=(2, 9))
    stack = blocks.transformer(blocks.as_tensors(weights), ids, blocks.block, 2, 2)
    assert np.array_equal(stack.data, gpt.gpt(gpt.as_tensors(weights), ids, 2, 2).data)


def test_10_rows_by_hand():
    rows = blocks.sorting_batch(RNG, 3, 4)
    assert rows.shape == (3, 9) and (rows[:, 4] == 10).all() and rows[:, :4].max() < 10
    assert rows[:, 5:].tolist() == [sorted(row) for row in rows[:, :4].tolist()]


def test_10_what_the_page_says(capsys):
    result = blocks.main(channels=16, digits=4, steps=2)
    sizes, gradients, cosines = zip(*(result["depth"][kind.__name__, 48] for kind in blocks.STACKS))
    neither, residuals, norm, post, pre = (size[-1] for size in sizes)
    assert neither < 1e-10 and residuals > 1e6
    assert all(0.1 < size < 20 for size in (norm, post, pre))
    assert gradients[0] < 1e-10 and gradients[1] > 1e6 and all(0.01 < g < 20 for g in gradients[2:])
    assert max(cosines) < 1 + 1e-9 and cosines[4] < 0.9 < 0.95 < min(cosines[:4])
    assert set(result["sorted"]) == {kind.__name__ for kind in blocks.VARIANTS}


def test_10_two_blocks_learn_to_sort():
    learn = lambda kind: blocks.train_sorting(0, kind, 3, 2, 2, 32, 150, 0.01)
    weights, _, accuracy = learn(blocks.gpt2_block)
    assert accuracy > 0.9 and learn(blocks.without_attention)[2] < 0.1
    assert {w.dtype for w in weights.values()} == {np.dtype(np.float32)}
    row = np.array([7, 0, 4, 10, 0, 4, 7])
    assert blocks.write_sorted(weights, row, blocks.gpt2_block, 2, 2) == "704=047"


def test_10_divergence_is_a_row_of_the_table(folder):
    result = run("10_block", *flags(QUICK["10_block"] | dict(lr=9e8)))
    assert (result.returncode, result.stderr) == (0, "") and "nan" in result.stdout


# ---- 11: the model and its training -------------------------------------------------------------

def train(**changes):
    """11's main at tiny size; it keeps nothing, unless out names a file."""
    return gpt.main(**{"data": "text.txt", "out": ""} | TINY | changes)


def state_of(path):
    """The state in a checkpoint."""
    return gpt.load(path)[0]


def steps_in(pattern="*.npz"):
    """{file name: steps that its run has made} of the checkpoints here."""
    return {path.name: len(state_of(path).losses) for path in Path().glob(pattern)}


def same_run(a, b):
    """Whether two checkpoints agree to the last bit."""
    with np.load(a) as a, np.load(b) as b:
        return a.files == b.files and all(np.array_equal(a[key], b[key]) for key in a.files)


def random_weights(V, C, dtype):
    """Weights of two layers at O(1): the zeros of a real start would hide mistakes."""
    return {name: RNG.standard_normal(w.shape).astype(dtype) * 0.7
            for name, w in gpt.init_weights(RNG, V, C, blocks=2).items()}


def test_11_gradient_of_the_whole():
    weights, rows = random_weights(5, 8, np.float64), RNG.integers(5, size=(2, 6))
    _, found = gpt.gradients(weights, rows, blocks=2, heads=2)
    value = lambda: gpt.loss_on(gpt.as_tensors(weights), rows, 2, 2).data.item()
    for name, w in weights.items():
        assert relative_error(found[name], numeric_gradient(value, w)) < 1e-6, name


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
    arrays = [gpt.gpt(gpt.as_tensors(state.weights), ids, 2, 2).data, *state.weights.values(),
              *state.best.values(), *gpt.gradients(state.weights, ids, 2, 2)[1].values(),
              *(memory[part] for memory in state.optimizer.values() for part in memory
                if part != "t")]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert state.losses[-1] < state.losses[0] - 0.5


def test_11_memory_stays_flat():
    weights, rows, peaks = random_weights(5, 16, np.float32), RNG.integers(5, size=(4, 17)), []
    gpt.gradients(weights, rows, 2, 2)
    tracemalloc.start()
    for steps in 5, 50:
        tracemalloc.reset_peak()
        for _ in range(steps):
            gpt.gradients(weights, rows, 2, 2)
        peaks.append(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]


def test_11_an_epoch_shows_every_character_once():
    ids, settings = np.arange(100), gpt.Settings(**TINY | dict(batch=2))     # rows of 8
    take = lambda n, *how: list(islice(gpt.batches(ids, settings, *how), n))
    starts = list(islice(gpt.shuffled_starts(100, 8, 0), 22))
    first = min(starts[:11])
    assert sorted(starts[:11]) == list(range(first, first + 88, 8)) != starts[:11]
    assert len(set(starts)) == 22               # the next epoch cuts at other places
    rows = take(400, 0)
    assert np.array_equal(rows[0], ids[np.array(starts[:2])[:, None] + np.arange(9)])
    assert (np.min(rows), np.max(rows)) == (0, 99)
    assert np.array_equal(rows[7:], take(393, 7))          # resumed after 7 steps
    assert np.array_equal(take(9, 0, 1, 2)[7:], take(2, 7, 1, 2))
    both = zip(take(200, 0, 0, 2), take(200, 0, 1, 2))      # the shares of two processes
    assert np.array_equal(rows, [part for parts in both for part in parts])


def test_11_a_long_text_is_validated_in_part(monkeypatch):
    weights, settings = random_weights(3, 16, np.float32), gpt.Settings(**TINY)
    ids = np.concatenate([np.zeros(4000, int), np.ones(4000, int)])     # two halves
    monkeypatch.setattr(gpt, "VALIDATION", 400)
    seen = []
    monkeypatch.setattr(gpt, "loss_on", lambda params, rows, *_: seen.append(rows)
                        or gpt.Tensor(float(rows.mean())))
    with gpt.ThreadPoolExecutor(1) as pool:
        loss = gpt.evaluate(weights, ids, settings, pool)
    assert sum(rows[:, 1:].size for rows in seen) == 400 and abs(loss - 0.5) < 0.03


def test_11_overfitting_is_named_and_rising_losses_are_not(folder, capsys, monkeypatch):
    losses = iter([4.5, 4.0, 3.0, 3.5])                 # after steps 1, 4, 8 and 12
    monkeypatch.setattr(gpt, "evaluate", lambda *_: next(losses))
    result = train(steps=12, eval_every=4)
    said = capsys.readouterr().out
    assert "The best validation loss is 3.0000, after step 8" in said and "overfitted" in said
    assert (result["val_loss"], result["best_val_loss"]) == (3.5, 3.0)
    gpt.show(gpt.State("", 8, "abcde", gpt.init_weights(RNG, 5, 16, 2), {},
                       losses=[1.0, 2.0, 3.0], validation=[[1, 1.0], [3, 3.0]]))
    assert "A lower --lr helps" in capsys.readouterr().out


def test_11_the_best_weights_are_kept_and_write(folder, monkeypatch):
    """The sample beside a validation is from the weights just measured, the text from the best."""
    losses, used = iter([1.0, 2.0]), []
    monkeypatch.setattr(gpt, "evaluate", lambda *_: next(losses))
    monkeypatch.setattr(gpt, "sample", lambda weights, *_: used.append(weights) or "")
    train(steps=6, eval_every=3, out="a.npz")
    best = state_of("a.npz").best["embed"]
    assert used[0] is used[1] and not np.array_equal(used[1]["embed"], best)
    assert np.array_equal(used[2]["embed"], best)


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
    monkeypatch.setattr(gpt, "split_rows", lambda rows, shard=0: np.split(rows, len(rows)))


def test_11_same_seed_same_run_whatever_the_threads(folder, small_shards):
    for name, threads, seed in (("one", 1, 0), ("three", 3, 0), ("other", 1, 1)):
        train(threads=threads, seed=seed, out=name)
    assert same_run("one", "three")
    assert not np.array_equal(*(state_of(name).weights["embed"] for name in ("one", "other")))


def test_11_shards_are_equal_in_size_and_add_up_to_the_batch():
    """512 characters each, or one row."""
    for B, T, shards in ((32, 128, 8), (16, 64, 2), (3, 1000, 3), (7, 100, 7), (6, 100, 2)):
        parts = gpt.split_rows(np.zeros((B, T + 1)))
        assert len(parts) == shards and len({part.shape for part in parts}) == 1
    with gpt.ThreadPoolExecutor(2) as pool:
        assert gpt.check_shards(gpt.Settings(), pool) < 1e-12


def test_11_a_thread_for_each_core_that_has_work(folder, small_shards, monkeypatch, capsys):
    """In a notebook BLAS has the cores already, unless threadpoolctl takes them from it."""
    cores = lambda n: monkeypatch.setattr(gpt.os, "sched_getaffinity", lambda _: range(n),
                                          raising=False)
    monkeypatch.setattr(gpt, "ONE_BLAS_THREAD", True)
    for n, threads in ((1, 1), (3, 3), (16, 4)):        # there are four rows in a tiny batch
        cores(n)
        train()
        assert f"on {threads} thread{'s' * (threads > 1)}." in capsys.readouterr().out
    monkeypatch.setattr(gpt, "ONE_BLAS_THREAD", False)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    train()
    assert "on 1 thread." in capsys.readouterr().out
    limits = []

    class Limits:
        def __init__(self, limit):
            limits.append(limit)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            limits.append("restored")
    monkeypatch.setitem(sys.modules, "threadpoolctl", SimpleNamespace(threadpool_limits=Limits))
    cores(3)
    train()
    assert limits == [1, "restored"] and "on 3 threads." in capsys.readouterr().out


def test_11_gives_blas_one_thread_whatever_the_shell_says(monkeypatch):
    """A cell that is run twice keeps its threads: the second time finds what the first one set."""
    code = "import os, runpy; runpy.run_path('11_gpt.py'); print(os.environ['MKL_NUM_THREADS'])"
    told = subprocess.run([sys.executable, "-c", code], cwd=HERE, capture_output=True, text=True,
                          env=os.environ | {"MKL_NUM_THREADS": "16"}, timeout=80)
    assert told.stdout == "1\n"
    head = source(HERE / "11_gpt.py").partition("import numpy as np")[0].rpartition("BLAS = (")
    for before, expected in (("1", True), ("8", False)):
        for name in gpt.BLAS:
            monkeypatch.setenv(name, before)
        names = {}
        exec("import os, sys\n" + "".join(head[1:]), names)
        assert names["ONE_BLAS_THREAD"] == expected


def test_11_trains_in_a_thread_that_is_not_the_main_one(folder):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train).result()["steps"] == 6


@NEEDS_MPI
@pytest.mark.parametrize("ranks", [2, 4])
def test_11_processes_equal_one_with_all_their_batches(ranks, folder):
    shutil.copy(HERE / "11_gpt.py", folder)
    alone = [sys.executable, "11_gpt.py", *flags(QUICK["11_gpt"]), "--steps=20"]
    for command in ([*alone, "--batch=8", "--out=one.npz"],
                    ["mpiexec", "-n", str(ranks), *alone, f"--batch={8 // ranks}",
                     "--out=many.npz"]):
        subprocess.run(command, check=True, capture_output=True, timeout=80)
    one, many = state_of("one.npz").losses, state_of("many.npz").losses
    assert len(one) == 20 and np.abs(np.subtract(one, many)).max() < 1e-4


@NEEDS_MPI
@pytest.mark.parametrize("flag, sentence", [
    ("--out=absent/x.npz", "cannot write absent/x.npz"), ("--lr=1e8", "the training diverges"),
    ("--data=absent.txt", "cannot read absent.txt")])
def test_11_if_one_process_fails_all_end(flag, sentence, folder):
    shutil.copy(HERE / "11_gpt.py", folder)
    result = subprocess.run(["mpiexec", "-n", "2", sys.executable, "11_gpt.py",
                             *flags(QUICK["11_gpt"]), "--steps=200", flag],
                            capture_output=True, text=True, timeout=40)
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
        assert steps_in("parts.npz") == {"parts.npz": 10}
        capsys.readouterr()
        parts = gpt.main(resume="parts.npz", **again)   # into its own file
        assert parts["steps"] == 20 and parts["sample"] == whole["sample"]
        assert same_run("whole.npz", "parts.npz") and "note" not in capsys.readouterr().out
        Path("parts.npz").unlink()


def test_11_ten_steps_and_ten_more_are_twenty(folder, capsys):
    train(steps=10, out="parts.npz")                    # all within the warm-up
    gpt.main(resume="parts.npz", tokens=5)
    assert "10 steps are made already, and --steps=10 asks for no more" in capsys.readouterr().out
    gpt.main(resume="parts.npz", steps=20, tokens=0)
    train(steps=20, out="whole.npz")
    parts, whole = state_of("parts.npz"), state_of("whole.npz")
    assert parts.losses == whole.losses
    assert all(np.array_equal(parts.weights[name], whole.weights[name]) for name in whole.weights)


def test_11_resuming_hears_what_equals_a_default(folder):
    """--steps=1000 after a run of fewer steps goes on; so does any value that is typed."""
    train(steps=6, lr=0.05, out="a.npz")
    result = gpt.main(resume="a.npz", steps=1000, stop=9, lr=0.03, tokens=0)
    assert result["steps"] == 9
    assert gpt.load("a.npz")[1]["lr"] == 0.03 and gpt.load("a.npz")[1]["steps"] == 1000
    runs = [gpt.main(resume="a.npz", out="", stop=12, tokens=50, seed=seed) for seed in (0, 1, 1)]
    for name in "train_loss", "sample":                 # another seed, other batches
        assert runs[0][name] != runs[1][name] == runs[2][name]


def test_11_another_text_or_context_discards_what_does_not_compare(folder, capsys):
    Path("other.txt").write_text(TEXT[::-1], encoding="utf-8")
    for changed in {"data": "other.txt"}, {"context": 6}:
        train(steps=12, eval_every=5, stop=7, out="a.npz")
        assert "after 5 steps," in capsys.readouterr().out
        gpt.main(resume="a.npz", stop=9, tokens=20, out="b.npz", **changed)
        said = capsys.readouterr().out
        assert "another text or context length" in said
        assert "no validation yet after 9 steps" in said
        state = state_of("b.npz")
        assert len(state.losses) == 9 and not state.validation and not state.best
    Path("fewer.txt").write_text(TEXT.replace("q", "t"), encoding="utf-8")  # fewer characters
    assert gpt.main(resume="a.npz", data="fewer.txt", stop=10, tokens=0)["steps"] == 10


def test_11_an_earlier_run_is_never_lost(folder, capsys):
    train(out="gpt.npz", steps=20)
    train(out="gpt.npz")                                # a fresh run in the same folder
    assert "gpt.npz holds another run" in capsys.readouterr().out
    assert steps_in() == {"gpt.1.npz": 20, "gpt.npz": 6}
    train(out="a.npz")
    gpt.main(resume="a.npz", out="gpt.npz", steps=9, tokens=0)      # over another run
    gpt.main(resume="gpt.npz", steps=12, tokens=0)                  # over itself
    assert steps_in() == {"a.npz": 6, "gpt.1.npz": 20, "gpt.2.npz": 6, "gpt.npz": 12}


def test_11_two_runs_in_one_folder_keep_both(folder, monkeypatch, capsys):
    """While one trains, the other saves in the same file."""
    real, other = gpt.validate, []

    def validate(state, *arguments):
        if len(state.losses) == 6 and not other:
            other.append("starts")
            train(out="gpt.npz", steps=9)
        return real(state, *arguments)
    monkeypatch.setattr(gpt, "validate", validate)
    train(out="gpt.npz", steps=12)
    assert "another run writes gpt.npz, so this one goes on in gpt.2.npz" in capsys.readouterr().out
    assert steps_in() == {"gpt.npz": 9, "gpt.1.npz": 3, "gpt.2.npz": 12}


def test_11_a_run_that_saves_while_its_file_is_read_is_not_lost(folder, monkeypatch):
    train(out="a.npz", steps=3)
    real = gpt.check_state

    def check_state(*arguments):
        monkeypatch.setattr(gpt, "check_state", real)
        gpt.main(resume="a.npz", steps=20, tokens=0)
        return real(*arguments)
    monkeypatch.setattr(gpt, "check_state", check_state)
    gpt.main(resume="a.npz", steps=6, tokens=0)
    assert steps_in() == {"a.npz": 6, "a.1.npz": 20}


@NOT_WINDOWS
def test_11_files_are_kept_whole(folder, monkeypatch):
    """Behind a link, with their permissions, and in a .part that no other run writes to."""
    os.mkdir("disk")
    Path(f"a.npz.{os.getpid()}.part").write_bytes(b"half")          # of a run that was killed
    train(out="a.npz", steps=3)
    assert not list(Path().glob("*.part"))
    os.rename("a.npz", "disk/real.npz")
    os.chmod("disk/real.npz", 0o600)
    os.symlink("disk/real.npz", "link.npz")
    train(out="link.npz")
    assert Path("link.npz").is_symlink() and steps_in("disk/*") == {"real.npz": 6, "real.1.npz": 3}
    Path("real").write_bytes(b"old")
    os.chmod("real", 0o600)
    gpt.write_file("real", b"new")
    assert stat.S_IMODE(os.stat("real").st_mode) == 0o600
    parts = []

    def full(_):
        parts.extend(os.listdir())
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(gpt.os, "fsync", full)
    with pytest.raises(OSError):
        gpt.write_file("real", b"newer")
    assert Path("real").read_bytes() == b"new" and f"real.{os.getpid()}.part" in parts
    assert not list(Path().glob("*.part"))


def test_11_that_out_can_be_written_is_found_out_without_touching_it(folder):
    train(out="a.npz")
    before = Path("a.npz").read_bytes(), os.stat("a.npz").st_mtime_ns, os.listdir()
    for path in ("a.npz", "new.npz"):
        gpt.check_out(None, gpt.Settings(out=path))
    assert before == (Path("a.npz").read_bytes(), os.stat("a.npz").st_mtime_ns, os.listdir())
    np.savez("b.npz", W=np.ones(3))
    Path("text.npz").write_text("my notes", encoding="utf-8")
    Path("damaged.npz").write_bytes(before[0][:-100])
    os.mkdir("folder")
    for path in ("b.npz", "text.npz", "damaged.npz", "folder", "folder/", "new/", "no/new.npz"):
        with pytest.raises(SystemExit, match=f"cannot write {path}: ..."):
            gpt.check_out(None, gpt.Settings(out=path))
    assert not os.listdir("folder")


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 0)() == 0, reason="root may write anywhere")
def test_11_a_read_only_folder_is_refused_before_training(folder):
    folder.chmod(0o500)
    with pytest.raises(SystemExit, match="cannot write gpt.npz"):
        train(out="gpt.npz")
    folder.chmod(0o700)


def test_11_a_save_that_fails_is_tried_again(folder, capsys, monkeypatch):
    real, calls = gpt.write_file, []

    def flaky(path, content):
        calls.append(path)
        if len(calls) == 1:
            raise PermissionError(errno.EACCES, "Access is denied")
        real(path, content)
    monkeypatch.setattr(gpt, "write_file", flaky)
    train(out="a.npz")
    assert len(calls) == 2 and steps_in() == {"a.npz": 6}
    assert "note: cannot write a.npz" in capsys.readouterr().out

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(gpt, "write_file", full)
    with pytest.raises(SystemExit, match="the last steps could not be saved in b.npz"):
        train(out="b.npz", tokens=30)
    printed = capsys.readouterr().out
    assert "cannot write b.npz: " in printed and "No space left" in printed
    assert len(printed.split("of training\n\n")[1]) > 30        # what it wrote comes before


def test_11_sampling_from_a_checkpoint(folder, capsys):
    train(out="a.npz")
    before = Path("a.npz").read_bytes()
    Path("text.txt").unlink()                           # it is not needed any more
    sample = lambda **how: gpt.main(resume="a.npz", steps=0, tokens=30, **how)["sample"]
    assert sample(prompt="To be").startswith("To be") and len(sample(prompt="To be")) == 35
    assert sample(temperature=0.0) == sample(top_k=1) != sample(temperature=2.0)
    assert len(sample(prompt="\u00e9\u6f22\U0001f600")) == 30
    assert r"not in the vocabulary: '\xe9' '\u6f22' '\U0001f600'" in capsys.readouterr().out
    assert Path("a.npz").read_bytes() == before


@pytest.mark.parametrize("delay", [0, 0.03, 0.1])
def test_11_a_killed_run_leaves_a_whole_checkpoint(folder, delay):
    with start("11_gpt", *flags(QUICK["11_gpt"]), "--steps=100000", "--eval_every=1") as process:
        while not Path("gpt.npz").exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(delay)
        process.kill()
    assert gpt.main(resume="gpt.npz", steps=0, tokens=5)["steps"] > 0


@NOT_WINDOWS
def test_11_ctrl_c_keeps_the_run_after_a_whole_step(folder):
    with start("11_gpt", *flags(QUICK["11_gpt"]), "--steps=100000") as process:
        for line in process.stdout:
            if line.split()[:1] == ["1"]:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == ("finishing this step; Ctrl-C again stops at once\n"
                      f"interrupted after step {steps_in()['gpt.npz']}, kept in gpt.npz\n")


@NOT_WINDOWS
@pytest.mark.parametrize("function", ["evaluate", "save", "show_validation"])
def test_11_ctrl_c_in_the_last_step_is_heard(function, folder, monkeypatch, capsys):
    """Also in the validation after it, and while it is saved."""
    real, calls = getattr(gpt, function), []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)
    monkeypatch.setattr(gpt, function, interrupted)
    with pytest.raises(SystemExit, match="130"):
        train(out="a.npz", steps=9)
    assert "interrupted after step 9, kept in a.npz" in capsys.readouterr().err
    assert steps_in() == {"a.npz": 9}


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


def test_11_divergence_keeps_the_last_good_checkpoint(folder):
    train(out="a.npz")
    before = Path("a.npz").read_bytes()
    with pytest.raises(SystemExit, match="at step .*: lower --lr"):
        train(resume="a.npz", out="a.npz", steps=30, lr=1e30)
    assert Path("a.npz").read_bytes() == before


def test_11_a_checkpoint_is_read_with_care(folder):
    """Settings that are none, losses that are none, arrays that miss or are not finite."""
    train(out="a.npz")
    with np.load("a.npz") as arrays:
        arrays = dict(arrays)
    record = json.loads(arrays["record"].item())
    damages = [({"settings": record["settings"] | {key: value}}, {}) for key, value in (
        ("steps", "many"), ("batch", None), ("channels", -2), ("heads", [2]))]
    damages += [({"losses": [math.nan]}, {}), ({"settings": {}}, {}), ({"more": 1}, {})]
    damages += [({}, {name: value}) for name, value in (
        ("best/embed", np.full((30, 16), np.nan)), ("weights/embed", None), ("best/unembed", None),
        ("weights/0.up", np.ones((16, 63), np.float32)), ("v/embed", None), ("m/0.up", None),
        ("t/embed", None), ("weights/more", np.ones(3)))]
    for entries, changed in damages:
        damaged = {key: value for key, value in (arrays | changed).items() if value is not None}
        np.savez("b.npz", **damaged | {"record": json.dumps(record | entries)})
        with pytest.raises(SystemExit, match="not a whole checkpoint"):
            gpt.main(resume="b.npz", steps=9, out="")
    harmful = record | {"settings": record["settings"] | {"out": "text.txt"}}
    np.savez("b.npz", **arrays | {"record": json.dumps(harmful)})
    gpt.main(resume="b.npz", steps=9, out="c.npz")      # out is no setting of a training
    assert Path("text.txt").read_text(encoding="utf-8") == TEXT


def test_11_values_that_an_option_cannot_have_in_a_notebook(folder):
    for name, value, sentence in (
            ("steps", math.inf, "cannot be"), ("steps", [3], "cannot be"), ("steps", 2.7, "cannot"),
            ("lr", "abc", "cannot be"), ("lr", -1e4, "must be above 0"), ("lr", math.nan, "must"),
            ("temperature", -1.0, "must be 0 or more"), ("batch", 0, "must be above 0"),
            ("tokens", -1, "must be 0 or more"), ("heads", 0, "must be above 0")):
        with pytest.raises(SystemExit, match=f"error: {name} {sentence}"):
            train(**{name: value})
    with pytest.raises(TypeError, match="stepz"):
        train(stepz=None)
    train(out="a.npz", lr=0.01, temperature=None)       # None is not given
    gpt.main(resume="a.npz", lr=None, batch=None, steps=9, tokens=None)
    assert gpt.load("a.npz")[1] | {"lr": 0.01, "batch": TINY["batch"]} == gpt.load("a.npz")[1]


def test_11_output_that_nobody_reads_to_its_end(folder):
    with start("11_gpt", *flags(QUICK["11_gpt"]), "--steps=100000") as process:
        process.stdout.close()
        assert process.stderr.read() == "" and process.wait(timeout=20) == 0


def test_11_a_text_in_other_letters_runs_on_an_ascii_console(folder):
    russian = "\u0411\u044b\u0442\u044c \u0438\u043b\u0438 \u043d\u0435\r\n"      # to be or not
    Path("text.txt").write_text(russian * 30, encoding="utf-8")
    result = run("11_gpt", *flags(QUICK["11_gpt"]), PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, "")


# ---- files from the network, in 07, 08 and 11 ---------------------------------------------------

def digest(content):
    return hashlib.sha256(content).hexdigest()


def test_a_download_is_checked_and_the_next_host_tried(folder):
    right = gzip.compress(b"right bytes")
    for name, content in (("right", right), ("cut", right[:-5]), ("page", b"<html>502</html>"),
                          ("other", gzip.compress(b"other bytes"))):
        Path(name).write_bytes(content)
    bad = [Path(name).absolute().as_uri() for name in ("absent", "cut", "page", "other")]
    good = Path("right").absolute().as_uri()
    assert gpt.download("x.gz", bad, digest(b"right bytes")) is None and not Path("data").exists()
    assert gpt.download("x.gz", [*bad, good], digest(b"right bytes")) == b"right bytes"
    assert os.listdir("data") == ["x.gz"] and Path("data/x.gz").read_bytes() == right


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
        assert gpt.download("x", urls, digest(b"right bytes")) == b"right bytes"
    assert asked == [10, 10] and os.listdir("data") == ["x"]


def test_a_file_in_data_is_used_as_it_is_and_never_written_to(folder, capsys, monkeypatch):
    """One's own text under the name of tiny Shakespeare, or Fashion-MNIST under that of MNIST."""
    monkeypatch.setattr(gpt.urllib.request, "urlopen", lambda *a, **k: pytest.fail("not asked for"))
    Path("data").mkdir()
    for content in b"my own novel", gzip.compress(b"my own novel"):
        Path("data/x").write_bytes(content)
        found = gpt.download("x", ["http://127.0.0.1:9/x"], digest(b"right bytes"))
        assert found == b"my own novel" and Path("data/x").read_bytes() == content
        said = capsys.readouterr().out
        assert said.count("\n") == 1 and "is not the original file; it is used as it is" in said
        gpt.download("x", [], digest(b"my own novel"))
        assert capsys.readouterr().out == ""
    Path("data/x").write_bytes(gzip.compress(b"my own novel")[:-9])
    with pytest.raises(SystemExit, match="^error: cannot read data.x: "):
        gpt.download("x", [], digest(b"right bytes"))


@pytest.mark.parametrize("script", ["08_embed", "11_gpt"])
def test_a_text_of_ones_own_in_data(script, folder, capsys):
    Path("data").mkdir()
    Path("data/tinyshakespeare.txt").write_text(TEXT * 2, encoding="utf-8")
    load(script).main(**QUICK[script] | dict(data=""))
    said = capsys.readouterr().out
    assert "is not the original file; it is used as it is" in said
    assert f"{2 * len(TEXT):,} characters" in said
    assert Path("data/tinyshakespeare.txt").read_text(encoding="utf-8") == TEXT * 2
    for text, sentence in (("caf\u00e9".encode("latin1"), "not UTF-8 text.*iconv -f latin1"),
                           ("To be".encode("utf-16"), "UTF-16 text.*iconv -f utf-16"),
                           ("To be".encode("utf-16-le"), "not UTF-8 text")):
        Path("data/tinyshakespeare.txt").write_bytes(text)
        with pytest.raises(SystemExit, match=f"tinyshakespeare.txt is {sentence}"):
            load(script).main()


# ---- what users get wrong: one sentence, and no file is changed ---------------------------------

TROUBLE = """
02_activations
    --activation=none               --activation must be one of identity, sigmoid, tanh
04_backprop
    --lr=1e8                        the training diverges: lower --lr
05_autograd
    --activation=sin                --activation must be relu or tanh
    --lr=1e8                        the training diverges: lower --lr
07_mnist
    --batch=60                      --batch must be at most 55, the images to train on
    --lr=1e8                        the training diverges in epoch 1: lower --lr
    --data=absent                   cannot read absent/train-images-idx3-ubyte.gz: [Errno 2]
08_embed
    --data=empty                    empty has 0 characters, fewer than 1000
    --data=binary                   binary is not UTF-8 text
    --lr=1e8                        the training of word vectors diverges: lower --lr
09_attention
    --pairs=11                      --pairs must be between 2 and 10: there are ten digits
    --channels=6                    --channels must be a multiple of 4
10_block
    --deepest=1                     --deepest must be at least 2
    --heads=3                       --channels=8 must be a multiple of 6
11_gpt
    --channels=9000000 --data=abc.txt   there is not enough memory for these sizes
    --lr=1e8                        the training diverges at step
    --heads=3                       --channels=16 must be a multiple of 6
    --context=900                   860 characters, but --context=900 needs 9010
    --data=absent                   cannot read absent: [Errno 2]
    --resume=absent                 cannot read the checkpoint absent: [Errno 2]
    --resume=cut                    cut is not a whole checkpoint of 11_gpt.py
    --resume=other.npz              other.npz is not a whole checkpoint of 11_gpt.py
    --resume=wide.npz               wide.npz holds a GPT with channels=32
    --resume=first.npz              first.npz is of the first edition of 11_gpt.py
    --resume=abc.npz --steps=9      text.txt has characters that the text of the checkpoint lacks
    --out=.                         cannot write .: what is there is not a writable checkpoint
    --out=thesis.docx               cannot write thesis.docx: what is there is not a writable
    --out=absent/gpt.npz            cannot write absent/gpt.npz: No such file
"""


def troubles():
    """(script, flags, sentence) of each line of the table."""
    for line in TROUBLE.strip().splitlines():
        if not line.startswith(" "):
            script = line
        else:
            yield (script, *re.split("  +", line.strip()))


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


@pytest.mark.parametrize("script, typed, sentence", list(troubles()))
@pytest.mark.filterwarnings("error", *ALARMS)
def test_what_cannot_be_done_ends_in_one_sentence(script, typed, sentence, troubled, monkeypatch):
    """SystemExit with a sentence prints it on stderr and exits with 1."""
    module = load(script)
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *flags(QUICK[script]), *typed.split()])
    contents = lambda: {path: path.read_bytes() for path in troubled.rglob("*") if path.is_file()}
    before = contents()
    with pytest.raises(SystemExit) as caught:
        module.command_line(module.main)
    said = caught.value.code.replace("\\", "/")         # as Windows writes its paths
    assert said.startswith("error: ") and sentence in said and "\n" not in said
    assert contents() == before


# ---- README -------------------------------------------------------------------------------------

README = (HERE / "README.md").read_text(encoding="utf-8")


def test_the_readme_names_what_there_is():
    """The functions behind # in its formulas, and the options of its commands."""
    pages = dict(re.findall(r"(?ms)^```\n(\d\d_\w+)\.py(.*?)^```", README))
    assert sorted(pages) == [path.stem for path in SCRIPTS]
    for script, formulas in pages.items():
        names = re.findall(r"(?m) # (\w+)$", formulas)
        assert names
        for name in names:
            assert hasattr(load(script), name), f"{script} has no {name}"
    commands = re.findall(r"python (\d\d_\w+)\.py((?:\s+--[^\s`]+)*)", README)
    assert len(commands) > 8
    for script, typed in commands:
        assert set(re.findall(r"--(\w+)", typed)) <= set(
            inspect.signature(load(script).main).parameters)


def test_every_command_of_the_readme_runs(folder):
    """In their order, shortened by flags that come later, but for those with --resume."""
    shutil.copy("long.txt", "my.txt")
    os.rename("own", "folder")
    shorter = {"07": flags(QUICK["07_mnist"] | dict(data="folder")),
               "08": flags(QUICK["08_embed"]),
               "11": ["--data=my.txt", "--steps=6", "--eval_every=3", "--batch=4", "--context=8",
                      "--tokens=20"]}
    commands = re.findall(r"(mpiexec -n \d )?python ([01]\d_\w+\.py)([^`|\n]*)", README)
    assert len(commands) > 9
    for mpi, script, typed in commands:
        if not mpi or HAS_MPI:
            shutil.copy(HERE / script, folder)
            command = [*mpi.split(), sys.executable, script, *shlex.split(typed),
                       *([] if "--resume" in typed else shorter.get(script[:2], []))]
            result = subprocess.run(command, capture_output=True, text=True, timeout=80)
            assert (result.returncode, result.stderr) == (0, ""), command


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
