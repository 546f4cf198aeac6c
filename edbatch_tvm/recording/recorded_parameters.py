"""Parameters of a model as its ``forward`` sees them: a row that is taken by number is made once a minibatch.

A leaf of a tree model says ``weight[word]``, and a minibatch has thousands of leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from sys import getrefcount
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edbatch_tvm.recording.followed_parameters import FollowedTensor, touched
from edbatch_tvm.recording.gradient_rounds import ROW_OF
from edbatch_tvm.recording.lazy import is_lazy

if TYPE_CHECKING:
    from edbatch_tvm.recording.recorder import Recorder

_getitem = Tensor.__getitem__
_UNHELD = 2
"""What ``getrefcount`` says of an object that one tuple holds."""


class RecordedParameter(torch.nn.Parameter):
    """A parameter of the model for one minibatch: another tensor with the same memory and the same count of changes.

    Attributes
    ----------
    parameter : torch.nn.Parameter
        The model's own.
    """

    parameter: torch.nn.Parameter
    _rows: dict[int, tuple[Tensor, int]]
    _trains: bool
    _expose: Callable[[], None]

    @classmethod
    def of(cls, parameter: torch.nn.Parameter, recorder: Recorder) -> RecordedParameter:
        """The `parameter` for one minibatch; gradients pass it on if the model trains."""
        made: RecordedParameter
        trains = recorder.tape is not None and parameter.requires_grad
        if trains:
            with torch.enable_grad():
                made = parameter.as_subclass(cls)
        else:
            made = Tensor._make_subclass(cls, parameter.detach(), parameter.requires_grad)
        made.parameter = parameter
        made._expose = partial(recorder.touch, parameter, True)
        made._trains = trains
        made._rows = {}
        return made

    def __getitem__(self, index: Any) -> Any:
        if type(index) is int:
            known = self._rows.get(index)
            # A row that nobody holds may as well be new, if its shape is as it was: a change of it counts, too.
            if (
                known is not None
                and getrefcount(known[0]) == _UNHELD
                and known[0]._version == known[1]
                and (not self._trains or known[0].requires_grad is torch.is_grad_enabled())
            ):
                return known[0]
            row = _getitem(self, index)
            if row.grad_fn is not None:
                size = self.shape[0]
                vars(row)[ROW_OF] = self.parameter, index if index >= 0 else index + size
            if not row.is_inference():
                self._rows[index] = row, row._version
            return row
        return _getitem(self, index)

    def forget_rows(self) -> None:
        """Let the rows go: each is a view that holds the parameter, which no garbage collector sees."""
        self._rows = {}
        self._expose = _nothing

    # Whoever gets the memory may write into it, which no counter sees ---------------------------------------------

    def detach(self) -> Tensor:
        """See :meth:`torch.Tensor.detach`."""
        self._expose()
        return super().detach()

    def numpy(self, *, force: bool = False) -> Any:
        """See :meth:`torch.Tensor.numpy`."""
        self._expose()
        return super().numpy(force=force)

    def data_ptr(self) -> int:
        """See :meth:`torch.Tensor.data_ptr`."""
        self._expose()
        return super().data_ptr()

    def untyped_storage(self) -> torch.UntypedStorage:
        """See :meth:`torch.Tensor.untyped_storage`."""
        self._expose()
        return super().untyped_storage()

    # What is set on it is set on the parameter of the model -------------------------------------------------------

    @property
    def data(self) -> Tensor:
        """See :attr:`torch.Tensor.data`."""
        self._expose()
        return self.parameter.data

    @data.setter
    def data(self, data: Any) -> None:
        if is_lazy(data):
            data = data.computed().clone()  # what is computed lies in an arena
        self.parameter.data = data
        Tensor.data.__set__(self, data)
        self._rows = {}

    @property
    def grad(self) -> Tensor | None:
        """See :attr:`torch.Tensor.grad`."""
        return self.parameter.grad

    @grad.setter
    def grad(self, grad: Any) -> None:
        self.parameter.grad = grad.computed().clone() if is_lazy(grad) else grad

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self.parameter.__deepcopy__(memo)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.parameter.__reduce_ex__(protocol)


def _nothing() -> None:
    """Nobody asks any more."""


class RecordedParameters(dict[str, Any]):
    """The parameters of a module by name; one that is looked up is a recorded one.

    Parameters
    ----------
    parameters : dict
    recorder : Recorder
    set_other : callable
        Called with a name where another tensor takes the place of a parameter.
    """

    def __init__(self, parameters: dict[str, Any], recorder: Recorder, set_other: Callable[[str], None]) -> None:
        super().__init__(parameters)
        self._recorder = recorder
        self._set_other = set_other

    def exposed(self) -> dict[str, Any]:
        """The model's own parameters, for somebody who may do anything with them."""
        for parameter in super().values():
            if parameter is not None:
                self._recorder.touch(parameter, exposed=True)
        return dict(super().items())

    def __setitem__(self, name: str, value: Any) -> None:
        value = value.parameter if type(value) is RecordedParameter else value
        if name not in self or super().__getitem__(name) is not value:
            self._set_other(name)
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        self._set_other(name)
        super().__delitem__(name)

    def __getitem__(self, name: str) -> Any:
        parameter, recorder = super().__getitem__(name), self._recorder
        made = recorder.parameters.get(id(parameter))
        if made is not None or parameter is None:
            return made
        plain = type(parameter) is torch.nn.Parameter and parameter.dtype is recorder.dtype and parameter.is_cpu
        if not plain or parameter.layout is not torch.strided:
            recorder.touch(parameter, exposed=True)
            return parameter
        if recorder.follows and parameter.is_contiguous() and parameter.numel():
            made = FollowedTensor.of(recorder, parameter, parameter, None)
        else:
            # Rows of what has one dimension are numbers, which cells seldom take.
            recorder.touch(parameter, exposed=parameter.dim() < 2)
            if parameter.dim() < 2:
                return parameter
            made = RecordedParameter.of(parameter, recorder)
        recorder.parameters[id(parameter)] = made
        return made

    def items(self) -> Any:
        """The parameters; who asks for all may read each."""
        return [(name, self._among_all(name)) for name in self]

    def values(self) -> Any:
        """The parameters; who asks for all may read each."""
        return [self._among_all(name) for name in self]

    def _among_all(self, name: str) -> Any:
        """The model's own parameter, or what sees who reads it."""
        if self._recorder.follows:
            return self[name]
        own = super().__getitem__(name)
        if own is not None:
            self._recorder.touch(own, exposed=True)
        return own


def own_parameter(tensor: Any) -> Any:
    """The model's own tensor for a recorded or followed one, for somebody who reads it; any other as it is."""
    return tensor.parameter if type(tensor) is RecordedParameter else touched(tensor)
