"""What a person sees while a command works: one bar a stage, and notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

_PLAIN_LINES_PER_STAGE = 20


class Progress:
    """Bars on a terminal; a plain line now and then elsewhere."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        """Args: quiet: shows nothing, as all but the first of several processes."""
        self.console = console or Console(stderr=True, quiet=quiet)

    def note(self, text: str) -> None:
        """One line of plain text."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def task(self, what: str, total: int) -> Iterator[Callable[..., None]]:
        """Yields `advance(done, ...)`, called with the number of units done so far."""
        if not self.console.is_terminal:
            self.note(f"{what} ...")
            yield lambda *_: None
            return
        with self._bars() as bars:
            bar = bars.add_task(what, total=total, numbers="")
            yield lambda done, *_: bars.update(bar, completed=done)

    @contextmanager
    def stage(
        self, name: str, num_steps: int, done: int
    ) -> Iterator[Callable[[str, int, int, Mapping[str, float]], None]]:
        """Yields `show(name, step, num_steps, values)` for a training stage."""
        if not self.console.is_terminal:
            every = max(1, num_steps // _PLAIN_LINES_PER_STAGE)

            def plain(name: str, step: int, num_steps: int, values: Mapping[str, float]) -> None:
                if step % every == 0 or step == num_steps:
                    left = values["time_s"] / step * (num_steps - step)
                    text = f"{name} {step}/{num_steps}  {_numbers(values)}  {left:.0f} s left"
                    self.note(text)

            yield plain
            return
        with self._bars() as bars:
            bar = bars.add_task(name, total=num_steps, completed=done, numbers="")

            def show(name: str, step: int, num_steps: int, values: Mapping[str, float]) -> None:
                del name, num_steps
                bars.update(bar, completed=step, numbers=_numbers(values))

            yield show

    def _bars(self) -> Bars:
        return Bars(
            TextColumn("{task.description:>16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=self.console,
        )


def _numbers(values: Mapping[str, float]) -> str:
    shown = ("reward", "loss", "entropy", "response_length")
    return "  ".join(f"{name} {values[name]:.3f}" for name in shown if name in values)


def show(text: str) -> None:
    """One line of a command's result, on standard output."""
    Console(soft_wrap=True).print(text, highlight=False, markup=False)


def quiet_transformers() -> None:
    """Turns off transformers' own bars for reading and writing weights."""
    from transformers.utils import logging

    logging.disable_progress_bar()
