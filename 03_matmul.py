"""03  A layer is a matrix product, and why that makes it fast.

A layer of K neurons, each with D weights and a bias, answers a batch of N
examples at once:

    Y = X W + b          (N, K) = (N, D) (D, K) + (K,)
    Y_ij = (sum over d of X_id W_dj) + b_j

Each Y_ij is one dot product of D multiplications and D additions. There are
N K of them: 2 N D K operations (1 GFLOP/s is 10^9 of them a second). We compute
this layer in four ways, from three loops to one product.

Run           python 03_matmul.py
Expect        5 s. One product is ten thousand times as fast as three loops, and
              a batch of 128 does several times as many operations a second as a
              batch of 1
Try           --size=2048   a larger layer, which no cache can hold
Left out      how BLAS, the library behind NumPy's @, cuts matrices into tiles
              that fit the caches
"""
import argparse, inspect, os, sys, timeit

import numpy as np

# N examples in a batch, D inputs, K neurons; X (N, D), W (D, K), b (K,)


# ---- new here: one layer, four times --------------------------------------------------------

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
    return np.array([[x @ w + b_j for w, b_j in zip(W.T, b)] for x in X])  # (D,) (D,) -> ()


def layer_by_examples(X, W, b):
    """One vector-matrix product for each example: two loops go to NumPy."""
    return np.array([x @ W + b for x in X])               # (D,) (D, K) -> (K,)


def layer(X, W, b):
    """One matrix product for the whole batch: no loop is left in Python."""
    return X @ W + b                           # (N, D) (D, K) + (K,) -> (N, K)


def arrays(rng, N, D, K, dtype=np.float32):
    """Random X (N, D), W (D, K), b (K,)."""
    return [rng.standard_normal(shape).astype(dtype) for shape in ((N, D), (D, K), K)]


# Adding b (K,) to (N, K) broadcasts it: b is used for every row, as if it had
# been copied N times. In 02 we met the mirror image, and 04 will derive it:
# the gradient of b is the sum over the N rows that b was copied to.
#
# How fast can a layer be? Memory or a cache delivers bytes, the processor
# multiplies, and the slower of the two decides. In float32 the arrays hold 4
# (N D + D K + N K) bytes. For one example nearly all of them are W, and each
# weight serves one multiplication and one addition: half an operation per
# byte. In a batch each weight, once it has been fetched, serves all N
# examples. float32 has half the bytes of float64, and one instruction
# multiplies twice as many of them.

def least_time(work, budget):
    """The least time of work(), which is repeated for about `budget` seconds.

    The least, because whatever else the computer does can only add time.
    """
    once = timeit.timeit(work, number=1)
    repeat = max(1, min(10_000, round(budget / once)))
    return min(timeit.repeat(work, number=1, repeat=repeat))


# ---- the experiment ---------------------------------------------------------------------------

def compare_ways(rng, batch, inputs, neurons, budget):
    """Time the four ways; seconds by name."""
    X, W, b = arrays(rng, batch, inputs, neurons)
    operations = 2 * batch * inputs * neurons
    print(f"Y = X W + b, {X.shape} {W.shape} + {b.shape} -> {(batch, neurons)}: "
          f"{operations / 1e6:.2f} million operations")
    print("way                      seconds     GFLOP/s times as fast")
    times = {}
    for way in layer_by_numbers, layer_by_neurons, layer_by_examples, layer:
        scale = layer(np.abs(X), np.abs(W), np.abs(b)).max()  # rounding grows with it
        assert np.abs(way(X, W, b) - layer(X, W, b)).max() < 1e-5 * scale
        took = least_time(lambda: way(X, W, b), budget)
        times[way.__name__] = took
        print(f"{way.__name__:20} {took:11.7f} {operations / took / 1e9:11.4f}"
              f" {times['layer_by_numbers'] / took:13,.0f}")
    return times


def best_rates(rng, budget):
    """GFLOP/s of a large product, by precision."""
    best = {}
    for dtype in np.float32, np.float64:
        X, W, _ = arrays(rng, 1024, 1024, 1024, dtype)
        best[dtype.__name__] = 2 * 1024 ** 3 / least_time(lambda: X @ W, 2 * budget) / 1e9
    print("\nOne product 1024 x 1024 x 1024: " + ", ".join(
        f"{rate:.0f} GFLOP/s in {name}" for name, rate in best.items()))
    return best


def compare_batches(rng, size, budget, best):
    """GFLOP/s of one product by batch size."""
    rates = {}
    for N in [2 ** i for i in range(11)]:
        X, W, _ = arrays(rng, N, size, size)
        rates[N] = 2 * N * size * size / least_time(lambda: X @ W, budget) / 1e9
    widest = max(best, *rates.values())
    print(f"\nX W with W {(size, size)} in float32; GB/s if each array moves once")
    print("batch  op/byte  GFLOP/s     GB/s")
    for N, rate in rates.items():
        per_byte = 2 * N * size * size / (4 * (2 * N * size + size * size))
        print(f"{N:5} {per_byte:8.1f} {rate:8.1f} {rate / per_byte:8.1f} "
              f"|{'#' * round(60 * rate / widest)}")
    print(f"{'best':>5} {'':8} {widest:8.1f} {'':8} |{'#' * 60}")
    print("Small batches are limited by fetching W, GB/s, large ones by multiplying, GFLOP/s.\n"
          "For 1 row BLAS has a routine of its own, matrix times vector; 2 rows may be slower.")
    return rates


def main(batch=64, inputs=128, neurons=64, size=1024, budget=0.2, seed=0):
    """Time one layer in four ways, then one product at many batch sizes, in two precisions.

    batch    examples in the batch, for the four ways
    inputs   inputs of the layer, for the four ways
    neurons  neurons of the layer, for the four ways
    size     inputs and neurons of the layer whose batch size is varied
    budget   seconds for each measurement
    seed     random seed of the numbers

    Returns {"seconds" by way, "gflops" by batch size, "best_gflops" by precision}.
    """
    rng = np.random.default_rng(seed)
    times = compare_ways(rng, batch, inputs, neurons, budget)
    best = best_rates(rng, budget)
    rates = compare_batches(rng, size, budget, best["float32"])
    return {"seconds": times, "gflops": rates, "best_gflops": best}


# ---- plumbing, the same in every file: nothing about neural networks ------------------------

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
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # who read our output has left: be silent


# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy"]
# ///

if __name__ == "__main__":
    command_line(main, may_be_zero=("budget",))
