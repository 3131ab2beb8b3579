"""Progress bars, if tqdm is installed."""

from __future__ import annotations

from types import TracebackType
from typing import Any


class Bar:
    """A progress bar; does nothing if tqdm is not installed."""

    def __init__(self, wanted: bool, unit: str, **options: Any) -> None:
        self.options = {"unit": unit, **options}
        self.bar: Any = None
        self.make: Any = None
        self.name = ""
        if wanted:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self.make = tqdm

    @property
    def heard(self) -> Any:
        """Callback for progress: `heard(name, done, total)`; None if there is no bar."""
        return self.hear if self.make else None

    def hear(self, name: str, done: int, total: int) -> None:
        if self.bar is None or name != self.name:
            self.close()
            self.bar, self.name = self.make(total=total, desc=name or None, **self.options), name
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
