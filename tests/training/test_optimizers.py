"""Each optimizer against its formula in NumPy float64, Keras 3, or torch.optim's own class."""

import copy
import io
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from mnist_bench.config.schema import TrainConfig
from mnist_bench.training.optimizers import build_optimizer
from mnist_bench.training.optimizers.muon import orthogonalise
from tests.support.keras_reference import double_precision

Compose = Callable[..., TrainConfig]
CONF = Path(__file__).parents[2] / "conf" / "optimizer"
OPTIONS = sorted(path.stem for path in CONF.glob("*.yaml"))
SIZE, STEPS = 40, 50
# Gradients from far below eps to far above it, one scale for each weight.
SCALES = np.logspace(-10, 1, SIZE)


def gradients(steps: int = STEPS) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1, (steps, SIZE)) * SCALES


def start() -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(np.random.default_rng(1).normal(0, 1, SIZE)))


def apply(optimizer: torch.optim.Optimizer, weight: nn.Parameter, rows: np.ndarray) -> np.ndarray:
    """The weights, float64, after each of the steps with the given gradients."""
    path = []
    for row in rows:
        weight.grad = torch.from_numpy(row.copy())
        optimizer.step()
        path.append(weight.detach().numpy().copy())
    return np.stack(path)


def trajectory(compose: Compose, *overrides: str) -> np.ndarray:
    weight = start()
    return apply(build_optimizer(compose(*overrides).optimizer, [weight]), weight, gradients())


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_descends_a_parabola(compose: Compose, option: str) -> None:
    weight = nn.Parameter(torch.full((4,), 3.0))
    optimizer = build_optimizer(compose(f"optimizer={option}").optimizer, [weight])
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = weight.square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


# --- Keras's forms ----------------------------------------------------------------------------


def adam_formula(rows: np.ndarray) -> np.ndarray:
    """Of Keras from 2018 to Keras 3."""
    lr, beta1, beta2, eps = 1e-3, 0.9, 0.999, 1e-7
    weight, m, v, path = start().detach().numpy().copy(), 0.0, 0.0, []
    for t, g in enumerate(rows, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        weight = weight - lr * np.sqrt(1 - beta2**t) / (1 - beta1**t) * m / (np.sqrt(v) + eps)
        path.append(weight)
    return np.stack(path)


def adadelta_formula(rows: np.ndarray) -> np.ndarray:
    """Of Keras from 2018 to Keras 3, with the learning rate 1 of 2018."""
    rho, eps = 0.95, 1e-7
    weight = start().detach().numpy().copy()
    squares, steps, path = np.zeros(SIZE), np.zeros(SIZE), []
    for g in rows:
        squares = rho * squares + (1 - rho) * g**2
        step = g * np.sqrt(steps + eps) / np.sqrt(squares + eps)
        steps = rho * steps + (1 - rho) * step**2
        weight = weight - step
        path.append(weight)
    return np.stack(path)


def rmsprop_formula(
    rows: np.ndarray,
    lr: float = 1e-3,
    inside: bool = False,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> np.ndarray:
    """Divided by √v + eps as in 2018, or with eps `inside` the root as in Keras 3."""
    rho, eps = 0.9, 1e-7
    weight, v, velocity, path = start().detach().numpy().copy(), 0.0, 0.0, []
    for row in rows:
        g = row + weight_decay * weight
        v = rho * v + (1 - rho) * g**2
        step = lr * g / (np.sqrt(v + eps) if inside else np.sqrt(v) + eps)
        velocity = momentum * velocity + step
        weight = weight - velocity
        path.append(weight)
    return np.stack(path)


FORMULAS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "keras_adam": adam_formula,
    "keras_adadelta": adadelta_formula,
    "keras_rmsprop": rmsprop_formula,
    "recipe/vgg16": partial(rmsprop_formula, lr=1e-4),
    "keras3_rmsprop": partial(rmsprop_formula, inside=True),
    "keras3_rmsprop optimizer.momentum=0.7 optimizer.weight_decay=0.1": partial(
        rmsprop_formula, inside=True, momentum=0.7, weight_decay=0.1
    ),
}
# With Keras 3's own defaults, but for Adadelta's rate, which was 1 in 2018 and is 0.001 now.
KERAS_3: dict[str, Callable[[], keras.Optimizer]] = {
    "keras_adam": keras.optimizers.Adam,
    "keras_adadelta": partial(keras.optimizers.Adadelta, learning_rate=1.0),
    "keras3_rmsprop": keras.optimizers.RMSprop,
    "keras3_rmsprop optimizer.momentum=0.7": partial(keras.optimizers.RMSprop, momentum=0.7),
}


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())


