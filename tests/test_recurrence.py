"""The gradient is right: every cell, one and three layers, against four independent answers.

The largest relative error of each comparison is collected and printed by conftest.py at the end of the run.
"""

import numpy as np
import pytest
import tensorflow as tf
from kinds import multiplies_bfloat16
from reference import LAYERS

from charlm.cells import cell_of
from charlm.model import KERAS_LAYERS
from charlm.operands import LayerWeights
from charlm.recurrence import STEPS_PER_BLOCK, backward_window, forward_window, in_blocks, unroll

B, E, H = 3, 4, 5
SHORT, LONG = 6, 4 * STEPS_PER_BLOCK + 5
PYTORCH_GATES = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "rnn": (0,)}


def weights_of(cell, inputs, rng, scale=0.5):
    gates = cell_of(cell).gates * H
    bias = (2, gates) if cell == "gru" else (gates,)
    return LayerWeights(*(tf.constant(rng.normal(0, scale, s)) for s in ((inputs, gates), (H, gates), bias)))


class Stack:
    """A stack of layers in float64 with a fixed random linear read-out of hidden values and final states."""

    def __init__(self, cell, layers, length, seed=0, scale=0.5):
        rng = np.random.default_rng(seed)
        self.cell, self.length = cell_of(cell), length
        self.x = tf.constant(rng.normal(size=(length, E, B)))
        self.weights = [weights_of(cell, E if n == 0 else H, rng, scale) for n in range(layers)]
        names = self.cell.states
        self.state = [tuple(tf.constant(rng.normal(size=(H, B))) for _ in names) for _ in range(layers)]
        self.read_hidden = tf.constant(rng.normal(size=(length, H, B)))
        self.read_final = [tuple(tf.constant(rng.normal(size=(H, B))) for _ in names) for _ in range(layers)]

    @property
    def parameters(self):
        return tf.nest.flatten((self.x, self.weights, self.state))

    def loss(self, parameters, layer, resets=None):
        x, weights, state = tf.nest.pack_sequence_as((self.x, self.weights, self.state), list(parameters))
        total = tf.zeros((), tf.float64)
        for w, s, read in zip(weights, state, self.read_final, strict=True):
            x, final = layer(self.cell, x, w, s, resets)
            total += sum(tf.reduce_sum(a * b) for a, b in zip(final, read, strict=True))
        return total + tf.reduce_sum(x * self.read_hidden)


def ours(cell, x, weights, state, resets=None, precision=None):
    hidden, state = unroll(cell, in_blocks(x), weights, state, resets, precision)
    return tf.concat(hidden, 0), state


def unrolled_by_autodiff(cell, x, weights, state, resets):
    hidden, tree = [], weights._asdict()
    for t in range(x.shape[0]):
        if resets is not None:
            state = tuple(s * (1 - tf.cast(resets[t], s.dtype)) for s in state)
        state = tuple(map(tf.transpose, cell.step(tree, tf.transpose(x[t]), tuple(map(tf.transpose, state)))))
        hidden.append(state[0])
    return tf.stack(hidden), state


def gradients(stack, layer, resets=None, graph=False):
    def run(parameters):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            loss = stack.loss(parameters, layer, resets)
        return tape.gradient(loss, parameters)

    return [g.numpy() for g in (tf.function(run) if graph else run)(stack.parameters)]


def relative(a, b):
    return max(np.abs(p - q).max() / max(np.abs(q).max(), 1e-12) for p, q in zip(a, b, strict=True))


def some_resets(length, seed=1):
    return tf.constant(np.random.default_rng(seed).random((length, B)) < 0.2)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", LAYERS)
