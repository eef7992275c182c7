"""Recurrent layers in plain NumPy, batch-major, one time step after another: what the fast code must agree with."""

import numpy as np


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def lstm(x, kernel, recurrent_kernel, bias, h, c):
    """x [T, B, E], h and c [B, H] -> h after every step [T, B, H], (h, c). Keras' gate order: i, f, g, o."""
    hidden = []
    for x_t in x:
        i, f, g, o = np.split(x_t @ kernel + h @ recurrent_kernel + bias, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        hidden.append(h)
    return np.stack(hidden), (h, c)


def gru(x, kernel, recurrent_kernel, bias, h):
    """As lstm. Keras' gate order: z, r, n, with the reset gate after the product."""
    hidden = []
    for x_t in x:
        xz, xr, xn = np.split(x_t @ kernel + bias[0], 3, axis=-1)
        uz, ur, un = np.split(h @ recurrent_kernel + bias[1], 3, axis=-1)
        z, r = sigmoid(xz + uz), sigmoid(xr + ur)
        h = z * h + (1 - z) * np.tanh(xn + r * un)
        hidden.append(h)
    return np.stack(hidden), (h,)


def rnn(x, kernel, recurrent_kernel, bias, h):
    """As lstm."""
    hidden = []
    for x_t in x:
        h = np.tanh(x_t @ kernel + h @ recurrent_kernel + bias)
        hidden.append(h)
    return np.stack(hidden), (h,)


LAYERS = {"lstm": lstm, "gru": gru, "rnn": rnn}


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