@pytest.mark.parametrize("settings", FORMULAS)
def test_keras_forms_follow_their_formulas(compose: Compose, settings: str) -> None:
    option, *overrides = settings.split()
    found = trajectory(compose, f"optimizer={option}", *overrides)
    assert distance(found, FORMULAS[settings](gradients())) < 1e-12


@pytest.mark.parametrize("settings", KERAS_3)
def test_keras_forms_step_as_keras_3_does(compose: Compose, settings: str) -> None:
    """And go on as it does when the learning rate is halved."""
    option, *overrides = settings.split()
    weight = start()
    ours = build_optimizer(compose(f"optimizer={option}", *overrides).optimizer, [weight])
    first, second = np.split(gradients(), 2)
    found = [apply(ours, weight, first)]
    ours.param_groups[0]["lr"] /= 2
    found.append(apply(ours, weight, second))

    expected = []
    with double_precision():
        theirs, variable = KERAS_3[settings](), keras.Variable(start().detach().numpy())
        for rows in (first, second):
            for row in rows:
                theirs.apply([row], [variable])
                expected.append(np.array(variable))
            theirs.learning_rate = theirs.learning_rate / 2
    assert distance(np.concatenate(found), np.stack(expected)) < 1e-12


def test_pytorch_adam_with_keras_eps_is_another_optimizer(compose: Compose) -> None:
    """Where gradients are near eps, its first steps are up to 1/√(1-0.999) = 31 times as long."""
    plain = trajectory(compose, "optimizer=adam", "optimizer.lr=1e-3", "optimizer.eps=1e-7")
    moved = np.abs(plain[0] - start().detach().numpy())
    keras_moved = np.abs(adam_formula(gradients())[0] - start().detach().numpy())
    ratio = moved / np.maximum(keras_moved, 1e-15)
    assert ratio[(SCALES > 1e-9) & (SCALES < 1e-8)].min() > 5
    np.testing.assert_allclose(ratio[SCALES > 1], 1, rtol=1e-4)


def test_rmsprop_of_keras_3_is_another_optimizer_than_that_of_2018() -> None:
    """Where gradients are small: a step of 2018 is up to 1/√eps = 3162 times as long."""
    first = gradients(1)
    moved = np.abs(rmsprop_formula(first)[0] - start().detach().numpy())
    keras_3_moved = np.abs(rmsprop_formula(first, inside=True)[0] - start().detach().numpy())
    ratio = moved / np.maximum(keras_3_moved, 1e-15)
    assert ratio[(SCALES > 1e-7) & (SCALES < 1e-5)].min() > 30
    np.testing.assert_allclose(ratio[SCALES > 1], 1, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    ["keras_adam", "keras_adadelta", "keras_rmsprop", "keras3_rmsprop optimizer.momentum=0.7"],
)
def test_keras_forms_continue_exactly_from_a_saved_state(compose: Compose, settings: str) -> None:
    option, *overrides = settings.split()
    config, rows = compose(f"optimizer={option}", *overrides).optimizer, gradients()
    weight = start()
    whole = apply(build_optimizer(config, [weight]), weight, rows)

    weight = start()
    first = build_optimizer(config, [weight])
    apply(first, weight, rows[:20])
    file = io.BytesIO()
    torch.save({"weight": weight.detach(), "optimizer": first.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    weight = nn.Parameter(saved["weight"])
    second = build_optimizer(config, [weight])
    second.load_state_dict(saved["optimizer"])
    np.testing.assert_array_equal(apply(second, weight, rows[20:]), whole[20:])


def test_keras3_rmsprop_leaves_weights_without_a_gradient_alone(compose: Compose) -> None:
    weights = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))]
    optimizer = build_optimizer(compose("optimizer=keras3_rmsprop").optimizer, weights)
    optimizer.step()
    weights[1].grad = torch.ones(3)
    assert optimizer.step(lambda: 7.0) == 7.0
    assert torch.equal(weights[0], torch.ones(3)) and (weights[1] < 1).all()


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("keras_adam", {"name": "adam", "lr": 1e-3, "eps": 1e-7, "epsilon_hat": True}),
        ("keras_adadelta", {"name": "adadelta", "lr": 1.0, "rho": 0.95, "eps": 1e-7}),
        (
            "keras_rmsprop",
            {"name": "rmsprop", "lr": 1e-3, "alpha": 0.9, "eps": 1e-7, "eps_inside_sqrt": False},
        ),
        (
            "keras3_rmsprop",
            {"name": "rmsprop", "lr": 1e-3, "alpha": 0.9, "eps": 1e-7, "eps_inside_sqrt": True},
        ),
        ("recipe/vgg16", {"name": "rmsprop", "lr": 1e-4, "alpha": 0.9, "eps": 1e-7}),
        ("adam", {"name": "adam", "eps": 1e-8, "epsilon_hat": False}),
    ],
)
def test_named_settings_are_the_published_ones(
    compose: Compose, option: str, values: dict[str, object]
) -> None:
    config = compose(f"optimizer={option}").optimizer
    assert {key: getattr(config, key) for key in values} == values
    assert config.weight_decay == 0 and getattr(config, "momentum", 0) == 0
    assert list(getattr(config, "betas", (0.9, 0.999))) == [0.9, 0.999]


