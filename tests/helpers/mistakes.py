"""What every mistake on a command line must end in: exit code 2 and one line that names what is wrong."""

from collections.abc import Callable, Sequence


def assert_one_line_mistake(
    main: Callable[[list[str]], int], arguments: list[str], capsys, names: Sequence[str]
) -> str:
    """Run a command that must refuse its arguments; the wording is not looked at.

    Args:
        main: the command; returns its exit code, or exits with it as argparse does.
        arguments: its arguments.
        capsys: pytest's fixture.
        names: what the line must contain, such as the bad value and the option.

    Returns:
        The line, without its end.
    """
    capsys.readouterr()
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2, captured.err
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    missing = [name for name in names if name not in line]
    assert not missing, f"{missing} not in {line!r}"
    return line
