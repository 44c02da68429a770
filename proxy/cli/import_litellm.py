"""llmgateway import-litellm"""

from __future__ import annotations

from pathlib import Path

import click


@click.command("import-litellm")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Where to write it; default: standard output.")
def import_litellm(file: Path, output: Path | None) -> None:
    """Convert LiteLLM's config.yaml into a gateway.yaml.

    What cannot be carried over is told on standard error, with its line and the reason, and in comments of the new
    file. Keys in plain text are replaced by environment variables.
    """
    from proxy.config.litellm.converting import convert  # noqa: PLC0415
    from proxy.config.problems import ConfigErrors  # noqa: PLC0415

    try:
        conversion = convert(file.read_bytes().decode("utf-8-sig"), file.name)
    except OSError as problem:
        raise click.ClickException(f"{file} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{file} is not UTF-8") from None
    except ConfigErrors as problem:
        raise click.ClickException(f"{file} cannot be converted.\n{problem}") from None
    for loss in conversion.losses:
        click.secho(f"Not carried over: {loss.text(file.name)}", fg="yellow", err=True)
    if output is None:
        click.echo(conversion.text.encode(), nl=False)  # UTF-8 as it is read, whatever the locale
    else:
        _write(output, conversion.text)


def _write(output: Path, text: str) -> None:
    try:
        with output.open("x", encoding="utf-8") as new:
            new.write(text)
    except FileExistsError:
        raise click.ClickException(f"{output} exists already: remove it, or choose another name") from None
    except OSError as problem:
        raise click.ClickException(f"{output} cannot be written: {problem.strerror}") from None
    click.echo(f"Written to {output}; `llmgateway check-config {output}` checks it.", err=True)
