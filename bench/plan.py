"""From a request to what will run: grid, constraints, what the store already has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

from bench.data.cohort import Cohort
from bench.primary_analysis import DEFAULT_ANALYSIS, PrimaryAnalysis, check_analysis
from bench.spec import (
    Arm,
    Component,
    StudySpec,
    TrialSpec,
    arm_from_plain,
    dimension_to_plain,
    key_of,
)
from bench.store import schema
from bench.store.store import DONE, FAILED, Store
from registry.cards import EncoderCard, ModelCard, Value
from registry.core import catalogue, did_you_mean, plugin_digest
from registry.errors import UserError
from registry.models import model_options, slice_plane


@dataclass(frozen=True)
class RunRequest:
    """What was asked for, names checked by nobody yet."""

    models: Sequence[str]
    seeds: Sequence[int]
    sizes: Sequence[int | str] = ("all",)
    encoders: Sequence[str] = ()
    trials: int = 20
    tune: str = "shared"
    settings: Mapping[str, str] = field(default_factory=dict)
    device: str = "auto"
    precision: str = "fp32"
    reuse: str = "yes"
    weights: Mapping[str, str] = field(default_factory=dict)
    """Files of encoders' pretrained weights, by name; `must_use` names those that must serve."""
    must_use: Sequence[str] = ()
    cache: Path = Path()
    allow_overlap: bool = False
    """Test encoders also on the cohorts that their weights have seen."""
    declared: PrimaryAnalysis = DEFAULT_ANALYSIS


@dataclass(frozen=True)
class PlannedTrial:
    """One cell of the grid: `action` is run, reuse, failed or missing."""

    spec: TrialSpec
    study: StudySpec | None
    action: str


@dataclass(frozen=True)
class Plan:
    """What one command will do on one cohort."""

    cohort: Cohort
    arms: Mapping[str, Arm]
    cards: Mapping[str, ModelCard]
    """By arm key, like `weights`."""
    weights: Mapping[str, str]
    trials: Sequence[PlannedTrial]
    studies: Sequence[StudySpec]
    """Those that must run before their trials can."""
    sizes: Sequence[int]
    dropped: Sequence[tuple[str, str]]
    seconds: float | None
    """Expected work, from stored durations; None when nothing comparable was run."""

    def count(self, action: str) -> int:
        """Return how many trials have that action."""
        return sum(trial.action == action for trial in self.trials)


def make_plan(
    request: RunRequest, cohort: Cohort, store: Store | None, announce: Callable[[str], None]
) -> Plan:
    """Cross models, encoders, sizes and seeds; drop what cannot run; look up what is there.

    Parameters
    ----------
    request : RunRequest
        What was asked for.
    cohort : Cohort
        The opened dataset.
    store : Store or None
        What has been run before; None when there is no database yet.
    announce : callable
        Told in words what takes time.

    Raises
    ------
    UserError
        For unknown names and settings, values out of range, missing weights, a model that does not
        fit its contract, a declaration that cannot be kept, or a grid of which nothing can run.
    """
    cards = [catalogue.model(name) for name in dict.fromkeys(request.models)]
    settings = {card.name: _parse_settings(request.settings, card) for card in cards}
    _refuse_unknown_settings(request.settings, cards)
    sizes = resolve_sizes(request.sizes, cohort)
    if request.encoders and not any(c.encoder and not c.encoder_fixed for c in cards):
        raise UserError("--encoder was given, but none of the chosen models takes an encoder.")
    _refuse_unused_weights(request, cards)
    precision = _resolve_precision(request, cards, cohort, store)
    dropped: list[tuple[str, str]] = []
    arms: dict[str, Arm] = {}
    arm_cards: dict[str, ModelCard] = {}
    weights: dict[str, str] = {}
    for card in cards:
        for encoder in _encoders_of(card, request.encoders):
            label = card.name if encoder is None else f"{card.name} with {encoder.name}"
            params = resolve_params(card, settings[card.name])
            reason = _impossible(card, encoder, params, cohort, request.weights)
            if not reason and not request.allow_overlap and _overlaps(card, encoder, cohort):
                reason = (
                    f"its weights have seen {cohort.tested_on}, which it would be tested on "
                    "(--allow-pretraining-overlap does it all the same, and the report says so)"
                )
            if reason:
                dropped.append((label, reason))
                continue
            arm, file = _make_arm(card, encoder, params, request, cohort, precision)
            arms[arm.key], arm_cards[arm.key], weights[arm.key] = arm, card, file
    if not arms:
        reasons = "; ".join(f"{what}: {why}" for what, why in dropped)
        raise UserError(f"Nothing of this request can run: {reasons}.")
    models = [arm.model.name for arm in arms.values()]
    check_analysis(request.declared, cohort.task, cohort.name, models, sizes, pool=cohort.n_pool)
    specs: list[tuple[TrialSpec, StudySpec | None]] = []
    for key, arm in arms.items():
        for size in sizes:
            least = arm_cards[key].constraints.min_train
            if size < least:
                what = f"{arm_cards[key].name} at {size} subjects"
                dropped.append((what, f"it needs at least {least}"))
                continue
            for seed in dict.fromkeys(request.seeds):
                specs.append((TrialSpec.of(arm, size, seed), StudySpec.of(arm, size, seed)))
    trials, studies = _look_up(specs, store, request.reuse)
    if any(trial.action == "run" for trial in trials):
        running = {trial.spec.arm.key for trial in trials if trial.action == "run"}
        _check_contracts(running, arms, arm_cards, weights, cohort, request, announce)
    return Plan(
        cohort=cohort,
        arms=arms,
        cards=arm_cards,
        weights=weights,
        trials=trials,
        studies=studies,
        sizes=sizes,
        dropped=dropped,
        seconds=_expected_seconds(trials, studies, store),
    )


