"""Losses that are not finite: found before anything is saved; the message names the step and its files."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from utils.system.failures import RunFailed

READ_EVERY = 20
"""Steps between two readings of the losses: each one waits for the device."""
ADVICE = "nothing was saved since, last.pth is from before; a new run with a lower --lr or fp32 may help"


class LossWatch:
    """Keeps the losses of the last steps on the device, and reads all of them at once."""

    def __init__(self) -> None:
        self._unread: list[tuple[tuple[int, int, int], Sequence[str], dict[str, Tensor]]] = []

    @property
    def due(self) -> bool:
        return len(self._unread) >= READ_EVERY

    def note(self, place: tuple[int, int, int], files: Sequence[str], losses: dict[str, Tensor]) -> None:
        """Remember what a step gave.

        Parameters
        ----------
        place : epoch, refresh and step, counted from 0.
        losses : 0-dim tensors by name, the same names at every step; `gradient` is the norm of all gradients.
        """
        self._unread.append((place, files, losses))

    def read(self) -> dict[str, float]:
        """Check what was noted since the last reading; returns the last step's losses by name.

        Raises
        ------
        RunFailed : one is not finite; the first such step, the loss and the files are named. The next call raises it again.
        """
        if not self._unread:
            return {}
        names = list(self._unread[0][2])
        rows = [torch.stack([losses[name].float() for name in names]) for *_, losses in self._unread]
        table = torch.stack(rows).cpu()
        for ((epoch, refresh, step), files, _), row in zip(self._unread, table):
            odd = (~row.isfinite()).nonzero()
            if len(odd):
                name = names[int(odd[0])]
                what = "a gradient" if name == "gradient" else f"the {name} loss"
                raise RunFailed(
                    f"{what} is not finite at epoch {epoch + 1}, refresh {refresh + 1}, step {step + 1} ({ADVICE}); "
                    f"files: {', '.join(files)}"
                )
        self._unread = []
        return {name: value for name, value in zip(names, table[-1].tolist()) if name != "gradient"}


def check_weights(model: nn.Module) -> None:
    """RunFailed, naming the first weight that is not finite: an update can overflow though its gradient does not."""
    state = model.state_dict()
    finite = torch.stack([value.isfinite().all() for value in state.values()]).tolist()
    odd = [name for name, good in zip(state, finite) if not good]
    if odd:
        raise RunFailed(f"{odd[0]} is no longer finite ({ADVICE})")
