"""03  A layer is a matrix product, and why that makes it fast.

Carried from 01: refuse, command_line.
New here: a layer four ways, each with less Python; batches; broadcasting; operations per byte.

A layer of K neurons, each with D weights and a bias, answers a batch of N examples at once:
    Y = X W + b      (N, K) = (N, D) (D, K) + (K,)      Y_ij = (sum over d of X_id W_dj) + b_j
Each Y_ij is one dot product. There are N K of them, of D multiplications and D additions: 2 N D K
operations (1 GFLOP/s is 10^9 of them a second). Adding b (K,) to (N, K) broadcasts: b is used for
every row as if it were copied N times. In 02 we met the mirror image, and 04 will derive it: the
gradient of b is a sum over the N rows that b was copied to.

How fast can it be? Memory or a cache delivers bytes, the processor multiplies, and the slower of
the two decides. In float32 the arrays hold 4 (N D + D K + N K) bytes. For one example nearly all
of them are W, and each weight serves one multiplication and one addition: half an operation per
byte. In a batch each weight, once it has been fetched, serves all N examples. float32 has half the
bytes of float64, and one instruction multiplies twice as many of them.

Run       python 03_matmul.py               (--size=2048 for a larger layer)
Expect    5 s. One product is ten thousand times as fast as three loops, and a batch of 128 runs
          several times as many operations a second as a batch of 1
Left out  how BLAS, the library behind NumPy's @, cuts matrices into tiles that fit the caches
"""
import argparse, inspect, math, os, re, sys, time

import numpy as np

# N examples in a batch, D inputs, K neurons; X (N, D), W (D, K), b (K,)


# ---- carried from 01, unchanged -----------------------------------------------------------------

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


# ---- new here -----------------------------------------------------------------------------------

def layer_by_numbers(X, W, b):
    """Three loops and nothing else: what every other way computes as well."""
    Y = np.empty((len(X), len(b)), X.dtype)             # (N, K)
    for i in range(len(X)):
        for j in range(len(b)):
            total = b[j]
            for d in range(len(W)):
                total += X[i, d] * W[d, j]
            Y[i, j] = total
    return Y


def layer_by_neurons(X, W, b):
    """One dot product for each example and neuron: the innermost loop goes to NumPy."""
    return np.array([[x @ w + b_j for w, b_j in zip(W.T, b)] for x in X])   # (D,) (D,) -> ()


def layer_by_examples(X, W, b):
    """One vector-matrix product for each example: two loops go to NumPy."""
    return np.array([x @ W + b for x in X])                         # (D,) (D, K) -> (K,)


def layer(X, W, b):
    """One matrix product for the whole batch: no loop is left in Python."""
    return X @ W + b                                    # (N, D) (D, K) + (K,) -> (N, K)


def seconds(work, budget=0.2):
    """The least time of work(), in as many calls as fit the budget: disturbances only add time."""
    least, end = math.inf, time.perf_counter() + budget
    while least == math.inf or time.perf_counter() < end:
        start = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - start)
    return least


def arrays(rng, N, D, K, dtype=np.float32):
    """Random X (N, D), W (D, K), b (K,)."""
    return [rng.standard_normal(shape).astype(dtype) for shape in ((N, D), (D, K), K)]


# ---- the experiment -----------------------------------------------------------------------------

def main(batch=64, inputs=128, neurons=64, size=1024, budget=0.2, seed=0):
    """Time one layer four ways, then one product at many batch sizes, in two precisions.

    batch: examples, for the four ways
    inputs: of the layer, for the four ways
    neurons: of the layer, for the four ways
    size: inputs and neurons of the layer whose batch size is varied
    budget: seconds for each measurement
    seed: of the numbers

    Returns a dict: seconds by way, gflops by batch size, best_gflops by precision.
    """
    for name, value in dict(batch=batch, inputs=inputs, neurons=neurons, size=size).items():
        refuse(not 0 < value <= 4096, f"--{name} must be between 1 and 4096")
    refuse(batch * inputs * neurons > 1e8, "--batch x --inputs x --neurons must be at most 1e8, "
           "since three loops in Python go over them")
    refuse(not 0 <= budget < 60, "--budget must be between 0 and 60 seconds")
    refuse(seed < 0, "--seed must be 0 or more")
    rng = np.random.default_rng(seed)

    X, W, b = arrays(rng, batch, inputs, neurons)
    operations, times = 2 * batch * inputs * neurons, {}
    print(f"Y = X W + b, {X.shape} {W.shape} + {b.shape} -> {(batch, neurons)}: "
          f"{operations / 1e6:.2f} million operations")
    print("way                      seconds     GFLOP/s times as fast")
    for way in layer_by_numbers, layer_by_neurons, layer_by_examples, layer:
        scale = layer(np.abs(X), np.abs(W), np.abs(b)).max()            # rounding grows with it
        assert np.abs(way(X, W, b) - layer(X, W, b)).max() < 1e-5 * scale
        times[way.__name__] = took = seconds(lambda: way(X, W, b), budget)
        slowest = times["layer_by_numbers"]
        print(f"{way.__name__:20} {took:11.7f} {operations / took / 1e9:11.4f}"
              f" {slowest / took:13,.0f}")

    spread, copy = np.broadcast_to(b, (batch, neurons)), W.T.copy()
    print(f"\nStrides are the bytes from one row to the next, and from one column to the next.\n"
          f"Broadcasting: b {b.shape} counts as {spread.shape} with strides {spread.strides}: its "
          f"next row is 0 bytes away.\nA transpose is a view: W has strides {W.strides}, W.T "
          f"{W.T.strides}; memory shared: {np.shares_memory(W, W.T)}.\nA copy is not: W.T.copy() "
          f"has strides {copy.strides}; memory shared: {np.shares_memory(W, copy)}.\n")

    best = {}
    for dtype in np.float32, np.float64:
        X, W, _ = arrays(rng, 1024, 1024, 1024, dtype)
        best[dtype.__name__] = 2 * 1024 ** 3 / seconds(lambda: X @ W, 2 * budget) / 1e9
    print("One product 1024 x 1024 x 1024: " + ", ".join(
        f"{rate:.0f} GFLOP/s in {name}" for name, rate in best.items()))

    rates = {}
    for N in [2 ** i for i in range(11)]:
        X, W, _ = arrays(rng, N, size, size)
        rates[N] = 2 * N * size * size / seconds(lambda: X @ W, budget) / 1e9
    widest = max(best["float32"], *rates.values())
    print(f"\nX W with W {(size, size)} in float32; GB/s if each array moves once")
    print("batch  op/byte  GFLOP/s     GB/s")
    for N, rate in rates.items():
        per_byte = 2 * N * size * size / (4 * (2 * N * size + size * size))
        print(f"{N:5} {per_byte:8.1f} {rate:8.1f} {rate / per_byte:8.1f} "
              f"|{'#' * round(60 * rate / widest)}")
    print(f"{'best':>5} {'':8} {widest:8.1f} {'':8} |{'#' * 60}")
    print("Small batches are limited by fetching W, GB/s, large ones by multiplying, GFLOP/s.\n"
          "For 1 row BLAS has a routine of its own, matrix times vector; 2 rows may be slower.")
    print("\nOn an NVIDIA GPU, with import cupy as np, X @ W + b should stay as it is "
          "(not tried).\nTo time it, wait for the GPU.")
    return {"seconds": times, "gflops": rates, "best_gflops": best}


if __name__ == "__main__":
    command_line(main)
