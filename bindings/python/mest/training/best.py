# SPDX-License-Identifier: Apache-2.0
"""The state of a model after its best epoch so far, for who stops training early."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Optional

if TYPE_CHECKING:
    from ..model import Model


class _Kept(NamedTuple):
    epoch: int
    state: bytes


class BestState:
    """Follows `config.recover_epochs`: with it training may return to before an epoch and make those
    after it void, the best one among them.  So the state that was the best when the model kept its good
    one is kept, too: at most twice Plan.checkpoint_bytes, without recover_epochs once."""

    def __init__(self, model: "Model") -> None:
        self._every = model.config.recover_epochs
        self._now: Optional[_Kept] = None
        self._safe: Optional[_Kept] = None  # best when the model's good state was kept

    @property
    def state(self) -> Optional[bytes]:
        return None if self._now is None else self._now.state

    def keep(self, epoch: int, state: bytes) -> None:
        """This epoch is the best one."""
        self._now = _Kept(epoch, state)

    def begun(self, epoch: int) -> None:
        """Before `keep`, of each epoch: the model has kept its good state if it was due then."""
        if self._every and epoch % self._every == 0:
            self._safe = self._now

    def back(self, epoch: int) -> None:
        """This epoch and those after it are void."""
        if self._now is not None and self._now.epoch >= epoch:
            safe = self._safe
            self._now = safe if safe is not None and safe.epoch < epoch else None

    def forget(self) -> None:
        self._now = self._safe = None