class TestGradient:
    def test_finite_differences(self, cell, layers, errors):
        stack = Stack(cell, layers, SHORT)
        loss = tf.function(lambda p: stack.loss(p, ours))
        eps, rng = 1e-5, np.random.default_rng(2)
        found, parameters = gradients(stack, ours), [p.numpy() for p in stack.parameters]
        estimated, expected = [], []
        for n, p in enumerate(parameters):
            for index in rng.choice(p.size, min(p.size, 12), replace=False):
                ends = []
                for sign in (1, -1):
                    moved = p.copy()
                    moved.flat[index] += sign * eps
                    ends.append(float(loss([*parameters[:n], moved, *parameters[n + 1 :]])))
                estimated.append((ends[0] - ends[1]) / (2 * eps))
                expected.append(found[n].flat[index])
        error = np.abs(np.subtract(estimated, expected)).max() / np.abs(estimated).max()
        assert errors("finite differences", cell, layers, error) < 1e-6

    @pytest.mark.parametrize("resets", [False, True])
    def test_autodiff_through_an_unrolled_loop(self, cell, layers, resets, errors):
        stack = Stack(cell, layers, LONG)
        r = some_resets(LONG) if resets else None
        error = relative(gradients(stack, ours, r), gradients(stack, unrolled_by_autodiff, r))
        assert errors("autodiff", cell, layers, error) < 1e-11

    def test_in_a_graph_as_eagerly(self, cell, layers):
        stack = Stack(cell, layers, LONG)
        assert relative(gradients(stack, ours, graph=True), gradients(stack, ours)) < 1e-12

    def test_the_newest_losses_reach_the_first_symbol(self, cell, layers, errors):
        """k1 < k2: the loss of the newest k1 steps alone, differentiated back to the window's first symbol."""
        stack = Stack(cell, layers, LONG)
        scored = np.zeros((LONG, 1, 1))
        scored[-4:] = 1
        stack.read_hidden = stack.read_hidden * scored
        stack.read_final = tf.nest.map_structure(tf.zeros_like, stack.read_final)
        found = gradients(stack, ours)
        assert np.abs(found[0][0]).max() > 0
        assert errors("k1 < k2", cell, layers, relative(found, gradients(stack, unrolled_by_autodiff))) < 1e-11


