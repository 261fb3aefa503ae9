"""The plan of a run: the grid of trials, what cannot run, and what is already stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from bench.data.cohort import Cohort
from bench.primary_analysis import DEFAULT_ANALYSIS, PrimaryAnalysis, check_analysis
from bench.spec import (
    Arm,
    Component,
    StudySpec,
    TrialSpec,
    dimension_to_plain,
)
from bench.store import schema
from bench.store.store import DONE, FAILED, Store
from registry.cards import EncoderCard, ModelCard, Value
from registry.core import catalogue, did_you_mean, plugin_digest
from registry.errors import UserError
from registry.models import model_options, slice_plane


@dataclass(frozen=True)
class RunRequest:
    """What a run should compute, as given by the user; names are not checked yet."""

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
    """Files of pretrained weights by the name of the encoder."""
    must_use: Sequence[str] = ()
    """Encoders whose file in `weights` must be used by a model."""
    cache: Path = Path()
    allow_overlap: bool = False
    """Whether to test encoders on cohorts that were part of their pretraining."""
    declared: PrimaryAnalysis = DEFAULT_ANALYSIS


@dataclass(frozen=True)
class PlannedTrial:
    """A trial of the grid; `action` is ``run``, ``reuse``, ``failed`` or ``missing``."""

    spec: TrialSpec
    study: StudySpec | None
    action: str


@dataclass(frozen=True)
class Plan:
    """What a command will do on one cohort."""

    cohort: Cohort
    arms: Mapping[str, Arm]
    cards: Mapping[str, ModelCard]
    """By the key of the arm, like `arms` and `weights`."""
    weights: Mapping[str, str]
    trials: Sequence[PlannedTrial]
    studies: Sequence[StudySpec]
    """Studies to run before their trials."""
    sizes: Sequence[int]
    dropped: Sequence[tuple[str, str]]

    @property
    def units(self) -> list[StudySpec | TrialSpec]:
        """The studies and trials to run."""
        return [*self.studies, *(trial.spec for trial in self.trials if trial.action == "run")]

    def count(self, action: str) -> int:
        """Return the number of trials with an action."""
        return sum(trial.action == action for trial in self.trials)

    @cached_property
    def arms_to_run(self) -> list[Arm]:
        """The arms of the trials to run."""
        return list({t.spec.arm.key: t.spec.arm for t in self.trials if t.action == "run"}.values())

    def to_run_after(self, study: StudySpec) -> Sequence[PlannedTrial]:
        """Return the trials to run that a study tunes."""
        return self._by_study.get(study.key, ())

    @cached_property
    def _by_study(self) -> dict[str, list[PlannedTrial]]:
        found: dict[str, list[PlannedTrial]] = {}
        for trial in self.trials:
            if trial.action == "run" and trial.spec.study is not None:
                found.setdefault(trial.spec.study, []).append(trial)
        return found


def check_request(request: RunRequest) -> dict[str, dict[str, Value]]:
    """Check what does not depend on a cohort, so that a typo is reported before scans are read.

    Parameters
    ----------
    request : RunRequest
        What to run.

    Returns
    -------
    dict
        The parsed settings by the name of the model.

    Raises
    ------
    UserError
        For unknown models, encoders and settings, settings out of range, and encoders and weights
        that no model would use.
    """
    cards = [catalogue.model(name) for name in dict.fromkeys(request.models)]
    for name in request.encoders:
        catalogue.encoder(name)
    settings = {card.name: _parse_settings(request.settings, card) for card in cards}
    _refuse_unknown_settings(request.settings, cards)
    if request.encoders and not any(c.encoder and not c.encoder_fixed for c in cards):
        raise UserError(
            "--encoder was given, but none of the chosen models has a replaceable encoder. Remove "
            "it, or add a model such as slice2d-imagenet."
        )
    _refuse_unused_weights(request, cards)
    return settings


def make_plan(
    request: RunRequest, cohort: Cohort, store: Store | None, announce: Callable[[str], None]
) -> Plan:
    """Combine models, encoders, sizes and seeds, drop what cannot run, and look up stored trials.

    Parameters
    ----------
    request : RunRequest
        What to run.
    cohort : Cohort
        The opened dataset.
    store : Store or None
        Earlier results; None if there is no database yet.
    announce : callable
        Called with a description of each step that takes time.

    Raises
    ------
    UserError
        For unknown names and settings, values out of range, missing weights, a network that cannot
        be built or returns the wrong shape, a primary analysis that cannot be carried out, or if
        nothing can run.
    """
    settings = check_request(request)
    cards = [catalogue.model(name) for name in settings]
    sizes = resolve_sizes(request.sizes, cohort)
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
                    f"its weights were pretrained on {cohort.tested_on}, the test cohort (use "
                    "--allow-pretraining-overlap to run it anyway; the report will say so)"
                )
            if reason:
                dropped.append((label, reason))
                continue
            arm, file = _make_arm(card, encoder, params, request, cohort, precision)
            arms[arm.key], arm_cards[arm.key], weights[arm.key] = arm, card, file
    if not arms:
        reasons = "; ".join(f"{what}: {why}" for what, why in dropped)
        raise UserError(f"None of the models can run on {cohort.name}: {reasons}.")
    models = [arm.model.name for arm in arms.values()]
    check_analysis(request.declared, cohort.task, cohort.name, models, sizes, pool=cohort.n_pool)
    specs: list[tuple[TrialSpec, StudySpec | None]] = []
    for key, arm in arms.items():
        for size in sizes:
            least = arm_cards[key].constraints.min_train
            if size < least:
                what = f"{arm_cards[key].name} at {size} subjects"
                dropped.append((what, f"it needs at least {least} training subjects"))
                continue
            for seed in dict.fromkeys(request.seeds):
                specs.append((TrialSpec.of(arm, size, seed), StudySpec.of(arm, size, seed)))
    trials, studies = _look_up(specs, store, request.reuse)
    running = {trial.spec.arm.key for trial in trials if trial.action == "run"}
    if running:
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
    )


def resolve_params(card: ModelCard, settings: Mapping[str, Value]) -> dict[str, Value]:
    """Return the value of every option of a model.

    Values come from `settings`, from the defaults of the card or from those of the options, in
    this order. Options added after the first release are omitted at their default; see
    `complete_params`.
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
    """Return training sizes as numbers of subjects; ``all`` stands for all training subjects.

    Raises
    ------
    UserError
        If a size is below 1 or exceeds the number of training subjects.
    """
    pool = cohort.n_pool
    found = []
    for size in sizes:
        number = pool if size == "all" else int(size)
        if number < 1:
            raise UserError(f"--train-sizes must be at least 1, got {size}.")
        if number > pool:
            raise UserError(
                f"--train-sizes must be at most {pool}, got {size}: {cohort.name} has {pool} "
                "training subjects after setting aside 40 % for validation and test. Use `all` for "
                "all of them."
            )
        found.append(number)
    return list(dict.fromkeys(found))


