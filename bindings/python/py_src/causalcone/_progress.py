"""Progress bars: tqdm's, in notebooks and terminals, where tqdm is installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import Any

Listener = Callable[[str, int, int, str], None]


class Progress:
    """Hears of work from the compiled half and draws it. `show` is None for: where somebody watches."""

    def __init__(self, show: bool | None = None) -> None:
        self._bar: Any = None
        self._work = ""
        self._tqdm = self._find(show)

    @staticmethod
    def _find(show: bool | None) -> Any:
        if show is False:
            return None
        in_notebook = "ipykernel" in sys.modules
        if show is None and not (in_notebook or sys.stderr.isatty()):
            return None
        try:
            import tqdm
        except ImportError:
            return None
        if in_notebook and importlib.util.find_spec("ipywidgets"):
            import tqdm.notebook

            return tqdm.notebook.tqdm
        return tqdm.tqdm

    @property
    def listener(self) -> Listener | None:
        """What the compiled half calls, if anybody watches."""
        return self if self._tqdm else None

    def __call__(self, what: str, done: int, total: int, unit: str) -> None:
        # What follows two spaces changes while the same work is done: "training  loss 0.1".
        work = what.split("  ")[0]
        if self._bar is None or work != self._work:
            self.close()
            self._work = work
            scaled = unit == "bytes"
            self._bar = self._tqdm(
                total=total, desc=what, unit="B" if scaled else f" {unit}", unit_scale=scaled, leave=False
            )
        if self._bar.total != total:
            self._bar.total = total
        if self._bar.desc != f"{what}: ":
            self._bar.set_description(what, refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