def resolve_params(card: ModelCard, settings: Mapping[str, Value]) -> dict[str, Value]:
    """Return the value of every option: what was set, else the card's, else the option's own.

    Options that came later are left out at their default (see `complete_params`).
    """
    options = model_options(card)
    values = {name: card.defaults.get(name, option.default) for name, option in options.items()}
    values |= {name: value for name, value in settings.items() if name in options}
    return {
        name: value
        for name, value in values.items()
        if not (options[name].later and value == options[name].default)
    }


def resolve_sizes(sizes: Sequence[int | str], cohort: Cohort) -> list[int]:
    """Return training sizes as numbers of subjects, ``all`` being the pool.

    Raises
    ------
    UserError
        When one is below 1 or larger than the pool.
    """
    pool = cohort.n_pool
    found = []
    for size in sizes:
        number = pool if size == "all" else int(size)
        if number < 1:
            raise UserError(f"--train-sizes {size}: a training size is at least 1 subject.")
        if number > pool:
            raise UserError(
                f"--train-sizes {size}: {cohort.name} has {pool} subjects to train on after 40 % "
                "were set aside for validation and test; choose at most that, or `all`."
            )
        found.append(number)
    return list(dict.fromkeys(found))


def _parse_settings(settings: Mapping[str, str], card: ModelCard) -> dict[str, Value]:
    """Return what was set of a model's options, each as its own option reads it."""
    options, parsed = model_options(card), {}
    for name, text in settings.items():
        if name in options:
            try:
                parsed[name] = options[name].parse(text)
            except ValueError as error:
                raise UserError(f"--set {name}={text}: {error} ({card.name}).") from None
    return parsed


def _refuse_unknown_settings(settings: Mapping[str, str], cards: Sequence[ModelCard]) -> None:
    known = {name for card in cards for name in model_options(card)}
    for name in settings:
        if name not in known:
            raise UserError(
                f"--set {name}: none of the chosen models has this setting"
                f"{did_you_mean(name, known)}; `bench show MODEL --all` lists them."
            )


def _encoders_of(card: ModelCard, chosen: Sequence[str]) -> list[EncoderCard | None]:
    if card.encoder is None:
        return [None]
    names = [card.encoder] if card.encoder_fixed or not chosen else list(dict.fromkeys(chosen))
    return [catalogue.encoder(name) for name in names]


def _refuse_unused_weights(request: RunRequest, cards: Sequence[ModelCard]) -> None:
    """Refuse a file that no model would start from: its name would promise what is not done."""
    starts = {
        encoder.name
        for card in cards
        if card.pretrained
        for encoder in _encoders_of(card, request.encoders)
        if encoder is not None
    }
    for name in request.must_use:
        if catalogue.encoder(name).name not in starts:
            raise UserError(
                f"--weights {name}={request.weights[name]}: none of the chosen models starts from "
                f"pretrained weights of the encoder {name}; leave it out, or choose one that does, "
                f"such as slice2d-imagenet with --encoder {name}."
            )


def _impossible(
    card: ModelCard,
    encoder: EncoderCard | None,
    params: Mapping[str, Value],
    cohort: Cohort,
    given: Mapping[str, str],
) -> str:
    """Return why this combination cannot run, or nothing."""
    task = cohort.task
    if task.kind not in card.constraints.tasks:
        return f"it cannot do {task.kind}"
    if task.kind == "regression" and params.get("select") == "accuracy":
        return "select=accuracy needs classes"
    if encoder is None:
        return ""
    if card.pretrained and encoder.weights is None and encoder.name not in given:
        return (
            f"the encoder {encoder.name} has no pretrained weights (--weights {encoder.name}=FILE "
            "gives it some)"
        )
    axis = params.get("axis")
    if isinstance(axis, str):
        height, width = (cohort.shape[i] for i in slice_plane(axis))
        if min(height, width) < encoder.min_size:
            return (
                f"its slices of {height} x {width} are smaller than the {encoder.min_size} "
                f"that {encoder.name} needs"
            )
    return ""


def _overlaps(card: ModelCard, encoder: EncoderCard | None, cohort: Cohort) -> bool:
    """Return whether the weights in use were pretrained on the cohort of the test set."""
    return card.pretrained and encoder is not None and cohort.tested_on in encoder.pretrained_on