# --- PyTorch's forms --------------------------------------------------------------------------

PYTORCH: list[tuple[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]]] = [
    ("adam model.adam_lr=1e-3", torch.optim.Adam),
    ("adamw", torch.optim.AdamW),
    ("adadelta", torch.optim.Adadelta),
    ("rmsprop", lambda p: torch.optim.RMSprop(p, lr=1e-3)),
    ("sgd", lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9)),
    (
        "adam optimizer.lr=0.01 optimizer.betas=[0.8,0.95] optimizer.eps=1e-5 "
        "optimizer.weight_decay=0.1",
        lambda p: torch.optim.Adam(p, 0.01, (0.8, 0.95), 1e-5, weight_decay=0.1),
    ),
    (
        "adamw optimizer.lr=0.01 optimizer.betas=[0.8,0.95] optimizer.eps=1e-5 "
        "optimizer.weight_decay=0.1",
        lambda p: torch.optim.AdamW(p, 0.01, (0.8, 0.95), 1e-5, weight_decay=0.1),
    ),
    (
        "adadelta optimizer.lr=0.1 optimizer.rho=0.8 optimizer.eps=1e-4 optimizer.weight_decay=0.1",
        lambda p: torch.optim.Adadelta(p, 0.1, 0.8, 1e-4, weight_decay=0.1),
    ),
    (
        "rmsprop optimizer.lr=0.01 optimizer.alpha=0.8 optimizer.eps=1e-4 optimizer.momentum=0.7 "
        "optimizer.weight_decay=0.1",
        lambda p: torch.optim.RMSprop(p, 0.01, 0.8, 1e-4, weight_decay=0.1, momentum=0.7),
    ),
    (
        "sgd optimizer.lr=0.01 optimizer.momentum=0.7 optimizer.nesterov=true "
        "optimizer.weight_decay=0.1",
        lambda p: torch.optim.SGD(p, 0.01, momentum=0.7, weight_decay=0.1, nesterov=True),
    ),
]


@pytest.mark.parametrize(("settings", "reference"), PYTORCH, ids=[s[:40] for s, _ in PYTORCH])
def test_plain_optimizers_equal_pytorchs_own(
    compose: Compose, settings: str, reference: Callable[..., torch.optim.Optimizer]
) -> None:
    option, *overrides = settings.split()
    weight = start()
    expected = apply(reference([weight]), weight, gradients())
    found = trajectory(compose, f"optimizer={option}", *overrides)
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)