def _parse_settings(settings: Mapping[str, str], card: ModelCard) -> dict[str, Value]:
    """Return the parsed settings that are options of a model."""
    options, parsed = model_options(card), {}
    for name, text in settings.items():
        if name in options:
            try:
                parsed[name] = options[name].parse(text)
            except ValueError as error:
                raise UserError(
                    f"--set {name}={text} is invalid for {card.name}: {error}."
                ) from None
    return parsed


def _refuse_unknown_settings(settings: Mapping[str, str], cards: Sequence[ModelCard]) -> None:
    known = {name for card in cards for name in model_options(card)}
    for name in settings:
        if name not in known:
            raise UserError(
                f"None of the chosen models has the setting {name} given with --set"
                f"{did_you_mean(name, known)}; `bench show MODEL --all` lists the settings of a "
                "model."
            )


def _encoders_of(card: ModelCard, chosen: Sequence[str]) -> list[EncoderCard | None]:
    if card.encoder is None:
        return [None]
    names = [card.encoder] if card.encoder_fixed or not chosen else list(dict.fromkeys(chosen))
    return [catalogue.encoder(name) for name in names]


def _refuse_unused_weights(request: RunRequest, cards: Sequence[ModelCard]) -> None:
    """Refuse a file given with --weights that no model would use."""
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
                f"--weights {name}={request.weights[name]} would not be used, because none of the "
                f"chosen models starts from pretrained weights of the encoder {name}. Remove it, "
                f"or add a model such as slice2d-imagenet with --encoder {name}."
            )


def _impossible(
    card: ModelCard,
    encoder: EncoderCard | None,
    params: Mapping[str, Value],
    cohort: Cohort,
    given: Mapping[str, str],
) -> str:
    """Return why a combination cannot run, or an empty string."""
    task = cohort.task
    if task.kind not in card.constraints.tasks:
        return f"it does not support {task.kind}"
    if task.kind == "regression" and params.get("select") == "accuracy":
        return "select=accuracy is only possible for classification"
    if encoder is None:
        return ""
    if card.pretrained and encoder.weights is None and encoder.name not in given:
        return (
            f"the encoder {encoder.name} has no pretrained weights (provide a file with --weights "
            f"{encoder.name}=FILE)"
        )
    axis = params.get("axis")
    if isinstance(axis, str):
        height, width = (cohort.shape[i] for i in slice_plane(axis))
        if min(height, width) < encoder.min_size:
            return (
                f"its slices of {height} x {width} voxels are smaller than the minimum of "
                f"{encoder.min_size} for {encoder.name}"
            )
    return ""


def _overlaps(card: ModelCard, encoder: EncoderCard | None, cohort: Cohort) -> bool:
    """Return whether the encoder was pretrained on the cohort of the test set."""
    return card.pretrained and encoder is not None and cohort.tested_on in encoder.pretrained_on


def _make_arm(
    card: ModelCard,
    encoder: EncoderCard | None,
    params: dict[str, Value],
    request: RunRequest,
    cohort: Cohort,
    precision: str,
) -> tuple[Arm, str]:
    """Return an arm and the file of its pretrained weights, an empty string if it has none."""
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
    """Resolve ``auto`` once per command: the stored precision for this cohort, else the device's.

    The device's is bf16 if it multiplies bfloat16 natively, and fp32 otherwise.
    """
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
    """Return the trials with their actions, and the studies that must run first."""
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
    """Build each network once, to find errors before any training starts."""
    if not any(cards[key].kind == "network" for key in running):
        return
    announce("checking that all networks can be built")
    from bench.train.numerics import device_for
    from bench.train.probe import check_network

    device_for(request.device)
    for key in arms:
        if key in running and cards[key].kind == "network":
            check_network(cards[key], arms[key], cohort.shape, weights[key])