def _make_arm(
    card: ModelCard,
    encoder: EncoderCard | None,
    params: dict[str, Value],
    request: RunRequest,
    cohort: Cohort,
    precision: str,
) -> tuple[Arm, str]:
    """Return the arm and the file of its encoder's weights, if it has pretrained ones."""
    file, component = "", None
    if encoder is not None:
        digest = ""
        if card.pretrained:
            from bench.train.encoder import encoder_handle
            from bench.train.weights import find_weights

            file = str(find_weights(encoder, request.weights, request.cache).resolve())
            digest = encoder_handle(encoder, Path(file)).weights_digest()
        component = Component(
            encoder.name,
            encoder.version,
            plugin_digest(encoder),
            digest,
            overlap=_overlaps(card, encoder, cohort),
        )
    space = {
        name: dimension_to_plain(dimension)
        for name, dimension in card.space.items()
        if name not in request.settings
    }
    trials = request.trials if space else None
    tuned = bool(trials)
    arm = Arm(
        model=Component(card.name, card.version, plugin_digest(card)),
        encoder=component,
        fingerprint=cohort.fingerprint,
        task=cohort.task,
        params=params,
        space=space if tuned else {},
        trials=trials,
        tune=request.tune if tuned else None,
        precision=precision if card.kind == "network" else None,
    )
    return arm, file


def _resolve_precision(
    request: RunRequest, cards: Sequence[ModelCard], cohort: Cohort, store: Store | None
) -> str:
    """Resolve ``auto`` once per command: what is stored for this cohort, else the device's best."""
    if request.precision != "auto" or not any(card.kind == "network" for card in cards):
        return request.precision if request.precision != "auto" else "fp32"
    if store is not None:
        arms = store.frame(schema.arms)
        stored = {
            spec["precision"]
            for spec, fingerprint in zip(arms["spec"], arms["fingerprint"], strict=True)
            if fingerprint == cohort.fingerprint and spec["precision"]
        }
        if len(stored) == 1:
            return str(stored.pop())
    from bench.train.numerics import device_for, multiplies_bf16

    return "bf16" if multiplies_bf16(device_for(request.device)) else "fp32"


def _look_up(
    specs: Sequence[tuple[TrialSpec, StudySpec | None]], store: Store | None, reuse: str
) -> tuple[list[PlannedTrial], list[StudySpec]]:
    """Return the trials with what to do about each, and the studies that must run first."""
    states: dict[str, str] = {}
    study_states: dict[str, str] = {}
    if store is not None and reuse != "no":
        states = store.states(schema.trials, [spec.key for spec, _ in specs])
        study_states = store.states(
            schema.studies, [study.key for _, study in specs if study is not None]
        )
    trials: list[PlannedTrial] = []
    studies: dict[str, StudySpec] = {}
    for spec, study in specs:
        state = states.get(spec.key)
        if state == DONE:
            action = "reuse"
        elif reuse == "only":
            action = "missing"
        elif state == FAILED and reuse == "yes":
            action = "failed"
        else:
            action = "run"
        trials.append(PlannedTrial(spec, study, action))
        if action == "run" and study is not None and study_states.get(study.key) != DONE:
            studies[study.key] = study
    return trials, list(studies.values())


def _check_contracts(
    running: set[str],
    arms: Mapping[str, Arm],
    cards: Mapping[str, ModelCard],
    weights: Mapping[str, str],
    cohort: Cohort,
    request: RunRequest,
    announce: Callable[[str], None],
) -> None:
    """Build every network that will run once, before hours are spent on one that cannot."""
    if not any(cards[key].kind == "network" for key in running):
        return
    announce("checking that every network builds")
    from bench.train.numerics import device_for
    from bench.train.probe import check_network

    device_for(request.device)
    for key in arms:
        if key in running and cards[key].kind == "network":
            check_network(cards[key], arms[key], cohort.shape, weights[key])


def _expected_seconds(
    trials: Sequence[PlannedTrial], studies: Sequence[StudySpec], store: Store | None
) -> float | None:
    """Return the seconds of work, from stored runs of the same models on the same cohort.

    Seconds are taken to grow with the epochs asked for, and a trial of a study to take as long as
    a run.
    """
    known: dict[tuple[str, int], list[float]] = {}
    for spec, size, seconds in store.durations() if store is not None else []:
        arm = arm_from_plain(spec)
        known.setdefault((_work(arm), size), []).append(seconds / _epochs(arm))
    cells = [(t.spec.arm, t.spec.n_train, 1) for t in trials if t.action == "run"]
    cells += [(s.arm, s.n_train, s.arm.trials or 0) for s in studies]
    if not cells or any((_work(arm), size) not in known for arm, size, _ in cells):
        return None
    return sum(fmean(known[_work(arm), size]) * _epochs(arm) * times for arm, size, times in cells)


def _work(arm: Arm) -> str:
    """Return what decides how long an epoch of an arm takes: all but its epochs and tuning."""
    params = {name: value for name, value in arm.params.items() if name != "epochs"}
    return key_of(replace(arm, params=params, space={}, trials=None, tune=None))


def _epochs(arm: Arm) -> float:
    """Return the epochs of a network, 1 for an estimator."""
    return float(arm.params.get("epochs", 1))
