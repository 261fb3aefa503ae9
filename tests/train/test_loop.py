import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error
from torch import nn

from bench.spec import seed_for
from bench.train.learner import Learner
from bench.train.loader import VolumeLoader
from bench.train.loop import Diverged, fit, make_optimizer, make_schedule, planned_epochs
from bench.train.selection import selection_score
from registry.cards import Task
from registry.models import AUGMENT, COMMON, RECIPE

AGE = Task("age", "regression")
AD = Task("diagnosis", "classification", ("CN", "AD"))
THREE = Task("diagnosis", "classification", ("CN", "MCI", "AD"))
CPU = torch.device("cpu")
SHAPE = (3, 4, 3)


def recipe(**changes):
    return {name: o.default for name, o in (RECIPE | AUGMENT | COMMON).items()} | changes


def cohort(n=20, task=AGE, seed=0):
    rng = np.random.default_rng(seed)
    volumes = rng.normal(size=(n, *SHAPE)).astype(np.float16)
    if task.kind == "regression":
        targets = 60 + 5 * volumes.reshape(n, -1)[:, 0].astype(float)
    else:
        targets = rng.integers(0, len(task.classes), n).astype(float)
    return volumes, targets


def network(outputs=1, norm=False):
    torch.manual_seed(1)
    layers = [nn.Flatten(), nn.Linear(math.prod(SHAPE), 4)]
    if norm:
        layers.append(nn.BatchNorm1d(4, momentum=0.01))
    return nn.Sequential(*layers, nn.ReLU(), nn.Linear(4, outputs))


def loaders(volumes, targets, n_train=12):
    rows = np.arange(len(targets))
    return (
        VolumeLoader(volumes, rows[:n_train], targets[:n_train], CPU),
        VolumeLoader(volumes, rows[n_train:], targets[n_train:], CPU),
    )


def learner(net, task, params, targets, precision="fp32"):
    return Learner(net, task, params, targets, device=CPU, precision=precision)


def run(net, params, task=AGE, epochs=3, random_stream="0", seen=None, n=20):
    volumes, targets = cohort(n, task)
    train, validation = loaders(volumes, targets)
    taught = learner(net, task, params, targets[:12])
    found = fit(
        taught,
        train,
        validation,
        params,
        epochs=epochs,
        random_stream=random_stream,
        on_epoch=(lambda e, s: seen.append((e, s))) if seen is not None else lambda e, s: None,
    )
    return taught, found, validation


def test_the_loop_is_bitwise_the_loop_one_would_write_by_hand():
    params = recipe(lr=1e-2, batch_size=5)
    taught, _, _ = run(network(), params, epochs=2)
    volumes, targets = cohort()
    net = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, weight_decay=1e-4)
    mean, scale = targets[:12].mean(), targets[:12].std()
    scores = []
    for epoch in (1, 2):
        order = np.random.default_rng(seed_for("order", "0", epoch)).permutation(12)
        for start in range(0, 12, 5):
            index = order[start : start + 5]
            x = torch.from_numpy(volumes[index]).float()[:, None]
            y = ((torch.from_numpy(targets[index]) - mean) / scale).float()
            optimizer.zero_grad()
            ((net(x)[:, 0] - y) ** 2).mean().backward()
            optimizer.step()
        with torch.no_grad():
            guess = net(torch.from_numpy(volumes[12:]).float()[:, None])[:, 0].double()
        scores.append(float((guess * scale + mean - torch.from_numpy(targets[12:])).abs().mean()))
    assert scores[1] < scores[0]
    for mine, theirs in zip(taught.network.parameters(), net.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_best_epoch_is_the_one_that_is_left_loaded():
    params = recipe(lr=3.0, batch_size=4, optimizer="sgd", weight_decay=0.0, clip=0.5)
    seen = []
    taught, found, validation = run(network(), params, epochs=8, seen=seen)
    scores = [score for _, score in seen]
    assert found.best_epoch == int(np.argmin(scores)) + 1 < 8
    again = selection_score(AGE, validation.targets.numpy(), taught.predict(validation), "loss")
    assert again == min(scores) == found.best_score


def test_of_equal_epochs_the_earlier_wins():
    params = recipe(lr=1e-8, weight_decay=0.0)
    net = network()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    net[-1].bias.requires_grad_(True)
    net[-1].register_forward_hook(lambda *_: _[2] * 0)
    _, found, _ = run(net, params, epochs=3)
    assert len({row["validation"] for row in found.history}) == 1
    assert found.best_epoch == 1


def test_early_stopping_counts_epochs_without_improvement():
    params = recipe(lr=3.0, optimizer="sgd", weight_decay=0.0, clip=0.5, early_stopping=2)
    _, found, _ = run(network(), params, epochs=50)
    assert len(found.history) == found.best_epoch + 2


def test_a_loss_that_is_no_number_is_a_divergence_with_its_epoch():
    with pytest.raises(Diverged, match="epoch 1"):
        run(network(), recipe(lr=1e9, optimizer="sgd", batch_size=1), epochs=5)


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    one, two, other = (run(network(), recipe(lr=1e-2), random_stream=d)[0] for d in ("0", "0", "1"))
    weights = [taught.network[1].weight for taught in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        ({}, [1, 1, 1, 1]),
        ({"warmup": 0.5}, [1 / 3, 2 / 3, 1, 1]),
        ({"schedule": "cosine"}, [1, 0.5 + 0.25 * math.sqrt(2), 0.5, 0.5 - 0.25 * math.sqrt(2)]),
    ],
)
def test_the_learning_rate_takes_its_course(settings, factors):
    params = recipe(lr=2.0, **settings)
    optimizer = make_optimizer(network(), params)
    schedule = make_schedule(optimizer, params, steps=4)
    rates = []
    for _ in range(4):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([2.0 * f for f in factors])