def test_adam_takes_pytorchs_steps_whatever_lies_where(compose: Compose) -> None:
    """In any layout, where a weight has no gradient at times, and from a state of before."""
    config = compose("optimizer=adam", "optimizer.weight_decay=0.1").optimizer
    loop_over_weights = partial(torch.optim.Adam, lr=config.lr, weight_decay=0.1, foreach=False)
    forms = torch.contiguous_format, torch.channels_last
    found: list[list[Tensor]] = []
    for build in (loop_over_weights, partial(build_optimizer, config)):
        torch.manual_seed(0)
        weights = [torch.randn(8, 4, 3, 3).contiguous(memory_format=form) for form in forms]
        weights += [torch.randn(5, 4), torch.ones(3)]
        optimizer = build([weight.requires_grad_() for weight in weights])
        for step in range(12):
            for weight in weights:
                form = forms[step % 2] if weight.dim() == 4 else torch.preserve_format
                weight.grad = torch.randn(weight.shape).contiguous(memory_format=form)
            if step in (4, 5):
                weights[2].grad = None
            optimizer.step()
            if step == 3:
                state = copy.deepcopy(optimizer.state_dict())
            if step == 9:
                optimizer = build(weights)
            if step in (7, 9):
                optimizer.load_state_dict(copy.deepcopy(state))
        found.append([weight.detach() for weight in weights])
    for expected, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


# --- Muon -------------------------------------------------------------------------------------


def test_muon_is_pytorchs_for_matrices_and_adam_for_the_rest(compose: Compose) -> None:
    """PyTorch's own takes matrices only: a kernel is given to it with its rows laid flat."""
    torch.manual_seed(0)
    shapes = [(6, 2, 3, 3), (6,), (40, 12), (40,), (12, 30), (10, 12), (10,)]
    weights = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    config = compose(
        *("optimizer=muon", "optimizer.lr=0.05", "optimizer.weight_decay=0.1"),
        *("optimizer.momentum=0.8", "optimizer.adam_lr_ratio=0.2"),
    ).optimizer
    ours = build_optimizer(config, weights)
    copies = [nn.Parameter(weight.detach().clone()) for weight in weights]
    matrices = {i: nn.Parameter(copies[i].detach().flatten(1)) for i in (0, 2, 4)}
    muon = torch.optim.Muon(matrices.values(), 0.05, weight_decay=0.1, momentum=0.8)
    others = [copies[i] for i in (1, 3, 5, 6)]
    adam_config = compose("optimizer=keras_adam", "optimizer.lr=0.01").optimizer
    adam_config.betas, adam_config.eps = (0.7, 0.9), 1e-8
    adam = build_optimizer(adam_config, others)
    for _ in range(10):
        gradients = [torch.randn_like(weight) for weight in weights]
        for i, gradient in enumerate(gradients):
            weights[i].grad = gradient
            reference = matrices.get(i, copies[i])
            reference.grad = gradient.view_as(reference).clone()
        ours.step()
        muon.step()
        with torch.no_grad():
            for other in others:
                other.mul_(1 - 0.01 * 0.1)
        adam.step()
    for i, weight in enumerate(weights):
        expected = matrices.get(i, copies[i]).view_as(weight)
        # PyTorch's multiplies its matrices in bfloat16.
        tolerance = {"rtol": 0, "atol": 0.01} if i in matrices else {"rtol": 1e-4, "atol": 1e-5}
        torch.testing.assert_close(weight, expected, **tolerance)


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16)])
def test_orthogonalised_matrices_keep_their_directions(shape: tuple[int, int]) -> None:
    """U S V' becomes U S' V' with S' near 1, against the decomposition itself."""
    torch.manual_seed(0)
    left, values, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = left * torch.linspace(0.2, 1, len(values)) @ right
    inner = left.T @ orthogonalise(matrix, 5) @ right.T
    diagonal = inner.diagonal()
    assert diagonal.min() > 0.6 and diagonal.max() < 1.3
    assert (inner - diagonal.diag()).abs().max() < 0.05


# --- Hooks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["adam", "keras_adam"])
def test_hooks_of_a_step_are_called_once_in_every_step(compose: Compose, option: str) -> None:
    weight = start()
    optimizer = build_optimizer(compose(f"optimizer={option}").optimizer, [weight])
    calls: list[str] = []
    plain = trajectory(compose, f"optimizer={option}")
    handles = [
        optimizer.register_step_pre_hook(lambda *_: calls.append("before")),
        optimizer.register_step_post_hook(lambda *_: calls.append("after")),
        register_optimizer_step_pre_hook(lambda *_: calls.append("before any")),
    ]
    hooked = apply(optimizer, weight, gradients())
    for handle in handles:
        handle.remove()
    assert calls == ["before any", "before", "after"] * len(hooked)
    assert np.array_equal(hooked, plain)
    apply(optimizer, weight, gradients()[:1])
    assert len(calls) == 3 * len(hooked)