@pytest.mark.parametrize("cell", LAYERS)
class TestForward:
    @pytest.mark.parametrize("length", [1, STEPS_PER_BLOCK, LONG])
    def test_numpy_reference(self, cell, length, errors):
        stack = Stack(cell, 1, length)
        window = forward_window(stack.cell, in_blocks(stack.x), stack.weights[0], stack.state[0])
        columns = [np.swapaxes(s, 0, 1) for s in stack.state[0]]
        hidden, final = LAYERS[cell](np.swapaxes(stack.x, 1, 2), *stack.weights[0], *columns)
        found = np.swapaxes(tf.concat(window.hidden, 0), 1, 2)
        assert errors("NumPy forward", cell, 1, relative([found], [hidden])) < 1e-12
        assert relative([tf.transpose(s) for s in window.final], final) < 1e-12
        for t in {1, max(1, length - 1), length}:
            hidden, state = LAYERS[cell](np.swapaxes(stack.x, 1, 2)[:t], *stack.weights[0], *columns)
            assert relative([tf.transpose(s) for s in window.state(stack.cell, t)], state) < 1e-12

    def test_keras_layer_with_the_same_weights(self, cell, errors):
        if cell not in KERAS_LAYERS:
            pytest.skip("Keras has no such layer")
        stack = Stack(cell, 1, LONG)
        layer = KERAS_LAYERS[cell](H, return_sequences=True, dtype="float64")
        layer.build((B, LONG, E))
        layer.set_weights([w.numpy() for w in stack.weights[0]])
        x = tf.transpose(stack.x, (2, 0, 1))
        theirs = layer(x, initial_state=[tf.transpose(s) for s in stack.state[0]])
        hidden, _ = ours(stack.cell, stack.x, stack.weights[0], stack.state[0])
        error = relative([tf.transpose(hidden, (2, 0, 1)).numpy()], [theirs.numpy()])
        assert errors("Keras forward", cell, 1, error) < 1e-6  # Keras computes some activations in float32

    def test_pytorch_cell(self, cell, errors):
        torch = pytest.importorskip("torch")
        if cell not in PYTORCH_GATES:
            pytest.skip("PyTorch has no such layer")
        stack = Stack(cell, 1, LONG)
        kernel, recurrent_kernel, bias = (w.numpy() for w in stack.weights[0])

        def rows(w):
            return torch.tensor(
                np.concatenate([np.split(w, cell_of(cell).gates, -1)[n] for n in PYTORCH_GATES[cell]], -1).T.copy()
            )

        layer = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell](E, H).double()
        biases = tuple(bias) if cell == "gru" else (bias, np.zeros_like(bias))
        names = [f"{name}_l0" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        with torch.no_grad():
            for name, value in zip(names, (kernel, recurrent_kernel, *biases), strict=True):
                getattr(layer, name).copy_(rows(value))
        x = torch.tensor(np.swapaxes(stack.x, 1, 2).copy(), requires_grad=True)
        state = [torch.tensor(s.numpy().T.copy()[None], requires_grad=True) for s in stack.state[0]]
        theirs, final = layer(x, tuple(state) if len(state) == 2 else state[0])
        hidden, _ = ours(stack.cell, stack.x, stack.weights[0], stack.state[0])
        error = relative([np.swapaxes(hidden, 1, 2)], [theirs.detach().numpy()])
        assert errors("PyTorch forward", cell, 1, error) < 1e-12

        loss = (theirs * torch.tensor(np.swapaxes(stack.read_hidden, 1, 2).copy())).sum()
        for s, read in zip(final if isinstance(final, tuple) else (final,), stack.read_final[0], strict=True):
            loss = loss + (s[0] * torch.tensor(read.numpy().T.copy())).sum()
        loss.backward()
        dx, dw, du, db, *d_state = gradients(stack, ours)
        found = [rows(d).numpy() for d in (dw, du, *(db if cell == "gru" else [db, db]))]
        expected = [getattr(layer, name).grad.numpy() for name in names]
        assert errors("PyTorch backward, weights", cell, 1, relative(found, expected)) < 1e-12
        turned = [np.swapaxes(dx, 1, 2), *(d.T[None] for d in d_state)]
        assert (
            errors("PyTorch backward, state", cell, 1, relative(turned, [p.grad.numpy() for p in (x, *state)])) < 1e-12
        )

    def test_two_windows_are_one_double_window(self, cell):
        stack = Stack(cell, 1, 2 * LONG)
        whole, end = ours(stack.cell, stack.x, stack.weights[0], stack.state[0])
        first, state = ours(stack.cell, stack.x[:LONG], stack.weights[0], stack.state[0])
        second, after = ours(stack.cell, stack.x[LONG:], stack.weights[0], state)
        assert relative([tf.concat([first, second], 0).numpy()], [whole.numpy()]) < 1e-14
        assert relative(after, end) < 1e-14

    def test_a_state_carried_out_of_the_window_is_the_shorter_windows(self, cell):
        stack = Stack(cell, 1, LONG)
        at = in_blocks(stack.x), stack.weights[0], stack.state[0]
        for carry in (1, STEPS_PER_BLOCK, LONG - 1, LONG):
            _, state = ours(stack.cell, stack.x[:carry], *at[1:])
            with tf.GradientTape() as tape:
                tape.watch(at)
                _, carried = unroll(stack.cell, *at, carry=carry)
                total = sum(map(tf.reduce_sum, carried))
            assert relative(carried, state) < 1e-14
            gradient = tape.gradient(total, at, unconnected_gradients="zero")
            assert all(not tf.reduce_any(g != 0) for g in tf.nest.flatten(gradient))

    def test_a_reset_forgets_all_that_came_before(self, cell):
        stack = Stack(cell, 1, LONG)
        resets = np.zeros((LONG, B))
        resets[20, 1] = 1
        x = stack.x.numpy()
        x[:20] += 1
        a, b = (
            ours(stack.cell, inputs, stack.weights[0], stack.state[0], tf.constant(resets))[0].numpy()
            for inputs in (stack.x, tf.constant(x))
        )
        assert np.abs(a[20:, :, 1] - b[20:, :, 1]).max() == 0
        assert np.abs(a[20:, :, 0] - b[20:, :, 0]).max() > 1e-6


@pytest.mark.parametrize("cell", LAYERS)
def test_adjoints_are_the_gradients_of_every_windows_start(cell, errors):
    """dL/d the state that step t started from is the incoming state's gradient of the window that begins at t."""
    stack = Stack(cell, 1, LONG)
    (weights,), (state,) = stack.weights, stack.state
    x, d_hidden = in_blocks(stack.x), in_blocks(stack.read_hidden)
    window = forward_window(stack.cell, x, weights, state)
    found = backward_window(stack.cell, x, weights, window, d_hidden, stack.read_final[0], with_adjoints=True)
    for t in (1, 7, STEPS_PER_BLOCK, LONG - 1):
        start = window.state(stack.cell, t)
        with tf.GradientTape() as tape:
            tape.watch(start)
            hidden, final = unrolled_by_autodiff(stack.cell, stack.x[t:], weights, start, None)
            loss = tf.reduce_sum(hidden * stack.read_hidden[t:])
            loss += sum(tf.reduce_sum(a * b) for a, b in zip(final, stack.read_final[0], strict=True))
        error = relative([a[t].numpy() for a in found.adjoints], [g.numpy() for g in tape.gradient(loss, start)])
        assert errors("state gradient at every step", cell, 1, error) < 1e-11


@multiplies_bfloat16
@pytest.mark.parametrize("cell", LAYERS)
def test_bfloat16_operands(cell, errors):
    """Operands have 8 significant bits, sums and state are float32: gradients stay within 5 % of float32's.

    The weights are those of a stable network: a plain RNN with larger ones makes 13 % of a rounding.
    """
    stack = Stack(cell, 2, LONG, scale=0.3)

    def low(cell, x, weights, state, resets):
        hidden, final = ours(cell, x, weights, state, resets, tf.bfloat16)
        return tf.cast(hidden, x.dtype), final

    error = relative(gradients(stack, low), gradients(stack, ours))
    assert 0 < errors("bfloat16 operands", cell, 2, error) < 0.05
