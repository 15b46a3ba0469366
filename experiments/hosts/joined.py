"""Running a command on all hosts, which join at its start and end together."""

import traceback
from collections.abc import Callable
from typing import NoReturn

from experiments.cli.command import Outcome, attempt
from experiments.cli.config_dicts import Config
from experiments.cli.exit_codes import ExitCode
from experiments.hosts.agreement import Facts, experiment_facts
from experiments.hosts.member import Member
from experiments.hosts.place import find_place

_BUG = 1

_member: Member | None = None


def this_member() -> Member | None:
    """Return this process as a member of its run, or None if it is alone."""
    return _member


def agree(name: str, facts: Facts) -> None:
    """Compare facts with those of all processes of the run, if there are others.

    Args:
        name: name of the comparison; all processes make the same ones in the same order.
        facts: texts by name.

    Raises:
        InputError: they differ; all processes raise it.
    """
    if _member is not None:
        _member.agree(name, facts)


def agree_on_experiment(config: Config, data: Facts) -> None:
    """Compare what the processes of a run are about to compute; see `experiment_facts`.

    Args:
        config: the experiment, resolved.
        data: facts besides the configuration, such as fingerprints of the data.

    Raises:
        InputError: something differs; all processes raise it.
    """
    if _member is not None:
        _member.agree("experiments", experiment_facts(config) | dict(data))


def on_all_hosts(main: Callable[[], ExitCode | None], config_kind: type[Config]) -> ExitCode:
    """Call `main` in each of the processes of a run, after they have joined.

    If there are several, this function ends the process: as soon as one of them fails or is lost,
    otherwise when `main` has returned.

    Args:
        main: the command.
        config_kind: as in `experiments.cli.command.call`.

    Returns:
        The exit status, if the process is alone.

    Raises:
        InputError: the processes do not find each other.
    """
    global _member
    place = find_place()
    if place is None or place.num_processes == 1:
        return main() or ExitCode.DONE
    _member = Member(place)
    return _run_joined(_member, main, config_kind)


def _run_joined(
    member: Member, main: Callable[[], ExitCode | None], config_kind: type[Config]
) -> NoReturn:
    def joined_main() -> ExitCode | None:
        member.start_jax()
        return main()

    try:
        outcome = attempt(joined_main, config_kind)
    except BaseException as error:  # whatever it is, the others must know before this process ends
        member.settle()
        traceback.print_exc()
        bug = Outcome(_BUG, f"{type(error).__name__}: {error}")
        member.finish(bug, at_once=True, printed=True)
    if outcome.line is not None:
        member.settle()
    member.finish(outcome, at_once=outcome.code == ExitCode.BAD_INPUT)