def test_equal_steps_stretch_the_epochs_of_small_training_sets():
    assert planned_epochs(recipe(epochs=10), 24, 96) == 10
    assert planned_epochs(recipe(epochs=10, length="steps"), 24, 96) == 40
    assert planned_epochs(recipe(epochs=10, length="steps"), 96, 96) == 10


@pytest.mark.parametrize("task", [AD, THREE])
@pytest.mark.parametrize("weights", ["none", "balanced"])
def test_cross_entropy_equals_scikit_learns(task, weights):
    volumes, targets = cohort(20, task, seed=3)
    net = network(task.n_outputs)
    taught = learner(net, task, recipe(class_weights=weights), targets)
    loss = taught.loss(torch.from_numpy(volumes).float()[:, None], torch.from_numpy(targets))
    guesses = taught.predict(VolumeLoader(volumes, np.arange(20), None, CPU))
    if task is AD:
        guesses = np.column_stack([1 - guesses, guesses])
    sample = None
    if weights == "balanced":
        counts = np.bincount(targets.astype(int))
        sample = (20 / (len(counts) * counts))[targets.astype(int)]
    wanted = log_loss(targets, guesses, sample_weight=sample)
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-5)


def test_the_selection_score_equals_scikit_learns():
    rng = np.random.default_rng(0)
    ages, guesses = rng.normal(60, 5, 30), rng.normal(60, 5, (30, 1))
    mae = selection_score(AGE, ages, guesses, "loss")
    assert mae == pytest.approx(mean_absolute_error(ages, guesses))
    labels = rng.integers(0, 3, 30)
    probabilities = rng.dirichlet([1, 1, 1], 30)
    score = selection_score(THREE, labels, probabilities, "loss")
    assert score == pytest.approx(log_loss(labels, probabilities))
    wrong = 1 - accuracy_score(labels, probabilities.argmax(1))
    assert selection_score(THREE, labels, probabilities, "accuracy") == pytest.approx(wrong)
    binary = (labels > 0).astype(int)
    one = selection_score(AD, binary, probabilities[:, 1:2], "loss")
    assert one == pytest.approx(log_loss(binary, probabilities[:, 1]))


def test_recalibrated_statistics_are_those_of_the_training_subset():
    volumes, targets = cohort(20)
    net = network(norm=True)
    taught = learner(net, AGE, recipe(batch_size=20), targets)
    taught.train_mode()
    before = torch.random.get_rng_state()
    taught.recalibrate(VolumeLoader(volumes, np.arange(20), targets, CPU))
    hidden = net[1](net[0](torch.from_numpy(volumes).float()))
    assert torch.allclose(net[2].running_mean, hidden.mean(0), atol=1e-6)
    assert torch.allclose(net[2].running_var, hidden.var(0), atol=1e-6)
    assert net[2].momentum == 0.01
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize(("bn", "moves"), [("running", True), ("frozen", False)])
def test_batch_norm_runs_or_stands_still_as_asked(bn, moves):
    net = network(norm=True)
    run(net, recipe(bn=bn), epochs=1)
    assert (not torch.equal(net[2].running_mean, torch.zeros(4))) is moves


def test_bf16_trains_near_fp32():
    losses = []
    for precision in ("fp32", "bf16"):
        volumes, targets = cohort()
        taught = learner(network(), AGE, recipe(), targets, precision)
        x = torch.from_numpy(volumes).float()[:, None]
        losses.append(taught.loss(x, torch.from_numpy(targets)).item())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
