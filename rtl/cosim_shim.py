"""The C++ around a CXXRTL model: one call drives all its streams over a whole run."""

from __future__ import annotations

from tilewright.rtl.ports import Ports, Stream, Wire

_HEAD = """
#include <cstdint>
#include <cstring>

struct Channel {            // as in tilewright.rtl.cosim
    uint32_t *payloads;     // [beats][words], read for a source, written for a sink
    const int64_t *gaps;    // [beats]
    int64_t *taken;         // [beats], written
    int64_t beats;
    int64_t done;           // written
};

struct Flow {               // where a channel stands
    Channel &channel;
    int64_t next;           // first cycle in which the next beat may move
    explicit Flow(Channel &c) : channel(c), next(c.beats ? c.gaps[0] : 0) { c.done = 0; }
    bool pending() const { return channel.done < channel.beats; }
    bool open(int64_t cycle) const { return pending() && cycle >= next; }
    void take(int64_t cycle) {
        channel.taken[channel.done++] = cycle;
        if (pending()) next = cycle + 1 + channel.gaps[channel.done];
    }
    template<size_t Bits> uint32_t *words() const {
        return channel.payloads + channel.done * cxxrtl::value<Bits>::chunks;
    }
};
"""


def shim(ports: Ports, top: str) -> str:
    """C++ to compile after the model of module `top`: `run(channels, active, limit)`, in the ports' order."""
    sources = [stream for stream in ports.streams if stream.is_input]
    sinks = [stream for stream in ports.streams if not stream.is_input]
    counted = counted_wires(ports)
    flows = [f"    Flow {stream.name}(channels[{at}]);" for at, stream in enumerate(ports.streams)]
    pending = " || ".join(f"{stream.name}.pending()" for stream in sinks)
    return "\n".join(
        [
            _HEAD,
            'extern "C" int64_t run(Channel *channels, int64_t *active, int64_t limit) {',
            f"    cxxrtl_design::{mangled(top)} unit;",
            *flows,
            "    for (int64_t cycle = 0; cycle < limit; cycle++) {",
            *(_offer(stream) for stream in sources),
            *(_listen(stream) for stream in sinks),
            "        unit.p_clk.set<uint32_t>(0);",
            "        unit.step();",
            *(_taken(stream) for stream in sources),
            *(_received(stream) for stream in sinks),
            *(f"        active[{at}] += {_high(wire.name)};" for at, wire in enumerate(counted)),
            f"        if (!({pending})) return cycle + 1;",
            "        unit.p_clk.set<uint32_t>(1);",
            "        unit.step();",
            "    }",
            "    return -1;",
            "}",
            "",
        ]
    )


def counted_wires(ports: Ports) -> list[Wire]:
    """The one-bit outputs, whose high cycles a run counts."""
    return [wire for wire in ports.wires if not wire.is_input and wire.width == 1]


def mangled(name: str) -> str:
    """What CXXRTL calls a module or port."""
    return "p_" + name.replace("_", "__")


def _port(name: str) -> str:
    return f"unit.{mangled(name)}"


def _high(name: str) -> str:
    return f"{_port(name)}.get<uint32_t>()"


def _offer(stream: Stream) -> str:
    payload, valid = _port(f"{stream.name}__payload"), _port(f"{stream.name}__valid")
    return f"""\
        bool {stream.name}_open = {stream.name}.open(cycle);
        {valid}.set<uint32_t>({stream.name}_open);
        if ({stream.name}_open)
            memcpy({payload}.data, {stream.name}.words<{stream.width}>(), sizeof {payload}.data);"""


def _listen(stream: Stream) -> str:
    return f"""\
        bool {stream.name}_open = {stream.name}.open(cycle);
        {_port(stream.name + "__ready")}.set<uint32_t>({stream.name}_open);"""


def _taken(stream: Stream) -> str:
    ready = _high(stream.name + "__ready")
    return f"        if ({stream.name}_open && {ready}) {stream.name}.take(cycle);"


def _received(stream: Stream) -> str:
    payload, valid = _port(f"{stream.name}__payload"), _high(stream.name + "__valid")
    return f"""\
        if ({stream.name}_open && {valid}) {{
            auto payload = cxxrtl::value<{stream.width}>({payload});
            memcpy({stream.name}.words<{stream.width}>(), payload.data, sizeof payload.data);
            {stream.name}.take(cycle);
        }}"""
