"""Modules that are emitted once however often they are placed.

Amaranth emits a module per instance: two 32 x 32 arrays would be 2,048 copies of a processing element.
Elaborated with a `SharedModules` as its platform, a component placed through `place` becomes an instance of
a module that `rtlil_text` appends once. Elaborated without (pysim), it is an ordinary submodule.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Elaboratable, Instance, ResetSignal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In


class SharedModules:
    """The platform that collects components by module name."""

    def __init__(self) -> None:
        self._components: dict[str, wiring.Component] = {}

    def instance(self, name: str, component: wiring.Component) -> Instance:
        """An instance of `component`, which is emitted once as module `name`."""
        self._components.setdefault(name, component)
        component._MustUse__used = True  # else Amaranth warns of every copy that it is not asked to elaborate
        ports: dict[str, Value] = {}
        for path, member, value in component.signature.flatten(component):
            direction = "i" if member.flow == In else "o"
            ports[f"{direction}_{'__'.join(map(str, path))}"] = Value.cast(value)
        return Instance(name, i_clk=ClockSignal(), i_rst=ResetSignal(), **ports)

    def modules(self) -> Iterator[tuple[str, wiring.Component]]:
        """Every component asked for, those that their own elaboration asks for included."""
        done: set[str] = set()
        while waiting := [name for name in self._components if name not in done]:
            for name in waiting:
                done.add(name)
                yield name, self._components[name]


def place(component: wiring.Component, name: str, platform: object) -> Elaboratable | Instance:
    """What to put into `m.submodules` for `component`: itself, or an instance of a module emitted once.

    Two components of one `name` have to be equal. They need a register in the domain `sync`: a module
    without one has no clock to connect.
    """
    return platform.instance(name, component) if isinstance(platform, SharedModules) else component


def rtlil_text(component: wiring.Component, name: str) -> str:
    """RTLIL of `component` as top module `name` and of the modules it shares; the same text every time."""
    platform = SharedModules()
    with _without_garbage_collection():
        parts = [rtlil.convert(component, name=name, platform=platform, emit_src=False)]
        for shared_name, shared in platform.modules():
            text = rtlil.convert(shared, name=shared_name, platform=platform, emit_src=False)
            parts.append(text.replace("attribute \\top 1\n", ""))
    return "\n".join(parts)


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Elaboration makes millions of objects and no garbage worth collecting; this halves its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
