"""03  A layer is one matrix product, and that is why it is fast.

A layer (02), before its activation, computes the outputs of K neurons, or units,
each with D weights and a bias, for N examples, called a batch, at once:

    Y = X @ W + b        shapes (N, K) = (N, D) @ (D, K) + (K,)
    Y_ij = X_i1 * W_1j + X_i2 * W_2j + ... + X_iD * W_Dj + b_j

Each Y_ij takes D multiplications and D additions, the bias included, so the
layer takes 2 N D K operations. We compute it in four ways, from three loops in
Python to one product. The results agree up to rounding; the times do not.

Run           python 03_matmul.py
Expect        4 s. One product is some ten thousand times as fast as three
              loops. With a batch of 128 examples it does several times as many
              operations a second as with one
Try           --batch=1     a single example: one product is only hundreds of
                            times as fast, as each call of NumPy takes some time
              --size=2048   in the last table, W takes 16 MiB instead of 4
Left out      how BLAS, the library behind NumPy's @, cuts matrices into small
              blocks, for the sake of fast memory; the way back, to the gradients (04)
"""
import argparse, inspect, os, sys, timeit

import numpy as np

# N examples in a batch, D inputs, K neurons; X (N, D), W (D, K), b (K,)


# ---- new here: one layer, four times --------------------------------------------------------
# For each single multiplication, Python has to find out what X[i, d] and
# W[d, j] are, fetch them, make a new number object of the product, and so on.
# NumPy does this once for whole arrays. For @ it calls a compiled library
# (BLAS) that handles several numbers with one instruction, and shares the work
# among the processor's cores.

def layer_by_numbers(X, W, b):
    """The formula above, as three loops in Python."""
    Y = np.empty((len(X), len(b)), X.dtype)             # (N, K), to be filled
    for i in range(len(X)):
        for j in range(len(b)):
            total = b[j]
            for d in range(len(W)):
                total += X[i, d] * W[d, j]
            Y[i, j] = total
    return Y


def layer_by_neurons(X, W, b):
    """One dot product for each example and neuron: NumPy runs the innermost loop."""
    return np.array([[x @ w + b_j for w, b_j in zip(W.T, b)]  # (D,) @ (D,) -> one number
                     for x in X])        # the rows of W.T are the columns of W


def layer_by_examples(X, W, b):
    """One product of a row and a matrix for each example: NumPy runs two loops."""
    return np.array([x @ W + b for x in X])             # (D,) @ (D, K) -> (K,)


def layer(X, W, b):
    """One matrix product for the whole batch: no loop is left in Python."""
    return X @ W + b                         # (N, D) @ (D, K) + (K,) -> (N, K)


# In X @ W + b, X @ W has N rows of K numbers, and b has K numbers. NumPy adds
# b to each row, as if it had been copied N times. This is called broadcasting.

def random_layer(rng, N, D, K, dtype=np.float32):
    """Random X (N, D), W (D, K), b (K,): float32 (4 bytes, 7 digits) or float64 (8 and 16)."""
    return [rng.standard_normal(shape).astype(dtype) for shape in ((N, D), (D, K), (K,))]


# ---- new here: what limits the speed? -------------------------------------------------------
# Memory delivers numbers, and the processor multiplies them. Both work at the
# same time, so the slower one decides (the roofline model, Williams 2009). The
# product X @ W takes about 2 N D K operations. In float32, X and W have to
# come from memory and the result has to go there, each at least once:
#     4 (N D + D K + N K) bytes
# For one example (N = 1) nearly all of these bytes are W. Each weight takes 4
# bytes and serves 2 operations: half an operation for each byte. In a batch
# each weight, once it has been fetched, serves all N examples. With 128
# examples and a W of 1024 x 1024 that would make 64 operations for each byte;
# as X and the result are moved too, it is 51. So the speed can grow with the
# batch until the processor is the slower one. BLAS also does some work once
# for each product, such as putting W into an order that suits the processor. A
# larger batch spreads this over more examples, too.
#
# With the same number of bytes, memory delivers twice as many numbers in
# float32 as in float64, and one instruction handles twice as many. So float32
# should be about twice as fast, whether memory or the processor is the slower
# one.

