"""The options that decide what is computed, which ``bench run`` and ``bench plan`` share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.help import ANALYSIS, COMPARE, DATA, TRAINING
from bench.cli.options import DatasetOptions, names_of
from bench.cli.parsing import (
    check_choice,
    check_least,
    parse_names,
    parse_pairs,
    parse_seeds,
    parse_size,
    parse_sizes,
)

if TYPE_CHECKING:
    from bench.config import Config
    from bench.data.listing import CohortRequest
    from bench.plan import RunRequest


@dataclass(frozen=True)
class ComparisonOptions:
    """Models, cohorts, training sizes, seeds, training and the primary analysis."""

    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            metavar="NAME,...",
            autocompletion=names_of("models"),
            help="Models to compare.",
            rich_help_panel=COMPARE,
        ),
    ]
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            metavar="NAME,...",
            autocompletion=names_of("datasets"),
            help="Datasets to train and test on.",
            rich_help_panel=DATA,
        ),
    ]
    encoder: Annotated[
        list[str] | None,
        typer.Option(
            "--encoder",
            metavar="NAME,...",
            autocompletion=names_of("encoders"),
            help="Encoders for slice models; default: that of each model.",
            rich_help_panel=COMPARE,
        ),
    ] = None
    train_sizes: Annotated[
        str,
        typer.Option(
            "--train-sizes",
            metavar="N,...|all",
            help="Numbers of training subjects, for example 50,100,all.",
            rich_help_panel=COMPARE,
        ),
    ] = "all"
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds",
            metavar="N|LIST",
            help="Number of seeds (5), or list of seeds (0,1,2).",
            rich_help_panel=COMPARE,
        ),
    ] = "5"
    test_data: Annotated[
        str | None,
        typer.Option(
            "--test-data",
            metavar="NAME",
            help="Another dataset to test on.",
            rich_help_panel=DATA,
        ),
    ] = None
    new_split: Annotated[
        bool,
        typer.Option(
            "--new-split",
            help="Split the subjects again, discarding the previous split.",
            rich_help_panel=DATA,
        ),
    ] = False
    allow_overlap: Annotated[
        bool,
        typer.Option(
            "--allow-pretraining-overlap",
            help="Test encoders also on cohorts that were part of their pretraining.",
            rich_help_panel=DATA,
            hidden=True,
        ),
    ] = False
    trials: Annotated[
        int,
        typer.Option(
            "--trials",
            metavar="N",
            help="Optuna trials per study; 0 uses the default settings without tuning.",
            rich_help_panel=TRAINING,
        ),
    ] = 20
    tune: Annotated[
        str,
        typer.Option(
            "--tune",
            metavar="shared|per-seed",
            help="Tune once for all seeds, or separately for each seed.",
            rich_help_panel=TRAINING,
        ),
    ] = "shared"
    epochs: Annotated[
        int | None,
        typer.Option(
            "--epochs",
            metavar="N",
            help="Number of epochs of all networks; default: that of each model.",
            rich_help_panel=TRAINING,
        ),
    ] = None
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Setting of the models, as listed by `bench show MODEL --all`.",
            rich_help_panel=TRAINING,
        ),
    ] = None
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="ENCODER=FILE",
            help="File with pretrained weights of an encoder; repeatable.",
            rich_help_panel=TRAINING,
        ),
    ] = None
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            metavar="fp32|bf16|auto",
            help="Precision of training; auto is bf16 if the hardware supports it, otherwise fp32. "
            "Default: fp32; must be given with --executor slurm or ray.",
            rich_help_panel=TRAINING,
        ),
    ] = None
    metric: Annotated[
        str | None,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="Primary metric; default: that of the task.",
            rich_help_panel=ANALYSIS,
        ),
    ] = None
    primary_size: Annotated[
        str | None,
        typer.Option(
            "--primary-size",
            metavar="N|all",
            help="Primary training size; default: the largest up to half of the training subjects.",
            rich_help_panel=ANALYSIS,
        ),
    ] = None
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="MODEL",
            help="Model to compare all others with; default: all pairs, up to seven models.",
            rich_help_panel=ANALYSIS,
        ),
    ] = None
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin",
            metavar="X",
            help="Largest difference that is irrelevant in practice, in units of the metric.",
            rich_help_panel=ANALYSIS,
        ),
    ] = None

    def request(self, config: Config, *, device: str = "auto", reuse: str = "yes") -> RunRequest:
        """Return what to compute, after checking what does not depend on a cohort.

        Raises
        ------
        UserError
            For unknown names and invalid values.
        """
        from bench.plan import RunRequest, check_request
        from bench.primary_analysis import PrimaryAnalysis

        check_choice("--tune", self.tune, ("shared", "per-seed"))
        check_choice("--precision", self.precision or "fp32", ("auto", "fp32", "bf16"))
        check_least("--trials", self.trials, 0)
        settings = parse_pairs("--set", self.set_)
        files = parse_pairs("--weights", self.weights)
        if self.epochs is not None:
            settings["epochs"] = str(self.epochs)
        request = RunRequest(
            models=parse_names(self.model),
            encoders=parse_names(self.encoder),
            seeds=parse_seeds(self.seeds),
            sizes=parse_sizes(self.train_sizes),
            trials=self.trials,
            tune=self.tune,
            settings=settings,
            device=device,
            precision=self.precision or "fp32",
            reuse=reuse,
            weights={**config.weights, **files},
            must_use=tuple(files),
            cache=config.cache,
            allow_overlap=self.allow_overlap,
            declared=PrimaryAnalysis(
                self.metric, parse_size(self.primary_size), self.reference, self.margin
            ),
        )
        check_request(request)
        return request

    def cohorts(self, dataset: DatasetOptions, config: Config) -> list[CohortRequest]:
        """Return the cohorts to train on, with the cohort to test on if that is another one.

        Raises
        ------
        UserError
            For an unknown dataset or invalid options.
        """
        from bench.data.listing import with_test_cohort

        found = [
            dataset.request(name, config, new_split=self.new_split)
            for name in parse_names(self.data)
        ]
        if self.test_data is None:
            return found
        # The options of the test cohort are those in bench.toml.
        return [
            with_test_cohort(
                request, DatasetOptions(target=request.target).request(self.test_data, config)
            )
            for request in found
        ]
