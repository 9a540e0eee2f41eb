"""Questions that `adaptd top` asks before it changes anything."""

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList
from textual.widgets.option_list import Option


class Confirm(ModalScreen[bool]):
    """Asks yes or no; nothing but the letter y is a yes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "dismiss(True)", "Yes"),
        Binding("n,escape,q,enter", "dismiss(False)", "No"),
    ]

    def __init__(self, question: str, consequence: str):
        super().__init__()
        self._question, self._consequence = question, consequence

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(self._question, classes="question", markup=False)
            yield Label(self._consequence, classes="consequence", markup=False)
            yield Label("y  yes        n  no", classes="keys", markup=False)


class ChoosePolicy(ModalScreen[str | None]):
    """Asks which of the daemon's policies."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss(None)", "Cancel")]

    def __init__(self, policies: list[dict[str, Any]], current: str):
        """
        Args:
            policies: rows of the daemon's `policies`.
            current: the one that acts now; it cannot be chosen.
        """
        super().__init__()
        self._policies, self._current = policies, current

    def compose(self) -> ComposeResult:
        options = [self._option(row) for row in self._policies]
        with Vertical(classes="dialog"):
            yield Label("Swap to which policy?", classes="question", markup=False)
            yield OptionList(*options, markup=False)
            yield Label("enter  choose        escape  cancel", classes="keys", markup=False)

    def _option(self, row: dict[str, Any]) -> Option:
        policy, why = row["policy"], ""
        if policy == self._current:
            why = "acts now"
        elif row.get("broken"):
            why = "broken"
        elif row.get("quarantined"):
            why = "in quarantine"
        return Option(f"{policy}  ({why})" if why else policy, id=policy, disabled=bool(why))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Done."""
        self.dismiss(event.option_id)
