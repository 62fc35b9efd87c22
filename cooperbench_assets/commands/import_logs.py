"""import-logs: an experiment from runs that exist, or such runs into an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cooperbench_assets.benchmark.pairs import Subset, find_subset, load_subset
from cooperbench_assets.commands.context import choose, find_project, read_experiments
from cooperbench_assets.commands.output import UNKNOWN, emit, new_table, note, number, rows_to, warn
from cooperbench_assets.importing.run_templates import ImportLogsError, Survey, Template, find_runs, survey
from cooperbench_assets.wording import count, some

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cooperbench_assets.importing.adopt import Adopted
    from cooperbench_assets.importing.new_experiment import NewExperiment
    from cooperbench_assets.project import Project
    from cooperbench_assets.spec import ExperimentSpec

DATASET = "data/dataset"
"""Where a subset that is given by its name is looked up."""


@click.command("import-logs")
@click.argument("logs", type=click.Path(exists=True, file_okay=False, resolve_path=True, path_type=Path))
@click.option("--experiment", required=True, metavar="NAME", help="Experiment to make; with --adopt, one there is.")
@click.option("--subset", metavar="FILE", help="Subset file of the pairs, or its name in data/dataset/subsets.")
@click.option(
    "--run",
    "runs",
    multiple=True,
    required=True,
    metavar="SETTING=RUN_NAME",
    help="Runs of a setting: your label for it, and the run's folder name with {seed} where the number stands, or "
    "{seed_suffix} for nothing (seed 0), -seed1, -seed2, … Without either, the run is seed 0. Once for each setting.",
)
@click.option(
    "--mode",
    "modes",
    multiple=True,
    metavar="SETTING=MODE",
    help="solo, coop or team, where a run's tree does not say it or says several.",
)
@click.option("--messaging", "talking", multiple=True, metavar="SETTING", help="Its agents could send messages.")
@click.option(
    "--no-messaging",
    "silent",
    multiple=True,
    metavar="SETTING",
    help="They could not. Without either option: they could if there is any message.",
)
@click.option("--replace", is_flag=True, help="Write an experiment that was imported before anew.")
@click.option("--adopt", is_flag=True, help="Take the runs into an experiment that runs pairs itself.")
@click.option("--copy", is_flag=True, help="With --adopt: copy files where they could be hard-linked.")
def import_logs(
    logs: Path,
    experiment: str,
    subset: str | None,
    runs: tuple[str, ...],
    modes: tuple[str, ...],
    talking: tuple[str, ...],
    silent: tuple[str, ...],
    replace: bool,
    adopt: bool,
    copy: bool,
) -> None:
    """Make an experiment of runs that exist, or adopt them.

    LOGS is the folder that holds one folder for each run. The runs are read, never changed, and
    cooperbench_assets/defs/NAME/defs.yaml is written with every setting and seed that was found:

    \b
      cooperbench-assets import-logs ~/cooperbench/logs --experiment mine --subset lite.json \\
          --run 'solo=my-solo{seed_suffix}' --run 'coop-comm=my-coop-{seed}'

    With --adopt the runs become cells of an experiment that executes pairs, under its own run names, so that what is
    missing in them can be run or evaluated here. Their files are hard-linked into its log tree (copied where that is
    another file system); a file is later replaced by renaming another over it, so the originals keep their content.
    Use --copy if something else still writes into them. Nothing is adopted over a run that exists.
    """
    project = find_project()
    templates = _templates(runs)
    labels = {template.setting for template in templates}
    if adopt:
        _refuse({"--subset": subset, "--replace": replace, "--mode": modes, "--messaging": talking or silent})
        _adopt(project, logs, experiment, templates, copy=copy)
        return
    _refuse({"--copy": copy}, "belongs to --adopt")
    if subset is None:
        raise click.UsageError("Missing option '--subset': which pairs should each run have?")
    said = dict.fromkeys(_labels(talking, labels), True) | dict.fromkeys(_labels(silent, labels), False)
    _make(project, logs, experiment, subset, templates, _modes(modes, labels), said, replace=replace)


def _templates(runs: Iterable[str]) -> list[Template]:
    try:
        return [Template.parse(run) for run in runs]
    except ImportLogsError as error:
        raise click.BadParameter(str(error), param_hint="--run") from error


def _refuse(given: dict[str, object], why: str = "cannot be used with --adopt: the experiment says it") -> None:
    for option, value in given.items():
        if value:
            raise click.UsageError(f"{option} {why}")


def _labels(named: Iterable[str], labels: set[str]) -> list[str]:
    for label in named:
        if label not in labels:
            raise click.UsageError(f"no --run is of the setting {label!r}")
    return list(named)


def _modes(arguments: Sequence[str], labels: set[str]) -> dict[str, str]:
    split = {label: mode for label, _, mode in (argument.partition("=") for argument in arguments)}
    for mode in split.values():
        if mode not in ("solo", "coop", "team"):
            raise click.UsageError("--mode: write SETTING=solo, SETTING=coop or SETTING=team")
    _labels(split, labels)
    return split


def _make(
    project: Project,
    logs: Path,
    experiment: str,
    subset: str,
    templates: Sequence[Template],
    modes: dict[str, str],
    said: dict[str, bool],
    *,
    replace: bool,
) -> None:
    from cooperbench_assets.importing.new_experiment import NewExperiment, check_place, settings_of, write

    try:
        check_place(project, experiment, replace=replace)
    except ImportLogsError as error:
        raise click.BadParameter(str(error), param_hint="--experiment") from error
    chosen, pairs = _subset(project, subset)
    surveys = survey(find_runs(logs, templates, experiment), modes)
    new = NewExperiment(experiment, chosen, project.relative(logs), settings_of(surveys, templates, said))
    _show(surveys, pairs)
    file, spec = write(project, new)
    _remarks(new, surveys, pairs)
    cells = count(len(spec.cells(experiment)), "cell")
    click.echo(f"\nWrote {project.relative(file)}: {cells} of {count(len(pairs.pairs), 'pair')} each.")
    click.echo(f"Next: cooperbench-assets materialize {experiment}")
    click.echo("In the UI, first press Reload definitions (Deployment, Code locations).")


def _subset(project: Project, named: str) -> tuple[str, Subset]:
    """A subset as defs.yaml will name it, and its pairs."""
    dataset = project.resolve(DATASET)
    path = Path(named).expanduser()
    if path.suffix == ".json":
        path = path.resolve()
        return project.relative(path), load_subset(path, dataset)
    return named, load_subset(find_subset(named, dataset), dataset)


def _show(surveys: Sequence[Survey], subset: Subset | None) -> None:
    results = f"results of {len(subset.pairs)}>" if subset else "results>"
    table = new_table("setting", "seed>", "run", "mode", results, "evals>", "messages>")
    for one in surveys:
        mode = f"{one.mode or UNKNOWN}{' (older layout)' if one.reading.layout == 'legacy' else ''}"
        talked = number(one.messages if one.mode != "solo" else None)
        found = number(one.results), number(one.evals), talked
        rows_to(table, [(one.run.setting, one.run.seed, one.run.folder.name, mode, *found)])
    emit(table)


def _remarks(new: NewExperiment, surveys: Sequence[Survey], subset: Subset) -> None:
    """What was taken for granted, and what deserves a look."""
    from cooperbench_assets.importing.new_experiment import differences

    _remarks_on_runs(surveys, subset)
    for remark in differences(new):
        warn(remark)
    for setting in new.settings:
        if setting.mode != "solo" and not setting.messaging:
            note(f"{setting.label}: messaging: false, because no run has a message (else --messaging {setting.label})")


def _remarks_on_runs(surveys: Sequence[Survey], subset: Subset | None) -> None:
    for one in surveys:
        if subset and (beyond := one.beyond(subset)):
            warn(f"{one.run.folder.name}: {count(len(beyond), 'result')} not in the subset: {some(beyond, 3)}")
        if one.reading.quarantine:
            bad = [f"{entry.path} ({entry.kind})" for entry in one.reading.quarantine]
            warn(
                f"{one.run.folder.name}: {count(len(bad), 'file or folder', 'files or folders')} excluded: "
                f"{some(bad, 3)}"
            )


def _adopt(project: Project, logs: Path, experiment: str, templates: Sequence[Template], *, copy: bool) -> None:
    from cooperbench_assets.importing.adopt import adopt, adopted_before, adoptions

    spec = choose(read_experiments(project), experiment)
    modes = {label: setting.mode for label, setting in spec.settings.items() if setting.mode}
    surveys = survey(find_runs(logs, templates, experiment), modes)
    planned = adoptions(experiment, spec, project, surveys)
    subset = _subset_of(project, experiment, spec)
    _show(surveys, subset)
    _remarks_on_runs(surveys, subset)
    _remarks_on_fit(spec, surveys)
    for one in planned:
        adopted_before(one)  # Every place is looked at before the first run is taken.
    click.echo("")
    for one in planned:
        _tell(project, one.source, adopt(one, copy=copy))
    click.echo(f"Next: cooperbench-assets materialize {experiment}")


def _subset_of(project: Project, experiment: str, spec: ExperimentSpec) -> Subset | None:
    """The experiment's subset; None, and a word of it, where it is not there: adopting does not need it."""
    from cooperbench_assets.experiment_context import ExperimentContext, MissingInputError

    try:
        return ExperimentContext(experiment, spec, project).subset_at_hand()
    except MissingInputError as error:
        note(str(error))
        return None


def _remarks_on_fit(spec: ExperimentSpec, surveys: Sequence[Survey]) -> None:
    """Say where runs were made by another model or agent than the experiment's: execution refuses to mix them."""
    for key, ours, named in (
        ("model_name", spec.model_name, [(one, one.models) for one in surveys]),
        ("agent", spec.agent, [(one, one.agents) for one in surveys]),
    ):
        others = [(one.run.folder.name, theirs) for one, theirs in named if theirs and theirs != {ours}]
        for theirs in dict.fromkeys(theirs for _, theirs in others):
            runs = some([run for run, which in others if which == theirs], 3)
            warn(
                f"{runs}: made by {some(sorted(theirs))}, and {key}: in defs.yaml is {ours}; "
                "nothing more is run in such a cell until they are the same"
            )


def _tell(project: Project, source: Path, done: Adopted) -> None:
    target = project.relative(done.target)
    if done.before:
        click.echo(f"{target}: adopted before from {source}, nothing done")
        return
    how = [f"{done.linked} hard-linked"] if done.linked else []
    how += [f"{done.copied} copied"] if done.copied else []
    click.echo(f"{target}: adopted from {source}, files: {', '.join(how)}")
    for left in done.left:
        warn(f"  left: {left}")