def least_time(work, budget):
    """Call work() again and again, for `budget` seconds at most; the shortest time of a call.

    The shortest, because whatever else the computer does can only add time.
    """
    once = timeit.timeit(work, number=1)
    repeat = max(1, min(10_000, round(budget / once)))
    return min(timeit.repeat(work, number=1, repeat=repeat))


# ---- the experiment -------------------------------------------------------------------------

def compare_ways(rng, batch, inputs, neurons, budget):
    """Time the four ways; seconds by name."""
    X, W, b = random_layer(rng, batch, inputs, neurons)
    operations = 2 * batch * inputs * neurons
    print(f"Y = X @ W + b, {X.shape} @ {W.shape} + {b.shape} -> {(batch, neurons)}: "
          f"{operations / 1e6:.2f} million operations")
    print("1 GFLOP/s is a billion floating-point operations (+ or *) a second\n")
    print("way                      seconds     GFLOP/s     speedup")
    # Each way adds up the terms in another order, and so rounds differently:
    # by a tiny part of the sum of their absolute values, which is at most
    # scale.
    scale = layer(np.abs(X), np.abs(W), np.abs(b)).max()
    times = {}
    for way in layer_by_numbers, layer_by_neurons, layer_by_examples, layer:
        assert np.abs(way(X, W, b) - layer(X, W, b)).max() < 1e-5 * scale
        took = least_time(lambda: way(X, W, b), budget)
        times[way.__name__] = took
        print(f"{way.__name__:20} {took:11.7f} {operations / took / 1e9:11.4f}"
              f" {times['layer_by_numbers'] / took:11,.0f}")
    return times


def best_rates(rng, budget):
    """GFLOP/s of a large product in float32 and in float64, by name."""
    operations = 2 * 1024 ** 3
    best = {}
    for dtype in np.float32, np.float64:
        X, W, _ = random_layer(rng, 1024, 1024, 1024, dtype)
        best[dtype.__name__] = operations / least_time(lambda: X @ W, 2 * budget) / 1e9
    print("\nOne product 1024 x 1024 x 1024: " + ", ".join(
        f"{rate:.0f} GFLOP/s in {name}" for name, rate in best.items()))
    return best


def compare_batches(rng, size, budget, best):
    """GFLOP/s of one product by batch size."""
    rates = {}
    for N in [2 ** i for i in range(11)]:
        X, W, _ = random_layer(rng, N, size, size)
        rates[N] = 2 * N * size * size / least_time(lambda: X @ W, budget) / 1e9
    fastest = max(best, *rates.values())
    print(f"\nX @ W for a matrix W of {size} x {size} in float32. GB/s: billions of bytes a\n"
          "second, if X, W and the result are moved once")
    print("batch  operations/byte  GFLOP/s     GB/s")
    for N, rate in rates.items():
        per_byte = 2 * N * size * size / (4 * (2 * N * size + size * size))
        print(f"{N:5} {per_byte:16.1f} {rate:8.1f} {rate / per_byte:8.1f} "
              f"|{'#' * round(50 * rate / fastest)}")
    print(f"{'best':>5} {'':16} {fastest:8.1f} {'':8} |{'#' * 50}")
    print("best: the fastest float32 product, here or above. Small batches wait for what is done\n"
          "once for each product: fetching W, and putting it in order. The larger the batch, the\n"
          "less this counts. With a large W, large batches wait for the processor. (As the\n"
          "product is repeated, W may come from a cache, a small fast memory in the processor.\n"
          "And a batch of 1 may break the pattern: BLAS has a special routine for it.)")
    return rates


def main(batch=64, inputs=128, neurons=64, size=1024, budget=0.2, seed=0):
    """Time one layer in four ways, a large product in two precisions, and many batch sizes.

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


# ---- plumbing, the same wherever it stands: nothing about neural networks -------------------

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
    command_line(main, may_be_zero=("budget",))
