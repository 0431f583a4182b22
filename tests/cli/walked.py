"""The commands of the command line, found by walking it."""

from typer.main import get_command

from infalign.cli.app import app


def commands() -> dict:
    """Every command that does something, by its words: `design`, `store show`."""

    def walk(command, words):
        if hasattr(command, "commands"):
            for name, part in command.commands.items():
                yield from walk(part, [*words, name])
        else:
            yield " ".join(words), command

    return dict(walk(get_command(app), []))


def option_flags(command) -> set[str]:
    """The options of a command, `--help` apart."""
    options = [p for p in command.params if p.param_type_name == "option"]
    return {max(p.opts, key=len) for p in options}
